//! Errors of the ingester. What a write or a read can fail with is `sextant_proto::ShardError`.

use std::{io, path::PathBuf};

use sextant_proto::{
    ErrorClass, ShardError,
    fault::InjectedFault,
    rpc::{Leader, LocalError},
};
use sextant_replication::{
    CheckpointError, Member, NodeId, OpenError as GroupError, ProposeError, ReadError, StoreError,
};
use sextant_storage::StorageError;

use crate::shard::Shard;

/// The ingester did not start. A person must act.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The number of shards is fixed when a data folder is first used.
    #[error(
        "{file} was made with ingester.shards={found}; it cannot be opened with ingester.shards={configured}"
    )]
    ShardsChanged {
        /// The file that has the number.
        file: PathBuf,
        /// The number in it.
        found: String,
        /// The configured number.
        configured: u32,
    },
    /// There must be a shard.
    #[error("ingester.shards must be at least 1")]
    NoShards,
    /// A file or folder could not be read or written.
    #[error("{file}: {source}")]
    Io {
        /// The file.
        file: PathBuf,
        /// The error.
        source: io::Error,
    },
    /// The log did not open.
    #[error(transparent)]
    Log(#[from] StoreError),
    /// A shard's group did not open.
    #[error(transparent)]
    Group(#[from] GroupError),
    /// A new log must know what the manifests cover, and the object store did not say.
    #[error("a new log must begin behind what is in blocks: {0}")]
    Storage(#[from] StorageError),
    /// The first entry of a new log was not written.
    #[error("beginning the log: {0}")]
    Begin(#[from] ProposeError),
    /// The shard is open on this node already.
    #[error("shard {0} is open already")]
    AlreadyOpen(u32),
    /// The task that opens the log ended early.
    #[error("opening the log: {0}")]
    Task(#[from] tokio::task::JoinError),
}

/// A flush did not get to its end. Nothing is lost: the rows stay in memory and in the log, and the flush is repeated.
#[derive(Debug, thiserror::Error)]
pub enum FlushError {
    /// The object store or a manifest refused.
    #[error("shard {shard}, tenant {tenant}: {source}")]
    Storage {
        /// The shard.
        shard: u32,
        /// The tenant.
        tenant: String,
        /// The error.
        source: StorageError,
    },
    /// A seal or its end could not be written to the log.
    #[error("shard {shard}: {source}")]
    Log {
        /// The shard.
        shard: u32,
        /// The error.
        source: ProposeError,
    },
    /// It was not confirmed that this member still leads.
    #[error("shard {shard}: {source}")]
    Barrier {
        /// The shard.
        shard: u32,
        /// The error.
        source: ReadError,
    },
    /// The checkpoint could not be written; the flush itself is done.
    #[error("shard {shard}: {source}")]
    Checkpoint {
        /// The shard.
        shard: u32,
        /// The error.
        source: CheckpointError,
    },
    /// A test asked for it.
    #[error(transparent)]
    Fault(#[from] InjectedFault),
    /// The task that writes a block ended early.
    #[error("writing a block: {0}")]
    Task(#[from] tokio::task::JoinError),
    /// The manifest covers entries that the log does not have: the log's disk was set back. What is written now would be
    /// taken for rows that are in blocks. A person must act: empty the data folder, or restore the newer one.
    #[error(
        "shard {shard}, tenant {tenant}: the manifest covers log position {covered}, but the log ends at {position}: \
         the log is an older one"
    )]
    LogSetBack {
        /// The shard.
        shard: u32,
        /// The tenant.
        tenant: String,
        /// What the manifest covers.
        covered: u64,
        /// Where the log ends.
        position: u64,
    },
    /// Another member leads the shard and flushes it.
    #[error("shard {shard} is led by another member")]
    NotLeader {
        /// The shard.
        shard: u32,
    },
}

impl FlushError {
    /// What the caller must do.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Storage { source, .. } => source.class(),
            Self::LogSetBack { .. } => ErrorClass::Internal,
            _ => ErrorClass::Unavailable,
        }
    }
}

/// What the caller of a shard is told when its entry did not get into the log.
pub(crate) fn refused(shard: &Shard, error: ProposeError) -> LocalError {
    LocalError::Shard(match error {
        ProposeError::NotLeader { leader } => return led_elsewhere(shard, leader),
        ProposeError::LogFull { bytes, max, .. } => ShardError::Overloaded(format!(
            "the log holds {bytes} bytes, the limit is {max}; it shrinks with the next flush"
        )),
        ProposeError::TooLarge { .. } => ShardError::Malformed(error.to_string()),
        _ => ShardError::Unavailable(error.to_string()),
    })
}

/// The same for a read that the leader's barrier did not let pass.
pub(crate) fn unready(shard: &Shard, error: ReadError) -> LocalError {
    match error {
        ReadError::NotLeader { leader } => led_elsewhere(shard, leader),
        other => LocalError::Shard(ShardError::Unavailable(other.to_string())),
    }
}

fn led_elsewhere(shard: &Shard, leader: Option<(NodeId, Member)>) -> LocalError {
    let leader = leader.map(|(node, member)| Leader { node: node.0, address: member.address });
    LocalError::NotLeader { leader, term: shard.group.metrics().term }
}
