//! Load averages, from `/proc/loadavg`.

use super::collector::{CollectError, Collector, Gather, HostPaths, field, number, read};

const AVERAGES: [(&str, &str); 3] = [
    ("node_load1", "1m load average."),
    ("node_load5", "5m load average."),
    ("node_load15", "15m load average."),
];

/// The collector `loadavg`.
pub struct LoadAvg;

impl Collector for LoadAvg {
    fn name(&self) -> &'static str {
        "loadavg"
    }

    fn collect(&mut self, paths: &HostPaths, out: &mut Gather) -> Result<(), CollectError> {
        let path = paths.proc.join("loadavg");
        let text = read(&path)?;
        let fields: Vec<&str> = text.split_ascii_whitespace().collect();
        for (i, (name, help)) in AVERAGES.into_iter().enumerate() {
            out.gauge(name, help, &[], number(&path, field(&path, &fields, i)?)?);
        }
        Ok(())
    }
}
