//! What one query sees: for each tenant one manifest version, its blocks, and the shards' generations after it.
//!
//! Constraint: the manifest is taken **before** the heads are read. A generation that was flushed in between is then still in
//! its shard (shards keep flushed generations for a grace time that is longer than a query may take), and since the shard is asked for
//! what comes after the position that this version covers, each row is read exactly once.

mod parts;
mod scan;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt, TryStreamExt, stream};
use parking_lot::Mutex;
use sextant_model::{Labels, Matcher, SeriesBuf, SeriesSet, TenantId};
use sextant_proto::{
    ExemplarSeries, MetadataEntry, SelectLimits, SelectRequest, ShardClient, ShardError, ShardId,
};
use sextant_storage::{
    BlockCache, BlockMeta, BlockReader, BlockSelect, Manifest, Manifests, ObjectStore, ReadStats,
    SelectHints, merge_series_sets,
};

pub use self::parts::SelectParts;
use self::parts::Source;
pub use self::scan::{Scanned, Scope};
use crate::error::QueryError;

/// The label that names the tenant where a query reads several.
pub const TENANT_LABEL: &str = "__tenant_id__";

/// How many blocks are read at a time by one query.
const BLOCKS_AT_ONCE: usize = 4;

/// How long a shard may take where a partial answer is allowed.
const PARTIAL_PATIENCE: Duration = Duration::from_secs(5);

/// Where data is: shared by all queries.
#[derive(Clone)]
pub struct DataSource {
    /// The object store.
    pub store: Arc<dyn ObjectStore>,
    /// The manifests of the metrics signal.
    pub manifests: Arc<Manifests>,
    /// The ingesters.
    pub shards: Arc<dyn ShardClient>,
    /// Verified pieces of blocks.
    pub cache: Arc<BlockCache>,
}

struct TenantView {
    tenant: TenantId,
    manifest: Arc<Manifest>,
}

/// One query's view.
pub struct Dataset {
    source: DataSource,
    tenants: Vec<TenantView>,
    /// Where shards that do not answer are noted instead of failing the query.
    missing: Option<Arc<MissingShards>>,
    /// What was read from blocks.
    pub stats: Arc<ReadStats>,
}

/// Shards without an answer, and why.
#[derive(Debug, Default)]
pub struct MissingShards(Mutex<BTreeMap<u32, String>>);

impl MissingShards {
    /// What a reader of the answer must know, one text per shard.
    pub fn warnings(&self) -> Vec<String> {
        let warning = |(shard, why): (&u32, &String)| {
            format!("partial answer: recent data of shard {shard} is missing: {why}")
        };
        self.0.lock().iter().map(warning).collect()
    }

    /// An answer, or a note that there is none; errors that another attempt would not mend stay errors.
    async fn tolerate<T>(
        &self,
        shard: u32,
        asked: impl Future<Output = Result<T, ShardError>>,
    ) -> Result<Option<T>, ShardError> {
        let why = match tokio::time::timeout(PARTIAL_PATIENCE, asked).await {
            Ok(Ok(answer)) => return Ok(Some(answer)),
            Ok(Err(ShardError::Unavailable(why))) => why,
            Ok(Err(e)) => return Err(e),
            Err(_) => format!("no answer within {PARTIAL_PATIENCE:?}"),
        };
        self.0.lock().insert(shard, why);
        Ok(None)
    }
}

/// What to read.
#[derive(Clone, Debug)]
pub struct Selection {
    /// All must match.
    pub matchers: Vec<Matcher>,
    /// First timestamp, inclusive, milliseconds.
    pub start: i64,
    /// Last timestamp, inclusive, milliseconds.
    pub end: i64,
    /// Bounds.
    pub limits: SelectLimits,
}

impl Dataset {
    /// Takes one manifest version of each tenant.
    pub async fn open(source: &DataSource, tenants: &[TenantId]) -> Result<Self, QueryError> {
        if source.shards.shard_count() == 0 {
            let reason = "no ingester of the cluster is known yet";
            return Err(ShardError::Unavailable(reason.to_owned()).into());
        }
        let mut views = Vec::with_capacity(tenants.len());
        for tenant in tenants {
            views.push(TenantView { tenant: tenant.clone(), manifest: source.manifests.load(tenant).await? });
        }
        Ok(Self { source: source.clone(), tenants: views, missing: None, stats: Arc::default() })
    }

    /// The same view; shards that do not answer are noted in `missing`, and their recent data is left out.
    pub fn tolerating(self, missing: Arc<MissingShards>) -> Self {
        Self { missing: Some(missing), ..self }
    }

