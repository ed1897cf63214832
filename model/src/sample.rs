//! Samples, exemplars and metric metadata.

use crate::{Histogram, Labels};

/// The NaN that marks a series as gone: Prometheus' staleness marker.
pub const STALE_NAN_BITS: u64 = 0x7ff0_0000_0000_0002;

/// The start timestamp of a sample that has none.
pub const NO_START: i64 = 0;

/// Prometheus' staleness marker as a value.
pub fn stale_nan() -> f64 {
    f64::from_bits(STALE_NAN_BITS)
}

/// Whether a value is the staleness marker; another NaN is not.
pub fn is_stale_nan(v: f64) -> bool {
    v.to_bits() == STALE_NAN_BITS
}

/// One float sample.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// Milliseconds since the Unix epoch.
    pub t: i64,
    /// The value, kept to the bit.
    pub v: f64,
    /// When the counter started, in milliseconds; [`NO_START`] where unknown.
    pub start: i64,
}

/// One native histogram sample.
#[derive(Clone, Debug, PartialEq)]
pub struct HistogramSample {
    /// Milliseconds since the Unix epoch.
    pub t: i64,
    /// When the counter started, in milliseconds; [`NO_START`] where unknown.
    pub start: i64,
    /// The histogram. A staleness marker is a histogram whose sum is the stale NaN.
    pub h: Histogram,
}

/// An exemplar: a value with the labels (usually a trace id) of one observation behind a series.
#[derive(Clone, Debug, PartialEq)]
pub struct Exemplar {
    /// Milliseconds since the Unix epoch.
    pub t: i64,
    /// The observed value.
    pub v: f64,
    /// The exemplar's own labels.
    pub labels: Labels,
}

/// A metric family's type, in the words of OpenMetrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, PartialOrd, Ord)]
#[repr(u8)]
pub enum MetricType {
    /// Not known.
    #[default]
    Unknown = 0,
    /// Counter.
    Counter = 1,
    /// Gauge.
    Gauge = 2,
    /// Histogram, classic or native.
    Histogram = 3,
    /// Gauge histogram.
    GaugeHistogram = 4,
    /// Summary.
    Summary = 5,
    /// Info.
    Info = 6,
    /// State set.
    StateSet = 7,
}

impl MetricType {
    /// Every type, indexed by its number (as in remote write 1.0 and 2.0).
    pub const ALL: [MetricType; 8] = [
        Self::Unknown,
        Self::Counter,
        Self::Gauge,
        Self::Histogram,
        Self::GaugeHistogram,
        Self::Summary,
        Self::Info,
        Self::StateSet,
    ];

    /// The lower-case name, as Prometheus' API prints it.
    pub fn as_str(self) -> &'static str {
        ["unknown", "counter", "gauge", "histogram", "gaugehistogram", "summary", "info", "stateset"]
            [self as usize]
    }

    /// The type of a number, [`MetricType::Unknown`] for a number that is none.
    pub fn from_number(n: i64) -> Self {
        usize::try_from(n).ok().and_then(|i| Self::ALL.get(i).copied()).unwrap_or_default()
    }

    /// The type of a lower-case name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|t| t.as_str() == name)
    }
}

/// What is known of a metric family.
#[derive(Clone, Debug, PartialEq, Eq, Default, Hash, PartialOrd, Ord)]
pub struct MetricMetadata {
    /// The family's type.
    pub metric_type: MetricType,
    /// Its help text.
    pub help: String,
    /// Its unit.
    pub unit: String,
}
