//! Time per processor and mode, from `/proc/stat`.

use std::collections::HashMap;

use super::collector::{CollectError, Collector, Gather, HostPaths, number, read};

const MODES: [&str; 8] = ["user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal"];
const HELP: &str = "Seconds the CPUs spent in each mode.";
const GUEST_HELP: &str = "Seconds the CPUs spent in guests (VMs) for each mode.";

/// The kernel counts in ticks of `USER_HZ`, which is 100 on every architecture that Linux supports.
const USER_HZ: f64 = 100.0;

/// A processor whose idle time falls by this much was taken offline and came back: its counters start anew.
const HOTPLUG_IDLE_SECONDS: f64 = 3.0;

/// The collector `cpu`.
#[derive(Default)]
pub struct Cpu {
    /// What was reported last. Idle and iowait may go back by some ticks when a processor wakes; a counter must not.
    reported: HashMap<String, Vec<f64>>,
}

impl Collector for Cpu {
    fn name(&self) -> &'static str {
        "cpu"
    }

    fn collect(&mut self, paths: &HostPaths, out: &mut Gather) -> Result<(), CollectError> {
        let path = paths.proc.join("stat");
        let text = read(&path)?;
        for line in text.lines() {
            let mut fields = line.split_ascii_whitespace();
            let Some(cpu) = fields.next().and_then(|n| n.strip_prefix("cpu")).filter(|n| !n.is_empty())
            else {
                continue;
            };
            let mut seconds = Vec::with_capacity(10);
            for f in fields {
                seconds.push(number(&path, f)? / USER_HZ);
            }
            let seconds = self.forward_only(cpu, seconds);
            for (mode, v) in MODES.iter().zip(seconds) {
                out.counter("node_cpu_seconds_total", HELP, &[("cpu", cpu), ("mode", mode)], *v);
            }
            for (mode, v) in ["user", "nice"].iter().zip(seconds.iter().skip(MODES.len())) {
                out.counter("node_cpu_guest_seconds_total", GUEST_HELP, &[("cpu", cpu), ("mode", mode)], *v);
            }
        }
        Ok(())
    }
}

impl Cpu {
    fn forward_only(&mut self, cpu: &str, now: Vec<f64>) -> &[f64] {
        let idle = MODES.iter().position(|m| *m == "idle").unwrap_or(0);
        let last = self.reported.entry(cpu.to_owned()).or_default();
        let restarted = match (last.get(idle), now.get(idle)) {
            (Some(before), Some(after)) => before - after > HOTPLUG_IDLE_SECONDS,
            _ => true,
        };
        if restarted || last.len() != now.len() {
            *last = now;
        } else {
            for (l, n) in last.iter_mut().zip(now) {
                *l = l.max(n);
            }
        }
        last
    }
}
