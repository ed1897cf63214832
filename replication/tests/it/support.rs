//! A state machine that remembers what it was given, and ways to look at a log folder.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use parking_lot::Mutex;
use sextant_replication::{
    FaultHook, Group, GroupId, GroupOptions, LogStore, NodeId, RestoreError, StateMachine, StoreOptions,
};

pub const NODE: NodeId = NodeId(1);
pub const GROUP: GroupId = GroupId(7);
/// Of the tests' segments: small, so that a few writes rotate.
pub const SEGMENT_BYTES: u32 = 32 << 10;

/// Remembers every payload with its index, and what it was restored from.
#[derive(Default)]
pub struct Recorder {
    pub applied: Mutex<Vec<(u64, Bytes)>>,
    pub restored: Mutex<Option<(u64, Vec<u8>)>>,
    count: AtomicU64,
}

impl StateMachine for Recorder {
    type Output = (u64, u64);

    /// Gives the index and how many payloads were applied before.
    fn apply(&self, index: u64, payload: &Bytes) -> (u64, u64) {
        assert_ne!(payload, "panic", "asked to panic");
        self.applied.lock().push((index, Bytes::copy_from_slice(payload)));
        (index, self.count.fetch_add(1, Ordering::Relaxed))
    }

    fn restore(&self, index: u64, app: &[u8]) -> Result<(), RestoreError> {
        assert!(self.applied.lock().is_empty(), "restored after an apply");
        if app == b"refuse" {
            return Err(RestoreError("refused".to_owned()));
        }
        assert!(self.restored.lock().replace((index, app.to_vec())).is_none(), "restored twice");
        Ok(())
    }
}

impl Recorder {
    pub fn payloads(&self) -> Vec<String> {
        self.applied.lock().iter().map(|(_, p)| String::from_utf8_lossy(p).into_owned()).collect()
    }

    /// The numbers that payloads made by [`numbered`] begin with.
    pub fn numbers(&self) -> Vec<u64> {
        self.payloads().iter().map(|p| p.split(' ').next().unwrap().parse().unwrap()).collect()
    }
}

/// A payload of about `bytes` bytes that begins with a number.
pub fn numbered(n: u64, bytes: usize) -> Bytes {
    let mut text = format!("{n} ");
    while text.len() < bytes {
        text.push(char::from(b'a' + (text.len() as u64 * 7 + n) as u8 % 26));
    }
    text.into()
}

pub fn options(dir: &Path) -> StoreOptions {
    StoreOptions { segment_bytes: SEGMENT_BYTES, ..StoreOptions::new(dir) }
}

pub fn hook(f: impl Fn(&'static str) -> io::Result<()> + Send + Sync + 'static) -> FaultHook {
    Arc::new(f)
}

pub async fn open_group(store: &LogStore, id: GroupId) -> Group<Recorder> {
    Group::open(store, id, NODE, Arc::default(), GroupOptions::default()).await.unwrap()
}

/// A store with one group, opened from `dir`.
pub async fn open(dir: &Path) -> (LogStore, Group<Recorder>) {
    let store = LogStore::open(options(dir)).unwrap();
    let group = open_group(&store, GROUP).await;
    (store, group)
}

pub async fn close(store: LogStore, group: Group<Recorder>) {
    group.shutdown().await;
    store.close().unwrap();
}

/// What a crash of the process would leave at this moment.
pub fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        // A file may be renamed between the listing and the copy; the writer thread is the one that copies where it matters.
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

pub fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    found.retain(|p| p.file_name().unwrap().to_str().unwrap().starts_with("log-"));
    found.sort();
    found
}

/// Offset, length and synced mark of a segment's records, by the documented format.
pub fn records(segment: &Path) -> Vec<(usize, usize, usize)> {
    let bytes = fs::read(segment).unwrap();
    let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    let stamp = bytes[4096 + 8..4096 + 16].to_vec();
    let mut found = Vec::new();
    let mut at = 4096;
    while at + 64 <= bytes.len() && bytes[at + 8..at + 16] == stamp && stamp.iter().any(|&b| b != 0) {
        let length = 64 + u32_at(at + 4).next_multiple_of(8);
        found.push((at, length, u32_at(at + 48)));
        at += length;
    }
    found
}
