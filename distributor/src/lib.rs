//! The distributor: takes writes of every protocol, checks them, applies the tenant's limits and routes them to shards.
//!
//! The path of a remote-write request, in order of files: `snappy` decompresses it, `remote_write` (`v1`, `v2`) walks
//! it into `rows` with the series `identity` cache, `resolve` checks labels never seen before (`canonical`), `send`
//! makes one batch per shard, `outcome` remembers refs and sums up. `decoded` is the way in for requests of other
//! protocols, `otlp` the OpenTelemetry receiver.
//!
//! **Architecture Invariant:** no state that matters. What it remembers of series is a cache; a request is answered only
//! after the shards have it on disk.

#![forbid(unsafe_code)]

mod canonical;
mod config;
mod decoded;
mod error;
mod identity;
mod limits_watcher;
mod metadata;
mod metrics;
pub mod otlp;
mod outcome;
mod rate;
mod remote_write;
mod resolve;
mod rows;
mod send;
mod service;
mod snappy;
#[doc(hidden)]
pub mod stages;
mod wire;
mod workspace;

pub use config::DistributorConfig;
pub use error::RequestError;
pub use limits_watcher::{LimitsFileError, LimitsWatcher};
pub use metrics::DistributorMetrics;
pub use remote_write::{RemoteWriteAnswer, RemoteWriteHeaders};
pub use service::{Clock, Distributor};

/// Entry points for fuzzing: each takes any bytes and must neither panic nor take memory out of proportion to them.
#[doc(hidden)]
pub mod fuzz {
    pub use crate::{
        otlp::{fuzz_otlp, fuzz_otlp_body},
        remote_write::{fuzz_body, fuzz_walk},
    };
}
