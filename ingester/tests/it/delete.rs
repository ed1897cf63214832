//! Deletions over heads, blocks, merges and restarts, against a naive twin: a map of samples.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use sextant_ingester::{
    DeleteError, Ingester, IngesterConfig, SeriesDeletion, delete_series,
    head::{Applied, Command, Head, TenantFlush, encode_delete},
};
use sextant_model::{Histogram, Labels, MatchOp, Matcher, SeriesBuf, SeriesSet, TenantId};
use sextant_proto::{
    AppendOutcome, BatchHeader, DeleteOutcome, DeleteRequest, ErrorClass, ExemplarSeries, MetadataEntry,
    SelectLimits, SelectRequest, ShardClient, ShardError, ShardId, ShardStats, WriteBatchBuilder,
};
use sextant_storage::{
    BlockCache, BlockReader, BlockSelect, Compaction, CompactionOptions, Manifest, Manifests, ReadStats,
    StorageError, apply_job, clean_tenant, merge_series_sets, plan, plan_deletions,
};

use crate::support::{ALL, Bench, config, now_ms, tenant};

const TENANTS: [&str; 2] = ["a", "b"];
const SERIES: u64 = 9;
const HOUR: i64 = 3_600_000;
/// A series that is not compared.
const OTHER: &str = "other";

struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n
    }

    fn time(&mut self) -> i64 {
        self.below(60) as i64 * (HOUR / 10)
    }
}

fn labels(i: u64) -> Labels {
    let pairs = [("__name__", format!("m{}", i % 2)), ("i", i.to_string()), ("zone", format!("z{}", i % 3))];
    Labels::from_pairs(pairs).unwrap()
}

/// What a tenant has: `f…` or `h…` by series and time, exemplars by series, time and value.
#[derive(Default, Clone, PartialEq, Debug)]
struct Rows {
    samples: BTreeMap<(String, i64), String>,
    exemplars: BTreeSet<(String, i64, u64)>,
}

impl Rows {
    fn delete(&mut self, selectors: &[Vec<Matcher>], range: (i64, i64)) {
        let hit = |labels: &str, t: i64| {
            let labels = (0..SERIES).map(self::labels).find(|l| l.to_string() == *labels).unwrap();
            let matches = |s: &Vec<Matcher>| s.iter().all(|m| m.matches(labels.get(&m.name).unwrap_or("")));
            range.0 <= t && t <= range.1 && selectors.iter().any(matches)
        };
        self.samples.retain(|(labels, t), _| !hit(labels, *t));
        self.exemplars.retain(|(labels, t, _)| !hit(labels, *t));
    }

    fn series(&self) -> BTreeSet<String> {
        self.samples.keys().map(|k| k.0.clone()).collect()
    }
}

struct Run {
    bench: Bench,
    dir: tempfile::TempDir,
    compaction: Compaction,
    twin: [Rows; 2],
    random: Random,
    writes: u128,
    /// What is compared.
    matchers: Vec<Matcher>,
}

fn settings(dir: &Path) -> IngesterConfig {
    IngesterConfig { shards: 2, ..config(dir) }
}

impl Run {
    async fn new(seed: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let bench = Bench::open(settings(dir.path()), &dir.path().join("objects")).await;
        let compaction = Compaction::new(bench.manifests.store().clone(), bench.manifests.clone());
        let random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        Self { bench, dir, compaction, twin: Default::default(), random, writes: 0, matchers: vec![] }
    }

