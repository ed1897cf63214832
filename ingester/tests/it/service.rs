//! The service on a real log and a real object store: flush, restart, bounds, reads during flushes.

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::Duration,
};

use sextant_ingester::{IngesterConfig, OpenError};
use sextant_proto::{ErrorClass, ShardClient, ShardError, ShardId};

use crate::support::{Bench, batch, config, tenant};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_survive_restarts_and_flushes_and_are_found_once() {
    let dir = tempfile::tempdir().unwrap();
    let objects = dir.path().join("objects");
    let mut times = Vec::new();
    for round in 0..4i64 {
        let bench = Bench::open(config(dir.path()), &objects).await;
        bench.check("a", times.iter().copied(), 0..10).await;
        for t in round * 100..round * 100 + 20 {
            let outcome = bench.write("a", t as u128, t, 0..10).await.unwrap();
            assert!(!outcome.duplicate);
            bench.write("b", 1000 + t as u128, t, 0..3).await.unwrap();
            times.push(t);
            if t % 100 == 7 && round != 2 {
                bench.ingester.flush_now().await.unwrap();
                bench.check("a", times.iter().copied(), 0..10).await;
            }
        }
        bench.check("a", times.iter().copied(), 0..10).await;
        bench.check("b", times.iter().copied(), 0..3).await;
        // The id is remembered over seals and restarts.
        let again = bench.write("a", (round * 100) as u128, round * 100, 0..10).await.unwrap();
        assert!(again.duplicate);
        bench.check("a", times.iter().copied(), 0..10).await;
        bench.ingester.shutdown().await;
    }
    let bench = Bench::open(config(dir.path()), &objects).await;
    bench.ingester.flush_now().await.unwrap();
    bench.check("a", times.iter().copied(), 0..10).await;
    bench.check("b", times.iter().copied(), 0..3).await;
    let mut text = String::new();
    bench.ingester.render_metrics(&mut text);
    assert!(text.contains("sextant_ingester_flushes_total 1\n"), "{text}");
    bench.ingester.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refs_of_an_ended_epoch_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::open(config(dir.path()), &dir.path().join("objects")).await;
    let first = bench.write("a", 1, 10, 0..2).await.unwrap();
    assert_eq!(bench.ingester.epoch(ShardId(0)), first.epoch);
    bench.ingester.flush_now().await.unwrap();
    let mut b = sextant_proto::WriteBatchBuilder::default();
    b.sample(first.new_refs[0], 20, 1.0, 0);
    let header = sextant_proto::BatchHeader {
        tenant: "a",
        write_id: 2,
        epoch: first.epoch,
        max_series: 0,
        ooo_window_ms: -1,
        now_ms: 0,
    };
    let error = bench.ingester.append(ShardId(0), b.finish(&header)).await.unwrap_err();
    let current = bench.ingester.epoch(ShardId(0));
    assert!(matches!(error, ShardError::StaleEpoch { current: c } if c == current && c > first.epoch));
    let error = bench.ingester.append(ShardId(0), bytes::Bytes::from_static(b"junk")).await.unwrap_err();
    assert!(matches!(error, ShardError::Malformed(_)), "{error}");
    bench.ingester.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_log_goes_on_behind_what_an_earlier_one_flushed() {
    let dir = tempfile::tempdir().unwrap();
    let objects = dir.path().join("objects");
    let bench = Bench::open(config(&dir.path().join("one")), &objects).await;
    for t in 0..50 {
        bench.write("a", t as u128, t, 0..5).await.unwrap();
    }
    bench.ingester.flush_now().await.unwrap();
    bench.ingester.shutdown().await;

    // The disk is lost, the bucket is not.
    let bench = Bench::open(config(&dir.path().join("two")), &objects).await;
    bench.check("a", 0..50, 0..5).await;
    bench.write("a", 1000, 50, 0..5).await.unwrap();
    bench.check("a", 0..51, 0..5).await;
    bench.ingester.flush_now().await.unwrap();
    bench.check("a", 0..51, 0..5).await;
    bench.ingester.shutdown().await;
    let bench = Bench::open(config(&dir.path().join("two")), &objects).await;
    bench.write("a", 1001, 51, 0..5).await.unwrap();
    bench.check("a", 0..52, 0..5).await;
    bench.ingester.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_number_of_shards_is_fixed() {
    let dir = tempfile::tempdir().unwrap();
    let objects = dir.path().join("objects");
    let three = IngesterConfig { shards: 3, ..config(dir.path()) };
    let bench = Bench::open(three, &objects).await;
    assert_eq!(bench.ingester.shard_count(), 3);
    assert!(bench.ingester.append(ShardId(3), batch("a", 1, 1, 0..1)).await.is_err());
    bench.ingester.append(ShardId(2), batch("a", 1, 1, 0..1)).await.unwrap();
    assert_eq!(bench.ingester.tenants(ShardId(2)).await.unwrap(), [tenant("a")]);
    bench.check("a", [1], 0..1).await;
    bench.ingester.shutdown().await;
    let error = Bench::try_open(config(dir.path()), &objects).await.err().unwrap();
    assert!(matches!(error, OpenError::ShardsChanged { configured: 1, .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_is_bounded_and_a_flush_makes_room() {
    let dir = tempfile::tempdir().unwrap();
    let small = IngesterConfig {
        head_memory_max: 1 << 20,
        flush_check_interval: Duration::from_secs(3600),
        drop_grace: Duration::ZERO,
        ..config(dir.path())
    };
    let bench = Bench::open(small, &dir.path().join("objects")).await;
    // The check interval keeps the flush task asleep until a write is refused.
    let mut series = 0;
    let error = loop {
        match bench.write("a", series as u128, 5, series..series + 100).await {
            Ok(_) => series += 100,
            Err(e) => break e,
        }
        assert!(series < 100_000);
    };
    assert_eq!(error.class(), ErrorClass::TooManyRequests);
    let text = error.to_string();
    assert!(text.contains("ingester.head_memory_max") && text.contains("1048576"), "{text}");
    bench.check("a", [5], 0..series).await;
    bench.ingester.flush_now().await.unwrap();
    for _ in 0..100 {
        match bench.write("a", 1 << 70, 6, 0..series).await {
            Ok(_) => break,
            Err(e) => assert_eq!(e.class(), ErrorClass::TooManyRequests),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    bench.check("a", [5, 6], 0..series).await;
    bench.ingester.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_finds_every_acknowledged_row_once_while_flushes_run() {
    let dir = tempfile::tempdir().unwrap();
    let often = IngesterConfig {
        flush_samples: 200,
        flush_check_interval: Duration::from_millis(5),
        drop_grace: Duration::from_secs(60),
        ..config(dir.path())
    };
    let bench = Bench::open(often, &dir.path().join("objects")).await;
    let written = AtomicI64::new(0);
    let writer = async {
        for t in 0..300 {
            bench.write("a", t as u128, t, 0..7).await.unwrap();
            written.store(t + 1, Ordering::SeqCst);
            if t % 50 == 0 {
                bench.ingester.flush_now().await.unwrap();
            }
        }
    };
    let reader = async {
        let mut reads = 0;
        loop {
            let before = written.load(Ordering::SeqCst);
            let found = bench.read("a").await;
            let after = written.load(Ordering::SeqCst) + 1;
            assert!(found.values().all(|(_, times)| *times == 1), "a row was found twice");
            assert!(found.len() as i64 >= before * 7, "{} rows of {before} writes", found.len());
            assert!(found.len() as i64 <= after * 7);
            reads += 1;
            if before == 300 {
                return reads;
            }
        }
    };
    let ((), reads) = tokio::join!(writer, reader);
    assert!(reads > 3);
    bench.check("a", 0..300, 0..7).await;
    bench.ingester.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_go_on_while_the_object_store_is_away() {
    let dir = tempfile::tempdir().unwrap();
    let objects = dir.path().join("objects");
    let quick = IngesterConfig {
        flush_check_interval: Duration::from_millis(20),
        flush_retry_min: Duration::from_millis(20),
        ..config(dir.path())
    };
    let bench = Bench::open(quick, &objects).await;
    for t in 0..10 {
        bench.write("a", t as u128, t, 0..5).await.unwrap();
    }
    let away = dir.path().join("away");
    std::fs::rename(&objects, &away).unwrap();
    std::fs::write(&objects, "not a folder").unwrap();
    for t in 10..20 {
        let error = bench.ingester.flush_now().await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Unavailable, "{error}");
        bench.write("a", t as u128, t, 0..5).await.unwrap();
    }
    std::fs::remove_file(&objects).unwrap();
    std::fs::rename(&away, &objects).unwrap();
    bench.check("a", 0..20, 0..5).await;
    // The task repeats the flush of what is sealed by itself.
    for _ in 0..500 {
        if bench.manifests.refresh(&tenant("a")).await.unwrap().blocks.len() >= 10 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(bench.manifests.refresh(&tenant("a")).await.unwrap().blocks.len(), 10);
    bench.check("a", 0..20, 0..5).await;
    bench.ingester.flush_now().await.unwrap();
    bench.check("a", 0..20, 0..5).await;
    bench.ingester.shutdown().await;
}
