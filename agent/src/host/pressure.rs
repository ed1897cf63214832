//! Pressure stall information, from `/proc/pressure`.

use super::collector::{CollectError, Collector, Gather, HostPaths, number, read};

/// File, first word of the line, metric, help.
const LINES: [(&str, &str, &str, &str); 6] = [
    (
        "cpu",
        "some",
        "node_pressure_cpu_waiting_seconds_total",
        "Total time in seconds that processes have waited for CPU time",
    ),
    (
        "io",
        "some",
        "node_pressure_io_waiting_seconds_total",
        "Total time in seconds that processes have waited due to IO congestion",
    ),
    (
        "io",
        "full",
        "node_pressure_io_stalled_seconds_total",
        "Total time in seconds no process could make progress due to IO congestion",
    ),
    (
        "memory",
        "some",
        "node_pressure_memory_waiting_seconds_total",
        "Total time in seconds that processes have waited for memory",
    ),
    (
        "memory",
        "full",
        "node_pressure_memory_stalled_seconds_total",
        "Total time in seconds no process could make progress due to memory congestion",
    ),
    (
        "irq",
        "full",
        "node_pressure_irq_stalled_seconds_total",
        "Total time in seconds no process could make progress due to IRQ congestion",
    ),
];

/// The collector `pressure`.
pub struct Pressure;

impl Collector for Pressure {
    fn name(&self) -> &'static str {
        "pressure"
    }

    fn collect(&mut self, paths: &HostPaths, out: &mut Gather) -> Result<(), CollectError> {
        for (file, kind, name, help) in LINES {
            let path = paths.proc.join("pressure").join(file);
            let text = match read(&path) {
                // Accounting of interrupts is an option of its own (CONFIG_IRQ_TIME_ACCOUNTING).
                Err(CollectError::Unavailable(_)) if file == "irq" => continue,
                other => other?,
            };
            let total = text
                .lines()
                .filter(|l| l.split_ascii_whitespace().next() == Some(kind))
                .find_map(|l| l.rsplit_once("total=").map(|(_, v)| v.trim()));
            let Some(total) = total else { continue };
            out.counter(name, help, &[], number(&path, total)? / 1e6);
        }
        Ok(())
    }
}
