//! One group's view of the log store, as openraft wants it.

use std::{
    fmt::Debug,
    ops::{Bound, RangeBounds},
    sync::Arc,
};

use openraft::{
    AnyError, LogState, OptionalSend, RaftLogReader, StorageIOError,
    storage::{LogFlushed, RaftLogStorage},
};

use crate::{
    LogStore, StoreError, SyncMode,
    store::GroupLog,
    types::{Entry, LogId, StorageError, TypeConfig, Vote},
};

/// Bytes of one request to a follower.
const REPLICATED_BYTES_MAX: usize = 4 << 20;

#[derive(Clone)]
pub(crate) struct RaftLog {
    pub(crate) store: LogStore,
    pub(crate) group: Arc<GroupLog>,
}

fn read_error(e: &StoreError) -> StorageError {
    StorageIOError::read_logs(AnyError::new(e)).into()
}

fn write_error(e: &StoreError) -> StorageError {
    StorageIOError::write_logs(AnyError::new(e)).into()
}

impl RaftLogReader<TypeConfig> for RaftLog {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, StorageError> {
        let start = match range.start_bound() {
            Bound::Included(&n) => n,
            Bound::Excluded(&n) => n + 1,
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(&n) => n + 1,
            Bound::Excluded(&n) => n,
            Bound::Unbounded => u64::MAX,
        };
        self.store.read(&self.group, start..end, usize::MAX).await.map_err(|e| read_error(&e))
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, StorageError> {
        let read = self.store.read(&self.group, start..end, REPLICATED_BYTES_MAX).await;
        let mut entries = read.map_err(|e| read_error(&e))?;
        // Entries purged meanwhile must not leave a hole in a request; openraft goes on with a checkpoint.
        if entries.first().is_some_and(|e| e.log_id.index != start) {
            entries.clear();
        }
        Ok(entries)
    }
}

impl RaftLogStorage<TypeConfig> for RaftLog {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, StorageError> {
        let state = self.group.state.lock();
        Ok(LogState { last_purged_log_id: state.purged, last_log_id: state.last_log_id() })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        self.store.save_vote(&self.group, *vote).await.map_err(|e| write_error(&e))
    }

    /// In relaxed mode the end of the log may be lost. Taking up leadership again in the same term could then give two
    /// entries one log id, so the vote comes back uncommitted, and the node has to be elected in a new term.
    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        let relaxed = self.store.options().sync != SyncMode::Always;
        let (vote, last) = {
            let state = self.group.state.lock();
            (state.vote, state.last_log_id())
        };
        // A checkpoint is taken up on a task of its own, so a crash may leave one of a leader whose vote is not on disk yet.
        // That leader was elected, or there were no checkpoint of its term: its vote may be taken as seen.
        let elected = last.map(|l| Vote::new_committed(l.leader_id.term, l.leader_id.node_id));
        Ok(match (vote, elected) {
            (Some(vote), Some(elected)) if vote.leader_id < elected.leader_id => Some(elected),
            (vote, _) => vote,
        }
        .map(|v| Vote { committed: v.committed && !relaxed, ..v }))
    }

    /// Written along with the next records of the group: it only saves work after a restart, never a record of its own.
    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), StorageError> {
        let mut state = self.group.state.lock();
        if committed > state.committed {
            state.committed = committed;
            state.committed_unwritten = true;
        }
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, StorageError> {
        let state = self.group.state.lock();
        // It was written before the records that a crash in relaxed mode took away, or after a truncated end.
        Ok(state.committed.min(state.last_log_id()))
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<TypeConfig>) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries = entries.into_iter().collect();
        self.store.append(&self.group, entries, callback).await;
        Ok(())
    }

    async fn truncate(&mut self, log_id: LogId) -> Result<(), StorageError> {
        self.store.truncate(&self.group, log_id).await.map_err(|e| write_error(&e))
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), StorageError> {
        self.store.purge(&self.group, log_id).await.map_err(|e| write_error(&e))
    }
}
