//! Counters of the whole host, from `/proc/stat`.

use sextant_model::MetricType;

use super::collector::{CollectError, Collector, Gather, HostPaths, number, read};

/// Key in the file, metric, help, type.
const FIELDS: [(&str, &str, &str, MetricType); 6] = [
    ("intr", "node_intr_total", "Total number of interrupts serviced.", MetricType::Counter),
    ("ctxt", "node_context_switches_total", "Total number of context switches.", MetricType::Counter),
    ("btime", "node_boot_time_seconds", "Node boot time, in unixtime.", MetricType::Gauge),
    ("processes", "node_forks_total", "Total number of forks.", MetricType::Counter),
    ("procs_running", "node_procs_running", "Number of processes in runnable state.", MetricType::Gauge),
    (
        "procs_blocked",
        "node_procs_blocked",
        "Number of processes blocked waiting for I/O to complete.",
        MetricType::Gauge,
    ),
];

/// The collector `stat`.
pub struct Stat;

impl Collector for Stat {
    fn name(&self) -> &'static str {
        "stat"
    }

    fn collect(&mut self, paths: &HostPaths, out: &mut Gather) -> Result<(), CollectError> {
        let path = paths.proc.join("stat");
        for line in read(&path)?.lines() {
            let mut fields = line.split_ascii_whitespace();
            let (Some(key), Some(value)) = (fields.next(), fields.next()) else { continue };
            if let Some((_, name, help, metric_type)) = FIELDS.iter().find(|f| f.0 == key) {
                out.add(*metric_type, *name, *help, &[], number(&path, value)?);
            }
        }
        Ok(())
    }
}
