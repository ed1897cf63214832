//! The clock, its zone, and what the kernel reads the time from (`/sys/devices/system/clocksource`).

use super::{
    collector::{CollectError, Collector, Gather, HostPaths, list, read},
    time_zone::local_time_zone,
};
use crate::clock;

/// The collector `time`.
pub struct Time;

impl Collector for Time {
    fn name(&self) -> &'static str {
        "time"
    }

    fn collect(&mut self, paths: &HostPaths, out: &mut Gather) -> Result<(), CollectError> {
        let now = clock::now_seconds();
        out.gauge("node_time_seconds", "System time in seconds since epoch (1970).", &[], now);
        let (zone, offset) = local_time_zone(&paths.rootfs, now as i64);
        let help = "System time zone offset in seconds.";
        out.gauge("node_time_zone_offset_seconds", help, &[("time_zone", &zone)], f64::from(offset));
        clock_sources(paths, out)
    }
}

fn clock_sources(paths: &HostPaths, out: &mut Gather) -> Result<(), CollectError> {
    let base = paths.sys.join("devices/system/clocksource");
    for entry in list(&base)? {
        let Some(device) = entry.strip_prefix("clocksource") else { continue };
        let dir = base.join(&entry);
        let available = read(&dir.join("available_clocksource"))?;
        for source in available.split_ascii_whitespace() {
            let labels = [("device", device), ("clocksource", source)];
            let help = "Available clocksources read from '/sys/devices/system/clocksource'.";
            out.gauge("node_time_clocksource_available_info", help, &labels, 1.0);
        }
        let current = read(&dir.join("current_clocksource"))?;
        let labels = [("device", device), ("clocksource", current.trim())];
        let help = "Current clocksource read from '/sys/devices/system/clocksource'.";
        out.gauge("node_time_clocksource_current_info", help, &labels, 1.0);
    }
    Ok(())
}
