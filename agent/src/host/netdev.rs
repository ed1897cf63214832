//! Counters per network device, from `/proc/net/dev`, and one that only `/sys` has.

use super::collector::{CollectError, Collector, Gather, HostPaths, number, read, read_optional};

const RECEIVE: [&str; 8] = ["bytes", "packets", "errs", "drop", "fifo", "frame", "compressed", "multicast"];
const TRANSMIT: [&str; 8] = ["bytes", "packets", "errs", "drop", "fifo", "colls", "carrier", "compressed"];

/// The collector `netdev`.
pub struct NetDev;

impl Collector for NetDev {
    fn name(&self) -> &'static str {
        "netdev"
    }

    fn collect(&mut self, paths: &HostPaths, out: &mut Gather) -> Result<(), CollectError> {
        let path = paths.proc.join("net/dev");
        for line in read(&path)?.lines().skip(2) {
            let Some((device, counters)) = line.split_once(':') else { continue };
            let device = device.trim();
            let values =
                counters.split_ascii_whitespace().map(|v| number(&path, v)).collect::<Result<Vec<_>, _>>()?;
            let names =
                RECEIVE.iter().map(|n| ("receive", n)).chain(TRANSMIT.iter().map(|n| ("transmit", n)));
            for ((direction, name), v) in names.zip(values) {
                let metric = format!("node_network_{direction}_{name}_total");
                let help = format!("Network device statistic {direction}_{name}.");
                out.counter(metric, help, &[("device", device)], v);
            }
            let file = paths.sys.join("class/net").join(device).join("statistics/rx_nohandler");
            if let Some(v) = read_optional(&file).and_then(|t| t.parse().ok()) {
                let help = "Network device statistic receive_nohandler.";
                out.counter("node_network_receive_nohandler_total", help, &[("device", device)], v);
            }
        }
        Ok(())
    }
}
