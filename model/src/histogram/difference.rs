//! The difference of two samples of one series.

use super::bounds::{exponential_bound, is_exponential_schema};
use super::compact::compact_side;
use super::spans::claimed_buckets;
use super::{Combined, Histogram, HistogramError, Span};

impl Histogram {
    /// What [`Self::sub`] and [`Self::compact`] with 0 make of a copy: for samples of one layout, as those of a series
    /// mostly are, in one pass.
    ///
    /// # Errors
    /// As [`Self::sub`].
    pub fn difference(&self, previous: &Self) -> Result<(Self, Combined), HistogramError> {
        if !self.has_layout_of(previous) {
            let mut result = self.clone();
            let report = result.sub(previous)?;
            result.compact(0);
            return Ok((result, report));
        }
        let (positive_spans, positive_buckets) =
            subtract_side(&self.positive_spans, &self.positive_buckets, &previous.positive_buckets);
        let (negative_spans, negative_buckets) =
            subtract_side(&self.negative_spans, &self.negative_buckets, &previous.negative_buckets);
        // The zero bucket means nothing beside custom buckets.
        let zero = if self.uses_custom_buckets() { 0.0 } else { previous.zero_count };
        let mut result = Self {
            reset_hint: self.reset_hint,
            schema: self.schema,
            integer: false,
            zero_threshold: self.zero_threshold,
            zero_count: self.zero_count - zero,
            count: self.count - previous.count,
            sum: self.sum - previous.sum,
            positive_spans,
            positive_buckets,
            negative_spans,
            negative_buckets,
            custom_values: self.custom_values.clone(),
        };
        let counter_reset_collision = result.combine_hints(previous);
        Ok((result, Combined { counter_reset_collision, nhcb_bounds_reconciled: false }))
    }

    /// Whether both have the same buckets, in order and none inside the zero bucket, so that they can be compared one by one.
    pub(super) fn has_layout_of(&self, other: &Self) -> bool {
        let ordered = |spans: &[Span], buckets: &[f64]| {
            let (Some((first, rest)), length) = (spans.split_first(), buckets.len() as u64) else {
                return buckets.is_empty();
            };
            let in_zero_bucket = is_exponential_schema(self.schema)
                && exponential_bound(first.offset, self.schema) <= self.zero_threshold;
            !in_zero_bucket && rest.iter().all(|span| span.offset >= 0) && claimed_buckets(spans) == length
        };
        self.schema == other.schema
            && self.zero_threshold == other.zero_threshold
            && self.positive_spans == other.positive_spans
            && self.positive_buckets.len() == other.positive_buckets.len()
            && self.negative_spans == other.negative_spans
            && self.negative_buckets.len() == other.negative_buckets.len()
            && self.custom_values == other.custom_values
            && ordered(&self.positive_spans, &self.positive_buckets)
            && ordered(&self.negative_spans, &self.negative_buckets)
    }
}

fn subtract_side(spans: &[Span], buckets: &[f64], previous: &[f64]) -> (Vec<Span>, Vec<f64>) {
    let mut spans = spans.to_vec();
    let mut difference = buckets.iter().zip(previous).map(|(count, previous)| count - previous).collect();
    compact_side(&mut spans, &mut difference, 0);
    (spans, difference)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_pass_is_a_subtraction_and_a_compaction() {
        let side = |offset, counts: [f64; 4]| {
            (vec![Span { offset, length: 3 }, Span { offset: 0, length: 1 }], counts.to_vec())
        };
        let of = |offset, counts: [f64; 4]| {
            let (positive_spans, positive_buckets) = side(offset, counts);
            let (negative_spans, negative_buckets) = side(1, counts);
            let count = counts.iter().sum::<f64>() * 2.0 + 1.0;
            Histogram {
                schema: 1,
                integer: true,
                zero_threshold: 0.25,
                zero_count: 1.0,
                count,
                sum: count,
                positive_spans,
                positive_buckets,
                negative_spans,
                negative_buckets,
                ..Histogram::default()
            }
        };
        // Offset −9 begins inside the zero bucket, where buckets are left out.
        for (offset, same) in [(0, true), (-3, true), (-9, false)] {
            for before in [[0.0; 4], [1.0, 2.0, 3.0, 4.0], [1.0, 0.0, 3.0, 1.0], [0.0, 2.0, 0.0, 0.5]] {
                let (previous, last) = (of(offset, before), of(offset, [1.0, 2.0, 3.0, 4.0]));
                assert_eq!(last.has_layout_of(&previous), same);
                let mut expected = last.clone();
                let report = expected.sub(&previous).unwrap();
                expected.compact(0);
                assert_eq!(last.difference(&previous), Ok((expected, report)));
            }
        }
    }
}
