//! Buckets as intervals: iterators over one side, over all buckets in value order, and cumulative.

use super::bounds::bucket_bound;
use super::spans::{cells, indices_reverse, narrow};
use super::{CUSTOM_BUCKETS_SCHEMA, Histogram, Span};

/// A bucket with its bounds. A cumulative bucket has a lower bound of −Inf.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Bucket {
    /// Lower bound.
    pub lower: f64,
    /// Upper bound.
    pub upper: f64,
    /// Whether the lower bound itself belongs to the bucket.
    pub lower_inclusive: bool,
    /// Whether the upper bound itself belongs to the bucket.
    pub upper_inclusive: bool,
    /// Observations.
    pub count: f64,
    /// Index within the schema; without meaning for the zero bucket.
    pub index: i32,
}

/// One side of a histogram.
#[derive(Clone, Copy)]
struct Side<'a> {
    spans: &'a [Span],
    buckets: &'a [f64],
    schema: i32,
    custom_values: &'a [f64],
    positive: bool,
}

impl<'a> Side<'a> {
    fn bucket(self, index: i64, count: f64) -> Bucket {
        let index = narrow(index);
        let outer = bucket_bound(index, self.schema, self.custom_values);
        let inner = bucket_bound(index.saturating_sub(1), self.schema, self.custom_values);
        let (lower, upper) = if self.positive { (inner, outer) } else { (-outer, -inner) };
        let (lower_inclusive, upper_inclusive) = match self.schema {
            CUSTOM_BUCKETS_SCHEMA => (index == 0, true),
            _ => (lower < 0.0, upper > 0.0),
        };
        Bucket { lower, upper, lower_inclusive, upper_inclusive, count, index }
    }

    fn outward(self) -> impl Iterator<Item = Bucket> + 'a {
        cells(self.spans, self.buckets).map(move |(index, count)| self.bucket(index, count))
    }

    fn inward(self) -> impl Iterator<Item = Bucket> + 'a {
        self.buckets
            .iter()
            .rev()
            .zip(indices_reverse(self.spans))
            .map(move |(&count, index)| self.bucket(index, count))
    }
}

