//! The process is ended at each step of a flush, and every acknowledged row must be found once afterwards.
//!
//! The process that dies is this test binary, started again for the one test [`child`] with a fault in its environment.

use std::{path::Path, process::Command};

use crate::support::{Bench, config};

const DIR: &str = "SEXTANT_TEST_CRASH_DIR";
const TENANTS: [&str; 3] = ["a", "b", "c"];

async fn write_round(bench: &Bench, round: i64) {
    for t in round * 1000..round * 1000 + 30 {
        for (k, tenant) in TENANTS.iter().enumerate() {
            bench.write(tenant, (k as u128) << 64 | t as u128, t, 0..4).await.unwrap();
        }
    }
    // A tenant without rows in this generation.
    if round % 2 == 0 {
        for t in round * 1000..round * 1000 + 5 {
            bench.write("d", 9 << 64 | t as u128, t, 0..4).await.unwrap();
        }
    }
}

fn times(rounds: std::ops::RangeInclusive<i64>, n: i64) -> impl Iterator<Item = i64> {
    rounds.flat_map(move |r| r * 1000..r * 1000 + n)
}

async fn check(bench: &Bench, last: i64) {
    for tenant in TENANTS {
        bench.check(tenant, times(0..=last, 30), 0..4).await;
    }
    bench.check("d", times(0..=last, 5).filter(|t| t / 1000 % 2 == 0), 0..4).await;
}

/// What the child does: round 0 is flushed, round 1 is being flushed when the fault comes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let dir = Path::new(&dir);
    let bench = Bench::open(config(dir), &dir.join("objects")).await;
    write_round(&bench, 0).await;
    bench.ingester.flush_now().await.unwrap();
    write_round(&bench, 1).await;
    std::fs::write(dir.join("acknowledged"), "1").unwrap();
    let flushed = bench.ingester.flush_now().await;
    // An error instead of an end: the flush is repeated, and nothing is there twice.
    flushed.unwrap_err();
    check(&bench, 1).await;
    bench.ingester.flush_now().await.unwrap();
    check(&bench, 1).await;
    std::fs::write(dir.join("survived"), "1").unwrap();
    bench.ingester.shutdown().await;
}

fn run_child(dir: &Path, fault: &str) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::child", "--nocapture"])
        .env(DIR, dir)
        .env("SEXTANT_FAULT", fault)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(dir.join("acknowledged").exists(), "{fault}: the child ended too early: {text}");
    let survived = dir.join("survived").exists();
    assert_eq!(survived, fault.contains("=error"), "{fault}: {text}");
}

/// Round 0 has four tenants, round 1 three.
const FAULTS: [&str; 8] = [
    "flush.before_seal={}@2",
    "flush.after_seal={}@2",
    "flush.after_upload={}@5",
    "flush.after_upload={}@6",
    "flush.after_manifest={}@5",
    "flush.after_manifest={}@7",
    "flush.after_flushed={}@2",
    "flush.after_checkpoint={}@2",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_acknowledged_row_is_found_once_wherever_a_flush_is_cut_off() {
    for fault in FAULTS {
        for action in ["abort", "error"] {
            let dir = tempfile::tempdir().unwrap();
            run_child(dir.path(), &fault.replace("{}", action));
            for _ in 0..2 {
                let bench = Bench::open(config(dir.path()), &dir.path().join("objects")).await;
                check(&bench, 1).await;
                bench.ingester.flush_now().await.unwrap();
                check(&bench, 1).await;
                bench.ingester.shutdown().await;
            }
            let bench = Bench::open(config(dir.path()), &dir.path().join("objects")).await;
            write_round(&bench, 2).await;
            check(&bench, 2).await;
            bench.ingester.flush_now().await.unwrap();
            check(&bench, 2).await;
            bench.ingester.shutdown().await;
        }
    }
}
