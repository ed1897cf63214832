//! The log store of a node: all of its groups in one log.
//!
//! # Constraints
//!
//! * One log for all groups, so that one sync serves whatever has come in from any of them.
//! * An acknowledged record survives a crash at any point and is never skipped in silence: what is missing or damaged is an error
//!   that names the file and the offset.
//! * Files are preallocated and recycled: overwriting blocks that exist costs half of what growing a file does.
//! * A recycled file is full of old records, and none may ever be taken for a new one ([`crate::record`]).
//! * Memory: the index, the entries not applied yet (bounded), one segment while opening.
//! * Sectors (512 bytes) are written as a whole or not at all; a new record may share one with an acknowledged record.
//!
//! # Format
//!
//! A folder of segments ([`files`]), each a head and records ([`crate::segment`], [`crate::record`]). A segment begins
//! with vote, purge and commit position of every group, so that older segments matter only for their entries. It is
//! released when no group has entries in it or in an older one.
//!
//! # Recovery
//!
//! See [`recovery`].

mod entry;
mod files;
mod index;
mod queue;
mod recovery;
mod space;
mod writer;

use std::{
    ops::Range,
    os::unix::fs::FileExt as _,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
        mpsc,
    },
    thread,
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::{
    GroupId, ProposeError, StoreError, StoreOptions, record,
    types::{Entry, LogId, Vote},
};
use index::{CacheBudget, Slot};
pub(crate) use index::{GroupLog, entry_bytes};
use queue::{Done, Op, Shared, count};

/// Handle of the node's log store. Clones are handles of the same store, which is closed with the last of them or by
/// [`LogStore::close`].
#[derive(Clone)]
pub struct LogStore {
    owner: Arc<Owner>,
}

struct Owner {
    shared: Arc<Shared>,
    writer: Mutex<Option<thread::JoinHandle<()>>>,
}

/// Figures of a store, counted since it was opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Segments in use, the current one included.
    pub segments: u64,
    /// Bytes of their files.
    pub log_bytes: u64,
    /// Files kept for reuse.
    pub spare_segments: u64,
    /// Records written.
    pub records: u64,
    /// Bytes of them.
    pub record_bytes: u64,
    /// Vectored writes.
    pub writes: u64,
    /// `fdatasync` calls for records.
    pub syncs: u64,
    /// Segments taken back for reuse.
    pub recycled: u64,
    /// Segments newly allocated.
    pub allocated: u64,
    /// Payload bytes of entries kept in memory because they are not applied yet.
    pub cached_bytes: u64,
    /// Entries read back from disk.
    pub disk_reads: u64,
    /// The group that keeps the oldest segment in use: a checkpoint of it lets the log shrink.
    pub pinned_by: Option<GroupId>,
    /// The slowest `fdatasync` of the last 10 seconds in microseconds, the one under way included.
    pub sync_us_max: u64,
    /// Why the store takes no appends.
    pub poisoned: Option<String>,
    /// Why no further segment can be reserved.
    pub no_space: Option<String>,
}

/// Where an entry comes from.
enum Source {
    Memory(Entry),
    Disk(Slot),
}

/// Space promised to an entry on its way through Raft; given back when dropped.
pub(crate) struct Reservation {
    shared: Arc<Shared>,
    bytes: u64,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.shared.reserved.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Why there is no space for an entry.
pub(crate) enum NoRoom {
    Disk(String),
    Log { bytes: u64, max: u64, pinned_by: Option<GroupId> },
}

impl LogStore {
    /// Opens or creates the log of `options.dir` and locks the folder. Blocks while it reads the log, one segment at a time.
    pub fn open(options: StoreOptions) -> Result<Self, StoreError> {
        const SEGMENT_BYTES_MIN: u32 = 32 << 10;
        if options.segment_bytes < SEGMENT_BYTES_MIN {
            let e = std::io::Error::other(format!("segments must have at least {SEGMENT_BYTES_MIN} bytes"));
            return Err(StoreError::io("opening the log", e));
        }
        let lock = files::lock(&options.dir)?;
        let budget = CacheBudget { used: AtomicUsize::new(0), max: options.cache_bytes_max };
        let found = recovery::recover(&options, &budget)?;
        let shared = Arc::new(Shared::new(options, lock));
        *shared.groups.write() = found.groups;
        let space = space::Space::new(found.spares);
        let writer = writer::Writer::new(Arc::clone(&shared), found.segments, found.position, space);
        let thread = thread::Builder::new().name("log-writer".to_owned()).spawn(move || writer.run());
        let thread = thread.map_err(|e| StoreError::io("starting the log's writer thread", e))?;
        Ok(Self { owner: Arc::new(Owner { shared, writer: Mutex::new(Some(thread)) }) })
    }

