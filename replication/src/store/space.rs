//! Spare segments: released files kept for reuse, and space reserved ahead.
//!
//! Constraint: while the log has room, a spare is reserved *before* it is needed. So a full disk is noticed at a time when
//! proposals can still be refused, and not by an append that Raft cannot take back.

use std::{
    fs, io,
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use crate::{
    StoreError,
    segment::{SEGMENT_HEAD_BYTES, SegmentHead},
    store::{
        files::{self, SegmentFile, Spare},
        queue::{Shared, count},
    },
};

/// Proposals that meet a full disk ask for another attempt; attempts to reserve a whole segment must not become a load.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

pub(crate) struct Space {
    spares: Vec<Spare>,
    next_name: u64,
    failed_at: Option<Instant>,
}

impl Space {
    pub(crate) fn new(spares: Vec<Spare>) -> Self {
        Self { spares, next_name: 0, failed_at: None }
    }

    /// A name that no spare has. Names are reused, so that a crash leaves no growing set of them.
    fn free_path(&mut self, shared: &Shared) -> PathBuf {
        loop {
            let path = files::spare_path(&shared.options.dir, self.next_name);
            self.next_name = (self.next_name + 1) % 1024;
            if !self.spares.iter().any(|s| s.path == path) {
                return path;
            }
        }
    }

    pub(crate) fn take(&mut self, shared: &Shared) -> Result<Spare, StoreError> {
        self.failed_at = None;
        self.replenish(shared);
        self.spares.pop().ok_or_else(|| {
            let source = shared.health.lock().no_space.clone();
            let source = source.unwrap_or_else(|| Arc::new(io::ErrorKind::StorageFull.into()));
            StoreError::DiskFull { dir: shared.options.dir.clone(), source }
        })
    }

    /// Reserves a spare when there is none, and notes whether that is possible.
    pub(crate) fn replenish(&mut self, shared: &Shared) {
        if !self.spares.is_empty() || self.failed_at.is_some_and(|at| at.elapsed() < RETRY_PAUSE) {
            return;
        }
        let path = self.free_path(shared);
        let bytes = shared.options.segment_bytes;
        let file = shared.hook("log.allocate").and_then(|()| files::allocate(&path, bytes));
        let mut health = shared.health.lock();
        match file {
            Ok(file) => {
                if health.found_space() {
                    tracing::info!(dir = %shared.options.dir.display(), "the log has disk space again");
                }
                count(&shared.counters.allocated, 1);
                self.failed_at = None;
                self.spares.push(Spare { path, file, bytes });
            }
            Err(e) => {
                if health.no_space.is_none() {
                    tracing::error!(
                        dir = %shared.options.dir.display(), error = %e,
                        "no disk space for the log's next segment; writes are refused when the current one is full"
                    );
                }
                health.no_space = Some(Arc::new(e));
                self.failed_at = Some(Instant::now());
            }
        }
    }

    pub(crate) fn promote(
        &mut self,
        shared: &Shared,
        spare: Spare,
        head: SegmentHead,
    ) -> Result<SegmentFile, StoreError> {
        let path = spare.path.clone();
        shared
            .hook("log.recycle")
            .map_err(|e| StoreError::io(format!("taking {} into use", path.display()), e))?;
        files::promote(&shared.options.dir, spare, head)
    }

    /// Takes back the oldest segment. The folder is synced after each, so that a crash cannot leave a hole in the sequence.
    pub(crate) fn release(&mut self, shared: &Shared, segment: &SegmentFile) {
        let keep = self.spares.len() < shared.options.spare_segments_max.max(1)
            && segment.head.bytes == shared.options.segment_bytes;
        let result = if keep {
            let path = self.free_path(shared);
            fs::rename(&segment.path, &path).and_then(|()| {
                self.spares.push(Spare { file: segment.file.try_clone()?, path, bytes: segment.head.bytes });
                count(&shared.counters.recycled, 1);
                Ok(())
            })
        } else {
            fs::remove_file(&segment.path)
        };
        let synced = result
            .map_err(|e| StoreError::io(format!("releasing {}", segment.path.display()), e))
            .and_then(|()| files::sync_dir(&shared.options.dir));
        if let Err(error) = synced {
            // The file is still there after a restart, where its entries are purged again.
            tracing::warn!(%error, "a log segment could not be released");
        }
    }

    /// Publishes how much can be appended: `room` bytes in the current segment, and the spares.
    pub(crate) fn publish(&self, shared: &Shared, room: u64, segments: u64) {
        let spare_bytes: u64 =
            self.spares.iter().map(|s| u64::from(s.bytes).saturating_sub(SEGMENT_HEAD_BYTES as u64)).sum();
        if spare_bytes > 0 {
            // Also a released segment ends the lack of space.
            shared.health.lock().found_space();
        }
        shared.room.store(room + spare_bytes, Ordering::Relaxed);
        shared.segments.store(segments, Ordering::Relaxed);
        shared.spares.store(self.spares.len() as u64, Ordering::Relaxed);
    }
}
