//! Every field of `/proc/meminfo`.

use super::collector::{CollectError, Collector, Gather, HostPaths, field, number, read};

/// The collector `meminfo`.
pub struct MemInfo;

impl Collector for MemInfo {
    fn name(&self) -> &'static str {
        "meminfo"
    }

    fn collect(&mut self, paths: &HostPaths, out: &mut Gather) -> Result<(), CollectError> {
        let path = paths.proc.join("meminfo");
        for line in read(&path)?.lines() {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            let Some(key) = fields.first().and_then(|k| k.strip_suffix(':')) else { continue };
            // `Active(anon)` is `Active_anon` in a metric name.
            let key = key.replace('(', "_").replace(')', "");
            let value = number(&path, field(&path, &fields, 1)?)?;
            let (key, value) = match fields.get(2) {
                None => (key, value),
                Some(&"kB") => (format!("{key}_bytes"), value * 1024.0),
                Some(unit) => return Err(CollectError::malformed(&path, format!("unit {unit:?}"))),
            };
            out.gauge(format!("node_memory_{key}"), format!("Memory information field {key}."), &[], value);
        }
        Ok(())
    }
}
