//! What processes ask each other about the cluster: JSON, a request with its version and a reply or a refusal.
//!
//! A node reads every version up to its own and ignores fields that it does not know; it answers an unknown request with
//! [`Refusal::Failed`]. So nodes of two releases understand each other during an upgrade.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use sextant_replication::{ClusterId, NodeId, metadata};

use crate::status::NodeStatus;

/// Version of the messages.
pub const MESSAGE_VERSION: u32 = 1;

/// A request with what is needed to refuse it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Envelope {
    pub(crate) version: u32,
    pub(crate) cluster: ClusterId,
    pub(crate) request: Request,
}

/// What may be asked of an ingester.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Who is there, and does it know of a cluster?
    Hello,
    /// The metadata's state once its revision is above the one given, or after so many milliseconds whatever it is.
    State {
        /// The revision that the caller has; 0 for none.
        after: u64,
        /// The longest wait.
        wait_ms: u64,
    },
    /// Applies a command to the metadata, on its leader.
    Propose(metadata::Command),
    /// Acts on the node's replica of a shard.
    Shard {
        /// The shard.
        shard: u32,
        /// What to do.
        action: Action,
    },
    /// Opens a replica of the metadata that its leader will fill.
    OpenMetadata,
    /// What the node holds and how it is.
    Status,
}

/// See `sextant_replication::metadata::ShardAdmin`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// The group as its leader sees it.
    Status,
    /// Opens the group, to be filled by its leader.
    Open,
    /// Adds a member without a vote.
    AddLearner {
        /// The member.
        node: NodeId,
        /// Where it is reached.
        address: String,
    },
    /// Makes exactly these members the voters.
    ChangeVoters(BTreeSet<NodeId>),
    /// Takes a member out of the group.
    Remove(NodeId),
    /// Makes a voter the leader.
    Transfer(NodeId),
    /// Closes the group on this node.
    Close,
    /// Writes everything acknowledged before into blocks; on the leader.
    Flush,
}

/// An answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// To [`Request::Hello`].
    Hello {
        /// The node.
        node: NodeId,
        /// Whether it has a replica of a cluster's metadata.
        is_made: bool,
        /// The members of that replica's group.
        members: Vec<NodeId>,
    },
    /// To [`Request::State`].
    State(Box<metadata::State>),
    /// To [`Request::Propose`]: the revision, or a lease's token.
    Proposed(u64),
    /// To [`Action::Status`].
    Shard {
        /// The leader.
        leader: Option<NodeId>,
        /// Members with a vote.
        voters: BTreeSet<NodeId>,
        /// Members without.
        learners: BTreeSet<NodeId>,
    },
    /// To [`Action::AddLearner`]: how many entries it lacks.
    Learner {
        /// 0: it has caught up.
        lag: u64,
    },
    /// To [`Request::Status`].
    Status(Box<NodeStatus>),
    /// Done.
    Done,
}

/// Why something was not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// Another node leads.
    #[error("not the leader; the leader is at {0:?}")]
    NotLeader(Option<String>),
    /// The node does not have the shard, or no replica of the metadata.
    #[error("not on this node")]
    NotHere,
    /// The caller is of another cluster.
    #[error("that node is of cluster {0}")]
    OtherCluster(ClusterId),
    /// It may have been done. It may be asked again.
    #[error("it is unknown whether it was done: {0}")]
    Unknown(String),
    /// A command of the metadata was refused for good.
    #[error("{0}")]
    Refused(String),
    /// It was not done. It may be tried again.
    #[error("{0}")]
    Failed(String),
}

/// The body of an answer.
pub(crate) type Answer = Result<Reply, Refusal>;
