//! What is written comes back bit for bit, whatever the matchers and the range, with and without a sidecar.

use rand::{Rng, SeedableRng, rngs::StdRng};
use sextant_model::{MatchOp, Matcher, MetricMetadata};
use sextant_storage::{BlockOptions, BlockSelect, ReadStats, StorageError};

use crate::support::{self, Series, hard_set, memory, plain, stored};

fn options(sidecar: bool, seed: u64) -> BlockOptions {
    // Small pages and row groups, so that series span them.
    BlockOptions {
        sidecar,
        page_bytes: 4096 << (seed % 3),
        row_group_rows: 32 << 10,
        ..BlockOptions::default()
    }
}

fn random_matchers(rng: &mut StdRng) -> Vec<Matcher> {
    let ops = [MatchOp::Equal, MatchOp::NotEqual, MatchOp::Regex, MatchOp::NotRegex];
    let names = ["__name__", "pod", "job", "rare3", "Zone", "POD", "i", "nothing"];
    let values =
        ["up", "x", "", "job1", "pod-3", "pod-.*", "job1|job2", "up|", ".+", ".*", "z1", "7|8|9", "upper"];
    (0..rng.random_range(0..4))
        .map(|_| {
            let value = values[rng.random_range(0..values.len())];
            Matcher::new(names[rng.random_range(0..names.len())], ops[rng.random_range(0..4)], value).unwrap()
        })
        .collect()
}

#[tokio::test]
async fn every_selection_is_the_naive_one() {
    for (seed, count, samples) in [(1, 200, 60), (2, 1, 1), (3, 30, 2000), (4, 3000, 3)] {
        let series = hard_set(seed, count, samples);
        for sidecar in [true, false] {
            let reader = stored(&memory(), &series, options(sidecar, seed)).await;
            let stats = ReadStats::default();
            let mut rng = StdRng::seed_from_u64(seed);
            for turn in 0..40 {
                let matchers = if turn == 0 { vec![] } else { random_matchers(&mut rng) };
                let (start, end) = match turn % 4 {
                    0 => (i64::MIN, i64::MAX),
                    _ => {
                        let start = 1_700_000_000_000 + rng.random_range(-100_000..2_000_000);
                        (start, start + rng.random_range(0..1_000_000))
                    }
                };
                let want = plain(&series.select(&matchers, start, end));
                let select = BlockSelect::new(matchers.clone(), start, end);
                let got = reader.select(&select, &stats).await.unwrap();
                assert!(plain(&got) == want, "seed {seed} sidecar {sidecar} {matchers:?} {start}..{end}");
                check_labels(&series, &reader, &select, &stats).await;
            }
        }
    }
}

async fn check_labels(
    series: &Series,
    reader: &sextant_storage::BlockReader,
    select: &BlockSelect,
    stats: &ReadStats,
) {
    // Labels are found by a series' first and last sample.
    let around = |r: &&support::Row| {
        let t: Vec<i64> = r.buf.t.iter().copied().chain(r.buf.h.iter().map(|h| h.t)).collect();
        let (Some(min), Some(max)) = (t.iter().min(), t.iter().max()) else { return false };
        *min <= select.end && *max >= select.start
    };
    let matching: Vec<_> = series
        .rows
        .iter()
        .filter(|r| select.matchers.iter().all(|m| m.matches(r.labels.get(&m.name).unwrap_or(""))))
        .filter(around)
        .map(|r| r.labels.clone())
        .collect();
    let mut sorted = matching.clone();
    sorted.sort();
    assert_eq!(reader.series(select, stats).await.unwrap(), sorted);
    let mut names: Vec<String> = matching.iter().flat_map(|l| l.iter().map(|(n, _)| n.to_owned())).collect();
    names.sort();
    names.dedup();
    assert_eq!(reader.label_names(select, stats).await.unwrap(), names);
    for name in ["pod", "__name__", "rare3", "nothing"] {
        let mut values: Vec<String> =
            matching.iter().filter_map(|l| l.get(name).map(str::to_owned)).collect();
        values.sort();
        values.dedup();
        assert_eq!(reader.label_values(name, select, stats).await.unwrap(), values);
    }
    let exemplars: usize = series
        .rows
        .iter()
        .filter(|r| !r.buf.is_empty())
        .filter(|r| select.matchers.iter().all(|m| m.matches(r.labels.get(&m.name).unwrap_or(""))))
        .flat_map(|r| &r.exemplars)
        .filter(|e| (select.start..=select.end).contains(&e.t))
        .count();
    let found = reader.exemplars(select, stats).await.unwrap();
    assert_eq!(found.iter().map(|s| s.exemplars.len()).sum::<usize>(), exemplars);
    for s in found {
        let row = series.rows.iter().find(|r| r.labels == s.labels).unwrap();
        assert!(s.exemplars.iter().all(|e| row.exemplars.contains(e)));
    }
}

