//! The distributor itself: its parts, and the general way in for decoded requests.

use std::sync::Arc;

use async_trait::async_trait;
use hashbrown::HashMap;
use parking_lot::Mutex;
use sextant_model::TenantId;
use sextant_proto::{
    ErrorClass, LimitsHandle, SERIES_DELTA, ShardClient, ShardId, Temporality, TenantLimits, WriteBatchBuilder, WriteError,
    WriteRequest, WriteSink, WriteSummary,
};
use xxhash_rust::xxh3::Xxh3;

use crate::{
    config::DistributorConfig,
    identity::{Form, KeyedHash, SeriesCache},
    metrics::DistributorMetrics,
    rate::TokenBucket,
    rows::{LabelForm, Miss, NEEDS_LABELS, NO_ENTRY, Row, RowExemplar, RowHistogram, RowMetadata, RowSample, Rows},
};

/// Buffers larger than this are not kept for the next request.
const KEPT_BYTES_MAX: usize = 32 << 20;
/// How many workspaces are kept.
const KEPT_WORKSPACES_MAX: usize = 16;

/// What is remembered of a tenant.
#[derive(Debug)]
pub(crate) struct TenantState {
    pub(crate) cache: SeriesCache,
    pub(crate) rate: Mutex<TokenBucket>,
}

/// Reused buffers of one request.
#[derive(Debug, Default)]
pub(crate) struct Workspace {
    /// The decompressed body is the front of this.
    pub(crate) raw: Vec<u8>,
    /// How much of it.
    pub(crate) size: usize,
    pub(crate) rows: Rows,
    pub(crate) epochs: Vec<u64>,
    pub(crate) builders: Vec<WriteBatchBuilder>,
    /// Samples, histograms and exemplars that shards refused.
    pub(crate) refused_items: u64,
    /// Whether spellings are remote write 2.0's.
    pub(crate) v2: bool,
}

impl Workspace {
    pub(crate) fn read_epochs(&mut self, shards: &Arc<dyn ShardClient>) {
        self.epochs.clear();
        self.epochs.extend((0..shards.shard_count()).map(|s| shards.epoch(ShardId(s))));
    }
}

/// Takes writes and routes them to shards.
pub struct Distributor {
    config: DistributorConfig,
    limits: LimitsHandle,
    shards: Arc<dyn ShardClient>,
    tenants: Mutex<HashMap<TenantId, Arc<TenantState>>>,
    workspaces: Mutex<Vec<Workspace>>,
    metrics: DistributorMetrics,
}

impl Distributor {
    /// A distributor over shards.
    pub fn new(config: DistributorConfig, limits: LimitsHandle, shards: Arc<dyn ShardClient>) -> Self {
        Self {
            config,
            limits,
            shards,
            tenants: Mutex::default(),
            workspaces: Mutex::default(),
            metrics: DistributorMetrics::default(),
        }
    }

    /// The distributor's own metrics.
    pub fn metrics(&self) -> &DistributorMetrics {
        &self.metrics
    }

    /// How many series identities are remembered.
    pub fn cached_series(&self) -> usize {
        self.tenants.lock().values().map(|t| t.cache.len()).sum()
    }

    /// The largest request that a tenant may send, in bytes after decompression.
    pub fn max_request_bytes(&self, tenant: &TenantId) -> usize {
        match self.limits_of(tenant).max_request_bytes {
            0 => 1 << 30,
            n => n as usize,
        }
    }

    pub(crate) fn config(&self) -> &DistributorConfig {
        &self.config
    }

    pub(crate) fn shards(&self) -> &Arc<dyn ShardClient> {
        &self.shards
    }

    pub(crate) fn limits_of(&self, tenant: &TenantId) -> Arc<TenantLimits> {
        self.limits.of(tenant)
    }

    pub(crate) fn tenant(&self, tenant: &TenantId) -> Arc<TenantState> {
        let mut tenants = self.tenants.lock();
        if let Some(state) = tenants.get(tenant) {
            return state.clone();
        }
        if tenants.len() >= self.config.cached_tenants_max {
            // Nothing that matters is lost: identities are learned again.
            tenants.clear();
        }
        let state = Arc::new(TenantState { cache: SeriesCache::default(), rate: Mutex::new(TokenBucket::new()) });
        tenants.insert(tenant.clone(), state.clone());
        state
    }

    pub(crate) fn take_workspace(&self) -> Workspace {
        self.workspaces.lock().pop().unwrap_or_default()
    }

    pub(crate) fn give_workspace(&self, workspace: Workspace) {
        let mut kept = self.workspaces.lock();
        let bytes = workspace.raw.capacity() + workspace.rows.capacity_bytes();
        if kept.len() < KEPT_WORKSPACES_MAX && bytes <= KEPT_BYTES_MAX {
            kept.push(workspace);
        }
    }

