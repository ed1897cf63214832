//! Commands as they are in the log.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{ClusterId, NodeId, metadata::MemberState};

/// Version of the commands that this program writes, and the newest that it reads.
const VERSION: u32 = 1;

/// What a member says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MemberInfo {
    /// Name for people, unique among the members.
    pub name: String,
    /// Where its gRPC listener is, for Raft and between roles.
    pub address: String,
    /// Other listeners, by what they serve (`http`, …).
    #[serde(default)]
    pub addresses: BTreeMap<String, String>,
    /// Failure domain; empty where there are none.
    #[serde(default)]
    pub zone: String,
    /// What it does; [`super::INGESTER`] holds shards.
    pub role: String,
    /// Its share of the shards relative to others; 0 counts as 1.
    #[serde(default)]
    pub capacity: u32,
}

/// A change of the metadata.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// Makes the cluster. May be repeated by every node that starts; the replication factor of the first one counts.
    Init {
        /// The deployment.
        cluster: ClusterId,
        /// Number of shards, for ever.
        shards: u32,
        /// Replicas of each shard.
        replication: u32,
    },
    /// Changes the replication factor.
    SetReplication {
        /// Replicas of each shard.
        replication: u32,
    },
    /// A node joins (as `joining`) or says something new of itself (its state stays). One that left joins again.
    Register {
        /// The node.
        node: NodeId,
        /// What it says of itself.
        info: MemberInfo,
    },
    /// A member goes on in its life.
    SetMemberState {
        /// The node.
        node: NodeId,
        /// Its new state.
        state: MemberState,
    },
    /// Records who holds a shard, after its group was changed (or, from nothing, so that the nodes make it).
    SetReplicas {
        /// The shard.
        shard: u32,
        /// What must be recorded now.
        expected: Vec<NodeId>,
        /// What is recorded from now on; the first is preferred as the leader.
        replicas: Vec<NodeId>,
    },
    /// Sets or deletes a value.
    Put {
        /// Part of the key space: `tenants`, `limits`, `rules`, …
        namespace: String,
        /// The key.
        key: String,
        /// The value's revision must be this; 0: there must be none; nothing: whatever it is.
        expected: Option<u64>,
        /// The value, or nothing to delete it.
        value: Option<String>,
    },
    /// Takes or prolongs a lease. The result is its token.
    Claim {
        /// What is claimed.
        name: String,
        /// By whom.
        holder: String,
        /// For how long, in milliseconds.
        ttl_ms: u64,
        /// The proposer's clock, in milliseconds since 1970.
        now_ms: u64,
    },
    /// Gives a lease back. Nothing happens when somebody else has it.
    Release {
        /// What was claimed.
        name: String,
        /// By whom.
        holder: String,
    },
}

/// Why a command changed nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// What was expected is not so any more. Read again, then try again.
    #[error("changed meanwhile (revision {found})")]
    Conflict {
        /// The revision found; 0 when there is no value.
        found: u64,
    },
    /// Somebody else has the lease.
    #[error("held by {holder} until {expires_ms}")]
    Held {
        /// Who.
        holder: String,
        /// Until when, in milliseconds since 1970.
        expires_ms: u64,
    },
    /// There is no such member or shard.
    #[error("no such member or shard")]
    NotFound,
    /// [`Command::Init`] comes first.
    #[error("the cluster is not made yet")]
    NotMade,
    /// The cluster was made with other settings.
    #[error("the cluster is {id} with {shards} shards already")]
    AlreadyMade {
        /// Its id.
        id: ClusterId,
        /// Its number of shards.
        shards: u32,
    },
    /// Over a bound.
    #[error("{bytes} bytes, the limit is {max}")]
    TooLarge {
        /// What it would be.
        bytes: u64,
        /// The bound.
        max: u64,
    },
    /// The command makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// A command of a newer program is in the log. This member applies nothing from there on: it must be upgraded.
    #[error("command version {0} is newer than this program")]
    Unsupported(u32),
}

#[derive(Serialize)]
struct Written<'a> {
    version: u32,
    command: &'a Command,
}

#[derive(Deserialize)]
struct Version {
    version: u32,
}

#[derive(Deserialize)]
struct Read {
    command: Command,
}

impl Command {
    /// The command as a payload.
    pub fn encode(&self) -> Result<Bytes, CommandError> {
        let written = serde_json::to_vec(&Written { version: VERSION, command: self });
        written.map(Bytes::from).map_err(|e| CommandError::Invalid(e.to_string()))
    }

    /// The command of a payload.
    pub fn decode(payload: &[u8]) -> Result<Self, CommandError> {
        let invalid = |e: serde_json::Error| CommandError::Invalid(format!("not a command: {e}"));
        let Version { version } = serde_json::from_slice(payload).map_err(invalid)?;
        if version > VERSION {
            return Err(CommandError::Unsupported(version));
        }
        serde_json::from_slice::<Read>(payload).map(|read| read.command).map_err(invalid)
    }
}
