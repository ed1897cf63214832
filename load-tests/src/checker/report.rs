//! What a run tells: seed, faults, counts, findings; the same text for people and for `load-tests/results/`.

use std::{
    fmt::Write,
    sync::{PoisonError, atomic::Ordering::Relaxed},
    time::Duration,
};

use super::{
    clients::{Counts, Run, outcomes},
    cluster::Cluster,
    faults::Fault,
    inject::Event,
    ledger::Findings,
};

/// A comparison of everything that was written with what is there.
pub struct Comparison {
    /// Of what.
    pub what: String,
    /// What it found, or why it could not be made.
    pub found: Result<Findings, String>,
}

/// Everything that a run came to.
pub struct Outcome<'a> {
    /// The run.
    pub run: &'a Run,
    /// The cluster.
    pub cluster: &'a Cluster,
    /// How long clients wrote and read.
    pub duration: Duration,
    /// As planned.
    pub schedule: &'a [Fault],
    /// As it happened.
    pub happened: Vec<Event>,
    /// Kinds of faults that were asked for and can't be had, and why.
    pub left_out: Vec<String>,
    /// What went wrong around it: threads, flushes, readiness.
    pub troubles: Vec<String>,
    /// The comparisons at the end.
    pub comparisons: Vec<Comparison>,
}

