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
        if adjust { ((index >> scale_down) + 1) as i32 } else { index as i32 }
    };
    let mut merged: Vec<(i32, u64)> = Vec::new();
    for (i, &count) in counts.iter().enumerate() {
        match merged.last_mut() {
            Some((index, sum)) if *index == index_of(i) => *sum += count,
            _ => merged.push((index_of(i), count)),
        }
    }
    // Trailing empty buckets of an explicit histogram stay where the gap is small enough to be written out.
    let last_used = merged.iter().rposition(|(_, c)| *c > 0);
    let (mut spans, mut buckets): (Vec<Span>, Vec<f64>) = (Vec::new(), Vec::new());
    let Some(last_used) = last_used else { return (spans, buckets) };
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
    (spans, buckets)
}

/// An exponential histogram; scales above 8 are lowered to 8.
pub fn exponential(p: &ExponentialHistogramDataPoint, delta: bool) -> Result<Histogram, HistogramConversionError> {
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
    let stale = p.flags & NO_RECORDED_VALUE != 0;
    Ok(Histogram {
        reset_hint: hint(delta),
        schema,
        integer: true,
        zero_threshold: if p.zero_threshold > 0.0 { p.zero_threshold } else { DEFAULT_ZERO_THRESHOLD },
        zero_count: p.zero_count as f64,
        count: if stale { 0.0 } else { p.count as f64 },
        sum: if stale { f64::from_bits(STALE_NAN_BITS) } else { p.sum.unwrap_or(0.0) },
        positive_spans,
        positive_buckets,
        negative_spans,
        negative_buckets,
        custom_values: Vec::new(),
    })
}

/// An explicit-bucket histogram as a native one with custom buckets.
pub fn custom_buckets(p: &HistogramDataPoint, delta: bool) -> Histogram {
    let (positive_spans, positive_buckets) = bucket_layout(&p.bucket_counts, 0, 0, false);
    let stale = p.flags & NO_RECORDED_VALUE != 0;
    Histogram {
        reset_hint: hint(delta),
        schema: CUSTOM_BUCKETS_SCHEMA,
        integer: true,
        count: if stale { 0.0 } else { p.count as f64 },
        sum: if stale { f64::from_bits(STALE_NAN_BITS) } else { p.sum.unwrap_or(0.0) },
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
