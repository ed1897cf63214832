//! Fractions of observations: `histogram_fraction` on native histograms. The inverse of a quantile.

use super::Histogram;
use super::buckets::Bucket;
use super::interpolate::exponential_share;
use super::quantile::NanInfo;

impl Histogram {
    /// The fraction of observations between the bounds; see [`Self::fraction_with_info`].
    pub fn fraction(&self, lower: f64, upper: f64) -> f64 {
        self.fraction_with_info(lower, upper).0
    }

    /// The fraction of observations between the bounds, interpolated where a bound is inside a bucket. −Inf and +Inf
    /// leave a side open.
    ///
    /// NaN without observations or for a NaN bound, 0 if `lower ≥ upper`. NaN observations are in no fraction, so that
    /// fractions add up to less than 1 with them.
    pub fn fraction_with_info(&self, lower: f64, upper: f64) -> (f64, NanInfo) {
        if self.count == 0.0 || lower.is_nan() || upper.is_nan() {
            return (f64::NAN, NanInfo::None);
        }
        if lower >= upper {
            return (0.0, NanInfo::None);
        }
        let mut bounds = [Rank::of(lower), Rank::of(upper)];
        let mut below = 0.0;
        for bucket in self.all_buckets() {
            for bound in &mut bounds {
                bound.look(self, bucket, below);
            }
            if bounds.iter().all(|bound| bound.rank.is_some()) {
                break;
            }
            below += bucket.count;
        }
        let (total, info) = if self.sum.is_nan() {
            let total: f64 = self.all_buckets().map(|bucket| bucket.count).sum();
            (total, if total < self.count { NanInfo::ExcludedFromFraction } else { NanInfo::None })
        } else {
            (self.count, NanInfo::None)
        };
        let [lower, upper] = bounds.map(|bound| bound.rank.filter(|&rank| rank <= total).unwrap_or(total));
        ((upper - lower) / self.count, info)
    }
}

/// A value, and how many observations are below it once known.
struct Rank {
    value: f64,
    rank: Option<f64>,
}

impl Rank {
    fn of(value: f64) -> Self {
        Self { value, rank: None }
    }

    /// Settles the rank if the value is not above `bucket`, below which are `below` observations.
    fn look(&mut self, h: &Histogram, mut bucket: Bucket, below: f64) {
        if self.rank.is_some() {
            return;
        }
        let around_zero = bucket.lower <= 0.0 && bucket.upper >= 0.0;
        if around_zero {
            h.bias_around_zero(&mut bucket);
        }
        if bucket.lower >= self.value {
            self.rank = Some(below);
        } else if bucket.upper > self.value {
            let linear = h.uses_custom_buckets() || around_zero;
            self.rank = Some(if !linear {
                below + bucket.count * exponential_share(&bucket, self.value)
            } else if bucket.lower == f64::NEG_INFINITY {
                // The first custom bucket has no lower bound to interpolate from: all of it counts as below.
                bucket.count
            } else {
                // With an upper bound of +Inf the quotient is 0: nothing of the last custom bucket counts as below.
                below + bucket.count * (self.value - bucket.lower) / (bucket.upper - bucket.lower)
            });
        }
    }
}
