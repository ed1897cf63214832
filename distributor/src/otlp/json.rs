//! OTLP's JSON mapping: where it differs from the generated serde form, the text is brought to that form first.
//!
//! The specification's mapping: lowerCamelCase names, 64-bit integers as strings or numbers, enumerations as numbers or names, ids in
//! hexadecimal, doubles as numbers or `"NaN"`, `"Infinity"`, `"-Infinity"`, unknown fields ignored, absent and null fields are defaults.

use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    common::v1::{AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList, any_value},
    metrics::v1::{
        Exemplar, ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Histogram, HistogramDataPoint,
        Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, Summary, SummaryDataPoint, exemplar,
        exponential_histogram_data_point::Buckets, metric::Data, number_data_point,
        summary_data_point::ValueAtQuantile,
    },
    resource::v1::Resource,
};
use serde_json::{Map, Value};

/// A field with a value that its type does not allow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct JsonError {
    field: String,
    reason: &'static str,
}

type Result<T> = std::result::Result<T, JsonError>;
type Object = Map<String, Value>;

fn wrong<T>(field: &str, reason: &'static str) -> Result<T> {
    Err(JsonError { field: field.to_owned(), reason })
}

fn get<'a>(o: &'a Object, name: &str) -> Option<&'a Value> {
    o.get(name).filter(|v| !v.is_null())
}

fn object<'a>(field: &str, v: &'a Value) -> Result<&'a Object> {
    v.as_object().map_or_else(|| wrong(field, "expected an object"), Ok)
}

fn list<T>(o: &Object, name: &str, read: impl Fn(&Value) -> Result<T>) -> Result<Vec<T>> {
    match get(o, name) {
        None => Ok(Vec::new()),
        Some(Value::Array(items)) => items.iter().map(read).collect(),
        Some(_) => wrong(name, "expected an array"),
    }
}

fn objects<T>(o: &Object, name: &str, read: impl Fn(&Object) -> Result<T>) -> Result<Vec<T>> {
    list(o, name, |v| read(object(name, v)?))
}

fn text(o: &Object, name: &str) -> Result<String> {
    match get(o, name) {
        None => Ok(String::new()),
        Some(Value::String(s)) => Ok(s.clone()),
        Some(_) => wrong(name, "expected a string"),
    }
}

fn boolean(o: &Object, name: &str) -> Result<bool> {
    match get(o, name) {
        None => Ok(false),
        Some(Value::Bool(b)) => Ok(*b),
        Some(_) => wrong(name, "expected true or false"),
    }
}

fn unsigned(field: &str, v: &Value) -> Result<u64> {
    let whole = |f: f64| (f >= 0.0 && f.fract() == 0.0 && f < 2f64.powi(64)).then_some(f as u64);
    let n = match v {
        Value::Number(n) => n.as_u64().or_else(|| n.as_f64().and_then(whole)),
        Value::String(s) => s.parse().ok(),
        _ => None,
    };
    n.map_or_else(|| wrong(field, "expected an unsigned integer"), Ok)
}

fn signed(field: &str, v: &Value) -> Result<i64> {
    let whole = |f: f64| (f.fract() == 0.0 && f.abs() < 2f64.powi(63)).then_some(f as i64);
    let n = match v {
        Value::Number(n) => n.as_i64().or_else(|| n.as_f64().and_then(whole)),
        Value::String(s) => s.parse().ok(),
        _ => None,
    };
    n.map_or_else(|| wrong(field, "expected an integer"), Ok)
}

fn double(field: &str, v: &Value) -> Result<f64> {
    let d = match v {
        Value::Number(n) => n.as_f64(),
        Value::String(s) => match s.as_str() {
            "NaN" => Some(f64::NAN),
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            s => s.parse().ok(),
        },
        _ => None,
    };
    d.map_or_else(|| wrong(field, "expected a number"), Ok)
}

fn u64_of(o: &Object, name: &str) -> Result<u64> {
    get(o, name).map_or(Ok(0), |v| unsigned(name, v))
}

fn u32_of(o: &Object, name: &str) -> Result<u32> {
    u32::try_from(u64_of(o, name)?).or_else(|_| wrong(name, "out of range"))
}

fn i32_of(o: &Object, name: &str) -> Result<i32> {
    let n = get(o, name).map_or(Ok(0), |v| signed(name, v))?;
    i32::try_from(n).or_else(|_| wrong(name, "out of range"))
}

fn f64_of(o: &Object, name: &str) -> Result<f64> {
    get(o, name).map_or(Ok(0.0), |v| double(name, v))
}

fn optional_f64(o: &Object, name: &str) -> Result<Option<f64>> {
    get(o, name).map(|v| double(name, v)).transpose()
}

fn id(o: &Object, name: &str) -> Result<Vec<u8>> {
    hex::decode(text(o, name)?).or_else(|_| wrong(name, "expected hexadecimal digits"))
}

