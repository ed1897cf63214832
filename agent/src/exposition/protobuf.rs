//! The protobuf format: length-delimited metric families, and what samples they are.

use prost::Message;
use sextant_model::{Histogram as NativeHistogram, ResetHint, Span};
use sextant_proto::metric_family::{
    BucketSpan, Exemplar, FamilyType, Histogram, LabelPair, Metric, MetricFamily, Timestamp,
};

use super::{error::ParseError, number::format_openmetrics_float};

/// Reads families off a body one by one; after an error there are no more.
#[derive(Clone, Debug)]
pub struct FamilyReader<'a> {
    body: &'a [u8],
    at: usize,
    message: usize,
}

impl<'a> FamilyReader<'a> {
    /// Reads from the beginning of a body.
    pub fn new(body: &'a [u8]) -> Self {
        Self { body, at: 0, message: 0 }
    }

    fn read(&mut self) -> Result<MetricFamily, ParseError> {
        let offset = self.at;
        self.message += 1;
        let error = |reason: String| ParseError::Protobuf { message: self.message, offset, reason };
        let mut rest = &self.body[offset..];
        let length = prost::decode_length_delimiter(&mut rest).map_err(|e| error(e.to_string()))?;
        let Some(message) = rest.get(..length) else {
            return Err(error(format!("{length} bytes announced, {} there", rest.len())));
        };
        let family = MetricFamily::decode(message).map_err(|e| error(e.to_string()))?;
        if family.name().is_empty() {
            return Err(error("a metric family without a name".into()));
        }
        self.at = self.body.len() - rest.len() + length;
        Ok(family)
    }
}

impl Iterator for FamilyReader<'_> {
    type Item = Result<MetricFamily, ParseError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.body.len() {
            return None;
        }
        let family = self.read();
        if family.is_err() {
            self.at = self.body.len();
        }
        Some(family)
    }
}

/// A float sample of a metric.
#[derive(Clone, Copy, Debug)]
pub struct ClassicSample<'a> {
    /// What follows the family's name.
    pub suffix: &'static str,
    /// `le` or `quantile` with its number, written as OpenMetrics does.
    pub boundary: Option<(&'static str, f64)>,
    /// The value.
    pub value: f64,
    /// The bucket's or counter's exemplar.
    pub exemplar: Option<&'a Exemplar>,
    /// When the counter was zero.
    pub created: Option<Timestamp>,
}

impl ClassicSample<'_> {
    /// The boundary as a label.
    pub fn boundary_label(&self) -> Option<(&'static str, String)> {
        self.boundary.map(|(name, v)| (name, format_openmetrics_float(v)))
    }
}

/// Hands over every float sample of a metric; a histogram gives its classic series.
pub fn classic_samples<'a>(
    family: &MetricFamily,
    metric: &'a Metric,
    each: &mut dyn FnMut(ClassicSample<'a>),
) {
    let plain = |value| ClassicSample { suffix: "", boundary: None, value, exemplar: None, created: None };
    match family.r#type() {
        FamilyType::Counter => {
            if let Some(c) = &metric.counter {
                let exemplar = c.exemplar.as_ref();
                each(ClassicSample { exemplar, created: c.created_timestamp, ..plain(c.value()) });
            }
        }
        FamilyType::Gauge => {
            if let Some(g) = &metric.gauge {
                each(plain(g.value()));
            }
        }
        FamilyType::Untyped => {
            if let Some(u) = &metric.untyped {
                each(plain(u.value()));
            }
        }
        FamilyType::Summary => {
            let Some(s) = &metric.summary else { return };
            let part = |suffix, value| ClassicSample { suffix, created: s.created_timestamp, ..plain(value) };
            each(part("_count", s.sample_count() as f64));
            each(part("_sum", s.sample_sum()));
            for q in &s.quantile {
                each(ClassicSample { boundary: Some(("quantile", q.quantile())), ..plain(q.value()) });
            }
        }
        FamilyType::Histogram | FamilyType::GaugeHistogram => {
            if let Some(h) = &metric.histogram {
                classic_histogram(h, each);
            }
        }
    }
}

