//! Opening a log folder: finds the end of the log and rebuilds the index.
//!
//! Recovery: segments are read in the order of their numbers, one at a time in memory. Every segment but the newest must end
//! with an `End` record. In the newest, a bad record above every synced mark is the torn end: it is cut off with a warning, and
//! the rest of the file is zeroed, because a later record of the torn write may be intact and would otherwise come back
//! to life behind a new record of the same length. Any other bad record is damage, and the folder is left as it is.
//!
//! The end of the log may hold bytes that were written but never synced (and, after a failed sync, that the page cache
//! only pretends to have written). They are written again and synced before anything is built on them.

use std::{
    collections::{HashMap, VecDeque},
    fs::{self, File, OpenOptions},
    io::Read as _,
    os::unix::fs::FileExt as _,
    path::Path,
    sync::{Arc, atomic::AtomicU64},
};

use crate::{
    GroupId, StoreError, StoreOptions,
    record::{Kind, Record},
    segment::{self, BadHead, Scan, SegmentHead, Tail, VERSION},
    store::{
        entry,
        files::{self, SegmentFile, Spare},
        index::{CacheBudget, GroupLog, Slot},
    },
};

/// What a folder holds.
pub(crate) struct Recovered {
    pub(crate) groups: HashMap<GroupId, Arc<GroupLog>>,
    /// Oldest first; never empty. The last is written to.
    pub(crate) segments: VecDeque<Arc<SegmentFile>>,
    /// Offset of the next record in the last segment.
    pub(crate) position: usize,
    pub(crate) spares: Vec<Spare>,
}

/// Reads the folder and leaves it ready for appends.
pub(crate) fn recover(options: &StoreOptions, budget: &CacheBudget) -> Result<Recovered, StoreError> {
    let dir = &options.dir;
    let (found, spare_paths) = files::list(dir)?;
    let mut recovery = Recovery { groups: HashMap::new(), budget };
    let mut segments: VecDeque<Arc<SegmentFile>> = VecDeque::new();
    let mut buffer = Vec::new();
    let mut end = None;
    for (i, (sequence, path)) in found.iter().enumerate() {
        if let Some(previous) = segments.back()
            && previous.head.sequence + 1 != *sequence
        {
            let missing = files::segment_path(dir, previous.head.sequence + 1);
            return Err(corrupt(&missing, 0, "the file is missing, later segments exist"));
        }
        let nonce = segments.back().map(|s| s.head.nonce);
        let segment = Arc::new(open_segment(path, *sequence, nonce, &mut buffer)?);
        let scan = recovery.read(&segment, &buffer)?;
        let is_last = i + 1 == found.len();
        end = Some(finish(&segment, &scan, &buffer, is_last)?);
        segments.push_back(segment);
    }
    recovery.check_gaps(segments.front().map(|s| s.path.as_path()))?;

    let mut spares = open_spares(options, &spare_paths);
    let position = match end {
        Some((position, false)) => position,
        // Nothing yet, or the last segment is complete and its successor was not created.
        _ => {
            let last = segments.back().map(|s| s.head);
            let head = SegmentHead {
                sequence: last.map_or(1, |h| h.sequence + 1),
                nonce: last.map_or_else(random, |h| h.nonce),
                bytes: options.segment_bytes,
            };
            let spare = match spares.pop() {
                Some(spare) => spare,
                None => first_spare(options)?,
            };
            segments.push_back(Arc::new(files::promote(dir, spare, head)?));
            segment::SEGMENT_HEAD_BYTES
        }
    };
    Ok(Recovered { groups: recovery.groups, segments, position, spares })
}

fn first_spare(options: &StoreOptions) -> Result<Spare, StoreError> {
    let path = files::spare_path(&options.dir, 0);
    let bytes = options.segment_bytes;
    let file = (options.fault_hook)("log.allocate").and_then(|()| files::allocate(&path, bytes));
    let file = file.map_err(|e| StoreError::DiskFull { dir: options.dir.clone(), source: Arc::new(e) })?;
    Ok(Spare { path, file, bytes })
}

fn corrupt(file: &Path, offset: usize, reason: impl ToString) -> StoreError {
    StoreError::Corrupt { file: file.to_owned(), offset: offset as u64, reason: reason.to_string() }
}

/// A number that differs between stores. It need not be secret from whoever can read the folder.
fn random() -> u64 {
    use std::hash::{BuildHasher as _, Hasher as _};
    // The hasher's keys are the standard library's only source of randomness.
    std::collections::hash_map::RandomState::new().build_hasher().finish() | 1
}

fn open_segment(
    path: &Path,
    sequence: u64,
    nonce: Option<u64>,
    buffer: &mut Vec<u8>,
) -> Result<SegmentFile, StoreError> {
    let io_error = |e| StoreError::io(format!("reading {}", path.display()), e);
    let mut file = OpenOptions::new().read(true).write(true).open(path).map_err(io_error)?;
    buffer.clear();
    file.read_to_end(buffer).map_err(io_error)?;
    let head = SegmentHead::decode(buffer).map_err(|bad| match bad {
        BadHead::Version(found) => StoreError::Version { file: path.to_owned(), found, supported: VERSION },
        other => corrupt(path, 0, other),
    })?;
    if head.sequence != sequence || nonce.is_some_and(|n| n != head.nonce) {
        return Err(corrupt(path, 0, "the file belongs to another log or another place in it"));
    }
    // A file that was copied or cut short: what is missing reads as "no record".
    buffer.resize(head.bytes as usize, 0);
    Ok(SegmentFile { head, path: path.to_owned(), file, live: AtomicU64::new(0) })
}

