//! One table per run.

use std::fmt::Write;

use super::{
    generator::{Shape, Totals},
    peers::Settled,
    queries::QueryFigures,
    replay::Ingest,
};

/// Everything measured of one server.
pub struct Measured {
    /// The server.
    pub name: String,
    /// Sending.
    pub ingest: Ingest,
    /// Flushing and compacting.
    pub settled: Settled,
    /// Queries.
    pub queries: Vec<QueryFigures>,
    /// Peak memory at the end, MiB.
    pub peak_mib_end: f64,
}

/// The table, in Markdown. Ratios are of the first server to each other one.
pub fn table(shape: &Shape, totals: &Totals, results: &[Measured]) -> String {
    let mut out = String::new();
    let _ = writeln!(
        out,
        "{} samples of {} series ({} scrapes, requests of {}, {} connections, seed {}), {:.1} bytes a sample on the wire\n",
        totals.samples,
        totals.series,
        shape.scrapes,
        shape.batch,
        shape.connections,
        shape.seed,
        totals.bytes as f64 / totals.samples as f64
    );
    let names: Vec<&str> = results.iter().map(|r| r.name.as_str()).collect();
    header(&mut out, "", &names);
    let million = totals.samples as f64 / 1e6;
    let mut row =
        |name: &str, f: &dyn Fn(&Measured) -> f64| line(&mut out, name, results.iter().map(f).collect());
    row("CPU s per million samples, sent", &|r| r.ingest.cpu_s / million);
    row("CPU s per million samples, flush and compaction included", &|r| {
        (r.ingest.cpu_s + r.settled.cpu_s) / million
    });
    row("thousand samples per second", &|r| totals.samples as f64 / r.ingest.wall_s / 1e3);
    row("requests sent again", &|r| r.ingest.retries as f64);
    row("peak memory after sending, MiB", &|r| r.ingest.peak_mib);
    row("peak memory at the end, MiB", &|r| r.peak_mib_end);
    row("bytes per sample, everything on disk", &|r| r.settled.bytes as f64 / totals.samples as f64);
    row("all queries once, CPU s", &|r| r.queries.iter().map(|q| q.cpu_ms).sum::<f64>() / 1e3);
    row("all queries once, s (medians)", &|r| r.queries.iter().map(|q| q.median_ms).sum::<f64>() / 1e3);
    let _ = writeln!(out, "\nQueries: median / p99 ms, CPU ms\n");
    out.push_str("| query |");
    for n in &names {
        let _ = write!(out, " {n} |");
    }
    out.push_str(" answers |\n|---|");
    out.push_str(&"---:|".repeat(names.len()));
    out.push_str("---|\n");
    for (i, q) in results.first().map(|r| r.queries.as_slice()).unwrap_or(&[]).iter().enumerate() {
        let _ = write!(out, "| {} |", q.name);
        for r in results {
            let f = &r.queries[i];
            let _ = write!(out, " {:.1} / {:.1}, {:.0} |", f.median_ms, f.p99_ms, f.cpu_ms);
        }
        let agree = results.iter().all(|r| {
            let (n, sum) = r.queries[i].digest;
            n == q.digest.0 && (sum - q.digest.1).abs() <= 1e-6 * q.digest.1.abs().max(1.0)
        });
        if agree {
            let _ = writeln!(out, " {} series, equal |", q.digest.0);
        } else {
            let all: Vec<String> = results
                .iter()
                .map(|r| format!("{} series, sum {:.6e}", r.queries[i].digest.0, r.queries[i].digest.1))
                .collect();
            let _ = writeln!(out, " differ: {} |", all.join("; "));
        }
    }
    out
}

fn header(out: &mut String, first: &str, names: &[&str]) {
    let _ = write!(out, "| {first} |");
    for (i, n) in names.iter().enumerate() {
        let _ = write!(out, " {n} |");
        if i > 0 {
            let _ = write!(out, " {} / {n} |", names[0]);
        }
    }
    out.push_str("\n|---|");
    out.push_str(&"---:|".repeat(names.len() * 2 - usize::from(!names.is_empty())));
    out.push('\n');
}

fn line(out: &mut String, name: &str, values: Vec<f64>) {
    let _ = write!(out, "| {name} |");
    for (i, v) in values.iter().enumerate() {
        let _ = write!(out, " {v:.3} |");
        if i > 0 {
            let _ = write!(out, " {:.2} |", values[0] / v);
        }
    }
    out.push('\n');
}
