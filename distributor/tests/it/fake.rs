//! Shards in memory that keep the contract of real ones: refs per tenant and epoch, write ids once, refusals by limit; and
//! that fail on demand.
//!
//! What a batch may not do is an error of the test that sent it: refs that were never given, labels that are not
//! canonical, a series that is new twice.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use sextant_model::{Exemplar, Histogram, Labels, MetricMetadata, SeriesSet, TenantId};
use sextant_proto::{
    AppendOutcome, ExemplarSeries, MetadataEntry, NEW_SERIES_BASE, Refusal, RefusalKind, SERIES_DELTA,
    SelectRequest, ShardClient, ShardError, ShardId, ShardStats, WriteBatchView,
};

/// What a series holds, in order of arrival.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stored {
    /// Timestamp, bits of the value, start timestamp.
    pub samples: Vec<(i64, u64, i64)>,
    /// Timestamp, start timestamp, histogram.
    pub histograms: Vec<(i64, i64, Histogram)>,
    pub exemplars: Vec<Exemplar>,
    pub is_delta: bool,
}

#[derive(Debug, Default)]
struct Shard {
    epoch: u64,
    /// The epoch that distributors see before they send.
    announced: u64,
    /// Tenant, labels and flags of the series of this epoch, by ref.
    known: Vec<(String, Labels, u8)>,
    refs: HashMap<(String, Labels, u8), u32>,
    applied: HashSet<u128>,
    /// This many appends begin a new epoch first.
    epochs_to_begin: u32,
}

/// The failure of an append to come.
#[derive(Clone, Debug)]
struct Failure {
    /// `None` is any.
    shard: Option<u32>,
    error: ShardError,
    /// Whether the data are stored all the same: only the answer is lost.
    is_applied: bool,
}

/// What tests look at and change.
#[derive(Debug, Default)]
pub struct State {
    shards: Vec<Shard>,
    /// No epoch is ever used twice, not even by a shard that went and came again.
    last_epoch: u64,
    failures: Vec<Failure>,
    /// Only refs are given, and nothing is kept.
    is_forgetful: bool,
    pub stored: BTreeMap<(String, Labels), Stored>,
    /// Tenant, family and metadata, as they came.
    pub metadata: Vec<(String, String, MetricMetadata)>,
    /// Which shards each series was written to.
    pub places: HashMap<Labels, HashSet<u32>>,
    /// Ids of the batches that came with refs of the present epoch.
    pub write_ids: Vec<u128>,
    /// Batches with an id of before.
    pub duplicates: u64,
    /// Series that came with their labels.
    pub new_series: u64,
    pub appends: u64,
    /// Series limit, out-of-order window and time of the last batch.
    pub last_limits: Option<(u64, i64, i64)>,
}

impl State {
    /// Begins a new epoch in every shard, of which distributors learn before they send.
    pub fn begin_epoch(&mut self) {
        (0..self.shards.len()).for_each(|shard| self.begin_epoch_of(shard, true));
    }

    /// Begins a new epoch; `is_told` is whether distributors learn it before they send.
    pub fn begin_epoch_of(&mut self, shard: usize, is_told: bool) {
        self.last_epoch += 1;
        let s = &mut self.shards[shard];
        s.epoch = self.last_epoch;
        s.known.clear();
        s.refs.clear();
        if is_told {
            s.announced = s.epoch;
        }
    }

    /// The next `n` appends of a shard each find that a new epoch has begun since the distributor looked.
    pub fn begin_epochs_before_appends(&mut self, shard: usize, n: u32) {
        self.shards[shard].epochs_to_begin = n;
    }

    /// The same in every shard.
    pub fn begin_epochs_before_any_append(&mut self, n: u32) {
        self.shards.iter_mut().for_each(|s| s.epochs_to_begin = n);
    }

    /// Another number of shards: those that stay keep what they know.
    pub fn set_shard_count(&mut self, n: usize) {
        self.last_epoch += 1;
        let epoch = self.last_epoch;
        self.shards.resize_with(n, || Shard { epoch, announced: epoch, ..Shard::default() });
    }

    /// An append to come fails, whatever its shard, and stores nothing.
    pub fn fail(&mut self, error: ShardError) {
        self.failures.push(Failure { shard: None, error, is_applied: false });
    }

    /// The next append is applied and its answer lost.
    pub fn lose_answer(&mut self) {
        let error = ShardError::Unavailable("the answer was lost".into());
        self.failures.push(Failure { shard: None, error, is_applied: true });
    }

    /// How many appends are still to fail.
    pub fn failures_left(&self) -> usize {
        self.failures.len()
    }

    /// What a series of any tenant has got, its samples sorted.
    pub fn of(&self, labels: &str) -> Stored {
        let found = self.stored.iter().find(|((_, l), _)| l.to_string() == labels);
        let mut out = found.map(|(_, s)| s.clone()).unwrap_or_default();
        out.samples.sort_unstable();
        out
    }

