//! The distributor's own metrics.

use std::{
    fmt::Write,
    sync::atomic::{AtomicU64, Ordering},
};

/// Counters; all monotonic.
#[derive(Debug, Default)]
pub struct DistributorMetrics {
    /// Requests taken apart.
    pub requests: AtomicU64,
    /// Float samples made durable.
    pub samples: AtomicU64,
    /// Histograms made durable.
    pub histograms: AtomicU64,
    /// Exemplars made durable.
    pub exemplars: AtomicU64,
    /// Series refused.
    pub refused_series: AtomicU64,
    /// Requests that failed as a whole.
    pub failed_requests: AtomicU64,
    /// Series sent with labels.
    pub labels_sent: AtomicU64,
    /// Batches sent again because the shard had begun a new epoch.
    pub stale_epochs: AtomicU64,
}

impl DistributorMetrics {
    /// Adds to a counter.
    pub(crate) fn add(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Ordering::Relaxed);
    }

    /// Appends Prometheus text.
    pub fn render(&self, out: &mut String) {
        for (name, help, value) in [
            ("sextant_distributor_requests_total", "Write requests.", &self.requests),
            ("sextant_distributor_samples_total", "Float samples made durable.", &self.samples),
            ("sextant_distributor_histograms_total", "Native histograms made durable.", &self.histograms),
            ("sextant_distributor_exemplars_total", "Exemplars made durable.", &self.exemplars),
            ("sextant_distributor_refused_series_total", "Series refused, wholly or in part.", &self.refused_series),
            ("sextant_distributor_failed_requests_total", "Write requests that failed as a whole.", &self.failed_requests),
            ("sextant_distributor_labels_sent_total", "Series sent to shards with their labels.", &self.labels_sent),
            ("sextant_distributor_stale_epochs_total", "Batches sent again after a new epoch.", &self.stale_epochs),
        ] {
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} counter\n{name} {}", value.load(Ordering::Relaxed));
        }
    }
}
