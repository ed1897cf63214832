//! Between openraft and the state machine: applies entries, remembers up to where, and stands in for snapshots.
//!
//! Openraft purges its log only behind a snapshot. Here the state before a checkpoint is elsewhere (in blocks), so a
//! checkpoint's position is reported as the snapshot, and its content is never sent: a member that lags behind the purged log
//! cannot be brought up by this crate.

use std::{
    collections::VecDeque,
    io::Cursor,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use openraft::{
    AnyError, EntryPayload, OptionalSend, RaftSnapshotBuilder, Snapshot, SnapshotMeta, StorageIOError,
    storage::RaftStateMachine,
};
use parking_lot::Mutex;

use crate::{
    LogStore, Member, NodeId, StateMachine,
    checkpoint::Position,
    store::GroupLog,
    types::{Batch, Entry, LogId, Outputs, StorageError, StoredMembership, TypeConfig},
};

/// The state machine without its output type.
pub(crate) trait Erased: Send + Sync + 'static {
    fn apply_batch(&self, index: u64, batch: &Batch) -> Outputs;
}

impl<S: StateMachine> Erased for S {
    fn apply_batch(&self, index: u64, batch: &Batch) -> Outputs {
        let outputs: Vec<S::Output> = batch.0.iter().map(|payload| self.apply(index, payload)).collect();
        Outputs(Some(Box::new(outputs)))
    }
}

/// How far a group is applied; shared with its handle.
pub(crate) struct Progress {
    last_applied: AtomicU64,
    state: Mutex<ProgressState>,
}

struct ProgressState {
    last_applied: Option<LogId>,
    /// The membership at the checkpoint or the first one, then every later one that is applied.
    memberships: VecDeque<StoredMembership>,
    checkpoint: Option<Position>,
}

impl Progress {
    pub(crate) fn new(checkpoint: Option<Position>) -> Self {
        let last_applied = checkpoint.as_ref().map(|c| c.log_id);
        let membership = checkpoint.as_ref().map(|c| c.membership.clone()).unwrap_or_default();
        Self {
            last_applied: AtomicU64::new(last_applied.map_or(0, |l| l.index)),
            state: Mutex::new(ProgressState { last_applied, memberships: [membership].into(), checkpoint }),
        }
    }

    pub(crate) fn last_applied(&self) -> u64 {
        self.last_applied.load(Ordering::Acquire)
    }

    /// The log id of the last checkpoint.
    pub(crate) fn checkpoint(&self) -> Option<LogId> {
        self.state.lock().checkpoint.as_ref().map(|c| c.log_id)
    }

    /// The membership that was in force at `index`.
    pub(crate) fn membership_at(&self, index: u64) -> StoredMembership {
        let state = self.state.lock();
        let at = state.memberships.iter().rev().find(|m| m.log_id().is_none_or(|id| id.index <= index));
        at.cloned().unwrap_or_default()
    }

    pub(crate) fn set_checkpoint(&self, position: Position) {
        let mut state = self.state.lock();
        let next_is_older = |s: &ProgressState| {
            s.memberships.get(1).and_then(|m| *m.log_id()).is_some_and(|id| id.index <= position.log_id.index)
        };
        while next_is_older(&state) {
            state.memberships.pop_front();
        }
        state.checkpoint = Some(position);
    }
}

/// The state machine panicked at this entry.
#[derive(Debug, thiserror::Error)]
#[error("the state machine panicked at entry {}", .0.index)]
pub(crate) struct ApplyPanic(LogId);

/// Applies the entries of one group.
#[derive(Clone)]
pub(crate) struct Applier {
    pub(crate) store: LogStore,
    pub(crate) group: Arc<GroupLog>,
    pub(crate) machine: Arc<dyn Erased>,
    pub(crate) progress: Arc<Progress>,
}

impl Applier {
    /// Applies one entry, the next one. A panic of the state machine becomes an error, which stops the group.
    pub(crate) fn apply_entry(&self, entry: &Entry) -> Result<Outputs, ApplyPanic> {
        let index = entry.log_id.index;
        let outputs = match &entry.payload {
            EntryPayload::Blank => Outputs::default(),
            EntryPayload::Membership(membership) => {
                let stored = StoredMembership::new(Some(entry.log_id), membership.clone());
                self.progress.state.lock().memberships.push_back(stored);
                Outputs::default()
            }
            EntryPayload::Normal(batch) => {
                let applied = catch_unwind(AssertUnwindSafe(|| self.machine.apply_batch(index, batch)));
                applied.map_err(|_| ApplyPanic(entry.log_id))?
            }
        };
        self.progress.state.lock().last_applied = Some(entry.log_id);
        self.progress.last_applied.store(index, Ordering::Release);
        Ok(outputs)
    }

    fn snapshot(&self) -> Option<Snapshot<TypeConfig>> {
        let state = self.progress.state.lock();
        let position = state.checkpoint.as_ref()?;
        let meta = SnapshotMeta {
            last_log_id: Some(position.log_id),
            last_membership: position.membership.clone(),
            snapshot_id: format!("checkpoint-{}", position.log_id.index),
        };
        Some(Snapshot { meta, snapshot: Box::default() })
    }
}

impl RaftStateMachine<TypeConfig> for Applier {
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), StorageError> {
        let state = self.progress.state.lock();
        Ok((state.last_applied, state.memberships.back().cloned().unwrap_or_default()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Outputs>, StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let outputs: Result<Vec<_>, _> = entries.into_iter().map(|entry| self.apply_entry(&entry)).collect();
        let outputs = outputs.map_err(|e| StorageIOError::apply(e.0, AnyError::new(&e)))?;
        self.store.applied(&self.group, self.progress.last_applied());
        Ok(outputs)
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Cursor<Vec<u8>>>, StorageError> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta<NodeId, Member>,
        _: Box<Cursor<Vec<u8>>>,
    ) -> Result<(), StorageError> {
        let error = AnyError::error("checkpoints are not taken from other members");
        Err(StorageIOError::write_snapshot(Some(meta.signature()), error).into())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<TypeConfig>>, StorageError> {
        Ok(self.snapshot())
    }
}

impl RaftSnapshotBuilder<TypeConfig> for Applier {
    /// Reports the last checkpoint, which is on disk already.
    async fn build_snapshot(&mut self) -> Result<Snapshot<TypeConfig>, StorageError> {
        self.snapshot().ok_or_else(|| {
            let error = AnyError::error("the group has no checkpoint");
            StorageIOError::write_snapshot(None, error).into()
        })
    }
}