fn temporality(o: &Object) -> Result<i32> {
    let name = "aggregationTemporality";
    match get(o, name) {
        Some(Value::String(s)) => match s.as_str() {
            "AGGREGATION_TEMPORALITY_UNSPECIFIED" => Ok(0),
            "AGGREGATION_TEMPORALITY_DELTA" => Ok(1),
            "AGGREGATION_TEMPORALITY_CUMULATIVE" => Ok(2),
            _ => wrong(name, "unknown name"),
        },
        _ => i32_of(o, name),
    }
}

/// How deep attribute values may be nested.
const DEPTH_MAX: usize = 32;

fn any_value(v: &Value, depth: usize) -> Result<AnyValue> {
    use any_value::Value as V;
    if depth > DEPTH_MAX {
        return wrong("value", "nested too deeply");
    }
    let o = object("value", v)?;
    let value = if let Some(v) = get(o, "stringValue") {
        V::StringValue(
            v.as_str().map_or_else(|| wrong("stringValue", "expected a string"), |s| Ok(s.to_owned()))?,
        )
    } else if get(o, "boolValue").is_some() {
        V::BoolValue(boolean(o, "boolValue")?)
    } else if let Some(v) = get(o, "intValue") {
        V::IntValue(signed("intValue", v)?)
    } else if let Some(v) = get(o, "doubleValue") {
        V::DoubleValue(double("doubleValue", v)?)
    } else if let Some(v) = get(o, "arrayValue") {
        let values = list(object("arrayValue", v)?, "values", |v| any_value(v, depth + 1))?;
        V::ArrayValue(ArrayValue { values })
    } else if let Some(v) = get(o, "kvlistValue") {
        V::KvlistValue(KeyValueList {
            values: objects(object("kvlistValue", v)?, "values", |o| key_value(o, depth + 1))?,
        })
    } else if get(o, "bytesValue").is_some() {
        use base64::Engine;
        let bytes = base64::engine::general_purpose::STANDARD.decode(text(o, "bytesValue")?);
        V::BytesValue(bytes.or_else(|_| wrong("bytesValue", "expected base64"))?)
    } else {
        return Ok(AnyValue { value: None });
    };
    Ok(AnyValue { value: Some(value) })
}

fn key_value(o: &Object, depth: usize) -> Result<KeyValue> {
    let value = get(o, "value").map(|v| any_value(v, depth)).transpose()?;
    Ok(KeyValue { key: text(o, "key")?, value, ..Default::default() })
}

fn attributes(o: &Object, name: &str) -> Result<Vec<KeyValue>> {
    objects(o, name, |o| key_value(o, 0))
}

fn exemplars(o: &Object) -> Result<Vec<Exemplar>> {
    objects(o, "exemplars", |o| {
        let value = if let Some(v) = get(o, "asDouble") {
            Some(exemplar::Value::AsDouble(double("asDouble", v)?))
        } else {
            get(o, "asInt").map(|v| signed("asInt", v).map(exemplar::Value::AsInt)).transpose()?
        };
        Ok(Exemplar {
            filtered_attributes: attributes(o, "filteredAttributes")?,
            time_unix_nano: u64_of(o, "timeUnixNano")?,
            span_id: id(o, "spanId")?,
            trace_id: id(o, "traceId")?,
            value,
        })
    })
}

fn numbers(o: &Object) -> Result<Vec<NumberDataPoint>> {
    objects(o, "dataPoints", |o| {
        let value = if let Some(v) = get(o, "asDouble") {
            Some(number_data_point::Value::AsDouble(double("asDouble", v)?))
        } else {
            get(o, "asInt").map(|v| signed("asInt", v).map(number_data_point::Value::AsInt)).transpose()?
        };
        Ok(NumberDataPoint {
            attributes: attributes(o, "attributes")?,
            start_time_unix_nano: u64_of(o, "startTimeUnixNano")?,
            time_unix_nano: u64_of(o, "timeUnixNano")?,
            exemplars: exemplars(o)?,
            flags: u32_of(o, "flags")?,
            value,
        })
    })
}

fn histograms(o: &Object) -> Result<Vec<HistogramDataPoint>> {
    objects(o, "dataPoints", |o| {
        Ok(HistogramDataPoint {
            attributes: attributes(o, "attributes")?,
            start_time_unix_nano: u64_of(o, "startTimeUnixNano")?,
            time_unix_nano: u64_of(o, "timeUnixNano")?,
            count: u64_of(o, "count")?,
            sum: optional_f64(o, "sum")?,
            bucket_counts: list(o, "bucketCounts", |v| unsigned("bucketCounts", v))?,
            explicit_bounds: list(o, "explicitBounds", |v| double("explicitBounds", v))?,
            exemplars: exemplars(o)?,
            flags: u32_of(o, "flags")?,
            min: optional_f64(o, "min")?,
            max: optional_f64(o, "max")?,
        })
    })
}

