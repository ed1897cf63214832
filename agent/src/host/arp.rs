//! Neighbours per device, from `/proc/net/arp`.

use std::collections::BTreeMap;

use super::collector::{CollectError, Collector, Gather, HostPaths, read};

/// The collector `arp`.
pub struct Arp;

impl Collector for Arp {
    fn name(&self) -> &'static str {
        "arp"
    }

    fn collect(&mut self, paths: &HostPaths, out: &mut Gather) -> Result<(), CollectError> {
        let text = read(&paths.proc.join("net/arp"))?;
        let mut entries: BTreeMap<&str, u32> = BTreeMap::new();
        for line in text.lines().skip(1) {
            if let Some(device) = line.split_ascii_whitespace().last() {
                *entries.entry(device).or_default() += 1;
            }
        }
        for (device, n) in entries {
            out.gauge("node_arp_entries", "ARP entries by device", &[("device", device)], f64::from(n));
        }
        Ok(())
    }
}
