//! The kernel's protocol counters, from `/proc/net/netstat`, `snmp` and `snmp6`.

use std::sync::LazyLock;

use regex::Regex;
use sextant_model::MetricType;

use super::collector::{CollectError, Collector, Gather, HostPaths, number, read};

/// The counters that are kept, as in node_exporter.
const NETSTAT_FIELDS: &str = concat!(
    r"^(.*_(InErrors|InErrs)|Ip_Forwarding|Ip(6|Ext)_(InOctets|OutOctets)|Icmp6?_(InMsgs|OutMsgs)|",
    r"TcpExt_(Listen.*|Syncookies.*|TCPSynRetrans|TCPTimeouts|TCPOFOQueue|TCPRcvQDrop)|",
    r"Tcp_(ActiveOpens|InSegs|OutSegs|OutRsts|PassiveOpens|RetransSegs|CurrEstab)|",
    r"Udp6?_(InDatagrams|OutDatagrams|NoPorts|RcvbufErrors|SndbufErrors))$"
);

static KEPT: LazyLock<Regex> = LazyLock::new(|| Regex::new(NETSTAT_FIELDS).expect("a constant expression"));

/// The collector `netstat`.
pub struct NetStat;

impl NetStat {
    fn add(protocol: &str, name: &str, value: f64, out: &mut Gather) {
        let key = format!("{protocol}_{name}");
        if KEPT.is_match(&key) {
            let help = format!("Statistic {protocol}{name}.");
            out.add(MetricType::Unknown, format!("node_netstat_{key}"), help, &[], value);
        }
    }
}

impl Collector for NetStat {
    fn name(&self) -> &'static str {
        "netstat"
    }

    fn collect(&mut self, paths: &HostPaths, out: &mut Gather) -> Result<(), CollectError> {
        for file in ["net/netstat", "net/snmp"] {
            let path = paths.proc.join(file);
            let text = read(&path)?;
            let mut lines = text.lines();
            // Lines come in pairs: names, then values, both after the protocol.
            while let (Some(names), Some(values)) = (lines.next(), lines.next()) {
                let pair = names.split_once(':').zip(values.split_once(':'));
                let Some(((protocol, names), (same, values))) = pair.filter(|(n, v)| n.0 == v.0) else {
                    return Err(CollectError::malformed(&path, format!("unpaired line {names:?}")));
                };
                debug_assert_eq!(protocol, same);
                for (name, value) in names.split_ascii_whitespace().zip(values.split_ascii_whitespace()) {
                    Self::add(protocol, name, number(&path, value)?, out);
                }
            }
        }
        let path = paths.proc.join("net/snmp6");
        let text = match read(&path) {
            // A host without IPv6.
            Err(CollectError::Unavailable(_)) => return Ok(()),
            other => other?,
        };
        for line in text.lines() {
            let mut fields = line.split_ascii_whitespace();
            let (Some(key), Some(value)) = (fields.next(), fields.next()) else { continue };
            // `Ip6InReceives`: the protocol ends with the digit.
            if let Some(end) = key.find('6') {
                let (protocol, name) = key.split_at(end + 1);
                Self::add(protocol, name, number(&path, value)?, out);
            }
        }
        Ok(())
    }
}
