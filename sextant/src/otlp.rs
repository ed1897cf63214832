//! OTLP mounted on the listeners: HTTP routes and the gRPC service over the distributor.

use std::sync::Arc;

use axum::{
    Extension, Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::Response,
    routing::post,
};
use sextant_distributor::{
    Distributor,
    otlp::{MetricsReceiver, OtlpHeaders, OtlpOptions, export_metrics, metrics_service},
};
use sextant_proto::ErrorClass;
use sextant_querier::http::Tenants;

use crate::http::{error, one_tenant, resolve_tenants};

/// What the routes share.
#[derive(Clone)]
pub struct Otlp {
    /// Takes writes.
    pub distributor: Arc<Distributor>,
    /// How names are translated.
    pub options: Arc<OtlpOptions>,
}

/// `/v1/metrics`, to be mounted where clients expect it.
pub fn routes(otlp: Otlp) -> Router {
    Router::new().route("/v1/metrics", post(metrics)).with_state(otlp)
}

async fn metrics(
    State(otlp): State<Otlp>,
    Extension(tenants): Extension<Tenants>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let tenant = match one_tenant(&tenants) {
        Ok(t) => t,
        Err(reason) => return error(ErrorClass::BadRequest, &reason),
    };
    let text = |name: header::HeaderName| headers.get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
    let request = OtlpHeaders {
        content_type: text(header::CONTENT_TYPE),
        content_encoding: text(header::CONTENT_ENCODING),
    };
    let answer = export_metrics(&otlp.distributor, &tenant, &request, body, &otlp.options).await;
    let mut response = Response::new(Body::from(answer.body));
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(answer.content_type));
    if let Some(seconds) = answer.retry_after_s {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// The gRPC service.
pub fn grpc_service(otlp: &Otlp, multi_tenancy: bool) -> MetricsReceiver {
    let tenant = Arc::new(move |header: Option<&str>| {
        let tenants = Tenants(resolve_tenants(header, multi_tenancy)?);
        one_tenant(&tenants)
    });
    metrics_service(otlp.distributor.clone(), (*otlp.options).clone(), tenant)
}
