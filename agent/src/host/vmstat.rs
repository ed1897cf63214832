//! Fields of `/proc/vmstat`: paging, swapping, faults and kills for want of memory.

use sextant_model::MetricType;

use super::collector::{CollectError, Collector, Gather, HostPaths, number, read};

/// The collector `vmstat`.
pub struct VmStat;

/// node_exporter's default, `^(oom_kill|pgpg|pswp|pg.*fault).*`.
fn wanted(key: &str) -> bool {
    ["oom_kill", "pgpg", "pswp"].iter().any(|p| key.starts_with(p))
        || (key.starts_with("pg") && key.contains("fault"))
}

impl Collector for VmStat {
    fn name(&self) -> &'static str {
        "vmstat"
    }

    fn collect(&mut self, paths: &HostPaths, out: &mut Gather) -> Result<(), CollectError> {
        let path = paths.proc.join("vmstat");
        for line in read(&path)?.lines() {
            let Some((key, value)) = line.split_once(' ') else { continue };
            if wanted(key) {
                let help = format!("/proc/vmstat information field {key}.");
                out.add(MetricType::Unknown, format!("node_vmstat_{key}"), help, &[], number(&path, value)?);
            }
        }
        Ok(())
    }
}
