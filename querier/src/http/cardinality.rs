//! Cardinality: `/status/tsdb` as Prometheus has it, and `/cardinality/…` as Mimir has it.

use std::collections::{BTreeMap, HashMap};

use axum::{Router, response::Response};
use serde_json::{Value, json};
use sextant_model::{Labels, Matcher};
use sextant_proto::SelectLimits;

use super::{
    answers::{ApiError, streamed, success},
    json::push_labels,
    params::BadParameter,
    prometheus::{Answer, Ask, endpoint, get_only, now_ms},
};
use crate::{
    dataset::{Scanned, Scope, Selection},
    engine::Querier,
    metrics::Language,
};

/// How long a series is active after its last sample, milliseconds.
const ACTIVE_MS: i64 = 20 * 60 * 1000;

/// Entries of each list, where `limit` says nothing, and at most.
const MIMIR_LIMITS: (i64, i64) = (20, 500);

/// All routes.
pub fn routes(querier: Querier) -> Router {
    Router::new()
        .route("/status/tsdb", get_only(tsdb))
        .route("/cardinality/label_names", endpoint(label_names))
        .route("/cardinality/label_values", endpoint(label_values))
        .route("/cardinality/active_series", endpoint(active_series))
        .with_state(querier)
}

/// Series for each value of each label.
#[derive(Default)]
struct Tally(HashMap<String, HashMap<String, u64>>);

impl Tally {
    fn add(&mut self, name: &str, value: &str) {
        if !self.0.contains_key(name) {
            self.0.insert(name.to_owned(), HashMap::new());
        }
        let Some(values) = self.0.get_mut(name) else { return };
        match values.get_mut(value) {
            Some(n) => *n += 1,
            None => drop(values.insert(value.to_owned(), 1)),
        }
    }
}

/// The largest counts first, equal ones by name; at most `limit`.
fn top<N: Ord>(counts: impl Iterator<Item = (N, u64)>, limit: usize) -> Vec<(N, u64)> {
    let mut all: Vec<_> = counts.collect();
    all.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    all.truncate(limit);
    all
}

/// Goes through the labels of a selection, within the time of a query and the tenants' limit on series.
async fn scan<T: Send + 'static>(
    querier: &Querier,
    ask: &Ask,
    selection: Selection,
    scope: Scope,
    mut state: T,
    mut each: impl FnMut(&mut T, &Labels) + Send + 'static,
) -> Result<(T, Scanned, (i64, i64)), ApiError> {
    let limits = querier.select_limits(&querier.limits(&ask.tenants));
    let selection = Selection {
        limits: SelectLimits { series_max: limits.series_max, ..SelectLimits::default() },
        ..selection
    };
    let (this, tenants) = (querier.clone(), ask.tenants.clone());
    let work = async move {
        let dataset = this.dataset(&tenants).await?;
        let scanned = dataset.scan_series(&selection, scope, |labels| each(&mut state, labels)).await?;
        Ok((state, scanned, dataset.time_bounds().await?))
    };
    Ok(querier.bounded(&ask.tenants, Language::PromQl, querier.config().timeout, work).await?)
}

fn everything(matchers: Vec<Matcher>) -> Selection {
    Selection { matchers, start: i64::MIN, end: i64::MAX, limits: SelectLimits::default() }
}

async fn tsdb(querier: Querier, ask: Ask) -> Answer {
    const POSITIVE: &str = "limit must be a positive number";
    let limit = match ask.params.number("limit", POSITIVE)? {
        None => 10,
        Some(n) => usize::try_from(n).ok().filter(|&n| n > 0).ok_or_else(|| ApiError::bad_data(POSITIVE))?,
    };
    let (tally, scanned, (min_t, max_t)) =
        scan(&querier, &ask, everything(Vec::new()), Scope::All, Tally::default(), |tally, labels| {
            for (name, value) in labels {
                tally.add(name, value);
            }
        })
        .await?;
    let list = |counts: Vec<(&str, u64)>| {
        counts.into_iter().map(|(name, value)| json!({"name": name, "value": value})).collect::<Vec<_>>()
    };
    let by_name = tally.0.get(sextant_model::METRIC_NAME);
    let metrics = by_name.into_iter().flatten().map(|(n, &c)| (n.as_str(), c));
    let values = tally.0.iter().map(|(n, v)| (n.as_str(), v.len() as u64));
    let memory = tally.0.iter().map(|(name, values)| {
        // What a label takes in each series: name, value, and a byte of length for both.
        (name.as_str(), values.iter().map(|(v, c)| c * (name.len() + v.len() + 2) as u64).sum())
    });
    let pairs = tally.0.iter().flat_map(|(n, values)| values.iter().map(move |(v, &c)| ((n, v), c)));
    let pairs: Vec<Value> = top(pairs, limit)
        .into_iter()
        .map(|((n, v), count)| json!({"name": format!("{n}={v}"), "value": count}))
        .collect();
    let data = format!(
        "{{\"headStats\":{{\"numSeries\":{},\"numLabelPairs\":{},\"chunkCount\":{},\"minTime\":{min_t},\"maxTime\":{max_t}}},\"seriesCountByMetricName\":{},\"labelValueCountByLabelName\":{},\"memoryInBytesByLabelName\":{},\"seriesCountByLabelValuePair\":{}}}",
        scanned.series,
        tally.0.values().map(HashMap::len).sum::<usize>(),
        scanned.pieces,
        json!(list(top(metrics, limit))),
        json!(list(top(values, limit))),
        json!(list(top(memory, limit))),
        json!(pairs),
    );
    Ok(success(&data, &[], &[]))
}

