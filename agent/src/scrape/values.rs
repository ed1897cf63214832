//! Single values of an answer in our form: boundaries, NaN, exemplars, types.

use std::borrow::Cow;

use sextant_model::{Exemplar, Labels, MetricType};
use sextant_proto::metric_family;

use crate::exposition::{ParsedExemplar, format_openmetrics_float, label_pairs, parse_float};

/// `le` and `quantile` in one form over all formats: `1` and `1.0` are one bucket.
pub(super) fn normal_boundary(value: &str) -> Cow<'_, str> {
    parse_float(value).map_or(Cow::Borrowed(value), |v| Cow::Owned(format_openmetrics_float(v)))
}

/// A target may not send the staleness marker.
pub(super) fn normal_nan(value: f64) -> f64 {
    if value.is_nan() { parse_float("NaN").unwrap_or(value) } else { value }
}

pub(super) fn exemplar(e: &ParsedExemplar<'_>, t: i64) -> Option<Exemplar> {
    let labels = Labels::from_pairs(e.labels.iter().map(|(n, v)| (n.as_ref(), v.as_ref()))).ok()?;
    Some(Exemplar { t: e.timestamp_ms.unwrap_or(t), v: e.value, labels })
}

pub(super) fn family_exemplar(e: &metric_family::Exemplar, t: i64) -> Option<Exemplar> {
    let labels = Labels::from_pairs(label_pairs(&e.label)).ok()?;
    Some(Exemplar { t: e.timestamp.map_or(t, |ts| ts.as_ms()), v: e.value(), labels })
}

pub(super) fn metric_type(t: metric_family::FamilyType) -> MetricType {
    match t {
        metric_family::FamilyType::Counter => MetricType::Counter,
        metric_family::FamilyType::Gauge => MetricType::Gauge,
        metric_family::FamilyType::Summary => MetricType::Summary,
        metric_family::FamilyType::Untyped => MetricType::Unknown,
        metric_family::FamilyType::Histogram => MetricType::Histogram,
        metric_family::FamilyType::GaugeHistogram => MetricType::GaugeHistogram,
    }
}
