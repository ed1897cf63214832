//! The writer thread: the only one that writes to the log.
//!
//! It takes whatever operations have come in from all groups, writes their records with one vectored write, syncs once, and
//! only then updates the index and completes the waiters. No lock is held over a write or a sync.
//!
//! A *chunk* is what is written at once; it never crosses a segment. Before a chunk of the next segment is written, the previous
//! segment got its `End` record and a sync. After a failed write or sync the thread fails every later operation:
//! the kernel may have dropped the dirty pages, so another sync that succeeds would prove nothing.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    ops::Range,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use bytes::Bytes;

use crate::{
    StoreError, SyncMode,
    record::{self, HEAD_BYTES, Head, Kind, Seal},
    segment::SEGMENT_HEAD_BYTES,
    store::{
        entry::{self, EntryRecord},
        files::SegmentFile,
        index::{GroupLog, Slot},
        queue::{Done, Op, Shared, count},
        space::Space,
    },
    types::{Entry, LogId, Vote},
};

/// Kept free in every segment for its `End` and a `Close` record.
const TAIL_RESERVE: usize = 2 * HEAD_BYTES;
/// A chunk is padded with zeros to a multiple of this without moving the position: the kernel then need not read the rest
/// of the page from disk when the recycled file is not in the page cache.
const PAGE_BYTES: usize = 4096;
/// Pieces of one vectored write (IOV_MAX).
const PIECES_MAX: usize = 1024;

static ZEROS: [u8; PAGE_BYTES] = [0; PAGE_BYTES];

enum Piece {
    Arena(Range<usize>),
    Payload(Bytes),
}

/// What becomes true in the index once the chunk is durable.
enum Effect {
    Entry(Arc<GroupLog>, Slot, Entry),
    Vote(Arc<GroupLog>, Vote),
    Truncate(Arc<GroupLog>, u64),
    Purge(Arc<GroupLog>, LogId),
}

#[derive(Default)]
struct Chunk {
    /// Heads, payload lengths and padding, one after the other.
    arena: Vec<u8>,
    pieces: Vec<Piece>,
    bytes: usize,
    records: u64,
    effects: Vec<Effect>,
    waiting: Vec<Done>,
    must_sync: bool,
}

pub(crate) struct Writer {
    shared: Arc<Shared>,
    /// Oldest first; the last is written to.
    segments: VecDeque<Arc<SegmentFile>>,
    space: Space,
    /// Offset of the next chunk in the last segment.
    position: usize,
    /// Bytes of the last segment known to be durable.
    synced: usize,
    unsynced_since: Option<Instant>,
    chunk: Chunk,
}

impl Writer {
    pub(crate) fn new(
        shared: Arc<Shared>,
        segments: VecDeque<Arc<SegmentFile>>,
        position: usize,
        space: Space,
    ) -> Self {
        Self {
            shared,
            segments,
            space,
            position,
            synced: position,
            unsynced_since: None,
            chunk: Chunk::default(),
        }
    }

    /// Runs until the store is closed.
    pub(crate) fn run(mut self) {
        let mut ops = Vec::new();
        self.housekeeping();
        loop {
            self.shared.take(self.sync_deadline(), &mut ops);
            let mut close = None;
            for op in ops.drain(..) {
                match op {
                    Op::Close { done } => close = Some(done),
                    other => self.add(other),
                }
            }
            let due = self.sync_deadline().is_some_and(|at| at <= Instant::now());
            // The waiters got the error; later operations get it from `poisoned`.
            let _ = self.commit(due || close.is_some());
            if let Some(done) = close {
                let result = self.close();
                *self.shared.lock.lock() = None;
                return done.complete(result);
            }
            self.housekeeping();
        }
    }

    fn sync_deadline(&self) -> Option<Instant> {
        match self.shared.options.sync {
            SyncMode::Always => None,
            SyncMode::Relaxed { interval_ms } => {
                self.unsynced_since.map(|t| t + Duration::from_millis(interval_ms))
            }
        }
    }

    fn current(&self) -> &Arc<SegmentFile> {
        // `Recovered::segments` is never empty, and only segments before the last are released.
        self.segments.back().expect("a log has at least one segment")
    }

    fn capacity(&self) -> usize {
        self.current().head.bytes as usize - TAIL_RESERVE
    }

