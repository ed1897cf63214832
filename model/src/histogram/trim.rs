//! Trimming: PromQL's `h </ x` and `h >/ x`, which keep the observations on one side of a value.
//!
//! The bucket that the value cuts keeps an interpolated part. The sum is estimated anew from the centres of what is
//! kept, but only if anything was cut: trimming nothing returns the histogram as it is.

use super::Histogram;
use super::buckets::Bucket;
use super::interpolate::exponential_share;

#[derive(Clone, Copy, PartialEq)]
enum Keep {
    Below,
    Above,
}

/// What remains of a bucket: how many observations, and where they are on average.
#[derive(Clone, Copy)]
struct Kept {
    count: f64,
    centre: f64,
}

impl Histogram {
    /// The observations up to `value`: `h </ value`.
    #[must_use]
    pub fn trim_upper(&self, value: f64) -> Self {
        self.trim(value, Keep::Below)
    }

    /// The observations from `value` on: `h >/ value`.
    #[must_use]
    pub fn trim_lower(&self, value: f64) -> Self {
        self.trim(value, Keep::Above)
    }

    fn trim(&self, value: f64, keep: Keep) -> Self {
        let custom = self.uses_custom_buckets();
        let mut trimmed = self.clone();
        let mut total = Total::default();
        let has_positive = trimmed.positive_buckets.iter().any(|&count| count != 0.0);
        let has_negative = trimmed.negative_buckets.iter().any(|&count| count != 0.0);
        let sides = [
            (self.positive_buckets_iter().collect::<Vec<_>>(), &mut trimmed.positive_buckets, true),
            (self.negative_buckets_iter().collect::<Vec<_>>(), &mut trimmed.negative_buckets, false),
        ];
        for (buckets, counts, positive) in sides {
            let side = Scale { linear: custom, positive };
            for (bucket, count) in buckets.iter().zip(counts.iter_mut()) {
                if bucket.count != 0.0 {
                    *count = total.take(bucket.count, side.trim(bucket, value, keep));
                }
            }
        }
        if self.zero_count > 0.0 && !custom {
            let mut zero = self.zero_bucket();
            match (has_negative, has_positive) {
                (true, false) => zero.upper = 0.0,
                (false, true) => zero.lower = 0.0,
                _ => {}
            }
            trimmed.zero_count = total.take(self.zero_count, trim_zero_bucket(&zero, value, keep));
        }
        if total.cut {
            trimmed.count = total.count;
            trimmed.sum = total.sum;
            trimmed.integer = false;
            trimmed.compact(0);
        }
        trimmed
    }
}

/// Count and sum of what is kept.
#[derive(Default)]
struct Total {
    count: f64,
    sum: f64,
    cut: bool,
}

impl Total {
    /// Returns the kept count of a bucket that had `count`.
    fn take(&mut self, count: f64, kept: Option<Kept>) -> f64 {
        let Some(kept) = kept else {
            self.cut = true;
            return 0.0;
        };
        self.count += kept.count;
        self.sum += kept.centre * kept.count;
        self.cut |= kept.count != count;
        kept.count
    }
}

/// How values are spread inside the buckets of a side.
#[derive(Clone, Copy)]
struct Scale {
    linear: bool,
    positive: bool,
}

impl Scale {
    /// `None` if nothing is kept.
    fn trim(self, bucket: &Bucket, value: f64, keep: Keep) -> Option<Kept> {
        let (whole, cut) = match keep {
            Keep::Below => (bucket.upper <= value, bucket.lower < value),
            Keep::Above => (bucket.lower >= value, bucket.upper > value),
        };
        if whole {
            return Some(Kept { count: bucket.count, centre: self.centre(bucket.lower, bucket.upper) });
        }
        if !cut {
            return None;
        }
        if bucket.lower == f64::NEG_INFINITY {
            return Some(cut_first_bucket(bucket, value, keep));
        }
        if bucket.upper == f64::INFINITY {
            return Some(cut_last_bucket(bucket, value, keep));
        }
        let share = if self.linear {
            (value - bucket.lower) / (bucket.upper - bucket.lower)
        } else {
            exponential_share(bucket, value)
        };
        let below = bucket.count * share;
        Some(match keep {
            Keep::Below => Kept { count: below, centre: self.centre(bucket.lower, value) },
            Keep::Above => Kept { count: bucket.count - below, centre: self.centre(value, bucket.upper) },
        })
    }

