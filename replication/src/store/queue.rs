//! What reaches the writer thread, and the state that it shares with the handles.

use std::{
    collections::HashMap,
    fs::File,
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
        mpsc,
    },
    time::Instant,
};

use openraft::storage::LogFlushed;
use parking_lot::{Condvar, Mutex, RwLock};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::{
    GroupId, StoreError, StoreOptions,
    store::index::{CacheBudget, GroupLog},
    types::{Entry, LogId, TypeConfig, Vote},
};

/// Who waits for an operation.
pub(crate) enum Done {
    Raft(LogFlushed<TypeConfig>),
    Task(oneshot::Sender<Result<(), StoreError>>),
    Thread(mpsc::SyncSender<Result<(), StoreError>>),
}

impl Done {
    /// Reports the result. A waiter that is gone does not mind.
    pub(crate) fn complete(self, result: Result<(), StoreError>) {
        match self {
            Self::Raft(flushed) => flushed.log_io_completed(result.map_err(io::Error::other)),
            Self::Task(tx) => drop(tx.send(result)),
            Self::Thread(tx) => drop(tx.send(result)),
        }
    }
}

/// An operation for the writer thread. Operations of one group are done in their order.
pub(crate) enum Op {
    Append {
        group: Arc<GroupLog>,
        entries: Vec<Entry>,
        done: Done,
        _room: OwnedSemaphorePermit,
    },
    Vote {
        group: Arc<GroupLog>,
        vote: Vote,
        done: Done,
    },
    Truncate {
        group: Arc<GroupLog>,
        since: LogId,
        done: Done,
    },
    Purge {
        group: Arc<GroupLog>,
        upto: LogId,
        done: Done,
    },
    /// Syncs what is written, whatever the sync mode.
    Sync {
        done: Done,
    },
    /// Looks for disk space again.
    Retry,
    /// Syncs, marks the end and ends the thread.
    Close {
        done: Done,
    },
}

impl Op {
    pub(crate) fn fail(self, error: StoreError) {
        match self {
            Self::Append { done, .. }
            | Self::Vote { done, .. }
            | Self::Truncate { done, .. }
            | Self::Purge { done, .. }
            | Self::Sync { done }
            | Self::Close { done } => done.complete(Err(error)),
            Self::Retry => {}
        }
    }
}

#[derive(Default)]
struct Queue {
    ops: Vec<Op>,
    closed: bool,
}

/// Counts since the store was opened. Written by the writer thread and the readers, read by [`crate::LogStore::stats`].
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) records: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) writes: AtomicU64,
    pub(crate) syncs: AtomicU64,
    pub(crate) recycled: AtomicU64,
    pub(crate) allocated: AtomicU64,
    pub(crate) disk_reads: AtomicU64,
}

pub(crate) fn count(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

/// How long syncs took, in buckets of a second.
#[derive(Debug, Default)]
pub(crate) struct SyncTimes {
    /// Second (since the first sync) and slowest sync of it in microseconds.
    buckets: [(u64, u64); 10],
    first: Option<Instant>,
    under_way: Option<Instant>,
}

fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}

impl SyncTimes {
    pub(crate) fn begin(&mut self) {
        let now = Instant::now();
        self.first.get_or_insert(now);
        self.under_way = Some(now);
    }

    pub(crate) fn end(&mut self) {
        let (Some(began), second) = (self.under_way.take(), self.second()) else { return };
        let bucket = &mut self.buckets[(second % 10) as usize];
        if bucket.0 != second {
            *bucket = (second, 0);
        }
        bucket.1 = bucket.1.max(micros(began));
    }

    fn second(&self) -> u64 {
        self.first.map_or(0, |first| first.elapsed().as_secs())
    }

    /// The slowest of the last 10 seconds.
    pub(crate) fn max_us(&self) -> u64 {
        let now = self.second();
        let recent = self.buckets.iter().filter(|b| b.0 + 10 > now).map(|b| b.1);
        recent.chain(self.under_way.map(micros)).max().unwrap_or(0)
    }
}

/// What keeps the store from taking appends.
#[derive(Debug, Default)]
pub(crate) struct Health {
    pub(crate) poisoned: Option<String>,
    /// Why the last attempt to reserve a segment failed.
    pub(crate) no_space: Option<Arc<io::Error>>,
    /// Whether an entry was refused since.
    pub(crate) refused: bool,
}

impl Health {
    /// There is space for segments again; returns whether there was none.
    pub(crate) fn found_space(&mut self) -> bool {
        self.refused = false;
        self.no_space.take().is_some()
    }
}

pub(crate) struct Shared {
    pub(crate) options: StoreOptions,
    queue: Mutex<Queue>,
    wake: Condvar,
    /// One permit per KiB of `queue_bytes_max`.
    pub(crate) queue_room: Arc<Semaphore>,
    pub(crate) groups: RwLock<HashMap<GroupId, Arc<GroupLog>>>,
    pub(crate) budget: CacheBudget,
    pub(crate) counters: Counters,
    pub(crate) health: Mutex<Health>,
    pub(crate) sync_times: Mutex<SyncTimes>,
    /// Bytes that fit into the current segment and the spares.
    pub(crate) room: AtomicU64,
    /// Bytes of `room` promised to entries on their way through Raft.
    pub(crate) reserved: AtomicU64,
    pub(crate) segments: AtomicU64,
    pub(crate) spares: AtomicU64,
    /// The locked file; dropped when the store is closed.
    pub(crate) lock: Mutex<Option<File>>,
}

impl Shared {
    pub(crate) fn new(options: StoreOptions, lock: File) -> Self {
        let permits = (options.queue_bytes_max / 1024).clamp(1, Semaphore::MAX_PERMITS);
        Self {
            queue: Mutex::default(),
            wake: Condvar::new(),
            queue_room: Arc::new(Semaphore::new(permits)),
            groups: RwLock::default(),
            budget: CacheBudget { used: AtomicUsize::new(0), max: options.cache_bytes_max },
            counters: Counters::default(),
            health: Mutex::default(),
            sync_times: Mutex::default(),
            room: AtomicU64::new(0),
            reserved: AtomicU64::new(0),
            segments: AtomicU64::new(0),
            spares: AtomicU64::new(0),
            lock: Mutex::new(Some(lock)),
            options,
        }
    }

    /// Queues an operation; fails it when the store is closed.
    pub(crate) fn submit(&self, op: Op) {
        let mut queue = self.queue.lock();
        if queue.closed {
            drop(queue);
            return op.fail(StoreError::Closed);
        }
        queue.closed = matches!(op, Op::Close { .. });
        queue.ops.push(op);
        drop(queue);
        self.wake.notify_one();
    }

    /// Waits for operations and takes all of them; returns with none at the deadline.
    pub(crate) fn take(&self, deadline: Option<std::time::Instant>, into: &mut Vec<Op>) {
        let mut queue = self.queue.lock();
        while queue.ops.is_empty() {
            match deadline {
                None => self.wake.wait(&mut queue),
                Some(at) if self.wake.wait_until(&mut queue, at).timed_out() => break,
                Some(_) => {}
            }
        }
        std::mem::swap(&mut queue.ops, into);
    }

    /// Passes a fault point.
    pub(crate) fn hook(&self, point: &'static str) -> io::Result<()> {
        (self.options.fault_hook)(point)
    }
}
