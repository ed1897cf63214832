//! Sets and blocks merged, against the naive way; compaction's life cycle, cut off at every step.

use std::{collections::BTreeMap, sync::Arc};

use object_store::ObjectStore;
use rand::{Rng, SeedableRng, rngs::StdRng};
use sextant_model::{Labels, MetricMetadata, SeriesBuf, SeriesSet};
use sextant_proto::ShardId;
use sextant_storage::{
    BlockCache, BlockId, BlockMeta, BlockOptions, BlockReader, BlockSelect, Compaction, CompactionOptions,
    JobKind, Manifest, ManifestOptions, Manifests, MergeOptions, ReadStats, StorageError, apply_job,
    clean_tenant, merge_blocks, merge_series_sets, plan, upload_block, write_block,
};

use crate::support::{Plain, Row, Series, hard_set, memory, plain, tenant};

const HOUR: i64 = 3_600_000;

/// Later sets overwrite earlier ones, sample by sample.
fn naive(sets: &[SeriesSet], cutoff: i64) -> Plain {
    let mut all: BTreeMap<String, BTreeMap<i64, (Option<(i64, u64, i64)>, Option<String>)>> = BTreeMap::new();
    for set in sets {
        for (labels, (floats, histograms)) in plain(set) {
            let series = all.entry(labels).or_default();
            for f in floats {
                series.insert(f.0, (Some(f), None));
            }
            for h in histograms {
                let t = h.split(' ').next().unwrap().parse().unwrap();
                series.insert(t, (None, Some(h)));
            }
        }
    }
    all.into_iter()
        .map(|(l, s)| {
            let kept: Vec<_> = s.into_iter().filter(|(t, _)| *t >= cutoff).map(|(_, v)| v).collect();
            (
                l,
                (
                    kept.iter().filter_map(|v| v.0).collect(),
                    kept.iter().filter_map(|v| v.1.clone()).collect(),
                ),
            )
        })
        .filter(|(_, (f, h)): &(String, (Vec<_>, Vec<_>))| !f.is_empty() || !h.is_empty())
        .collect()
}

/// A subset of a set's series and samples, with some values changed: what a later write may bring.
fn variant(set: &Series, rng: &mut StdRng) -> Series {
    let mut out = Series::default();
    for r in &set.rows {
        if rng.random_bool(0.2) {
            continue;
        }
        let mut buf = SeriesBuf::default();
        for k in 0..r.buf.t.len() {
            if rng.random_bool(0.7) {
                buf.t.push(r.buf.t[k]);
                buf.v.push(if rng.random_bool(0.5) { r.buf.v[k] } else { rng.random_range(0..9) as f64 });
                if !r.buf.start.is_empty() {
                    buf.start.push(r.buf.start[k]);
                }
            }
        }
        // Where the other had a float there may be a histogram now, and the other way round.
        for h in &r.buf.h {
            match rng.random_range(0..3) {
                0 => buf.h.push(h.clone()),
                1 if buf.start.is_empty() => {
                    let at = buf.t.partition_point(|t| *t < h.t);
                    buf.t.insert(at, h.t);
                    buf.v.insert(at, 1.0);
                }
                _ => {}
            }
        }
        out.rows.push(Row { buf, ..r.clone() });
    }
    out
}

fn sets(seed: u64) -> Vec<Series> {
    let mut rng = StdRng::seed_from_u64(seed);
    let all = hard_set(seed, 120, 50);
    (0..4).map(|_| variant(&all, &mut rng)).collect()
}

#[test]
fn merged_sets_are_the_naive_ones() {
    for seed in 0..10 {
        let sets: Vec<SeriesSet> = sets(seed).iter().map(|s| s.select(&[], i64::MIN, i64::MAX)).collect();
        // The order given does not matter, the priority does.
        let mut shuffled: Vec<(u64, SeriesSet)> =
            sets.iter().cloned().enumerate().map(|(i, s)| (i as u64, s)).collect();
        shuffled.rotate_left(seed as usize % 4);
        shuffled.push((99, SeriesSet::new()));
        let got = merge_series_sets(shuffled);
        assert!(plain(&got) == naive(&sets, i64::MIN), "seed {seed}");
    }
    assert!(merge_series_sets(vec![]).is_empty());
}

pub async fn flush(
    store: &Arc<dyn ObjectStore>,
    manifests: &Manifests,
    series: &Series,
    position: u64,
) -> BlockMeta {
    let files = write_block(series, BlockOptions::default()).unwrap().unwrap();
    upload_block(store, &tenant(), &files).await.unwrap();
    let blocks = std::slice::from_ref(&files.meta);
    let m = manifests.commit(&tenant(), |m| m.with_flush(ShardId(0), position, blocks)).await;
    m.unwrap().block(files.meta.id).unwrap().clone()
}