    /// Syncs what is written and releases the folder. Groups should be shut down before: their appends fail from now on.
    /// Blocks for the sync.
    pub fn close(&self) -> Result<(), StoreError> {
        self.owner.close()
    }

    /// Waits until everything written so far is on disk, also in relaxed mode.
    pub async fn sync(&self) -> Result<(), StoreError> {
        self.wait(|done| Op::Sync { done }).await
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.shared().options.dir
    }

    /// Ids of the groups that the log knows.
    pub fn groups(&self) -> Vec<GroupId> {
        let mut ids: Vec<_> = self.shared().groups.read().keys().copied().collect();
        ids.sort_unstable();
        ids
    }

    /// Current figures.
    pub fn stats(&self) -> StoreStats {
        let shared = self.shared();
        let c = &shared.counters;
        let get = |n: &AtomicU64| n.load(Ordering::Relaxed);
        let (poisoned, no_space) = {
            let health = shared.health.lock();
            (health.poisoned.clone(), health.no_space.as_ref().map(ToString::to_string))
        };
        StoreStats {
            segments: get(&shared.segments),
            log_bytes: self.log_bytes(),
            spare_segments: get(&shared.spares),
            records: get(&c.records),
            record_bytes: get(&c.bytes),
            writes: get(&c.writes),
            syncs: get(&c.syncs),
            recycled: get(&c.recycled),
            allocated: get(&c.allocated),
            cached_bytes: shared.budget.used.load(Ordering::Relaxed) as u64,
            disk_reads: get(&c.disk_reads),
            pinned_by: self.pinned_by(),
            sync_us_max: shared.sync_times.lock().max_us(),
            poisoned,
            no_space,
        }
    }

    /// Why entries are refused: the log failed, or an entry was refused for lack of disk space and there still is none.
    /// In the latter case this also looks for space again, so that a log to which nobody writes finds out that there is some.
    pub fn refuses(&self) -> Option<String> {
        let health = self.shared().health.lock();
        if health.poisoned.is_some() {
            return health.poisoned.clone();
        }
        let no_space = health.no_space.as_ref().filter(|_| health.refused)?;
        let reason = ProposeError::DiskFull(no_space.to_string()).to_string();
        drop(health);
        self.shared().submit(Op::Retry);
        Some(reason)
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.owner.shared
    }

    fn log_bytes(&self) -> u64 {
        self.shared().segments.load(Ordering::Relaxed) * u64::from(self.shared().options.segment_bytes)
    }

    fn pinned_by(&self) -> Option<GroupId> {
        let groups = self.shared().groups.read();
        let oldest = groups.values().filter_map(|g| Some((g.state.lock().oldest_segment()?, g.id)));
        oldest.min().map(|(_, id)| id)
    }

    // --- for the groups

    pub(crate) fn options(&self) -> &StoreOptions {
        &self.shared().options
    }

    /// The group's part of the log, empty for a new group.
    pub(crate) fn group(&self, id: GroupId) -> Arc<GroupLog> {
        let mut groups = self.shared().groups.write();
        Arc::clone(groups.entry(id).or_insert_with(|| Arc::new(GroupLog::new(id))))
    }

    pub(crate) fn poisoned(&self) -> Option<String> {
        self.shared().health.lock().poisoned.clone()
    }

