//! The traits through which roles call each other, in one process or over gRPC.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use sextant_model::{Exemplar, Labels, Matcher, MetricMetadata, SeriesSet, TenantId};

use crate::{ErrorClass, WriteError, WriteRequest, WriteSummary};

/// A shard: one Raft group of ingesters.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ShardId(pub u32);

/// Takes decoded writes. Implemented by the distributor; called by the agent and by receivers.
#[async_trait]
pub trait WriteSink: Send + Sync + 'static {
    /// Returns once everything that is not refused is on a majority's disk.
    async fn write(&self, tenant: &TenantId, request: WriteRequest) -> Result<WriteSummary, WriteError>;
}

/// Why one item of a batch was not applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalKind {
    /// The tenant has as many active series as its limit allows.
    SeriesLimit,
    /// The sample is older than the tenant's out-of-order window.
    OutsideWindow,
}

/// One item of a batch that was not applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The series as it was named in the batch (a known ref, or [`crate::NEW_SERIES_BASE`] + index).
    pub series: u32,
    /// How many samples, histograms and exemplars of it were refused.
    pub samples: u32,
    /// Why.
    pub kind: RefusalKind,
}

/// What applying a batch gave. The same on every replica.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AppendOutcome {
    /// The epoch (head generation) in which `new_refs` are valid.
    pub epoch: u64,
    /// For each new series of the batch, in order: its ref in this epoch, or `u32::MAX` where it was refused.
    pub new_refs: Vec<u32>,
    /// The batch's write id had been applied before; nothing was changed.
    pub duplicate: bool,
    /// Items not applied.
    pub refused: Vec<Refusal>,
}

/// Why a shard did not do what it was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ShardError {
    /// The batch names refs of another epoch: send it again with labels.
    #[error("series refs are of an epoch that has ended; the current one is {current}")]
    StaleEpoch {
        /// The epoch whose refs are accepted now.
        current: u64,
    },
    /// Memory or queue bound reached: wait and repeat.
    #[error("{0}")]
    Overloaded(String),
    /// Log or disk cannot take it now.
    #[error("{0}")]
    Unavailable(String),
    /// The batch is not well-formed.
    #[error("malformed batch: {0}")]
    Malformed(String),
    /// A read exceeds a limit; the text names it.
    #[error("{0}")]
    Limit(String),
}

impl ShardError {
    /// What the caller must do.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::StaleEpoch { .. } | Self::Unavailable(_) => ErrorClass::Unavailable,
            Self::Overloaded(_) => ErrorClass::TooManyRequests,
            Self::Malformed(_) => ErrorClass::Internal,
            Self::Limit(_) => ErrorClass::Unprocessable,
        }
    }
}

/// Bounds on what one read may return.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SelectLimits {
    /// At most this many series.
    pub series_max: usize,
    /// At most this many samples, of both kinds.
    pub samples_max: usize,
}

impl Default for SelectLimits {
    fn default() -> Self {
        Self { series_max: usize::MAX, samples_max: usize::MAX }
    }
}

/// A read of one shard's head.
#[derive(Clone, Debug)]
pub struct SelectRequest {
    /// Whose data.
    pub tenant: TenantId,
    /// All must match; none selects every series.
    pub matchers: Vec<Matcher>,
    /// First timestamp, inclusive, milliseconds.
    pub start: i64,
    /// Last timestamp, inclusive, milliseconds.
    pub end: i64,
    /// Only what was written by log entries after this index (what the manifest in use does not cover).
    pub after: u64,
    /// Bounds; more is an error, never a cut answer.
    pub limits: SelectLimits,
}

/// A deletion of a tenant's series within one shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeleteRequest {
    /// Whose data.
    pub tenant: TenantId,
    /// Names the deletion on all shards and in the manifest; a repetition with the same id changes nothing.
    pub id: u128,
    /// When it was asked for, milliseconds since the epoch: ids are forgotten by these clocks.
    pub now_ms: i64,
    /// A series is deleted where all matchers of one of the selectors match.
    pub selectors: Vec<Vec<Matcher>>,
    /// First timestamp, inclusive, milliseconds.
    pub start: i64,
    /// Last timestamp, inclusive, milliseconds.
    pub end: i64,
}

/// Where a deletion is in a shard's log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeleteOutcome {
    /// Its log position: rows of entries up to it are deleted, later ones are not.
    pub position: u64,
    /// The end of the last generation before it that is in memory with rows of the tenant; 0 for none. Where the tenant's
    /// manifest covers it, everything that the deletion concerns is in blocks.
    pub pending: u64,
}

