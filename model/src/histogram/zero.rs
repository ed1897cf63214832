//! The zero bucket of two histograms with different thresholds.
//!
//! The wider threshold wins, widened further until it cuts through no populated bucket of either histogram. Buckets
//! inside it move into the zero count.

use super::cell::Compensated;
use super::compact::compact_side;
use super::{Histogram, Span};

impl Histogram {
    /// The zero count that `self` would have with a threshold of at least `threshold`, and that threshold: inside a
    /// populated bucket it moves to the bucket's outer bound. `compensation` belongs to `self` if given.
    pub(super) fn zero_count_for(
        &self,
        mut threshold: f64,
        compensation: Option<&Histogram>,
    ) -> (Compensated, f64) {
        let start = Compensated { sum: self.zero_count, c: compensation.map_or(0.0, |c| c.zero_count) };
        if threshold <= self.zero_threshold {
            return (start, self.zero_threshold);
        }
        let of = |buckets: &[f64], i: usize| buckets.get(i).copied().unwrap_or(0.0);
        'widen: loop {
            let mut zero = start;
            for (i, bucket) in self.positive_buckets_iter().enumerate() {
                if bucket.lower >= threshold {
                    break;
                }
                zero.inc(bucket.count);
                if let Some(c) = compensation {
                    zero.inc(of(&c.positive_buckets, i));
                }
                if bucket.upper > threshold {
                    if bucket.count != 0.0 {
                        threshold = bucket.upper;
                    }
                    break;
                }
            }
            for (i, bucket) in self.negative_buckets_iter().enumerate() {
                if bucket.upper <= -threshold {
                    break;
                }
                zero.inc(bucket.count);
                if let Some(c) = compensation {
                    zero.inc(of(&c.negative_buckets, i));
                }
                if bucket.lower < -threshold {
                    if bucket.count != 0.0 {
                        // The positive side was counted for a smaller threshold.
                        threshold = -bucket.lower;
                        continue 'widen;
                    }
                    break;
                }
            }
            return (zero, threshold);
        }
    }

    /// Widens the zero bucket of `self`, and of its compensation, until it also covers that of `other`. Returns the
    /// zero count that `other` has with that threshold.
    pub(super) fn reconcile_zero_bucket(
        &mut self,
        other: &Self,
        mut compensation: Option<&mut Histogram>,
    ) -> Compensated {
        let mut other_zero = Compensated { sum: other.zero_count, c: 0.0 };
        let mut other_threshold = other.zero_threshold;
        if other_threshold.is_nan() || self.zero_threshold.is_nan() {
            return other_zero;
        }
        // Both thresholds only grow, to bounds of the finitely many buckets: the loop ends.
        while other_threshold != self.zero_threshold {
            if other_threshold < self.zero_threshold {
                (other_zero, other_threshold) = other.zero_count_for(self.zero_threshold, None);
            }
            if other_threshold > self.zero_threshold {
                let (zero, threshold) = self.zero_count_for(other_threshold, compensation.as_deref());
                self.zero_threshold = threshold;
                self.zero_count = zero.sum;
                if let Some(c) = compensation.as_deref_mut() {
                    c.zero_count = zero.c;
                }
                self.drop_buckets_in_zero_bucket(compensation.as_deref_mut());
            }
        }
        other_zero
    }

    /// Removes what the zero bucket has absorbed, and with it every other empty bucket.
    fn drop_buckets_in_zero_bucket(&mut self, compensation: Option<&mut Histogram>) {
        let threshold = self.zero_threshold;
        let positive = self.positive_buckets_iter().take_while(|bucket| bucket.lower < threshold).count();
        let negative = self.negative_buckets_iter().take_while(|bucket| bucket.upper > -threshold).count();
        clear_first(&mut self.positive_buckets, positive);
        clear_first(&mut self.negative_buckets, negative);
        match compensation {
            None => self.compact(0),
            Some(c) => {
                clear_first(&mut c.positive_buckets, positive);
                clear_first(&mut c.negative_buckets, negative);
                compact_pair(&mut self.positive_spans, &mut self.positive_buckets, &mut c.positive_buckets);
                compact_pair(&mut self.negative_spans, &mut self.negative_buckets, &mut c.negative_buckets);
            }
        }
    }
}

fn clear_first(buckets: &mut [f64], n: usize) {
    buckets.iter_mut().take(n).for_each(|count| *count = 0.0);
}

fn compact_pair(spans: &mut Vec<Span>, buckets: &mut Vec<f64>, compensation: &mut Vec<f64>) {
    let mut cells = Compensated::zip(buckets, compensation);
    compact_side(spans, &mut cells, 0);
    (*buckets, *compensation) = Compensated::unzip(&cells);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_threshold_moves_out_of_a_populated_bucket() {
        let h = Histogram {
            zero_threshold: 0.1,
            zero_count: 1.0,
            positive_spans: vec![Span { offset: 0, length: 2 }],
            positive_buckets: vec![2.0, 4.0],
            negative_spans: vec![Span { offset: 1, length: 1 }],
            negative_buckets: vec![8.0],
            ..Histogram::default()
        };
        // 0.7 is inside (0.5, 1]; 1.5 inside [-2, -1) too, which widens once more and takes (1, 2] along.
        let (zero, threshold) = h.zero_count_for(0.7, None);
        assert_eq!((zero.sum, threshold), (3.0, 1.0));
        let (zero, threshold) = h.zero_count_for(1.5, None);
        assert_eq!((zero.sum, threshold), (15.0, 2.0));
    }
}
