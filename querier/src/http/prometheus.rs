//! Prometheus' HTTP API over the querier.

use std::{collections::BTreeMap, time::Duration};

use axum::{
    Extension, Router,
    body::Bytes,
    extract::{Path, RawQuery, State},
    http::Method,
    response::Response,
    routing::{MethodRouter, get},
};
use sextant_model::{Matcher, TenantId};
use sextant_promql_eval::QueryKind;
use sextant_proto::{ErrorClass, SelectLimits};

use super::{
    Tenants,
    answers::{ApiError, exemplars_json, query_answer, success},
    json::{push_labels, push_string, push_strings},
    params::Params,
};
use crate::{
    dataset::Selection,
    engine::{PromQuery, Querier},
};

type Answer = Result<Response, ApiError>;

/// One request's question: who asks, and with which parameters.
struct Ask {
    tenants: Vec<TenantId>,
    params: Params,
}

/// GET and POST of one endpoint.
fn endpoint<F, Fut>(handler: F) -> MethodRouter<Querier>
where
    F: Fn(Querier, Ask) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Answer> + Send + 'static,
{
    let run = move |State(querier): State<Querier>,
                    Extension(Tenants(tenants)): Extension<Tenants>,
                    method: Method,
                    RawQuery(query): RawQuery,
                    body: Bytes| {
        let form = if method == Method::POST { body } else { Bytes::new() };
        handler(querier, Ask { tenants, params: Params::parse(query.as_deref(), &form) })
    };
    get(run.clone()).post(run)
}

/// All routes.
pub fn routes(querier: Querier) -> Router {
    Router::new()
        .route("/query", endpoint(query))
        .route("/query_range", endpoint(query_range))
        .route("/query_exemplars", endpoint(query_exemplars))
        .route("/series", endpoint(series))
        .route("/labels", endpoint(labels))
        .route(
            "/label/{name}/values",
            get(
                |State(q): State<Querier>,
                 Extension(t): Extension<Tenants>,
                 Path(name): Path<String>,
                 RawQuery(query): RawQuery| {
                    let ask = Ask { tenants: t.0, params: Params::parse(query.as_deref(), b"") };
                    label_values(q, ask, name)
                },
            ),
        )
        .route("/metadata", endpoint(metadata))
        .route("/format_query", endpoint(format_query))
        .route("/parse_query", endpoint(parse_query))
        .route("/explain", endpoint(explain))
        .route("/rules", endpoint(|_, _| std::future::ready(Ok(success("{\"groups\":[]}", &[], &[])))))
        .route("/alerts", endpoint(|_, _| std::future::ready(Ok(success("{\"alerts\":[]}", &[], &[])))))
        .route(
            "/alertmanagers",
            endpoint(|_, _| {
                std::future::ready(Ok(success(
                    "{\"activeAlertmanagers\":[],\"droppedAlertmanagers\":[]}",
                    &[],
                    &[],
                )))
            }),
        )
        .route("/status/buildinfo", endpoint(|_, _| std::future::ready(Ok(build_info()))))
        .with_state(querier)
}

fn now_ms() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64)
}

/// `features` is left out: Grafana takes its presence for Mimir and then asks for a ruler.
fn build_info() -> Response {
    let version = env!("CARGO_PKG_VERSION");
    success(
        &format!(
            "{{\"version\":\"{version}\",\"revision\":\"\",\"branch\":\"\",\"buildUser\":\"\",\"buildDate\":\"\",\"goVersion\":\"\",\"application\":\"Sextant\"}}"
        ),
        &[],
        &[],
    )
}

/// What both kinds of query have in common.
fn question(ask: &Ask, kind: QueryKind, start: i64, end: i64, step: i64) -> Result<PromQuery, ApiError> {
    let timeout = ask.params.duration("timeout")?.map(|ms| Duration::from_millis(ms.max(0) as u64));
    let lookback = ask.params.duration("lookback_delta")?;
    if lookback.is_some_and(|l| l <= 0) {
        return Err(ApiError::bad_data("invalid parameter \"lookback_delta\": it must be positive"));
    }
    let query = ask.params.get("query").unwrap_or("").to_owned();
    Ok(PromQuery { query, kind, start, end, step, timeout, lookback })
}

async fn query(querier: Querier, ask: Ask) -> Answer {
    let limit = ask.params.limit("limit")?;
    let at = ask.params.time_or("time", now_ms())?;
    let question = question(&ask, QueryKind::Instant, at, at, 0)?;
    Ok(query_answer(querier.promql(&ask.tenants, question).await?, limit))
}

async fn query_range(querier: Querier, ask: Ask) -> Answer {
    let limit = ask.params.limit("limit")?;
    let question = range_question(&querier, &ask)?;
    Ok(query_answer(querier.promql(&ask.tenants, question).await?, limit))
}

