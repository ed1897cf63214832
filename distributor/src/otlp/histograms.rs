//! OpenTelemetry histograms as native ones.

use opentelemetry_proto::tonic::metrics::v1::{
    ExponentialHistogramDataPoint, HistogramDataPoint, exponential_histogram_data_point::Buckets,
};
use sextant_model::{CUSTOM_BUCKETS_SCHEMA, Histogram, ResetHint, STALE_NAN_BITS, Span};

/// Gaps of up to this many empty buckets are written out instead of a new span.
const GAP_MAX: i32 = 2;

/// The zero threshold of points that have none.
pub const DEFAULT_ZERO_THRESHOLD: f64 = 1e-128;

/// The flag of a point that says only that there is no value any more.
pub const NO_RECORDED_VALUE: u32 = 1;

/// Why a histogram cannot be converted.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum HistogramConversionError {
    /// Schemas end at −4.
    #[error("cannot convert exponential to native histogram. Scale must be >= -4, was {0}")]
    Scale(i32),
    /// More buckets than any sane sender has.
    #[error("histogram has {0} buckets, more than the {1} that are accepted")]
    TooManyBuckets(usize, usize),
}

const BUCKETS_MAX: usize = 100_000;

/// Spans and absolute counts of buckets whose first has index `offset`, resolution lowered by `scale_down`. An empty
/// sequence has no span. Exponential buckets of OpenTelemetry are shifted by one: its index counts from the lower bound.
pub fn bucket_layout(counts: &[u64], offset: i32, scale_down: i32, adjust: bool) -> (Vec<Span>, Vec<f64>) {
    let index_of = |i: usize| -> i32 {
        let index = i64::from(offset) + i as i64;
        let index = if adjust { (index >> scale_down.clamp(0, 63)) + 1 } else { index };
        // Half the range, so that the distance of any two fits too; no double has a bucket beyond it.
        index.clamp(i64::from(i32::MIN / 2), i64::from(i32::MAX / 2)) as i32
    };
    let mut merged: Vec<(i32, u64)> = Vec::new();
    for (i, &count) in counts.iter().enumerate() {
        match merged.last_mut() {
            Some((index, sum)) if *index == index_of(i) => *sum = sum.saturating_add(count),
            _ => merged.push((index_of(i), count)),
        }
    }
    // Few empty buckets at the end are written out, as small gaps are.
    let Some(last_used) = merged.iter().rposition(|(_, c)| *c > 0) else { return (Vec::new(), Vec::new()) };
    let trailing = merged.len() - 1 - last_used;
    let written = if trailing <= GAP_MAX as usize + 1 { trailing } else { 0 };
    let (mut spans, mut buckets): (Vec<Span>, Vec<f64>) = (Vec::new(), Vec::new());
    let mut next_index: Option<i32> = None;
    for &(index, count) in &merged[..=last_used] {
        if count == 0 {
            continue;
        }
        match next_index {
            Some(next) if index - next <= GAP_MAX => {
                let gap = index - next;
                if let Some(span) = spans.last_mut() {
                    span.length += gap as u32 + 1;
                }
                buckets.extend(std::iter::repeat_n(0.0, gap as usize));
            }
            Some(next) => spans.push(Span { offset: index - next, length: 1 }),
            None => spans.push(Span { offset: index, length: 1 }),
        }
        buckets.push(count as f64);
        next_index = Some(index + 1);
    }
    if let Some(span) = spans.last_mut() {
        span.length += written as u32;
        buckets.extend(std::iter::repeat_n(0.0, written));
    }
    (spans, buckets)
}

/// An exponential histogram; scales above 8 are lowered to 8.
pub fn exponential(
    p: &ExponentialHistogramDataPoint,
    delta: bool,
) -> Result<Histogram, HistogramConversionError> {
    if p.flags & NO_RECORDED_VALUE != 0 {
        return Ok(stale());
    }
    if p.scale < -4 {
        return Err(HistogramConversionError::Scale(p.scale));
    }
    let schema = p.scale.min(8);
    let scale_down = p.scale - schema;
    let layout = |b: &Option<Buckets>| match b {
        Some(b) if b.bucket_counts.len() > BUCKETS_MAX => {
            Err(HistogramConversionError::TooManyBuckets(b.bucket_counts.len(), BUCKETS_MAX))
        }
        Some(b) => Ok(bucket_layout(&b.bucket_counts, b.offset, scale_down, true)),
        None => Ok((Vec::new(), Vec::new())),
    };
    let (positive_spans, positive_buckets) = layout(&p.positive)?;
    let (negative_spans, negative_buckets) = layout(&p.negative)?;
    Ok(Histogram {
        reset_hint: hint(delta),
        schema,
        integer: true,
        zero_threshold: if p.zero_threshold > 0.0 { p.zero_threshold } else { DEFAULT_ZERO_THRESHOLD },
        zero_count: p.zero_count as f64,
        count: p.count as f64,
        sum: p.sum.unwrap_or(0.0),
        positive_spans,
        positive_buckets,
        negative_spans,
        negative_buckets,
        custom_values: Vec::new(),
    })
}

/// A marker: that there is no value has no content.
fn stale() -> Histogram {
    Histogram { sum: f64::from_bits(STALE_NAN_BITS), integer: true, ..Histogram::default() }
}

/// An explicit-bucket histogram as a native one with custom buckets.
pub fn custom_buckets(p: &HistogramDataPoint, delta: bool) -> Histogram {
    if p.flags & NO_RECORDED_VALUE != 0 {
        return stale();
    }
    let (positive_spans, positive_buckets) = bucket_layout(&p.bucket_counts, 0, 0, false);
    Histogram {
        reset_hint: hint(delta),
        schema: CUSTOM_BUCKETS_SCHEMA,
        integer: true,
        count: p.count as f64,
        sum: p.sum.unwrap_or(0.0),
        positive_spans,
        positive_buckets,
        custom_values: p.explicit_bounds.clone(),
        ..Histogram::default()
    }
}

/// Increments are added up by the ingester; between them a reset is not looked for.
fn hint(_delta: bool) -> ResetHint {
    ResetHint::Unknown
}
