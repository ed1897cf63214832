//! Quantiles and fractions of classic histograms, from the `le` buckets of one series set.

use super::equality::almost_equal;

/// Relative difference of two counts that is taken for lost precision. Counts of a sum of rates differ that much.
const SMALL_DELTA: f64 = 1e-12;

/// A cumulative bucket of a classic histogram.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClassicBucket {
    /// The `le` label.
    pub upper_bound: f64,
    /// Observations up to it.
    pub count: f64,
}

/// What had to be repaired because counts fell from one bucket to the next.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ForcedMonotonic {
    /// The lowest bound of a repaired bucket.
    pub min_bound: f64,
    /// The highest.
    pub max_bound: f64,
    /// The largest fall.
    pub max_difference: f64,
}

/// A quantile of a classic histogram.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BucketQuantile {
    /// The quantile.
    pub value: f64,
    /// Set if counts were not monotonic: worth an info.
    pub forced_monotonic: Option<ForcedMonotonic>,
    /// Whether counts differed by no more than rounding.
    pub fixed_precision: bool,
}

impl From<f64> for BucketQuantile {
    fn from(value: f64) -> Self {
        Self { value, forced_monotonic: None, fixed_precision: false }
    }
}

/// The `q`-quantile, interpolated linearly inside its bucket. Sorts and repairs `buckets` in place.
///
/// NaN for a NaN `q`, without a +Inf bucket, with fewer than two bounds or without observations; −Inf for `q < 0`, +Inf
/// for `q > 1`. In the last bucket the result is its lower bound; in a first bucket with a bound up to 0, that bound;
/// any other first bucket starts at 0.
pub fn bucket_quantile(q: f64, buckets: &mut Vec<ClassicBucket>) -> BucketQuantile {
    if q.is_nan() {
        return f64::NAN.into();
    }
    if q < 0.0 {
        return f64::NEG_INFINITY.into();
    }
    if q > 1.0 {
        return f64::INFINITY.into();
    }
    if !normalise(buckets) {
        return f64::NAN.into();
    }
    let (forced_monotonic, fixed_precision) = make_monotonic(buckets);
    let [.., before_last, last] = buckets[..] else { return f64::NAN.into() };
    if last.count == 0.0 {
        return f64::NAN.into();
    }
    let rank = q * last.count;
    let finite = &buckets[..buckets.len() - 1];
    let position = first_reaching(finite, rank);
    let value = match finite.get(position) {
        None => before_last.upper_bound,
        Some(hit) if position == 0 && hit.upper_bound <= 0.0 => hit.upper_bound,
        Some(hit) => {
            let (start, below) = match position.checked_sub(1).and_then(|i| finite.get(i)) {
                Some(previous) => (previous.upper_bound, previous.count),
                None => (0.0, 0.0),
            };
            start + (hit.upper_bound - start) * ((rank - below) / (hit.count - below))
        }
    };
    BucketQuantile { value, forced_monotonic, fixed_precision }
}

/// The fraction of observations between the bounds, interpolated linearly. Sorts `buckets` in place.
///
/// NaN for a NaN bound, without a +Inf bucket or without observations; 0 if `lower ≥ upper`.
pub fn bucket_fraction(lower: f64, upper: f64, buckets: &mut Vec<ClassicBucket>) -> f64 {
    if !normalise(buckets) {
        return f64::NAN;
    }
    let total = buckets.last().map_or(0.0, |last| last.count);
    if total == 0.0 || lower.is_nan() || upper.is_nan() {
        return f64::NAN;
    }
    if lower >= upper {
        return 0.0;
    }
    let rank = |value: f64| rank_of(value, buckets).filter(|&rank| rank <= total).unwrap_or(total);
    (rank(upper) - rank(lower)) / total
}

/// How many observations are below `value`; `None` if it is not below the end of any bucket.
fn rank_of(value: f64, buckets: &[ClassicBucket]) -> Option<f64> {
    let mut start = match buckets.first() {
        Some(first) if first.upper_bound <= 0.0 => f64::NEG_INFINITY,
        _ => 0.0,
    };
    let mut below = 0.0;
    for bucket in buckets {
        if start >= value {
            return Some(below);
        }
        if bucket.upper_bound > value {
            if start == f64::NEG_INFINITY {
                return Some(bucket.count);
            }
            return Some(below + (bucket.count - below) * (value - start) / (bucket.upper_bound - start));
        }
        below = bucket.count;
        start = bucket.upper_bound;
    }
    None
}

/// Sorts by bound and adds up buckets of equal bounds. Returns whether the last bound is +Inf.
fn normalise(buckets: &mut Vec<ClassicBucket>) -> bool {
    buckets.sort_by(|a, b| a.upper_bound.partial_cmp(&b.upper_bound).unwrap_or(std::cmp::Ordering::Equal));
    if buckets.last().is_none_or(|last| last.upper_bound != f64::INFINITY) {
        return false;
    }
    buckets.dedup_by(|next, kept| {
        let same = next.upper_bound == kept.upper_bound;
        if same {
            kept.count += next.count;
        }
        same
    });
    true
}