fn range_question(querier: &Querier, ask: &Ask) -> Result<PromQuery, ApiError> {
    let (start, end) = (ask.params.time("start")?, ask.params.time("end")?);
    if end < start {
        return Err(ApiError::bad_data(
            "invalid parameter \"end\": end timestamp must not be before start time",
        ));
    }
    let step = ask.params.duration("step")?.ok_or_else(|| {
        ApiError::bad_data("invalid parameter \"step\": cannot parse \"\" to a valid duration")
    })?;
    if step <= 0 {
        return Err(ApiError::bad_data(
            "invalid parameter \"step\": zero or negative query resolution step widths are not accepted. Try a positive integer",
        ));
    }
    let max_steps = querier.config().max_steps as i64;
    if (end - start) / step > max_steps {
        return Err(ApiError::bad_data(format!(
            "exceeded maximum resolution of {max_steps} points per timeseries. Try decreasing the query resolution (?step=XX)"
        )));
    }
    question(ask, QueryKind::Range, start, end, step)
}

async fn explain(querier: Querier, ask: Ask) -> Answer {
    let question = if ask.params.get("start").is_some() {
        range_question(&querier, &ask)?
    } else {
        let at = ask.params.time_or("time", now_ms())?;
        question(&ask, QueryKind::Instant, at, at, 0)?
    };
    let run = ask.params.get("analyze") != Some("false");
    let text = querier.explain(&ask.tenants, question, run).await?;
    let mut data = String::from("{\"plan\":");
    push_string(&mut data, &text);
    data.push('}');
    Ok(success(&data, &[], &[]))
}

/// The selections of `match[]`, or one of everything.
fn selections(ask: &Ask, required: bool) -> Result<Vec<Selection>, ApiError> {
    let start = ask.params.time_or("start", i64::MIN)?;
    let end = ask.params.time_or("end", i64::MAX)?;
    if end < start {
        return Err(ApiError::bad_data(
            "invalid parameter \"end\": end timestamp must not be before start timestamp",
        ));
    }
    let mut matches = Vec::new();
    for text in ask.params.all("match[]") {
        let matchers = sextant_promql::parse_metric_selector(text)
            .map_err(|e| ApiError::bad_data(format!("invalid parameter \"match[]\": {e}")))?;
        if matchers.iter().all(Matcher::matches_empty) {
            return Err(ApiError::bad_data(
                "invalid parameter \"match[]\": match[] must contain at least one non-empty matcher",
            ));
        }
        matches.push(matchers);
    }
    if matches.is_empty() {
        if required {
            return Err(ApiError::bad_data("no match[] parameter provided"));
        }
        matches.push(Vec::new());
    }
    Ok(matches
        .into_iter()
        .map(|matchers| Selection { matchers, start, end, limits: SelectLimits::default() })
        .collect())
}

const TRUNCATED: &str = "results truncated due to limit";

fn truncate<T>(items: &mut Vec<T>, limit: Option<usize>) -> Vec<String> {
    match limit {
        Some(n) if items.len() > n => {
            items.truncate(n);
            vec![TRUNCATED.to_owned()]
        }
        _ => Vec::new(),
    }
}

async fn series(querier: Querier, ask: Ask) -> Answer {
    let limit = ask.params.limit("limit")?;
    let selections = selections(&ask, true)?;
    let dataset = querier.dataset(&ask.tenants).await?;
    let mut found = std::collections::BTreeSet::new();
    for selection in &selections {
        found.extend(dataset.series(selection).await?);
    }
    let mut found: Vec<_> = found.into_iter().collect();
    let warnings = truncate(&mut found, limit);
    let mut data = String::from("[");
    for (i, labels) in found.iter().enumerate() {
        if i > 0 {
            data.push(',');
        }
        push_labels(&mut data, labels);
    }
    data.push(']');
    Ok(success(&data, &warnings, &[]))
}

async fn names_or_values(querier: Querier, ask: Ask, label: Option<&str>) -> Answer {
    let limit = ask.params.limit("limit")?;
    let selections = selections(&ask, false)?;
    let dataset = querier.dataset(&ask.tenants).await?;
    let mut found = std::collections::BTreeSet::new();
    for selection in &selections {
        found.extend(dataset.label_values(selection, label).await?);
    }
    let mut found: Vec<String> = found.into_iter().collect();
    let warnings = truncate(&mut found, limit);
    let mut data = String::new();
    push_strings(&mut data, found.iter().map(String::as_str));
    Ok(success(&data, &warnings, &[]))
}

async fn labels(querier: Querier, ask: Ask) -> Answer {
    names_or_values(querier, ask, None).await
}

