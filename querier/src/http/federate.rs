//! `/federate`: the latest sample of each selected series, as text or protobuf, for another Prometheus to scrape.

use std::{collections::BTreeMap, fmt::Write};

use axum::{
    Extension, Router,
    body::Body,
    extract::{RawQuery, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::Response,
    routing::get,
};
use prost::Message;
use sextant_model::{Histogram, Labels, ResetHint, SeriesSet, is_stale_nan, is_valid_legacy_metric_name};
use sextant_proto::metric_family::{self, BucketSpan, FamilyType, LabelPair, Metric, MetricFamily, Untyped};

use super::{Tenants, methods::plain, params::Params, prometheus::now_ms};
use crate::{dataset::Selection, engine::Querier, error::QueryError, metrics::Language};

/// The label that every series gets where it has none, so that the scraper's own does not take its place.
const INSTANCE: &str = "instance";

/// The route, to be mounted at `/` and `/prometheus`.
pub fn routes(querier: Querier) -> Router {
    Router::new().route("/federate", get(federate)).with_state(querier)
}

/// A series' latest sample.
enum Value {
    Float(f64),
    Histogram(Box<Histogram>),
}

async fn federate(
    State(querier): State<Querier>,
    Extension(Tenants(tenants)): Extension<Tenants>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let params = Params::parse(query.as_deref(), b"");
    let end = now_ms();
    let start = end - querier.config().lookback.as_millis() as i64;
    let limits = querier.select_limits(&querier.limits(&tenants));
    let mut selections = Vec::new();
    for text in params.all("match[]") {
        match sextant_promql::parse_metric_selector(text) {
            Ok(matchers) => selections.push(Selection { matchers, start, end, limits }),
            Err(e) => return plain(StatusCode::BAD_REQUEST, &e.to_string()),
        }
    }
    let accept = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or("");
    let (format, escaping) = negotiate(accept);
    let (this, asking) = (querier.clone(), tenants.clone());
    let work = async move {
        let read = || async {
            let dataset = this.dataset(&tenants).await?;
            let mut found = BTreeMap::new();
            for selection in &selections {
                take_latest(&dataset.select(selection).await?, &mut found);
            }
            Ok(found)
        };
        let found = this.repeated(&tenants, read).await?;
        Ok::<_, QueryError>(encode(found, format, escaping))
    };
    match querier.bounded(&asking, Language::PromQl, querier.config().timeout, work).await {
        Ok(bytes) => {
            let kind = format!("{}; escaping={}", format.content_type(), escaping.name());
            let mut response = Response::new(Body::from(bytes));
            if let Ok(kind) = HeaderValue::try_from(kind) {
                response.headers_mut().insert(header::CONTENT_TYPE, kind);
            }
            response
        }
        Err(e) => {
            let status = StatusCode::from_u16(e.class().http()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            plain(status, &e.to_string())
        }
    }
}

/// The latest sample of each series by name and labels; series that have ended and nameless ones are left out.
fn take_latest(set: &SeriesSet, found: &mut BTreeMap<(String, Labels), (i64, Value)>) {
    for (i, labels) in set.labels.iter().enumerate() {
        let name = labels.metric_name();
        let (t, v) = set.floats(i);
        let float = t.last().copied().zip(v.last().copied());
        let latest = match (float, set.histograms(i).last()) {
            (Some((t, v)), h) if h.is_none_or(|h| h.t < t) => {
                (!is_stale_nan(v)).then_some((t, Value::Float(v)))
            }
            (_, Some(h)) => (!h.h.is_stale()).then(|| (h.t, Value::Histogram(Box::new(h.h.clone())))),
            (_, None) => None,
        };
        if let Some(latest) = latest.filter(|_| !name.is_empty()) {
            found.insert((name.to_owned(), labels.clone()), latest);
        }
    }
}

/// The formats that can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Text,
    Protobuf,
}

impl Format {
    fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::Protobuf => {
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
            }
        }
    }
}

/// What becomes of names that older readers do not take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Escaping {
    AllowUtf8,
    Underscores,
    Dots,
    Values,
}

impl Escaping {
    const ALL: [Self; 4] = [Self::AllowUtf8, Self::Underscores, Self::Dots, Self::Values];