/// Raises counts that fall, since the search for a rank depends on their order, and evens out differences that are only
/// rounding. Falls come from inconsistent targets, partial remote writes and lost precision.
fn make_monotonic(buckets: &mut [ClassicBucket]) -> (Option<ForcedMonotonic>, bool) {
    let mut forced: Option<ForcedMonotonic> = None;
    let mut fixed_precision = false;
    let Some((first, rest)) = buckets.split_first_mut() else { return (None, false) };
    let mut previous = first.count;
    for bucket in rest {
        let count = bucket.count;
        if count == previous {
            continue;
        }
        if almost_equal(previous, count, SMALL_DELTA) {
            bucket.count = previous;
            fixed_precision = true;
        } else if count < previous {
            bucket.count = previous;
            let bound = bucket.upper_bound;
            let so_far = forced.get_or_insert(ForcedMonotonic {
                min_bound: bound,
                max_bound: bound,
                max_difference: 0.0,
            });
            so_far.max_bound = so_far.max_bound.max(bound);
            so_far.max_difference = so_far.max_difference.max(previous - count);
        } else {
            previous = count;
        }
    }
    (forced, fixed_precision)
}

/// The position of the first bucket with at least `rank` observations, by bisection: the same one Prometheus finds also
/// where a NaN count leaves the order undefined.
fn first_reaching(buckets: &[ClassicBucket], rank: f64) -> usize {
    buckets.partition_point(|bucket| !matches!(bucket.count.partial_cmp(&rank), Some(o) if o.is_ge()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buckets(pairs: &[(f64, f64)]) -> Vec<ClassicBucket> {
        pairs.iter().map(|&(upper_bound, count)| ClassicBucket { upper_bound, count }).collect()
    }

    #[test]
    fn quantiles_interpolate_and_have_edges() {
        let inf = f64::INFINITY;
        let check = |q: f64, pairs: &[(f64, f64)], expected: f64| {
            let got = bucket_quantile(q, &mut buckets(pairs)).value;
            assert!(almost_equal(got, expected, 1e-12), "{q} of {pairs:?}: {got}, not {expected}");
        };
        let b = [(inf, 12.0), (1.0, 4.0), (2.0, 10.0)];
        check(0.5, &b, 1.0 + 2.0 / 6.0);
        check(0.25, &b, 0.75);
        check(0.99, &b, 2.0);
        check(0.1, &[(-1.0, 4.0), (inf, 4.0)], -1.0);
        check(0.5, &[(1.0, 4.0)], f64::NAN);
        check(0.5, &[(inf, 4.0)], f64::NAN);
        check(0.5, &[(1.0, 0.0), (inf, 0.0)], f64::NAN);
        check(0.5, &[], f64::NAN);
        check(1.5, &[], inf);
        check(0.5, &[(1.0, 2.0), (1.0, 2.0), (inf, 4.0), (inf, 4.0)], 1.0);
    }

    #[test]
    fn falling_counts_are_raised_and_reported() {
        let mut b = buckets(&[(1.0, 5.0), (2.0, 3.0), (3.0, 4.0), (f64::INFINITY, 10.0)]);
        let result = bucket_quantile(0.5, &mut b);
        assert_eq!(result.value, 1.0);
        let expected = ForcedMonotonic { min_bound: 2.0, max_bound: 3.0, max_difference: 2.0 };
        assert_eq!(result.forced_monotonic, Some(expected));
        assert!(!result.fixed_precision);
        let mut b = buckets(&[(1.0, 1.0), (2.0, 1.0 - 1e-15), (f64::INFINITY, 2.0)]);
        let result = bucket_quantile(0.5, &mut b);
        assert_eq!(result.forced_monotonic, None);
        assert!(result.fixed_precision);
    }

    #[test]
    fn fractions() {
        let inf = f64::INFINITY;
        let check = |lower: f64, upper: f64, pairs: &[(f64, f64)], expected: f64| {
            let got = bucket_fraction(lower, upper, &mut buckets(pairs));
            assert!(almost_equal(got, expected, 1e-12), "[{lower}, {upper}] of {pairs:?}: {got}");
        };
        let b = [(1.0, 2.0), (3.0, 6.0), (inf, 8.0)];
        check(0.0, 2.0, &b, 0.5);
        check(-inf, inf, &b, 1.0);
        check(2.0, 2.0, &b, 0.0);
        check(4.0, 5.0, &b, 0.0);
        check(f64::NAN, 1.0, &b, f64::NAN);
        check(0.0, 1.0, &[(1.0, 2.0)], f64::NAN);
        check(-inf, -3.0, &[(-2.0, 2.0), (inf, 4.0)], 0.5);
    }
}
