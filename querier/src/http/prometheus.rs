//! Prometheus' HTTP API over the querier.

use std::{collections::BTreeMap, time::Duration};

use axum::{
    Extension, Router,
    body::Bytes,
    extract::{RawQuery, State},
    http::{HeaderMap, StatusCode, Uri, header},
    response::{IntoResponse, Response},
    routing::{MethodRouter, get},
};
use sextant_model::{Matcher, MetricMetadata, TenantId};
use sextant_promql_eval::QueryKind;
use sextant_proto::{ErrorClass, SelectLimits};

use super::{
    Tenants,
    answers::{
        ApiError, StatsShown, TRUNCATED, push_exemplars, query_answer, streamed, success, success_list,
    },
    json::{push_labels, push_string},
    params::{BadParameter, Params, parse_span},
};
use crate::{
    dataset::Selection,
    engine::{PromQuery, Querier},
};

/// What a handler gives.
pub type Answer = Result<Response, ApiError>;

/// One request's question: who asks, and with which parameters.
pub struct Ask {
    /// Whose data.
    pub tenants: Vec<TenantId>,
    /// From the query string and the form.
    pub params: Params,
}

/// GET and POST of one endpoint.
pub fn endpoint<F, Fut>(handler: F) -> MethodRouter<Querier>
where
    F: Fn(Querier, Ask) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Answer> + Send + 'static,
{
    let form = move |State(querier): State<Querier>,
                     Extension(Tenants(tenants)): Extension<Tenants>,
                     RawQuery(query): RawQuery,
                     headers: HeaderMap,
                     body: Bytes| {
        let form = if is_form(&headers) { body } else { Bytes::new() };
        handler(querier, Ask { tenants, params: Params::parse(query.as_deref(), &form) })
    };
    get(form.clone()).post(form)
}

/// GET only.
pub fn get_only<F, Fut>(handler: F) -> MethodRouter<Querier>
where
    F: Fn(Querier, Ask) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Answer> + Send + 'static,
{
    get(
        move |State(querier): State<Querier>,
              Extension(Tenants(tenants)): Extension<Tenants>,
              RawQuery(query): RawQuery| {
            handler(querier, Ask { tenants, params: Params::parse(query.as_deref(), b"") })
        },
    )
}

fn is_form(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
    kind.split(';').next().unwrap_or("").trim().eq_ignore_ascii_case("application/x-www-form-urlencoded")
}

/// All routes of queries and of what there is to query.
pub fn routes(querier: Querier) -> Router {
    Router::new()
        .route("/query", endpoint(query))
        .route("/query_range", endpoint(query_range))
        .route("/query_exemplars", endpoint(query_exemplars))
        .route(
            "/series",
            endpoint(series).delete(async || ApiError::new(ErrorClass::Internal, "not implemented")),
        )
        .route("/labels", endpoint(labels))
        .route("/label/{name}/values", get(values_of_path))
        .route("/metadata", get_only(metadata))
        .route("/format_query", endpoint(format_query))
        .route("/parse_query", endpoint(parse_query))
        .route("/explain", endpoint(explain))
        .with_state(querier)
}

/// The time, milliseconds since the epoch.
pub fn now_ms() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64)
}

/// What both kinds of query have in common.
fn question(ask: &Ask, kind: QueryKind, start: i64, end: i64, step: i64) -> Result<PromQuery, ApiError> {
    let timeout = match ask.params.duration("timeout")? {
        Some(ms) if ms <= 0 => {
            return Err(ApiError::new(ErrorClass::Timeout, "query timed out in query execution"));
        }
        given => given.map(|ms| Duration::from_millis(ms as u64)),
    };
    let lookback = match ask.params.get("lookback_delta") {
        None | Some("") => None,
        Some(text) => parse_span(text)
            .map(|ms| Some(ms).filter(|&ms| ms > 0))
            .map_err(|e| ApiError::bad_data(format!("error parsing lookback delta duration: {e}")))?,
    };
    let query = ask.params.get("query").unwrap_or("").to_owned();
    let partial = match ask.params.get("partial_response") {
        None | Some("" | "0" | "false") => false,
        Some("1" | "true") => true,
        Some(other) => {
            let reason =
                format!("invalid parameter \"partial_response\": {other:?} is neither true nor false");
            return Err(ApiError::bad_data(reason));
        }
    };
    Ok(PromQuery { query, kind, start, end, step, timeout, lookback, partial })
}

