//! Figures of a group: what `/ready`, `/metrics` and the driver of moves look at.

use openraft::ServerState;

use crate::{Group, Member, NodeId, StateMachine};

/// What a leader knows of another member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FollowerMetrics {
    /// The member.
    pub node: NodeId,
    /// Whether it has a vote; otherwise it is a learner.
    pub is_voter: bool,
    /// Index of the last entry known to be on its disk.
    pub matched: Option<u64>,
    /// Entries of the leader's log that it lacks, as far as is known.
    pub lag: u64,
}

/// Figures of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupMetrics {
    /// Raft's term.
    pub term: u64,
    /// The leader, as far as this node knows.
    pub leader: Option<NodeId>,
    /// Index of the last entry in the log.
    pub last_log: Option<u64>,
    /// Index of the last applied entry. An entry is applied as soon as it is known to be committed, so this is the commit
    /// position too.
    pub last_applied: u64,
    /// Index up to which the log is purged.
    pub purged: Option<u64>,
    /// Index of the last checkpoint.
    pub checkpoint: Option<u64>,
    /// Voters of the last known membership: of both sets, while it changes.
    pub voters: Vec<NodeId>,
    /// Members without a vote.
    pub learners: Vec<NodeId>,
    /// Payload bytes that wait or are on their way, rounded up to KiB each.
    pub queued_bytes: u64,
    /// The other members, on the leader; empty elsewhere.
    pub followers: Vec<FollowerMetrics>,
    /// On the leader: milliseconds since a majority last answered. Nothing before it first did.
    pub quorum_ack_ms: Option<u64>,
    /// Milliseconds for which proposals have been waiting here while the commit position stood still; 0 when none waits.
    pub stalled_ms: u64,
    /// Why the group stopped.
    pub stopped: Option<String>,
}

impl<S: StateMachine> Group<S> {
    /// Current figures.
    pub fn metrics(&self) -> GroupMetrics {
        let inner = &self.inner;
        let metrics = inner.raft.metrics();
        let m = metrics.borrow();
        let membership = m.membership_config.membership();
        let free = inner.queue_room.available_permits() as u64;
        let next = m.last_log_index.map_or(0, |i| i + 1);
        let voters: Vec<_> = membership.voter_ids().collect();
        let follower = |(&node, matched): (&NodeId, &Option<openraft::LogId<NodeId>>)| {
            let matched = matched.map(|l| l.index);
            let lag = next.saturating_sub(matched.map_or(0, |i| i + 1));
            FollowerMetrics { node, is_voter: voters.contains(&node), matched, lag }
        };
        let others = m.replication.iter().flatten().filter(|(id, _)| **id != inner.node);
        GroupMetrics {
            term: m.current_term,
            leader: m.current_leader,
            last_log: m.last_log_index,
            last_applied: self.last_applied(),
            purged: m.purged.map(|p| p.index),
            checkpoint: inner.progress.checkpoint().map(|c| c.index),
            learners: membership.learner_ids().collect(),
            queued_bytes: u64::from(inner.queue_permits).saturating_sub(free) * 1024,
            followers: others.map(follower).collect(),
            quorum_ack_ms: m.millis_since_quorum_ack.filter(|_| m.state == ServerState::Leader),
            stalled_ms: inner.desk.stalled_ms(&inner.progress),
            stopped: m.running_state.as_ref().err().map(ToString::to_string),
            voters,
        }
    }

    /// All members of the last known membership with their addresses, learners included.
    pub fn members(&self) -> Vec<(NodeId, Member)> {
        let metrics = self.inner.raft.server_metrics();
        let metrics = metrics.borrow();
        metrics.membership_config.membership().nodes().map(|(id, member)| (*id, member.clone())).collect()
    }
}
