//! The compactor: merges blocks by time window, applies retention, and removes what nothing names any more.
//!
//! It owns the schedule; what a merge is and in which order its steps become visible is the storage crate's. It may
//! end at any point: inputs stay until the manifest names their successor, leftovers are found again as orphans.
//!
//! **Architecture Invariant:** the compactor never holds a lock that a writer or a reader waits for, and keeps no state that
//! matters: everything it needs is in the manifests.

#![forbid(unsafe_code)]

mod config;
mod metrics;
mod service;

pub use config::CompactorConfig;
pub use metrics::CompactorMetrics;
pub use service::Compactor;
