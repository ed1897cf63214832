//! Tombstones: which blocks they concern, what readers and merges make of them, and changes that meet.

use std::{collections::BTreeMap, sync::Arc};

use sextant_model::{MatchOp, Matcher, ResetHint, SeriesSet};
use sextant_proto::ShardId;
use sextant_storage::{
    BlockCache, BlockId, BlockMeta, BlockOptions, BlockReader, BlockSelect, Compaction, CompactionOptions,
    JobKind, LogRange, Manifest, ManifestOptions, Manifests, ReadStats, StorageError, Tombstone, TombstoneId,
    TombstonePosition, apply_job, clean_tenant, plan, plan_deletions, upload_block, write_block,
};

use crate::{
    merging::counter,
    support::{Plain, hard_set, memory, plain, tenant},
};

const ALL: (i64, i64) = (i64::MIN, i64::MAX);

fn m(name: &str, op: MatchOp, value: &str) -> Matcher {
    Matcher::new(name, op, value).unwrap()
}

fn tombstone(selectors: Vec<Vec<Matcher>>, range: (i64, i64), positions: &[(u32, u64)]) -> Tombstone {
    let at = |&(shard, position)| (shard, TombstonePosition { position, pending: position });
    Tombstone {
        id: TombstoneId::generate(),
        selectors,
        start: range.0,
        end: range.1,
        shards: positions.iter().map(at).collect(),
        version: 0,
    }
}

fn everything(positions: &[(u32, u64)]) -> Tombstone {
    tombstone(vec![vec![m("__name__", MatchOp::NotEqual, "")]], ALL, positions)
}

fn block(log: &[(u32, u64, u64)]) -> BlockMeta {
    BlockMeta {
        id: BlockId::generate(),
        level: 0,
        min_t: 0,
        max_t: 100,
        series: 1,
        samples: 1,
        objects: BTreeMap::new(),
        log: log.iter().map(|&(shard, from, to)| LogRange { shard, from, to }).collect(),
        seq: 1,
        seq_min: 1,
        applied: Vec::new(),
    }
}

fn manifest(blocks: &[BlockMeta]) -> Manifest {
    let mut all = Manifest::empty(&tenant(), "metrics");
    all.version = 5;
    all.blocks = blocks.to_vec();
    all
}

#[test]
fn blocks_are_before_or_after_and_mixed_ones_are_refused() {
    let t = everything(&[(0, 10), (1, 20)]);
    let applies = |log: &[(u32, u64, u64)]| {
        let b = block(log);
        let with = manifest(std::slice::from_ref(&b)).with_tombstone(&t).ok()?;
        Some(with.tombstones_of(&b).len() == 1)
    };
    assert_eq!(applies(&[(0, 1, 10)]), Some(true));
    assert_eq!(applies(&[(0, 11, 15)]), Some(false));
    assert_eq!(applies(&[(0, 5, 11)]), None, "a range on both sides");
    assert_eq!(applies(&[(0, 1, 10), (1, 1, 20)]), Some(true));
    assert_eq!(applies(&[(0, 11, 12), (1, 21, 22)]), Some(false));
    assert_eq!(applies(&[(0, 1, 10), (1, 21, 22)]), None, "shards on different sides");
    assert_eq!(applies(&[(2, 1, 5)]), Some(false), "a shard that the deletion does not know");
    assert_eq!(applies(&[]), Some(true), "arrived before");
    let mut done = block(&[(0, 5, 11)]);
    done.applied.push(t.id);
    let with = manifest(&[done.clone()]).with_tombstone(&t).unwrap();
    assert!(with.tombstones_of(&done).is_empty());
    let elsewhere = Tombstone { start: 101, ..t.clone() };
    let mixed = block(&[(0, 5, 11)]);
    assert!(manifest(&[mixed]).with_tombstone(&elsewhere).is_ok(), "another time");
}

