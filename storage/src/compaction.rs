//! Merging blocks into larger ones, and removing what nothing names any more.
//!
//! Pure planning ([`plan`]) gives jobs; [`apply_job`] does one: merge, upload, commit. Nothing is deleted by it: the
//! inputs are retired in the same commit that brings the outputs, and [`clean_tenant`] deletes them after the grace
//! time. So at every instant the newest manifest names complete blocks only, and a death leaves at worst an orphan.

mod apply;
mod clean;
mod merge;
mod plan;

use std::sync::Arc;

pub use apply::{JobOutcome, apply_job};
pub use clean::{CleanOutcome, clean_tenant};
pub use merge::{MergeOptions, merge_blocks};
pub use plan::{CompactionJob, JobKind, plan, plan_deletions};

use object_store::ObjectStore;

use crate::{BlockCache, BlockOptions, Manifests};

/// How blocks are compacted.
#[derive(Clone, Debug)]
pub struct CompactionOptions {
    /// The time windows of levels 1, 2, …, milliseconds; each a multiple of the one before.
    pub windows_ms: Vec<i64>,
    /// A window that is not over yet is merged at level 1 when it has so many smaller blocks.
    pub open_window_blocks: usize,
    /// A window counts as over this long after its end, when late samples have come.
    pub settle_ms: i64,
    /// Merge whatever is mergeable at level 1 now: what an operator asks for.
    pub force: bool,
    /// At most so many series in one block.
    pub block_series_max: usize,
    /// At most so many samples in one block, by a series more or less.
    pub block_samples_max: u64,
    /// At most so many samples in one job: bounds its time, and what a death repeats.
    pub job_samples_max: u64,
    /// A block that no merge takes is written again without what a tombstone deletes this long after the deletion, so that
    /// several deletions are one rewrite.
    pub tombstone_delay_ms: i64,
    /// Samples older than this are dropped; `None` keeps all.
    pub retention_ms: Option<i64>,
    /// How long a retired block stays: longer than any reader uses an old manifest.
    pub delete_delay_ms: i64,
    /// How old a block that no manifest names must be to be removed (and not younger than `delete_delay_ms`): longer
    /// than [`crate::ManifestOptions::block_age_max`] plus any difference of clocks.
    pub orphan_grace_ms: i64,
    /// How outputs are written; id and level are set by the job.
    pub block: BlockOptions,
}

impl Default for CompactionOptions {
    fn default() -> Self {
        const HOUR: i64 = 3_600_000;
        Self {
            windows_ms: vec![2 * HOUR, 12 * HOUR, 48 * HOUR],
            open_window_blocks: 8,
            settle_ms: HOUR / 2,
            force: false,
            block_series_max: 2_000_000,
            block_samples_max: 400_000_000,
            job_samples_max: 1_000_000_000,
            tombstone_delay_ms: HOUR,
            retention_ms: None,
            delete_delay_ms: HOUR / 2,
            orphan_grace_ms: 6 * HOUR,
            block: BlockOptions::default(),
        }
    }
}

/// What jobs need; shared by all tenants.
pub struct Compaction {
    store: Arc<dyn ObjectStore>,
    manifests: Arc<Manifests>,
    /// Footers and series tables of inputs; a merge keeps no samples.
    cache: Arc<BlockCache>,
}

impl Compaction {
    /// Jobs over the manifests of a signal and the store that holds its blocks.
    pub fn new(store: Arc<dyn ObjectStore>, manifests: Arc<Manifests>) -> Self {
        Self { store, manifests, cache: BlockCache::new(CACHE_BYTES) }
    }
}

/// Enough for the tables of the inputs of one job that are read side by side.
const CACHE_BYTES: usize = 64 << 20;
