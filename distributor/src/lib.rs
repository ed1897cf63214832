//! The distributor: takes writes of every protocol, checks them, applies the tenant's limits and routes them to shards.
//!
//! **Architecture Invariant:** no state that matters. What it remembers of series is a cache; a request is answered only after the
//! shards have it on disk.

#![forbid(unsafe_code)]

mod canonical;
mod config;
mod error;
mod identity;
mod limits_watcher;
mod metrics;
pub mod otlp;
mod rate;
mod remote_write;
mod rows;
mod send;
mod service;
mod snappy;
mod wire;

pub use config::DistributorConfig;
pub use error::RequestError;
pub use limits_watcher::LimitsWatcher;
pub use metrics::DistributorMetrics;
pub use remote_write::{RemoteWriteAnswer, RemoteWriteHeaders};
pub use service::Distributor;

/// Entry points for fuzzing: each takes any bytes and must neither panic nor take memory beyond its input's bounds.
#[doc(hidden)]
pub mod fuzz {
    pub use crate::remote_write::{fuzz_v1, fuzz_v2};
}