fn classic_histogram<'a>(h: &'a Histogram, each: &mut dyn FnMut(ClassicSample<'a>)) {
    let created = h.created_timestamp;
    let part = |suffix, value| ClassicSample { suffix, boundary: None, value, exemplar: None, created };
    let all = h.sample_count_float.filter(|c| *c > 0.0).unwrap_or_else(|| h.sample_count() as f64);
    each(part("_count", all));
    each(part("_sum", h.sample_sum()));
    let mut infinite = false;
    for b in &h.bucket {
        infinite |= b.upper_bound() == f64::INFINITY;
        let value =
            b.cumulative_count_float.filter(|c| *c > 0.0).unwrap_or_else(|| b.cumulative_count() as f64);
        let boundary = Some(("le", b.upper_bound()));
        each(ClassicSample { boundary, exemplar: b.exemplar.as_ref(), ..part("_bucket", value) });
    }
    if !infinite {
        each(ClassicSample { boundary: Some(("le", f64::INFINITY)), ..part("_bucket", all) });
    }
}

/// Whether a histogram has a native part: something of it is set.
pub fn is_native(h: &Histogram) -> bool {
    !h.positive_span.is_empty()
        || !h.negative_span.is_empty()
        || h.zero_threshold() > 0.0
        || h.zero_count() > 0
        || h.zero_count_float() > 0.0
}

/// How many buckets a histogram may have: beyond any that a client library makes (160), and a bound on what one span's
/// length may make us allocate.
const NATIVE_BUCKETS_MAX: u64 = 1 << 16;

/// The schemas whose bucket bounds are powers of `2^(2^-schema)`.
const NATIVE_SCHEMAS: std::ops::RangeInclusive<i32> = -4..=8;

/// The native part of a histogram; `Ok(None)` where it has none.
pub fn native_histogram(h: &Histogram, is_gauge: bool) -> Result<Option<NativeHistogram>, &'static str> {
    if !is_native(h) {
        return Ok(None);
    }
    if !NATIVE_SCHEMAS.contains(&h.schema()) {
        return Err("a native histogram's schema is not from -4 to 8");
    }
    let is_float = h.sample_count_float() > 0.0 || h.zero_count_float() > 0.0;
    let side = |spans: &[BucketSpan], deltas: &[i64], counts: &[f64]| {
        let length: u64 = spans.iter().map(|s| u64::from(s.length())).sum();
        if length > NATIVE_BUCKETS_MAX {
            return Err("too many buckets in a native histogram");
        }
        let buckets = if is_float { counts.to_vec() } else { absolute(deltas) };
        if buckets.len() as u64 != length {
            return Err("the spans of a native histogram do not fit its buckets");
        }
        let spans = spans.iter().map(|s| Span { offset: s.offset(), length: s.length() }).collect();
        Ok::<_, &'static str>((spans, buckets))
    };
    let (positive_spans, positive_buckets) = side(&h.positive_span, &h.positive_delta, &h.positive_count)?;
    let (negative_spans, negative_buckets) = side(&h.negative_span, &h.negative_delta, &h.negative_count)?;
    Ok(Some(NativeHistogram {
        reset_hint: if is_gauge { ResetHint::Gauge } else { ResetHint::Unknown },
        schema: h.schema(),
        integer: !is_float,
        zero_threshold: h.zero_threshold(),
        zero_count: if is_float { h.zero_count_float() } else { h.zero_count() as f64 },
        count: if is_float { h.sample_count_float() } else { h.sample_count() as f64 },
        sum: h.sample_sum(),
        positive_spans,
        positive_buckets,
        negative_spans,
        negative_buckets,
        custom_values: Vec::new(),
    }))
}

fn absolute(deltas: &[i64]) -> Vec<f64> {
    let mut count = 0i64;
    let sum = |d: &i64| {
        count = count.wrapping_add(*d);
        count as f64
    };
    deltas.iter().map(sum).collect()
}

/// Labels as pairs of text.
pub fn label_pairs(labels: &[LabelPair]) -> impl Iterator<Item = (&str, &str)> {
    labels.iter().map(|l| (l.name(), l.value()))
}
