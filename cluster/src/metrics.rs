//! An ingester's groups as metrics, and what keeps it from being ready.

use std::fmt::Write;

use sextant_proto::ShardId;
use sextant_replication::GroupMetrics;

use crate::IngesterNode;

/// Writes that wait for so long while nothing is committed mean that the group cannot do its work.
const STALLED_MS_MAX: u64 = 5_000;
/// A sync that takes longer holds up every group of the node.
const SYNC_US_MAX: u64 = 2_000_000;

/// Why a node is not ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Obstacle {
    /// It is not a member yet, or no more.
    Membership,
    /// A shard that it should hold is not open.
    ShardNotOpen,
    /// A group has no leader.
    NoLeader,
    /// A group's commit position stands still under writes.
    Stalled,
    /// Its log is slow.
    SlowLog,
}

impl Obstacle {
    const ALL: [Self; 5] =
        [Self::Membership, Self::ShardNotOpen, Self::NoLeader, Self::Stalled, Self::SlowLog];

    fn label(self) -> &'static str {
        match self {
            Self::Membership => "membership",
            Self::ShardNotOpen => "shard_not_open",
            Self::NoLeader => "no_leader",
            Self::Stalled => "stalled",
            Self::SlowLog => "slow_log",
        }
    }
}

pub(crate) fn of_group(name: &str, m: &GroupMetrics, into: &mut Vec<(Obstacle, String)>) {
    if m.leader.is_none() {
        into.push((Obstacle::NoLeader, format!("{name} has no leader")));
    }
    if m.stalled_ms > STALLED_MS_MAX {
        let text =
            format!("{name}: the commit position has stood still for {} ms under writes", m.stalled_ms);
        into.push((Obstacle::Stalled, text));
    }
}

pub(crate) fn of_log(sync_us_max: u64, into: &mut Vec<(Obstacle, String)>) {
    if sync_us_max > SYNC_US_MAX {
        let text = format!("the log is slow: a sync took {} ms within the last 10 s", sync_us_max / 1000);
        into.push((Obstacle::SlowLog, text));
    }
}

impl IngesterNode {
    /// Appends the groups' figures in Prometheus' text format.
    pub fn render_metrics(&self, out: &mut String) {
        let mut groups: Vec<(String, GroupMetrics)> = Vec::new();
        if let Some(m) = self.metadata_metrics() {
            groups.push(("metadata".to_owned(), m));
        }
        groups.extend(self.shard_metrics().into_iter().map(|(ShardId(s), m)| (s.to_string(), m)));
        let me = self.identity().node;
        render(&groups, |m| m.leader == Some(me), out);
        let obstacles = self.obstacles();
        let count = |kind| obstacles.iter().filter(|(k, _)| *k == kind).count();
        render_obstacles(count, out);
    }
}

/// The metrics of a node with one group that has done nothing: for the reference.
pub fn render_example(out: &mut String) {
    let none = GroupMetrics {
        term: 0,
        leader: None,
        last_log: None,
        last_applied: 0,
        purged: None,
        checkpoint: None,
        voters: Vec::new(),
        learners: Vec::new(),
        queued_bytes: 0,
        followers: Vec::new(),
        quorum_ack_ms: None,
        stalled_ms: 0,
        stopped: None,
    };
    render(&[("metadata".to_owned(), none)], |_| false, out);
    render_obstacles(|_| 0, out);
}

fn render(groups: &[(String, GroupMetrics)], leads: impl Fn(&GroupMetrics) -> bool, out: &mut String) {
    let mut family = |name: &str, help: &str, value: &dyn Fn(&GroupMetrics) -> u64| {
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} gauge");
        for (group, m) in groups {
            let _ = writeln!(out, "{name}{{group=\"{group}\"}} {}", value(m));
        }
    };
    family("sextant_group_leads", "Whether this process leads the group.", &|m| u64::from(leads(m)));
    family("sextant_group_has_leader", "Whether the group has a leader.", &|m| u64::from(m.leader.is_some()));
    family("sextant_group_term", "Raft's term.", &|m| m.term);
    family("sextant_group_last_log_index", "Index of the last entry in the log.", &|m| {
        m.last_log.unwrap_or(0)
    });
    family("sextant_group_applied_index", "Index of the last entry committed and applied.", &|m| {
        m.last_applied
    });
    family(
        "sextant_group_lag_entries",
        "On the leader: entries that the slowest other member lacks.",
        &|m| m.followers.iter().map(|f| f.lag).max().unwrap_or(0),
    );
    family("sextant_group_queued_bytes", "Bytes of writes that wait or are on their way.", &|m| {
        m.queued_bytes
    });
    family(
        "sextant_group_stalled_milliseconds",
        "How long writes have waited while nothing was committed.",
        &|m| m.stalled_ms,
    );
}

fn render_obstacles(count: impl Fn(Obstacle) -> usize, out: &mut String) {
    let name = "sextant_node_obstacles";
    let _ = writeln!(out, "# HELP {name} What keeps the ingester from being ready.\n# TYPE {name} gauge");
    for kind in Obstacle::ALL {
        let _ = writeln!(out, "{name}{{reason=\"{}\"}} {}", kind.label(), count(kind));
    }
}