impl Outcome<'_> {
    /// Everything that is wrong, by its name; empty where nothing is.
    pub fn wrong(&self) -> Vec<String> {
        let mut wrong = self.troubles.clone();
        wrong.extend(self.happened.iter().filter(|e| !e.done).map(|e| e.what.clone()));
        let counts = &self.run.counts;
        let mut count = |n: u64, what: &str| {
            if n > 0 {
                wrong.push(format!("{n} {what}"));
            }
        };
        for (kind, (n, _)) in &*counts.violations.lock().unwrap_or_else(PoisonError::into_inner) {
            count(*n, &format!("wrong reads: {kind:?}"));
        }
        count(counts.refusals.lock().unwrap_or_else(PoisonError::into_inner).0, "writes refused for good");
        count(counts.gave_up.load(Relaxed), "writes not acknowledged in time");
        let outage = counts.longest_read_outage_ms.load(Relaxed);
        if Duration::from_millis(outage) > self.run.retry_for {
            wrong.push(format!("no read was answered for {outage} ms"));
        }
        if outcomes(&self.run.ledgers).0 == 0 || counts.reads.load(Relaxed) == 0 {
            wrong.push("nothing was acknowledged or nothing was read: nothing was checked".to_owned());
        }
        for c in &self.comparisons {
            match &c.found {
                Ok(f) if f.is_clean() => {}
                Ok(f) => wrong.push(format!(
                    "{}: {} missing, {} doubled, {} foreign",
                    c.what, f.missing, f.doubled, f.foreign
                )),
                Err(e) => wrong.push(format!("{}: {e}", c.what)),
            }
        }
        wrong
    }

    /// As Markdown.
    pub fn markdown(&self) -> String {
        let mut out = String::new();
        let run = self.run;
        let shape = &run.shape;
        let roles: Vec<&str> =
            self.cluster.processes.iter().filter(|p| p.is_sextant()).map(|p| p.name.as_str()).collect();
        let _ = writeln!(
            out,
            "# Checker, seed {}\n\n{} s; {} writers of {} series each, a request every {} ms; {} shards, replication {}: {}.\n",
            run.seed,
            self.duration.as_secs(),
            shape.writers,
            shape.series,
            shape.interval_ms,
            self.cluster.shards,
            self.cluster.replication,
            roles.join(", ")
        );
        let wrong = self.wrong();
        if wrong.is_empty() {
            out.push_str("**Nothing is wrong.**\n\n");
        } else {
            let _ = writeln!(out, "**Wrong:** {}.\n", wrong.join("; "));
        }
        self.counts(&mut out);
        self.comparisons(&mut out);
        let counts = &run.counts;
        let violations = counts.violations.lock().unwrap_or_else(PoisonError::into_inner);
        for (kind, (_, examples)) in &*violations {
            list(&mut out, &format!("Wrong reads: {kind:?}"), examples.iter().cloned());
        }
        let refusals = counts.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        list(&mut out, "Writes refused for good", refusals.1.iter().cloned());
        let happened = self.happened.iter().map(|e| format!("{:.1} s: {}", e.at.as_secs_f64(), e.what));
        list(&mut out, &format!("Faults ({} planned)", self.schedule.len()), happened);
        list(&mut out, "Kinds of faults left out", self.left_out.iter().cloned());
        let errors = counts.errors.lock().unwrap_or_else(PoisonError::into_inner);
        let mut errors: Vec<(&String, &u64)> = errors.iter().collect();
        errors.sort_by_key(|(_, n)| std::cmp::Reverse(**n));
        list(&mut out, "Errors that clients met", errors.iter().take(30).map(|(e, n)| format!("{n} × {e}")));
        out
    }

    fn counts(&self, out: &mut String) {
        let run = self.run;
        let Counts {
            retried,
            abandoned,
            left,
            gave_up,
            repeated,
            slowest_write_ms,
            reads,
            read_errors,
            longest_read_outage_ms,
            flushes,
            flush_errors,
            ..
        } = &run.counts;
        let (acknowledged, unknown) = outcomes(&run.ledgers);
        let kinds = |of: &[super::answers::Wrong]| run.counts.wrong(of);
        use super::answers::Wrong::{Backwards, Doubled, Foreign, Partial, Stale};
        let rows = [
            ("requests", acknowledged + unknown),
            ("acknowledged", acknowledged),
            ("unknown", unknown),
            ("… left at the first failure, on purpose", abandoned.load(Relaxed)),
            ("… whose sender did not wait for the answer", left.load(Relaxed)),
            ("… not acknowledged in time", gave_up.load(Relaxed)),
            ("attempts repeated", retried.load(Relaxed)),
            ("acknowledged requests sent once more elsewhere", repeated.load(Relaxed)),
            ("slowest acknowledgement, ms", slowest_write_ms.load(Relaxed)),
            ("reads", reads.load(Relaxed)),
            ("read errors", read_errors.load(Relaxed)),
            ("longest time without an answered read, ms", longest_read_outage_ms.load(Relaxed)),
            ("stale reads", kinds(&[Stale])),
            ("monotonic violations", kinds(&[Backwards])),
            ("partial answers", kinds(&[Partial])),
            ("doubled or foreign in reads", kinds(&[Doubled, Foreign])),
            ("flushes", flushes.load(Relaxed)),
            ("flush errors", flush_errors.load(Relaxed)),
        ];
        out.push_str("| | |\n|---|---:|\n");
        for (name, n) in rows {
            let _ = writeln!(out, "| {name} | {n} |");
        }
    }

    fn comparisons(&self, out: &mut String) {
        out.push_str(
            "\n| samples at the end | acknowledged, there | unknown, there | unknown, absent | missing | doubled | foreign |\n\
             |---|---:|---:|---:|---:|---:|---:|\n",
        );
        for Comparison { what, found } in &self.comparisons {
            let _ = match found {
                Ok(f) => writeln!(
                    out,
                    "| {what} | {} | {} | {} | {} | {} | {} |",
                    f.acknowledged, f.unknown_there, f.unknown_absent, f.missing, f.doubled, f.foreign
                ),
                Err(e) => writeln!(out, "| {what} | {e} | – | – | – | – | – |"),
            };
        }
        for Comparison { what, found } in &self.comparisons {
            if let Ok(f) = found {
                list(out, what, f.examples.iter().cloned());
            }
        }
    }
}

fn list(out: &mut String, title: &str, items: impl Iterator<Item = String>) {
    let mut items = items.peekable();
    if items.peek().is_some() {
        let _ = writeln!(out, "\n## {title}\n");
    }
    for item in items {
        let _ = writeln!(out, "- {}", item.replace('\n', " "));
    }
}
