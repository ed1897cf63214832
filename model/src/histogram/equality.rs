//! Comparing histograms: bit by bit, and with a tolerance.

use super::spans::spans_match;
use super::{Histogram, is_stale_nan};

impl Histogram {
    /// Whether both are the same data: counts and sums by bits (so NaN equals itself), layouts by buckets, empty buckets
    /// included. Hints and `integer` do not matter, nor do custom bounds of an exponential schema.
    pub fn equals(&self, other: &Self) -> bool {
        let bits = |a: f64, b: f64| a.to_bits() == b.to_bits();
        self.same_layout(other) && self.pairs(other).all(|(a, b)| bits(a, b))
    }

    /// Whether both are the same up to the relative `epsilon` in counts and sums, empty buckets aside: for tests.
    pub fn same_up_to(&self, other: &Self, epsilon: f64) -> bool {
        let compacted = |h: &Self| {
            let mut h = h.clone();
            h.compact(0);
            h
        };
        let (a, b) = (compacted(self), compacted(other));
        a.same_layout(&b) && a.pairs(&b).all(|(x, y)| almost_equal(x, y, epsilon))
    }

    fn same_layout(&self, other: &Self) -> bool {
        self.schema == other.schema
            && self.zero_threshold == other.zero_threshold
            && (!self.uses_custom_buckets() || self.custom_values == other.custom_values)
            && spans_match(&self.positive_spans, &other.positive_spans)
            && spans_match(&self.negative_spans, &other.negative_spans)
            && self.positive_buckets.len() == other.positive_buckets.len()
            && self.negative_buckets.len() == other.negative_buckets.len()
    }

    fn pairs<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = (f64, f64)> + 'a {
        let scalars = [(self.count, other.count), (self.sum, other.sum), (self.zero_count, other.zero_count)];
        let both = |a: &'a [f64], b: &'a [f64]| a.iter().copied().zip(b.iter().copied());
        scalars
            .into_iter()
            .chain(both(&self.positive_buckets, &other.positive_buckets))
            .chain(both(&self.negative_buckets, &other.negative_buckets))
    }
}

/// Whether two numbers differ by less than the relative `epsilon`, measured against the sum of their magnitudes. NaN
/// equals NaN; the stale marker only itself. Near zero the difference must be below `epsilon` of the smallest normal.
pub fn almost_equal(a: f64, b: f64, epsilon: f64) -> bool {
    if is_stale_nan(a) || is_stale_nan(b) {
        return is_stale_nan(a) && is_stale_nan(b);
    }
    if a.is_nan() && b.is_nan() || a == b {
        return true;
    }
    let magnitude = a.abs() + b.abs();
    let difference = (a - b).abs();
    if a == 0.0 || b == 0.0 || magnitude < f64::MIN_POSITIVE {
        return difference < epsilon * f64::MIN_POSITIVE;
    }
    difference / magnitude.min(f64::MAX) < epsilon
}

#[cfg(test)]
mod tests {
    use super::super::{Histogram, ResetHint, Span};
    use super::*;
    use crate::stale_nan;

    #[test]
    fn equality_is_of_bits_and_layout() {
        let h = Histogram { sum: f64::NAN, count: 1.0, ..Histogram::default() };
        assert!(h.equals(&Histogram { reset_hint: ResetHint::Gauge, integer: true, ..h.clone() }));
        assert!(!h.equals(&Histogram { sum: stale_nan(), ..h.clone() }));
        assert!(!h.equals(&Histogram { zero_count: -0.0, ..h.clone() }));
        let with_empty = Histogram {
            positive_spans: vec![Span { offset: 0, length: 1 }],
            positive_buckets: vec![0.0],
            ..h.clone()
        };
        assert!(!h.equals(&with_empty));
        assert!(h.same_up_to(&with_empty, 1e-6));
    }

    #[test]
    fn almost_equal_is_relative() {
        assert!(almost_equal(1e300, 1e300 * (1.0 + 1e-7), 1e-6));
        assert!(!almost_equal(1.0, 1.00001, 1e-6));
        assert!(almost_equal(f64::NAN, f64::NAN, 1e-6));
        assert!(!almost_equal(stale_nan(), f64::NAN, 1e-6));
        assert!(!almost_equal(0.0, 1e-9, 1e-6));
        assert!(almost_equal(f64::INFINITY, f64::INFINITY, 1e-6));
    }
}
