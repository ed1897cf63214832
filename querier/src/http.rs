//! The HTTP API: Prometheus' endpoints, SQL, and plans as text. Every path is a public contract.
//!
//! Handlers take the tenants from a request extension that the process sets; they know nothing of how tenants are told apart.

mod answers;
mod json;
mod params;
mod prometheus;
mod sql;

use axum::Router;
use sextant_model::TenantId;

pub use self::json::push_string;
pub use self::params::{BadParameter, Params, parse_span, parse_time};
use crate::engine::Querier;

/// The tenants that a request reads: an extension of the request.
#[derive(Clone, Debug)]
pub struct Tenants(pub Vec<TenantId>);

/// The Prometheus API, to be mounted at `/api/v1` and `/prometheus/api/v1`.
pub fn prometheus_routes(querier: Querier) -> Router {
    prometheus::routes(querier.clone()).merge(sql::routes(querier))
}
