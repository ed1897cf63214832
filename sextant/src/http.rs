//! The HTTP surface: who may ask what where. Roles bring their handlers; this module mounts them, tells tenants apart, and compresses.

use std::sync::Arc;

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{DefaultBodyLimit, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{Html, IntoResponse, Response},
    routing::{any, any_service, get, post},
};
use serde::Deserialize;
use sextant_agent::AgentError;
use sextant_distributor::{Distributor, RemoteWriteHeaders};
use sextant_model::TenantId;
use sextant_proto::ErrorClass;
use sextant_querier::{
    Querier,
    http::{
        CorsOrigin, Surroundings, Tenants, federation_routes, methods, plain, prometheus_routes, push_string,
    },
};
use sextant_replication::metadata::MemberState;

use crate::{
    admin::{self, Admin},
    overview::Overview,
    readiness::{Readiness, obstacles},
    shards::Shards,
};

/// The header that names the tenant.
pub const TENANT_HEADER: &str = "x-scope-orgid";

/// What handlers share.
#[derive(Clone)]
pub struct Surface {
    /// Takes writes.
    pub distributor: Option<Arc<Distributor>>,
    /// Takes OTLP.
    pub otlp: Option<crate::otlp::Otlp>,
    /// Deletes.
    pub admin: Admin,
    /// Flushes.
    pub shards: Shards,
    /// Answers.
    pub querier: Option<Querier>,
    /// What the page shows.
    pub overview: Arc<Overview>,
    /// What `/ready` says.
    pub ready: Readiness,
    /// Whether requests must name their tenant.
    pub multi_tenancy: bool,
    /// Bytes of a request's body on the wire.
    pub body_max: usize,
    /// What the API shows of the process.
    pub around: Surroundings,
    /// Which pages may read the API's answers.
    pub cors: CorsOrigin,
}

/// Every route.
pub fn router(surface: Surface) -> Router {
    let operate = Router::new().route("/admin/flush", post(flush)).with_state(surface.clone());
    let mut api = operate.merge(admin::routes(surface.admin.clone()));
    if let Some(querier) = &surface.querier {
        api = api.merge(prometheus_routes(querier.clone(), surface.around.clone()));
    }
    if surface.distributor.is_some() {
        let write = Router::new()
            .route("/push", post(remote_write))
            .route("/write", post(remote_write))
            .route_layer(middleware::from_fn_with_state(surface.clone(), bounded))
            .route_layer(DefaultBodyLimit::disable())
            .with_state(surface.clone());
        api = api.merge(write);
    }
    let cors = surface.cors.clone();
    let around_api = move |request: Request, next: Next| methods(cors.clone(), request, next);
    let api = api.layer(middleware::from_fn_with_state(surface.clone(), tenants)).fallback(not_found);
    // Around the router as a whole, so that it sees what the router itself says of methods.
    let api = Router::new().fallback_service(api).layer(middleware::from_fn(around_api));
    let pages = Router::new()
        .route("/", get(page))
        .route("/api/v1/overview", get(overview))
        .route("/api/v1/cluster/status", get(cluster_status))
        .route("/api/v1/admin/cluster/{change}", post(change_member))
        .route("/metrics", get(metrics))
        .route("/ready", get(ready))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/-/ready", get(ready))
        .route("/-/healthy", get(|| async { "ok\n" }))
        .route("/-/reload", post(reload).put(reload))
        .fallback(any(not_found))
        .with_state(surface.clone());
    let mut all = pages.nest_service("/api/v1", api.clone()).nest_service("/prometheus/api/v1", api);
    if let Some(querier) = &surface.querier {
        let federation = federation_routes(querier.clone())
            .layer(middleware::from_fn_with_state(surface.clone(), tenants));
        let no_pages = |request: Request, next: Next| methods(CorsOrigin::default(), request, next);
        let federation = Router::new().fallback_service(federation).layer(middleware::from_fn(no_pages));
        all = all.route("/federate", any_service(federation.clone())).nest_service("/prometheus", federation);
    }
    if let Some(otlp) = &surface.otlp {
        let otlp = crate::otlp::routes(otlp.clone())
            .layer(middleware::from_fn_with_state(surface.clone(), bounded))
            .layer(DefaultBodyLimit::disable())
            .layer(middleware::from_fn_with_state(surface.clone(), tenants));
        all = all.merge(otlp.clone()).nest("/otlp", otlp.clone()).nest("/api/v1/otlp", otlp);
    }
    all.layer(DefaultBodyLimit::max(surface.body_max))
        .layer(tower_http::compression::CompressionLayer::new().gzip(true).zstd(true))
}

