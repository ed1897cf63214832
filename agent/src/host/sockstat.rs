//! Sockets in use, from `/proc/net/sockstat` and `sockstat6`.

use super::collector::{CollectError, Collector, Gather, HostPaths, number, read};

/// The collector `sockstat`.
pub struct SockStat;

impl Collector for SockStat {
    fn name(&self) -> &'static str {
        "sockstat"
    }

    fn collect(&mut self, paths: &HostPaths, out: &mut Gather) -> Result<(), CollectError> {
        let page = rustix::param::page_size() as f64;
        for file in ["net/sockstat", "net/sockstat6"] {
            let path = paths.proc.join(file);
            let text = match read(&path) {
                // A host may have one of the two protocols only.
                Err(CollectError::Unavailable(_)) => continue,
                other => other?,
            };
            for line in text.lines() {
                let Some((protocol, counts)) = line.split_once(':') else { continue };
                let counts: Vec<&str> = counts.split_ascii_whitespace().collect();
                for pair in counts.chunks_exact(2) {
                    let (state, value) = (pair[0], number(&path, pair[1])?);
                    let help = match protocol {
                        "sockets" => "Number of IPv4 sockets in use.".to_owned(),
                        _ => format!("Number of {protocol} sockets in state {state}."),
                    };
                    out.gauge(format!("node_sockstat_{protocol}_{state}"), help, &[], value);
                    if state == "mem" {
                        let help = format!("Number of {protocol} sockets in state mem_bytes.");
                        out.gauge(format!("node_sockstat_{protocol}_mem_bytes"), help, &[], value * page);
                    }
                }
            }
        }
        Ok(())
    }
}