    /// Rows of a decoded request.
    fn take_apart(&self, tenant: &TenantId, request: &WriteRequest, workspace: &mut Workspace) {
        workspace.rows.clear();
        workspace.refused_items = 0;
        workspace.v2 = false;
        workspace.read_epochs(&self.shards);
        let state = self.tenant(tenant);
        let identities = state.cache.read(&workspace.epochs, self.config.cached_series_max);
        let hash = KeyedHash::of(Form::Canonical);
        let rows = &mut workspace.rows;
        rows.generation = identities.generation();
        for (i, series) in request.series.iter().enumerate() {
            let row = rows.series.len() as u32;
            let is_delta = series.temporality == Temporality::Delta;
            let mut at = Row {
                raw: NO_ENTRY,
                entry: NO_ENTRY,
                sent: NEEDS_LABELS,
                shard: 0,
                labels: (i as u32, 0),
                form: LabelForm::Model,
                has_data: true,
                flags: if is_delta { SERIES_DELTA } else { 0 },
            };
            let canonical = hash.hash(series.labels.as_bytes());
            match identities.find_canonical(canonical) {
                Some(entry) => {
                    let place = identities.place(entry, &workspace.epochs);
                    (at.raw, at.entry, at.sent, at.shard) = (entry, place.entry, place.sent, place.shard);
                }
                None => rows.misses.push(Miss { row, hash: canonical }),
            }
            if at.sent == NEEDS_LABELS {
                rows.needs_labels.push(row);
            }
            rows.series.push(at);
            rows.samples.extend(series.samples.iter().map(|s| RowSample { row, t: s.t, v: s.v, start: s.start }));
            for h in &series.histograms {
                if !sextant_model::is_stale_nan(h.h.sum)
                    && let Err(e) = h.h.validate()
                {
                    let shown = series.labels.to_string();
                    rows.refused.push(ErrorClass::BadRequest, || {
                        let reason = format!("invalid histogram: {e} (series {shown})");
                        (shown, reason)
                    });
                    continue;
                }
                let encoded = rows.put_blob(|out| h.h.encode(out));
                rows.histograms.push(RowHistogram { row, t: h.t, start: h.start, encoded });
            }
            for e in &series.exemplars {
                let labels = rows.put_blob(|out| out.extend_from_slice(e.labels.as_bytes()));
                rows.exemplars.push(RowExemplar { row, t: e.t, v: e.v, labels });
            }
            if let Some(metadata) = &series.metadata {
                let family = series.labels.metric_name().to_owned();
                rows.metadata.push(RowMetadata { family, metadata: metadata.clone(), shard: 0 });
            }
        }
        for (family, metadata) in &request.metadata {
            rows.metadata.push(RowMetadata { family: family.clone(), metadata: metadata.clone(), shard: 0 });
        }
    }
}

/// The id of a decoded request: of its content.
fn write_id(tenant: &TenantId, request: &WriteRequest) -> u128 {
    let mut hash = Xxh3::new();
    let mut buf = Vec::new();
    hash.update(tenant.as_str().as_bytes());
    for s in &request.series {
        hash.update(s.labels.as_bytes());
        hash.update(&[0xff, s.temporality as u8]);
        for x in &s.samples {
            hash.update(&x.t.to_le_bytes());
            hash.update(&x.v.to_bits().to_le_bytes());
            hash.update(&x.start.to_le_bytes());
        }
        for h in &s.histograms {
            buf.clear();
            h.h.encode(&mut buf);
            hash.update(&h.t.to_le_bytes());
            hash.update(&h.start.to_le_bytes());
            hash.update(&buf);
        }
        for e in &s.exemplars {
            hash.update(&e.t.to_le_bytes());
            hash.update(&e.v.to_bits().to_le_bytes());
            hash.update(e.labels.as_bytes());
        }
    }
    for (family, m) in &request.metadata {
        hash.update(family.as_bytes());
        hash.update(&[0xfe, m.metric_type as u8]);
        hash.update(m.help.as_bytes());
        hash.update(&[0xfe]);
        hash.update(m.unit.as_bytes());
    }
    hash.digest128()
}

#[async_trait]
impl WriteSink for Distributor {
    async fn write(&self, tenant: &TenantId, request: WriteRequest) -> Result<WriteSummary, WriteError> {
        DistributorMetrics::add(&self.metrics.requests, 1);
        let mut workspace = self.take_workspace();
        self.take_apart(tenant, &request, &mut workspace);
        let id = request.write_id.unwrap_or_else(|| write_id(tenant, &request));
        let count = workspace.rows.item_count();
        let limits = self.limits_of(tenant);
        let taken = self.tenant(tenant).rate.lock().take(count, &limits, std::time::Instant::now());
        let result = match taken {
            Ok(()) => self.send(tenant, &mut workspace, Some(&request), id).await,
            Err(e) => Err(e.into()),
        };
        self.give_workspace(workspace);
        if result.is_err() {
            DistributorMetrics::add(&self.metrics.failed_requests, 1);
        }
        result
    }
}
