//! Identities, and the types that openraft is instantiated with.

use std::{any::Any, fmt, sync::Arc};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// A replicated group of this deployment: a shard of the ingesters, or the metadata group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct GroupId(pub u64);

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A node, the same in all of its groups. A node that lost its disk is another node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct NodeId(pub u64);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// What the members know about each other.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Member {
    /// Where the member's gRPC listener is; empty for a member that is alone.
    pub address: String,
}

/// The payloads of one Raft entry. Cloning copies no payload.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Batch(pub Arc<[Bytes]>);

impl Batch {
    /// What each payload costs in a record beside its bytes.
    pub(crate) const LENGTH_BYTES: usize = 4;

    /// Bytes of all payloads.
    pub fn payload_bytes(&self) -> usize {
        self.0.iter().map(Bytes::len).sum()
    }
}

/// What applying one entry gave: a `Vec<S::Output>` in the order of the payloads, or nothing for an entry that openraft
/// made for itself.
///
/// It is type-erased so that openraft is compiled once, in this crate, and not once per state machine.
#[derive(Default)]
pub struct Outputs(pub(crate) Option<Box<dyn Any + Send + Sync>>);

openraft::declare_raft_types!(
    /// The one instantiation of openraft.
    pub TypeConfig:
        D = Batch,
        R = Outputs,
        NodeId = NodeId,
        Node = Member,
        Entry = openraft::Entry<TypeConfig>,
        SnapshotData = Bytes,
);

pub(crate) type Entry = openraft::Entry<TypeConfig>;
pub(crate) type LogId = openraft::LogId<NodeId>;
pub(crate) type Vote = openraft::Vote<NodeId>;
pub(crate) type Membership = openraft::Membership<NodeId, Member>;
pub(crate) type StoredMembership = openraft::StoredMembership<NodeId, Member>;
pub(crate) type StorageError = openraft::StorageError<NodeId>;
