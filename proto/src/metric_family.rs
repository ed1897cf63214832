//! Metric families of the protobuf exposition format, as `prost` structures: what a target sends, what federation answers,
//! and the form of families that are written as text.
//!
//! Field numbers are those of the published messages `io.prometheus.client` (prometheus/client_model, Apache-2.0).

use prost::{Enumeration, Message};

/// A label.
#[derive(Clone, PartialEq, Message)]
pub struct LabelPair {
    /// Its name.
    #[prost(string, optional, tag = "1")]
    pub name: Option<String>,
    /// Its value.
    #[prost(string, optional, tag = "2")]
    pub value: Option<String>,
}

/// A family's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub enum FamilyType {
    /// Counter.
    Counter = 0,
    /// Gauge.
    Gauge = 1,
    /// Summary.
    Summary = 2,
    /// Not known.
    Untyped = 3,
    /// Histogram, classic, native or both.
    Histogram = 4,
    /// Gauge histogram.
    GaugeHistogram = 5,
}

/// `google.protobuf.Timestamp`.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct Timestamp {
    /// Seconds since the Unix epoch.
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    /// Nanoseconds of the second.
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

impl Timestamp {
    /// Milliseconds since the Unix epoch.
    pub fn as_ms(&self) -> i64 {
        self.seconds.saturating_mul(1000).saturating_add(i64::from(self.nanos / 1_000_000))
    }

    /// Seconds since the Unix epoch.
    pub fn as_seconds(&self) -> f64 {
        self.seconds as f64 + f64::from(self.nanos) / 1e9
    }
}

/// A gauge's value.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct Gauge {
    /// The value.
    #[prost(double, optional, tag = "1")]
    pub value: Option<f64>,
}

/// A counter's value.
#[derive(Clone, PartialEq, Message)]
pub struct Counter {
    /// The value.
    #[prost(double, optional, tag = "1")]
    pub value: Option<f64>,
    /// An exemplar.
    #[prost(message, optional, tag = "2")]
    pub exemplar: Option<Exemplar>,
    /// When it was zero.
    #[prost(message, optional, tag = "3")]
    pub created_timestamp: Option<Timestamp>,
}

/// One quantile of a summary.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct Quantile {
    /// 0 to 1.
    #[prost(double, optional, tag = "1")]
    pub quantile: Option<f64>,
    /// The value.
    #[prost(double, optional, tag = "2")]
    pub value: Option<f64>,
}

/// A summary.
#[derive(Clone, PartialEq, Message)]
pub struct Summary {
    /// Observations.
    #[prost(uint64, optional, tag = "1")]
    pub sample_count: Option<u64>,
    /// Their sum.
    #[prost(double, optional, tag = "2")]
    pub sample_sum: Option<f64>,
    /// Quantiles.
    #[prost(message, repeated, tag = "3")]
    pub quantile: Vec<Quantile>,
    /// When it was zero.
    #[prost(message, optional, tag = "4")]
    pub created_timestamp: Option<Timestamp>,
}

/// A value of unknown type.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct Untyped {
    /// The value.
    #[prost(double, optional, tag = "1")]
    pub value: Option<f64>,
}

/// A histogram, classic (`bucket`), native (the rest), or both.
#[derive(Clone, PartialEq, Message)]
pub struct Histogram {
    /// Observations.
    #[prost(uint64, optional, tag = "1")]
    pub sample_count: Option<u64>,
    /// Observations, of a float histogram.
    #[prost(double, optional, tag = "4")]
    pub sample_count_float: Option<f64>,
    /// Their sum.
    #[prost(double, optional, tag = "2")]
    pub sample_sum: Option<f64>,
    /// Classic buckets.
    #[prost(message, repeated, tag = "3")]
    pub bucket: Vec<Bucket>,
    /// When it was zero.
    #[prost(message, optional, tag = "15")]
    pub created_timestamp: Option<Timestamp>,
    /// The native histogram's schema.
    #[prost(sint32, optional, tag = "5")]
    pub schema: Option<i32>,
    /// Width of the zero bucket.
    #[prost(double, optional, tag = "6")]
    pub zero_threshold: Option<f64>,
    /// Observations in the zero bucket.
    #[prost(uint64, optional, tag = "7")]
    pub zero_count: Option<u64>,
    /// Observations in the zero bucket, of a float histogram.
    #[prost(double, optional, tag = "8")]
    pub zero_count_float: Option<f64>,
    /// Spans of negative buckets.
    #[prost(message, repeated, tag = "9")]
    pub negative_span: Vec<BucketSpan>,
    /// Differences between the counts of neighbouring negative buckets.
    #[prost(sint64, repeated, packed = "false", tag = "10")]
    pub negative_delta: Vec<i64>,
    /// Counts of negative buckets, of a float histogram.
    #[prost(double, repeated, packed = "false", tag = "11")]
    pub negative_count: Vec<f64>,
    /// Spans of positive buckets.
    #[prost(message, repeated, tag = "12")]
    pub positive_span: Vec<BucketSpan>,
    /// Differences between the counts of neighbouring positive buckets.
    #[prost(sint64, repeated, packed = "false", tag = "13")]
    pub positive_delta: Vec<i64>,
    /// Counts of positive buckets, of a float histogram.
    #[prost(double, repeated, packed = "false", tag = "14")]
    pub positive_count: Vec<f64>,
    /// Exemplars of a native histogram.
    #[prost(message, repeated, tag = "16")]
    pub exemplars: Vec<Exemplar>,
}

