//! This process itself, under the names that Prometheus' client libraries use.

use std::path::Path;

use super::collector::{CollectError, Collector, Gather, HostPaths, field, list, number, read};

/// The collector `process`. It reads the real `/proc/self`, wherever the host's files are mounted.
pub struct OwnProcess;

/// Fields of `/proc/self/stat` after the command's closing parenthesis.
const USER_TICKS: usize = 11;
const SYSTEM_TICKS: usize = 12;
const START_TICKS: usize = 19;
const VIRTUAL_BYTES: usize = 20;
const RESIDENT_PAGES: usize = 21;

impl Collector for OwnProcess {
    fn name(&self) -> &'static str {
        "process"
    }

    fn collect(&mut self, _: &HostPaths, out: &mut Gather) -> Result<(), CollectError> {
        let own = Path::new("/proc/self");
        let path = own.join("stat");
        let text = read(&path)?;
        // The command's name may hold spaces and parentheses; it ends at the last one.
        let (_, rest) = text
            .rsplit_once(") ")
            .ok_or_else(|| CollectError::malformed(&path, "no command name in parentheses"))?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let at = |i: usize| number(&path, field(&path, &fields, i)?);
        let hertz = rustix::param::clock_ticks_per_second() as f64;

        let cpu = (at(USER_TICKS)? + at(SYSTEM_TICKS)?) / hertz;
        out.counter(
            "process_cpu_seconds_total",
            "Total user and system CPU time spent in seconds.",
            &[],
            cpu,
        );
        let memory = at(RESIDENT_PAGES)? * rustix::param::page_size() as f64;
        out.gauge("process_resident_memory_bytes", "Resident memory size in bytes.", &[], memory);
        out.gauge("process_virtual_memory_bytes", "Virtual memory size in bytes.", &[], at(VIRTUAL_BYTES)?);
        let start = boot_time(Path::new("/proc/stat"))? + at(START_TICKS)? / hertz;
        let help = "Start time of the process since unix epoch in seconds.";
        out.gauge("process_start_time_seconds", help, &[], start);
        let open = list(&own.join("fd"))?.len();
        out.gauge("process_open_fds", "Number of open file descriptors.", &[], open as f64);
        limits(&own.join("limits"), out)
    }
}

fn boot_time(path: &Path) -> Result<f64, CollectError> {
    let text = read(path)?;
    let boot = text.lines().find_map(|l| l.strip_prefix("btime "));
    number(path, boot.ok_or_else(|| CollectError::malformed(path, "no btime"))?.trim())
}

fn limits(path: &Path, out: &mut Gather) -> Result<(), CollectError> {
    let text = read(path)?;
    for (row, name, help) in [
        ("Max open files", "process_max_fds", "Maximum number of open file descriptors."),
        (
            "Max address space",
            "process_virtual_memory_max_bytes",
            "Maximum amount of virtual memory available in bytes.",
        ),
    ] {
        let soft = text.lines().find_map(|l| l.strip_prefix(row)?.split_ascii_whitespace().next());
        match soft {
            Some("unlimited") => out.gauge(name, help, &[], u64::MAX as f64),
            Some(value) => out.gauge(name, help, &[], number(path, value)?),
            None => {}
        }
    }
    Ok(())
}
