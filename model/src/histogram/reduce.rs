//! Reducing the resolution: merging buckets into those of a coarser exponential schema.

use super::bounds::target_index;
use super::cell::Cell;
use super::spans::SpanRuns;
use super::validate::{HistogramError, Side};
use super::{CUSTOM_BUCKETS_SCHEMA, Histogram, ResetHint, Span};

impl Histogram {
    /// Merges buckets in place into those of the coarser schema `target`. On an error nothing has changed.
    ///
    /// # Errors
    /// If either schema is the custom one, `target` is not coarser, or spans and buckets do not fit each other.
    pub fn reduce_resolution(&mut self, target: i32) -> Result<(), HistogramError> {
        if self.uses_custom_buckets() {
            return Err(HistogramError::ReduceFromCustom);
        }
        if target == CUSTOM_BUCKETS_SCHEMA {
            return Err(HistogramError::ReduceToCustom);
        }
        if target >= self.schema {
            return Err(HistogramError::ReduceToFiner { from: self.schema, to: target });
        }
        let positive = reduce_side(&self.positive_spans, &self.positive_buckets, self.schema, target)?;
        let negative = reduce_side(&self.negative_spans, &self.negative_buckets, self.schema, target)?;
        (self.positive_spans, self.positive_buckets) = positive;
        (self.negative_spans, self.negative_buckets) = negative;
        self.schema = target;
        Ok(())
    }

    /// A copy in the schema `target`, the same or a coarser one. The copy's reset hint is unknown if the schema differs.
    ///
    /// # Errors
    /// As [`Self::reduce_resolution`].
    pub fn copy_to_schema(&self, target: i32) -> Result<Self, HistogramError> {
        let mut copy = self.clone();
        if target != self.schema {
            copy.reduce_resolution(target)?;
            copy.reset_hint = ResetHint::Unknown;
        }
        Ok(copy)
    }
}

/// Spans and buckets of one side in the coarser schema `target`.
pub(super) fn reduce_side<C: Cell>(
    spans: &[Span],
    buckets: &[C],
    origin: i32,
    target: i32,
) -> Result<(Vec<Span>, Vec<C>), HistogramError> {
    let mut runs = SpanRuns::default();
    let mut merged: Vec<C> = Vec::with_capacity(buckets.len());
    let mut rest = buckets;
    let mut index = 0_i64;
    for (position, span) in spans.iter().enumerate() {
        if position > 0 && span.offset < 0 {
            return Err(HistogramError::NegativeSpanOffset {
                side: Side::Unspecified,
                position,
                offset: span.offset,
            });
        }
        index += i64::from(span.offset);
        let Some((claimed, behind)) = rest.split_at_checked(span.length as usize) else {
            return Err(HistogramError::TooFewBuckets { have: buckets.len() });
        };
        for &cell in claimed {
            let into = target_index(index, origin, target);
            match merged.last_mut() {
                Some(last) if runs.end() == Some(into + 1) => last.accumulate(cell),
                _ => {
                    runs.push(into);
                    merged.push(cell);
                }
            }
            index += 1;
        }
        rest = behind;
    }
    if !rest.is_empty() {
        let need = (buckets.len() - rest.len()) as u64;
        return Err(HistogramError::SpansBucketsMismatch {
            side: Side::Unspecified,
            need,
            have: buckets.len(),
        });
    }
    Ok((runs.finish(), merged))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_coarser_exponential_schemas_are_reachable() {
        let mut custom = Histogram { schema: CUSTOM_BUCKETS_SCHEMA, ..Histogram::default() };
        assert_eq!(custom.reduce_resolution(0), Err(HistogramError::ReduceFromCustom));
        let mut h = Histogram { schema: 2, ..Histogram::default() };
        assert_eq!(h.reduce_resolution(CUSTOM_BUCKETS_SCHEMA), Err(HistogramError::ReduceToCustom));
        assert_eq!(h.reduce_resolution(2), Err(HistogramError::ReduceToFiner { from: 2, to: 2 }));
        assert_eq!(h.reduce_resolution(-4), Ok(()));
        assert_eq!(h.schema, -4);
    }

    #[test]
    fn an_error_changes_nothing() {
        let mut h = Histogram {
            schema: 1,
            positive_spans: vec![Span { offset: 0, length: 2 }],
            positive_buckets: vec![1.0, 2.0],
            negative_spans: vec![Span { offset: 0, length: 2 }],
            ..Histogram::default()
        };
        let before = h.clone();
        assert_eq!(h.reduce_resolution(0), Err(HistogramError::TooFewBuckets { have: 0 }));
        assert_eq!(h, before);
    }
}
