//! A generation of the head: the rows of the log entries in `(start, end]`.
//!
//! Constraint: written while it is the active one; immutable from its seal on. Its epoch is its number, and a series ref
//! means something in its epoch only.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use parking_lot::RwLock;
use sextant_model::TenantId;

use super::tenant::TenantHead;

const AGE_BELIEVED_MAX: Duration = Duration::from_secs(24 * 3600);

/// How a generation ended.
#[derive(Clone, Debug)]
pub(crate) struct Seal {
    position: u64,
    index: u64,
    checkpoint: Bytes,
}

/// See the module's documentation.
pub struct Generation {
    epoch: u64,
    start: u64,
    seal: OnceLock<Seal>,
    released: OnceLock<Instant>,
    /// When the first write was applied here, and when the distributor had taken it (milliseconds since the epoch).
    began: OnceLock<(Instant, i64)>,
    tenants: RwLock<HashMap<Box<str>, Arc<TenantHead>, RandomState>>,
    memory: AtomicUsize,
    samples: AtomicU64,
}

impl Generation {
    pub(crate) fn new(epoch: u64, start: u64) -> Self {
        Self {
            epoch,
            start,
            seal: OnceLock::new(),
            released: OnceLock::new(),
            began: OnceLock::new(),
            tenants: RwLock::default(),
            memory: AtomicUsize::new(0),
            samples: AtomicU64::new(0),
        }
    }

    /// The generation's number.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The position before its first entry.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// The position of the seal; `None` while it takes writes.
    pub fn end(&self) -> Option<u64> {
        self.seal.get().map(|s| s.position)
    }

    /// The log index of the seal, and the state to restore before replaying the entries after it.
    pub fn checkpoint(&self) -> Option<(u64, Bytes)> {
        self.seal.get().map(|s| (s.index, s.checkpoint.clone()))
    }

    /// Bytes of memory, by count of what was allocated.
    pub fn memory(&self) -> usize {
        let order: usize = self.tenants.read().values().map(|t| t.order.heap_bytes()).sum();
        self.memory.load(Ordering::Relaxed) + order
    }

    /// Samples of both kinds.
    pub fn samples(&self) -> u64 {
        self.samples.load(Ordering::Relaxed)
    }

    /// Time since its first write; `None` while there is none.
    ///
    /// After a replay it counts from when the distributor took the write. A clock that is more than a day off is not believed.
    pub fn age(&self) -> Option<Duration> {
        let (applied, taken_ms) = self.began.get()?;
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64);
        let by_clock = u64::try_from(now_ms.saturating_sub(*taken_ms)).ok().map(Duration::from_millis);
        let by_clock = by_clock.filter(|age| *age <= AGE_BELIEVED_MAX);
        Some(applied.elapsed().max(by_clock.unwrap_or_default()))
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.tenants.read().is_empty()
    }

    /// Whether it holds entries after a position.
    pub(crate) fn is_after(&self, position: u64) -> bool {
        self.end().is_none_or(|end| end > position)
    }

    /// Tenants with rows, in order.
    pub fn tenants(&self) -> Vec<Arc<TenantHead>> {
        let mut all: Vec<_> = self.tenants.read().values().cloned().collect();
        all.sort_by(|a, b| a.id().cmp(b.id()));
        all
    }

    /// A tenant's rows.
    pub fn tenant(&self, id: &str) -> Option<Arc<TenantHead>> {
        self.tenants.read().get(id).cloned()
    }

    /// Adds a tenant whose first rows are those of the entry at a position.
    pub(crate) fn add_tenant(&self, id: TenantId, position: u64) -> Arc<TenantHead> {
        let head = Arc::new(TenantHead::new(id.clone(), position));
        self.tenants.write().insert(id.as_str().into(), head.clone());
        head
    }

    pub(crate) fn count(&self, memory: usize, memory_before: usize, samples: u64, now_ms: i64) {
        self.began.get_or_init(|| (Instant::now(), now_ms));
        if memory >= memory_before {
            self.memory.fetch_add(memory - memory_before, Ordering::Relaxed);
        } else {
            self.memory.fetch_sub(memory_before - memory, Ordering::Relaxed);
        }
        self.samples.fetch_add(samples, Ordering::Relaxed);
    }

    pub(crate) fn add_memory(&self, bytes: usize) {
        self.memory.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn seal(&self, position: u64, index: u64, checkpoint: Bytes) {
        let _ = self.seal.set(Seal { position, index, checkpoint });
    }

    /// Its rows are in blocks; it is kept for queries that began before.
    pub(crate) fn release(&self) {
        self.released.get_or_init(Instant::now);
    }

    /// When it was released.
    pub fn released(&self) -> Option<Instant> {
        self.released.get().copied()
    }
}
