//! Wire contracts: what roles send each other, what clients send us, and one table of status codes.
//!
//! **Architecture Invariant:** contracts only. No role's logic, no files; only [`rpc`], through which roles of different processes
//! keep these contracts, speaks over a network.

pub mod fault;
#[doc(hidden)]
pub mod fuzz;
mod limits;
pub mod metric_family;
pub mod remote_read;
pub mod remote_write;
mod roles;
pub mod rpc;
mod status;
mod write;
mod write_batch;

pub use limits::{LimitDuration, Limits, LimitsError, LimitsHandle, TenantLimits};
pub use roles::{
    AppendOutcome, DeleteOutcome, DeleteRequest, ExemplarSeries, HeadSelection, MetadataEntry, Refusal,
    RefusalKind, SelectLimits, SelectRequest, ShardClient, ShardError, ShardId, ShardStats, WriteSink,
};
pub use status::ErrorClass;
pub use write::{RefusedSeries, SeriesWrite, Temporality, WriteError, WriteRequest, WriteSummary};
pub use write_batch::{
    BatchHeader, ExemplarView, HistogramView, MalformedBatch, NEW_SERIES_BASE, NewSeriesView, Run,
    SERIES_DELTA, WriteBatchBuilder, WriteBatchView,
};