#[test]
fn a_tombstone_is_added_once_and_goes_when_nothing_is_left() {
    let t = everything(&[(0, 10)]);
    let before = block(&[(0, 1, 10)]);
    let mut with = manifest(std::slice::from_ref(&before)).with_tombstone(&t).unwrap();
    assert_eq!((with.tombstones.len(), with.tombstones[0].version), (1, 6));
    assert_eq!(with.with_tombstone(&t).unwrap(), with);
    assert_eq!(with.known_position(ShardId(0)), 10);
    assert_eq!(Manifest::decode("x", &with.encode().unwrap()).unwrap(), with);
    assert_eq!(with.without_done_tombstones(0), with);
    let applied = with.with_applied(before.id, &[t.id]);
    assert_eq!(applied.without_done_tombstones(0), applied, "rows before it may still come");
    with = applied;
    with.covered.insert(0, 10);
    let done = with.without_done_tombstones(0);
    assert!(done.tombstones.is_empty() && done.blocks[0].applied.is_empty());
    // With nothing to do it is not added.
    let mut nothing = manifest(&[block(&[(0, 11, 12)])]);
    nothing.covered.insert(0, 12);
    assert_eq!(nothing.with_tombstone(&t).unwrap(), nothing);
    // Manifests of before are read.
    let text = String::from_utf8(manifest(&[]).encode().unwrap()).unwrap();
    assert!(!text.contains("tombstones"), "{text}");
    // What cannot be a tombstone is not taken for one.
    let text = String::from_utf8(manifest(&[before]).with_tombstone(&t).unwrap().encode().unwrap()).unwrap();
    for (from, to) in [
        ("\"op\":\"!=\"", "\"op\":\"<>\""),
        ("\"op\":\"!=\",\"value\":\"\"", "\"op\":\"=~\",\"value\":\"(\""),
    ] {
        assert!(text.contains(from));
        let body = text.split_once("\"manifest\":").unwrap().1.trim_end().strip_suffix('}').unwrap();
        let body = body.replace(from, to);
        let bad = format!("{{\"crc32c\":\"{:08x}\",\"manifest\":{body}}}\n", crc32c::crc32c(body.as_bytes()));
        assert!(matches!(Manifest::decode("x", bad.as_bytes()), Err(StorageError::Corrupt { .. })));
    }
}

#[test]
fn a_merge_that_does_not_know_a_deletion_is_refused() {
    let (a, b) = (block(&[(0, 1, 10)]), block(&[(0, 11, 20)]));
    let t = everything(&[(0, 10)]);
    let with = manifest(&[a.clone(), b.clone()]).with_tombstone(&t).unwrap();
    let mut out = block(&[(0, 1, 20)]);
    let stale = with.with_merge(&[a.id, b.id], std::slice::from_ref(&out), 0);
    assert!(matches!(stale, Err(StorageError::Stale { .. })));
    out.applied = vec![TombstoneId::generate(), t.id];
    let merged = with.with_merge(&[a.id, b.id], std::slice::from_ref(&out), 0).unwrap();
    assert_eq!(merged.blocks[0].applied, [t.id], "what is gone is forgotten");
    assert!(merged.tombstones_of(&merged.blocks[0]).is_empty());
    out.applied.clear();
    let older = block(&[(1, 1, 3)]);
    let both = manifest(&[a.clone(), block(&[(0, 1, 5)])]).with_tombstone(&t).unwrap();
    let inputs: Vec<_> = both.blocks.iter().map(|b| b.id).collect();
    let merged = both.with_merge(&inputs, &[block(&[(0, 1, 10)])], 0).unwrap();
    assert_eq!(merged.tombstones_of(&merged.blocks[0]).len(), 1, "all of it is before the deletion");
    let both = manifest(&[a.clone(), older.clone()]).with_tombstone(&t).unwrap();
    let stale = both.with_merge(&[a.id, older.id], std::slice::from_ref(&out), 0);
    assert!(matches!(stale, Err(StorageError::Stale { .. })), "a shard that the deletion does not know");
    assert!(with.with_merge(&[b.id], &[out], 0).is_ok(), "the input is not subject to it");
    assert!(with.with_merge(&[a.id], &[], 0).is_ok(), "everything is dropped");
}

