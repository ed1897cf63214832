//! Memory held by UDP sockets' queues, from `/proc/net/udp` and `udp6`.

use super::collector::{CollectError, Collector, Gather, HostPaths, field, read};

const HELP: &str = "Number of allocated memory in the kernel for UDP datagrams in bytes.";
const QUEUES_FIELD: usize = 4;

/// The collector `udp_queues`.
pub struct UdpQueues;

impl Collector for UdpQueues {
    fn name(&self) -> &'static str {
        "udp_queues"
    }

    fn collect(&mut self, paths: &HostPaths, out: &mut Gather) -> Result<(), CollectError> {
        for (file, ip) in [("net/udp", "v4"), ("net/udp6", "v6")] {
            let path = paths.proc.join(file);
            let text = match read(&path) {
                // A host may have one of the two protocols only.
                Err(CollectError::Unavailable(_)) => continue,
                other => other?,
            };
            let (mut tx, mut rx) = (0u64, 0u64);
            for line in text.lines().skip(1) {
                let fields: Vec<&str> = line.split_ascii_whitespace().collect();
                let queues = field(&path, &fields, QUEUES_FIELD)?;
                let parsed = queues.split_once(':').and_then(|(t, r)| {
                    Some((u64::from_str_radix(t, 16).ok()?, u64::from_str_radix(r, 16).ok()?))
                });
                let (t, r) =
                    parsed.ok_or_else(|| CollectError::malformed(&path, format!("queues {queues:?}")))?;
                tx += t;
                rx += r;
            }
            out.gauge("node_udp_queues", HELP, &[("queue", "tx"), ("ip", ip)], tx as f64);
            out.gauge("node_udp_queues", HELP, &[("queue", "rx"), ("ip", ip)], rx as f64);
        }
        Ok(())
    }
}
