//! The agent's own metrics.

use std::{
    fmt::Write,
    sync::atomic::{AtomicU64, Ordering},
};

/// Counters; all monotonic.
#[derive(Debug, Default)]
pub struct AgentMetrics {
    /// Collections of this host's metrics.
    pub collections: AtomicU64,
    /// Samples written.
    pub samples: AtomicU64,
    /// Writes that failed; their samples are lost.
    pub failed_writes: AtomicU64,
}

impl AgentMetrics {
    /// Appends Prometheus text.
    pub fn render(&self, out: &mut String) {
        for (name, help, value) in [
            ("sextant_agent_collections_total", "Collections of this host's metrics.", &self.collections),
            ("sextant_agent_samples_total", "Samples written.", &self.samples),
            ("sextant_agent_failed_writes_total", "Writes that failed; their samples are lost.", &self.failed_writes),
        ] {
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} counter\n{name} {}", value.load(Ordering::Relaxed));
        }
    }
}
