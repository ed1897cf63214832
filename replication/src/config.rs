//! Settings of the log store and of a group, with the reason of every default.

use std::{collections::BTreeMap, fmt, io, path::PathBuf, sync::Arc};

use crate::{Member, Network, NodeId, network::NoNetwork, record};

/// When an append counts as durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SyncMode {
    /// After `fdatasync`. An acknowledged payload survives a power loss.
    #[default]
    Always,
    /// After the write; `fdatasync` follows within the interval. An acknowledged payload survives `kill -9`, but a power
    /// loss may take the last `interval_ms`. Votes are synced at once all the same.
    Relaxed {
        /// Longest time between a write and its sync.
        interval_ms: u64,
    },
}

/// What a hook does at a named point of the write path: nothing, or fail it.
///
/// The points are `log.write`, `log.sync`, `log.after_sync`, `log.recycle`, `log.allocate`, `checkpoint.before_rename`,
/// `checkpoint.after_rename` and, for a checkpoint received from the leader, `checkpoint.before_install` (it is on disk) and
/// `checkpoint.after_restore` (the state machine has it). The hook runs on the thread that does the I/O, so it may also sleep or copy the folder.
pub type FaultHook = Arc<dyn Fn(&'static str) -> io::Result<()> + Send + Sync>;

/// Settings of one node's log store.
#[derive(Clone)]
pub struct StoreOptions {
    /// Folder of the log. It is created when it does not exist, and locked while the store is open.
    pub dir: PathBuf,
    /// Size of every segment file. Default 64 MiB: one rotation (two syncs of the folder) per 64 MiB is lost in the noise,
    /// and recovery reads one segment at a time into memory.
    pub segment_bytes: u32,
    /// When an append is acknowledged.
    pub sync: SyncMode,
    /// Appended bytes that may wait for the writer thread over all groups; further appends wait. Default 64 MiB.
    pub queue_bytes_max: usize,
    /// Entries kept in memory until they are applied. Default 64 MiB; what does not fit is read back from disk.
    pub cache_bytes_max: usize,
    /// Released segment files kept for reuse; more than these are deleted. Default 4. At least one is kept ahead.
    pub spare_segments_max: usize,
    /// Bound of all segments in use. Beyond it `Group::propose` fails with `ProposeError::LogFull`, whereas
    /// `Group::propose_alone` goes on, because a seal is what lets the log shrink. Default 8 GiB.
    pub log_bytes_max: u64,
    /// Called at the fault points; by default the process-wide points of `sextant_proto::fault`.
    pub fault_hook: FaultHook,
}

impl StoreOptions {
    /// The defaults for a log in `dir`.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            segment_bytes: 64 << 20,
            sync: SyncMode::Always,
            queue_bytes_max: 64 << 20,
            cache_bytes_max: 64 << 20,
            spare_segments_max: 4,
            log_bytes_max: 8 << 30,
            fault_hook: Arc::new(|point| sextant_proto::fault::hit(point).map_err(io::Error::other)),
        }
    }

    /// The largest record. Half a segment: at worst half of a segment stays empty because the next record does not fit.
    pub(crate) fn record_bytes_max(&self) -> usize {
        self.segment_bytes as usize / 2
    }

    /// What fits into the record of one entry: payloads, each with its length.
    pub(crate) fn batch_bytes_max(&self) -> usize {
        self.record_bytes_max() - record::HEAD_BYTES - record::ALIGN
    }
}

impl fmt::Debug for StoreOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreOptions")
            .field("dir", &self.dir)
            .field("segment_bytes", &self.segment_bytes)
            .field("sync", &self.sync)
            .field("queue_bytes_max", &self.queue_bytes_max)
            .field("cache_bytes_max", &self.cache_bytes_max)
            .field("spare_segments_max", &self.spare_segments_max)
            .field("log_bytes_max", &self.log_bytes_max)
            .finish_non_exhaustive()
    }
}

/// How a group that has never been opened on this node begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bootstrap {
    /// This node is the group's only member.
    Alone,
    /// These are the first members. One of them, or all, are opened with exactly this; the others with [`Bootstrap::Join`].
    /// Different lists on different members would make different groups.
    Members(BTreeMap<NodeId, Member>),
    /// Wait until another member's leader sends the log.
    Join,
}

/// Settings of one group.
#[derive(Clone)]
pub struct GroupOptions {
    /// How a new group begins. Without effect once the group has a log. Default: alone.
    pub bootstrap: Bootstrap,
    /// Reaches the other members. Default: nobody can be reached.
    pub network: Arc<dyn Network>,
    /// Payload bytes that are put into one Raft entry at most. Default 4 MiB. A single payload may be larger, up to half a
    /// segment, which also bounds the entry.
    pub batch_bytes_max: usize,
    /// Payloads that are put into one Raft entry at most. Default 512: one `pwritev` takes 1024 pieces.
    pub batch_payloads_max: usize,
    /// Payload bytes that may wait in the group; further proposals wait. Default 32 MiB.
    pub queue_bytes_max: usize,
    /// A second entry is started beside the one being synced only when this many bytes wait, because each entry
    /// costs a sync of its own. Default 256 KiB.
    pub pipeline_bytes_min: usize,
    /// Entries that may be on their way at once. Default 4: on several members an entry takes a round trip and a sync on both
    /// sides, and openraft sends a follower what has come in meanwhile as one request.
    pub pipeline_entries_max: usize,
    /// Payload bytes read at once while a group is replayed. Default 8 MiB.
    pub replay_bytes_max: usize,
    /// Interval of the leader's heartbeats; an election is held after 3 to 6 silent intervals. Default 250 ms.
    pub heartbeat_interval_ms: u64,
}

impl Default for GroupOptions {
    fn default() -> Self {
        Self {
            bootstrap: Bootstrap::Alone,
            network: Arc::new(NoNetwork),
            batch_bytes_max: 4 << 20,
            batch_payloads_max: 512,
            queue_bytes_max: 32 << 20,
            pipeline_bytes_min: 256 << 10,
            pipeline_entries_max: 4,
            replay_bytes_max: 8 << 20,
            heartbeat_interval_ms: 250,
        }
    }
}

impl fmt::Debug for GroupOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GroupOptions")
            .field("bootstrap", &self.bootstrap)
            .field("batch_bytes_max", &self.batch_bytes_max)
            .field("batch_payloads_max", &self.batch_payloads_max)
            .field("queue_bytes_max", &self.queue_bytes_max)
            .finish_non_exhaustive()
    }
}
