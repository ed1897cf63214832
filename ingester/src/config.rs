//! Settings of the ingester, each with its key in the configuration file and the reason of its default.

use std::{path::PathBuf, time::Duration};

use sextant_replication::{GroupOptions, SyncMode};

/// Settings of one ingester process.
#[derive(Clone, Debug)]
pub struct IngesterConfig {
    /// The process's data folder; the log is in `log` below it.
    pub data_dir: PathBuf,
    /// `ingester.shards`: Raft groups that series are spread over. Fixed when the data folder is first used, because a
    /// series' shard follows from its labels and this number. Default 1: one shard takes millions of samples a second.
    pub shards: u32,
    /// `ingester.log_sync` and `ingester.log_sync_interval`: when a write is acknowledged. Default: when it is on disk.
    pub log_sync: SyncMode,
    /// `ingester.log_segment_size`: bytes of one segment file of the log.
    pub log_segment_bytes: u32,
    /// Bytes that all segments may take before writes are refused. It must hold what is written between two flushes, and
    /// what comes while the object store is away. Default 8 GiB: a disk of twice that is common.
    pub log_bytes_max: u64,
    /// `ingester.head_memory_max`: bytes of recent data over all shards. Beyond it writers get 429 until a flush has made
    /// room. Flushes begin at half of it, so that a generation can be written out while the next one fills.
    pub head_memory_max: usize,
    /// `ingester.flush_age`: a generation is flushed so long after its first write. Default 2 hours: larger blocks compress
    /// better and are fewer; replay after a crash takes some seconds for that.
    pub flush_age: Duration,
    /// `ingester.flush_samples`: a generation is flushed at so many samples. Default 100 million: bounds the block's size and
    /// the time of a replay.
    pub flush_samples: u64,
    /// `ingester.drop_grace`: how long flushed rows stay readable, for queries that took the manifest before. Under memory
    /// pressure they go after ten seconds, and such a query gets an error, never a partial answer.
    pub drop_grace: Duration,
    /// How often the triggers are looked at.
    pub flush_check_interval: Duration,
    /// Pause after a failed flush; doubled after each further one, up to `flush_retry_max`.
    pub flush_retry_min: Duration,
    /// See `flush_retry_min`.
    pub flush_retry_max: Duration,
    /// Settings of the shards' groups.
    pub group: GroupOptions,
}

impl Default for IngesterConfig {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("./sextant-data"),
            shards: 1,
            log_sync: SyncMode::Always,
            log_segment_bytes: 64 << 20,
            log_bytes_max: 8 << 30,
            head_memory_max: 4 << 30,
            flush_age: Duration::from_secs(2 * 3600),
            flush_samples: 100_000_000,
            drop_grace: Duration::from_secs(300),
            flush_check_interval: Duration::from_secs(1),
            flush_retry_min: Duration::from_secs(1),
            flush_retry_max: Duration::from_secs(30),
            group: GroupOptions::default(),
        }
    }
}
