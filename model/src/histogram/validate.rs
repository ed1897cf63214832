//! Consistency of a histogram, and the errors that say what is wrong. The messages are Prometheus', since they reach
//! the sender of a rejected sample.
//!
//! Float histograms are not checked against `count`: rounding alone makes the sum of the buckets differ from it.

use std::fmt;

use thiserror::Error;

use super::bounds::is_exponential_schema;
use super::spans::claimed_buckets;
use super::{Histogram, Span};

/// Counts above 2^53 are not exact in an `f64`, so that their sum proves nothing.
const EXACT_COUNT_MAX: f64 = 9_007_199_254_740_992.0;

/// Which part of a histogram an error is about; prints as the message's prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Positive buckets.
    Positive,
    /// Negative buckets.
    Negative,
    /// Custom buckets.
    Custom,
    /// Not tied to a side.
    Unspecified,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Positive => "positive side: ",
            Self::Negative => "negative side: ",
            Self::Custom => "custom buckets: ",
            Self::Unspecified => "",
        })
    }
}

/// Why a histogram is not valid, or an operation not possible.
#[derive(Clone, Debug, PartialEq, Error)]
#[allow(missing_docs, reason = "the message of each variant says it")]
pub enum HistogramError {
    #[error(
        "{side}span number {number} with offset {offset}: histogram has a span whose offset is negative",
        number = position + 1
    )]
    NegativeSpanOffset { side: Side, position: usize, offset: i32 },
    #[error(
        "{side}spans need {need} buckets, have {have} buckets: histogram spans specify different number of buckets than provided"
    )]
    SpansBucketsMismatch { side: Side, need: u64, have: usize },
    #[error(
        "have {have} buckets but spans need more: histogram spans specify different number of buckets than provided"
    )]
    TooFewBuckets { have: usize },
    #[error(
        "{side}bucket number {number} has observation count of {count}: histogram has a bucket whose observation count is negative",
        number = position + 1
    )]
    NegativeBucketCount { side: Side, position: usize, count: f64 },
    #[error(
        "zero bucket has observation count of {0}: histogram has a bucket whose observation count is negative"
    )]
    NegativeZeroCount(f64),
    #[error("observation count is  {0}: histogram's observation count is negative")]
    NegativeCount(f64),
    #[error(
        "{found} observations found in buckets, but the Count field is {count}: histogram's observation count should be at least the number of observations found in the buckets"
    )]
    CountNotBigEnough { found: f64, count: f64 },
    #[error(
        "{found} observations found in buckets, but the Count field is {count}: histogram's observation count should equal the number of observations found in the buckets (in absence of NaN)"
    )]
    CountMismatch { found: f64, count: f64 },
    #[error(
        "histogram has an invalid schema, which must be between -4 and 8 for exponential buckets, or -53 for custom buckets, got schema {0}"
    )]
    InvalidSchema(i32),
    #[error("histogram with exponential schema must not have custom bounds")]
    ExponentialWithCustomBounds,
    #[error(
        "custom buckets: previous bound is {previous:.6} and current is {current:.6}: histogram custom bounds must be in strictly increasing order"
    )]
    CustomBoundsNotIncreasing { previous: f64, current: f64 },
    #[error(
        "custom buckets: last +Inf bound must not be explicitly defined: histogram custom bounds must be finite"
    )]
    CustomBoundsInfinite,
    #[error("custom buckets: histogram custom bounds must not be NaN")]
    CustomBoundsNan,
    #[error(
        "custom buckets: only {bounds} custom bounds defined which is insufficient to cover total span length of {covered}: histogram custom bounds are too few"
    )]
    CustomBoundsTooFew { bounds: usize, covered: i64 },
    #[error("custom buckets: must have zero count of 0")]
    CustomZeroCount,
    #[error("custom buckets: must have zero threshold of 0")]
    CustomZeroThreshold,
    #[error("custom buckets: must not have negative spans")]
    CustomNegativeSpans,
    #[error("custom buckets: must not have negative buckets")]
    CustomNegativeBuckets,
    #[error("cannot apply this operation on histograms with a mix of exponential and custom bucket schemas")]
    IncompatibleSchema,
    #[error("cannot reduce resolution when there are custom buckets")]
    ReduceFromCustom,
    #[error("cannot reduce resolution to custom buckets schema")]
    ReduceToCustom,
    #[error("cannot reduce resolution from schema {from} to {to}")]
    ReduceToFiner { from: i32, to: i32 },
}

impl Histogram {
    /// Checks the fields against each other and against the schema; an integer histogram also against its count.
    ///
    /// # Errors
    /// The first thing found wrong, in the order in which Prometheus looks.
    pub fn validate(&self) -> Result<(), HistogramError> {
        if self.uses_custom_buckets() {
            self.check_custom()?;
        } else if is_exponential_schema(self.schema) {
            self.check_exponential()?;
        } else {
            return Err(HistogramError::InvalidSchema(self.schema));
        }
        if !self.integer && self.count < 0.0 {
            return Err(HistogramError::NegativeCount(self.count));
        }
        check_counts(Side::Positive, &self.positive_buckets)?;
        if self.integer { self.check_total() } else { Ok(()) }
    }