fn stats_shown(ask: &Ask) -> StatsShown {
    match ask.params.get("stats") {
        None | Some("") => StatsShown::None,
        Some("all") => StatsShown::All,
        Some("detailed") => StatsShown::Detailed,
        Some(_) => StatsShown::Sums,
    }
}

async fn query(querier: Querier, ask: Ask) -> Answer {
    let limit = ask.params.limit("limit")?;
    let at = ask.params.time_or("time", now_ms())?;
    let question = question(&ask, QueryKind::Instant, at, at, 0)?;
    answer(&querier, &ask, question, limit).await
}

async fn query_range(querier: Querier, ask: Ask) -> Answer {
    let limit = ask.params.limit("limit")?;
    let question = range_question(&querier, &ask)?;
    answer(&querier, &ask, question, limit).await
}

async fn answer(querier: &Querier, ask: &Ask, question: PromQuery, limit: Option<usize>) -> Answer {
    let stats = stats_shown(ask);
    let answer = querier
        .promql_counted(&ask.tenants, question, matches!(stats, StatsShown::All | StatsShown::Detailed))
        .await?;
    Ok(query_answer(answer, limit, stats))
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
            "exceeded maximum resolution of {} points per timeseries. Try decreasing the query resolution (?step=XX)",
            with_commas(max_steps)
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

/// A number with commas between thousands.
fn with_commas(n: i64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, d) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(d);
    }
    out
}

/// The selections of `match[]`, or one of everything. `wrap` makes an error of a wrong selector.
fn selections(
    ask: &Ask,
    required: bool,
    wrap: impl Fn(String) -> ApiError,
) -> Result<Vec<Selection>, ApiError> {
    let given = ask.params.all("match[]");
    if given.is_empty() && required {
        return Err(ApiError::bad_data("no match[] parameter provided"));
    }
    let start = ask.params.time_or("start", i64::MIN)?;
    let end = ask.params.time_or("end", i64::MAX)?;
    let mut matches = selectors(&given, wrap)?;
    if matches.is_empty() {
        matches.push(Vec::new());
    }
    if end < start {
        return Ok(Vec::new());
    }
    let limits = SelectLimits::default();
    Ok(matches.into_iter().map(|matchers| Selection { matchers, start, end, limits }).collect())
}

/// Parses series selectors; each must have a matcher that an absent label does not fulfil.
pub fn selectors(given: &[&str], wrap: impl Fn(String) -> ApiError) -> Result<Vec<Vec<Matcher>>, ApiError> {
    let mut out = Vec::with_capacity(given.len());
    for text in given {
        let matchers = sextant_promql::parse_metric_selector(text).map_err(|e| wrap(e.to_string()))?;
        if matchers.iter().all(Matcher::matches_empty) {
            return Err(wrap("match[] must contain at least one non-empty matcher".to_owned()));
        }
        out.push(matchers);
    }
    Ok(out)
}

/// `invalid parameter "match[]": …`.
pub fn bad_match(reason: String) -> ApiError {
    BadParameter::invalid("match[]", reason).into()
}

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
    let selections = selections(&ask, true, bad_match)?;
    let read = || async {
        let dataset = querier.dataset(&ask.tenants).await?;
        let mut found = std::collections::BTreeSet::new();
        for selection in &selections {
            found.extend(dataset.series(selection).await?);
        }
        Ok(found)
    };
    let found = querier.repeated(&ask.tenants, read).await?;
    let mut found: Vec<_> = found.into_iter().collect();
    let warnings = truncate(&mut found, limit);
    Ok(success_list(found, push_labels, warnings))
}

async fn names_or_values(querier: Querier, ask: Ask, label: Option<&str>) -> Answer {
    let limit = ask.params.limit("limit")?;
    let selections = selections(&ask, false, ApiError::bad_data)?;
    let read = || async {
        let dataset = querier.dataset(&ask.tenants).await?;
        let mut found = std::collections::BTreeSet::new();
        for selection in &selections {
            found.extend(dataset.label_values(selection, label).await?);
        }
        Ok(found)
    };
    let found = querier.repeated(&ask.tenants, read).await?;
    let mut found: Vec<String> = found.into_iter().collect();
    let warnings = truncate(&mut found, limit);
    Ok(success_list(found, |out, text| push_string(out, text), warnings))
}

async fn labels(querier: Querier, ask: Ask) -> Answer {
    names_or_values(querier, ask, None).await
}

