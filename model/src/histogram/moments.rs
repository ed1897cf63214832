//! Mean, variance and standard deviation of native histograms.

use super::Histogram;
use super::buckets::Bucket;
use super::cell::kahan_inc;

impl Histogram {
    /// The mean; NaN without observations.
    pub fn avg(&self) -> f64 {
        self.sum / self.count
    }

    /// The variance if all observations of a bucket were at its centre: the geometric mean of its bounds, the arithmetic
    /// one for custom buckets, 0 for the zero bucket.
    pub fn stdvar(&self) -> f64 {
        let mean = self.avg();
        let mut variance = 0.0;
        let mut compensation = 0.0;
        for bucket in self.all_buckets().filter(|bucket| bucket.count != 0.0) {
            let delta = self.centre(&bucket) - mean;
            (variance, compensation) = kahan_inc(bucket.count * delta * delta, variance, compensation);
        }
        (variance + compensation) / self.count
    }

    /// The square root of [`Self::stdvar`].
    pub fn stddev(&self) -> f64 {
        self.stdvar().sqrt()
    }

    fn centre(&self, bucket: &Bucket) -> f64 {
        if self.uses_custom_buckets() {
            return (bucket.upper + bucket.lower) / 2.0;
        }
        if bucket.lower <= 0.0 && bucket.upper >= 0.0 {
            return 0.0;
        }
        let centre = (bucket.upper * bucket.lower).sqrt();
        if bucket.upper < 0.0 { -centre } else { centre }
    }
}
