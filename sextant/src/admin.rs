//! Prometheus' administration of stored data: `/api/v1/admin/tsdb/…`, refused unless `http.admin_api` is on.
//!
//! The querier writes nothing, so these handlers are the process's: they parse what to delete and hand it to the roles that
//! write the log and the manifest.

use std::sync::Arc;

use axum::{
    Extension, Router,
    body::Bytes,
    extract::{RawQuery, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::post,
};
use sextant_compactor::Compactor;
use sextant_ingester::{SeriesDeletion, delete_series};
use sextant_model::TenantId;
use sextant_proto::{ErrorClass, ShardClient};
use sextant_querier::http::{BadParameter, Params, Tenants};
use sextant_storage::Manifests;

use crate::http::{error, one_tenant};

/// What the handlers need.
#[derive(Clone)]
pub struct Admin {
    /// `http.admin_api`.
    pub enabled: bool,
    /// Deletes recent data.
    pub shards: Arc<dyn ShardClient>,
    /// Where the deletion of older data is noted.
    pub manifests: Arc<Manifests>,
    /// Writes blocks again without deleted data.
    pub compactor: Arc<Compactor>,
}

impl Admin {
    /// What is answered where the API is off.
    fn refusal(&self) -> Option<Response> {
        (!self.enabled).then(|| error(ErrorClass::Unavailable, "admin APIs disabled"))
    }
}

/// The routes, below `/api/v1`.
pub fn routes(admin: Admin) -> Router {
    Router::new()
        .route("/admin/tsdb/delete_series", post(delete).put(delete))
        .route("/admin/tsdb/clean_tombstones", post(clean_tombstones).put(clean_tombstones))
        .route("/admin/tsdb/snapshot", post(snapshot).put(snapshot))
        .with_state(admin)
}

async fn delete(
    State(admin): State<Admin>,
    Extension(tenants): Extension<Tenants>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if let Some(refusal) = admin.refusal() {
        return refusal;
    }
    let form = if is_form(&headers) { &body[..] } else { &[] };
    let params = Params::parse(query.as_deref(), form);
    let deletion = match one_tenant(&tenants).and_then(|tenant| parse(&params, tenant)) {
        Ok(deletion) => deletion,
        Err(reason) => return error(ErrorClass::BadRequest, &reason),
    };
    match delete_series(&*admin.shards, &admin.manifests, &deletion).await {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(e) => error(e.class(), &format!("the deletion is not complete, ask for it again: {e}")),
    }
}

async fn clean_tombstones(State(admin): State<Admin>, Extension(tenants): Extension<Tenants>) -> Response {
    if let Some(refusal) = admin.refusal() {
        return refusal;
    }
    let tenant = match one_tenant(&tenants) {
        Ok(tenant) => tenant,
        Err(reason) => return error(ErrorClass::BadRequest, &reason),
    };
    match admin.compactor.clean_tombstones(&tenant).await {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(e) => error(e.class(), &format!("cleaning tombstones: {e}")),
    }
}

async fn snapshot(State(admin): State<Admin>) -> Response {
    admin.refusal().unwrap_or_else(|| {
        error(
            ErrorClass::Unavailable,
            "there are no snapshots: blocks in the object store never change, so after a flush a copy of the bucket is one",
        )
    })
}

fn is_form(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
    kind.split(';').next().unwrap_or("").trim().eq_ignore_ascii_case("application/x-www-form-urlencoded")
}

/// Reads the parameters in the order in which Prometheus looks at them. As there, an end before the start and a selector without
/// matchers delete nothing, and one that any series fulfils is taken at its word.
fn parse(params: &Params, tenant: TenantId) -> Result<SeriesDeletion, String> {
    let given = params.all("match[]");
    if given.is_empty() {
        return Err("no match[] parameter provided".to_owned());
    }
    let start = params.time_or("start", i64::MIN).map_err(|e| e.to_string())?;
    let end = params.time_or("end", i64::MAX).map_err(|e| e.to_string())?;
    let selector = |text: &&str| {
        let parsed = sextant_promql::parse_metric_selector(text);
        parsed.map_err(|e| BadParameter::invalid("match[]", e).to_string())
    };
    let mut selectors = given.iter().map(selector).collect::<Result<Vec<_>, String>>()?;
    selectors.retain(|s| !s.is_empty());
    Ok(SeriesDeletion { tenant, selectors, start, end })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_read_as_prometheus_does() {
        let read = |query: &str| parse(&Params::parse(Some(query), b""), TenantId::anonymous());
        let d = read("match[]=up&match[]={a=~\"b.*\"}&start=1.5").unwrap();
        assert_eq!((d.selectors.len(), d.start, d.end), (2, 1500, i64::MAX));
        assert_eq!(read("match[]={}").unwrap().selectors.len(), 0);
        let no_match = "no match[] parameter provided";
        let time = |n| {
            format!(
                "invalid parameter \"{n}\": invalid time value for '{n}': cannot parse \"x\" to a valid timestamp"
            )
        };
        for (query, reason) in [
            ("start=x", no_match.to_owned()),
            ("match[]=up{&start=x&end=x", time("start")),
            ("match[]=up{&end=x", time("end")),
            (
                "match[]=up&match[]=up{",
                "invalid parameter \"match[]\": 1:4: parse error: unexpected end of input inside braces"
                    .to_owned(),
            ),
        ] {
            assert_eq!(read(query).unwrap_err(), reason, "{query}");
        }
    }
}