impl Histogram {
    /// Positive buckets from the zero bucket upwards, empty ones included.
    pub fn positive_buckets_iter(&self) -> impl Iterator<Item = Bucket> + '_ {
        self.side(true).outward()
    }

    /// Negative buckets from the zero bucket downwards, empty ones included.
    pub fn negative_buckets_iter(&self) -> impl Iterator<Item = Bucket> + '_ {
        self.side(false).outward()
    }

    /// The zero bucket, also when it is empty or, with custom buckets, has no meaning.
    pub fn zero_bucket(&self) -> Bucket {
        Bucket {
            lower: -self.zero_threshold,
            upper: self.zero_threshold,
            lower_inclusive: true,
            upper_inclusive: true,
            count: self.zero_count,
            index: 0,
        }
    }

    /// All buckets by ascending value; the zero bucket only if populated. A bucket that reaches into the zero bucket is
    /// cut at the zero threshold.
    pub fn all_buckets(&self) -> impl Iterator<Item = Bucket> + '_ {
        let cut = |bucket| self.cut_at_zero_threshold(bucket);
        self.side(false)
            .inward()
            .map(cut)
            .chain(self.populated_zero_bucket())
            .chain(self.side(true).outward().map(cut))
    }

    /// [`Self::all_buckets`] by descending value.
    pub fn all_buckets_reverse(&self) -> impl Iterator<Item = Bucket> + '_ {
        let cut = |bucket| self.cut_at_zero_threshold(bucket);
        self.side(true)
            .inward()
            .map(cut)
            .chain(self.populated_zero_bucket())
            .chain(self.side(false).outward().map(cut))
    }

    /// Cumulative counts as a classic histogram has them, for histograms without negative buckets (which are left out):
    /// the zero bucket if populated (with index −1), then every positive index from the first to the last, those in
    /// gaps between spans included.
    pub fn cumulative_buckets(&self) -> impl Iterator<Item = Bucket> + '_ {
        let mut total = 0.0;
        let cumulative = |index: i32, upper: f64, count: f64| Bucket {
            lower: f64::NEG_INFINITY,
            upper,
            lower_inclusive: true,
            upper_inclusive: true,
            count,
            index,
        };
        let zero = self.populated_zero_bucket();
        if let Some(zero) = &zero {
            total = zero.count;
        }
        let zero = zero.map(|bucket| cumulative(-1, bucket.upper, bucket.count));
        let mut next: Option<i64> = None;
        let positive = cells(&self.positive_spans, &self.positive_buckets).flat_map(move |(index, count)| {
            let before = total;
            total += count;
            let first = next.unwrap_or(index).min(index);
            next = Some(index + 1);
            let after = total;
            (first..=index).map(move |i| (i, if i == index { after } else { before }))
        });
        zero.into_iter().chain(positive.map(move |(index, count)| {
            let index = narrow(index);
            cumulative(index, bucket_bound(index, self.schema, &self.custom_values), count)
        }))
    }

    fn side(&self, positive: bool) -> Side<'_> {
        let (spans, buckets) = match positive {
            true => (&self.positive_spans, &self.positive_buckets),
            false => (&self.negative_spans, &self.negative_buckets),
        };
        Side { spans, buckets, schema: self.schema, custom_values: &self.custom_values, positive }
    }

    fn populated_zero_bucket(&self) -> Option<Bucket> {
        (self.zero_count > 0.0 && !self.uses_custom_buckets()).then(|| self.zero_bucket())
    }

    fn cut_at_zero_threshold(&self, mut bucket: Bucket) -> Bucket {
        if bucket.lower > 0.0 && bucket.lower < self.zero_threshold {
            bucket.lower = self.zero_threshold;
        } else if bucket.upper < 0.0 && bucket.upper > -self.zero_threshold {
            bucket.upper = -self.zero_threshold;
        }
        bucket
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Histogram {
        Histogram {
            zero_threshold: 0.6,
            zero_count: 3.0,
            positive_spans: vec![Span { offset: 0, length: 2 }],
            positive_buckets: vec![1.0, 2.0],
            negative_spans: vec![Span { offset: 0, length: 1 }, Span { offset: 1, length: 1 }],
            negative_buckets: vec![4.0, 5.0],
            ..Histogram::default()
        }
    }

    #[test]
    fn all_buckets_run_in_value_order_and_back() {
        let h = sample();
        let forward: Vec<_> = h.all_buckets().map(|b| (b.lower, b.upper, b.count)).collect();
        assert_eq!(
            forward,
            [(-4.0, -2.0, 5.0), (-1.0, -0.6, 4.0), (-0.6, 0.6, 3.0), (0.6, 1.0, 1.0), (1.0, 2.0, 2.0)]
        );
        let mut reverse: Vec<_> = h.all_buckets_reverse().map(|b| (b.lower, b.upper, b.count)).collect();
        reverse.reverse();
        assert_eq!(forward, reverse);
    }

    #[test]
    fn cumulative_starts_with_the_zero_bucket() {
        let buckets: Vec<_> = sample().cumulative_buckets().map(|b| (b.upper, b.count, b.index)).collect();
        assert_eq!(buckets, [(0.6, 3.0, -1), (1.0, 4.0, 0), (2.0, 6.0, 1)]);
    }

    #[test]
    fn spans_that_claim_too_much_end_with_the_buckets() {
        let h = Histogram {
            positive_spans: vec![Span { offset: i32::MAX, length: u32::MAX }; 3],
            positive_buckets: vec![1.0, 2.0],
            ..Histogram::default()
        };
        assert_eq!(h.all_buckets().count(), 2);
        assert_eq!(h.all_buckets_reverse().count(), 2);
        assert_eq!(h.cumulative_buckets().count(), 2);
    }
}
