//! What the process says of itself: configuration, flags, its run time, features, targets, and lists that are empty here.

use std::{collections::BTreeMap, sync::Arc, time::SystemTime};

use axum::{Extension, Router, response::Response};
use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::json;
use sextant_model::Matcher;
use sextant_promql::FUNCTIONS;

use super::{
    answers::{ApiError, success},
    json::push_strings,
    params::{BadParameter, Params, parse_whole},
    prometheus::{Answer, Ask, get_only},
};
use crate::engine::Querier;

/// What is shown of the process around the querier.
#[derive(Clone, Default)]
pub struct Surroundings {
    /// The effective configuration as YAML; secrets are hidden already.
    pub config_yaml: String,
    /// The settings by their flags; secrets are hidden already.
    pub flags: BTreeMap<String, String>,
    /// When the process started.
    pub started: Option<SystemTime>,
    /// Who scrapes in this process.
    pub targets: Option<Arc<dyn TargetsSource>>,
}

/// Which targets are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TargetStates {
    /// Those that are scraped.
    pub active: bool,
    /// Those that relabelling dropped.
    pub dropped: bool,
}

/// Who knows the targets of scrapes: the agent.
pub trait TargetsSource: Send + Sync + 'static {
    /// `data` of `/targets` as JSON text: `activeTargets`, `droppedTargets`, `droppedTargetCounts`; of one pool where it is named.
    fn targets(&self, states: TargetStates, pool: Option<&str>) -> String;

    /// The names of the scrape pools, in order.
    fn scrape_pools(&self) -> Vec<String>;

    /// `data` of `/targets/metadata` as JSON text: at most `limit` entries, of matching targets, of one metric where it is named.
    fn metadata(&self, matchers: &[Matcher], metric: Option<&str>, limit: Option<usize>) -> String;

    /// `data` of `/targets/relabel_steps` as JSON text: what the rules of a pool do to labels, a JSON object. An error is the
    /// caller's mistake.
    fn relabel_steps(&self, pool: &str, labels: &str) -> Result<String, String>;

    /// Whether the newest scrape configuration was taken, and when one was last.
    fn last_reload(&self) -> (bool, Option<SystemTime>);
}

/// All routes.
pub fn routes(querier: Querier, around: Surroundings) -> Router {
    let ready = |data: &'static str| get_only(move |_, _| std::future::ready(Ok(success(data, &[], &[]))));
    Router::new()
        .route("/alerts", ready("{\"alerts\":[]}"))
        .route("/rules", get_only(|_, ask| std::future::ready(rules(&ask))))
        .route("/alertmanagers", ready("{\"activeAlertmanagers\":[],\"droppedAlertmanagers\":[]}"))
        .route("/notifications", ready("[]"))
        .route("/features", get_only(|_, _| std::future::ready(Ok(features()))))
        .route("/status/buildinfo", get_only(|_, _| std::future::ready(Ok(build_info()))))
        .route("/status/walreplay", ready("{\"min\":0,\"max\":0,\"current\":0}"))
        .route("/status/config", axum::routing::get(config))
        .route("/status/flags", axum::routing::get(flags))
        .route("/status/runtimeinfo", axum::routing::get(runtime_info))
        .route("/targets", axum::routing::get(targets))
        .route("/targets/metadata", axum::routing::get(targets_metadata))
        .route("/targets/relabel_steps", axum::routing::get(relabel_steps))
        .route("/scrape_pools", axum::routing::get(scrape_pools))
        .layer(Extension(around))
        .with_state(querier)
}