#[test]
fn blocks_that_come_after_an_announcement_are_not_merged_until_its_tombstone_comes() {
    let (t, other) = (everything(&[(0, 10)]), everything(&[(0, 10)]));
    let now = t.id.created_ms();
    let mut old = [block(&[(0, 1, 5)]), block(&[(0, 6, 10)])];
    let mut new = [block(&[(0, 11, 15)]), block(&[(0, 16, 20)])];
    (old[0].seq, old[1].seq, new[0].seq, new[1].seq) = (3, 4, 6, 7);
    let announced = manifest(&old).with_announced(t.id);
    assert_eq!(announced.with_announced(t.id), announced);
    assert_eq!(announced.announced[0].version, 6);
    assert_eq!(Manifest::decode("x", &announced.encode().unwrap()).unwrap(), announced);
    let mut later = announced.clone();
    later.blocks.extend(new.clone());
    let out = [block(&[(0, 1, 20)])];
    let merge =
        |m: &Manifest, a: &BlockMeta, b: &BlockMeta, now| m.with_merge(&[a.id, b.id], &out, now).is_ok();
    assert!(merge(&later, &old[0], &old[1], now));
    assert!(!merge(&later, &old[0], &new[0], now) && !merge(&later, &new[0], &new[1], now));
    assert!(later.with_merge(&[new[0].id], &out, now).is_ok(), "one block is not mixed");
    assert!(later.with_merge(&[old[0].id, new[0].id], &[], now).is_ok(), "everything is dropped");
    let late = now + 6 * 60_000;
    assert!(merge(&later, &old[0], &new[0], late), "the author has died");
    assert!(later.without_done_tombstones(late).announced.is_empty());
    assert_eq!(later.without_done_tombstones(now), later);
    let options = CompactionOptions { force: true, ..CompactionOptions::default() };
    assert_eq!(plan(&later, now, &options), []);
    assert_eq!(plan(&announced, now, &options).len(), 1);
    assert_eq!(plan(&later, late, &options)[0].inputs.len(), 4);
    let committed = later.with_tombstone(&t).unwrap();
    assert!(committed.announced.is_empty() && later.with_tombstone(&other).unwrap().announced.len() == 1);
    assert!(later.without_announced(t.id).announced.is_empty());
    assert!(manifest(&[]).with_announced(t.id).announced.is_empty(), "without blocks nothing is merged");
}

fn selectors() -> Vec<Vec<Vec<Matcher>>> {
    use MatchOp::{Equal, NotEqual, Regex};
    vec![
        vec![vec![m("__name__", NotEqual, "")]],
        vec![vec![m("job", Equal, "")]],
        vec![
            vec![m("pod", Regex, "pod-[02468].*")],
            vec![m("i", Regex, ".*1.*"), m("job", NotEqual, "job1")],
        ],
        vec![vec![m("__name__", Equal, "no such metric")]],
    ]
}

/// The first histogram of a part of a series is told from the one before the part, deleted or not.
fn bits(mut set: SeriesSet, start: i64) -> Plain {
    if start > i64::MIN {
        set.h.iter_mut().for_each(|h| h.h.reset_hint = ResetHint::Unknown);
    }
    plain(&set)
}