/// `/label/<name>/values`: the name may be escaped twice, as a path and as UTF-8.
async fn values_of_path(
    State(querier): State<Querier>,
    Extension(Tenants(tenants)): Extension<Tenants>,
    uri: Uri,
) -> Answer {
    let segment = uri.path().rsplit('/').nth(1).unwrap_or("");
    let bytes: Vec<u8> = percent_decode(segment.as_bytes());
    let name = String::from_utf8(bytes).map_err(|e| bad_name(&quote(e.as_bytes())))?;
    let name = unescape_name(&name);
    if name.is_empty() {
        return Err(bad_name("\"\""));
    }
    let ask = Ask { tenants, params: Params::parse(uri.query(), b"") };
    names_or_values(querier, ask, Some(&name)).await
}

fn bad_name(quoted: &str) -> ApiError {
    ApiError::bad_data(format!("invalid label name: {quoted}"))
}

/// Bytes of which some are not text, quoted as Go's `%q` does.
fn quote(bytes: &[u8]) -> String {
    let mut out = String::from("\"");
    for chunk in bytes.utf8_chunks() {
        out.extend(chunk.valid().chars().flat_map(char::escape_debug));
        for byte in chunk.invalid() {
            out.push_str(&format!("\\x{byte:02x}"));
        }
    }
    out.push('"');
    out
}

fn percent_decode(text: &[u8]) -> Vec<u8> {
    let digit = |at: usize| text.get(at).and_then(|&b| (b as char).to_digit(16));
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        match (text[at], digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                at += 3;
            }
            (byte, ..) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    out
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
    let limit = ask.params.number("limit", "limit must be a number")?.and_then(|n| usize::try_from(n).ok());
    let per_metric = ask
        .params
        .number("limit_per_metric", "limit_per_metric must be a number")?
        .and_then(|n| usize::try_from(n).ok())
        .filter(|&n| n > 0);
    let wanted = ask.params.get("metric").filter(|m| !m.is_empty());
    let read = || async { querier.dataset(&ask.tenants).await?.metadata().await };
    let mut families = BTreeMap::<String, Vec<MetricMetadata>>::new();
    for entry in querier.repeated(&ask.tenants, read).await? {
        if wanted.is_none_or(|w| w == entry.name) {
            families.entry(entry.name).or_default().push(entry.metadata);
        }
    }
    // The newest are listed; Prometheus lists them in no order, here it is the same one each time.
    for entries in families.values_mut() {
        entries.truncate(per_metric.unwrap_or(usize::MAX));
        entries.sort_unstable();
    }
    let mut families = families.into_iter().take(limit.unwrap_or(usize::MAX)).enumerate();
    let mut begun = false;
    Ok(streamed(move |out| {
        if !begun {
            begun = true;
            out.push_str("{\"status\":\"success\",\"data\":{");
        }
        let Some((i, (name, entries))) = families.next() else {
            out.push_str("}}");
            return false;
        };
        if i > 0 {
            out.push(',');
        }
        push_string(out, &name);
        out.push_str(":[");
        for (k, m) in entries.iter().enumerate() {
            out.push_str(if k > 0 { ",{\"type\":" } else { "{\"type\":" });
            push_string(out, m.metric_type.as_str());
            out.push_str(",\"help\":");
            push_string(out, &m.help);
            out.push_str(",\"unit\":");
            push_string(out, &m.unit);
            out.push('}');
        }
        out.push(']');
        true
    }))
}

async fn query_exemplars(querier: Querier, ask: Ask) -> Answer {
    let (start, end) = (ask.params.time_or("start", i64::MIN)?, ask.params.time_or("end", i64::MAX)?);
    if end < start {
        return Err(ApiError::bad_data("end timestamp must not be before start timestamp"));
    }
    let text = ask.params.get("query").unwrap_or("");
    let expr = sextant_promql::parse_expr(text).map_err(|e| ApiError::bad_data(e.to_string()))?;
    let selectors = sextant_promql::extract_selectors(&expr);
    if selectors.is_empty() {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let read = || async {
        let dataset = querier.dataset(&ask.tenants).await?;
        let mut found = BTreeMap::new();
        for matchers in &selectors {
            let selection =
                Selection { matchers: matchers.to_vec(), start, end, limits: SelectLimits::default() };
            for series in dataset.exemplars(&selection).await? {
                found.insert(series.labels.clone(), series);
            }
        }
        Ok(found)
    };
    let found = querier.repeated(&ask.tenants, read).await?;
    Ok(success_list(found.into_values().collect(), push_exemplars, Vec::new()))
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