    fn poisoned(&self) -> Option<StoreError> {
        self.shared.health.lock().poisoned.clone().map(StoreError::Poisoned)
    }

    // --- collecting a chunk

    fn add(&mut self, op: Op) {
        if let Some(error) = self.poisoned() {
            return op.fail(error);
        }
        let (result, done) = match op {
            // The room in the queue is free again once the entries are in the chunk: the chunk is bounded by the segment.
            Op::Append { group, entries, done, _room } => (self.add_entries(&group, entries), done),
            Op::Vote { group, vote, done } => (self.add_vote(&group, vote), done),
            Op::Truncate { group, since, done } => {
                let head = entry::head(Kind::Truncate, group.id, since);
                (self.add_small(head, |_| Effect::Truncate(group, since.index)), done)
            }
            Op::Purge { group, upto, done } => {
                let head = entry::head(Kind::Purge, group.id, upto);
                (self.add_small(head, |_| Effect::Purge(group, upto)), done)
            }
            Op::Sync { done } => {
                self.chunk.must_sync = true;
                (Ok(()), done)
            }
            Op::Retry | Op::Close { .. } => return,
        };
        match result {
            Ok(()) => self.chunk.waiting.push(done),
            Err(e) => done.complete(Err(e)),
        }
    }

    fn add_vote(&mut self, group: &Arc<GroupLog>, vote: Vote) -> Result<(), StoreError> {
        // A lost vote lets a node vote twice: never relaxed.
        self.chunk.must_sync = true;
        self.add_small(entry::vote_head(group.id, &vote), |_| Effect::Vote(Arc::clone(group), vote))
    }

    fn add_small(&mut self, head: Head, effect: impl FnOnce(u32) -> Effect) -> Result<(), StoreError> {
        self.make_room(record::record_bytes(0))?;
        let offset = self.put(head, &[], &[]);
        self.chunk.effects.push(effect(offset));
        Ok(())
    }

    fn add_entries(&mut self, group: &Arc<GroupLog>, entries: Vec<Entry>) -> Result<(), StoreError> {
        let unwritten = {
            let mut state = group.state.lock();
            std::mem::take(&mut state.committed_unwritten).then_some(state.committed).flatten()
        };
        if let Some(committed) = unwritten {
            self.make_room(record::record_bytes(0))?;
            self.put(entry::head(Kind::Committed, group.id, committed), &[], &[]);
        }
        let max = self.shared.options.record_bytes_max();
        for item in entries {
            let (slot, item) = {
                let r = EntryRecord::new(group.id, &item);
                let bytes = record::record_bytes(r.body_bytes());
                if bytes > max {
                    return Err(StoreError::TooLarge { bytes, max });
                }
                self.make_room(bytes)?;
                let offset = self.put(r.head, &r.inline, r.payloads);
                let slot = Slot {
                    log_id: item.log_id,
                    segment: Arc::clone(self.current()),
                    offset,
                    // Below the segment's size, which is a u32.
                    bytes: bytes as u32,
                    is_membership: r.head.kind == Kind::Membership,
                };
                (slot, item)
            };
            self.chunk.effects.push(Effect::Entry(Arc::clone(group), slot, item));
        }
        Ok(())
    }

    /// Makes sure that a record of `bytes` fits, if need be by going on in a new segment.
    fn make_room(&mut self, bytes: usize) -> Result<(), StoreError> {
        if self.position + self.chunk.bytes + bytes > self.capacity() {
            self.rotate()?;
        }
        if self.position + self.chunk.bytes == SEGMENT_HEAD_BYTES {
            self.put_state(bytes)?;
        }
        Ok(())
    }

    /// Puts a record at the end of the chunk; gives its offset in the segment. There must be room.
    fn put(&mut self, head: Head, inline: &[u8], payloads: &[Bytes]) -> u32 {
        let offset = self.position + self.chunk.bytes;
        let body = inline.len() + payloads.iter().map(Bytes::len).sum::<usize>();
        let seal: Seal = self.current().head.seal();
        let parts = std::iter::once(inline).chain(payloads.iter().map(AsRef::as_ref));
        // Sizes within a segment fit a u32, because the segment's own size does.
        let encoded = record::encode_head(head, seal, self.synced as u32, body as u32, parts);
        self.chunk.put_arena(&[&encoded, inline]);
        for payload in payloads.iter().filter(|p| !p.is_empty()) {
            self.chunk.pieces.push(Piece::Payload(payload.clone()));
        }
        let bytes = record::record_bytes(body);
        self.chunk.put_arena(&[&ZEROS[..bytes - HEAD_BYTES - body]]);
        self.chunk.bytes += bytes;
        self.chunk.records += 1;
        offset as u32
    }

