//! The querier's own metrics.

use std::{
    fmt::Write,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// Languages that queries come in.
#[derive(Clone, Copy, Debug)]
pub enum Language {
    /// PromQL.
    PromQl,
    /// SQL.
    Sql,
}

/// Counters; all monotonic but `running`.
#[derive(Debug, Default)]
pub struct QuerierMetrics {
    queries: [AtomicU64; 2],
    failed: [AtomicU64; 2],
    seconds_micros: [AtomicU64; 2],
    running: AtomicU64,
    waiting: AtomicU64,
}

/// A query that waits for its turn, until this is dropped.
pub struct Waiting<'a>(&'a QuerierMetrics);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

impl QuerierMetrics {
    /// A query waits for its turn.
    pub fn wait(&self) -> Waiting<'_> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        Waiting(self)
    }

    /// A query begins to run.
    pub fn begin(&self) {
        self.running.fetch_add(1, Ordering::Relaxed);
    }

    /// A query has ended.
    pub fn end(&self, language: Language, took: Duration, ok: bool) {
        let i = language as usize;
        self.running.fetch_sub(1, Ordering::Relaxed);
        self.queries[i].fetch_add(1, Ordering::Relaxed);
        self.seconds_micros[i].fetch_add(took.as_micros() as u64, Ordering::Relaxed);
        if !ok {
            self.failed[i].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Appends Prometheus text.
    pub fn render(&self, out: &mut String) {
        let names = ["promql", "sql"];
        let mut family = |name: &str, kind: &str, help: &str, value: &dyn Fn(usize) -> String| {
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
            for (i, language) in names.iter().enumerate() {
                let _ = writeln!(out, "{name}{{language=\"{language}\"}} {}", value(i));
            }
        };
        let load = |a: &AtomicU64| a.load(Ordering::Relaxed);
        family("sextant_querier_queries_total", "counter", "Queries that have ended.", &|i| {
            load(&self.queries[i]).to_string()
        });
        family(
            "sextant_querier_queries_failed_total",
            "counter",
            "Queries that ended with an error.",
            &|i| load(&self.failed[i]).to_string(),
        );
        family(
            "sextant_querier_query_seconds_total",
            "counter",
            "Time spent in queries, waiting included.",
            &|i| (load(&self.seconds_micros[i]) as f64 / 1e6).to_string(),
        );
        for (name, help, value) in [
            ("running", "Queries that run now or wait for their turn.", load(&self.running)),
            ("waiting", "Queries that wait for their turn.", load(&self.waiting)),
        ] {
            let name = format!("sextant_querier_queries_{name}");
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}");
        }
    }
}
