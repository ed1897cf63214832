//! The agent's own metrics, `sextant_agent_*`.

use std::{
    fmt::Write,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

/// Counters and gauges of one agent.
#[derive(Debug, Default)]
pub struct AgentMetrics {
    /// Scrapes that succeeded.
    pub(crate) scrapes_ok: AtomicU64,
    /// Scrapes that failed.
    pub(crate) scrapes_failed: AtomicU64,
    /// Samples that targets gave, before relabelling.
    pub(crate) scraped_samples: AtomicU64,
    /// Targets that are scraped.
    pub(crate) targets: AtomicU64,
    /// 1 where the last scrape configuration was taken, 0 where it was refused.
    pub(crate) config_reload_successful: AtomicU64,
    /// When the last one was taken, Unix seconds.
    pub(crate) config_reload_success_seconds: AtomicU64,
    /// Rounds over the host's collectors.
    pub(crate) host_collections: AtomicU64,
    /// Collectors that failed.
    pub(crate) host_collector_failures: AtomicU64,
    /// Samples that wait to be written.
    pub(crate) queue_samples: AtomicU64,
    /// Samples that the sink stored.
    pub(crate) written_samples: AtomicU64,
    /// Writes that were repeated because the sink could not take them.
    pub(crate) write_retries: AtomicU64,
    /// Samples that the sink refused one by one.
    pub(crate) dropped_refused: AtomicU64,
    /// Samples of writes that the sink refused as a whole.
    pub(crate) dropped_rejected: AtomicU64,
    /// Samples dropped because too many waited.
    pub(crate) dropped_queue_full: AtomicU64,
    /// Samples that could not be written before the agent ended.
    pub(crate) dropped_shutdown: AtomicU64,
}

impl AgentMetrics {
    /// Appends the metrics in the Prometheus text format.
    pub fn render(&self, out: &mut String) {
        let mut family = |name: &str, kind: &str, help: &str, samples: &[(&str, &AtomicU64)]| {
            let _ = writeln!(out, "# HELP sextant_agent_{name} {help}\n# TYPE sextant_agent_{name} {kind}");
            for (labels, value) in samples {
                let _ = writeln!(out, "sextant_agent_{name}{labels} {}", value.load(Relaxed));
            }
        };
        family(
            "scrapes_total",
            "counter",
            "Scrapes by result.",
            &[("{result=\"ok\"}", &self.scrapes_ok), ("{result=\"failed\"}", &self.scrapes_failed)],
        );
        family(
            "scraped_samples_total",
            "counter",
            "Samples that targets gave, before relabelling.",
            &[("", &self.scraped_samples)],
        );
        family("targets", "gauge", "Targets that are scraped.", &[("", &self.targets)]);
        family(
            "config_last_reload_successful",
            "gauge",
            "1 where the last scrape configuration is in force, 0 where it was refused and the one before it is.",
            &[("", &self.config_reload_successful)],
        );
        family(
            "config_last_reload_success_timestamp_seconds",
            "gauge",
            "When a scrape configuration was taken last, Unix seconds.",
            &[("", &self.config_reload_success_seconds)],
        );
        family(
            "host_collections_total",
            "counter",
            "Rounds over this host's collectors.",
            &[("", &self.host_collections)],
        );
        family(
            "host_collector_failures_total",
            "counter",
            "Collectors of this host that failed.",
            &[("", &self.host_collector_failures)],
        );
        family("queue_samples", "gauge", "Samples that wait to be written.", &[("", &self.queue_samples)]);
        family(
            "written_samples_total",
            "counter",
            "Samples that the sink stored.",
            &[("", &self.written_samples)],
        );
        family(
            "write_retries_total",
            "counter",
            "Writes repeated because the sink could not take them.",
            &[("", &self.write_retries)],
        );
        family(
            "dropped_samples_total",
            "counter",
            "Samples that were not stored, by reason.",
            &[
                ("{reason=\"refused\"}", &self.dropped_refused),
                ("{reason=\"rejected\"}", &self.dropped_rejected),
                ("{reason=\"queue_full\"}", &self.dropped_queue_full),
                ("{reason=\"shutdown\"}", &self.dropped_shutdown),
            ],
        );
    }
}

/// Adds to a counter.
pub(crate) fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Relaxed);
}

/// A counter's or gauge's value.
pub(crate) fn get(value: &AtomicU64) -> u64 {
    value.load(Relaxed)
}

/// Sets a gauge.
pub(crate) fn set(gauge: &AtomicU64, n: u64) {
    gauge.store(n, Relaxed);
}
