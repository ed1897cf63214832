//! Errors, classed by what the caller has to do.

use std::{io, path::PathBuf, sync::Arc};

use crate::{GroupId, Member, NodeId};

/// The log store could not be opened, read or written.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// Another process, or another store of this process, has the folder open.
    #[error("log folder {dir} is in use by process {pid}; two instances must not share a folder")]
    InUse {
        /// The folder.
        dir: PathBuf,
        /// The owner's process id as written in its lock file (`?` when it could not be read).
        pid: String,
    },
    /// Acknowledged bytes are damaged. Nothing was changed; a person has to restore the file or give up the data.
    #[error("log is damaged: {file} at offset {offset}: {reason}")]
    Corrupt {
        /// The segment file.
        file: PathBuf,
        /// Byte offset of the first bad record, or of the header.
        offset: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// Written by a newer version of this program, or by something else.
    #[error("{file} has format version {found}, this program reads version {supported}")]
    Version {
        /// The segment file.
        file: PathBuf,
        /// Version in the file.
        found: u32,
        /// Version of this program.
        supported: u32,
    },
    /// The operating system refused. After a failed write or sync the store takes no more appends until it is reopened.
    #[error("{what}: {source}")]
    Io {
        /// What was being done, with the file's name.
        what: String,
        /// The error.
        source: Arc<io::Error>,
    },
    /// No space for another segment. Nothing of the append was written; it may be tried again.
    #[error("no disk space for another log segment in {dir}: {source}")]
    DiskFull {
        /// The log's folder.
        dir: PathBuf,
        /// The error.
        source: Arc<io::Error>,
    },
    /// A write or a sync failed earlier. What was acknowledged is safe, nothing can be added until the store is reopened.
    #[error("the log takes no writes until it is reopened: {0}")]
    Poisoned(String),
    /// One record is larger than a segment can hold.
    #[error("a log record of {bytes} bytes does not fit a segment (at most {max})")]
    TooLarge {
        /// Bytes of the record.
        bytes: usize,
        /// The largest record.
        max: usize,
    },
    /// The store was closed.
    #[error("the log store is closed")]
    Closed,
}

impl StoreError {
    pub(crate) fn io(what: impl Into<String>, source: io::Error) -> Self {
        Self::Io { what: what.into(), source: Arc::new(source) }
    }
}

/// The state machine could not take up a checkpoint.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct RestoreError(pub String);

/// A group could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The log store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The checkpoint file is damaged or cannot be read.
    #[error("checkpoint {file}: {reason}")]
    Checkpoint {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The log was purged, so the state before it must come from a checkpoint, and there is none.
    #[error("group {group}: the log begins after index {purged}, but {file} ends at {covered:?}")]
    CheckpointMissing {
        /// The group.
        group: GroupId,
        /// The last purged index.
        purged: u64,
        /// The expected file.
        file: PathBuf,
        /// Index that the checkpoint covers.
        covered: Option<u64>,
    },
    /// The state machine refused the checkpoint.
    #[error("group {group}: restoring from the checkpoint: {source}")]
    Restore {
        /// The group.
        group: GroupId,
        /// Its reason.
        source: RestoreError,
    },
    /// Group with this id is already open on this store.
    #[error("group {0} is already open")]
    AlreadyOpen(GroupId),
    /// Raft did not start.
    #[error("group {group}: {reason}")]
    Raft {
        /// The group.
        group: GroupId,
        /// What openraft said.
        reason: String,
    },
}

