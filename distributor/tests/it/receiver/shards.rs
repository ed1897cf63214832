//! Shards in memory that keep the contract: refs per epoch, write ids once, refusals by limit; and that fail on demand.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use sextant_distributor::{Distributor, DistributorConfig, RemoteWriteAnswer, RemoteWriteHeaders};
use sextant_model::{Exemplar, Histogram, Labels, MetricMetadata, SeriesSet, TenantId};
use sextant_proto::{
    AppendOutcome, ExemplarSeries, Limits, LimitsHandle, MetadataEntry, NEW_SERIES_BASE, Refusal,
    RefusalKind, SERIES_DELTA, SelectRequest, ShardClient, ShardError, ShardId, ShardStats, TenantLimits,
    WriteBatchView,
};

/// What a series has got.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stored {
    /// Timestamp, value bits, start timestamp; sorted by the reader.
    pub samples: Vec<(i64, u64, i64)>,
    pub histograms: Vec<(i64, i64, Histogram)>,
    pub exemplars: Vec<Exemplar>,
    pub is_delta: bool,
}

#[derive(Default)]
struct Shard {
    epoch: u64,
    /// Of this epoch: series by ref.
    refs: Vec<(String, Labels)>,
    applied: HashSet<u128>,
}

/// What tests look at and change.
#[derive(Default)]
pub struct State {
    shards: Vec<Shard>,
    /// No epoch is ever used twice, not even by a shard that went and came again.
    last_epoch: u64,
    pub stored: BTreeMap<(String, Labels), Stored>,
    pub metadata: Vec<(String, String, MetricMetadata)>,
    /// Which shard each series was written to.
    pub places: HashMap<Labels, HashSet<u32>>,
    /// Answers for the next appends, first come first.
    pub failures: Vec<ShardError>,
    /// Fail after applying: the answer is lost.
    pub lose_answers: u32,
    /// Begin a new epoch before so many of the next appends.
    pub new_epochs: u32,
    pub write_ids: Vec<u128>,
    pub new_series: u64,
    pub appends: u64,
}

impl State {
    pub fn begin_epoch(&mut self) {
        self.last_epoch += 1;
        for shard in &mut self.shards {
            shard.epoch = self.last_epoch;
            shard.refs.clear();
        }
    }

    pub fn set_shard_count(&mut self, n: usize) {
        self.last_epoch += 1;
        let epoch = self.last_epoch;
        self.shards.resize_with(n, || Shard { epoch, ..Shard::default() });
    }

    pub fn of(&self, labels: &str) -> Stored {
        let found = self.stored.iter().find(|((_, l), _)| l.to_string() == labels);
        let mut out = found.map(|(_, s)| s.clone()).unwrap_or_default();
        out.samples.sort_unstable();
        out
    }

    pub fn names(&self) -> Vec<String> {
        self.stored.keys().map(|(_, l)| l.to_string()).collect()
    }

