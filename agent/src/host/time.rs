//! The clock and its zone.

use super::collector::{CollectError, Collector, Gather, HostPaths};

/// The collector `time`.
pub struct Time;

impl Collector for Time {
    fn name(&self) -> &'static str {
        "time"
    }

    fn collect(&mut self, _: &HostPaths, out: &mut Gather) -> Result<(), CollectError> {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64());
        out.gauge("node_time_seconds", "System time in seconds since epoch (1970).", &[], now);
        Ok(())
    }
}
