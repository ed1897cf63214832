//! Which right a request needs, by method and path. What no rule names is refused, so that a new route is closed until a rule
//! for it is written here.
//!
//! | path | needs |
//! |---|---|
//! | `/ready`, `/healthz`, `/-/ready`, `/-/healthy`, gRPC health | nothing: probes have no credentials |
//! | `OPTIONS` of the query API | nothing: a browser asks before it sends credentials |
//! | `/api/v1/push`, `/api/v1/write`, `…/otlp/v1/*`, `/v1/metrics`, `/v1/logs`, `/v1/traces`, OTLP over gRPC | write |
//! | `/api/v1/admin/tsdb/*` | admin, for the request's tenants |
//! | `/api/v1/admin/*`, `/-/reload` | admin, for all tenants: the process is everyone's |
//! | `/api/v1/overview`, `…/cluster/status`, `…/status/config`, `flags`, `runtimeinfo`, `targets`, `targets/*`, `scrape_pools` | read, for all tenants |
//! | every other `GET` of `/api/v1/*`, the queries by `POST`, `/federate`, Flight SQL | read |
//! | `/metrics`, `/` | read, for whatever tenants: they show no tenant's data |
//!
//! `/` needs credentials, though it shows nothing, because a browser asks a person for them only when a page does.
//! `/prometheus` in front of `/api/v1` and `/federate` changes nothing.

use http::Method;

use crate::identity::Right;

/// What a request needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Nothing.
    Open,
    /// The right for the tenants that the request names.
    Tenants(Right),
    /// The right, for whatever tenants.
    AnyTenant(Right),
    /// The right for every tenant.
    AllTenants(Right),
    /// Nothing suffices.
    Denied,
}

/// What an HTTP request or a gRPC call needs. `path` is as it was sent, without the query.
pub fn access(method: &Method, path: &str) -> Access {
    let is_get = *method == Method::GET || *method == Method::HEAD;
    let is_post = *method == Method::POST;
    match path {
        "/ready" | "/healthz" | "/-/ready" | "/-/healthy" if is_get => return Access::Open,
        "/" | "/metrics" if is_get => return Access::AnyTenant(Right::Read),
        "/-/reload" if is_post || *method == Method::PUT => return Access::AllTenants(Right::Admin),
        _ => {}
    }
    let path = path.strip_prefix("/prometheus").filter(|p| p.starts_with('/')).unwrap_or(path);
    if let Some(api) = path.strip_prefix("/api/v1/") {
        return api_access(method, api);
    }
    let otlp = path.strip_prefix("/otlp").unwrap_or(path);
    match otlp {
        "/v1/metrics" | "/v1/logs" | "/v1/traces" if is_post => return Access::Tenants(Right::Write),
        _ => {}
    }
    match path {
        "/federate" if is_get => Access::Tenants(Right::Read),
        _ if is_post => rpc_access(path),
        _ => Access::Denied,
    }
}

/// Queries that may be sent as a form or a body, because they may be longer than an address.
const QUERIES: &[&str] = &[
    "query",
    "query_range",
    "query_exemplars",
    "series",
    "labels",
    "format_query",
    "parse_query",
    "explain",
    "read",
    "sql",
    "cardinality/label_names",
    "cardinality/label_values",
    "cardinality/active_series",
];

/// What shows more than one tenant's data, or the process itself.
const OF_THE_PROCESS: &[&str] = &[
    "overview",
    "cluster/status",
    "status/config",
    "status/flags",
    "status/runtimeinfo",
    "targets",
    "targets/metadata",
    "targets/relabel_steps",
    "scrape_pools",
];

fn api_access(method: &Method, path: &str) -> Access {
    // Spelt otherwise, a path would be judged as one thing and served as another.
    if path.split('/').any(|segment| matches!(segment, "" | "." | "..")) {
        return Access::Denied;
    }
    let label_name = path.strip_prefix("label/").and_then(|p| p.strip_suffix("/values"));
    if path.contains('%') && label_name.is_none_or(|name| name.contains('/')) {
        return Access::Denied;
    }
    let is_get = *method == Method::GET || *method == Method::HEAD;
    let is_post = *method == Method::POST;
    match path {
        "push" | "write" | "otlp/v1/metrics" | "otlp/v1/logs" | "otlp/v1/traces" => match is_post {
            true => Access::Tenants(Right::Write),
            false => Access::Denied,
        },
        _ if path.starts_with("admin/tsdb/") => Access::Tenants(Right::Admin),
        _ if path.starts_with("admin/") => Access::AllTenants(Right::Admin),
        _ if *method == Method::OPTIONS => Access::Open,
        _ if is_get && OF_THE_PROCESS.contains(&path) => Access::AllTenants(Right::Read),
        _ if is_get || is_post && QUERIES.contains(&path) => Access::Tenants(Right::Read),
        _ => Access::Denied,
    }
}

