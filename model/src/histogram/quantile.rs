//! Quantiles of native histograms: `histogram_quantile`.
//!
//! One deliberate difference from Prometheus: with a NaN sum it goes on to the last bucket to see whether observations
//! are missing, and then interpolates in that bucket. Here the quantile stays in the bucket in which its rank lies.

use super::Histogram;
use super::buckets::Bucket;
use super::interpolate::{exponential_position, linear_position};

/// What NaN observations did to a result: each is worth an info to the user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NanInfo {
    /// Nothing.
    #[default]
    None,
    /// The quantile is among the NaN observations, so it is NaN.
    ResultIsNan,
    /// They count as larger than everything, which moves the quantile up.
    SkewedHigher,
    /// They are in no fraction.
    ExcludedFromFraction,
}

impl Histogram {
    /// The `q`-quantile; see [`Self::quantile_with_info`].
    pub fn quantile(&self, q: f64) -> f64 {
        self.quantile_with_info(q).0
    }

    /// The `q`-quantile of the observations, interpolated inside its bucket.
    ///
    /// NaN without observations or for a NaN `q`, −Inf for `q < 0`, +Inf for `q > 1`. In the zero bucket, 0 is the lower
    /// bound if there are only positive buckets, and the upper bound if there are only negative ones. In the first
    /// custom bucket, 0 is the lower bound if the upper one is positive, else the upper bound is the result; in the last
    /// custom bucket the lower bound is.
    pub fn quantile_with_info(&self, q: f64) -> (f64, NanInfo) {
        if q < 0.0 {
            return (f64::NEG_INFINITY, NanInfo::None);
        }
        if q > 1.0 {
            return (f64::INFINITY, NanInfo::None);
        }
        if self.count == 0.0 || q.is_nan() {
            return (f64::NAN, NanInfo::None);
        }
        // Starting at the nearer end loses less precision. NaN observations, which are in no bucket, are at the upper
        // end: if there can be any, only the lower end is known.
        if self.sum.is_nan() || q < 0.5 {
            let mut buckets = self.all_buckets();
            let hit = Hit::find(&mut buckets, q * self.count);
            self.interpolate(hit, buckets, |hit| hit.rank - (hit.count - hit.bucket.count))
        } else {
            let mut buckets = self.all_buckets_reverse();
            let hit = Hit::find(&mut buckets, (1.0 - q) * self.count);
            self.interpolate(hit, buckets, |hit| hit.count - hit.rank)
        }
    }

    fn interpolate(
        &self,
        mut hit: Hit,
        rest: impl Iterator<Item = Bucket>,
        rank_in_bucket: impl Fn(&Hit) -> f64,
    ) -> (f64, NanInfo) {
        let bucket = &mut hit.bucket;
        if self.uses_custom_buckets() {
            if bucket.lower == f64::NEG_INFINITY {
                if bucket.upper <= 0.0 {
                    return (bucket.upper, NanInfo::None);
                }
                bucket.lower = 0.0;
            } else if bucket.upper == f64::INFINITY {
                return (bucket.lower, NanInfo::None);
            }
        } else if bucket.lower < 0.0 && bucket.upper > 0.0 {
            self.bias_around_zero(bucket);
        }
        let reached = hit.count;
        hit.count = hit.count.min(self.count);
        if hit.count < hit.rank {
            return if self.sum.is_nan() {
                (f64::NAN, NanInfo::ResultIsNan)
            } else {
                // Lost precision or an invalid histogram: the end of the buckets is the best answer.
                (hit.bucket.upper, NanInfo::None)
            };
        }
        // A NaN sum comes from NaN observations only if the buckets hold fewer than `count`; else from both infinities.
        let info = if self.sum.is_nan() && reached + rest.map(|bucket| bucket.count).sum::<f64>() < self.count
        {
            NanInfo::SkewedHigher
        } else {
            NanInfo::None
        };
        let share = rank_in_bucket(&hit) / hit.bucket.count;
        let around_zero = hit.bucket.lower <= 0.0 && hit.bucket.upper >= 0.0;
        let value = if self.uses_custom_buckets() || around_zero {
            linear_position(&hit.bucket, share)
        } else {
            exponential_position(&hit.bucket, share)
        };
        (value, info)
    }
}

/// The bucket in which a rank lies, and the count up to its far end.
struct Hit {
    bucket: Bucket,
    count: f64,
    rank: f64,
}

impl Hit {
    /// The first populated bucket with which the count reaches `rank`, else the last bucket.
    fn find(buckets: &mut impl Iterator<Item = Bucket>, rank: f64) -> Self {
        let mut hit = Self { bucket: Bucket::default(), count: 0.0, rank };
        for bucket in buckets {
            hit.bucket = bucket;
            if bucket.count == 0.0 {
                continue;
            }
            hit.count += bucket.count;
            if hit.count >= rank {
                break;
            }
        }
        hit
    }
}

#[cfg(test)]
mod tests {
    use super::super::Span;
    use super::*;

    #[test]
    fn nan_observations_skew_or_swallow_the_quantile() {
        let h = Histogram {
            count: 20.0,
            sum: f64::NAN,
            positive_spans: vec![Span { offset: 0, length: 2 }],
            positive_buckets: vec![4.0, 12.0],
            ..Histogram::default()
        };
        let (value, info) = h.quantile_with_info(0.1);
        assert_eq!(info, NanInfo::SkewedHigher);
        assert!((value - std::f64::consts::FRAC_1_SQRT_2).abs() < 1e-12, "{value}");
        let (value, info) = h.quantile_with_info(0.9);
        assert!(value.is_nan());
        assert_eq!(info, NanInfo::ResultIsNan);
        let infinities = Histogram { count: 16.0, ..h };
        assert_eq!(infinities.quantile_with_info(0.1).1, NanInfo::None);
    }

    #[test]
    fn no_buckets_no_quantile() {
        let h = Histogram { count: 3.0, sum: f64::NAN, ..Histogram::default() };
        assert!(h.quantile(0.0).is_nan());
        assert!(Histogram::default().quantile(0.5).is_nan());
        assert_eq!(h.quantile(-0.1), f64::NEG_INFINITY);
        assert_eq!(h.quantile(1.1), f64::INFINITY);
        assert!(h.quantile(f64::NAN).is_nan());
    }
}