    /// The series of all tenants, in order.
    pub fn names(&self) -> Vec<String> {
        self.stored.keys().map(|(_, l)| l.to_string()).collect()
    }

    fn append(&mut self, id: ShardId, batch: &[u8]) -> Result<AppendOutcome, ShardError> {
        self.appends += 1;
        let at = id.0 as usize;
        let shard = self.shards.get_mut(at).ok_or(ShardError::Unavailable("no such shard".into()))?;
        if shard.epochs_to_begin > 0 {
            shard.epochs_to_begin -= 1;
            self.begin_epoch_of(at, false);
        }
        let failure = self.failures.iter().position(|f| f.shard.is_none_or(|s| s == id.0));
        let failure = failure.map(|i| self.failures.remove(i));
        if let Some(Failure { error, is_applied: false, .. }) = failure {
            return Err(error);
        }
        let view = WriteBatchView::parse(batch).map_err(|e| ShardError::Malformed(e.to_string()))?;
        let outcome = self.apply(id, &view);
        failure.map_or(outcome, |f| Err(f.error))
    }

    fn apply(&mut self, id: ShardId, view: &WriteBatchView<'_>) -> Result<AppendOutcome, ShardError> {
        let header = &view.header;
        let tenant = header.tenant.to_owned();
        let shard = &mut self.shards[id.0 as usize];
        let is_ref = |series: u32| series < NEW_SERIES_BASE;
        let uses_refs = view.runs.iter().any(|r| is_ref(r.first))
            || view.histograms.iter().any(|h| is_ref(h.series))
            || view.exemplars.iter().any(|e| is_ref(e.series));
        if uses_refs && header.epoch != shard.epoch {
            return Err(ShardError::StaleEpoch { current: shard.epoch });
        }
        let mut outcome = AppendOutcome { epoch: shard.epoch, ..AppendOutcome::default() };
        if self.is_forgetful {
            let first = self.new_series as u32;
            self.new_series += view.new_series.len() as u64;
            outcome.new_refs = (first..self.new_series as u32).collect();
            return Ok(outcome);
        }
        self.write_ids.push(header.write_id);
        self.last_limits = Some((header.max_series, header.ooo_window_ms, header.now_ms));
        self.new_series += view.new_series.len() as u64;
        outcome.duplicate = !shard.applied.insert(header.write_id);
        let mut seen = HashSet::new();
        for new in &view.new_series {
            let labels = Labels::from_canonical_bytes(new.labels).expect("canonical labels");
            let key = (tenant.clone(), labels, new.flags);
            assert!(seen.insert(key.clone()), "{key:?} is twice new in one batch");
            let of_tenant = shard.known.iter().filter(|k| k.0 == tenant).count() as u64;
            let given = match shard.refs.get(&key) {
                Some(&given) => given,
                None if header.max_series > 0 && of_tenant >= header.max_series => u32::MAX,
                None => {
                    let given = shard.known.len() as u32;
                    shard.known.push(key.clone());
                    shard.refs.insert(key, given);
                    given
                }
            };
            outcome.new_refs.push(given);
        }
        if outcome.duplicate {
            self.duplicates += 1;
            return Ok(outcome);
        }
        let oldest = if header.ooo_window_ms < 0 { i64::MIN } else { header.now_ms - header.ooo_window_ms };
        let mut refused: BTreeMap<u32, (u32, RefusalKind)> = BTreeMap::new();
        let known = &shard.known;
        let new_refs = &outcome.new_refs;
        let (stored, places) = (&mut self.stored, &mut self.places);
        let mut with = |series: u32, t: i64, put: &mut dyn FnMut(&mut Stored)| {
            let given = if is_ref(series) { series } else { new_refs[(series - NEW_SERIES_BASE) as usize] };
            if given == u32::MAX || t < oldest {
                let kind =
                    if given == u32::MAX { RefusalKind::SeriesLimit } else { RefusalKind::OutsideWindow };
                refused.entry(series).or_insert((0, kind)).0 += 1;
                return;
            }
            let (of, labels, flags) = known.get(given as usize).expect("a ref that this epoch has given");
            assert_eq!(*of, tenant, "a ref of another tenant");
            places.entry(labels.clone()).or_default().insert(id.0);
            let stored = stored.entry((tenant.clone(), labels.clone())).or_default();
            stored.is_delta |= flags & SERIES_DELTA != 0;
            put(stored);
        };
        let mut starts = vec![0; view.value_count()];
        for &(first, count, start) in &view.starts {
            starts[first as usize..(first + count) as usize].fill(start);
        }
        let samples = view.runs.iter().flat_map(|r| (r.first..r.first + r.count).map(|s| (s, r.t)));
        for ((series, t), (v, start)) in samples.zip(view.values().zip(starts)) {
            with(series, t, &mut |s| s.samples.push((t, v.to_bits(), start)));
        }
        for h in &view.histograms {
            let mut encoded = h.encoded;
            let decoded = Histogram::decode(&mut encoded).expect("an encoded histogram");
            assert!(encoded.is_empty(), "bytes after a histogram");
            with(h.series, h.t, &mut |s| s.histograms.push((h.t, h.start, decoded.clone())));
        }
        for e in &view.exemplars {
            let labels = Labels::from_canonical_bytes(e.labels).expect("an exemplar's labels");
            with(e.series, e.t, &mut |s| {
                s.exemplars.push(Exemplar { t: e.t, v: e.v, labels: labels.clone() });
            });
        }
        let metadata =
            view.metadata.iter().map(|(family, m)| (tenant.clone(), (*family).to_owned(), m.clone()));
        self.metadata.extend(metadata);
        let refused = refused.into_iter().map(|(series, (samples, kind))| Refusal { series, samples, kind });
        outcome.refused = refused.collect();
        Ok(outcome)
    }
}