    /// Where observations between the bounds are on average. An infinite bound is replaced by the finite one, or by zero
    /// if zero is nearer.
    fn centre(self, lower: f64, upper: f64) -> f64 {
        match (lower.is_infinite(), upper.is_infinite()) {
            (true, true) => 0.0,
            (true, false) if upper > 0.0 => upper / 2.0,
            (true, false) => upper,
            (false, true) => lower,
            (false, false) if self.linear => (lower + upper) / 2.0,
            (false, false) => {
                let mean = (lower * upper).abs().sqrt();
                if self.positive { mean } else { -mean }
            }
        }
    }
}

/// The first custom bucket, or an exponential one of −Inf. With a positive upper bound it is taken to start at zero;
/// otherwise its distribution is unknown: below, all of it is taken to be at the value; above, none is kept.
fn cut_first_bucket(bucket: &Bucket, value: f64, keep: Keep) -> Kept {
    let bounded = bucket.upper > 0.0 && bucket.upper != f64::INFINITY;
    match keep {
        Keep::Below if value > 0.0 && bounded => {
            Kept { count: bucket.count * value / bucket.upper, centre: value / 2.0 }
        }
        Keep::Below if bucket.upper <= 0.0 => Kept { count: bucket.count, centre: value },
        Keep::Above if value >= 0.0 && bounded => {
            Kept { count: bucket.count * (1.0 - value / bucket.upper), centre: (value + bucket.upper) / 2.0 }
        }
        _ => Kept { count: 0.0, centre: 0.0 },
    }
}

/// The last custom bucket, or an exponential one of +Inf. Its distribution is unknown: above, all of it is taken to be at
/// the value; below, none is kept.
fn cut_last_bucket(bucket: &Bucket, value: f64, keep: Keep) -> Kept {
    match keep {
        Keep::Below => Kept { count: 0.0, centre: 0.0 },
        Keep::Above => Kept { count: bucket.count, centre: value },
    }
}

fn trim_zero_bucket(zero: &Bucket, value: f64, keep: Keep) -> Option<Kept> {
    let width = zero.upper - zero.lower;
    let part = |lower: f64, upper: f64| Kept {
        count: zero.count * ((upper - lower) / width),
        centre: (lower + upper) / 2.0,
    };
    let whole = Kept { count: zero.count, centre: (zero.lower + zero.upper) / 2.0 };
    match (keep, value <= zero.lower, value >= zero.upper) {
        (Keep::Below, true, _) | (Keep::Above, false, true) => None,
        (Keep::Above, true, _) | (Keep::Below, false, true) => Some(whole),
        (Keep::Below, false, false) => Some(part(zero.lower, value)),
        (Keep::Above, false, false) => Some(part(value, zero.upper)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Span;
    use super::*;

    #[test]
    fn trimming_nothing_keeps_the_sum() {
        let h = Histogram {
            count: 2.0,
            sum: 1.25,
            integer: true,
            positive_spans: vec![Span { offset: 0, length: 2 }],
            positive_buckets: vec![2.0, 0.0],
            ..Histogram::default()
        };
        assert_eq!(h.trim_upper(4.0), h);
        assert_eq!(h.trim_lower(f64::NEG_INFINITY), h);
    }

    #[test]
    fn a_zero_bucket_without_width_is_on_either_side() {
        let h = Histogram { count: 2.0, zero_count: 2.0, ..Histogram::default() };
        assert_eq!(h.trim_upper(1.0).zero_count, 2.0);
        assert_eq!(h.trim_upper(-1.0).zero_count, 0.0);
        assert_eq!(h.trim_lower(1.0).zero_count, 0.0);
        assert_eq!(h.trim_lower(0.0).zero_count, 2.0);
    }
}