    fn append(&mut self, shard_id: ShardId, batch: &[u8]) -> Result<AppendOutcome, ShardError> {
        self.appends += 1;
        if !self.failures.is_empty() {
            return Err(self.failures.remove(0));
        }
        if self.new_epochs > 0 {
            self.new_epochs -= 1;
            self.begin_epoch();
        }
        let view = WriteBatchView::parse(batch).map_err(|e| ShardError::Malformed(e.to_string()))?;
        let tenant = view.header.tenant.to_owned();
        self.write_ids.push(view.header.write_id);
        let shard = self
            .shards
            .get_mut(shard_id.0 as usize)
            .ok_or(ShardError::Unavailable("no such shard".into()))?;
        let known = |s: u32| s < NEW_SERIES_BASE;
        let uses_refs = view.runs.iter().any(|r| known(r.first))
            || view.histograms.iter().any(|h| known(h.series))
            || view.exemplars.iter().any(|e| known(e.series));
        if shard.applied.contains(&view.header.write_id) {
            let new_refs = vec![u32::MAX; view.new_series.len()];
            return Ok(AppendOutcome { epoch: shard.epoch, new_refs, duplicate: true, refused: vec![] });
        }
        if uses_refs && view.header.epoch != shard.epoch {
            return Err(ShardError::StaleEpoch { current: shard.epoch });
        }
        let mut new_refs = Vec::new();
        let mut new_labels = Vec::new();
        for new in &view.new_series {
            let labels = Labels::from_canonical_bytes(new.labels)
                .map_err(|e| ShardError::Malformed(format!("labels: {e}")))?;
            assert!(!new_labels.contains(&labels), "{labels} is twice new in one batch");
            self.new_series += 1;
            new_labels.push(labels.clone());
            self.places.entry(labels.clone()).or_default().insert(shard_id.0);
            let key = (tenant.clone(), labels);
            let of_tenant = shard.refs.iter().filter(|r| r.0 == tenant).count() as u64;
            let given = match shard.refs.iter().position(|r| *r == key) {
                Some(i) => i as u32,
                None if view.header.max_series > 0 && of_tenant >= view.header.max_series => u32::MAX,
                None => {
                    shard.refs.push(key.clone());
                    shard.refs.len() as u32 - 1
                }
            };
            if given != u32::MAX {
                self.stored.entry(key).or_default().is_delta |= new.flags & SERIES_DELTA != 0;
            }
            new_refs.push(given);
        }
        let mut refused: BTreeMap<u32, (u32, RefusalKind)> = BTreeMap::new();
        let oldest = match view.header.ooo_window_ms {
            ..0 => i64::MIN,
            window => view.header.now_ms - window,
        };
        let mut key_of = |series: u32, t: i64| -> Result<Option<(String, Labels)>, ShardError> {
            let at = if known(series) { series } else { new_refs[(series - NEW_SERIES_BASE) as usize] };
            let kind = if at == u32::MAX { RefusalKind::SeriesLimit } else { RefusalKind::OutsideWindow };
            if at == u32::MAX || t < oldest {
                refused.entry(series).or_insert((0, kind)).0 += 1;
                return Ok(None);
            }
            let bad = || ShardError::Malformed(format!("ref {at} was never given"));
            shard.refs.get(at as usize).cloned().map(Some).ok_or_else(bad)
        };
        let mut values = view.values().enumerate();
        let start_of = |n: usize| {
            let inside = |s: &&(u32, u32, i64)| (s.0..s.0 + s.1).contains(&(n as u32));
            view.starts.iter().find(inside).map_or(0, |s| s.2)
        };
        for run in &view.runs {
            for series in run.first..run.first + run.count {
                let (n, v) = values.next().ok_or(ShardError::Malformed("values".into()))?;
                if let Some(key) = key_of(series, run.t)? {
                    assert_eq!(key.0, tenant, "a ref of another tenant");
                    let stored = self.stored.entry(key).or_default();
                    stored.samples.push((run.t, v.to_bits(), start_of(n)));
                }
            }
        }
        for h in &view.histograms {
            let decoded =
                Histogram::decode(&mut &h.encoded[..]).map_err(|e| ShardError::Malformed(e.to_string()))?;
            if let Some(key) = key_of(h.series, h.t)? {
                self.stored.entry(key).or_default().histograms.push((h.t, h.start, decoded));
            }
        }
        for e in &view.exemplars {
            let labels =
                Labels::from_canonical_bytes(e.labels).map_err(|e| ShardError::Malformed(e.to_string()))?;
            if let Some(key) = key_of(e.series, e.t)? {
                self.stored.entry(key).or_default().exemplars.push(Exemplar { t: e.t, v: e.v, labels });
            }
        }
        let metadata =
            view.metadata.iter().map(|(family, m)| (tenant.clone(), (*family).to_owned(), m.clone()));
        self.metadata.extend(metadata);
        shard.applied.insert(view.header.write_id);
        let refused = refused.into_iter().map(|(series, (samples, kind))| Refusal { series, samples, kind });
        let (epoch, refused) = (shard.epoch, refused.collect());
        if self.lose_answers > 0 {
            self.lose_answers -= 1;
            return Err(ShardError::Unavailable("the answer was lost".into()));
        }
        Ok(AppendOutcome { epoch, new_refs, duplicate: false, refused })
    }
}