    fn name(self) -> &'static str {
        match self {
            Self::AllowUtf8 => "allow-utf-8",
            Self::Underscores => "underscores",
            Self::Dots => "dots",
            Self::Values => "values",
        }
    }

    /// A name as it is sent. Names of the older syntax stay as they are.
    fn apply(self, name: &str) -> String {
        if self == Self::AllowUtf8 || name.is_empty() || is_valid_legacy_metric_name(name) {
            return name.to_owned();
        }
        let mut out = String::from(if self == Self::Values { "U__" } else { "" });
        for (i, c) in name.char_indices() {
            let legacy = c == ':' || c.is_ascii_alphabetic() || (i > 0 && c.is_ascii_digit());
            match (self, c) {
                (Self::Dots | Self::Values, '_') => out.push_str("__"),
                (_, '_') => out.push('_'),
                (Self::Dots, '.') => out.push_str("_dot_"),
                _ if legacy => out.push(c),
                (Self::Dots, _) => out.push_str("__"),
                (Self::Values, c) => {
                    let _ = write!(out, "_{:x}_", c as u32);
                }
                _ => out.push('_'),
            }
        }
        out
    }
}

/// The format and escaping that `Accept` asks for first; text with underscores where it asks for nothing that is spoken.
fn negotiate(accept: &str) -> (Format, Escaping) {
    let mut ranges: Vec<(f64, &str)> = accept
        .split(',')
        .map(|range| {
            let quality = range.split(';').find_map(|p| p.trim().strip_prefix("q=")?.parse().ok());
            (quality.unwrap_or(1.0), range)
        })
        .collect();
    ranges.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mut escaping = Escaping::Underscores;
    for (_, range) in ranges {
        let mut parts = range.split(';').map(str::trim);
        let kind = parts.next().unwrap_or("");
        let params: BTreeMap<&str, &str> = parts.filter_map(|p| p.split_once('=')).collect();
        let given = params.get("escaping").copied().unwrap_or("");
        escaping = Escaping::ALL.into_iter().find(|e| e.name() == given).unwrap_or(escaping);
        let is = |name: &str, value: &str| params.get(name).is_some_and(|v| *v == value);
        if kind == "application/vnd.google.protobuf"
            && is("proto", "io.prometheus.client.MetricFamily")
            && is("encoding", "delimited")
        {
            return (Format::Protobuf, escaping);
        }
        if kind == "text/plain" && (is("version", "0.0.4") || !params.contains_key("version")) {
            return (Format::Text, escaping);
        }
    }
    (Format::Text, escaping)
}

fn encode(found: BTreeMap<(String, Labels), (i64, Value)>, format: Format, escaping: Escaping) -> Vec<u8> {
    let mut out = Vec::new();
    let mut family: Option<(String, FamilyType, Vec<Metric>)> = None;
    let mut send = |family: Option<(String, FamilyType, Vec<Metric>)>| {
        let Some((name, kind, metric)) = family else { return };
        let name = escaping.apply(&name);
        match format {
            Format::Text => out.extend_from_slice(text_family(&name, &metric).as_bytes()),
            Format::Protobuf => {
                let family = MetricFamily {
                    name: Some(name),
                    r#type: Some(kind as i32),
                    metric,
                    ..MetricFamily::default()
                };
                out.extend_from_slice(&family.encode_length_delimited_to_vec());
            }
        }
    };
    for ((name, labels), (t, value)) in found {
        let kind = match &value {
            Value::Float(_) => FamilyType::Untyped,
            // The text format has no native histograms.
            Value::Histogram(_) if format == Format::Text => continue,
            Value::Histogram(h) if h.reset_hint == ResetHint::Gauge => FamilyType::GaugeHistogram,
            Value::Histogram(_) => FamilyType::Histogram,
        };
        let pair = |name: &str, value: &str| LabelPair {
            name: Some(escaping.apply(name)),
            value: Some(value.to_owned()),
        };
        let mut label: Vec<LabelPair> = labels
            .iter()
            .filter(|(n, _)| *n != sextant_model::METRIC_NAME)
            .map(|(n, v)| pair(n, v))
            .collect();
        if labels.get(INSTANCE).is_none() {
            label.push(pair(INSTANCE, ""));
        }
        let mut metric = Metric { label, timestamp_ms: Some(t), ..Metric::default() };
        match value {
            Value::Float(v) => metric.untyped = Some(Untyped { value: Some(v) }),
            Value::Histogram(h) => metric.histogram = Some(wire(&h)),
        }
        match &mut family {
            Some((last, last_kind, metrics)) if *last == name && *last_kind == kind => metrics.push(metric),
            _ => send(family.replace((name, kind, vec![metric]))),
        }
    }
    send(family);
    out
}

