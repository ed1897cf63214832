//! Writes without pause, ends the process at fault points and at random moments, restarts it, and counts: every acknowledged sample is
//! returned exactly once, by PromQL and by SQL.

use std::collections::BTreeMap;

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

#[test]
fn nothing_acknowledged_is_lost_or_doubled_at_any_fault_point() {
    let points = [
        "flush.before_seal",
        "flush.after_seal",
        "flush.after_upload",
        "flush.after_manifest",
        "flush.after_flushed",
        "flush.after_checkpoint",
        "log.after_sync",
        "checkpoint.before_rename",
        "checkpoint.after_rename",
        "compact.after_merge",
        "compact.after_upload",
        "compact.after_manifest",
    ];
    let mut checker = Checker::new();
    for point in points {
        // `log.after_sync` is passed by every write; let some through first.
        let fault =
            if point == "log.after_sync" { format!("{point}=abort@9") } else { format!("{point}=abort@2") };
        if let Some(sextant) = checker.start(Some(&fault)) {
            checker.write(&sextant, 24, 6);
        }
        let sextant = checker.start(None).expect("the process starts again");
        checker.check(&sextant, point);
    }
    assert!(checker.acknowledged.len() > 50, "{} acknowledged", checker.acknowledged.len());
    println!(
        "{} acknowledged, {} without an answer, {} fault points",
        checker.acknowledged.len(),
        checker.unknown.len(),
        points.len()
    );
}

#[test]
fn nothing_acknowledged_is_lost_when_the_process_is_killed_while_it_works() {
    let mut checker = Checker::new();
    for round in 0..4u64 {
        let mut sextant = checker.start(None).expect("the process starts");
        let pid = sextant.child.id();
        let killer = std::thread::spawn(move || {
            std::thread::sleep(std::time::Duration::from_millis(150 + round * 130));
            let _ = std::process::Command::new("kill").args(["-KILL", &pid.to_string()]).status();
        });
        checker.write(&sextant, 100_000, 25);
        killer.join().unwrap();
        sextant.kill();
    }
    let sextant = checker.start(None).expect("the process starts again");
    checker.check(&sextant, "kill -9");
    println!("{} acknowledged, {} without an answer", checker.acknowledged.len(), checker.unknown.len());
}