/// A payload was not applied, or it is not known whether it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Another member leads, or nobody does at the moment. Not applied, and will not be: propose it at the leader.
    #[error("not the leader; the leader is {leader:?}")]
    NotLeader {
        /// The leader and where it is, as far as this node knows. Nothing when this node leads but has lost its majority.
        leader: Option<(NodeId, Member)>,
    },
    /// Not applied, and will never be: split it.
    #[error("a payload of {bytes} bytes is larger than a log entry can hold ({max})")]
    TooLarge {
        /// Bytes of the payload.
        bytes: usize,
        /// The largest payload.
        max: usize,
    },
    /// Not applied: the log reached its bound because some group has not made a checkpoint. Try again after one.
    #[error("the log holds {bytes} bytes, the limit is {max}; {pinned_by:?} has not released its part")]
    LogFull {
        /// Bytes of the segments in use.
        bytes: u64,
        /// `StoreOptions::log_bytes_max`.
        max: u64,
        /// The group that has entries in the oldest segment.
        pinned_by: Option<GroupId>,
    },
    /// Not applied: there is no disk space for another segment. Try again later.
    #[error("no disk space left for the log: {0}")]
    DiskFull(String),
    /// **Unknown** whether it is or will be committed: the log failed, or this node lost its leadership or its majority while the
    /// payload was on its way. A retry, at whoever leads then, must carry the id that the state machine recognises. The
    /// group has to be reopened when `Group::is_running` is false.
    #[error("it is unknown whether the payload was committed: {0}")]
    Unknown(String),
    /// Not applied: the group stopped earlier because of this error. It has to be reopened, perhaps the store as well.
    #[error("the group has stopped: {0}")]
    Stopped(String),
    /// Not applied: the group was shut down.
    #[error("the group is shut down")]
    ShutDown,
}

/// A checkpoint was not made, or it was but the log could not be purged.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// Only what is applied can be in a checkpoint.
    #[error("index {index} is not applied yet (last applied: {applied})")]
    NotApplied {
        /// The index asked for.
        index: u64,
        /// Last applied index.
        applied: u64,
    },
    /// A later checkpoint exists; going back would need entries that are purged.
    #[error("index {index} is before the last checkpoint at {last}")]
    Backwards {
        /// The index asked for.
        index: u64,
        /// Index of the last checkpoint.
        last: u64,
    },
    /// The file could not be written. The previous checkpoint is still valid.
    #[error("writing {file}: {source}")]
    Io {
        /// The file.
        file: PathBuf,
        /// The error.
        source: io::Error,
    },
    /// The log could not be read or purged.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The checkpoint is durable, but Raft has stopped; the log is purged when the group is opened again.
    #[error("the group has stopped: {0}")]
    Stopped(String),
}

/// A change of members was not made, or not to its end. It may be tried again, and then continues.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MembershipError {
    /// Another member leads: ask it.
    #[error("not the leader; the leader is {leader:?}")]
    NotLeader {
        /// The leader and where it is, where known.
        leader: Option<(NodeId, Member)>,
    },
    /// Another change is on its way. Try again later.
    #[error("another change of members is not finished: {0}")]
    InProgress(String),
    /// The change is impossible: no voter would remain, or a voter is not known by address.
    #[error("impossible change of members: {0}")]
    Invalid(String),
    /// The change is in the log but a majority did not confirm it in time. It may take effect later.
    #[error("a majority did not confirm the change within {0:?}")]
    TimedOut(std::time::Duration),
    /// The group has stopped.
    #[error("the group has stopped: {0}")]
    Stopped(String),
}

/// Leadership was not handed over. The group goes on with the leader that it has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransferError {
    /// Another member leads: ask it.
    #[error("not the leader; the leader is {leader:?}")]
    NotLeader {
        /// The leader and where it is, where known.
        leader: Option<(NodeId, Member)>,
    },
    /// The node has no vote in the group.
    #[error("node {0} is not a voter of the group")]
    NotVoter(NodeId),
    /// The node did not catch up in time.
    #[error("node {node} lacks {lag} entries")]
    Lagging {
        /// The node.
        node: NodeId,
        /// Entries that it lacks.
        lag: u64,
    },
    /// The node was asked and did not become the leader in time.
    #[error("node {node} did not become the leader: {reason}")]
    Failed {
        /// The node.
        node: NodeId,
        /// What it said.
        reason: String,
    },
}

/// No linearizable read is possible here and now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Another member leads: ask it.
    #[error("not the leader; the leader is {leader:?}")]
    NotLeader {
        /// The leader and where it is, where known.
        leader: Option<(NodeId, Member)>,
    },
    /// A majority did not confirm that this node still leads, or the leader did not answer. Try again.
    #[error("leadership was not confirmed: {0}")]
    Unconfirmed(String),
    /// The group has stopped.
    #[error("the group has stopped: {0}")]
    Stopped(String),
}
