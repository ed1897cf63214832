//! The HTTP API: Prometheus' endpoints, SQL, and plans as text. Every path is a public contract.
//!
//! Handlers take the tenants from a request extension that the process sets; they know nothing of how tenants are told apart.

mod answers;
mod cardinality;
mod federate;
mod json;
mod methods;
mod params;
mod prometheus;
mod remote_read;
mod sql;
mod status;

use axum::Router;
use sextant_model::TenantId;

pub use self::federate::routes as federation_routes;
pub use self::json::push_string;
pub use self::methods::{CorsOrigin, methods, plain};
pub use self::params::{BadParameter, Params, parse_span, parse_time};
pub use self::status::{Surroundings, TargetStates, TargetsSource};
use crate::engine::Querier;

/// The tenants that a request reads: an extension of the request.
#[derive(Clone, Debug)]
pub struct Tenants(pub Vec<TenantId>);

/// The Prometheus API, to be mounted at `/api/v1` and `/prometheus/api/v1`.
pub fn prometheus_routes(querier: Querier, around: Surroundings) -> Router {
    prometheus::routes(querier.clone())
        .merge(status::routes(querier.clone(), around))
        .merge(cardinality::routes(querier.clone()))
        .merge(remote_read::routes(querier.clone()))
        .merge(sql::routes(querier))
}