    async fn write(&mut self) {
        let who = self.random.below(2) as usize;
        let mut builders: [WriteBatchBuilder; 2] = Default::default();
        self.writes += 1;
        let mut times = BTreeSet::new();
        for _ in 0..self.random.below(12) + 1 {
            let (i, t) = (self.random.below(SERIES), self.random.time());
            // A batch has each sample once, so that its order does not matter.
            if !times.insert((i, t)) {
                continue;
            }
            let (labels, value) = (labels(i), self.random.below(1000) as f64);
            let b = &mut builders[(i % 2) as usize];
            let r = b.new_series(labels.as_bytes(), 0);
            let key = (labels.to_string(), t);
            if self.random.below(4) == 0 {
                let h = Histogram { count: value, ..Histogram::default() };
                let mut encoded = Vec::new();
                h.encode(&mut encoded);
                b.histogram(r, t, 0, &encoded);
                self.twin[who].samples.insert(key.clone(), format!("h{value}"));
            } else {
                b.sample(r, t, value, 0);
                self.twin[who].samples.insert(key.clone(), format!("f{value}"));
            }
            if self.random.below(4) == 0 {
                let trace = Labels::from_pairs([("trace", "x")]).unwrap();
                b.exemplar(r, t, value, trace.as_bytes());
                self.twin[who].exemplars.insert((key.0, t, value.to_bits()));
            }
        }
        for (shard, mut b) in builders.into_iter().enumerate() {
            let header = BatchHeader {
                tenant: TENANTS[who],
                write_id: self.writes << 1 | shard as u128 | 1 << 90,
                epoch: 0,
                max_series: 0,
                ooo_window_ms: -1,
                now_ms: now_ms(),
            };
            self.bench.ingester.append(ShardId(shard as u32), b.finish(&header)).await.unwrap();
        }
    }

    async fn delete(&mut self) {
        let ingester = self.bench.ingester.clone();
        self.delete_by(&*ingester).await;
    }

    async fn delete_by(&mut self, shards: &dyn ShardClient) {
        let who = self.random.below(2) as usize;
        let m = |n: &str, op, v: String| Matcher::new(n, op, v).unwrap();
        let one = |random: &mut Random| match random.below(5) {
            0 => vec![m("__name__", MatchOp::Equal, format!("m{}", random.below(3)))],
            1 => vec![m("i", MatchOp::Regex, format!("{}|{}", random.below(SERIES), random.below(SERIES)))],
            2 => vec![
                m("zone", MatchOp::Equal, format!("z{}", random.below(3))),
                m("i", MatchOp::NotEqual, random.below(SERIES).to_string()),
            ],
            3 => vec![m("i", MatchOp::Equal, random.below(SERIES).to_string())],
            _ => vec![m("__name__", MatchOp::Regex, "m.+".to_owned())],
        };
        let selectors: Vec<_> = (0..self.random.below(2) + 1).map(|_| one(&mut self.random)).collect();
        let range = match self.random.below(4) {
            0 => ALL,
            _ => {
                let t = self.random.time();
                (t, t + self.random.below(12) as i64 * (HOUR / 10))
            }
        };
        let (tenant, start, end) = (tenant(TENANTS[who]), range.0, range.1);
        let deletion = SeriesDeletion { tenant, selectors: selectors.clone(), start, end };
        delete_series(shards, &self.bench.manifests, &deletion).await.unwrap();
        self.twin[who].delete(&selectors, range);
    }

    async fn compact(&mut self, force: bool) {
        let options = CompactionOptions {
            force,
            open_window_blocks: 2,
            delete_delay_ms: HOUR,
            ..CompactionOptions::default()
        };
        for id in TENANTS {
            let tenant = tenant(id);
            for _ in 0..8 {
                let manifest = self.bench.manifests.refresh(&tenant).await.unwrap();
                let jobs = match force {
                    true => plan(&manifest, 100 * HOUR, &options),
                    false => plan_deletions(&manifest, 100 * HOUR, &options),
                };
                for job in &jobs {
                    apply_job(&self.compaction, &tenant, job, &options).await.unwrap();
                }
                if jobs.is_empty() {
                    break;
                }
            }
            clean_tenant(&self.compaction, &tenant, now_ms(), &options).await.unwrap();
            if !force {
                let manifest = self.bench.manifests.refresh(&tenant).await.unwrap();
                let left = manifest.blocks.iter().flat_map(|b| manifest.tombstones_of(b)).count();
                assert_eq!(left, 0);
            }
        }
    }