/// What all three questions of Mimir have in common.
struct Counted {
    matchers: Vec<Matcher>,
    selection: Selection,
    scope: Scope,
    limit: usize,
}

fn counted(ask: &Ask, selector_needed: bool) -> Result<Counted, ApiError> {
    let matchers = match ask.params.get("selector").filter(|s| !s.is_empty()) {
        Some(text) => {
            sextant_promql::parse_metric_selector(text).map_err(|e| BadParameter::invalid("selector", e))?
        }
        None if selector_needed => return Err(BadParameter::invalid("selector", "it is missing").into()),
        None => Vec::new(),
    };
    let (default, most) = MIMIR_LIMITS;
    let limit =
        ask.params.number("limit", "invalid parameter \"limit\": it is not a number")?.unwrap_or(default);
    if !(0..=most).contains(&limit) {
        let reason = format!("it must be between 0 and {most}");
        return Err(BadParameter::invalid("limit", reason).into());
    }
    let mut selection = everything(Vec::new());
    let scope = match ask.params.get("count_method").unwrap_or("") {
        "" | "inmemory" => Scope::Head,
        "active" => {
            selection.start = now_ms() - ACTIVE_MS;
            Scope::All
        }
        other => {
            let reason = format!("{other:?} is neither \"inmemory\" nor \"active\"");
            return Err(BadParameter::invalid("count_method", reason).into());
        }
    };
    Ok(Counted { matchers, selection, scope, limit: limit as usize })
}

fn fits(matchers: &[Matcher], labels: &Labels) -> bool {
    matchers.iter().all(|m| m.matches(labels.get(&m.name).unwrap_or("")))
}

fn bare(value: &Value) -> Response {
    let text = value.to_string();
    let mut sent = Some(text);
    streamed(move |out| {
        out.push_str(&sent.take().unwrap_or_default());
        false
    })
}

async fn label_names(querier: Querier, ask: Ask) -> Answer {
    let Counted { matchers, mut selection, scope, limit } = counted(&ask, false)?;
    selection.matchers = matchers;
    let (tally, ..) = scan(&querier, &ask, selection, scope, Tally::default(), |tally, labels| {
        for (name, value) in labels {
            tally.add(name, value);
        }
    })
    .await?;
    let counts = tally.0.iter().map(|(n, v)| (n.as_str(), v.len() as u64));
    let shown =
        top(counts, limit).into_iter().map(|(n, c)| json!({"label_name": n, "label_values_count": c}));
    Ok(bare(&json!({
        "label_values_count_total": tally.0.values().map(HashMap::len).sum::<usize>(),
        "label_names_count": tally.0.len(),
        "cardinality": shown.collect::<Vec<_>>(),
    })))
}

async fn label_values(querier: Querier, ask: Ask) -> Answer {
    let wanted: Vec<String> = ask.params.all("label_names[]").into_iter().map(str::to_owned).collect();
    if wanted.is_empty() {
        return Err(BadParameter::invalid("label_names[]", "it is missing").into());
    }
    let Counted { matchers, selection, scope, limit } = counted(&ask, false)?;
    let names = wanted.clone();
    let (tally, scanned, _) =
        scan(&querier, &ask, selection, scope, Tally::default(), move |tally, labels| {
            if fits(&matchers, labels) {
                for name in &names {
                    if let Some(value) = labels.get(name).filter(|v| !v.is_empty()) {
                        tally.add(name, value);
                    }
                }
            }
        })
        .await?;
    let none = HashMap::new();
    let unique: BTreeMap<&str, &HashMap<String, u64>> =
        wanted.iter().map(|n| (n.as_str(), tally.0.get(n).unwrap_or(&none))).collect();
    let by_series = top(unique.iter().map(|(n, v)| (*n, v.values().sum::<u64>())), usize::MAX);
    let labels = by_series.into_iter().map(|(name, series)| {
        let values = unique.get(name).copied().unwrap_or(&none);
        let shown = top(values.iter().map(|(v, &c)| (v.as_str(), c)), limit).into_iter();
        json!({
            "label_name": name,
            "label_values_count": values.len(),
            "series_count": series,
            "cardinality": shown.map(|(v, c)| json!({"label_value": v, "series_count": c})).collect::<Vec<_>>(),
        })
    });
    Ok(bare(&json!({"series_count_total": scanned.series, "labels": labels.collect::<Vec<_>>()})))
}

async fn active_series(querier: Querier, ask: Ask) -> Answer {
    let Counted { matchers, mut selection, .. } = counted(&ask, true)?;
    selection.matchers = matchers;
    selection.start = now_ms() - ACTIVE_MS;
    let (mut found, ..) = scan(&querier, &ask, selection, Scope::All, Vec::new(), |found, labels| {
        found.push(labels.clone());
    })
    .await?;
    found.sort_unstable();
    let mut at = 0;
    Ok(streamed(move |out| {
        out.push_str(if at == 0 { "{\"data\":[" } else { "," });
        if let Some(labels) = found.get(at) {
            push_labels(out, labels);
        }
        at += 1;
        if at < found.len() {
            return true;
        }
        out.push_str("]}");
        false
    }))
}
