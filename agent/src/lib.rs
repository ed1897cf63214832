//! The agent: what runs on each node. It collects this host's metrics, scrapes targets, and writes what it finds through a
//! [`sextant_proto::WriteSink`].
//!
//! **Architecture Invariant:** the agent reads the host and never changes it; it keeps nothing on disk.

#![deny(unsafe_code)]

mod active;
mod clock;
mod config;
mod error;
pub mod exposition;
pub mod host;
mod metrics;
mod queue;
pub mod relabel;
pub mod scrape;
mod service;
mod yaml;

pub use config::AgentConfig;
pub use error::{AgentError, ConfigError};
pub use metrics::AgentMetrics;
pub use scrape::{RelabelStepsError, ScrapeConfigs, TargetReport, TargetStates};
pub use service::{Agent, LastReload};
