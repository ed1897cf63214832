//! The connection tracking table's size and counters.

use super::collector::{CollectError, Collector, Gather, HostPaths, number, read};

const LIMITS: [(&str, &str, &str); 2] = [
    (
        "nf_conntrack_count",
        "node_nf_conntrack_entries",
        "Number of currently allocated flow entries for connection tracking.",
    ),
    ("nf_conntrack_max", "node_nf_conntrack_entries_limit", "Maximum size of connection tracking table."),
];

/// Column's heading, metric, help.
const COUNTERS: [(&str, &str, &str); 8] = [
    ("found", "node_nf_conntrack_stat_found", "Number of searched entries which were successful."),
    ("invalid", "node_nf_conntrack_stat_invalid", "Number of packets seen which can not be tracked."),
    (
        "ignore",
        "node_nf_conntrack_stat_ignore",
        "Number of packets seen which are already connected to a conntrack entry.",
    ),
    ("insert", "node_nf_conntrack_stat_insert", "Number of entries inserted into the list."),
    (
        "insert_failed",
        "node_nf_conntrack_stat_insert_failed",
        "Number of entries for which list insertion was attempted but failed.",
    ),
    ("drop", "node_nf_conntrack_stat_drop", "Number of packets dropped due to conntrack failure."),
    (
        "early_drop",
        "node_nf_conntrack_stat_early_drop",
        "Number of dropped conntrack entries to make room for new ones, if maximum table size was reached.",
    ),
    (
        "search_restart",
        "node_nf_conntrack_stat_search_restart",
        "Number of conntrack table lookups which had to be restarted due to hashtable resizes.",
    ),
];

/// The collector `conntrack`.
pub struct Conntrack;

impl Collector for Conntrack {
    fn name(&self) -> &'static str {
        "conntrack"
    }

    fn collect(&mut self, paths: &HostPaths, out: &mut Gather) -> Result<(), CollectError> {
        for (file, name, help) in LIMITS {
            let path = paths.proc.join("sys/net/netfilter").join(file);
            out.gauge(name, help, &[], number(&path, read(&path)?.trim())?);
        }
        let path = paths.proc.join("net/stat/nf_conntrack");
        let text = read(&path)?;
        let mut lines = text.lines();
        let headings: Vec<&str> = lines.next().unwrap_or_default().split_ascii_whitespace().collect();
        let mut sums = vec![0u64; headings.len()];
        for line in lines {
            for (sum, cell) in sums.iter_mut().zip(line.split_ascii_whitespace()) {
                *sum += u64::from_str_radix(cell, 16).map_err(|_| {
                    CollectError::malformed(&path, format!("{cell:?} is not a hexadecimal number"))
                })?;
            }
        }
        for (heading, name, help) in COUNTERS {
            // Newer kernels renamed `ignore`, which is 0 since; the metric stays.
            let value = headings.iter().position(|h| *h == heading).map_or(0, |i| sums[i]);
            out.gauge(name, help, &[], value as f64);
        }
        Ok(())
    }
}
