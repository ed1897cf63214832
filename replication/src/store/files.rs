//! The files of the log folder: the lock, segments and spares.
//!
//! | name | what |
//! |---|---|
//! | `LOCK` | locked while a store is open; holds the owner's process id |
//! | `log-<sequence>.seg` | a segment in use |
//! | `spare-<n>.seg` | a released or preallocated file without content; may be deleted at any time |
//! | `checkpoint-<group>` | see [`crate::checkpoint`] |
//!
//! A spare becomes a segment by getting a new head, a sync, a rename and a sync of the folder, in this order. So a file
//! named `log-…` always has a head, and a record in it is never lost with its name.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::atomic::AtomicU64,
};

use rustix::fs::{FallocateFlags, FlockOperation, fallocate, flock};

use crate::{StoreError, segment::SegmentHead};

/// A segment in use.
#[derive(Debug)]
pub(crate) struct SegmentFile {
    pub(crate) head: SegmentHead,
    pub(crate) path: PathBuf,
    pub(crate) file: File,
    /// Entries in it that are neither purged nor truncated.
    pub(crate) live: AtomicU64,
}

/// A file without content, ready to become a segment.
#[derive(Debug)]
pub(crate) struct Spare {
    pub(crate) path: PathBuf,
    pub(crate) file: File,
    pub(crate) bytes: u32,
}

pub(crate) fn segment_path(dir: &Path, sequence: u64) -> PathBuf {
    dir.join(format!("log-{sequence:020}.seg"))
}

pub(crate) fn spare_path(dir: &Path, n: u64) -> PathBuf {
    dir.join(format!("spare-{n}.seg"))
}

/// Creates the folder and locks it for this process.
pub(crate) fn lock(dir: &Path) -> Result<File, StoreError> {
    let io_error = |e| StoreError::io(format!("locking {}", dir.display()), e);
    fs::create_dir_all(dir).map_err(io_error)?;
    let path = dir.join("LOCK");
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(io_error)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let pid = fs::read_to_string(&path).unwrap_or_default().trim().to_owned();
            let pid = if pid.is_empty() { "?".to_owned() } else { pid };
            return Err(StoreError::InUse { dir: dir.to_owned(), pid });
        }
        Err(e) => return Err(io_error(e.into())),
    }
    file.set_len(0).map_err(io_error)?;
    writeln!(file, "{}", std::process::id()).map_err(io_error)?;
    Ok(file)
}

pub(crate) fn sync_dir(dir: &Path) -> Result<(), StoreError> {
    File::open(dir)
        .and_then(|d| d.sync_all())
        .map_err(|e| StoreError::io(format!("syncing {}", dir.display()), e))
}

/// The segments by sequence number, and the spares, as named in the folder.
pub(crate) fn list(dir: &Path) -> Result<(Vec<(u64, PathBuf)>, Vec<PathBuf>), StoreError> {
    let io_error = |e| StoreError::io(format!("listing {}", dir.display()), e);
    let (mut segments, mut spares) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(dir).map_err(io_error)? {
        let path = entry.map_err(io_error)?.path();
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        let Some(stem) = name.strip_suffix(".seg") else { continue };
        if let Some(sequence) = stem.strip_prefix("log-").and_then(|n| n.parse().ok()) {
            segments.push((sequence, path));
        } else if stem.starts_with("spare-") {
            spares.push(path);
        }
    }
    segments.sort_unstable();
    Ok((segments, spares))
}

/// Reserves a file of `bytes` on disk, so that writing into it cannot run out of space.
pub(crate) fn allocate(path: &Path, bytes: u32) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
    let reserved = match fallocate(&file, FallocateFlags::empty(), 0, u64::from(bytes)) {
        // A filesystem without fallocate: writing zeros reserves as well.
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {
            write_zeros(&file, 0, u64::from(bytes))
        }
        other => other.map_err(Into::into),
    };
    if let Err(e) = reserved.and_then(|()| file.sync_all()) {
        drop(file);
        // What was reserved in part must not keep the space.
        let _ = fs::remove_file(path);
        return Err(e);
    }
    Ok(file)
}

pub(crate) fn write_zeros(file: &File, from: u64, to: u64) -> io::Result<()> {
    let zeros = vec![0u8; 1 << 20];
    let mut at = from;
    while at < to {
        let n = (to - at).min(zeros.len() as u64);
        file.write_all_at(&zeros[..usize::try_from(n).unwrap_or(zeros.len())], at)?;
        at += n;
    }
    Ok(())
}

/// Makes a spare the segment `head.sequence`. When it returns, the segment has its name and its head on disk.
pub(crate) fn promote(dir: &Path, spare: Spare, head: SegmentHead) -> Result<SegmentFile, StoreError> {
    let path = segment_path(dir, head.sequence);
    let io_error = |e| StoreError::io(format!("taking {} into use", path.display()), e);
    spare.file.write_all_at(&head.encode(), 0).map_err(io_error)?;
    spare.file.sync_data().map_err(io_error)?;
    fs::rename(&spare.path, &path).map_err(io_error)?;
    sync_dir(dir)?;
    Ok(SegmentFile { head, path, file: spare.file, live: AtomicU64::new(0) })
}
