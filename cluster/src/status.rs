//! What there is, who leads it, what lags and what moves: `sextant status`.

use std::{collections::BTreeMap, time::Duration};

use futures::future::join_all;
use serde::{Deserialize, Serialize};
use sextant_replication::{
    Group, GroupMetrics, NodeId, StateMachine,
    metadata::{INGESTER, MemberInfo, MemberState, State},
};

use crate::{
    client::ClusterClient,
    discovery::Discovery,
    message::{Reply, Request},
    presence::Presence,
};

/// A node that does not answer within this time is shown as unreachable.
const PATIENCE: Duration = Duration::from_secs(2);

/// A replica of a group, as its node sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaStatus {
    /// The group's leader.
    pub leader: Option<NodeId>,
    /// Raft's term.
    pub term: u64,
    /// Index of the last entry in its log.
    pub last_log: u64,
    /// Index of the last applied entry.
    pub applied: u64,
    /// Index of its last checkpoint.
    pub checkpoint: u64,
    /// Members with a vote.
    pub voters: Vec<NodeId>,
    /// Members without.
    pub learners: Vec<NodeId>,
    /// On the leader: entries that each other member lacks.
    pub lag: BTreeMap<NodeId, u64>,
    /// Milliseconds for which proposals have waited while the commit position stood still.
    pub stalled_ms: u64,
    /// Why the group has stopped.
    pub stopped: Option<String>,
}

impl ReplicaStatus {
    pub(crate) fn of<S: StateMachine>(group: &Group<S>) -> Self {
        let m: GroupMetrics = group.metrics();
        Self {
            leader: m.leader,
            term: m.term,
            last_log: m.last_log.unwrap_or(0),
            applied: m.last_applied,
            checkpoint: m.checkpoint.unwrap_or(0),
            lag: m.followers.iter().map(|f| (f.node, f.lag)).collect(),
            voters: m.voters,
            learners: m.learners,
            stalled_ms: m.stalled_ms,
            stopped: m.stopped,
        }
    }
}

/// What a node holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// The program's version.
    pub version: String,
    /// Its replica of the metadata.
    pub metadata: Option<ReplicaStatus>,
    /// Its replicas of shards.
    pub shards: BTreeMap<u32, ReplicaStatus>,
    /// On the metadata's leader: what moves, and why it does not.
    pub moving: Vec<String>,
    /// Bytes of its log.
    pub log_bytes: u64,
    /// Why its log takes nothing.
    pub refuses: Option<String>,
}

/// A member with what it says.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MemberStatus {
    /// Its number.
    pub node: NodeId,
    /// What it says of itself.
    #[serde(flatten)]
    pub info: MemberInfo,
    /// Where it is in its life.
    pub state: MemberState,
    /// Whether it answered.
    pub reachable: bool,
    /// Shards that it holds by the placement.
    pub holds: usize,
    /// Shards that it leads by its own account.
    pub leads: usize,
    /// What it holds; `None` where it did not answer.
    pub status: Option<NodeStatus>,
}

/// A shard.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ShardStatus {
    /// The shard.
    pub shard: u32,
    /// Its voters by the placement, the preferred leader first.
    pub replicas: Vec<NodeId>,
    /// Who leads it.
    pub leader: Option<NodeId>,
    /// Entries that each of the others lacks, by the leader's account.
    pub lag: BTreeMap<NodeId, u64>,
}

/// The cluster at one moment.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ClusterStatus {
    /// Its id; `None` where there is no cluster yet.
    pub cluster: Option<String>,
    /// The metadata's revision.
    pub revision: u64,
    /// Replicas that each shard should have.
    pub replication: u32,
    /// Who leads the metadata.
    pub metadata_leader: Option<NodeId>,
    /// Ingesters, without those that left.
    pub members: Vec<MemberStatus>,
    /// Other processes.
    pub processes: Vec<MemberInfo>,
    /// Shards.
    pub shards: Vec<ShardStatus>,
    /// What moves.
    pub moving: Vec<String>,
}

/// Asks every ingester.
pub async fn collect(discovery: &Discovery, client: &ClusterClient) -> ClusterStatus {
    let state = discovery.state();
    let here = |m: &&sextant_replication::metadata::MemberRecord| {
        m.info.role == INGESTER && m.state != MemberState::Left
    };
    let members: Vec<_> = state.members.iter().filter(|(_, m)| here(m)).collect();
    let asked = members.iter().map(|(_, m)| client.call(&m.info.address, Request::Status, PATIENCE));
    let answers = join_all(asked).await;
    let statuses: BTreeMap<NodeId, NodeStatus> = members
        .iter()
        .zip(answers)
        .filter_map(|((node, _), answer)| match answer {
            Ok(Reply::Status(status)) => Some((**node, *status)),
            _ => None,
        })
        .collect();
    summary(&state, statuses)
}

fn summary(state: &State, mut statuses: BTreeMap<NodeId, NodeStatus>) -> ClusterStatus {
    let shards: Vec<_> = state
        .shards
        .iter()
        .map(|(&shard, record)| {
            let replicas = statuses.iter().filter_map(|(node, s)| Some((*node, s.shards.get(&shard)?)));
            let leader = replicas.filter(|(node, r)| r.leader == Some(*node)).max_by_key(|(_, r)| r.term);
            ShardStatus {
                shard,
                replicas: record.replicas.clone(),
                leader: leader.map(|(node, _)| node),
                lag: leader.map(|(_, r)| r.lag.clone()).unwrap_or_default(),
            }
        })
        .collect();
    let metadata = statuses.iter().filter_map(|(node, s)| Some((*node, s.metadata.as_ref()?)));
    let leader = metadata.filter(|(node, m)| m.leader == Some(*node)).max_by_key(|(_, m)| m.term);
    let metadata_leader = leader.map(|(node, _)| node);
    let moving = metadata_leader.and_then(|n| statuses.get(&n)).map(|s| s.moving.clone()).unwrap_or_default();
    let member = |(node, m): (&NodeId, &sextant_replication::metadata::MemberRecord)| MemberStatus {
        node: *node,
        info: m.info.clone(),
        state: m.state,
        reachable: statuses.contains_key(node),
        holds: state.shards.values().filter(|s| s.replicas.contains(node)).count(),
        leads: shards.iter().filter(|s| s.leader == Some(*node)).count(),
        status: statuses.remove(node),
    };
    let here = |m: &sextant_replication::metadata::MemberRecord| {
        m.info.role == INGESTER && m.state != MemberState::Left
    };
    let members = state.members.iter().filter(|(_, m)| here(m)).map(member).collect();
    ClusterStatus {
        cluster: state.cluster.map(|c| c.id.to_string()),
        revision: state.revision,
        replication: state.cluster.map_or(0, |c| c.replication),
        metadata_leader,
        members,
        processes: Presence::present(state),
        shards,
        moving,
    }
}
