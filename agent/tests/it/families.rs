//! Metric families from the conformance cases' JSON.

use serde_json::Value;
use sextant_proto::metric_family::{
    Bucket, Counter, Exemplar, FamilyType, Gauge, Histogram, LabelPair, Metric, MetricFamily, Quantile,
    Summary, Timestamp, Untyped,
};

fn text(v: &Value) -> Option<String> {
    v.as_str().map(str::to_owned)
}

/// A number, or `NaN`, `+Inf`, `-Inf` as text.
fn float(v: &Value) -> Option<f64> {
    match v {
        Value::String(s) => sextant_agent::exposition::parse_float(s),
        other => other.as_f64(),
    }
}

fn list<T>(v: &Value, of: impl Fn(&Value) -> T) -> Vec<T> {
    v.as_array().into_iter().flatten().map(of).collect()
}

fn label(v: &Value) -> LabelPair {
    LabelPair { name: text(&v["Name"]), value: text(&v["Value"]) }
}

fn timestamp(v: &Value) -> Option<Timestamp> {
    let ns = v["unix_ns"].as_i64()?;
    Some(Timestamp { seconds: ns / 1_000_000_000, nanos: (ns % 1_000_000_000) as i32 })
}

fn exemplar(v: &Value) -> Option<Exemplar> {
    v.as_object()?;
    Some(Exemplar {
        label: list(&v["Label"], label),
        value: float(&v["Value"]),
        timestamp: timestamp(&v["Timestamp"]),
    })
}

fn bucket(v: &Value) -> Bucket {
    Bucket {
        cumulative_count: v["CumulativeCount"].as_u64(),
        cumulative_count_float: float(&v["CumulativeCountFloat"]),
        upper_bound: float(&v["UpperBound"]),
        exemplar: exemplar(&v["Exemplar"]),
    }
}

fn histogram(v: &Value) -> Histogram {
    Histogram {
        sample_count: v["SampleCount"].as_u64(),
        sample_count_float: float(&v["SampleCountFloat"]),
        sample_sum: float(&v["SampleSum"]),
        bucket: list(&v["Bucket"], bucket),
        created_timestamp: timestamp(&v["CreatedTimestamp"]),
        ..Histogram::default()
    }
}

fn summary(v: &Value) -> Summary {
    let quantile = |q: &Value| Quantile { quantile: float(&q["Quantile"]), value: float(&q["Value"]) };
    Summary {
        sample_count: v["SampleCount"].as_u64(),
        sample_sum: float(&v["SampleSum"]),
        quantile: list(&v["Quantile"], quantile),
        created_timestamp: timestamp(&v["CreatedTimestamp"]),
    }
}

fn metric(v: &Value) -> Metric {
    let set = |key: &str| Some(&v[key]).filter(|v| !v.is_null());
    Metric {
        label: list(&v["Label"], label),
        gauge: set("Gauge").map(|g| Gauge { value: float(&g["Value"]) }),
        counter: set("Counter").map(|c| Counter {
            value: float(&c["Value"]),
            exemplar: exemplar(&c["Exemplar"]),
            created_timestamp: timestamp(&c["CreatedTimestamp"]),
        }),
        summary: set("Summary").map(summary),
        untyped: set("Untyped").map(|u| Untyped { value: float(&u["Value"]) }),
        histogram: set("Histogram").map(histogram),
        timestamp_ms: v["TimestampMs"].as_i64(),
    }
}

/// A family.
pub fn family(v: &Value) -> MetricFamily {
    let types = [
        ("MetricType_COUNTER", FamilyType::Counter),
        ("MetricType_GAUGE", FamilyType::Gauge),
        ("MetricType_SUMMARY", FamilyType::Summary),
        ("MetricType_UNTYPED", FamilyType::Untyped),
        ("MetricType_HISTOGRAM", FamilyType::Histogram),
        ("MetricType_GAUGE_HISTOGRAM", FamilyType::GaugeHistogram),
    ];
    let family_type = types.iter().find(|(n, _)| v["Type"] == *n).map(|(_, t)| *t as i32);
    MetricFamily {
        name: text(&v["Name"]),
        help: text(&v["Help"]),
        r#type: family_type,
        metric: list(&v["Metric"], metric),
        unit: text(&v["Unit"]),
    }
}