/// What a querier sees of a manifest.
pub async fn answer(store: &Arc<dyn ObjectStore>, manifest: &Manifest) -> Result<SeriesSet, StorageError> {
    let cache = BlockCache::new(16 << 20);
    let mut parts = Vec::new();
    for meta in &manifest.blocks {
        let reader =
            BlockReader::open(store.clone(), &tenant(), Arc::new(meta.clone()), &[], cache.clone()).await?;
        let all = BlockSelect::new(vec![], i64::MIN, i64::MAX);
        parts.push((meta.priority(), reader.select(&all, &ReadStats::default()).await?));
    }
    Ok(merge_series_sets(parts))
}

#[tokio::test]
async fn merged_blocks_are_the_naive_ones() {
    for seed in 20..24 {
        let store = memory();
        let manifests = Manifests::new(store.clone(), "metrics", ManifestOptions::default());
        let inputs = sets(seed);
        let mut readers = Vec::new();
        for (i, s) in inputs.iter().enumerate() {
            let meta = flush(&store, &manifests, s, i as u64 + 1).await;
            readers.push(
                BlockReader::open(store.clone(), &tenant(), Arc::new(meta), &[], BlockCache::new(1 << 20))
                    .await
                    .unwrap(),
            );
        }
        readers.reverse();
        let plain_inputs: Vec<SeriesSet> = inputs.iter().map(|s| s.select(&[], i64::MIN, i64::MAX)).collect();
        let cutoff = 1_700_000_200_000;
        for (window_ms, cutoff_ms, series_max) in
            [(None, None, usize::MAX), (Some(120_000), None, 17), (Some(HOUR), Some(cutoff), usize::MAX)]
        {
            let options = MergeOptions {
                level: 1,
                window_ms,
                cutoff_ms,
                series_max,
                samples_max: u64::MAX,
                block: BlockOptions::default(),
            };
            let outputs = merge_blocks(&readers, &options).await.unwrap();
            let mut parts = Vec::new();
            let mut families = std::collections::BTreeSet::new();
            for files in &outputs {
                assert!(files.meta.series <= series_max as u64 && files.meta.level == 1);
                assert!((files.meta.seq, files.meta.seq_min) <= (4, 4) && files.meta.seq_min >= 1);
                upload_block(&store, &tenant(), files).await.unwrap();
                let meta = Arc::new(files.meta.clone());
                let r = BlockReader::open(store.clone(), &tenant(), meta, &[], BlockCache::new(1 << 20))
                    .await
                    .unwrap();
                families.extend(r.metadata(&ReadStats::default()).await.unwrap());
                let all = BlockSelect::new(vec![], i64::MIN, i64::MAX);
                parts.push((0, r.select(&all, &ReadStats::default()).await.unwrap()));
            }
            let samples: usize = parts.iter().map(|(_, s)| s.sample_count()).sum();
            assert_eq!(samples as u64, outputs.iter().map(|f| f.meta.samples).sum::<u64>());
            let got = merge_series_sets(parts);
            assert_eq!(got.sample_count(), samples, "outputs have no sample in common");
            assert!(
                plain(&got) == naive(&plain_inputs, cutoff_ms.unwrap_or(i64::MIN)),
                "seed {seed} {window_ms:?}"
            );
            assert!(!families.is_empty());
            let exemplars = |s: &Series| {
                s.rows.iter().filter(|r| !r.buf.is_empty()).map(|r| r.exemplars.len()).sum::<usize>()
            };
            assert!(inputs.iter().any(|s| exemplars(s) > 0));
        }
    }
}

fn meta(level: u8, seq: (u64, u64), hours: (i64, i64), samples: u64) -> BlockMeta {
    BlockMeta {
        id: BlockId::generate(),
        level,
        min_t: hours.0 * HOUR,
        max_t: hours.1 * HOUR - 1,
        series: 1,
        samples,
        objects: Default::default(),
        log: vec![],
        seq: seq.1,
        seq_min: seq.0,
        applied: Vec::new(),
    }
}

fn manifest(blocks: &[BlockMeta]) -> Manifest {
    let mut m = Manifest::empty(&tenant(), "metrics");
    m.blocks = blocks.to_vec();
    m
}