/// gRPC: `/package.Service/Method`. Calls between roles have rules of their own ([`crate::RoleLayer`]).
fn rpc_access(path: &str) -> Access {
    let Some((service, method)) = path.strip_prefix('/').and_then(|p| p.split_once('/')) else {
        return Access::Denied;
    };
    match (service, method) {
        ("grpc.health.v1.Health", _) => Access::Open,
        ("arrow.flight.protocol.FlightService", _) => Access::Tenants(Right::Read),
        (otlp, "Export") if otlp.starts_with("opentelemetry.proto.collector.") => {
            Access::Tenants(Right::Write)
        }
        _ => Access::Denied,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Access::{AllTenants, AnyTenant, Denied, Open, Tenants};
    use Right::{Admin, Read, Write};

    #[test]
    fn every_route_needs_its_right() {
        for (method, paths, expected) in [
            ("GET", "/ready /healthz /-/ready /-/healthy", Open),
            ("POST", "/grpc.health.v1.Health/Check", Open),
            ("OPTIONS", "/api/v1/query /prometheus/api/v1/labels", Open),
            ("GET", "/ /metrics", AnyTenant(Read)),
            (
                "POST",
                "/api/v1/push /api/v1/write /prometheus/api/v1/write /v1/metrics /v1/logs",
                Tenants(Write),
            ),
            ("POST", "/otlp/v1/metrics /otlp/v1/traces /api/v1/otlp/v1/metrics", Tenants(Write)),
            ("POST", "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export", Tenants(Write)),
            ("POST", "/arrow.flight.protocol.FlightService/DoGet", Tenants(Read)),
            ("GET", "/api/v1/query /api/v1/label/job/values /prometheus/api/v1/series", Tenants(Read)),
            ("GET", "/federate /prometheus/federate /api/v1/status/buildinfo", Tenants(Read)),
            ("GET", "/api/v1/label/a%2Fb/values /api/v1/label/%C3%A9/values", Tenants(Read)),
            ("POST", "/api/v1/query /api/v1/sql /api/v1/read /api/v1/cardinality/label_names", Tenants(Read)),
            ("GET", "/api/v1/overview /api/v1/status/config /api/v1/targets/relabel_steps", AllTenants(Read)),
            ("POST", "/api/v1/admin/flush /prometheus/api/v1/admin/flush", AllTenants(Admin)),
            ("POST", "/-/reload", AllTenants(Admin)),
            ("PUT", "/-/reload", AllTenants(Admin)),
            ("GET", "/api/v1/admin/members", AllTenants(Admin)),
            ("POST", "/api/v1/admin/tsdb/delete_series", Tenants(Admin)),
            ("OPTIONS", "/api/v1/admin/tsdb/delete_series", Tenants(Admin)),
        ] {
            let method: Method = method.parse().unwrap();
            for path in paths.split(' ') {
                assert_eq!(access(&method, path), expected, "{method} {path}");
            }
        }
    }

    #[test]
    fn what_no_rule_names_is_refused() {
        for (method, paths) in [
            (
                "GET",
                "/nowhere /prometheus /prometheusapi/v1/query /api/v1 /api/v1/ /api/v2/query //api/v1/query",
            ),
            ("GET", "/api/v1/push /v1/metrics /otlp/v1/metrics /READY /ready/ /debug/pprof"),
            ("GET", "/api/v1/../admin/flush /api/v1/./query /api/v1//query /api/v1/query/"),
            ("GET", "/api/v1/%61dmin/flush /api/v1/label/x/%61dmin/values /api/v1/%2e%2e/query"),
            ("POST", "/ /metrics /ready /federate /api/v1/rules /api/v1/metadata /api/v1/overview"),
            ("POST", "/v1/metrics/ /otlp/otlp/v1/metrics /opentelemetry.proto.collector.x.X/Delete"),
            ("POST", "/sextant.internal.Shards/Append /FlightService /a/b/c"),
            ("DELETE", "/api/v1/series /api/v1/rules /v1/metrics /"),
            ("PUT", "/api/v1/write /api/v1/query"),
            ("CONNECT", "example.org:443"),
            ("OPTIONS", "* / /api/v1/push"),
            ("GET", ""),
        ] {
            let method: Method = method.parse().unwrap();
            for path in paths.split(' ') {
                assert_eq!(access(&method, path), Denied, "{method} {path}");
            }
        }
    }
}
