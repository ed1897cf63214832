//! Positions inside a bucket, shared by quantiles, fractions and trimming.
//!
//! Exponential buckets are interpolated on a logarithmic scale, on which their bounds are evenly spaced; custom buckets
//! and the zero bucket linearly, as classic histograms are.

use super::Histogram;
use super::buckets::Bucket;

/// The part of an exponential bucket, which does not contain zero, that is below `value`.
pub(super) fn exponential_share(bucket: &Bucket, value: f64) -> f64 {
    let (lower, upper) = (bucket.lower.abs().log2(), bucket.upper.abs().log2());
    let value_log = value.abs().log2();
    if value > 0.0 {
        (value_log - lower) / (upper - lower)
    } else {
        1.0 - (value_log - upper) / (lower - upper)
    }
}

/// The inverse of [`exponential_share`].
pub(super) fn exponential_position(bucket: &Bucket, share: f64) -> f64 {
    let (lower, upper) = (bucket.lower.abs().log2(), bucket.upper.abs().log2());
    if bucket.lower > 0.0 {
        (lower + (upper - lower) * share).exp2()
    } else {
        -(upper + (lower - upper) * (1.0 - share)).exp2()
    }
}

/// Linear position.
pub(super) fn linear_position(bucket: &Bucket, share: f64) -> f64 {
    bucket.lower + (bucket.upper - bucket.lower) * share
}

impl Histogram {
    /// A bucket around zero of a histogram that has buckets on one side only is taken to end at zero.
    pub(super) fn bias_around_zero(&self, bucket: &mut Bucket) {
        match (self.negative_buckets.is_empty(), self.positive_buckets.is_empty()) {
            (true, false) => bucket.lower = 0.0,
            (false, true) => bucket.upper = 0.0,
            _ => {}
        }
    }
}