    /// Begins a segment with what is known of every group outside of its entries, so that no older segment is needed for it.
    fn put_state(&mut self, bytes: usize) -> Result<(), StoreError> {
        let groups: Vec<_> = self.shared.groups.read().values().cloned().collect();
        let state_bytes = groups.len() * 3 * HEAD_BYTES;
        if SEGMENT_HEAD_BYTES + state_bytes + bytes > self.capacity() {
            return Err(StoreError::TooLarge { bytes: state_bytes, max: self.capacity() - bytes });
        }
        for group in groups {
            let (vote, purged, committed) = {
                let mut state = group.state.lock();
                state.committed_unwritten = false;
                (state.vote, state.purged, state.committed)
            };
            let vote = vote.map(|v| entry::vote_head(group.id, &v));
            let purged = purged.map(|p| entry::head(Kind::Purge, group.id, p));
            let committed = committed.map(|c| entry::head(Kind::Committed, group.id, c));
            for head in [vote, purged, committed].into_iter().flatten() {
                self.put(head, &[], &[]);
            }
        }
        Ok(())
    }

    // --- making it durable

    /// Ends the segment and begins the next. Fails without any change when there is no space for one.
    fn rotate(&mut self) -> Result<(), StoreError> {
        let spare = self.space.take(&self.shared)?;
        self.put(Head::of_store(Kind::End), &[], &[]);
        self.commit(true)?;
        let mut head = self.current().head;
        head.sequence += 1;
        head.bytes = spare.bytes;
        let promoted = self.space.promote(&self.shared, spare, head);
        let segment = promoted.inspect_err(|e| self.poison(e))?;
        self.segments.push_back(Arc::new(segment));
        self.position = SEGMENT_HEAD_BYTES;
        self.synced = SEGMENT_HEAD_BYTES;
        Ok(())
    }

    fn poison(&self, error: &StoreError) {
        tracing::error!(%error, "the log takes no more writes until it is reopened");
        self.shared.health.lock().poisoned.get_or_insert_with(|| error.to_string());
    }

    /// Writes the chunk, syncs when the mode or `sync` asks for it, updates the index and completes the waiters.
    fn commit(&mut self, sync: bool) -> Result<(), StoreError> {
        let result = self.poisoned().map_or_else(|| self.write_chunk(sync), Err);
        if let Err(error) = &result {
            self.poison(error);
            self.chunk.effects.clear();
            // There will be no other sync, so there is no deadline for one either.
            self.unsynced_since = None;
        }
        for effect in std::mem::take(&mut self.chunk.effects) {
            self.take_effect(effect);
        }
        for done in self.chunk.waiting.drain(..) {
            done.complete(result.clone());
        }
        self.chunk.reset();
        result
    }

    fn write_chunk(&mut self, sync: bool) -> Result<(), StoreError> {
        let segment = Arc::clone(self.current());
        let failed = |what: &str| {
            let what = format!("{what} {}", segment.path.display());
            move |e| StoreError::io(what, e)
        };
        if self.chunk.bytes > 0 {
            self.shared.hook("log.write").map_err(failed("writing"))?;
            let padding = self.page_padding();
            self.chunk.write(&segment, self.position, padding).map_err(failed("writing"))?;
            self.position += self.chunk.bytes;
            self.unsynced_since.get_or_insert_with(Instant::now);
            count(&self.shared.counters.writes, 1);
            count(&self.shared.counters.records, self.chunk.records);
            count(&self.shared.counters.bytes, self.chunk.bytes as u64);
        }
        let relaxed = self.shared.options.sync != SyncMode::Always;
        if self.synced < self.position && (sync || self.chunk.must_sync || !relaxed) {
            self.shared.sync_times.lock().begin();
            let synced =
                self.shared.hook("log.sync").and_then(|()| Ok(rustix::fs::fdatasync(&segment.file)?));
            self.shared.sync_times.lock().end();
            synced.map_err(failed("syncing"))?;
            count(&self.shared.counters.syncs, 1);
            self.synced = self.position;
            self.unsynced_since = None;
            self.shared.hook("log.after_sync").map_err(failed("after syncing"))?;
        }
        Ok(())
    }