    async fn restart(&mut self) {
        self.bench.ingester.shutdown().await;
        self.bench = Bench::open(settings(self.dir.path()), &self.dir.path().join("objects")).await;
        self.compaction = Compaction::new(self.bench.manifests.store().clone(), self.bench.manifests.clone());
    }

    async fn check(&mut self, what: &str) {
        for (who, id) in TENANTS.into_iter().enumerate() {
            let want = &self.twin[who];
            let got = read(&self.bench, id, &self.matchers, ALL).await;
            assert!(got.0 == *want, "{what}, tenant {id}:\n{:#?}\n{want:#?}", got.0);
            assert_eq!(got.1, want.series(), "{what}: series");
            let t = self.random.time();
            let range = (t, t + HOUR);
            let mut part = want.clone();
            part.samples.retain(|k, _| range.0 <= k.1 && k.1 <= range.1);
            part.exemplars.retain(|k| range.0 <= k.1 && k.1 <= range.1);
            assert!(read(&self.bench, id, &self.matchers, range).await.0 == part, "{what}: {range:?}");
        }
    }
}

/// What a query finds in a range, and the series that there are at all.
async fn read(bench: &Bench, id: &str, matchers: &[Matcher], range: (i64, i64)) -> (Rows, BTreeSet<String>) {
    let tenant = tenant(id);
    let manifest = bench.manifests.refresh(&tenant).await.unwrap();
    let mut rows = Rows::default();
    let mut series = BTreeSet::new();
    let mut parts = Vec::new();
    let mut exemplars = Vec::new();
    let (stats, cache) = (ReadStats::default(), BlockCache::new(1 << 20));
    for meta in &manifest.blocks {
        let block = open(bench, &tenant, &manifest, meta.id, cache.clone()).await;
        let select = BlockSelect::new(matchers.to_vec(), range.0, range.1);
        let set = block.select(&select, &stats).await.unwrap();
        let selection = open(bench, &tenant, &manifest, meta.id, cache.clone()).await;
        let selection = selection.selection(select.clone(), &stats).await.unwrap();
        let again = selection.read(0..selection.len(), &stats).await.unwrap();
        assert_eq!((&set.labels, &set.t, set.h.len()), (&again.labels, &again.t, again.h.len()));
        parts.push((meta.priority(), set));
        let all = BlockSelect::new(matchers.to_vec(), ALL.0, ALL.1);
        let listed = block.series(&all, &stats).await.unwrap();
        let names: BTreeSet<_> = listed.iter().map(|l| l.metric_name().to_owned()).collect();
        let values = block.label_values("__name__", &all, &stats).await.unwrap();
        assert_eq!(values.into_iter().collect::<BTreeSet<_>>(), names);
        series.extend(listed.iter().map(Labels::to_string));
        exemplars.extend(block.exemplars(&select, &stats).await.unwrap());
    }
    for shard in 0..bench.ingester.shard_count() {
        let after = manifest.covered(ShardId(shard));
        let request = |range: (i64, i64)| SelectRequest {
            tenant: tenant.clone(),
            matchers: matchers.to_vec(),
            start: range.0,
            end: range.1,
            after,
            limits: SelectLimits::default(),
        };
        let shards = &bench.ingester;
        let set = shards.select(ShardId(shard), request(range)).await.unwrap();
        let mut found = Vec::new();
        for (i, part) in shards.find(ShardId(shard), request(range)).await.unwrap().iter().enumerate() {
            found.push((i as u64, part.read(0..part.labels().len()).await.unwrap()));
        }
        assert_eq!(merge_series_sets(found).t, set.t);
        if range == ALL && matchers.is_empty() {
            let stats = shards.stats(ShardId(shard), tenant.clone(), after).await.unwrap();
            assert_eq!(stats.series, set.len() as u64);
        }
        parts.push((u64::MAX, set));
        let listed = shards.series(ShardId(shard), request(ALL)).await.unwrap();
        series.extend(listed.iter().map(Labels::to_string));
        exemplars.extend(shards.exemplars(ShardId(shard), request(range)).await.unwrap());
    }
    let set = merge_series_sets(parts);
    for (i, labels) in set.labels.iter().enumerate() {
        let (t, v) = set.floats(i);
        rows.samples.extend(t.iter().zip(v).map(|(t, v)| ((labels.to_string(), *t), format!("f{v}"))));
        let h = set.histograms(i).iter();
        rows.samples.extend(h.map(|h| ((labels.to_string(), h.t), format!("h{}", h.h.count))));
    }
    for e in exemplars {
        rows.exemplars.extend(e.exemplars.iter().map(|x| (e.labels.to_string(), x.t, x.v.to_bits())));
    }
    (rows, series)
}

