//! The agent: what runs on each node. It collects this host's metrics and writes them through a [`sextant_proto::WriteSink`].
//!
//! **Architecture Invariant:** the agent reads the host and never changes it; it keeps nothing on disk.

#![forbid(unsafe_code)]

mod config;
pub mod host;
mod metrics;
mod service;

pub use config::AgentConfig;
pub use metrics::AgentMetrics;
pub use service::Agent;