/// Exemplars of one series.
#[derive(Clone, Debug, PartialEq)]
pub struct ExemplarSeries {
    /// The series.
    pub labels: Labels,
    /// Its exemplars in order of time.
    pub exemplars: Vec<Exemplar>,
}

/// Metadata of one metric family.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MetadataEntry {
    /// The family's name.
    pub name: String,
    /// What is known of it.
    pub metadata: MetricMetadata,
}

/// What a shard's head holds of a tenant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShardStats {
    /// Series in the head.
    pub series: u64,
    /// Samples in the head, of both kinds.
    pub samples: u64,
    /// Earliest timestamp; `i64::MAX` where there is none.
    pub min_t: i64,
    /// Latest timestamp; `i64::MIN` where there is none.
    pub max_t: i64,
}

/// Series of a head that a read selects: found, their samples not read yet. A reader of many series holds the samples of a few
/// at a time.
#[async_trait]
pub trait HeadSelection: Send + Sync {
    /// The series' labels, in order. Among them may be some without a sample in the range.
    fn labels(&self) -> &[Labels];

    /// About how many samples series `i` has in the range; a histogram counts as 16.
    fn estimate(&self, i: usize) -> usize;

    /// The samples of a range of [`Self::labels`], of those series that have one in the selection's range.
    async fn read(&self, series: std::ops::Range<usize>) -> Result<SeriesSet, ShardError>;
}

/// Samples that are in memory anyway.
#[async_trait]
impl HeadSelection for SeriesSet {
    fn labels(&self) -> &[Labels] {
        &self.labels
    }

    fn estimate(&self, i: usize) -> usize {
        self.floats(i).0.len() + self.histograms(i).len() * 16
    }

    async fn read(&self, series: std::ops::Range<usize>) -> Result<SeriesSet, ShardError> {
        Ok(self.slice(series))
    }
}

/// A shard's ingesters, as distributors and queriers see them.
///
/// Reads answer from generations that are wholly after `SelectRequest::after`. A read sees every batch whose append
/// returned before the read began.
#[async_trait]
pub trait ShardClient: Send + Sync + 'static {
    /// How many shards there are.
    fn shard_count(&self) -> u32;

    /// The epoch whose refs a shard accepts now.
    fn epoch(&self, shard: ShardId) -> u64;

    /// Appends a batch made by [`crate::WriteBatchBuilder`]. Idempotent by write id. Returns when it is committed and applied.
    async fn append(&self, shard: ShardId, batch: Bytes) -> Result<AppendOutcome, ShardError>;

    /// Deletes what was acknowledged before: samples of both kinds and exemplars. Returns when it is committed and applied.
    /// What is in blocks already is the caller's to delete, by a tombstone in the manifest.
    async fn delete(&self, shard: ShardId, request: DeleteRequest) -> Result<DeleteOutcome, ShardError> {
        let _ = request;
        Err(ShardError::Unavailable(format!("shard {} takes no deletions", shard.0)))
    }

    /// The samples of matching series that have one in the range.
    async fn select(&self, shard: ShardId, request: SelectRequest) -> Result<SeriesSet, ShardError>;

    /// The same, to be read in parts: selections whose samples together are those of [`Self::select`]. For equal series and
    /// timestamps the later selection's sample is newer.
    async fn find(
        &self,
        shard: ShardId,
        request: SelectRequest,
    ) -> Result<Vec<Arc<dyn HeadSelection>>, ShardError> {
        Ok(vec![Arc::new(self.select(shard, request).await?)])
    }

    /// The labels of matching series that have a sample in the range, in no order.
    async fn series(&self, shard: ShardId, request: SelectRequest) -> Result<Vec<Labels>, ShardError>;

    /// The distinct values of a label (`Some(name)`) or the distinct label names (`None`) over matching series.
    async fn label_values(
        &self,
        shard: ShardId,
        request: SelectRequest,
        label: Option<String>,
    ) -> Result<Vec<String>, ShardError>;

    /// Exemplars of matching series in the range.
    async fn exemplars(
        &self,
        shard: ShardId,
        request: SelectRequest,
    ) -> Result<Vec<ExemplarSeries>, ShardError>;

    /// All metadata the head holds of a tenant.
    async fn metadata(
        &self,
        shard: ShardId,
        tenant: TenantId,
        after: u64,
    ) -> Result<Vec<MetadataEntry>, ShardError>;

    /// Counts for a tenant.
    async fn stats(&self, shard: ShardId, tenant: TenantId, after: u64) -> Result<ShardStats, ShardError>;

    /// Tenants with data in the head.
    async fn tenants(&self, shard: ShardId) -> Result<Vec<TenantId>, ShardError>;
}
