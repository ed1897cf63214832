//! The distributor's own metrics.

use std::{
    fmt::Write,
    sync::atomic::{AtomicU64, Ordering},
};

/// Counters; all monotonic.
#[derive(Debug, Default)]
pub struct DistributorMetrics {
    /// Requests taken, of every protocol.
    pub requests: AtomicU64,
    /// Requests that failed as a whole.
    pub failed_requests: AtomicU64,
    /// Float samples made durable.
    pub samples: AtomicU64,
    /// Histograms made durable.
    pub histograms: AtomicU64,
    /// Exemplars made durable.
    pub exemplars: AtomicU64,
    /// Series refused, wholly or in part.
    pub refused_series: AtomicU64,
    /// Samples, histograms and exemplars refused.
    pub refused_items: AtomicU64,
    /// Exemplars left out because their labels are too long or not labels.
    pub exemplars_dropped: AtomicU64,
    /// Attributes of OpenTelemetry points that became one label with others of the point.
    pub otlp_joined_attributes: AtomicU64,
    /// Series sent to shards with their labels.
    pub labels_sent: AtomicU64,
    /// Batches sent again because the shard had begun a new epoch.
    pub stale_epochs: AtomicU64,
}

/// Adds to a counter.
pub(crate) fn add(counter: &AtomicU64, n: u64) {
    if n > 0 {
        counter.fetch_add(n, Ordering::Relaxed);
    }
}

impl DistributorMetrics {
    /// Appends Prometheus text.
    pub fn render(&self, out: &mut String) {
        for (name, help, counter) in [
            ("requests", "Write requests taken, of every protocol.", &self.requests),
            ("failed_requests", "Write requests that failed as a whole.", &self.failed_requests),
            ("samples", "Float samples made durable.", &self.samples),
            ("histograms", "Native histograms made durable.", &self.histograms),
            ("exemplars", "Exemplars made durable.", &self.exemplars),
            ("refused_series", "Series refused, wholly or in part.", &self.refused_series),
            ("refused_items", "Samples, histograms and exemplars refused.", &self.refused_items),
            ("exemplars_dropped", "Exemplars left out for their labels.", &self.exemplars_dropped),
            (
                "otlp_joined_attributes",
                "OTLP attributes whose names gave the label of another and whose values were joined to its.",
                &self.otlp_joined_attributes,
            ),
            ("labels_sent", "Series sent to shards with their labels.", &self.labels_sent),
            ("stale_epochs", "Batches sent again after a new epoch.", &self.stale_epochs),
        ] {
            let name = format!("sextant_distributor_{name}_total");
            let value = counter.load(Ordering::Relaxed);
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} counter\n{name} {value}");
        }
    }
}