    /// Promises space for an entry of `bytes`, or says what is full. A seal may use the last of it: it lets the log shrink.
    pub(crate) fn reserve(&self, bytes: usize, is_seal: bool) -> Result<Reservation, NoRoom> {
        let shared = self.shared();
        let options = &shared.options;
        if !is_seal && self.log_bytes() > options.log_bytes_max {
            let (bytes, max) = (self.log_bytes(), options.log_bytes_max);
            return Err(NoRoom::Log { bytes, max, pinned_by: self.pinned_by() });
        }
        let bytes = record::record_bytes(bytes) as u64;
        let reserved = shared.reserved.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let reservation = Reservation { shared: Arc::clone(shared), bytes };
        let no_space = shared.health.lock().no_space.as_ref().map(ToString::to_string);
        if let Some(reason) = no_space {
            let kept = if is_seal { 0 } else { u64::from(options.segment_bytes / 8) };
            if reserved + kept > shared.room.load(Ordering::Relaxed) {
                shared.health.lock().refused = true;
                shared.submit(Op::Retry);
                return Err(NoRoom::Disk(reason));
            }
        }
        Ok(reservation)
    }

    /// Appends entries; `done` is called when they are durable.
    pub(crate) async fn append(
        &self,
        group: &Arc<GroupLog>,
        entries: Vec<Entry>,
        done: openraft::storage::LogFlushed<crate::TypeConfig>,
    ) {
        let shared = self.shared();
        let bytes: usize = entries.iter().map(index::entry_bytes).sum();
        // An append larger than the whole queue waits for all of it, and then goes alone.
        let all = (shared.options.queue_bytes_max / 1024).clamp(1, u32::MAX as usize);
        let permits = (bytes / 1024 + 1).min(all) as u32;
        let done = Done::Raft(done);
        match Arc::clone(&shared.queue_room).acquire_many_owned(permits).await {
            Ok(_room) => shared.submit(Op::Append { group: Arc::clone(group), entries, done, _room }),
            Err(_) => done.complete(Err(StoreError::Closed)),
        }
    }

    pub(crate) async fn save_vote(&self, group: &Arc<GroupLog>, vote: Vote) -> Result<(), StoreError> {
        self.wait(|done| Op::Vote { group: Arc::clone(group), vote, done }).await
    }

    pub(crate) async fn truncate(&self, group: &Arc<GroupLog>, since: LogId) -> Result<(), StoreError> {
        self.wait(|done| Op::Truncate { group: Arc::clone(group), since, done }).await
    }

    pub(crate) async fn purge(&self, group: &Arc<GroupLog>, upto: LogId) -> Result<(), StoreError> {
        self.wait(|done| Op::Purge { group: Arc::clone(group), upto, done }).await
    }

    async fn wait(&self, op: impl FnOnce(Done) -> Op) -> Result<(), StoreError> {
        let (tx, rx) = oneshot::channel();
        self.shared().submit(op(Done::Task(tx)));
        rx.await.unwrap_or(Err(StoreError::Closed))
    }

    /// Drops entries from memory that are applied.
    pub(crate) fn applied(&self, group: &GroupLog, index: u64) {
        group.state.lock().drop_cached(index, &self.shared().budget);
    }

    /// Entries of a range in order, as many as exist, and not many more than `bytes_max`, but at least one. Only what is
    /// not in memory is read from disk, on another thread.
    pub(crate) async fn read(
        &self,
        group: &Arc<GroupLog>,
        range: Range<u64>,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        let sources = sources(group, range, bytes_max);
        if sources.iter().all(|s| matches!(s, Source::Memory(_))) {
            return self.load(group, sources);
        }
        let (store, group) = (self.clone(), Arc::clone(group));
        let read = tokio::task::spawn_blocking(move || store.load(&group, sources));
        read.await.unwrap_or(Err(StoreError::Closed))
    }

    /// The same for a thread that may block.
    pub(crate) fn read_blocking(
        &self,
        group: &GroupLog,
        range: Range<u64>,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        self.load(group, sources(group, range, bytes_max))
    }

