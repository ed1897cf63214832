//! Limits: what they refuse and what they say, and their file.

use std::{sync::Arc, time::Duration};

use sextant_distributor::{DistributorConfig, LimitsWatcher};
use sextant_model::TenantId;
use sextant_proto::{LimitDuration, Limits, LimitsHandle, TenantLimits};

use super::{
    encode::{V2, sample_v2, series},
    shards::{Shards, header, send, written},
};

#[tokio::test]
async fn labels_and_sizes() {
    let shards = Shards::new(1);
    let limits = TenantLimits {
        max_label_names_per_series: 3,
        max_label_name_length: 10,
        max_label_value_length: 20,
        max_request_bytes: 1000,
        ..TenantLimits::default()
    };
    let d = shards.distributor(limits, DistributorConfig::default());
    let long = "x".repeat(21);
    for (labels, reason) in [
        (
            vec![("__name__", "m"), ("x", long.as_str())],
            "limit max_label_value_length (20) exceeded by label \"x\" (21 bytes); raise it with limits key \
             max_label_value_length",
        ),
        (
            vec![("__name__", "m"), ("xxxxxxxxxxx", "1")],
            "limit max_label_name_length (10) exceeded by label name \"xxxxxxxxxxx\" (11 bytes)",
        ),
        (
            vec![("__name__", "m"), ("a", "1"), ("b", "1"), ("c", "1")],
            "limit max_label_names_per_series (3) exceeded by 4 labels",
        ),
    ] {
        let answer = send(&d, 1, &series(&labels, &[(1, 1.0)])).await;
        assert_eq!(answer.status, 400);
        assert!(answer.body.contains(reason), "{}", answer.body);
    }
    let many: Vec<u8> = (0..100).flat_map(|t| series(&[("__name__", "m")], &[(t, 1.0)])).collect();
    let answer = send(&d, 1, &many).await;
    assert_eq!(answer.status, 413);
    assert!(answer.body.contains("limit max_request_bytes (1000) exceeded"), "{}", answer.body);
}

#[tokio::test]
async fn rate() {
    let shards = Shards::new(1);
    let limits = TenantLimits { ingestion_rate: 10.0, ..TenantLimits::default() };
    let now = Arc::new(std::sync::atomic::AtomicI64::new(1_000_000));
    let clock = now.clone();
    let d = shards
        .distributor(limits, DistributorConfig::default())
        .with_clock(Arc::new(move || clock.load(std::sync::atomic::Ordering::Relaxed)));
    let body = |t| series(&[("__name__", "m")], &[(t, 1.0), (t + 1, 1.0), (t + 2, 1.0), (t + 3, 1.0)]);
    for (t, status) in [(0, 204), (10, 204), (20, 429)] {
        let answer = send(&d, 1, &body(t)).await;
        assert_eq!(answer.status, status);
        assert_eq!(header(&answer, "Retry-After").as_deref(), (status == 429).then_some("1"));
        assert_eq!(answer.body.contains("limits keys ingestion_rate"), status == 429);
    }
    now.fetch_add(1000, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(send(&d, 1, &body(20)).await.status, 204);
    assert_eq!(shards.0.lock().of("m").samples.len(), 12);
}

#[tokio::test]
async fn active_series() {
    let shards = Shards::new(1);
    let limits = TenantLimits { max_active_series: 3, ..TenantLimits::default() };
    let d = shards.distributor(limits, DistributorConfig::default());
    let message = |from: usize, to: usize, t: i64| {
        let mut v2 = V2::default();
        for n in from..to {
            let fields = [sample_v2(t, 1.0, 0), sample_v2(t + 1, 1.0, 0)].concat();
            v2.series(&[("__name__", "m"), ("n", &n.to_string())], &fields);
        }
        v2.message()
    };
    // In part: what fits is stored and must not be repeated.
    let answer = send(&d, 2, &message(0, 4, 1)).await;
    assert_eq!((answer.status, written(&answer)), (400, vec!["6".into(), "0".into(), "0".into()]));
    assert!(answer.body.contains("limit max_active_series (3) exceeded by new series"), "{}", answer.body);
    assert!(answer.body.contains(r#"{__name__="m", n="3"}"#), "{}", answer.body);
    // Nothing fits: it may be repeated.
    let answer = send(&d, 2, &message(7, 9, 2)).await;
    assert_eq!((answer.status, written(&answer)), (429, vec!["0".into(); 3]));
    assert!(header(&answer, "Retry-After").is_some());
    assert_eq!(send(&d, 2, &message(0, 3, 5)).await.status, 204);
    // Another shard each: every shard has its part.
    assert_eq!(shards.0.lock().stored.len(), 3);
}

#[tokio::test]
async fn out_of_order_window() {
    let shards = Shards::new(1);
    let limits =
        TenantLimits { out_of_order_window: LimitDuration::from_secs(60), ..TenantLimits::default() };
    let d = shards.distributor(limits, DistributorConfig::default()).with_clock(Arc::new(|| 1_000_000));
    let body = |t| series(&[("__name__", "m")], &[(t, 1.0)]);
    assert_eq!(send(&d, 1, &body(1_000_000)).await.status, 204);
    assert_eq!(send(&d, 1, &body(950_000)).await.status, 204);
    let answer = send(&d, 1, &[body(900_000), body(960_000)].concat()).await;
    assert_eq!(answer.status, 400);
    assert!(
        answer
            .body
            .contains("limit out_of_order_window (1m) exceeded by a sample of series {__name__=\"m\"}"),
        "{}",
        answer.body
    );
    assert_eq!(shards.0.lock().of("m").samples.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn the_file_is_read_again_and_a_bad_one_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("limits.yaml");
    let configured = TenantLimits { max_request_bytes: 1 << 20, ..TenantLimits::default() };
    let handle = LimitsHandle::new(Limits::new(configured));
    let every = Duration::from_secs(5);
    assert!(LimitsWatcher::open(path.clone(), every, handle.clone()).is_err());
    std::fs::write(&path, "defaults: {max_active_series: 1}").unwrap();
    let watcher = LimitsWatcher::open(path.clone(), every, handle.clone()).unwrap();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let task = tokio::spawn(watcher.run(stopped));
    let of = |handle: &LimitsHandle| {
        let limits = handle.of(&TenantId::anonymous());
        (limits.max_active_series, limits.max_request_bytes)
    };
    // What the file does not set is as configured, at the start and at every look.
    assert_eq!(of(&handle), (1, 1 << 20));
    for (text, expected) in [
        ("defaults: {max_active_series: 2}", (2, 1 << 20)),
        ("defaults: {max_activ_series: 3}", (2, 1 << 20)),
        ("defaults: {max_request_bytes: 9}\noverrides: {anonymous: {max_active_series: 3}}", (3, 9)),
        ("overrides: {anonymous: {max_active_series: 4}}", (4, 1 << 20)),
    ] {
        std::fs::write(&path, text).unwrap();
        tokio::time::sleep(Duration::from_secs(6)).await;
        assert_eq!(of(&handle), expected, "{text}");
    }
    std::fs::remove_file(&path).unwrap();
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(of(&handle), (4, 1 << 20));
    stop.send(true).unwrap();
    task.await.unwrap();
}
