//! What a bucket holds while histograms are combined: a plain count, or a count with its Kahan compensation.
//!
//! Merging, reducing and compacting are written once over [`Cell`]; a compensated operation zips counts and
//! compensations into [`Compensated`] and splits them again at the end.

/// Adds `inc` to `sum` with compensation `c` and returns the new pair: Kahan summation in Neumaier's form, which also
/// keeps the low places when `inc` is the larger term. An infinite sum has no compensation (it would be NaN).
#[inline]
pub fn kahan_inc(inc: f64, sum: f64, c: f64) -> (f64, f64) {
    let total = sum + inc;
    // Choices of values and no branches, so that a loop over buckets does several at a time.
    let (large, small) = if sum.abs() >= inc.abs() { (sum, inc) } else { (inc, sum) };
    let next = c + ((large - total) + small);
    let c = if total.is_infinite() { 0.0 } else { next };
    (total, c)
}

/// A bucket's content.
pub(super) trait Cell: Copy + Default {
    /// Whether the bucket may be cut out.
    fn is_empty(self) -> bool;
    /// Adds another bucket.
    fn accumulate(&mut self, other: Self);
    /// The content to accumulate for a subtraction.
    fn negated(self) -> Self;
}

impl Cell for f64 {
    fn is_empty(self) -> bool {
        self == 0.0
    }

    fn accumulate(&mut self, other: Self) {
        *self += other;
    }

    fn negated(self) -> Self {
        -self
    }
}

/// A count and its compensation.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Compensated {
    pub(super) sum: f64,
    pub(super) c: f64,
}

impl Compensated {
    /// Pairs counts with compensations; a missing compensation is zero.
    pub(super) fn zip(sums: &[f64], compensations: &[f64]) -> Vec<Self> {
        let compensations = compensations.iter().copied().chain(std::iter::repeat(0.0));
        sums.iter().zip(compensations).map(|(&sum, c)| Self { sum, c }).collect()
    }

    /// The inverse of [`Self::zip`].
    pub(super) fn unzip(cells: &[Self]) -> (Vec<f64>, Vec<f64>) {
        cells.iter().map(|cell| (cell.sum, cell.c)).unzip()
    }

    /// Adds a plain number.
    pub(super) fn inc(&mut self, value: f64) {
        (self.sum, self.c) = kahan_inc(value, self.sum, self.c);
    }
}

impl Cell for Compensated {
    fn is_empty(self) -> bool {
        self.sum == 0.0 && self.c == 0.0
    }

    fn accumulate(&mut self, other: Self) {
        self.inc(other.sum);
        if other.c != 0.0 {
            self.inc(other.c);
        }
    }

    fn negated(self) -> Self {
        Self { sum: -self.sum, c: -self.c }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compensation_keeps_what_a_plain_sum_loses() {
        let mut cell = Compensated::default();
        for value in [1.0, 1e100, 1.0, -1e100] {
            cell.inc(value);
        }
        assert_eq!(cell.sum + cell.c, 2.0);
        assert_eq!(kahan_inc(f64::INFINITY, 1.0, 0.5), (f64::INFINITY, 0.0));
    }
}
