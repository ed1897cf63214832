//! The scheduler's counters per processor, from `/proc/schedstat`.

use super::collector::{CollectError, Collector, Gather, HostPaths, field, number, read};

/// Index after the processor's name, metric, help, nanoseconds or not.
const FIELDS: [(usize, &str, &str, f64); 3] = [
    (7, "node_schedstat_running_seconds_total", "Number of seconds CPU spent running a process.", 1e9),
    (
        8,
        "node_schedstat_waiting_seconds_total",
        "Number of seconds spent by processing waiting for this CPU.",
        1e9,
    ),
    (9, "node_schedstat_timeslices_total", "Number of timeslices executed by CPU.", 1.0),
];

/// The collector `schedstat`.
pub struct SchedStat;

impl Collector for SchedStat {
    fn name(&self) -> &'static str {
        "schedstat"
    }

    fn collect(&mut self, paths: &HostPaths, out: &mut Gather) -> Result<(), CollectError> {
        let path = paths.proc.join("schedstat");
        for line in read(&path)?.lines() {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            let Some(cpu) = fields.first().and_then(|n| n.strip_prefix("cpu")) else { continue };
            for (i, name, help, scale) in FIELDS {
                let value = number(&path, field(&path, &fields, i)?)? / scale;
                out.counter(name, help, &[("cpu", cpu)], value);
            }
        }
        Ok(())
    }
}
