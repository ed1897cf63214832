//! Windows: which samples of a series a step looks at.

use std::sync::Arc;

use crate::{select::SelectorTime, steps::Steps};

/// The window of a range function: open on the left, closed on the right, before the reference time of each step.
#[derive(Clone, Debug)]
pub struct Window {
    /// The reference time.
    pub time: SelectorTime,
    /// How far the window reaches back.
    pub range_ms: i64,
    /// How far an extended window reaches further.
    pub lookback_ms: i64,
    /// `anchored`: the window also has the newest sample at or before its start, within the look-back.
    pub anchored: bool,
    /// `smoothed`: the window also has the samples around its start and its end, within the look-back.
    pub smoothed: bool,
    /// The selector as text, for [`crate::Node::describe`].
    pub text: Arc<str>,
}

/// `lo..hi` of each step; both only grow.
pub type Bounds = Vec<(u32, u32)>;

impl Window {
    /// Start (exclusive) and end (inclusive) at a step, not extended.
    #[inline]
    pub fn at(&self, steps: &Steps, step: usize) -> (i64, i64) {
        let end = self.time.at(steps, step);
        (end.saturating_sub(self.range_ms), end)
    }

    /// Whether it reaches further than its range.
    pub fn is_extended(&self) -> bool {
        self.anchored || self.smoothed
    }

    /// The samples of each step, from the timestamps of a series in order.
    pub fn bounds(&self, t: &[i64], steps: &Steps, out: &mut Bounds) {
        let before = if self.is_extended() { self.lookback_ms } else { 0 };
        let after = if self.smoothed { self.lookback_ms } else { 0 };
        let (mut lo, mut hi) = (0, 0);
        out.clear();
        out.reserve(steps.count);
        for step in 0..steps.count {
            let (start, end) = self.at(steps, step);
            (lo, hi) = advance(t, (lo, hi), start.saturating_sub(before), end.saturating_add(after));
            out.push((lo as u32, hi as u32));
        }
    }
}

/// Moves pointers to the samples in `(start, end]`.
#[inline]
fn advance(t: &[i64], (mut lo, mut hi): (usize, usize), start: i64, end: i64) -> (usize, usize) {
    while hi < t.len() && t[hi] <= end {
        hi += 1;
    }
    while lo < hi && t[lo] <= start {
        lo += 1;
    }
    (lo, hi)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_left_end_is_open() {
        let w = Window {
            time: SelectorTime { at_ms: None, offset_ms: 0 },
            range_ms: 20,
            lookback_ms: 100,
            anchored: false,
            smoothed: false,
            text: "".into(),
        };
        let mut b = Vec::new();
        w.bounds(&[0, 10, 20, 30], &Steps::range(20, 40, 10), &mut b);
        assert_eq!(b, [(1, 3), (2, 4), (3, 4)]);
        let anchored = Window { anchored: true, ..w };
        anchored.bounds(&[0, 10, 20, 30], &Steps::range(20, 40, 10), &mut b);
        assert_eq!(b, [(0, 3), (0, 4), (0, 4)]);
    }
}