#[tokio::test]
async fn metadata_survives_without_series() {
    let series = hard_set(5, 50, 10);
    let reader = stored(&memory(), &series, options(true, 0)).await;
    let found = reader.metadata(&ReadStats::default()).await.unwrap();
    assert!(found.iter().any(|e| e.name == "family_without_series" && e.metadata.help == "h"));
    assert!(found.len() > 3);
    let only = Series { rows: vec![], ..series };
    let reader = stored(&memory(), &only, options(true, 0)).await;
    assert_eq!(reader.metadata(&ReadStats::default()).await.unwrap().len(), 1);
    let all = BlockSelect::new(vec![], i64::MIN, i64::MAX);
    assert!(reader.select(&all, &ReadStats::default()).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_family_has_a_row_for_each_description_the_newest_first() {
    let help = |i: usize| MetricMetadata { help: format!("h{i:02}"), ..MetricMetadata::default() };
    let families = [3, 1, 2, 1].map(|i| ("b".to_owned(), help(i))).into_iter();
    let many = (0..20).rev().map(|i| ("a".to_owned(), help(i)));
    let only = Series { rows: vec![], families: families.chain(many).collect() };
    let reader = stored(&memory(), &only, options(true, 0)).await;
    let found = reader.metadata(&ReadStats::default()).await.unwrap();
    let found: Vec<_> = found.iter().map(|e| format!("{} {}", e.name, e.metadata.help)).collect();
    let newest = (10..20).rev().map(|i| format!("a h{i}"));
    let expected: Vec<_> = newest.chain(["b h03", "b h01", "b h02"].map(str::to_owned)).collect();
    assert_eq!(found, expected);
}

#[tokio::test]
async fn limits_are_errors_that_name_themselves() {
    let series = hard_set(6, 50, 10);
    let reader = stored(&memory(), &series, options(true, 0)).await;
    let mut select = BlockSelect::new(vec![], i64::MIN, i64::MAX);
    select.limits.series_max = 10;
    let e = reader.select(&select, &ReadStats::default()).await.unwrap_err();
    assert!(matches!(e, StorageError::Limit { what: "series", limit: 10 }), "{e}");
    select.limits.series_max = 1000;
    select.limits.samples_max = 100;
    let e = reader.select(&select, &ReadStats::default()).await.unwrap_err();
    assert!(matches!(e, StorageError::Limit { what: "samples", limit: 100 }), "{e}");
}

#[tokio::test]
async fn a_sidecar_that_is_gone_makes_reads_slow_not_wrong() {
    use object_store::ObjectStoreExt;
    let series = hard_set(7, 100, 10);
    let store = memory();
    let reader = stored(&store, &series, options(true, 0)).await;
    let meta = reader.meta().clone();
    let path = sextant_storage::paths::object(&support::tenant(), "metrics", meta.id, "index");
    store.delete(&path).await.unwrap();
    let cache = sextant_storage::BlockCache::new(1 << 20);
    let reader =
        sextant_storage::BlockReader::open(store, &support::tenant(), meta, &[], cache).await.unwrap();
    let m = vec![Matcher::equal("job", "job1")];
    let got = reader.select(&BlockSelect::new(m.clone(), 0, i64::MAX), &ReadStats::default()).await.unwrap();
    assert!(plain(&got) == plain(&series.select(&m, 0, i64::MAX)));
    assert!(!got.is_empty());
}