    /// The samples of matching series, in order of labels, each timestamp once.
    pub async fn select(&self, selection: &Selection) -> Result<SeriesSet, QueryError> {
        let mut parts = Vec::new();
        for (view, matchers) in self.views(&selection.matchers) {
            let set = self.select_tenant(view, matchers, selection).await?;
            parts.push((0, if self.federated() { with_tenant(set, &view.tenant) } else { set }));
        }
        let set = if parts.len() == 1 { parts.remove(0).1 } else { merge_series_sets(parts) };
        check_limits(&set, selection.limits)?;
        Ok(set)
    }

    /// The same, in parts of about `target` samples that are read one by one; at least `least` parts where there are
    /// as many series.
    pub async fn select_parts(
        &self,
        selection: &Selection,
        target: usize,
        least: usize,
    ) -> Result<SelectParts, QueryError> {
        let sources = match &self.tenants[..] {
            [view] => self.sources(view, selection).await?,
            // The tenant's label changes the order of series.
            _ => vec![Source::Head(Arc::new(self.select(selection).await?))],
        };
        SelectParts::new(sources, target, least, self.stats.clone(), selection.limits)
    }

    async fn sources(&self, view: &TenantView, selection: &Selection) -> Result<Vec<Source>, QueryError> {
        let matchers = selection.matchers.clone();
        let heads = self.each_shard(
            view,
            matchers.clone(),
            selection.start,
            selection.end,
            selection.limits,
            |shards, shard, r| Box::pin(async move { shards.find(shard, r).await }),
        );
        let mut select = self.block_select(&matchers, selection);
        select.hints = SelectHints::default();
        let blocks = stream::iter(self.blocks(view, selection.start, selection.end))
            .map(|meta| async {
                let reader = self.reader(view, meta).await?;
                Ok::<_, QueryError>(reader.selection(select.clone(), &self.stats).await?)
            })
            .buffered(BLOCKS_AT_ONCE)
            .try_collect::<Vec<_>>();
        let (heads, blocks) = futures::try_join!(heads, blocks)?;
        Ok(blocks
            .into_iter()
            .map(|b| Source::Block(Box::new(b)))
            .chain(heads.into_iter().flatten().map(Source::Head))
            .collect())
    }

    async fn select_tenant(
        &self,
        view: &TenantView,
        matchers: Vec<Matcher>,
        selection: &Selection,
    ) -> Result<SeriesSet, QueryError> {
        let select = BlockSelect {
            matchers: matchers.clone(),
            start: selection.start,
            end: selection.end,
            limits: selection.limits,
            hints: SelectHints::default(),
        };
        let heads = self.each_shard(
            view,
            matchers,
            selection.start,
            selection.end,
            selection.limits,
            |shards, shard, r| Box::pin(async move { shards.select(shard, r).await }),
        );
        let blocks = stream::iter(self.blocks(view, selection.start, selection.end))
            .map(|meta| self.read_block(view, meta, select.clone()))
            .buffer_unordered(BLOCKS_AT_ONCE)
            .try_collect::<Vec<_>>();
        let (heads, mut parts) = futures::try_join!(heads, blocks)?;
        parts.extend(heads.into_iter().map(|set| (u64::MAX, set)));
        parts.retain(|(_, set)| !set.is_empty());
        Ok(merge_series_sets(parts))
    }

    async fn read_block(
        &self,
        view: &TenantView,
        meta: Arc<BlockMeta>,
        select: BlockSelect,
    ) -> Result<(u64, SeriesSet), QueryError> {
        let (store, tenant, cache, stats) =
            (self.source.store.clone(), view.tenant.clone(), self.source.cache.clone(), self.stats.clone());
        let seq = meta.priority();
        let tombstones = view.manifest.tombstones_of(&meta);
        // Decoding is work for a core: a task of its own, so that several blocks use several.
        let task = tokio::spawn(async move {
            let reader = BlockReader::open(store, &tenant, meta, &tombstones, cache).await?;
            reader.select(&select, &stats).await
        });
        let set = AbortOnDrop(task).join().await?;
        Ok((seq, set?))
    }