fn buckets(o: &Object, name: &str) -> Result<Option<Buckets>> {
    get(o, name)
        .map(|v| {
            let o = object(name, v)?;
            Ok(Buckets {
                offset: i32_of(o, "offset")?,
                bucket_counts: list(o, "bucketCounts", |v| unsigned("bucketCounts", v))?,
            })
        })
        .transpose()
}

fn exponential(o: &Object) -> Result<Vec<ExponentialHistogramDataPoint>> {
    objects(o, "dataPoints", |o| {
        Ok(ExponentialHistogramDataPoint {
            attributes: attributes(o, "attributes")?,
            start_time_unix_nano: u64_of(o, "startTimeUnixNano")?,
            time_unix_nano: u64_of(o, "timeUnixNano")?,
            count: u64_of(o, "count")?,
            sum: optional_f64(o, "sum")?,
            scale: i32_of(o, "scale")?,
            zero_count: u64_of(o, "zeroCount")?,
            positive: buckets(o, "positive")?,
            negative: buckets(o, "negative")?,
            flags: u32_of(o, "flags")?,
            exemplars: exemplars(o)?,
            min: optional_f64(o, "min")?,
            max: optional_f64(o, "max")?,
            zero_threshold: f64_of(o, "zeroThreshold")?,
        })
    })
}

fn summaries(o: &Object) -> Result<Vec<SummaryDataPoint>> {
    objects(o, "dataPoints", |o| {
        Ok(SummaryDataPoint {
            attributes: attributes(o, "attributes")?,
            start_time_unix_nano: u64_of(o, "startTimeUnixNano")?,
            time_unix_nano: u64_of(o, "timeUnixNano")?,
            count: u64_of(o, "count")?,
            sum: f64_of(o, "sum")?,
            quantile_values: objects(o, "quantileValues", |o| {
                Ok(ValueAtQuantile { quantile: f64_of(o, "quantile")?, value: f64_of(o, "value")? })
            })?,
            flags: u32_of(o, "flags")?,
        })
    })
}

fn metric(o: &Object) -> Result<Metric> {
    let data = if let Some(v) = get(o, "gauge") {
        Some(Data::Gauge(Gauge { data_points: numbers(object("gauge", v)?)? }))
    } else if let Some(v) = get(o, "sum") {
        let o = object("sum", v)?;
        Some(Data::Sum(Sum {
            data_points: numbers(o)?,
            aggregation_temporality: temporality(o)?,
            is_monotonic: boolean(o, "isMonotonic")?,
        }))
    } else if let Some(v) = get(o, "histogram") {
        let o = object("histogram", v)?;
        Some(Data::Histogram(Histogram {
            data_points: histograms(o)?,
            aggregation_temporality: temporality(o)?,
        }))
    } else if let Some(v) = get(o, "exponentialHistogram") {
        let o = object("exponentialHistogram", v)?;
        let (data_points, aggregation_temporality) = (exponential(o)?, temporality(o)?);
        Some(Data::ExponentialHistogram(ExponentialHistogram { data_points, aggregation_temporality }))
    } else if let Some(v) = get(o, "summary") {
        Some(Data::Summary(Summary { data_points: summaries(object("summary", v)?)? }))
    } else {
        None
    };
    Ok(Metric {
        name: text(o, "name")?,
        description: text(o, "description")?,
        unit: text(o, "unit")?,
        metadata: attributes(o, "metadata")?,
        data,
    })
}

fn scope(o: &Object) -> Result<ScopeMetrics> {
    let scope = get(o, "scope")
        .map(|v| {
            let o = object("scope", v)?;
            Ok(InstrumentationScope {
                name: text(o, "name")?,
                version: text(o, "version")?,
                attributes: attributes(o, "attributes")?,
                dropped_attributes_count: 0,
            })
        })
        .transpose()?;
    Ok(ScopeMetrics { scope, metrics: objects(o, "metrics", metric)?, schema_url: text(o, "schemaUrl")? })
}

fn resource(o: &Object) -> Result<ResourceMetrics> {
    let resource = get(o, "resource")
        .map(|v| {
            Ok(Resource {
                attributes: attributes(object("resource", v)?, "attributes")?,
                ..Default::default()
            })
        })
        .transpose()?;
    Ok(ResourceMetrics {
        resource,
        scope_metrics: objects(o, "scopeMetrics", scope)?,
        schema_url: text(o, "schemaUrl")?,
    })
}

/// Reads a metrics request.
pub fn metrics_request(body: &[u8]) -> std::result::Result<ExportMetricsServiceRequest, String> {
    let value: Value = serde_json::from_slice(body).map_err(|e| e.to_string())?;
    let read = || {
        let o = object("request", &value)?;
        Ok(ExportMetricsServiceRequest { resource_metrics: objects(o, "resourceMetrics", resource)? })
    };
    read().map_err(|e: JsonError| e.to_string())
}
