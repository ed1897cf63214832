//! Shards in memory: they assign refs per tenant and epoch, refuse refs of an epoch that has ended, and keep what came.
//!
//! What a batch may not do is an error of the test that sent it: refs that were never given, labels that are not
//! canonical, one series in two shards.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use sextant_model::{Histogram, Labels, MetricMetadata, SeriesSet, TenantId};
use sextant_proto::{
    AppendOutcome, ExemplarSeries, MetadataEntry, NEW_SERIES_BASE, Refusal, RefusalKind, SERIES_DELTA,
    SelectRequest, ShardClient, ShardError, ShardId, ShardStats, WriteBatchView,
};

/// What a series holds, in order of arrival.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stored {
    /// Timestamp, bits of the value, start timestamp.
    pub samples: Vec<(i64, u64, i64)>,
    pub histograms: Vec<(i64, Histogram, i64)>,
    pub exemplars: Vec<(i64, u64, Labels)>,
    pub is_delta: bool,
}

/// Tenant and series as text.
pub type Key = (String, String);

#[derive(Debug, Default)]
struct Shard {
    epoch: u64,
    /// The series of this epoch by ref.
    known: HashMap<(String, u32), (Vec<u8>, u8)>,
    refs: HashMap<(String, Vec<u8>, u8), u32>,
    applied: HashSet<(String, u128)>,
    series: BTreeMap<Key, Stored>,
    metadata: BTreeMap<(String, String), MetricMetadata>,
    batches: u64,
    duplicates: u64,
    labels_received: u64,
    /// This many appends begin a new epoch first.
    epochs_to_begin: u32,
    /// Answers to the next appends; what is `applied` fails after it was stored.
    failures: Vec<(ShardError, bool)>,
    write_ids: Vec<u128>,
    /// Series limit, out-of-order window and time of the last batch.
    last_limits: Option<(u64, i64, i64)>,
}

/// The shards.
#[derive(Debug)]
pub struct Fake {
    shards: Vec<Mutex<Shard>>,
    announced_epochs: Mutex<Vec<u64>>,
}

impl Fake {
    pub fn new(shards: usize) -> Arc<Self> {
        let shard = |_| Mutex::new(Shard { epoch: 1, ..Shard::default() });
        Arc::new(Self {
            shards: (0..shards).map(shard).collect(),
            announced_epochs: Mutex::new(vec![1; shards]),
        })
    }

    /// Begins a new epoch; `is_told` is whether distributors learn it before they send.
    pub fn begin_epoch(&self, shard: usize, is_told: bool) {
        let mut s = self.shards[shard].lock();
        s.begin_epoch();
        if is_told {
            self.announced_epochs.lock()[shard] = s.epoch;
        }
    }

    /// The next `n` appends each find that a new epoch has begun since the distributor looked.
    pub fn begin_epochs_before_appends(&self, shard: usize, n: u32) {
        self.shards[shard].lock().epochs_to_begin = n;
    }

    /// The next append fails; `is_applied` is whether its data are stored all the same.
    pub fn fail_next(&self, shard: usize, e: ShardError, is_applied: bool) {
        self.shards[shard].lock().failures.push((e, is_applied));
    }

    /// Appends that were to fail do not.
    pub fn forget_failures(&self) {
        self.shards.iter().for_each(|s| s.lock().failures.clear());
    }

    /// Everything stored. A series that is in two shards is an error.
    pub fn stored(&self) -> BTreeMap<Key, Stored> {
        let mut out = BTreeMap::new();
        for shard in &self.shards {
            for (key, stored) in &shard.lock().series {
                assert!(out.insert(key.clone(), stored.clone()).is_none(), "{key:?} is in two shards");
            }
        }
        out
    }

    /// Series of the anonymous tenant as text, in order.
    pub fn series(&self) -> Vec<String> {
        self.stored().into_keys().map(|(_, series)| series).collect()
    }