async fn not_found() -> Response {
    plain(StatusCode::NOT_FOUND, "404 page not found")
}

async fn page() -> Html<&'static str> {
    Html(include_str!("../../ui/index.html"))
}

async fn overview(State(s): State<Surface>) -> Response {
    match s.overview.json(&s.ready, s.multi_tenancy).await {
        Ok(value) => Json(value).into_response(),
        Err(e) => error(ErrorClass::Internal, &e.to_string()),
    }
}

/// Reads the scrape configuration now, as Prometheus does where its lifecycle API is on.
async fn reload(State(s): State<Surface>) -> Response {
    if !s.admin.enabled {
        return plain(StatusCode::FORBIDDEN, "Lifecycle API is not enabled.");
    }
    let Some(agent) = &s.overview.agent else { return StatusCode::OK.into_response() };
    match agent.reload().await {
        Ok(()) | Err(AgentError::NoConfigFile) => StatusCode::OK.into_response(),
        Err(e) => plain(StatusCode::INTERNAL_SERVER_ERROR, &format!("failed to reload config: {e}")),
    }
}

async fn metrics(State(s): State<Surface>) -> Response {
    let text = s.overview.metrics();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

async fn ready(State(s): State<Surface>) -> Response {
    match obstacles(&s.ready, &s.shards) {
        none if none.is_empty() => "ready\n".into_response(),
        some => (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", some.join("\n"))).into_response(),
    }
}

/// An error in Prometheus' form.
pub fn error(class: ErrorClass, message: &str) -> Response {
    let mut body = format!("{{\"status\":\"error\",\"errorType\":\"{}\",\"error\":", class.prometheus());
    push_string(&mut body, message);
    body.push('}');
    let status = StatusCode::from_u16(class.http()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// The tenants that a header names: one for writes, several joined with `|` for reads.
pub fn resolve_tenants(header: Option<&str>, multi_tenancy: bool) -> Result<Vec<TenantId>, String> {
    if !multi_tenancy {
        return Ok(vec![TenantId::anonymous()]);
    }
    let header = header.filter(|h| !h.is_empty()).ok_or("no org id: the header X-Scope-OrgID is required")?;
    let mut tenants = header
        .split('|')
        .map(|t| TenantId::new(t).map_err(|e| e.to_string()))
        .collect::<Result<Vec<_>, _>>()?;
    tenants.sort();
    tenants.dedup();
    Ok(tenants)
}

async fn tenants(State(s): State<Surface>, mut request: Request, next: Next) -> Response {
    let header = match request.headers().get(TENANT_HEADER).map(|v| v.to_str()) {
        Some(Err(_)) => return error(ErrorClass::Unauthenticated, "the header X-Scope-OrgID is not text"),
        Some(Ok(text)) => Some(text),
        None => None,
    };
    match resolve_tenants(header, s.multi_tenancy) {
        Ok(tenants) => {
            request.extensions_mut().insert(Tenants(tenants));
            next.run(request).await
        }
        Err(reason) => error(ErrorClass::Unauthenticated, &reason),
    }
}

/// Reads a write's body, up to what its tenant may send.
async fn bounded(
    State(s): State<Surface>,
    axum::Extension(tenants): axum::Extension<Tenants>,
    request: Request,
    next: Next,
) -> Response {
    let (Ok(tenant), Some(distributor)) = (one_tenant(&tenants), &s.distributor) else {
        return next.run(request).await;
    };
    let most = distributor.max_request_bytes(&tenant);
    let (parts, body) = request.into_parts();
    let read = axum::body::to_bytes(body, most).await.map_err(axum::Error::into_inner);
    match read {
        Ok(bytes) => next.run(Request::from_parts(parts, Body::from(bytes))).await,
        Err(e) if e.is::<http_body_util::LengthLimitError>() => plain(
            StatusCode::PAYLOAD_TOO_LARGE,
            &format!(
                "limit max_request_bytes ({most}) exceeded by a request's body; raise it with limits key max_request_bytes"
            ),
        ),
        Err(_) => error(ErrorClass::BadRequest, "the request's body broke off"),
    }
}

/// The one tenant of a write.
pub fn one_tenant(tenants: &Tenants) -> Result<TenantId, String> {
    match tenants.0.as_slice() {
        [one] => Ok(one.clone()),
        _ => Err("a write names exactly one tenant".to_owned()),
    }
}

async fn remote_write(
    State(s): State<Surface>,
    axum::Extension(tenants): axum::Extension<Tenants>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let Some(distributor) = &s.distributor else { return not_found().await };
    let tenant = match one_tenant(&tenants) {
        Ok(t) => t,
        Err(reason) => return error(ErrorClass::BadRequest, &reason),
    };
    let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
    let request = RemoteWriteHeaders {
        content_type: text("content-type"),
        content_encoding: text("content-encoding"),
        version: text("x-prometheus-remote-write-version"),
    };
    let answer = distributor.remote_write(&tenant, &request, body).await;
    let mut response = Response::new(Body::from(answer.body));
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in answer.headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FlushParams {
    #[serde(default)]
    compact: bool,
}

async fn flush(
    State(s): State<Surface>,
    axum::Extension(tenants): axum::Extension<Tenants>,
    axum::extract::RawQuery(query): axum::extract::RawQuery,
) -> Response {
    let params: FlushParams = match serde_urlencoded::from_str(query.as_deref().unwrap_or("")) {
        Ok(p) => p,
        Err(e) => return error(ErrorClass::BadRequest, &e.to_string()),
    };
    if let Err(e) = s.shards.flush().await {
        return error(ErrorClass::Unavailable, &format!("{e:#}"));
    }
    if params.compact {
        for tenant in &tenants.0 {
            if let Err(e) = s.overview.compact(tenant).await {
                return error(ErrorClass::Unavailable, &format!("compaction: {e}"));
            }
        }
    }
    StatusCode::NO_CONTENT.into_response()
}

async fn cluster_status(State(s): State<Surface>) -> Response {
    match s.shards.cluster() {
        Some(cluster) => Json(cluster.status().await).into_response(),
        None => error(ErrorClass::NotFound, "all roles run in this one process: there is no cluster"),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MemberParams {
    member: String,
}

async fn change_member(
    State(s): State<Surface>,
    axum::extract::Path(change): axum::extract::Path<String>,
    axum::extract::RawQuery(query): axum::extract::RawQuery,
) -> Response {
    let state = match change.as_str() {
        "drain" => MemberState::Draining,
        "remove" => MemberState::Left,
        "activate" => MemberState::Active,
        _ => return not_found().await,
    };
    let params: MemberParams = match serde_urlencoded::from_str(query.as_deref().unwrap_or("")) {
        Ok(p) => p,
        Err(e) => return error(ErrorClass::BadRequest, &e.to_string()),
    };
    let Some(cluster) = s.shards.cluster() else {
        return error(ErrorClass::NotFound, "all roles run in this one process: there is no cluster");
    };
    match cluster.set_member(&params.member, state).await {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(e) => error(ErrorClass::Unavailable, &format!("{e:#}")),
    }
}