/// A classic bucket.
#[derive(Clone, PartialEq, Message)]
pub struct Bucket {
    /// Observations up to the bound.
    #[prost(uint64, optional, tag = "1")]
    pub cumulative_count: Option<u64>,
    /// The same, of a float histogram.
    #[prost(double, optional, tag = "4")]
    pub cumulative_count_float: Option<f64>,
    /// The bound, inclusive.
    #[prost(double, optional, tag = "2")]
    pub upper_bound: Option<f64>,
    /// An exemplar.
    #[prost(message, optional, tag = "3")]
    pub exemplar: Option<Exemplar>,
}

/// A run of native buckets.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct BucketSpan {
    /// Gap to the span before it.
    #[prost(sint32, optional, tag = "1")]
    pub offset: Option<i32>,
    /// How many buckets.
    #[prost(uint32, optional, tag = "2")]
    pub length: Option<u32>,
}

/// An exemplar.
#[derive(Clone, PartialEq, Message)]
pub struct Exemplar {
    /// Its own labels.
    #[prost(message, repeated, tag = "1")]
    pub label: Vec<LabelPair>,
    /// The observed value.
    #[prost(double, optional, tag = "2")]
    pub value: Option<f64>,
    /// When.
    #[prost(message, optional, tag = "3")]
    pub timestamp: Option<Timestamp>,
}

/// One metric of a family.
#[derive(Clone, PartialEq, Message)]
pub struct Metric {
    /// Its labels.
    #[prost(message, repeated, tag = "1")]
    pub label: Vec<LabelPair>,
    /// Value of a gauge.
    #[prost(message, optional, tag = "2")]
    pub gauge: Option<Gauge>,
    /// Value of a counter.
    #[prost(message, optional, tag = "3")]
    pub counter: Option<Counter>,
    /// Value of a summary.
    #[prost(message, optional, tag = "4")]
    pub summary: Option<Summary>,
    /// Value of unknown type.
    #[prost(message, optional, tag = "5")]
    pub untyped: Option<Untyped>,
    /// Value of a histogram of either type.
    #[prost(message, optional, tag = "7")]
    pub histogram: Option<Histogram>,
    /// The target's own timestamp, milliseconds.
    #[prost(int64, optional, tag = "6")]
    pub timestamp_ms: Option<i64>,
}

/// A family with its metrics.
#[derive(Clone, PartialEq, Message)]
pub struct MetricFamily {
    /// Its name.
    #[prost(string, optional, tag = "1")]
    pub name: Option<String>,
    /// Its help text.
    #[prost(string, optional, tag = "2")]
    pub help: Option<String>,
    /// Its type.
    #[prost(enumeration = "FamilyType", optional, tag = "3")]
    pub r#type: Option<i32>,
    /// Its metrics.
    #[prost(message, repeated, tag = "4")]
    pub metric: Vec<Metric>,
    /// Its unit.
    #[prost(string, optional, tag = "5")]
    pub unit: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_have_their_published_numbers() {
        let histogram = Histogram {
            sample_count: Some(3),
            schema: Some(-1),
            zero_count: Some(1),
            positive_span: vec![BucketSpan { offset: Some(-2), length: Some(2) }],
            positive_delta: vec![1, -1],
            ..Histogram::default()
        };
        let metric = Metric {
            label: vec![LabelPair { name: Some("a".into()), value: Some("b".into()) }],
            histogram: Some(histogram),
            timestamp_ms: Some(5),
            ..Metric::default()
        };
        let family = MetricFamily {
            name: Some("h".into()),
            help: Some("x".into()),
            r#type: Some(FamilyType::Histogram as i32),
            metric: vec![metric],
            unit: Some("s".into()),
        };
        // Tag (number · 8 + wire type), length, content; signed integers are zigzag.
        let mut label = vec![0x0a, 6, 0x0a, 1, b'a', 0x12, 1, b'b'];
        let histogram = [0x08, 3, 0x28, 1, 0x38, 1, 0x62, 4, 0x08, 3, 0x10, 2, 0x68, 2, 0x68, 1];
        label.extend([0x30, 5, 0x3a, histogram.len() as u8]);
        label.extend(histogram);
        let mut expected = vec![0x0a, 1, b'h', 0x12, 1, b'x', 0x18, 4, 0x22, label.len() as u8];
        expected.extend(label);
        expected.extend([0x2a, 1, b's']);
        assert_eq!(family.encode_to_vec(), expected);
        assert_eq!(MetricFamily::decode(&expected[..]), Ok(family));
    }
}