/// Readers, label listings and merges of hard blocks against the series with the samples taken out by hand.
#[tokio::test]
async fn readers_and_merges_are_the_naive_ones() {
    for (seed, selectors) in selectors().into_iter().enumerate() {
        let store = memory();
        let manifests = Arc::new(Manifests::new(store.clone(), "metrics", ManifestOptions::default()));
        let series = hard_set(seed as u64 + 40, 120, 60);
        let files = write_block(&series, BlockOptions::default()).unwrap().unwrap();
        upload_block(&store, &tenant(), &files).await.unwrap();
        let mut meta = files.meta;
        meta.log = vec![LogRange { shard: 0, from: 1, to: 7 }];
        let first = std::slice::from_ref(&meta);
        manifests.commit(&tenant(), |m| m.with_flush(ShardId(0), 7, first)).await.unwrap();

        let times: Vec<i64> = series.rows.iter().flat_map(|r| r.buf.t.iter().copied()).collect();
        let mut sorted = times.clone();
        sorted.sort_unstable();
        let range = (sorted[sorted.len() / 3], sorted[sorted.len() / 2]);
        let ranges = [range, (sorted[0], sorted[0])];
        let mut left = series.clone();
        let matches = |labels: &sextant_model::Labels, s: &[Vec<Matcher>]| {
            s.iter().any(|s| s.iter().all(|m| m.matches(labels.get(&m.name).unwrap_or(""))))
        };
        let selected = series.rows.iter().any(|r| !r.buf.is_empty() && matches(&r.labels, &selectors));
        assert_eq!(selected, seed != 3);
        for row in left.rows.iter_mut().filter(|r| matches(&r.labels, &selectors)) {
            row.buf.remove(&ranges);
            row.exemplars.retain(|e| !ranges.iter().any(|r| r.0 <= e.t && e.t <= r.1));
        }
        for range in ranges {
            let t = tombstone(selectors.clone(), range, &[(0, 7)]);
            manifests.commit(&tenant(), |m| m.with_tombstone(&t)).await.unwrap();
        }
        let check = async |what: &str| {
            let manifest = manifests.refresh(&tenant()).await.unwrap();
            let stats = ReadStats::default();
            let mut exemplars = 0;
            let mut samples = 0;
            for meta in &manifest.blocks {
                let open = || {
                    let tombstones = manifest.tombstones_of(meta);
                    let (store, meta) = (store.clone(), Arc::new(meta.clone()));
                    async move {
                        let cache = BlockCache::new(1 << 20);
                        BlockReader::open(store, &tenant(), meta, &tombstones, cache).await.unwrap()
                    }
                };
                let reader = open().await;
                for (start, end) in [ALL, range, (sorted[sorted.len() / 4], range.0), (range.1 + 1, i64::MAX)]
                {
                    let select = BlockSelect::new(vec![], start, end);
                    let got = reader.select(&select, &stats).await.unwrap();
                    let want = left.select(&[], start, end);
                    assert!(
                        bits(got, start) == bits(want.clone(), start),
                        "{what}: seed {seed}, {start}..{end}"
                    );
                    let found = open().await.selection(select.clone(), &stats).await.unwrap();
                    let got = found.read(0..found.len(), &stats).await.unwrap();
                    assert!(
                        bits(got, start) == bits(want.clone(), start),
                        "{what}: seed {seed}, {start}..{end}"
                    );
                    if (start, end) == ALL {
                        assert_eq!(reader.series(&select, &stats).await.unwrap(), want.labels);
                        let mut names: Vec<_> = want
                            .labels
                            .iter()
                            .flat_map(|l| l.iter().map(|(n, _)| n.to_owned()).collect::<Vec<_>>())
                            .collect();
                        names.sort();
                        names.dedup();
                        assert_eq!(reader.label_names(&select, &stats).await.unwrap(), names);
                        samples += want.sample_count();
                    }
                }
                let all = BlockSelect::new(vec![], ALL.0, ALL.1);
                exemplars += reader
                    .exemplars(&all, &stats)
                    .await
                    .unwrap()
                    .iter()
                    .map(|e| e.exemplars.len())
                    .sum::<usize>();
            }
            (exemplars, samples)
        };
        let rows = left.rows.iter().filter(|r| !r.buf.is_empty());
        let want = rows.map(|r| r.exemplars.len()).sum::<usize>();
        let (exemplars, samples) = check("read").await;
        assert!(exemplars >= want);

        let compaction = Compaction::new(store.clone(), manifests.clone());
        let options = CompactionOptions::default();
        let manifest = manifests.refresh(&tenant()).await.unwrap();
        let now = manifest.tombstones[0].id.created_ms();
        assert_eq!(plan(&manifest, now + options.tombstone_delay_ms - 10, &options), []);
        let jobs = plan(&manifest, now + options.tombstone_delay_ms + 10_000, &options);
        assert_eq!(jobs, plan_deletions(&manifest, now, &options));
        assert!(matches!(jobs[..], [ref j] if j.kind == JobKind::Rewrite { cutoff_ms: None }));
        let outcome = apply_job(&compaction, &tenant(), &jobs[0], &options).await.unwrap();
        let after = manifests.refresh(&tenant()).await.unwrap();
        let unchanged = after.blocks[0].id == manifest.blocks[0].id;
        assert_eq!(unchanged, !selected, "nothing is written for nothing");
        if !unchanged {
            assert_eq!((outcome.inputs, after.blocks[0].samples), (1, samples as u64));
            let (old, new) = (&manifest.blocks[0], &after.blocks[0]);
            assert_eq!((old.seq, old.level, &old.log), (new.seq, new.level, &new.log));
        }
        assert_eq!(plan_deletions(&after, now, &options), []);
        assert_eq!(check("written again").await.0, if unchanged { exemplars } else { want });
        clean_tenant(&compaction, &tenant(), now, &options).await.unwrap();
        let last = manifests.refresh(&tenant()).await.unwrap();
        assert!(last.tombstones.is_empty() && last.blocks[0].applied.is_empty());
    }
}