    /// The labels of matching series with a sample in the range, sorted and unique.
    pub async fn series(&self, selection: &Selection) -> Result<Vec<Labels>, QueryError> {
        let mut out = BTreeSet::new();
        for (view, matchers) in self.views(&selection.matchers) {
            let select = self.block_select(&matchers, selection);
            let heads = self
                .each_shard(
                    view,
                    matchers,
                    selection.start,
                    selection.end,
                    selection.limits,
                    |shards, shard, r| Box::pin(async move { shards.series(shard, r).await }),
                )
                .await?;
            let mut found: Vec<Labels> = heads.into_iter().flatten().collect();
            for meta in self.blocks(view, selection.start, selection.end) {
                found.extend(self.reader(view, meta).await?.series(&select, &self.stats).await?);
            }
            for labels in found {
                out.insert(if self.federated() { tenant_labels(&labels, &view.tenant) } else { labels });
            }
        }
        Ok(out.into_iter().collect())
    }

    /// The distinct values of a label, or with `None` the distinct label names, over matching series; sorted.
    pub async fn label_values(
        &self,
        selection: &Selection,
        label: Option<&str>,
    ) -> Result<Vec<String>, QueryError> {
        let mut out = BTreeSet::new();
        for (view, matchers) in self.views(&selection.matchers) {
            if self.federated() && label == Some(TENANT_LABEL) {
                out.insert(view.tenant.to_string());
                continue;
            }
            if self.federated() && label.is_none() {
                out.insert(TENANT_LABEL.to_owned());
            }
            let select = self.block_select(&matchers, selection);
            let heads = self
                .each_shard(
                    view,
                    matchers,
                    selection.start,
                    selection.end,
                    selection.limits,
                    |shards, shard, r| {
                        let label = label.map(str::to_owned);
                        Box::pin(async move { shards.label_values(shard, r, label).await })
                    },
                )
                .await?;
            out.extend(heads.into_iter().flatten());
            for meta in self.blocks(view, selection.start, selection.end) {
                let reader = self.reader(view, meta).await?;
                out.extend(match label {
                    Some(l) => reader.label_values(l, &select, &self.stats).await?,
                    None => reader.label_names(&select, &self.stats).await?,
                });
            }
        }
        Ok(out.into_iter().collect())
    }

    /// Exemplars of matching series in the range.
    pub async fn exemplars(&self, selection: &Selection) -> Result<Vec<ExemplarSeries>, QueryError> {
        let mut by_series = std::collections::BTreeMap::<Labels, Vec<sextant_model::Exemplar>>::new();
        for (view, matchers) in self.views(&selection.matchers) {
            let select = self.block_select(&matchers, selection);
            let heads = self
                .each_shard(
                    view,
                    matchers,
                    selection.start,
                    selection.end,
                    selection.limits,
                    |shards, shard, r| Box::pin(async move { shards.exemplars(shard, r).await }),
                )
                .await?;
            let mut found: Vec<ExemplarSeries> = heads.into_iter().flatten().collect();
            for meta in self.blocks(view, selection.start, selection.end) {
                found.extend(self.reader(view, meta).await?.exemplars(&select, &self.stats).await?);
            }
            for series in found {
                let labels = if self.federated() {
                    tenant_labels(&series.labels, &view.tenant)
                } else {
                    series.labels
                };
                by_series.entry(labels).or_default().extend(series.exemplars);
            }
        }
        Ok(by_series
            .into_iter()
            .map(|(labels, mut exemplars)| {
                exemplars.sort_by(|a, b| (a.t, &a.labels).cmp(&(b.t, &b.labels)).then(a.v.total_cmp(&b.v)));
                exemplars.dedup();
                ExemplarSeries { labels, exemplars }
            })
            .collect())
    }

    /// All metadata, the head's before the blocks'; unique.
    pub async fn metadata(&self) -> Result<Vec<MetadataEntry>, QueryError> {
        let mut seen = std::collections::HashSet::new();
        let mut out = Vec::new();
        for view in &self.tenants {
            for shard in 0..self.source.shards.shard_count() {
                let after = covered(&view.manifest, shard);
                for entry in self.source.shards.metadata(ShardId(shard), view.tenant.clone(), after).await? {
                    if seen.insert(entry.clone()) {
                        out.push(entry);
                    }
                }
            }
            for meta in self.blocks(view, i64::MIN, i64::MAX).into_iter().rev() {
                for entry in self.reader(view, meta).await?.metadata(&self.stats).await? {
                    if seen.insert(entry.clone()) {
                        out.push(entry);
                    }
                }
            }
        }
        Ok(out)
    }

    /// The tenants of the query.
    pub fn tenants(&self) -> impl Iterator<Item = &TenantId> {
        self.tenants.iter().map(|v| &v.tenant)
    }

    /// The blocks of all tenants that the query may read.
    pub fn block_count(&self) -> usize {
        self.tenants.iter().map(|v| v.manifest.blocks.len()).sum()
    }

