//! Integer histograms: bucket counts as differences from the bucket before, as they are sent.

use super::Histogram;

/// Integers up to here are exact in an `f64`.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

/// Absolute counts of a side of an integer histogram. Sums that leave `i64`, which only invalid input has, saturate.
pub fn deltas_to_counts(deltas: &[i64]) -> Vec<f64> {
    let mut count = 0_i64;
    deltas
        .iter()
        .map(|&delta| {
            count = count.saturating_add(delta);
            count as f64
        })
        .collect()
}

/// The inverse of [`deltas_to_counts`]; `None` if a count is not an integer or not exact.
pub fn counts_to_deltas(counts: &[f64]) -> Option<Vec<i64>> {
    let mut previous = 0;
    counts
        .iter()
        .map(|&count| {
            let exact = count.fract() == 0.0 && count.abs() <= EXACT_MAX;
            let count = exact.then_some(count as i64)?;
            Some(count - std::mem::replace(&mut previous, count))
        })
        .collect()
}

impl Histogram {
    /// Positive buckets as deltas, if all are integers.
    pub fn positive_deltas(&self) -> Option<Vec<i64>> {
        counts_to_deltas(&self.positive_buckets)
    }

    /// Negative buckets as deltas, if all are integers.
    pub fn negative_deltas(&self) -> Option<Vec<i64>> {
        counts_to_deltas(&self.negative_buckets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deltas_and_counts_are_inverse() {
        let deltas = [1, 2, -2, 1 << 53, -(1 << 53)];
        let counts = deltas_to_counts(&deltas[..3]);
        assert_eq!(counts, [1.0, 3.0, 1.0]);
        assert_eq!(counts_to_deltas(&counts).as_deref(), Some(&deltas[..3]));
        assert_eq!(counts_to_deltas(&[0.5]), None);
        assert_eq!(counts_to_deltas(&[f64::NAN]), None);
        assert_eq!(counts_to_deltas(&[f64::INFINITY]), None);
        assert_eq!(deltas_to_counts(&[i64::MAX, i64::MAX]), [i64::MAX as f64; 2]);
    }
}
