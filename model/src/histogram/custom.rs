//! Custom buckets with different bounds: both histograms are rolled up to the bounds they share.

use super::Span;
use super::cell::Cell;
use super::spans::{SpanRuns, cells};

/// The bounds that are in both lists, which are ascending.
pub(super) fn shared_bounds(a: &[f64], b: &[f64]) -> Vec<f64> {
    let (mut a, mut b) = (a.iter().copied().peekable(), b.iter().copied().peekable());
    let mut shared = Vec::new();
    while let (Some(&x), Some(&y)) = (a.peek(), b.peek()) {
        if x == y {
            shared.push(x);
        }
        // A NaN, which no valid list has, advances the second list only.
        if x <= y {
            a.next();
        }
        if y <= x || x.partial_cmp(&y).is_none() {
            b.next();
        }
    }
    shared
}

/// Counts by shared bound, the last for +Inf.
pub(super) struct RolledUp<C> {
    counts: Vec<C>,
}

impl<C: Cell> RolledUp<C> {
    /// No observations between any of `shared`.
    pub(super) fn new(shared: &[f64]) -> Self {
        Self { counts: vec![C::default(); shared.len() + 1] }
    }

    /// Adds buckets with their own bounds: each goes into the first shared bucket that contains it.
    pub(super) fn add(
        &mut self,
        shared: &[f64],
        (spans, buckets, bounds): (&[Span], &[C], &[f64]),
        negate: bool,
    ) {
        let mut into = 0;
        for (index, cell) in cells(spans, buckets) {
            let position = match usize::try_from(index.max(0)).ok().and_then(|i| bounds.get(i)) {
                Some(bound) => {
                    while shared.get(into).is_some_and(|candidate| candidate < bound) {
                        into += 1;
                    }
                    into
                }
                None => shared.len(),
            };
            if let Some(count) = self.counts.get_mut(position) {
                count.accumulate(if negate { cell.negated() } else { cell });
            }
        }
    }

    /// The counts, one a shared bound and one for +Inf.
    pub(super) fn counts(&self) -> &[C] {
        &self.counts
    }

    /// Spans and buckets without the empty ones.
    pub(super) fn finish(self) -> (Vec<Span>, Vec<C>) {
        let mut runs = SpanRuns::default();
        let mut buckets = Vec::new();
        for (index, cell) in self.counts.into_iter().enumerate() {
            if !cell.is_empty() {
                runs.push(index as i64);
                buckets.push(cell);
            }
        }
        (runs.finish(), buckets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_intersect() {
        assert_eq!(shared_bounds(&[1.0, 2.0, 3.0], &[0.0, 2.0, 3.0, 4.0]), [2.0, 3.0]);
        assert!(shared_bounds(&[1.0], &[]).is_empty());
        assert!(shared_bounds(&[f64::NAN, 1.0], &[f64::NAN, 1.0]).is_empty());
    }

    #[test]
    fn without_a_shared_bound_everything_is_in_one_bucket() {
        let mut rolled = RolledUp::new(&[]);
        rolled.add(&[], (&[Span { offset: 0, length: 3 }], &[1.0, 2.0, 4.0], &[1.0, 2.0]), false);
        assert_eq!(rolled.finish(), (vec![Span { offset: 0, length: 1 }], vec![7.0]));
    }
}
