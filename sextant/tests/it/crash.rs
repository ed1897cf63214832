//! Writes without pause, ends the process at fault points and at random moments, restarts it, and counts: every acknowledged sample is
//! returned exactly once, by PromQL and by SQL.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use crate::binary::{Sextant, remote_write};

const SERIES: usize = 7;

struct Checker {
    folder: tempfile::TempDir,
    next: i64,
    /// Timestamps (ms) acknowledged.
    acknowledged: Vec<i64>,
    /// Sent without an answer: may be there or not, but not twice.
    unknown: Vec<i64>,
}

impl Checker {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), next: 1, acknowledged: Vec::new(), unknown: Vec::new() }
    }

    fn start(&self, fault: Option<&str>) -> Option<Sextant> {
        let args = [
            "--agent.host-metrics=false",
            "--ingester.shards=2",
            "--ingester.log-segment-size=1MiB",
            "--compactor.delete-delay=1s",
        ];
        Sextant::try_start(self.folder.path(), &args, fault)
    }

    fn body(t: i64) -> Vec<u8> {
        let series: Vec<_> = (0..SERIES)
            .map(|s| {
                let labels = vec![
                    ("__name__", "crash_total".to_owned()),
                    ("instance", format!("i{s}")),
                    ("job", "crash".to_owned()),
                ];
                (labels, vec![(t, (t * 10 + s as i64) as f64)])
            })
            .collect();
        remote_write(&series)
    }

    /// Writes until the process is gone or `count` requests are acknowledged; flushes in between.
    fn write(&mut self, sextant: &Sextant, count: usize, flush_every: usize) {
        for n in 1..=count {
            let t = self.next * 1000;
            self.next += 1;
            match sextant.post("/api/v1/push", "application/x-protobuf", Self::body(t)) {
                Ok((204, _)) => self.acknowledged.push(t),
                Ok((status, body)) if status >= 500 => {
                    self.unknown.push(t);
                    assert!(!body.is_empty());
                }
                Ok((status, body)) => panic!("{status}: {body}"),
                Err(_) => {
                    self.unknown.push(t);
                    return;
                }
            }
            if n % flush_every == 0
                && sextant.post("/api/v1/admin/flush?compact=true", "text/plain", Vec::new()).is_err()
            {
                return;
            }
        }
    }

    fn check(&self, sextant: &Sextant, what: &str) {
        let end = self.next + 1;
        let result = sextant.query(&format!("crash_total[{end}s]"), end);
        let mut seen = BTreeMap::<i64, usize>::new();
        for series in result.as_array().unwrap() {
            let instance: i64 = series["metric"]["instance"].as_str().unwrap()[1..].parse().unwrap();
            for point in series["values"].as_array().unwrap() {
                let t = (point[0].as_f64().unwrap() * 1000.0).round() as i64;
                let v: f64 = point[1].as_str().unwrap().parse().unwrap();
                assert_eq!(v, (t * 10 + instance) as f64, "{what}: wrong value at {t}");
                *seen.entry(t).or_default() += 1;
            }
        }
        for t in &self.acknowledged {
            assert_eq!(
                seen.get(t),
                Some(&SERIES),
                "{what}: sample at {t} of {} acknowledged",
                self.acknowledged.len()
            );
        }
        for (t, n) in &seen {
            assert!(*n <= SERIES, "{what}: {n} samples at {t}");
            assert!(
                self.acknowledged.contains(t) || self.unknown.contains(t),
                "{what}: a sample at {t} that was never sent"
            );
        }
        let sql = b"select count(*) as n from samples where name = 'crash_total'".to_vec();
        let (status, body) = sextant.post("/api/v1/sql", "text/plain", sql).unwrap();
        assert_eq!(status, 200, "{body}");
        let rows: serde_json::Value = serde_json::from_str(&body).unwrap();
        let total: usize = seen.values().sum();
        assert_eq!(rows[0]["n"].as_u64(), Some(total as u64), "{what}: {body}");
    }
}

/// So many different runs of each test: more find more. `SEXTANT_CRASH_SEEDS` says how many.
fn seeds() -> u64 {
    std::env::var("SEXTANT_CRASH_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(3)
}

/// Runs a checker of its own for each seed, on two threads.
fn for_each_seed(run: impl Fn(u64, &mut Checker) + Sync) {
    let next = AtomicU64::new(0);
    let work = || {
        loop {
            let seed = next.fetch_add(1, Relaxed);
            if seed >= seeds() {
                return;
            }
            let mut checker = Checker::new();
            run(seed, &mut checker);
            println!(
                "seed {seed}: {} acknowledged, {} without an answer",
                checker.acknowledged.len(),
                checker.unknown.len()
            );
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(work);
        work();
    });
}

/// A number below `below` that follows from the seed and a place (splitmix64).
fn pick(seed: u64, place: u64, below: u64) -> u64 {
    let mut z = seed.wrapping_mul(1 << 32).wrapping_add(place + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)) % below
}

#[test]
fn nothing_acknowledged_is_lost_or_doubled_at_any_fault_point() {
    // How often each is passed at least while the checker writes: the process ends at one of these times.
    let points = [
        ("flush.before_seal", 4),
        ("flush.after_seal", 4),
        ("flush.after_upload", 4),
        ("flush.after_manifest", 4),
        ("flush.after_flushed", 4),
        ("flush.after_checkpoint", 4),
        ("log.write", 24),
        ("log.sync", 24),
        ("log.after_sync", 24),
        ("checkpoint.before_rename", 4),
        ("checkpoint.after_rename", 4),
        ("store.put", 12),
        ("compact.after_merge", 3),
        ("compact.after_upload", 3),
        ("compact.after_manifest", 3),
    ];
    for_each_seed(|seed, checker| {
        for (place, (point, passes)) in points.into_iter().enumerate() {
            let fault = format!("{point}=abort@{}", 1 + pick(seed, place as u64, passes));
            if let Some(mut sextant) = checker.start(Some(&fault)) {
                checker.write(&sextant, 24, 6);
                sextant.kill();
            }
            let sextant = checker.start(None).expect("the process starts again");
            checker.check(&sextant, &format!("seed {seed}, {fault}"));
        }
        assert!(checker.acknowledged.len() > 50, "{} acknowledged", checker.acknowledged.len());
    });
}

#[test]
fn nothing_acknowledged_is_lost_when_the_process_is_killed_while_it_works() {
    for_each_seed(|seed, checker| {
        for round in 0..4 {
            let mut sextant = checker.start(None).expect("the process starts");
            let pid = sextant.child.id();
            let moment = std::time::Duration::from_millis(50 + pick(seed, 1000 + round, 500));
            let killer = std::thread::spawn(move || {
                std::thread::sleep(moment);
                let _ = std::process::Command::new("kill").args(["-KILL", &pid.to_string()]).status();
            });
            checker.write(&sextant, 100_000, 25);
            killer.join().unwrap();
            sextant.kill();
        }
        let sextant = checker.start(None).expect("the process starts again");
        checker.check(&sextant, &format!("seed {seed}, kill -9"));
    });
}
