//! The ingester: takes write batches into a shard's replicated log, holds recent rows in memory, answers reads of them, and
//! flushes them into blocks.
//!
//! It acknowledges a batch when the batch is committed in the log and applied, and drops rows only when a manifest names a
//! block that has them. It never parses a protocol, routes a series to a shard, or reads a block.
//!
//! ```text
//! Ingester::open(IngesterConfig, manifests) -> Arc<Ingester>             impl sextant_proto::ShardClient
//! Ingester::open_node(IngesterConfig, node, manifests)                   impl sextant_proto::rpc::LocalShards
//!     .open_shard(id, GroupOptions)   .close_shard(id)
//!     .flush_now()    seal, write, commit everything there is            .shutdown()
//!     .metrics() / .render_metrics(&mut String)
//! delete_series(shards, manifests, &SeriesDeletion)    in all heads and blocks
//! head::Head          the state machine alone: apply, restore, select …; no I/O, no tokio
//! ```

#![forbid(unsafe_code)]

mod block;
mod config;
mod delete;
mod error;
mod flush;
pub mod head;
mod local;
mod machine;
mod metrics;
mod service;
mod shard;

pub use config::IngesterConfig;
pub use delete::{DeleteError, SeriesDeletion, delete_series};
pub use error::{FlushError, OpenError};
pub use machine::ShardStateMachine;
pub use metrics::IngesterMetrics;
pub use service::Ingester;