fn data(value: &serde_json::Value) -> Response {
    success(&value.to_string(), &[], &[])
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

async fn config(Extension(around): Extension<Surroundings>) -> Response {
    data(&json!({ "yaml": around.config_yaml }))
}

async fn flags(Extension(around): Extension<Surroundings>) -> Response {
    data(&json!(around.flags))
}

async fn runtime_info(Extension(around): Extension<Surroundings>) -> Response {
    let now = DateTime::<Utc>::from(SystemTime::now());
    let started = around.started.map_or(now, DateTime::<Utc>::from);
    let file = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let (reloaded, configured) = around.targets.as_ref().map_or((true, None), |t| t.last_reload());
    let configured = configured.map_or(started, DateTime::<Utc>::from);
    let threads = file("/proc/self/status")
        .lines()
        .find_map(|l| l.strip_prefix("Threads:")?.trim().parse::<u64>().ok())
        .unwrap_or(0);
    data(&json!({
        "startTime": started.to_rfc3339_opts(SecondsFormat::Nanos, true),
        "CWD": std::env::current_dir().unwrap_or_default().display().to_string(),
        "hostname": file("/proc/sys/kernel/hostname").trim(),
        "serverTime": now.to_rfc3339_opts(SecondsFormat::Nanos, true),
        "reloadConfigSuccess": reloaded,
        "lastConfigTime": configured.to_rfc3339_opts(SecondsFormat::Secs, true),
        "corruptionCount": 0,
        "goroutineCount": threads,
        "GOMAXPROCS": std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        "GOMEMLIMIT": i64::MAX,
        "GOGC": "",
        "GODEBUG": "",
        "storageRetention": "",
    }))
}

/// What the engine can do, by category, in the names of Prometheus' registry of features.
fn features() -> Response {
    let functions: BTreeMap<&str, bool> = FUNCTIONS.iter().map(|f| (f.name, true)).collect();
    let operators = [
        "+",
        "-",
        "*",
        "/",
        "%",
        "^",
        "==",
        "!=",
        ">",
        "<",
        ">=",
        "<=",
        "=~",
        "!~",
        "and",
        "or",
        "unless",
        "atan2",
        "sum",
        "avg",
        "count",
        "min",
        "max",
        "group",
        "stddev",
        "stdvar",
        "topk",
        "bottomk",
        "count_values",
        "quantile",
        "limitk",
        "limit_ratio",
        "on",
        "ignoring",
        "group_left",
        "group_right",
        "by",
        "without",
        "bool",
        "offset",
        "@",
        "fill",
        "fill_left",
        "fill_right",
    ];
    let on = |names: &[&'static str]| names.iter().map(|&n| (n, true)).collect::<BTreeMap<_, _>>();
    data(&json!({
        "api": on(&[
            "exemplars", "label_values_match", "labels_matchers", "otlp_write_receiver", "query_post", "query_stats",
            "query_warnings", "remote_read", "remote_write_receiver", "time_range_labels", "time_range_series",
        ]),
        "promql": on(&[
            "anchored", "at_modifier", "bool", "by", "delayed_name_removal", "duration_expr", "experimental_functions",
            "group_left", "group_right", "ignoring", "negative_offset", "offset", "on", "per_query_lookback_delta",
            "per_step_stats", "smoothed", "subqueries", "without",
        ]),
        "promql_functions": functions,
        "promql_operators": on(&operators),
        "tsdb": on(&["exemplar_storage", "native_histograms"]),
    }))
}

async fn targets(
    Extension(around): Extension<Surroundings>,
    axum::extract::RawQuery(query): axum::extract::RawQuery,
) -> Response {
    let params = Params::parse(query.as_deref(), b"");
    let state = params.get("state").unwrap_or("").to_ascii_lowercase();
    let asked = |name: &str| state.is_empty() || state == "any" || state == name;
    let states = TargetStates { active: asked("active"), dropped: asked("dropped") };
    let pool = params.get("scrapePool").filter(|p| !p.is_empty());
    match &around.targets {
        Some(source) => success(&source.targets(states, pool), &[], &[]),
        None => {
            let counts = if states.dropped { "{}" } else { "null" };
            let none =
                format!("{{\"activeTargets\":[],\"droppedTargets\":[],\"droppedTargetCounts\":{counts}}}");
            success(&none, &[], &[])
        }
    }
}

async fn targets_metadata(
    Extension(around): Extension<Surroundings>,
    axum::extract::RawQuery(query): axum::extract::RawQuery,
) -> Answer {
    let params = Params::parse(query.as_deref(), b"");
    let limit = params.number("limit", "limit must be a number")?.and_then(|n| usize::try_from(n).ok());
    let matchers = match params.get("match_target").filter(|t| !t.is_empty()) {
        Some(text) => sextant_promql::parse_metric_selector(text)
            .map_err(|e| BadParameter::invalid("match_target", e))?,
        None => Vec::new(),
    };
    let metric = params.get("metric").filter(|m| !m.is_empty());
    Ok(match &around.targets {
        Some(source) => success(&source.metadata(&matchers, metric, limit), &[], &[]),
        None => success("[]", &[], &[]),
    })
}

async fn relabel_steps(
    Extension(around): Extension<Surroundings>,
    axum::extract::RawQuery(query): axum::extract::RawQuery,
) -> Answer {
    let params = Params::parse(query.as_deref(), b"");
    let given = |name: &str| {
        params
            .get(name)
            .filter(|v| !v.is_empty())
            .ok_or_else(|| ApiError::bad_data(format!("no {name} parameter provided")))
    };
    let (pool, labels) = (given("scrapePool")?, given("labels")?);
    let Some(source) = &around.targets else {
        return Err(ApiError::bad_data(format!("scrape pool {pool:?} not found")));
    };
    Ok(success(&source.relabel_steps(pool, labels).map_err(ApiError::bad_data)?, &[], &[]))
}

async fn scrape_pools(Extension(around): Extension<Surroundings>) -> Response {
    let pools = around.targets.as_ref().map(|t| t.scrape_pools()).unwrap_or_default();
    let mut data = String::from("{\"scrapePools\":");
    push_strings(&mut data, pools.iter().map(String::as_str));
    data.push('}');
    success(&data, &[], &[])
}

/// The rules, of which there are none; the parameters are checked all the same.
fn rules(ask: &Ask) -> Answer {
    let params = &ask.params;
    match params.get("type").unwrap_or("") {
        "" | "alert" | "record" => {}
        other => return Err(BadParameter::invalid("type", format!("not supported value {other:?}")).into()),
    }
    params.flag("exclude_alerts", "error converting exclude_alerts")?;
    for text in params.all("match[]") {
        sextant_promql::parse_metric_selector(text).map_err(|e| ApiError::bad_data(e.to_string()))?;
    }
    let given = |name: &str| params.get(name).filter(|v| !v.is_empty());
    match (given("group_limit"), given("group_next_token")) {
        (None, Some(_)) => {
            let reason = "group_limit needs to be present in order to paginate over the groups";
            return Err(BadParameter::invalid("group_next_token", reason).into());
        }
        (Some(text), _) => match parse_whole(text) {
            Ok(n) if n > 0 => {}
            Ok(_) => {
                return Err(
                    BadParameter::invalid("group_limit", "group_limit needs to be greater than 0").into()
                );
            }
            Err(e) => {
                let reason = format!("group_limit needs to be a valid number: strconv.ParseInt: {e}");
                return Err(BadParameter::invalid("group_limit", reason).into());
            }
        },
        (None, None) => {}
    }
    Ok(success("{\"groups\":[]}", &[], &[]))
}