/// Jobs as (level, indexes of inputs).
fn jobs(blocks: &[BlockMeta], now_hours: i64, options: &CompactionOptions) -> Vec<(u8, Vec<usize>)> {
    plan(&manifest(blocks), now_hours * HOUR, options)
        .into_iter()
        .map(|j| {
            let mut inputs: Vec<usize> =
                j.inputs.iter().map(|id| blocks.iter().position(|b| b.id == *id).unwrap()).collect();
            inputs.sort_unstable();
            let JobKind::Merge { level, .. } = j.kind else { return (0, inputs) };
            (level, inputs)
        })
        .collect()
}

#[test]
fn plans() {
    let o = CompactionOptions { open_window_blocks: 4, ..CompactionOptions::default() };
    let flushes = |n: u64| (0..n).map(|i| meta(0, (i + 1, i + 1), (0, 1), 10)).collect::<Vec<_>>();
    assert_eq!(jobs(&flushes(3), 1, &o), [], "the window is open and the blocks are few");
    assert_eq!(jobs(&flushes(4), 1, &o), [(1, vec![0, 1, 2, 3])]);
    assert_eq!(jobs(&flushes(2), 3, &o), [(1, vec![0, 1])], "the window is over");
    assert_eq!(jobs(&flushes(2), 2, &CompactionOptions { force: true, ..o.clone() }), [(1, vec![0, 1])]);
    assert_eq!(jobs(&flushes(1), 99, &o), [], "one block is as merged as it gets");
    assert_eq!(jobs(&flushes(2), 99, &o), [(3, vec![0, 1])], "old data goes to its last level at once");
    // Level 1 to level 2.
    let two = [meta(1, (1, 4), (0, 2), 100), meta(1, (5, 9), (2, 4), 100)];
    assert_eq!(jobs(&two, 5, &o), []);
    assert_eq!(jobs(&two, 13, &o), [(2, vec![0, 1])]);
    // A late block is not worth a large one, until there are several.
    let mut late = vec![meta(1, (1, 4), (0, 2), 1000), meta(0, (9, 9), (0, 1), 1)];
    assert_eq!(jobs(&late, 3, &o), []);
    late.extend((10..13).map(|s| meta(0, (s, s), (0, 1), 1)));
    assert_eq!(jobs(&late, 3, &o), [(1, vec![0, 1, 2, 3, 4])]);
    // What lies between in order of arrival comes along.
    let between = [meta(0, (1, 1), (0, 3), 10), meta(0, (2, 2), (2, 3), 10), meta(0, (3, 3), (1, 2), 10)];
    assert_eq!(jobs(&between, 3, &o), [(1, vec![0, 1, 2])]);
    // … and where it may not, nothing is merged.
    let blocked = [meta(0, (1, 1), (0, 1), 10), meta(2, (2, 2), (0, 1), 10), meta(0, (3, 3), (0, 1), 10)];
    assert_eq!(jobs(&blocked, 3, &o), []);
    // Jobs are bounded.
    let small = CompactionOptions { job_samples_max: 25, ..o.clone() };
    assert_eq!(jobs(&flushes(4), 3, &small), [(1, vec![0, 1])]);
    // Retention.
    let keep = CompactionOptions { retention_ms: Some(24 * HOUR), ..o };
    let aged = [meta(1, (1, 1), (0, 2), 10), meta(1, (2, 2), (2, 4), 10), meta(1, (3, 3), (60, 62), 10)];
    assert_eq!(jobs(&aged, 70, &keep), [(0, vec![0, 1])]);
}

pub fn counter(name: &str, from: i64, n: i64) -> Series {
    let t: Vec<i64> = (0..n).map(|i| from + i * 15_000).collect();
    let v = t.iter().map(|t| (*t / 1000) as f64).collect();
    let labels = Labels::from_pairs([("__name__", name), ("i", "1")]).unwrap();
    let buf = SeriesBuf { t, v, ..SeriesBuf::default() };
    Series { rows: vec![Row { labels, key: None, buf, exemplars: vec![], metadata: None }], families: vec![] }
}

