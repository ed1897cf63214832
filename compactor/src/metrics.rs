//! The compactor's own metrics.

use std::{
    fmt::Write,
    sync::atomic::{AtomicU64, Ordering},
};

/// Counters; all monotonic.
#[derive(Debug, Default)]
pub struct CompactorMetrics {
    /// Merges that were committed.
    pub jobs: AtomicU64,
    /// Merges and clean-ups that failed and will be tried again.
    pub failures: AtomicU64,
    /// Passes over all tenants.
    pub passes: AtomicU64,
}

impl CompactorMetrics {
    /// Appends Prometheus text.
    pub fn render(&self, out: &mut String) {
        for (name, help, value) in [
            ("sextant_compactor_jobs_total", "Merges that were committed.", &self.jobs),
            (
                "sextant_compactor_failures_total",
                "Merges and clean-ups that failed; they are tried again.",
                &self.failures,
            ),
            ("sextant_compactor_passes_total", "Passes over all tenants.", &self.passes),
        ] {
            let _ = writeln!(
                out,
                "# HELP {name} {help}\n# TYPE {name} counter\n{name} {}",
                value.load(Ordering::Relaxed)
            );
        }
    }
}
