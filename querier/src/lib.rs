//! The querier: PromQL and SQL over recent data and blocks, as DataFusion plans, and the HTTP API over it.
//!
//! **Architecture Invariant:** the querier never writes.

#![forbid(unsafe_code)]

mod config;
mod dataset;
mod engine;
mod error;
pub mod flight;
pub mod http;
mod metrics;
pub mod postgres;
mod promql;
mod queue;
mod sql;

pub use config::QuerierConfig;
pub use dataset::{DataSource, Dataset, Selection, TENANT_LABEL};
pub use engine::{PromAnswer, PromQuery, Querier};
pub use error::QueryError;
pub use metrics::{Language, QuerierMetrics};
pub use sql::{SqlAnswer, SqlPlan};