    fn check_custom(&self) -> Result<(), HistogramError> {
        check_bounds(&self.custom_values)?;
        check_spans(Side::Custom, 0, &self.positive_spans, self.positive_buckets.len())?;
        let covered = self
            .positive_spans
            .iter()
            .map(|span| i64::from(span.offset) + i64::from(span.length))
            .sum::<i64>();
        if covered > self.custom_values.len() as i64 + 1 {
            return Err(HistogramError::CustomBoundsTooFew { bounds: self.custom_values.len(), covered });
        }
        if self.zero_count != 0.0 {
            return Err(HistogramError::CustomZeroCount);
        }
        if self.zero_threshold != 0.0 {
            return Err(HistogramError::CustomZeroThreshold);
        }
        if !self.negative_spans.is_empty() {
            return Err(HistogramError::CustomNegativeSpans);
        }
        if !self.negative_buckets.is_empty() {
            return Err(HistogramError::CustomNegativeBuckets);
        }
        Ok(())
    }

    fn check_exponential(&self) -> Result<(), HistogramError> {
        check_spans(Side::Positive, 1, &self.positive_spans, self.positive_buckets.len())?;
        check_spans(Side::Negative, 1, &self.negative_spans, self.negative_buckets.len())?;
        check_counts(Side::Negative, &self.negative_buckets)?;
        if self.zero_count < 0.0 {
            return Err(HistogramError::NegativeZeroCount(self.zero_count));
        }
        if !self.custom_values.is_empty() {
            return Err(HistogramError::ExponentialWithCustomBounds);
        }
        Ok(())
    }

    /// NaN observations are in `count` and in no bucket; only they allow a difference.
    fn check_total(&self) -> Result<(), HistogramError> {
        let count = self.count;
        let found: f64 =
            self.positive_buckets.iter().chain(&self.negative_buckets).sum::<f64>() + self.zero_count;
        if found > EXACT_COUNT_MAX && count > EXACT_COUNT_MAX {
            return Ok(());
        }
        if self.sum.is_nan() {
            if found > count {
                return Err(HistogramError::CountNotBigEnough { found, count });
            }
        } else if found != count {
            return Err(HistogramError::CountMismatch { found, count });
        }
        Ok(())
    }
}

/// Offsets from `first_relative` on must not be negative: the first offset of an exponential schema is an index.
fn check_spans(side: Side, first_relative: usize, spans: &[Span], have: usize) -> Result<(), HistogramError> {
    if let Some((position, span)) =
        spans.iter().enumerate().skip(first_relative).find(|(_, span)| span.offset < 0)
    {
        return Err(HistogramError::NegativeSpanOffset { side, position, offset: span.offset });
    }
    let need = claimed_buckets(spans);
    if need != have as u64 {
        return Err(HistogramError::SpansBucketsMismatch { side, need, have });
    }
    Ok(())
}

fn check_counts(side: Side, buckets: &[f64]) -> Result<(), HistogramError> {
    match buckets.iter().enumerate().find(|(_, count)| **count < 0.0) {
        Some((position, &count)) => Err(HistogramError::NegativeBucketCount { side, position, count }),
        None => Ok(()),
    }
}

fn check_bounds(bounds: &[f64]) -> Result<(), HistogramError> {
    let mut previous = f64::NEG_INFINITY;
    for (i, &current) in bounds.iter().enumerate() {
        if current.is_nan() {
            return Err(HistogramError::CustomBoundsNan);
        }
        if i > 0 && current <= previous {
            return Err(HistogramError::CustomBoundsNotIncreasing { previous, current });
        }
        previous = current;
    }
    if previous == f64::INFINITY { Err(HistogramError::CustomBoundsInfinite) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::super::CUSTOM_BUCKETS_SCHEMA;
    use super::*;

    #[test]
    fn nan_sum_allows_more_observations_than_buckets_hold() {
        let mut h = Histogram {
            integer: true,
            count: 3.0,
            sum: f64::NAN,
            positive_spans: vec![Span { offset: 0, length: 1 }],
            positive_buckets: vec![2.0],
            ..Histogram::default()
        };
        assert_eq!(h.validate(), Ok(()));
        h.count = 1.0;
        assert_eq!(h.validate(), Err(HistogramError::CountNotBigEnough { found: 2.0, count: 1.0 }));
        h.integer = false;
        assert_eq!(h.validate(), Ok(()));
        h.count = -1.0;
        assert_eq!(h.validate(), Err(HistogramError::NegativeCount(-1.0)));
    }

    #[test]
    fn custom_buckets_have_no_zero_bucket_and_no_negative_side() {
        let base =
            Histogram { schema: CUSTOM_BUCKETS_SCHEMA, custom_values: vec![1.0], ..Histogram::default() };
        assert_eq!(base.validate(), Ok(()));
        let cases = [
            (Histogram { zero_threshold: 0.1, ..base.clone() }, HistogramError::CustomZeroThreshold),
            (
                Histogram { negative_spans: vec![Span::default()], ..base.clone() },
                HistogramError::CustomNegativeSpans,
            ),
            (
                Histogram { negative_buckets: vec![1.0], ..base.clone() },
                HistogramError::CustomNegativeBuckets,
            ),
            (Histogram { custom_values: vec![f64::NAN], ..base.clone() }, HistogramError::CustomBoundsNan),
        ];
        for (h, expected) in cases {
            assert_eq!(h.validate(), Err(expected));
        }
    }

    #[test]
    fn hostile_span_lengths_do_not_overflow() {
        let h = Histogram {
            positive_spans: vec![Span { offset: i32::MAX, length: u32::MAX }; 9],
            ..Histogram::default()
        };
        assert!(matches!(h.validate(), Err(HistogramError::SpansBucketsMismatch { .. })));
    }
}