    fn page_padding(&self) -> usize {
        let end = self.position + self.chunk.bytes;
        end.next_multiple_of(PAGE_BYTES).min(self.current().head.bytes as usize).saturating_sub(end)
    }

    fn take_effect(&self, effect: Effect) {
        let budget = &self.shared.budget;
        match effect {
            Effect::Entry(group, slot, entry) => {
                if let Err(error) = group.state.lock().push(slot, Some(entry), budget) {
                    // Raft appends without holes; a hole would make the folder unreadable, so stop before more is built on it.
                    self.poison(&StoreError::io("appending", io::Error::other(error)));
                }
            }
            Effect::Vote(group, vote) => group.state.lock().vote = Some(vote),
            Effect::Truncate(group, index) => group.state.lock().truncate(index, budget),
            Effect::Purge(group, upto) => group.state.lock().purge(upto, budget),
        }
    }

    /// Releases what no group needs and keeps a spare segment ready. Nobody waits for it.
    fn housekeeping(&mut self) {
        if self.poisoned().is_none() {
            self.release();
            self.space.replenish(&self.shared);
        }
        let room = self.capacity().saturating_sub(self.position) as u64;
        self.space.publish(&self.shared, room, self.segments.len() as u64);
    }

    fn release(&mut self) {
        let unneeded = |s: &Arc<SegmentFile>| s.live.load(Ordering::Relaxed) == 0;
        while self.segments.len() > 1 && self.segments.front().is_some_and(unneeded) {
            // The purge, and the state at the beginning of the current segment, must be durable before the file goes.
            if self.position == SEGMENT_HEAD_BYTES || self.commit(true).is_err() {
                return;
            }
            let Some(segment) = self.segments.pop_front() else { return };
            self.space.release(&self.shared, &segment);
        }
    }

    fn close(&mut self) -> Result<(), StoreError> {
        if let Some(error) = self.poisoned() {
            return Err(error);
        }
        let groups: Vec<_> = self.shared.groups.read().values().cloned().collect();
        for group in groups {
            self.add_entries(&group, Vec::new())?;
        }
        self.commit(true)?;
        if self.position == SEGMENT_HEAD_BYTES {
            self.put_state(HEAD_BYTES)?;
        }
        // Room for it is always kept.
        self.put(Head::of_store(Kind::Close), &[], &[]);
        self.commit(true)
    }
}

impl Chunk {
    fn put_arena(&mut self, parts: &[&[u8]]) {
        let start = self.arena.len();
        parts.iter().for_each(|p| self.arena.extend_from_slice(p));
        let end = self.arena.len();
        match self.pieces.last_mut() {
            Some(Piece::Arena(range)) => range.end = end,
            _ if end > start => self.pieces.push(Piece::Arena(start..end)),
            _ => {}
        }
    }

    fn write(&self, segment: &SegmentFile, position: usize, padding: usize) -> io::Result<()> {
        let pieces = self.pieces.iter().map(|p| match p {
            Piece::Arena(range) => IoSlice::new(&self.arena[range.clone()]),
            Piece::Payload(bytes) => IoSlice::new(bytes),
        });
        let mut slices: Vec<_> = pieces.chain(std::iter::once(IoSlice::new(&ZEROS[..padding]))).collect();
        let mut slices = &mut slices[..];
        let mut at = position as u64;
        // Only the padding may be left, and only when it is empty.
        while slices.iter().any(|s| !s.is_empty()) {
            let batch = &slices[..slices.len().min(PIECES_MAX)];
            match rustix::io::pwritev(&segment.file, batch, at) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => {
                    at += n as u64;
                    IoSlice::advance_slices(&mut slices, n);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    fn reset(&mut self) {
        self.arena.clear();
        // One huge batch must not keep its memory for good.
        self.arena.shrink_to(1 << 20);
        self.pieces.clear();
        self.effects.clear();
        self.bytes = 0;
        self.records = 0;
        self.must_sync = false;
    }
}
