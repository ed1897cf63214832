//! The process is ended at each step of a flush or a deletion, and every acknowledged row must be found once afterwards.
//!
//! The process that dies is this test binary, started again for one test ([`child`], [`deleting_child`]) with a fault in its environment.

use std::{collections::BTreeMap, path::Path, process::Command};

use sextant_ingester::{DeleteError, SeriesDeletion, delete_series};
use sextant_model::Matcher;

use crate::support::{Bench, config, tenant};

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

fn run_child(test: &str, dir: &Path, fault: &str) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
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
            run_child("crash::child", dir.path(), &fault.replace("{}", action));
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

fn deletion(times: (i64, i64)) -> SeriesDeletion {
    SeriesDeletion {
        tenant: tenant("a"),
        selectors: vec![vec![Matcher::equal("i", "00001")], vec![Matcher::equal("i", "00003")]],
        start: times.0,
        end: times.1,
    }
}

async fn delete(bench: &Bench) -> Result<(), DeleteError> {
    // Half of each round.
    delete_series(&*bench.ingester, &bench.manifests, &deletion((0, 1014))).await
}

/// What the child does: round 0 is in blocks and round 1 in memory when the deletion is cut off.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleting_child() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let dir = Path::new(&dir);
    let bench = Bench::open(config(dir), &dir.join("objects")).await;
    write_round(&bench, 0).await;
    bench.ingester.flush_now().await.unwrap();
    write_round(&bench, 1).await;
    std::fs::write(dir.join("acknowledged"), "1").unwrap();
    delete(&bench).await.unwrap_err();
    std::fs::write(dir.join("survived"), "1").unwrap();
    bench.ingester.shutdown().await;
}

/// Tenant `a` with the deleted series' samples at `gone` missing; the others are whole.
async fn check_deleted(bench: &Bench, what: &str, last: i64, gone: impl Fn(i64) -> bool) {
    let mut want = BTreeMap::new();
    for t in times(0..=last, 30) {
        for i in (0..4).filter(|i| i % 2 == 0 || !gone(t)) {
            want.insert((format!("m{{i=\"{i:05}\"}}"), t), ((t + i) as f64, 1));
        }
    }
    assert!(bench.read("a").await == want, "{what}");
    for tenant in &TENANTS[1..] {
        bench.check(tenant, times(0..=last, 30), 0..4).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deletion_that_is_cut_off_comes_back_nowhere_and_is_completed_by_the_next() {
    for fault in ["delete.after_log", "delete.after_manifest"] {
        for action in ["abort", "error"] {
            let what = format!("{fault}={action}");
            let dir = tempfile::tempdir().unwrap();
            run_child("crash::deleting_child", dir.path(), &what);
            // Blocks are deleted from by the manifest only, memory by the log.
            let first = if fault == "delete.after_log" { 1000 } else { 0 };
            for _ in 0..2 {
                let bench = Bench::open(config(dir.path()), &dir.path().join("objects")).await;
                check_deleted(&bench, &what, 1, |t| (first..=1014).contains(&t)).await;
                bench.ingester.flush_now().await.unwrap();
                check_deleted(&bench, &what, 1, |t| (first..=1014).contains(&t)).await;
                bench.ingester.shutdown().await;
            }
            let bench = Bench::open(config(dir.path()), &dir.path().join("objects")).await;
            delete(&bench).await.unwrap();
            check_deleted(&bench, &what, 1, |t| t <= 1014).await;
            write_round(&bench, 2).await;
            bench.ingester.flush_now().await.unwrap();
            bench.ingester.shutdown().await;
            let bench = Bench::open(config(dir.path()), &dir.path().join("objects")).await;
            check_deleted(&bench, &what, 2, |t| t <= 1014).await;
            bench.ingester.shutdown().await;
        }
    }
}
