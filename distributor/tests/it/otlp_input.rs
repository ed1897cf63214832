//! OTLP messages from the JSON form of the conformance cases.

use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value},
    metrics::v1::{
        AggregationTemporality, Exemplar, ExponentialHistogram, ExponentialHistogramDataPoint, Gauge,
        Histogram, HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, Summary,
        SummaryDataPoint, exemplar, exponential_histogram_data_point::Buckets, metric::Data,
        number_data_point, summary_data_point::ValueAtQuantile,
    },
    resource::v1::Resource,
};
use serde_json::Value;

use crate::cases::text;

pub fn string(value: &str) -> Option<AnyValue> {
    Some(AnyValue { value: Some(any_value::Value::StringValue(value.to_owned())) })
}

pub fn attribute(key: &str, value: &str) -> KeyValue {
    KeyValue { key: key.to_owned(), value: string(value), ..KeyValue::default() }
}

/// An object of texts as attributes.
pub fn attributes(v: &Value) -> Vec<KeyValue> {
    let object = v.as_object();
    object.into_iter().flatten().map(|(k, v)| attribute(k, v.as_str().unwrap_or(""))).collect()
}

/// A request of metrics in one scope of one resource.
pub fn request(resource: Vec<KeyValue>, scope: &Value, metrics: Vec<Metric>) -> ExportMetricsServiceRequest {
    let of_scope = InstrumentationScope {
        name: text(scope, "name").to_owned(),
        version: text(scope, "version").to_owned(),
        attributes: attributes(&scope["attributes"]),
        dropped_attributes_count: 0,
    };
    let scope_metrics = ScopeMetrics {
        scope: scope.is_object().then_some(of_scope),
        metrics,
        schema_url: text(scope, "schemaURL").to_owned(),
    };
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(Resource { attributes: resource, ..Resource::default() }),
            scope_metrics: vec![scope_metrics],
            schema_url: String::new(),
        }],
    }
}

pub fn metric(m: &Value) -> Metric {
    Metric {
        name: text(m, "name").to_owned(),
        unit: text(m, "unit").to_owned(),
        description: text(m, "description").to_owned(),
        metadata: Vec::new(),
        data: data(m),
    }
}

fn data(m: &Value) -> Option<Data> {
    if let Some(g) = m.get("gauge") {
        return Some(Data::Gauge(Gauge { data_points: each(g, number) }));
    }
    if let Some(s) = m.get("sum") {
        return Some(Data::Sum(Sum {
            data_points: each(s, number),
            aggregation_temporality: temporality(s),
            is_monotonic: s["is_monotonic"].as_bool().unwrap_or(false),
        }));
    }
    if let Some(h) = m.get("histogram") {
        let (data_points, aggregation_temporality) = (each(h, histogram), temporality(h));
        return Some(Data::Histogram(Histogram { data_points, aggregation_temporality }));
    }
    if let Some(h) = m.get("exponential_histogram") {
        let (data_points, aggregation_temporality) = (each(h, exponential), temporality(h));
        return Some(Data::ExponentialHistogram(ExponentialHistogram {
            data_points,
            aggregation_temporality,
        }));
    }
    m.get("summary").map(|s| Data::Summary(Summary { data_points: each(s, summary) }))
}

fn each<T>(data: &Value, read: fn(&Value) -> T) -> Vec<T> {
    data["data_points"].as_array().into_iter().flatten().map(read).collect()
}

/// The cases of single functions do not give one; those functions do not look at it.
fn temporality(data: &Value) -> i32 {
    match text(data, "aggregation_temporality") {
        "" | "AggregationTemporalityCumulative" => AggregationTemporality::Cumulative as i32,
        "AggregationTemporalityDelta" => AggregationTemporality::Delta as i32,
        "AggregationTemporalityUnspecified" => AggregationTemporality::Unspecified as i32,
        other => panic!("{other}"),
    }
}

fn nanos(p: &Value, field: &str) -> u64 {
    p[field].as_u64().unwrap_or(0)
}

fn counts(v: &Value) -> Vec<u64> {
    v.as_array().into_iter().flatten().filter_map(Value::as_u64).collect()
}

fn floats(v: &Value) -> Vec<f64> {
    v.as_array().into_iter().flatten().filter_map(Value::as_f64).collect()
}

fn exemplars(p: &Value) -> Vec<Exemplar> {
    let read = |e: &Value| Exemplar {
        value: e["double_value"].as_f64().map(exemplar::Value::AsDouble),
        time_unix_nano: nanos(e, "timestamp"),
        ..Exemplar::default()
    };
    p["exemplars"].as_array().into_iter().flatten().map(read).collect()
}

fn number(p: &Value) -> NumberDataPoint {
    let double = p["double_value"].as_f64().map(number_data_point::Value::AsDouble);
    let int = || p["int_value"].as_i64().map(number_data_point::Value::AsInt);
    NumberDataPoint {
        attributes: attributes(&p["attributes"]),
        start_time_unix_nano: nanos(p, "start_timestamp"),
        time_unix_nano: nanos(p, "timestamp"),
        exemplars: exemplars(p),
        flags: 0,
        value: double.or_else(int),
    }
}

pub fn histogram(p: &Value) -> HistogramDataPoint {
    HistogramDataPoint {
        attributes: attributes(&p["attributes"]),
        start_time_unix_nano: nanos(p, "start_timestamp"),
        time_unix_nano: nanos(p, "timestamp"),
        count: p["count"].as_u64().unwrap_or(0),
        sum: p["sum"].as_f64(),
        bucket_counts: counts(&p["bucket_counts"]),
        explicit_bounds: floats(&p["explicit_bounds"]),
        exemplars: exemplars(p),
        ..HistogramDataPoint::default()
    }
}

pub fn exponential(p: &Value) -> ExponentialHistogramDataPoint {
    let buckets = |b: &Value| {
        let offset = b["offset"].as_i64().unwrap_or(0) as i32;
        b.is_object().then(|| Buckets { offset, bucket_counts: counts(&b["bucket_counts"]) })
    };
    ExponentialHistogramDataPoint {
        attributes: attributes(&p["attributes"]),
        start_time_unix_nano: nanos(p, "start_timestamp"),
        time_unix_nano: nanos(p, "timestamp"),
        count: p["count"].as_u64().unwrap_or(0),
        sum: p["sum"].as_f64(),
        scale: p["scale"].as_i64().unwrap_or(0) as i32,
        zero_count: p["zero_count"].as_u64().unwrap_or(0),
        positive: buckets(&p["positive"]),
        negative: buckets(&p["negative"]),
        exemplars: exemplars(p),
        ..ExponentialHistogramDataPoint::default()
    }
}

fn summary(p: &Value) -> SummaryDataPoint {
    let quantile = |q: &Value| ValueAtQuantile {
        quantile: q["quantile"].as_f64().unwrap_or(0.0),
        value: q["value"].as_f64().unwrap_or(0.0),
    };
    SummaryDataPoint {
        attributes: attributes(&p["attributes"]),
        start_time_unix_nano: nanos(p, "start_timestamp"),
        time_unix_nano: nanos(p, "timestamp"),
        count: p["count"].as_u64().unwrap_or(0),
        sum: p["sum"].as_f64().unwrap_or(0.0),
        quantile_values: p["quantile_values"].as_array().into_iter().flatten().map(quantile).collect(),
        flags: 0,
    }
}