async fn open(
    bench: &Bench,
    tenant: &TenantId,
    manifest: &Manifest,
    id: sextant_storage::BlockId,
    cache: Arc<BlockCache>,
) -> BlockReader {
    let meta = manifest.block(id).unwrap();
    let tombstones = manifest.tombstones_of(meta);
    let store = bench.manifests.store().clone();
    BlockReader::open(store, tenant, Arc::new(meta.clone()), &tombstones, cache).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_sequences_are_as_their_twin() {
    let seeds = std::env::var("SEXTANT_DELETE_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(3);
    for seed in 1..=seeds {
        let mut run = Run::new(seed).await;
        let mut history = Vec::new();
        for step in 0..40 {
            let (op, change) = match run.random.below(20) {
                0..9 => ("write", 0),
                9..13 => ("delete", 1),
                13..16 => ("flush", 2),
                16 => ("compact", 3),
                17 => ("clean", 4),
                18 => ("restart", 5),
                _ => ("write", 0),
            };
            history.push(op);
            match change {
                0 => run.write().await,
                1 => run.delete().await,
                2 => run.bench.ingester.flush_now().await.unwrap(),
                3 => run.compact(true).await,
                4 => run.compact(false).await,
                _ => run.restart().await,
            }
            run.check(&format!("seed {seed}, step {step}: {history:?}")).await;
        }
        // At the end nothing is left to do.
        run.bench.ingester.flush_now().await.unwrap();
        run.compact(false).await;
        run.check(&format!("seed {seed}, end")).await;
        for id in TENANTS {
            let manifest = run.bench.manifests.refresh(&tenant(id)).await.unwrap();
            assert!(manifest.tombstones.is_empty(), "seed {seed}: {:?}", manifest.tombstones);
            assert!(manifest.blocks.iter().all(|b| b.applied.is_empty()));
        }
        run.bench.ingester.shutdown().await;
    }
}

/// The shards, with time for flushes and merges between a deletion's entries and its tombstone.
struct Slow(Arc<Ingester>);

#[async_trait::async_trait]
impl ShardClient for Slow {
    fn shard_count(&self) -> u32 {
        self.0.shard_count()
    }

    fn epoch(&self, shard: ShardId) -> u64 {
        self.0.epoch(shard)
    }

    async fn delete(&self, shard: ShardId, request: DeleteRequest) -> Result<DeleteOutcome, ShardError> {
        let done = self.0.delete(shard, request).await;
        tokio::time::sleep(std::time::Duration::from_millis(80)).await;
        done
    }

    async fn append(&self, shard: ShardId, batch: Bytes) -> Result<AppendOutcome, ShardError> {
        self.0.append(shard, batch).await
    }

    async fn select(&self, shard: ShardId, request: SelectRequest) -> Result<SeriesSet, ShardError> {
        self.0.select(shard, request).await
    }

    async fn series(&self, shard: ShardId, request: SelectRequest) -> Result<Vec<Labels>, ShardError> {
        self.0.series(shard, request).await
    }

    async fn label_values(
        &self,
        shard: ShardId,
        request: SelectRequest,
        label: Option<String>,
    ) -> Result<Vec<String>, ShardError> {
        self.0.label_values(shard, request, label).await
    }

    async fn exemplars(&self, shard: ShardId, r: SelectRequest) -> Result<Vec<ExemplarSeries>, ShardError> {
        self.0.exemplars(shard, r).await
    }

    async fn metadata(
        &self,
        shard: ShardId,
        tenant: TenantId,
        after: u64,
    ) -> Result<Vec<MetadataEntry>, ShardError> {
        self.0.metadata(shard, tenant, after).await
    }

    async fn stats(&self, shard: ShardId, tenant: TenantId, after: u64) -> Result<ShardStats, ShardError> {
        self.0.stats(shard, tenant, after).await
    }

    async fn tenants(&self, shard: ShardId) -> Result<Vec<TenantId>, ShardError> {
        self.0.tenants(shard).await
    }
}

/// Writes rows that no deletion concerns, so that there are some on both sides of each.
async fn write_others_until(stop: Arc<AtomicBool>, ingester: Arc<Ingester>) -> usize {
    let mut written = 0;
    let labels = Labels::from_pairs([("__name__", OTHER)]).unwrap();
    while !stop.load(Relaxed) {
        for (who, id) in TENANTS.into_iter().enumerate() {
            let mut b = WriteBatchBuilder::default();
            let r = b.new_series(labels.as_bytes(), 0);
            b.sample(r, written as i64 % 60 * (HOUR / 10), written as f64, 0);
            let write_id = (written as u128) << 1 | who as u128 | 1 << 100;
            let header = BatchHeader {
                tenant: id,
                write_id,
                epoch: 0,
                max_series: 0,
                ooo_window_ms: -1,
                now_ms: now_ms(),
            };
            ingester.append(ShardId(written as u32 % 2), b.finish(&header)).await.unwrap();
        }
        written += 1;
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    written
}

/// Merges, rewrites and cleans without pause; changes that met a deletion are planned again.
async fn compact_until(stop: Arc<AtomicBool>, manifests: Arc<Manifests>) -> usize {
    let compaction = Compaction::new(manifests.store().clone(), manifests.clone());
    let options = CompactionOptions { force: true, delete_delay_ms: HOUR, ..CompactionOptions::default() };
    let mut stale = 0;
    while !stop.load(Relaxed) {
        for tenant in TENANTS.map(tenant) {
            let manifest = manifests.refresh(&tenant).await.unwrap();
            let jobs = [plan(&manifest, 100 * HOUR, &options), plan_deletions(&manifest, 0, &options)];
            for job in jobs.iter().flatten() {
                match apply_job(&compaction, &tenant, job, &options).await {
                    Ok(_) => {}
                    Err(StorageError::Stale { .. }) => stale += 1,
                    Err(e) => panic!("{e}"),
                }
            }
            clean_tenant(&compaction, &tenant, now_ms(), &options).await.unwrap();
        }
        tokio::task::yield_now().await;
    }
    stale
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn deletions_are_exact_while_flushes_and_merges_run() {
    for seed in 101..103 {
        let mut run = Run::new(seed).await;
        run.matchers = vec![Matcher::new("__name__", MatchOp::NotEqual, OTHER).unwrap()];
        let stop = Arc::new(AtomicBool::new(false));
        let compactor = tokio::spawn(compact_until(stop.clone(), run.bench.manifests.clone()));
        let (ingester, stopped) = (run.bench.ingester.clone(), stop.clone());
        let flusher = tokio::spawn(async move {
            while !stopped.load(Relaxed) {
                ingester.flush_now().await.unwrap();
                tokio::time::sleep(std::time::Duration::from_millis(3)).await;
            }
        });
        let others = tokio::spawn(write_others_until(stop.clone(), run.bench.ingester.clone()));
        let slow = Slow(run.bench.ingester.clone());
        for step in 0..60 {
            match run.random.below(3) {
                0 => run.delete_by(&slow).await,
                _ => run.write().await,
            }
            if step % 3 == 0 {
                run.check(&format!("seed {seed}, step {step}")).await;
            }
        }
        stop.store(true, Relaxed);
        flusher.await.unwrap();
        let others = others.await.unwrap();
        drop(slow);
        let stale = compactor.await.unwrap();
        run.check(&format!("seed {seed}, end")).await;
        run.restart().await;
        run.check(&format!("seed {seed}, after a restart; {stale} jobs were overtaken")).await;
        let manifest = run.bench.manifests.refresh(&tenant("a")).await.unwrap();
        println!(
            "seed {seed}: {stale} jobs were overtaken, {others} other writes, version {}",
            manifest.version
        );
        run.bench.ingester.shutdown().await;
    }
}

fn all_of(id: &str) -> SeriesDeletion {
    SeriesDeletion {
        tenant: tenant(id),
        selectors: vec![vec![Matcher::equal("__name__", "m")]],
        start: ALL.0,
        end: ALL.1,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_is_sent_again_after_a_deletion_is_stored_again() {
    let dir = tempfile::tempdir().unwrap();
    let objects = dir.path().join("objects");
    let bench = Bench::open(config(dir.path()), &objects).await;
    for (id, write) in [("a", 7), ("b", 8)] {
        bench.write(id, write, 10, 0..3).await.unwrap();
        assert!(bench.write(id, write, 10, 0..3).await.unwrap().duplicate);
    }
    delete_series(&*bench.ingester, &bench.manifests, &all_of("a")).await.unwrap();
    bench.check("a", [], 0..3).await;
    bench.check("b", [10], 0..3).await;
    assert!(!bench.write("a", 7, 10, 0..3).await.unwrap().duplicate);
    bench.check("a", [10], 0..3).await;
    bench.ingester.flush_now().await.unwrap();
    bench.ingester.shutdown().await;
    let bench = Bench::open(config(dir.path()), &objects).await;
    assert!(bench.write("a", 7, 10, 0..3).await.unwrap().duplicate);
    assert!(bench.write("b", 8, 10, 0..3).await.unwrap().duplicate);
    bench.check("a", [10], 0..3).await;
    bench.check("b", [10], 0..3).await;
    bench.ingester.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_log_does_not_give_new_rows_deleted_positions() {
    let dir = tempfile::tempdir().unwrap();
    let objects = dir.path().join("objects");
    let bench = Bench::open(config(&dir.path().join("one")), &objects).await;
    bench.write("a", 1, 10, 0..2).await.unwrap();
    bench.ingester.flush_now().await.unwrap();
    for t in 20..30 {
        bench.write("a", t as u128, t, 0..2).await.unwrap();
    }
    delete_series(&*bench.ingester, &bench.manifests, &all_of("a")).await.unwrap();
    bench.ingester.shutdown().await;
    // The first log is gone with what was in memory.
    let bench = Bench::open(config(&dir.path().join("two")), &objects).await;
    for t in 30..33 {
        bench.write("a", t as u128, t, 0..2).await.unwrap();
    }
    bench.check("a", 30..33, 0..2).await;
    bench.ingester.flush_now().await.unwrap();
    bench.check("a", 30..33, 0..2).await;
    bench.ingester.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_to_delete_leaves_no_trace_and_too_many_deletions_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::open(config(dir.path()), &dir.path().join("objects")).await;
    let delete = async |d: SeriesDeletion| delete_series(&*bench.ingester, &bench.manifests, &d).await;
    delete(all_of("nobody")).await.unwrap();
    assert_eq!(bench.manifests.refresh(&tenant("nobody")).await.unwrap().version, 0);
    bench.write("a", 1, 10, 0..2).await.unwrap();
    let epoch = bench.ingester.epoch(ShardId(0));
    delete(SeriesDeletion { start: 11, end: 10, ..all_of("a") }).await.unwrap();
    delete(SeriesDeletion { selectors: vec![], ..all_of("a") }).await.unwrap();
    delete(all_of("b")).await.unwrap();
    assert_eq!(bench.ingester.epoch(ShardId(0)), epoch, "another tenant's deletion ends no generation");
    bench.check("a", [10], 0..2).await;
    bench.ingester.flush_now().await.unwrap();
    let nothing = SeriesDeletion { start: 0, end: 9, ..all_of("a") };
    delete(nothing).await.unwrap();
    assert!(bench.manifests.refresh(&tenant("a")).await.unwrap().tombstones.is_empty());
    bench.write("a", 2, 20, 0..2).await.unwrap();
    delete(SeriesDeletion { start: 20, ..all_of("a") }).await.unwrap();
    bench
        .manifests
        .commit(&tenant("a"), |m| {
            let mut next = m.clone();
            let one = next.tombstones[0].clone();
            next.tombstones.resize(1000, one);
            Ok(next)
        })
        .await
        .unwrap();
    let error = delete(all_of("a")).await.unwrap_err();
    assert!(matches!(error, DeleteError::TooMany(1000)), "{error}");
    assert_eq!(error.class(), ErrorClass::TooManyRequests);
    bench.check("a", [10], 0..2).await;
    bench.ingester.shutdown().await;
}

#[test]
fn a_deletion_is_applied_once_and_concerns_flushes_exemplars_and_counts() {
    let head = Head::new();
    let mut index = 0;
    let mut apply = |payload: &[u8]| {
        index += 1;
        head.apply(index, payload)
    };
    let write = |id: u128, t: i64| -> Bytes {
        let mut b = WriteBatchBuilder::default();
        for i in 0..2u64 {
            let labels = labels(i);
            let r = b.new_series(labels.as_bytes(), 0);
            b.sample(r, t, 1.0, 0);
            b.exemplar(r, t, 0.5, Labels::from_pairs([("trace", "x")]).unwrap().as_bytes());
        }
        let header =
            BatchHeader { tenant: "a", write_id: id, epoch: 0, max_series: 0, ooo_window_ms: -1, now_ms: 0 };
        Command::Write(&b.finish(&header)).encode()
    };
    apply(&write(1 << 70, 10));
    apply(&write(2 << 70, 20));
    let request = DeleteRequest {
        tenant: tenant("a"),
        id: 99,
        now_ms: 0,
        selectors: vec![vec![Matcher::equal("i", "0")]],
        start: 10,
        end: 10,
    };
    let payload = Command::Delete(&encode_delete(&request)).encode();
    let Applied::Deleted(Ok(first)) = apply(&payload) else { panic!("not deleted") };
    assert_eq!((first.position, first.pending), (3, 3));
    apply(&write(3 << 70, 10));
    let Applied::Deleted(Ok(again)) = apply(&payload) else { panic!("not deleted") };
    assert_eq!((again, head.sealed().len()), (first, 1));
    assert!(matches!(apply(&Command::Delete(b"junk").encode()), Applied::Deleted(Err(_))));

    let select = SelectRequest {
        tenant: tenant("a"),
        matchers: vec![],
        start: ALL.0,
        end: ALL.1,
        after: 0,
        limits: SelectLimits::default(),
    };
    let set = head.select(&select).unwrap();
    assert_eq!((set.floats(0).0, set.floats(1).0), (&[10, 20][..], &[10, 20][..]), "the later write stays");
    let sealed = head.sealed()[0].tenant("a").unwrap();
    assert_eq!(sealed.deletions(), [99]);
    let flush = TenantFlush::new(sealed);
    let mut buf = SeriesBuf::default();
    flush.read(0, &mut buf);
    let exemplars: Vec<i64> = flush.exemplars(0).iter().map(|e| e.t).collect();
    assert_eq!((&buf.t[..], flush.time_key(0), &exemplars[..]), (&[20][..], None, &[20][..]));
    assert_eq!((flush.exemplars(1).len(), flush.time_key(1).is_some()), (2, true));
    let stats = head.stats(&tenant("a"), 0).unwrap();
    assert_eq!((stats.series, stats.samples, stats.min_t, stats.max_t), (2, 5, 10, 20));
    head.release(first.position);
    assert_eq!(head.reap(first.position, std::time::Duration::ZERO), 1);
    assert!(matches!(apply(&payload), Applied::Deleted(Err(_))), "known, but no longer where");
}