async fn label_values(querier: Querier, ask: Ask, name: String) -> Answer {
    let name = unescape_name(&name);
    if name.is_empty() {
        return Err(ApiError::bad_data("invalid label name: \"\""));
    }
    names_or_values(querier, ask, Some(&name)).await
}

/// Undoes the `U__` escaping of UTF-8 names in paths: `_xx_` is a code point in hexadecimal, `__` an underscore.
fn unescape_name(name: &str) -> String {
    let Some(escaped) = name.strip_prefix("U__") else { return name.to_owned() };
    let mut out = String::with_capacity(escaped.len());
    let mut rest = escaped;
    while let Some(at) = rest.find('_') {
        out.push_str(&rest[..at]);
        let tail = &rest[at + 1..];
        let Some(end) = tail.find('_') else { return name.to_owned() };
        if end == 0 {
            out.push('_');
        } else {
            match u32::from_str_radix(&tail[..end], 16).ok().and_then(char::from_u32) {
                Some(c) if end <= 6 => out.push(c),
                _ => return name.to_owned(),
            }
        }
        rest = &tail[end + 1..];
    }
    out.push_str(rest);
    out
}

async fn metadata(querier: Querier, ask: Ask) -> Answer {
    let limit = ask.params.limit("limit")?;
    let per_metric = ask.params.limit("limit_per_metric")?;
    let wanted = ask.params.get("metric").filter(|m| !m.is_empty());
    let dataset = querier.dataset(&ask.tenants).await?;
    let mut families = BTreeMap::<String, Vec<sextant_model::MetricMetadata>>::new();
    for entry in dataset.metadata().await? {
        if wanted.is_none_or(|w| w == entry.name) {
            families.entry(entry.name).or_default().push(entry.metadata);
        }
    }
    let mut data = String::from("{");
    for (i, (name, entries)) in families.iter().take(limit.unwrap_or(usize::MAX)).enumerate() {
        if i > 0 {
            data.push(',');
        }
        push_string(&mut data, name);
        data.push_str(":[");
        for (k, m) in entries.iter().take(per_metric.unwrap_or(usize::MAX)).enumerate() {
            data.push_str(if k > 0 { ",{\"type\":" } else { "{\"type\":" });
            push_string(&mut data, m.metric_type.as_str());
            data.push_str(",\"help\":");
            push_string(&mut data, &m.help);
            data.push_str(",\"unit\":");
            push_string(&mut data, &m.unit);
            data.push('}');
        }
        data.push(']');
    }
    data.push('}');
    Ok(success(&data, &[], &[]))
}

async fn query_exemplars(querier: Querier, ask: Ask) -> Answer {
    let (start, end) = (ask.params.time_or("start", i64::MIN)?, ask.params.time_or("end", i64::MAX)?);
    if end < start {
        return Err(ApiError::bad_data(
            "invalid parameter \"end\": end timestamp must not be before start timestamp",
        ));
    }
    let expr = parse(&ask)?;
    let selectors = sextant_promql::extract_selectors(&expr);
    let dataset = querier.dataset(&ask.tenants).await?;
    let mut found = BTreeMap::new();
    for matchers in selectors {
        let selection =
            Selection { matchers: matchers.to_vec(), start, end, limits: SelectLimits::default() };
        for series in dataset.exemplars(&selection).await? {
            found.insert(series.labels.clone(), series);
        }
    }
    let found: Vec<_> = found.into_values().collect();
    Ok(success(&exemplars_json(&found), &[], &[]))
}

fn parse(ask: &Ask) -> Result<sextant_promql::Expr, ApiError> {
    sextant_promql::parse_expr(ask.params.get("query").unwrap_or(""))
        .map_err(|e| ApiError::bad_data(format!("invalid parameter \"query\": {e}")))
}

async fn format_query(_: Querier, ask: Ask) -> Answer {
    let mut data = String::new();
    push_string(&mut data, &sextant_promql::prettify(&parse(&ask)?, sextant_promql::DEFAULT_LINE_LIMIT));
    Ok(success(&data, &[], &[]))
}

async fn parse_query(_: Querier, ask: Ask) -> Answer {
    let tree = sextant_promql::to_json(&parse(&ask)?);
    let data =
        serde_json::to_string(&tree).map_err(|e| ApiError::new(ErrorClass::Internal, e.to_string()))?;
    Ok(success(&data, &[], &[]))
}

#[cfg(test)]
mod tests {
    use super::unescape_name;

    #[test]
    fn utf8_names_in_paths() {
        assert_eq!(unescape_name("job"), "job");
        assert_eq!(unescape_name("U__my_2e_label"), "my.label");
        assert_eq!(unescape_name("U__a__b"), "a_b");
        assert_eq!(unescape_name("U__bad_zz_"), "U__bad_zz_");
    }
}