#[tokio::test]
async fn merged_descriptions_are_those_of_the_newest_blocks() {
    let store = memory();
    let manifests = Manifests::new(store.clone(), "metrics", ManifestOptions::default());
    let help = |i: i64| MetricMetadata { help: format!("h{i:02}"), ..MetricMetadata::default() };
    let mut readers = Vec::new();
    for i in 0..8 {
        let mut series = counter("m", i * HOUR, 10);
        // What the series say is older than what is known last.
        series.rows[0].metadata = Some(help(2 * i));
        series.families = [2 * i + 1, 2 * i].map(|i| ("m".to_owned(), help(i))).into();
        let meta = Arc::new(flush(&store, &manifests, &series, i as u64 + 1).await);
        let reader = BlockReader::open(store.clone(), &tenant(), meta, &[], BlockCache::new(1 << 20)).await;
        readers.push(reader.unwrap());
    }
    readers.reverse();
    let options = MergeOptions {
        level: 1,
        window_ms: None,
        cutoff_ms: None,
        series_max: usize::MAX,
        samples_max: u64::MAX,
        block: BlockOptions::default(),
    };
    let outputs = merge_blocks(&readers, &options).await.unwrap();
    upload_block(&store, &tenant(), &outputs[0]).await.unwrap();
    let meta = Arc::new(outputs[0].meta.clone());
    let merged = BlockReader::open(store.clone(), &tenant(), meta, &[], BlockCache::new(1 << 20)).await;
    let found = merged.unwrap().metadata(&ReadStats::default()).await.unwrap();
    let found: Vec<_> = found.into_iter().map(|e| e.metadata).collect();
    assert_eq!(found, (6..16).rev().map(help).collect::<Vec<_>>());
}

#[tokio::test]
async fn compaction_from_flush_to_deletion() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("file://{}", dir.path().display());
    life_cycle(sextant_storage::open_store(&url, &Default::default()).unwrap()).await;
}

/// Flush, compact, read, clean; over any store.
pub async fn life_cycle(store: Arc<dyn ObjectStore>) {
    let manifests = Arc::new(Manifests::new(store.clone(), "metrics", ManifestOptions::default()));
    for i in 0..6 {
        flush(&store, &manifests, &counter(["a", "b"][i % 2], i as i64 * HOUR, 240), i as u64 + 1).await;
    }
    let before = manifests.load(&tenant()).await.unwrap();
    let want = plain(&answer(&store, &before).await.unwrap());
    let compaction = Compaction::new(store.clone(), manifests.clone());
    let options = CompactionOptions { delete_delay_ms: 1000, orphan_grace_ms: 1000, ..Default::default() };
    let now = 100 * HOUR;
    let mut rounds = 0;
    loop {
        let manifest = manifests.refresh(&tenant()).await.unwrap();
        let jobs = plan(&manifest, now, &options);
        if jobs.is_empty() {
            break;
        }
        for job in &jobs {
            let outcome = apply_job(&compaction, &tenant(), job, &options).await.unwrap();
            assert!(outcome.inputs >= 2 && !outcome.outputs.is_empty());
            let again = apply_job(&compaction, &tenant(), job, &options).await;
            assert!(matches!(again, Err(StorageError::Stale { .. })), "a job is done once");
        }
        rounds += 1;
        assert!(rounds < 10);
    }
    let after = manifests.load(&tenant()).await.unwrap();
    assert_eq!((after.blocks.len(), after.blocks[0].level), (1, 3));
    assert!(plain(&answer(&store, &after).await.unwrap()) == want);
    // A reader that holds the old version still reads it, until the grace time is over.
    let now = after.retired.iter().map(|r| r.retired_ms).max().unwrap();
    let cleaned = clean_tenant(&compaction, &tenant(), now, &options).await.unwrap();
    assert!(cleaned.retired.is_empty() && cleaned.orphans.is_empty());
    assert!(plain(&answer(&store, &before).await.unwrap()) == want);
    // An orphan: uploaded, never committed.
    let orphan = write_block(&counter("c", 0, 3), BlockOptions::default()).unwrap().unwrap();
    upload_block(&store, &tenant(), &orphan).await.unwrap();
    let cleaned = clean_tenant(&compaction, &tenant(), now + 5000, &options).await.unwrap();
    assert_eq!((cleaned.retired.len(), cleaned.orphans), (6, vec![orphan.meta.id]));
    let newest = manifests.load(&tenant()).await.unwrap();
    assert!(newest.retired.is_empty());
    assert!(matches!(answer(&store, &before).await, Err(StorageError::Missing { .. })));
    assert!(plain(&answer(&store, &newest).await.unwrap()) == want);
    let left =
        store.list_with_delimiter(Some(&sextant_storage::paths::blocks(&tenant(), "metrics"))).await.unwrap();
    assert_eq!(left.common_prefixes.len(), 1);
    // Retention.
    let options = CompactionOptions { retention_ms: Some(HOUR), ..options };
    let jobs = plan(&newest, 1000 * HOUR, &options);
    assert_eq!(jobs.len(), 1);
    apply_job(&compaction, &tenant(), &jobs[0], &options).await.unwrap();
    assert!(manifests.load(&tenant()).await.unwrap().blocks.is_empty());
}
