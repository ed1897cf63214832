//! Between openraft and the state machine: applies entries, remembers up to where, and presents checkpoints as snapshots.
//!
//! Openraft purges its log only behind a snapshot, and sends one to a member that needs entries which are purged. Here the state
//! before a checkpoint is elsewhere (in blocks), so the checkpoint file is the snapshot. A received one is on disk
//! before it comes here ([`crate::group`]), because openraft purges the log without waiting for its installation.

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;

use openraft::{
    AnyError, EntryPayload, OptionalSend, RaftSnapshotBuilder, Snapshot, SnapshotMeta, StorageIOError,
    storage::RaftStateMachine,
};
use parking_lot::Mutex;

use crate::{
    LogStore, Member, NodeId, RestoreError, StateMachine,
    checkpoint::{self, Position},
    store::GroupLog,
    types::{Batch, Entry, LogId, Outputs, StorageError, StoredMembership, TypeConfig},
};

/// The state machine without its output type.
pub(crate) trait Erased: Send + Sync + 'static {
    fn apply_batch(&self, index: u64, batch: &Batch) -> Outputs;
    fn restore_checkpoint(&self, index: u64, app: &[u8]) -> Result<(), RestoreError>;
}

impl<S: StateMachine> Erased for S {
    fn apply_batch(&self, index: u64, batch: &Batch) -> Outputs {
        let outputs: Vec<S::Output> = batch.0.iter().map(|payload| self.apply(index, payload)).collect();
        Outputs(Some(Box::new(outputs)))
    }

    fn restore_checkpoint(&self, index: u64, app: &[u8]) -> Result<(), RestoreError> {
        self.restore(index, app)
    }
}

/// How far a group is applied; shared with its handle.
pub(crate) struct Progress {
    last_applied: AtomicU64,
    opened: tokio::time::Instant,
    /// When an entry was last applied, in milliseconds since `opened`.
    advanced_ms: AtomicU64,
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
            opened: tokio::time::Instant::now(),
            advanced_ms: AtomicU64::new(0),
            state: Mutex::new(ProgressState { last_applied, memberships: [membership].into(), checkpoint }),
        }
    }

    pub(crate) fn last_applied(&self) -> u64 {
        self.last_applied.load(Ordering::Acquire)
    }

    /// Time since the group was opened, or this was made, in milliseconds.
    pub(crate) fn now_ms(&self) -> u64 {
        self.opened.elapsed().as_millis() as u64
    }

    /// When an entry was last applied, on the scale of [`Progress::now_ms`].
    pub(crate) fn advanced_ms(&self) -> u64 {
        self.advanced_ms.load(Ordering::Relaxed)
    }

    fn advance(&self, state: &mut ProgressState, log_id: LogId) {
        state.last_applied = Some(log_id);
        self.last_applied.store(log_id.index, Ordering::Release);
        self.advanced_ms.store(self.now_ms(), Ordering::Relaxed);
    }

    /// The state was replaced by a checkpoint's.
    fn reset(&self, position: Position) {
        let mut state = self.state.lock();
        state.memberships = [position.membership.clone()].into();
        self.advance(&mut state, position.log_id);
        state.checkpoint = Some(position);
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
        self.progress.advance(&mut self.progress.state.lock(), entry.log_id);
        Ok(outputs)
    }

    /// Replaces the state by a checkpoint's that is on disk already.
    fn restore(&self, file: &Bytes) -> Result<Position, String> {
        let (position, app) = checkpoint::decode(file, self.group.id)?;
        let index = position.log_id.index;
        let restored = catch_unwind(AssertUnwindSafe(|| self.machine.restore_checkpoint(index, &app)));
        restored.map_err(|_| "the state machine panicked".to_owned())?.map_err(|e| e.to_string())?;
        (self.store.options().fault_hook)("checkpoint.after_restore").map_err(|e| e.to_string())?;
        Ok(position)
    }
}

/// A checkpoint as openraft's snapshot.
pub(crate) fn snapshot(position: &Position, file: Bytes) -> Snapshot<TypeConfig> {
    let meta = SnapshotMeta {
        last_log_id: Some(position.log_id),
        last_membership: position.membership.clone(),
        snapshot_id: format!("checkpoint-{}", position.log_id.index),
    };
    Snapshot { meta, snapshot: Box::new(file) }
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

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Bytes>, StorageError> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta<NodeId, Member>,
        file: Box<Bytes>,
    ) -> Result<(), StorageError> {
        let failed = |reason: String| {
            let error = AnyError::error(format!("taking up the leader's checkpoint: {reason}"));
            StorageError::from(StorageIOError::write_snapshot(Some(meta.signature()), error))
        };
        let applier = self.clone();
        let restored = tokio::task::spawn_blocking(move || applier.restore(&file)).await;
        let position = restored.map_err(|e| failed(e.to_string()))?.map_err(failed)?;
        tracing::info!(
            group = %self.group.id, index = position.log_id.index,
            "lagged behind the purged log and took up the leader's checkpoint"
        );
        self.progress.reset(position);
        self.store.applied(&self.group, self.progress.last_applied());
        Ok(())
    }

    /// Read from disk for every member that needs it: that is rare, and memory is not.
    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<TypeConfig>>, StorageError> {
        let (store, group) = (self.store.clone(), self.group.id);
        let read = tokio::task::spawn_blocking(move || checkpoint::read_file(store.dir(), group)).await;
        let failed = |e: AnyError| StorageError::from(StorageIOError::read_snapshot(None, e));
        let found = read.map_err(|e| failed(AnyError::new(&e)))?.map_err(|e| failed(AnyError::new(&e)))?;
        Ok(found.map(|(position, _, file)| snapshot(&position, file)))
    }
}

impl RaftSnapshotBuilder<TypeConfig> for Applier {
    /// Reports the last checkpoint, which is on disk already; openraft looks at its position only.
    async fn build_snapshot(&mut self) -> Result<Snapshot<TypeConfig>, StorageError> {
        let state = self.progress.state.lock();
        state.checkpoint.as_ref().map(|position| snapshot(position, Bytes::new())).ok_or_else(|| {
            let error = AnyError::error("the group has no checkpoint");
            StorageIOError::write_snapshot(None, error).into()
        })
    }
}