/// Decides about the end of a segment. Gives the offset for the next record, and whether the segment is complete.
fn finish(
    segment: &SegmentFile,
    scan: &Scan,
    buffer: &[u8],
    is_last: bool,
) -> Result<(usize, bool), StoreError> {
    let path = &segment.path;
    match scan.tail {
        Tail::Ended => return Ok((scan.end, true)),
        Tail::Damaged(bad) => return Err(corrupt(path, scan.end, bad)),
        Tail::Open if !is_last => {
            return Err(corrupt(path, scan.end, "the segment has no end, but a later one exists"));
        }
        Tail::Torn(bad) if !is_last => return Err(corrupt(path, scan.end, bad)),
        Tail::Open | Tail::Torn(_) => {}
    }
    let io_error = |e| StoreError::io(format!("repairing the end of {}", path.display()), e);
    let bytes = u64::from(segment.head.bytes);
    if let Tail::Torn(bad) = scan.tail {
        tracing::warn!(
            file = %path.display(), offset = scan.end, reason = %bad,
            "the log's last write was not completed; it is cut off here, nothing acknowledged is lost"
        );
        files::write_zeros(&segment.file, scan.end as u64, bytes).map_err(io_error)?;
    } else if segment.file.metadata().map_err(io_error)?.len() < bytes {
        rustix::fs::fallocate(&segment.file, rustix::fs::FallocateFlags::empty(), 0, bytes)
            .or_else(|_| segment.file.set_len(bytes).map_err(|_| rustix::io::Errno::NOSPC))
            .map_err(|e| io_error(e.into()))?;
    }
    let from = scan.synced.min(scan.end);
    segment.file.write_all_at(&buffer[from..scan.end], from as u64).map_err(io_error)?;
    segment.file.sync_all().map_err(io_error)?;
    Ok((scan.end, false))
}

fn open_spares(options: &StoreOptions, paths: &[std::path::PathBuf]) -> Vec<Spare> {
    let mut spares = Vec::new();
    for path in paths {
        let usable = |f: &File| f.metadata().is_ok_and(|m| m.len() == u64::from(options.segment_bytes));
        match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) if usable(&file) && spares.len() < options.spare_segments_max.max(1) => {
                spares.push(Spare { path: path.clone(), file, bytes: options.segment_bytes });
            }
            _ => drop(fs::remove_file(path)),
        }
    }
    spares
}

struct Recovery<'a> {
    groups: HashMap<GroupId, Arc<GroupLog>>,
    budget: &'a CacheBudget,
}

impl Recovery<'_> {
    fn read(&mut self, segment: &Arc<SegmentFile>, bytes: &[u8]) -> Result<Scan, StoreError> {
        segment::scan(bytes, segment.head.seal(), |offset, record| {
            self.take(segment, offset, &record).map_err(|reason| corrupt(&segment.path, offset, reason))
        })
    }

    fn take(&mut self, segment: &Arc<SegmentFile>, offset: usize, record: &Record<'_>) -> Result<(), String> {
        let head = &record.head;
        if matches!(head.kind, Kind::End | Kind::Close) {
            return Ok(());
        }
        let id = GroupId(head.group);
        let group = self.groups.entry(id).or_insert_with(|| Arc::new(GroupLog::new(id)));
        let mut state = group.state.lock();
        let log_id = entry::log_id(head);
        match head.kind {
            Kind::Vote => state.vote = Some(entry::vote(head)),
            Kind::Committed => state.committed = state.committed.max(Some(log_id)),
            Kind::Purge => state.purge(log_id, self.budget),
            Kind::Truncate => state.truncate(log_id.index, self.budget),
            Kind::End | Kind::Close => {}
            Kind::Blank | Kind::Batch | Kind::Membership => {
                let slot = Slot {
                    log_id,
                    segment: Arc::clone(segment),
                    offset: u32::try_from(offset).map_err(|e| e.to_string())?,
                    bytes: u32::try_from(record.bytes()).map_err(|e| e.to_string())?,
                    is_membership: head.kind == Kind::Membership,
                };
                state.push(slot, None, self.budget).map_err(|e| format!("group {id}: {e}"))?;
            }
        }
        Ok(())
    }

    /// An entry that is missing below the first one of a group was in a segment that is gone.
    fn check_gaps(&self, first: Option<&Path>) -> Result<(), StoreError> {
        for group in self.groups.values() {
            if let Some((expected, found)) = group.state.lock().gap() {
                let reason = format!("group {}: entries {expected} to {} are missing", group.id, found - 1);
                return Err(corrupt(first.unwrap_or(Path::new("")), 0, reason));
            }
        }
        Ok(())
    }
}
