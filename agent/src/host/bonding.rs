//! Bonded network devices and how many of their slaves carry traffic.

use super::collector::{CollectError, Collector, Gather, HostPaths, read, read_optional};

/// The collector `bonding`.
pub struct Bonding;

impl Collector for Bonding {
    fn name(&self) -> &'static str {
        "bonding"
    }

    fn collect(&mut self, paths: &HostPaths, out: &mut Gather) -> Result<(), CollectError> {
        let class = paths.sys.join("class/net");
        for master in read(&class.join("bonding_masters"))?.split_ascii_whitespace() {
            let dir = class.join(master);
            let slaves = read(&dir.join("bonding/slaves"))?;
            let slaves: Vec<&str> = slaves.split_ascii_whitespace().collect();
            let is_up = |slave: &&&str| {
                let status = |prefix: &str| {
                    read_optional(&dir.join(format!("{prefix}{slave}/bonding_slave/mii_status")))
                };
                status("lower_").or_else(|| status("slave_")).is_some_and(|s| s == "up")
            };
            let active = slaves.iter().filter(is_up).count();
            let labels = [("master", master)];
            let help = "Number of configured slaves per bonding interface.";
            out.gauge("node_bonding_slaves", help, &labels, slaves.len() as f64);
            let help = "Number of active slaves per bonding interface.";
            out.gauge("node_bonding_active", help, &labels, active as f64);
        }
        Ok(())
    }
}
