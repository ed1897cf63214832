//! The ids of the writes of the last minutes.
//!
//! Constraint: what is remembered depends on the batches' own clocks only, so every replica remembers alike.

use std::collections::VecDeque;

use foldhash::fast::RandomState;
use hashbrown::HashSet;

/// How long an id is remembered: longer than senders repeat a request without making it anew.
const REMEMBERED_MS: i64 = 300_000;

/// Bounds memory (some 50 MB) where a shard gets more than 3,000 batches a second.
const IDS_MAX: usize = 1 << 20;

/// See the module's documentation.
#[derive(Clone, Debug, Default)]
pub(crate) struct RecentWrites {
    order: VecDeque<(i64, u128)>,
    ids: HashSet<u128, RandomState>,
    newest_ms: i64,
}

impl RecentWrites {
    /// Whether an id is remembered.
    pub(crate) fn contains(&self, id: u128) -> bool {
        self.ids.contains(&id)
    }

    /// Remembers an id and forgets old ones.
    pub(crate) fn insert(&mut self, id: u128, now_ms: i64) {
        self.newest_ms = self.newest_ms.max(now_ms);
        if self.ids.insert(id) {
            self.order.push_back((now_ms, id));
        }
        let oldest = self.newest_ms.saturating_sub(REMEMBERED_MS);
        while let Some(&(at, id)) = self.order.front()
            && (at < oldest || self.order.len() > IDS_MAX)
        {
            self.order.pop_front();
            self.ids.remove(&id);
        }
    }

    /// Takes up the clock of a state that was saved.
    pub(crate) fn set_newest(&mut self, newest_ms: i64) {
        self.newest_ms = newest_ms;
    }

    /// The newest clock seen.
    pub(crate) fn newest_ms(&self) -> i64 {
        self.newest_ms
    }

    /// The ids in order of arrival, with their clocks.
    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = (i64, u128)> + '_ {
        self.order.iter().copied()
    }

    /// Bytes of memory.
    pub(crate) fn memory(&self) -> usize {
        self.order.capacity() * size_of::<(i64, u128)>() + self.ids.allocation_size()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_forgotten_after_minutes() {
        let mut r = RecentWrites::default();
        r.insert(1, 0);
        r.insert(2, 300_000);
        assert!(r.contains(1) && r.contains(2));
        r.insert(3, 300_001);
        assert!(!r.contains(1) && r.contains(2));
    }
}
