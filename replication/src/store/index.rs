//! What the store knows in memory of each group: where its entries lie, and those not applied yet.
//!
//! Constraints: only what the sync mode calls durable is in here, so whatever can be read may be acknowledged. About 48
//! bytes an entry, which the log's size bound and batching keep small. The lock is never held over I/O.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;

use crate::{
    GroupId,
    store::files::SegmentFile,
    types::{Entry, LogId, Vote},
};

/// Where an entry lies.
#[derive(Debug, Clone)]
pub(crate) struct Slot {
    pub(crate) log_id: LogId,
    pub(crate) segment: Arc<SegmentFile>,
    pub(crate) offset: u32,
    pub(crate) bytes: u32,
    pub(crate) is_membership: bool,
}

/// A group's part of the log.
#[derive(Debug)]
pub(crate) struct GroupLog {
    pub(crate) id: GroupId,
    /// Whether a `Group` is open over it.
    pub(crate) in_use: AtomicBool,
    pub(crate) state: Mutex<GroupState>,
}

/// The lists are contiguous in the index: `slots` ends with the last entry, `cached` is a tail of the same entries.
#[derive(Debug, Default)]
pub(crate) struct GroupState {
    pub(crate) vote: Option<Vote>,
    pub(crate) committed: Option<LogId>,
    /// Whether `committed` is newer than what is written.
    pub(crate) committed_unwritten: bool,
    pub(crate) purged: Option<LogId>,
    slots: VecDeque<Slot>,
    cached: VecDeque<Entry>,
    cached_bytes: usize,
}

/// An entry whose place in the log contradicts the entries before it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("entry {index} follows entry {last}")]
pub(crate) struct OutOfOrder {
    index: u64,
    last: u64,
}

impl GroupLog {
    pub(crate) fn new(id: GroupId) -> Self {
        Self { id, in_use: AtomicBool::new(false), state: Mutex::new(GroupState::default()) }
    }
}

/// Payload bytes of all groups' cached entries, and their bound.
#[derive(Debug)]
pub(crate) struct CacheBudget {
    pub(crate) used: AtomicUsize,
    pub(crate) max: usize,
}

pub(crate) fn entry_bytes(entry: &Entry) -> usize {
    match &entry.payload {
        openraft::EntryPayload::Normal(batch) => batch.payload_bytes(),
        _ => 0,
    }
}

impl GroupState {
    pub(crate) fn first_index(&self) -> Option<u64> {
        self.slots.front().map(|s| s.log_id.index)
    }

    /// The last entry, or the last purged one when there is none.
    pub(crate) fn last_log_id(&self) -> Option<LogId> {
        self.slots.back().map(|s| s.log_id).or(self.purged)
    }

    pub(crate) fn slot(&self, index: u64) -> Option<&Slot> {
        let at = index.checked_sub(self.first_index()?)?;
        self.slots.get(usize::try_from(at).ok()?)
    }

    pub(crate) fn oldest_segment(&self) -> Option<u64> {
        self.slots.front().map(|s| s.segment.head.sequence)
    }

    /// Log ids of the entries that change the membership, from the newest.
    pub(crate) fn memberships_from_last(&self) -> impl Iterator<Item = LogId> + '_ {
        self.slots.iter().rev().filter(|s| s.is_membership).map(|s| s.log_id)
    }

    /// Adds an entry behind the last. With `entry` it is also cached as far as the budget allows.
    pub(crate) fn push(
        &mut self,
        slot: Slot,
        entry: Option<Entry>,
        budget: &CacheBudget,
    ) -> Result<(), OutOfOrder> {
        if let Some(last) = self.slots.back().map(|s| s.log_id.index)
            && slot.log_id.index != last + 1
        {
            return Err(OutOfOrder { index: slot.log_id.index, last });
        }
        slot.segment.live.fetch_add(1, Ordering::Relaxed);
        self.slots.push_back(slot);
        match entry {
            Some(entry) => self.cache(entry, budget),
            None => self.drop_cached(u64::MAX, budget),
        }
        Ok(())
    }

    fn cache(&mut self, entry: Entry, budget: &CacheBudget) {
        let bytes = entry_bytes(&entry);
        self.cached.push_back(entry);
        self.cached_bytes += bytes;
        let mut used = budget.used.fetch_add(bytes, Ordering::Relaxed) + bytes;
        // The oldest go first: what is applied next is then read from disk, in order, with the page cache's help.
        while used > budget.max && !self.cached.is_empty() {
            used = self.drop_oldest_cached(budget);
        }
    }

    fn drop_oldest_cached(&mut self, budget: &CacheBudget) -> usize {
        let bytes = self.cached.pop_front().map_or(0, |e| entry_bytes(&e));
        self.cached_bytes -= bytes;
        budget.used.fetch_sub(bytes, Ordering::Relaxed) - bytes
    }

    /// Drops cached entries up to `index`, because they are applied.
    pub(crate) fn drop_cached(&mut self, index: u64, budget: &CacheBudget) {
        while self.cached.front().is_some_and(|e| e.log_id.index <= index) {
            self.drop_oldest_cached(budget);
        }
    }

    pub(crate) fn cached(&self, index: u64) -> Option<&Entry> {
        let at = index.checked_sub(self.cached.front()?.log_id.index)?;
        self.cached.get(usize::try_from(at).ok()?)
    }

    /// Removes the entries from `index` on.
    pub(crate) fn truncate(&mut self, index: u64, budget: &CacheBudget) {
        while self.slots.back().is_some_and(|s| s.log_id.index >= index) {
            if let Some(slot) = self.slots.pop_back() {
                slot.segment.live.fetch_sub(1, Ordering::Relaxed);
            }
        }
        while self.cached.back().is_some_and(|e| e.log_id.index >= index) {
            let bytes = self.cached.pop_back().map_or(0, |e| entry_bytes(&e));
            self.cached_bytes -= bytes;
            budget.used.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    /// Removes the entries up to `upto`. When another entry is in its place, it is a checkpoint of the leader's that is being taken
    /// up: what follows was never committed, and goes as well.
    pub(crate) fn purge(&mut self, upto: LogId, budget: &CacheBudget) {
        if self.slot(upto.index).is_some_and(|s| s.log_id != upto) {
            self.truncate(upto.index, budget);
        }
        while self.slots.front().is_some_and(|s| s.log_id.index <= upto.index) {
            if let Some(slot) = self.slots.pop_front() {
                slot.segment.live.fetch_sub(1, Ordering::Relaxed);
            }
        }
        self.drop_cached(upto.index, budget);
        self.purged = self.purged.max(Some(upto));
    }

    /// Whether the entries begin right after what is purged. Checked once recovery has seen the whole log.
    pub(crate) fn gap(&self) -> Option<(u64, u64)> {
        let first = self.first_index()?;
        let expected = self.purged.map_or(0, |p| p.index + 1);
        (first != expected).then_some((expected, first))
    }
}