/// The shards; clones share their state.
#[derive(Clone)]
pub struct Shards(pub Arc<Mutex<State>>);

impl Shards {
    pub fn new(n: usize) -> Self {
        let mut state = State::default();
        state.set_shard_count(n);
        Self(Arc::new(Mutex::new(state)))
    }

    pub fn distributor(&self, limits: TenantLimits, config: DistributorConfig) -> Distributor {
        Distributor::new(config, LimitsHandle::new(Limits::new(limits)), Arc::new(self.clone()))
    }

    pub fn plain(&self) -> Distributor {
        self.distributor(TenantLimits::default(), DistributorConfig::default())
    }
}

#[async_trait]
impl ShardClient for Shards {
    fn shard_count(&self) -> u32 {
        self.0.lock().shards.len() as u32
    }

    fn epoch(&self, shard: ShardId) -> u64 {
        self.0.lock().shards.get(shard.0 as usize).map_or(0, |s| s.epoch)
    }

    async fn append(&self, shard: ShardId, batch: Bytes) -> Result<AppendOutcome, ShardError> {
        tokio::task::yield_now().await;
        self.0.lock().append(shard, &batch)
    }

    async fn select(&self, _: ShardId, _: SelectRequest) -> Result<SeriesSet, ShardError> {
        Ok(SeriesSet::default())
    }

    async fn series(&self, _: ShardId, _: SelectRequest) -> Result<Vec<Labels>, ShardError> {
        Ok(Vec::new())
    }

    async fn label_values(
        &self,
        _: ShardId,
        _: SelectRequest,
        _: Option<String>,
    ) -> Result<Vec<String>, ShardError> {
        Ok(Vec::new())
    }

    async fn exemplars(&self, _: ShardId, _: SelectRequest) -> Result<Vec<ExemplarSeries>, ShardError> {
        Ok(Vec::new())
    }

    async fn metadata(&self, _: ShardId, _: TenantId, _: u64) -> Result<Vec<MetadataEntry>, ShardError> {
        Ok(Vec::new())
    }

    async fn stats(&self, _: ShardId, _: TenantId, _: u64) -> Result<ShardStats, ShardError> {
        Ok(ShardStats::default())
    }

    async fn tenants(&self, _: ShardId) -> Result<Vec<TenantId>, ShardError> {
        Ok(Vec::new())
    }
}

pub const V2_TYPE: &str = "application/x-protobuf;proto=io.prometheus.write.v2.Request";

/// The usual headers of a version.
pub fn headers(version: u32) -> RemoteWriteHeaders {
    let content_type = if version == 2 { V2_TYPE } else { "application/x-protobuf" };
    RemoteWriteHeaders {
        content_type: Some(content_type.into()),
        content_encoding: Some("snappy".into()),
        version: None,
    }
}

/// Sends a message as the anonymous tenant.
pub async fn send(d: &Distributor, version: u32, message: &[u8]) -> RemoteWriteAnswer {
    let body = snap::raw::Encoder::new().compress_vec(message).unwrap();
    d.remote_write(&TenantId::anonymous(), &headers(version), body.into()).await
}

/// The value of a header.
pub fn header(answer: &RemoteWriteAnswer, name: &str) -> Option<String> {
    answer.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.clone())
}

/// The three counters of 2.0.
pub fn written(answer: &RemoteWriteAnswer) -> Vec<String> {
    ["Samples", "Histograms", "Exemplars"]
        .iter()
        .filter_map(|k| header(answer, &format!("X-Prometheus-Remote-Write-{k}-Written")))
        .collect()
}