    fn load(&self, group: &GroupLog, sources: Vec<Source>) -> Result<Vec<Entry>, StoreError> {
        let mut entries = Vec::with_capacity(sources.len());
        for source in sources {
            let slot = match source {
                Source::Memory(entry) => {
                    entries.push(entry);
                    continue;
                }
                Source::Disk(slot) => slot,
            };
            count(&self.shared().counters.disk_reads, 1);
            match read_slot(group.id, &slot) {
                Ok(entry) => entries.push(entry),
                // The file was recycled while it was read, because the entry was purged: it does not exist any more.
                Err(_) if group.state.lock().slot(slot.log_id.index).is_none() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(entries)
    }
}

fn sources(group: &GroupLog, range: Range<u64>, bytes_max: usize) -> Vec<Source> {
    let state = group.state.lock();
    let (Some(first), Some(last)) = (state.first_index(), state.last_log_id()) else { return Vec::new() };
    let mut bytes = 0;
    let mut found = Vec::new();
    for index in range.start.max(first)..range.end.min(last.index + 1) {
        let Some(slot) = state.slot(index) else { break };
        bytes += slot.bytes as usize;
        if bytes > bytes_max && !found.is_empty() {
            break;
        }
        let cached = state.cached(index).cloned();
        found.push(cached.map_or_else(|| Source::Disk(slot.clone()), Source::Memory));
    }
    found
}

fn read_slot(group: GroupId, slot: &Slot) -> Result<Entry, StoreError> {
    let segment = &slot.segment;
    let mut buffer = vec![0u8; slot.bytes as usize];
    let read = segment.file.read_exact_at(&mut buffer, u64::from(slot.offset));
    read.map_err(|e| StoreError::io(format!("reading {}", segment.path.display()), e))?;
    let buffer = Bytes::from(buffer);
    let damaged = |reason: String| StoreError::Corrupt {
        file: segment.path.clone(),
        offset: u64::from(slot.offset),
        reason,
    };
    let found = record::decode(&buffer, segment.head.seal()).map_err(|bad| damaged(bad.to_string()))?;
    let body = buffer.slice(record::HEAD_BYTES..record::HEAD_BYTES + found.body.len());
    let entry =
        entry::decode(&found, &body).filter(|e| found.head.group == group.0 && e.log_id == slot.log_id);
    entry.ok_or_else(|| damaged(format!("not entry {} of group {group}", slot.log_id)))
}

impl Owner {
    fn close(&self) -> Result<(), StoreError> {
        let Some(thread) = self.writer.lock().take() else { return Ok(()) };
        let (tx, rx) = mpsc::sync_channel(1);
        self.shared.submit(Op::Close { done: Done::Thread(tx) });
        let result = rx.recv().unwrap_or(Err(StoreError::Closed));
        self.shared.queue_room.close();
        // A panic of the writer was reported by the thread itself.
        let _ = thread.join();
        result
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::warn!(%error, "the log was not closed in order; it is checked when it is opened");
        }
    }
}

/// Decodes a whole segment as recovery would, and one whose first record is these bytes, sealed; for fuzzing. Never
/// panics, whatever the bytes.
#[doc(hidden)]
pub fn fuzz_decode_segment(bytes: &[u8]) {
    use crate::{
        record::fuzz_sealed,
        segment::{SEGMENT_HEAD_BYTES, SegmentHead, scan},
    };
    let unknown = SegmentHead { sequence: 1, nonce: 0, bytes: 0 };
    let walk = |bytes: &[u8]| {
        let head = SegmentHead::decode(bytes).unwrap_or(unknown);
        let _ = scan(bytes, head.seal(), |offset, found| {
            assert!(offset >= SEGMENT_HEAD_BYTES && offset + found.bytes() <= bytes.len());
            let _ = entry::decode(&found, &Bytes::copy_from_slice(found.body));
            Ok::<_, std::convert::Infallible>(())
        });
    };
    walk(bytes);
    if let Some(record) = fuzz_sealed(bytes, unknown.seal()) {
        walk(&[&[0; SEGMENT_HEAD_BYTES][..], &record].concat());
    }
}