    pub fn metadata(&self) -> BTreeMap<(String, String), MetricMetadata> {
        self.shards.iter().flat_map(|s| s.lock().metadata.clone()).collect()
    }

    pub fn batches(&self) -> u64 {
        self.shards.iter().map(|s| s.lock().batches).sum()
    }

    pub fn duplicates(&self) -> u64 {
        self.shards.iter().map(|s| s.lock().duplicates).sum()
    }

    pub fn labels_received(&self) -> u64 {
        self.shards.iter().map(|s| s.lock().labels_received).sum()
    }

    pub fn write_ids(&self) -> Vec<u128> {
        self.shards.iter().flat_map(|s| s.lock().write_ids.clone()).collect()
    }

    pub fn last_limits(&self) -> Option<(u64, i64, i64)> {
        self.shards.iter().find_map(|s| s.lock().last_limits)
    }

    /// How many shards hold a series.
    pub fn shards_used(&self) -> usize {
        self.shards.iter().filter(|s| !s.lock().series.is_empty()).count()
    }
}

impl Shard {
    fn begin_epoch(&mut self) {
        self.epoch += 1;
        self.known.clear();
        self.refs.clear();
    }

    fn append(&mut self, view: &WriteBatchView<'_>) -> Result<AppendOutcome, ShardError> {
        let header = &view.header;
        let tenant = header.tenant.to_owned();
        let runs = || view.runs.iter().map(|r| (r.first, r.count));
        let uses_refs = runs().any(|(first, _)| first < NEW_SERIES_BASE)
            || view.histograms.iter().any(|h| h.series < NEW_SERIES_BASE)
            || view.exemplars.iter().any(|e| e.series < NEW_SERIES_BASE);
        if uses_refs && header.epoch != self.epoch {
            return Err(ShardError::StaleEpoch { current: self.epoch });
        }
        self.write_ids.push(header.write_id);
        self.last_limits = Some((header.max_series, header.ooo_window_ms, header.now_ms));
        self.labels_received += view.new_series.len() as u64;
        let duplicate = !self.applied.insert((tenant.clone(), header.write_id));
        let mut outcome = AppendOutcome { epoch: self.epoch, duplicate, ..AppendOutcome::default() };
        for new in &view.new_series {
            let key = (tenant.clone(), new.labels.to_vec(), new.flags);
            let of_tenant = self.refs.keys().filter(|k| k.0 == tenant).count() as u64;
            let is_full = header.max_series > 0 && of_tenant >= header.max_series;
            let given = match self.refs.get(&key) {
                Some(&given) => given,
                None if is_full => u32::MAX,
                None => {
                    let given = self.refs.len() as u32;
                    self.known.insert((tenant.clone(), given), (new.labels.to_vec(), new.flags));
                    self.refs.insert(key, given);
                    given
                }
            };
            outcome.new_refs.push(given);
        }
        if duplicate {
            self.duplicates += 1;
            return Ok(outcome);
        }
        let mut refused = BTreeMap::<u32, u32>::new();
        let mut starts = vec![0; view.value_count()];
        for &(first, count, start) in &view.starts {
            starts[first as usize..(first + count) as usize].fill(start);
        }
        let samples = view.runs.iter().flat_map(|r| (r.first..r.first + r.count).map(|s| (s, r.t)));
        for ((series, t), (v, start)) in samples.zip(view.values().zip(starts)) {
            match self.of(&tenant, series, &outcome.new_refs) {
                Some(stored) => stored.samples.push((t, v.to_bits(), start)),
                None => *refused.entry(series).or_default() += 1,
            }
        }
        for h in &view.histograms {
            let mut encoded = h.encoded;
            let decoded = Histogram::decode(&mut encoded).expect("an encoded histogram");
            assert!(encoded.is_empty(), "bytes after a histogram");
            match self.of(&tenant, h.series, &outcome.new_refs) {
                Some(stored) => stored.histograms.push((h.t, decoded, h.start)),
                None => *refused.entry(h.series).or_default() += 1,
            }
        }
        for e in &view.exemplars {
            let labels = Labels::from_canonical_bytes(e.labels).expect("an exemplar's labels");
            match self.of(&tenant, e.series, &outcome.new_refs) {
                Some(stored) => stored.exemplars.push((e.t, e.v.to_bits(), labels)),
                None => *refused.entry(e.series).or_default() += 1,
            }
        }
        for (family, m) in &view.metadata {
            self.metadata.insert((tenant.clone(), (*family).to_owned()), m.clone());
        }
        let kind = RefusalKind::SeriesLimit;
        outcome.refused =
            refused.into_iter().map(|(series, samples)| Refusal { series, samples, kind }).collect();
        Ok(outcome)
    }

