//! A generation of the head: the rows of the log entries in `(start, end]`.
//!
//! Constraint: written while it is the active one; immutable from its seal on. Its epoch is its number, and a series ref
//! means something in its epoch only.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Instant,
};

use bytes::Bytes;
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use parking_lot::RwLock;
use sextant_model::TenantId;

use super::tenant::TenantHead;

/// How a generation ended.
#[derive(Clone, Debug)]
pub(crate) struct Seal {
    position: u64,
    checkpoint: Bytes,
}

/// See the module's documentation.
pub struct Generation {
    epoch: u64,
    start: u64,
    seal: OnceLock<Seal>,
    released: OnceLock<Instant>,
    began: OnceLock<Instant>,
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

    /// The state to restore before replaying the entries after its end.
    pub fn checkpoint(&self) -> Option<Bytes> {
        self.seal.get().map(|s| s.checkpoint.clone())
    }

    /// Bytes of memory, by count of what was allocated.
    pub fn memory(&self) -> usize {
        self.memory.load(Ordering::Relaxed)
    }

    /// Samples of both kinds.
    pub fn samples(&self) -> u64 {
        self.samples.load(Ordering::Relaxed)
    }

    /// When its first write was applied on this node.
    pub fn began(&self) -> Option<Instant> {
        self.began.get().copied()
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

    pub(crate) fn add_tenant(&self, id: TenantId) -> Arc<TenantHead> {
        let head = Arc::new(TenantHead::new(id.clone()));
        self.tenants.write().insert(id.as_str().into(), head.clone());
        head
    }

    pub(crate) fn count(&self, memory: usize, memory_before: usize, samples: u64) {
        self.began.get_or_init(Instant::now);
        if memory >= memory_before {
            self.memory.fetch_add(memory - memory_before, Ordering::Relaxed);
        } else {
            self.memory.fetch_sub(memory_before - memory, Ordering::Relaxed);
        }
        self.samples.fetch_add(samples, Ordering::Relaxed);
    }

    pub(crate) fn seal(&self, position: u64, checkpoint: Bytes) {
        let _ = self.seal.set(Seal { position, checkpoint });
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