/// The shards.
#[derive(Debug)]
pub struct Fake(Mutex<State>);

impl Fake {
    pub fn new(shards: usize) -> Arc<Self> {
        let mut state = State::default();
        state.set_shard_count(shards);
        Arc::new(Self(Mutex::new(state)))
    }

    /// Shards that only give refs: what a distributor costs is measured over these.
    pub fn forgetful(shards: usize) -> Arc<Self> {
        let fake = Self::new(shards);
        fake.lock().is_forgetful = true;
        fake
    }

    /// What tests look at and change.
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock()
    }

    /// Begins a new epoch; `is_told` is whether distributors learn it before they send.
    pub fn begin_epoch(&self, shard: usize, is_told: bool) {
        self.lock().begin_epoch_of(shard, is_told);
    }

    /// The next `n` appends each find that a new epoch has begun since the distributor looked.
    pub fn begin_epochs_before_appends(&self, shard: usize, n: u32) {
        self.lock().begin_epochs_before_appends(shard, n);
    }

    /// The next append fails; `is_applied` is whether its data are stored all the same.
    pub fn fail_next(&self, shard: usize, error: ShardError, is_applied: bool) {
        self.lock().failures.push(Failure { shard: Some(shard as u32), error, is_applied });
    }

    /// Appends that were to fail do not.
    pub fn forget_failures(&self) {
        self.lock().failures.clear();
    }

    /// Everything stored, by tenant and series as text. A series that is in two shards is an error.
    pub fn stored(&self) -> BTreeMap<(String, String), Stored> {
        let state = self.lock();
        for (labels, places) in &state.places {
            assert_eq!(places.len(), 1, "{labels} is in several shards");
        }
        let text = |((tenant, labels), s): (&(String, Labels), &Stored)| {
            ((tenant.clone(), labels.to_string()), s.clone())
        };
        state.stored.iter().map(text).collect()
    }

    /// Series as text, in order.
    pub fn series(&self) -> Vec<String> {
        self.stored().into_keys().map(|(_, series)| series).collect()
    }

    /// The newest metadata by tenant and family.
    pub fn metadata(&self) -> BTreeMap<(String, String), MetricMetadata> {
        let metadata = self.lock().metadata.clone();
        metadata.into_iter().map(|(tenant, family, m)| ((tenant, family), m)).collect()
    }

    /// How many shards hold a series.
    pub fn shards_used(&self) -> usize {
        self.lock().places.values().flatten().collect::<HashSet<_>>().len()
    }
}

#[async_trait]
impl ShardClient for Fake {
    fn shard_count(&self) -> u32 {
        self.lock().shards.len() as u32
    }

    fn epoch(&self, shard: ShardId) -> u64 {
        self.lock().shards.get(shard.0 as usize).map_or(0, |s| s.announced)
    }

    async fn append(&self, shard: ShardId, batch: Bytes) -> Result<AppendOutcome, ShardError> {
        // Requests of several connections take turns here.
        tokio::task::yield_now().await;
        self.lock().append(shard, &batch)
    }

    async fn select(&self, _: ShardId, _: SelectRequest) -> Result<SeriesSet, ShardError> {
        Err(not_for_reading())
    }

    async fn series(&self, _: ShardId, _: SelectRequest) -> Result<Vec<Labels>, ShardError> {
        Err(not_for_reading())
    }

    async fn label_values(
        &self,
        _: ShardId,
        _: SelectRequest,
        _: Option<String>,
    ) -> Result<Vec<String>, ShardError> {
        Err(not_for_reading())
    }

    async fn exemplars(&self, _: ShardId, _: SelectRequest) -> Result<Vec<ExemplarSeries>, ShardError> {
        Err(not_for_reading())
    }

    async fn metadata(&self, _: ShardId, _: TenantId, _: u64) -> Result<Vec<MetadataEntry>, ShardError> {
        Err(not_for_reading())
    }

    async fn stats(&self, _: ShardId, _: TenantId, _: u64) -> Result<ShardStats, ShardError> {
        Err(not_for_reading())
    }

    async fn tenants(&self, _: ShardId) -> Result<Vec<TenantId>, ShardError> {
        Err(not_for_reading())
    }
}

fn not_for_reading() -> ShardError {
    ShardError::Unavailable("not for reading".into())
}