    fn of(&mut self, tenant: &str, series: u32, new_refs: &[u32]) -> Option<&mut Stored> {
        let given = match series.checked_sub(NEW_SERIES_BASE) {
            Some(i) => new_refs[i as usize],
            None => series,
        };
        if given == u32::MAX {
            return None;
        }
        let known = self.known.get(&(tenant.to_owned(), given));
        let (labels, flags) = known.expect("a ref that this epoch has given this tenant");
        let labels = Labels::from_canonical_bytes(labels).expect("canonical labels");
        let stored = self.series.entry((tenant.to_owned(), labels.to_string())).or_default();
        stored.is_delta = flags & SERIES_DELTA != 0;
        Some(stored)
    }
}

#[async_trait]
impl ShardClient for Fake {
    fn shard_count(&self) -> u32 {
        self.shards.len() as u32
    }

    fn epoch(&self, shard: ShardId) -> u64 {
        self.announced_epochs.lock()[shard.0 as usize]
    }

    async fn append(&self, shard: ShardId, batch: Bytes) -> Result<AppendOutcome, ShardError> {
        // Requests of several connections take turns here.
        tokio::task::yield_now().await;
        let view = WriteBatchView::parse(&batch).expect("a batch");
        let mut s = self.shards[shard.0 as usize].lock();
        s.batches += 1;
        if s.epochs_to_begin > 0 {
            s.epochs_to_begin -= 1;
            s.begin_epoch();
        }
        let failure = s.failures.pop();
        if let Some((e, false)) = failure {
            return Err(e);
        }
        let outcome = s.append(&view);
        match failure {
            Some((e, _)) => Err(e),
            None => outcome,
        }
    }

    async fn select(&self, _: ShardId, _: SelectRequest) -> Result<SeriesSet, ShardError> {
        Err(ShardError::Unavailable("not for reading".into()))
    }

    async fn series(&self, _: ShardId, _: SelectRequest) -> Result<Vec<Labels>, ShardError> {
        Err(ShardError::Unavailable("not for reading".into()))
    }

    async fn label_values(
        &self,
        _: ShardId,
        _: SelectRequest,
        _: Option<String>,
    ) -> Result<Vec<String>, ShardError> {
        Err(ShardError::Unavailable("not for reading".into()))
    }

    async fn exemplars(&self, _: ShardId, _: SelectRequest) -> Result<Vec<ExemplarSeries>, ShardError> {
        Err(ShardError::Unavailable("not for reading".into()))
    }

    async fn metadata(&self, _: ShardId, _: TenantId, _: u64) -> Result<Vec<MetadataEntry>, ShardError> {
        Err(ShardError::Unavailable("not for reading".into()))
    }

    async fn stats(&self, _: ShardId, _: TenantId, _: u64) -> Result<ShardStats, ShardError> {
        Err(ShardError::Unavailable("not for reading".into()))
    }

    async fn tenants(&self, _: ShardId) -> Result<Vec<TenantId>, ShardError> {
        Err(ShardError::Unavailable("not for reading".into()))
    }
}