fn wire(h: &Histogram) -> metric_family::Histogram {
    let spans = |spans: &[sextant_model::Span]| {
        spans.iter().map(|s| BucketSpan { offset: Some(s.offset), length: Some(s.length) }).collect()
    };
    metric_family::Histogram {
        sample_sum: Some(h.sum),
        sample_count_float: Some(h.count),
        schema: Some(h.schema),
        zero_threshold: Some(h.zero_threshold),
        zero_count_float: Some(h.zero_count),
        negative_span: spans(&h.negative_spans),
        negative_count: h.negative_buckets.clone(),
        positive_span: spans(&h.positive_spans),
        positive_count: h.positive_buckets.clone(),
        ..metric_family::Histogram::default()
    }
}

/// A family of floats as text. Names that the older syntax does not take are quoted and stand within the braces.
fn text_family(name: &str, metrics: &[Metric]) -> String {
    let bare = is_valid_legacy_metric_name(name);
    let quoted = |out: &mut String, text: &str| {
        out.push('"');
        out.push_str(&text.replace('\\', "\\\\").replace('\n', "\\n").replace('"', "\\\""));
        out.push('"');
    };
    let mut out = String::from("# TYPE ");
    match bare {
        true => out.push_str(name),
        false => quoted(&mut out, name),
    }
    out.push_str(" untyped\n");
    for metric in metrics {
        if bare {
            out.push_str(name);
        }
        out.push('{');
        if !bare {
            quoted(&mut out, name);
        }
        for (i, label) in metric.label.iter().enumerate() {
            if i > 0 || !bare {
                out.push(',');
            }
            let name = label.name.as_deref().unwrap_or("");
            match is_valid_legacy_metric_name(name) {
                true => out.push_str(name),
                false => quoted(&mut out, name),
            }
            out.push('=');
            quoted(&mut out, label.value.as_deref().unwrap_or(""));
        }
        out.push_str("} ");
        push_general(&mut out, metric.untyped.and_then(|u| u.value).unwrap_or(0.0));
        let _ = writeln!(out, " {}", metric.timestamp_ms.unwrap_or(0));
    }
    out
}

/// A number as Go's `strconv.FormatFloat(v, 'g', -1, 64)`: with an exponent below 1e-4 and from 1e6 on.
fn push_general(out: &mut String, v: f64) {
    if !v.is_finite() || v == 0.0 {
        return super::json::push_float(out, v);
    }
    let text = format!("{v:e}");
    let Some((mantissa, exponent)) = text.split_once('e') else { return };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..6).contains(&exponent) {
        let _ = write!(out, "{v}");
    } else {
        let sign = if exponent < 0 { '-' } else { '+' };
        let _ = write!(out, "{mantissa}e{sign}{:02}", exponent.unsigned_abs());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped_as_asked() {
        for (escaping, expected) in [
            (Escaping::AllowUtf8, "a.b_ü"),
            (Escaping::Underscores, "a_b__"),
            (Escaping::Dots, "a_dot_b____"),
            (Escaping::Values, "U__a_2e_b___fc_"),
        ] {
            assert_eq!(escaping.apply("a.b_ü"), expected);
            assert_eq!(escaping.apply("a_b:c"), "a_b:c");
        }
    }

    #[test]
    fn numbers_as_go_prints_them() {
        for (v, text) in [
            (0.0, "0"),
            (123_456.5, "123456.5"),
            (1_234_567.0, "1.234567e+06"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (f64::INFINITY, "+Inf"),
        ] {
            let mut out = String::new();
            push_general(&mut out, v);
            assert_eq!(out, text);
        }
    }

    #[test]
    fn accept_decides() {
        let proto =
            "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited";
        for (accept, expected) in [
            ("", (Format::Text, Escaping::Underscores)),
            ("application/openmetrics-text;version=1.0.0", (Format::Text, Escaping::Underscores)),
            (proto, (Format::Protobuf, Escaping::Underscores)),
            ("text/plain;version=0.0.4;q=0.5;escaping=dots", (Format::Text, Escaping::Dots)),
        ] {
            assert_eq!(negotiate(accept), expected, "{accept}");
        }
        assert_eq!(negotiate(&format!("{proto};q=0.3,text/plain;q=0.4")).0, Format::Text);
        assert_eq!(negotiate(&format!("{proto};q=0.6,text/plain;q=0.4")).0, Format::Protobuf);
    }
}