/// An older block's deleted sample neither hides nor outlives anything in a merge, and a later one at its time stays.
#[tokio::test]
async fn a_merge_takes_deleted_rows_out_before_it_joins() {
    let store = memory();
    let manifests = Arc::new(Manifests::new(store.clone(), "metrics", ManifestOptions::default()));
    let value = |v: f64| {
        let mut s = counter("a", 0, 10);
        s.rows[0].buf.v.fill(v);
        s
    };
    let flush = async |v: f64, from: u64, to: u64, n: usize| {
        let mut s = value(v);
        s.rows[0].buf.t.truncate(n);
        s.rows[0].buf.v.truncate(n);
        let mut files = write_block(&s, BlockOptions::default()).unwrap().unwrap();
        files.meta.log = vec![LogRange { shard: 0, from, to }];
        upload_block(&store, &tenant(), &files).await.unwrap();
        let blocks = [files.meta];
        manifests.commit(&tenant(), |m| m.with_flush(ShardId(0), to, &blocks)).await.unwrap();
    };
    flush(1.0, 1, 10, 10).await;
    flush(2.0, 11, 20, 10).await;
    let t = tombstone(vec![vec![m("__name__", MatchOp::Equal, "a")]], (30_000, 90_000), &[(0, 20)]);
    manifests.commit(&tenant(), |m| m.with_tombstone(&t)).await.unwrap();
    flush(3.0, 21, 30, 4).await;
    let compaction = Compaction::new(store.clone(), manifests.clone());
    let options = CompactionOptions { force: true, ..CompactionOptions::default() };
    let values = async || {
        let m = manifests.refresh(&tenant()).await.unwrap();
        let mut parts = Vec::new();
        for meta in &m.blocks {
            let (cache, id) = (BlockCache::new(1 << 20), Arc::new(meta.clone()));
            let tombstones = m.tombstones_of(meta);
            let reader = BlockReader::open(store.clone(), &tenant(), id, &tombstones, cache).await.unwrap();
            let all = BlockSelect::new(vec![], ALL.0, ALL.1);
            parts.push((meta.priority(), reader.select(&all, &ReadStats::default()).await.unwrap()));
        }
        let set = sextant_storage::merge_series_sets(parts);
        set.t.iter().zip(&set.v).map(|(t, v)| (t / 15_000, *v)).collect::<Vec<_>>()
    };
    // 15 s apart: 2 to 6 are deleted, 0 to 3 were written after it.
    let want = [(0, 3.0), (1, 3.0), (2, 3.0), (3, 3.0), (7, 2.0), (8, 2.0), (9, 2.0)];
    assert_eq!(values().await, want);
    let jobs = plan(&manifests.refresh(&tenant()).await.unwrap(), 0, &options);
    assert_eq!((jobs.len(), jobs[0].inputs.len()), (1, 3));
    apply_job(&compaction, &tenant(), &jobs[0], &options).await.unwrap();
    let merged = manifests.refresh(&tenant()).await.unwrap();
    assert_eq!((merged.blocks.len(), &merged.blocks[0].applied), (1, &vec![t.id]));
    assert_eq!(values().await, want);
}
