//! Limits where both versions and the shards meet them; the single limits are in `receiver/limits`.

use sextant_proto::{LimitDuration, TenantLimits};

use crate::send::{Bench, NOW_MS, Series, labels, v1, v2, written};

fn defaults() -> TenantLimits {
    TenantLimits::default()
}

fn named(name: &str, t: i64) -> Series {
    Series::new(&[("__name__", name)], t, 1.0)
}

#[tokio::test]
async fn label_limits_refuse_their_series_only() {
    let limits = TenantLimits {
        max_label_names_per_series: 3,
        max_label_name_length: 10,
        max_label_value_length: 12,
        ..defaults()
    };
    let with = |pairs: &[(&str, &str)]| {
        let mut s = named("bad", 1);
        s.labels.extend(labels(pairs));
        s
    };
    let table = [
        (
            with(&[("a", "1"), ("b", "1"), ("c", "1")]),
            "limit max_label_names_per_series (3) exceeded by 4 labels",
        ),
        (
            with(&[("abcdefghijk", "1")]),
            "limit max_label_name_length (10) exceeded by label name \"abcdefghijk\" (11 bytes)",
        ),
        (
            with(&[("a", "0123456789abc")]),
            "limit max_label_value_length (12) exceeded by label \"a\" (13 bytes)",
        ),
    ];
    for (bad, expected) in table {
        for is_v2 in [false, true] {
            let bench = Bench::with_limits(limits.clone());
            // Twice: what was refused once must not be known the second time.
            for t in [1, 2] {
                let series = [named("good", t), bad.clone(), named("better", t)];
                let answer = bench.send(&if is_v2 { v2(&series) } else { v1(&series) }).await;
                assert_eq!(answer.status, 400, "{}", answer.body);
                assert!(answer.body.contains(expected), "{}", answer.body);
                let key = expected.split(' ').nth(1).unwrap();
                assert!(answer.body.contains(&format!("raise it with limits key {key}")), "{}", answer.body);
                assert!(answer.body.contains("{__name__=\"bad\""), "the series: {}", answer.body);
                assert_eq!(written(&answer), if is_v2 { [Some(2), Some(0), Some(0)] } else { [None; 3] });
            }
            assert_eq!(bench.fake.series(), ["better", "good"]);
        }
    }
}

#[tokio::test]
async fn limits_of_shards_go_with_the_batch() {
    let limits = TenantLimits {
        max_active_series: 5,
        out_of_order_window: LimitDuration::from_secs(60),
        ..defaults()
    };
    let bench = Bench::with_limits(limits);
    assert_eq!(bench.send(&v1(&[named("a", NOW_MS)])).await.status, 204);
    assert_eq!(bench.fake.lock().last_limits, Some((3, 60_000, NOW_MS)), "two shards share five series");
    let open = Bench::with_limits(defaults());
    assert_eq!(open.send(&v1(&[named("a", NOW_MS)])).await.status, 204);
    assert_eq!(open.fake.lock().last_limits, Some((0, -1, NOW_MS)));
}
