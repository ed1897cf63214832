//! The ingester's own metrics. Counters are kept here; gauges are set when they are rendered.

use std::{
    fmt::Write,
    sync::atomic::{AtomicU64, Ordering},
};

use sextant_proto::{AppendOutcome, RefusalKind, ShardError, ShardId};

/// Counters and gauges, all process-wide.
#[derive(Debug, Default)]
pub struct IngesterMetrics {
    /// Batches applied.
    pub batches: AtomicU64,
    /// Bytes of batches proposed.
    pub batch_bytes: AtomicU64,
    /// Batches that had been applied before.
    pub duplicates: AtomicU64,
    /// Series added to a generation.
    pub new_series: AtomicU64,
    /// Samples refused by the series limit.
    pub refused_series_limit: AtomicU64,
    /// Samples refused as older than the out-of-order window.
    pub refused_outside_window: AtomicU64,
    /// Batches answered with a stale epoch.
    pub errors_stale_epoch: AtomicU64,
    /// Batches refused by a memory or log bound.
    pub errors_overloaded: AtomicU64,
    /// Batches that the log could not take.
    pub errors_unavailable: AtomicU64,
    /// Batches that were not well-formed.
    pub errors_malformed: AtomicU64,
    /// Reads of samples.
    pub selects: AtomicU64,
    /// Samples returned by reads.
    pub select_samples: AtomicU64,
    /// Generations sealed.
    pub seals: AtomicU64,
    /// Generations flushed.
    pub flushes: AtomicU64,
    /// Flushes that failed and are repeated.
    pub flush_failures: AtomicU64,
    /// Milliseconds spent in flushes.
    pub flush_ms: AtomicU64,
    /// Blocks uploaded.
    pub blocks: AtomicU64,
    /// Samples in them.
    pub block_samples: AtomicU64,
    /// Bytes of them.
    pub block_bytes: AtomicU64,
    /// Milliseconds that opening took, replay included.
    pub open_ms: AtomicU64,
    /// Bytes of the heads.
    pub head_memory: AtomicU64,
    /// Their bound.
    pub head_memory_max: AtomicU64,
    /// Samples in the heads.
    pub head_samples: AtomicU64,
    /// Sealed generations in memory.
    pub sealed_generations: AtomicU64,
    /// Bytes of log segments in use.
    pub log_bytes: AtomicU64,
    /// Syncs of the log.
    pub log_syncs: AtomicU64,
}

pub(crate) fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

impl IngesterMetrics {
    pub(crate) fn applied(&self, outcome: &AppendOutcome) {
        add(&self.batches, 1);
        if outcome.duplicate {
            add(&self.duplicates, 1);
            return;
        }
        add(&self.new_series, outcome.new_refs.iter().filter(|&&r| r != u32::MAX).count() as u64);
        for r in &outcome.refused {
            let counter = match r.kind {
                RefusalKind::SeriesLimit => &self.refused_series_limit,
                RefusalKind::OutsideWindow => &self.refused_outside_window,
            };
            add(counter, u64::from(r.samples));
        }
    }

    pub(crate) fn failed(&self, error: &ShardError) {
        let counter = match error {
            ShardError::StaleEpoch { .. } => &self.errors_stale_epoch,
            ShardError::Overloaded(_) => &self.errors_overloaded,
            ShardError::Malformed(_) => &self.errors_malformed,
            ShardError::Unavailable(_) | ShardError::Limit(_) => &self.errors_unavailable,
        };
        add(counter, 1);
    }

    /// Appends all of it in Prometheus' text format.
    pub fn render(&self, out: &mut String) {
        type Family<'a> = (&'a str, &'a str, &'a str, &'a [(&'a str, &'a AtomicU64)]);
        let families: &[Family<'_>] = &[
            ("batches_total", "counter", "Write batches applied.", &[("", &self.batches)]),
            ("batch_bytes_total", "counter", "Bytes of write batches proposed.", &[("", &self.batch_bytes)]),
            (
                "duplicate_batches_total",
                "counter",
                "Write batches that had been applied before.",
                &[("", &self.duplicates)],
            ),
            ("series_added_total", "counter", "Series named for the first time.", &[("", &self.new_series)]),
            (
                "refused_samples_total",
                "counter",
                "Samples refused by a tenant's limits.",
                &[
                    ("{reason=\"series_limit\"}", &self.refused_series_limit),
                    ("{reason=\"outside_window\"}", &self.refused_outside_window),
                ],
            ),
            (
                "failed_batches_total",
                "counter",
                "Write batches not applied.",
                &[
                    ("{reason=\"stale_epoch\"}", &self.errors_stale_epoch),
                    ("{reason=\"overloaded\"}", &self.errors_overloaded),
                    ("{reason=\"unavailable\"}", &self.errors_unavailable),
                    ("{reason=\"malformed\"}", &self.errors_malformed),
                ],
            ),
            ("selects_total", "counter", "Reads of samples.", &[("", &self.selects)]),
            ("select_samples_total", "counter", "Samples returned by reads.", &[("", &self.select_samples)]),
            ("seals_total", "counter", "Generations sealed.", &[("", &self.seals)]),
            ("flushes_total", "counter", "Generations flushed.", &[("", &self.flushes)]),
            (
                "flush_failures_total",
                "counter",
                "Flushes that failed and are repeated.",
                &[("", &self.flush_failures)],
            ),
            ("flush_milliseconds_total", "counter", "Time spent in flushes.", &[("", &self.flush_ms)]),
            ("blocks_total", "counter", "Blocks committed.", &[("", &self.blocks)]),
            ("block_samples_total", "counter", "Samples in committed blocks.", &[("", &self.block_samples)]),
            ("block_bytes_total", "counter", "Bytes of committed blocks.", &[("", &self.block_bytes)]),
            (
                "open_milliseconds",
                "gauge",
                "Time that opening took, replay included.",
                &[("", &self.open_ms)],
            ),
            ("head_memory_bytes", "gauge", "Memory of recent data.", &[("", &self.head_memory)]),
            (
                "head_memory_max_bytes",
                "gauge",
                "Bound of the memory of recent data.",
                &[("", &self.head_memory_max)],
            ),
            ("head_samples", "gauge", "Samples in memory.", &[("", &self.head_samples)]),
            (
                "sealed_generations",
                "gauge",
                "Sealed generations in memory.",
                &[("", &self.sealed_generations)],
            ),
            ("log_bytes", "gauge", "Bytes of log segments in use.", &[("", &self.log_bytes)]),
            ("log_syncs_total", "counter", "Syncs of the log.", &[("", &self.log_syncs)]),
        ];
        for (name, kind, help, values) in families {
            let _ =
                writeln!(out, "# HELP sextant_ingester_{name} {help}\n# TYPE sextant_ingester_{name} {kind}");
            for (labels, value) in *values {
                let _ = writeln!(out, "sextant_ingester_{name}{labels} {}", value.load(Ordering::Relaxed));
            }
        }
    }

    /// Appends, for each shard, whether it takes writes.
    pub fn render_shards(shards: impl Iterator<Item = (ShardId, bool)>, out: &mut String) {
        let name = "sextant_ingester_shard_takes_writes";
        let _ = writeln!(
            out,
            "# HELP {name} 0 while every write to the shard is refused: its group has stopped or the disk is full.\n# TYPE {name} gauge"
        );
        for (shard, takes_writes) in shards {
            let _ = writeln!(out, "{name}{{shard=\"{}\"}} {}", shard.0, u8::from(takes_writes));
        }
    }
}
