//! What is in the bucket: block format, sidecar index, checksums, manifest, caches, merge; the crash-ordering rules.
//!
//! Never knows of roles, queries or the log; never serves bytes whose checksum it has not verified; never deletes what
//! the newest manifest names.
//!
//! ```text
//! store       open_store(url, &StoreOptions) -> Arc<dyn ObjectStore>   (file, s3, gs, az, memory)
//!             StoreMetrics (counters)
//! manifest    Manifests::new(store, "metrics", ManifestOptions)
//!             .load(&tenant) / .refresh(&tenant) -> Arc<Manifest>      .tenants() -> Vec<TenantId>
//!             .commit(&tenant, |&Manifest| -> Result<Manifest>) -> Arc<Manifest>
//!             Manifest { version, blocks, covered: shard -> position, retired }
//!             Manifest::with_flush(&self, shard, position, blocks) -> Result<Manifest>     (idempotent)
//! block       BlockWriter::new(BlockOptions) .push(&labels, time_key, &buf, exemplars, metadata)? .finish() -> Option<BlockFiles>
//!             write_block(&dyn SeriesSource, BlockOptions) -> Result<Option<BlockFiles>>   (None: no sample)
//!             upload_block(&store, &tenant, &BlockFiles).await
//! read        BlockReader::open(store, &tenant, Arc<BlockMeta>, &[Arc<Tombstone>], Arc<BlockCache>).await
//!             .select(&BlockSelect, &ReadStats) -> SeriesSet           .series(..) -> Vec<Labels>
//!             .label_names(..) / .label_values(..) -> Vec<String>      .exemplars(..) / .metadata()
//! merge       merge_series_sets(Vec<(priority, SeriesSet)>) -> SeriesSet   (highest priority wins on equal timestamps)
//!             a block's priority is BlockMeta::seq; a head's is u64::MAX
//! deletions   Manifest::with_tombstone(&Tombstone) -> Result<Manifest>   .tombstones_of(&BlockMeta) -> Vec<Arc<Tombstone>>
//! compaction  plan(&Manifest, now_ms, &CompactionOptions) -> Vec<CompactionJob>        plan_deletions(..): the same for tombstones
//!             Compaction::new(store, manifests)
//!             apply_job(&Compaction, &tenant, &job, &options).await -> JobOutcome
//!             clean_tenant(&Compaction, &tenant, now_ms, &options).await -> CleanOutcome
//! ```

mod block;
mod compaction;
mod error;
pub mod fuzz;
mod manifest;
mod merge_sets;
pub mod paths;
mod store;
mod upload;

pub use block::{
    BlockCache, BlockFiles, BlockOptions, BlockReader, BlockSelect, BlockSelection, BlockWriter, Checksums,
    ReadStats, ReadStatsSnapshot, SelectHints, SeriesSource, names, series_order, write_block,
};
pub use compaction::{
    CleanOutcome, Compaction, CompactionJob, CompactionOptions, JobKind, JobOutcome, MergeOptions, apply_job,
    clean_tenant, merge_blocks, plan, plan_deletions,
};
pub use error::{Result, StorageError};
pub use manifest::{
    Announcement, BlockId, BlockMeta, LogRange, Manifest, ManifestOptions, Manifests, ObjectMeta,
    RetiredBlock, Tombstone, TombstoneId, TombstonePosition,
};
pub use merge_sets::merge_series_sets;
pub use object_store::ObjectStore;
pub use store::{GuardedStore, StoreMetrics, StoreMetricsSnapshot, StoreOptions, open_store};
pub use upload::upload_block;

/// Size of the pieces of an object that are checked and cached one by one.
pub const CHUNK_BYTES: usize = 64 << 10;

/// The name of the one signal there is yet.
pub const METRICS: &str = "metrics";
