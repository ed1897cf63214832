//! The metadata's group: opening it, changing it, keeping its log short.

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;

use crate::{
    CheckpointError, Group, GroupOptions, LogStore, Member, NodeId, OpenError, ProposeError, ReadError,
    metadata::{Command, CommandError, METADATA_GROUP, MetadataMachine, State},
};

/// Settings of the metadata's group.
#[derive(Debug, Clone)]
pub struct MetadataOptions {
    /// Of the Raft group.
    pub group: GroupOptions,
    /// Commands after which a checkpoint is made. Default 1000.
    pub checkpoint_commands: u64,
    /// Bytes of commands after which a checkpoint is made. Default 4 MiB.
    pub checkpoint_bytes: u64,
}

impl Default for MetadataOptions {
    fn default() -> Self {
        Self { group: GroupOptions::default(), checkpoint_commands: 1000, checkpoint_bytes: 4 << 20 }
    }
}

/// The metadata was not changed, or it is not known whether it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MetadataError {
    /// Another member leads: ask it.
    #[error("not the leader of the metadata; the leader is {leader:?}")]
    NotLeader {
        /// The leader and where it is, where known.
        leader: Option<(NodeId, Member)>,
    },
    /// It is unknown whether the command was applied. Commands may be repeated: they say what is expected.
    #[error("it is unknown whether the command was applied: {0}")]
    Unknown(String),
    /// The command was refused.
    #[error(transparent)]
    Refused(#[from] CommandError),
    /// The group or its log takes nothing.
    #[error("the metadata takes no changes: {0}")]
    Unavailable(String),
}

impl From<ProposeError> for MetadataError {
    fn from(error: ProposeError) -> Self {
        match error {
            ProposeError::NotLeader { leader } => Self::NotLeader { leader },
            ProposeError::Unknown(reason) => Self::Unknown(reason),
            other => Self::Unavailable(other.to_string()),
        }
    }
}

/// A member of the metadata's group. Clones are handles of the same.
#[derive(Clone)]
pub struct MetadataGroup {
    group: Group<MetadataMachine>,
    options: Arc<MetadataOptions>,
}

impl MetadataGroup {
    /// Opens the group on a node. Add [`MetadataGroup::group`] to the node's [`crate::transport::RaftService`], and run
    /// [`MetadataGroup::run_checkpoints`].
    pub async fn open(store: &LogStore, node: NodeId, options: MetadataOptions) -> Result<Self, OpenError> {
        let group = Group::open(store, METADATA_GROUP, node, Arc::default(), options.group.clone()).await?;
        Ok(Self { group, options: Arc::new(options) })
    }

    /// The Raft group.
    pub fn group(&self) -> &Group<MetadataMachine> {
        &self.group
    }

    /// The newest state that this member has.
    pub fn state(&self) -> Arc<State> {
        self.group.state_machine().state()
    }

    /// The newest state, and every later one. States may be skipped.
    pub fn watch(&self) -> watch::Receiver<Arc<State>> {
        self.group.state_machine().watch()
    }

    /// A state that has every change that was acknowledged before the call, on any member.
    pub async fn read(&self) -> Result<Arc<State>, ReadError> {
        self.group.read_index().await?;
        Ok(self.state())
    }

    /// Applies a command, on the leader. Gives the new revision, or the token of a lease.
    ///
    /// Each command is an entry of its own, so that a checkpoint's index says which commands it has.
    pub async fn propose(&self, command: &Command) -> Result<u64, MetadataError> {
        Ok(self.group.propose_alone(command.encode()?).await??)
    }

    /// Makes a checkpoint now, unless there is nothing new.
    pub async fn checkpoint(&self) -> Result<(), CheckpointError> {
        let Some((index, app)) = self.group.state_machine().checkpoint() else { return Ok(()) };
        match self.group.checkpoint(index, app).await {
            // The leader's was taken up meanwhile.
            Err(CheckpointError::Backwards { .. }) => Ok(()),
            result => result,
        }
    }

    /// Makes checkpoints by number and size of the commands, until the group stops.
    pub async fn run_checkpoints(&self) {
        let mut watch = self.watch();
        while self.group.is_running() {
            // A refused command changes nothing, but it is in the log as well.
            let _ = tokio::time::timeout(Duration::from_secs(10), watch.changed()).await;
            let (commands, bytes) = self.group.state_machine().since_checkpoint();
            if commands < self.options.checkpoint_commands && bytes < self.options.checkpoint_bytes {
                continue;
            }
            if let Err(error) = self.checkpoint().await {
                tracing::warn!(%error, "no checkpoint of the metadata was made");
            }
        }
    }
}