    fn federated(&self) -> bool {
        self.tenants.len() > 1
    }

    /// The tenants that matchers on [`TENANT_LABEL`] leave, with the other matchers.
    fn views(&self, matchers: &[Matcher]) -> Vec<(&TenantView, Vec<Matcher>)> {
        if !self.federated() {
            return self.tenants.iter().map(|v| (v, matchers.to_vec())).collect();
        }
        let (on_tenant, rest): (Vec<_>, Vec<_>) =
            matchers.iter().cloned().partition(|m| m.name == TENANT_LABEL);
        self.tenants
            .iter()
            .filter(|v| on_tenant.iter().all(|m| m.matches(v.tenant.as_str())))
            .map(|v| (v, rest.clone()))
            .collect()
    }

    fn blocks(&self, view: &TenantView, start: i64, end: i64) -> Vec<Arc<BlockMeta>> {
        view.manifest.blocks.iter().filter(|b| b.overlaps(start, end)).cloned().map(Arc::new).collect()
    }

    async fn reader(&self, view: &TenantView, meta: Arc<BlockMeta>) -> Result<BlockReader, QueryError> {
        let (store, cache) = (self.source.store.clone(), self.source.cache.clone());
        let tombstones = view.manifest.tombstones_of(&meta);
        Ok(BlockReader::open(store, &view.tenant, meta, &tombstones, cache).await?)
    }

    fn block_select(&self, matchers: &[Matcher], selection: &Selection) -> BlockSelect {
        BlockSelect {
            matchers: matchers.to_vec(),
            start: selection.start,
            end: selection.end,
            limits: selection.limits,
            hints: SelectHints { samples: false, ..SelectHints::default() },
        }
    }

    async fn each_shard<T, F>(
        &self,
        view: &TenantView,
        matchers: Vec<Matcher>,
        start: i64,
        end: i64,
        limits: SelectLimits,
        ask: F,
    ) -> Result<Vec<T>, QueryError>
    where
        F: Fn(
            Arc<dyn ShardClient>,
            ShardId,
            SelectRequest,
        ) -> futures::future::BoxFuture<'static, Result<T, ShardError>>,
    {
        let asked = (0..self.source.shards.shard_count()).map(|shard| {
            let request = SelectRequest {
                tenant: view.tenant.clone(),
                matchers: matchers.clone(),
                start,
                end,
                after: covered(&view.manifest, shard),
                limits,
            };
            let answer = ask(self.source.shards.clone(), ShardId(shard), request);
            async move {
                match &self.missing {
                    Some(missing) => missing.tolerate(shard, answer).await,
                    None => answer.await.map(Some),
                }
            }
        });
        Ok(futures::future::try_join_all(asked).await?.into_iter().flatten().collect())
    }
}

fn covered(manifest: &Manifest, shard: u32) -> u64 {
    manifest.covered.get(&shard).copied().unwrap_or(0)
}

fn check_limits(set: &SeriesSet, limits: SelectLimits) -> Result<(), QueryError> {
    if set.len() > limits.series_max {
        return Err(QueryError::limit("series", "max_query_series", limits.series_max));
    }
    if set.sample_count() > limits.samples_max {
        return Err(QueryError::limit("samples", "max_query_samples", limits.samples_max));
    }
    Ok(())
}

fn tenant_labels(labels: &Labels, tenant: &TenantId) -> Labels {
    labels.to_builder().set(TENANT_LABEL, tenant.as_str()).build()
}

/// Adds the tenant's label to every series; the label may change their order.
fn with_tenant(set: SeriesSet, tenant: &TenantId) -> SeriesSet {
    let mut order: Vec<(Labels, usize)> =
        set.labels.iter().enumerate().map(|(i, l)| (tenant_labels(l, tenant), i)).collect();
    order.sort();
    let mut out = SeriesSet::new();
    let mut buf = SeriesBuf::default();
    for (labels, i) in order {
        buf.clear();
        let (t, v) = set.floats(i);
        buf.t.extend_from_slice(t);
        buf.v.extend_from_slice(v);
        buf.start.extend_from_slice(set.starts(i));
        buf.h.extend_from_slice(set.histograms(i));
        out.push(labels, &buf);
    }
    out
}

/// A task that ends when its query does.
struct AbortOnDrop<T>(tokio::task::JoinHandle<T>);

impl<T> AbortOnDrop<T> {
    async fn join(mut self) -> Result<T, QueryError> {
        (&mut self.0).await.map_err(|e| QueryError::Internal(format!("a reader task failed: {e}")))
    }
}

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
