//! Extremes, quantiles and deviations over windows of floats.

use std::collections::VecDeque;

use super::{RangeKind, mixed::Floats};
use crate::quantile::nan_first;

/// The extreme of one window that is not empty: the value, or its time in seconds for the `ts_of_` functions. NaN
/// counts only where there is nothing else; of equal extremes the `ts_of_` functions take the last.
pub fn extreme(kind: RangeKind, f: Floats<'_>) -> f64 {
    let mut queue = VecDeque::new();
    Extremes::new(kind, f, &mut queue).window(0, f.v.len())
}

/// Extremes of sliding windows: a queue of candidates, each better than all behind it, so that every sample enters
/// and leaves once.
pub struct Extremes<'a> {
    f: Floats<'a>,
    min: bool,
    timestamp: bool,
    queue: &'a mut VecDeque<u32>,
    next: usize,
}

impl<'a> Extremes<'a> {
    pub fn new(kind: RangeKind, f: Floats<'a>, queue: &'a mut VecDeque<u32>) -> Self {
        queue.clear();
        Self {
            f,
            min: matches!(kind, RangeKind::MinOverTime | RangeKind::TsOfMinOverTime),
            timestamp: matches!(kind, RangeKind::TsOfMinOverTime | RangeKind::TsOfMaxOverTime),
            queue,
            next: 0,
        }
    }

    /// The extreme of `lo..hi`; neither may be less than in the call before, `lo < hi`.
    pub fn window(&mut self, lo: usize, hi: usize) -> f64 {
        while self.next < hi {
            let v = self.f.v[self.next];
            if !v.is_nan() {
                // A later equal value stays behind an earlier one only where the first is wanted; either gives the
                // same value, and the time of the last is what `ts_of_` asks for.
                while self.queue.back().is_some_and(|&b| self.replaces(v, self.f.v[b as usize])) {
                    self.queue.pop_back();
                }
                self.queue.push_back(self.next as u32);
            }
            self.next += 1;
        }
        while self.queue.front().is_some_and(|&i| (i as usize) < lo) {
            self.queue.pop_front();
        }
        let best = self.queue.front().map_or(hi - 1, |&i| i as usize);
        if self.timestamp { self.f.t[best] as f64 / 1000.0 } else { self.f.v[best] }
    }

    fn replaces(&self, new: f64, old: f64) -> bool {
        if self.min { new <= old } else { new >= old }
    }
}

/// The values of a sliding window in order, NaN first: a step costs what enters and leaves, each a search and a move of
/// memory.
#[derive(Default)]
pub struct Sorted {
    values: Vec<f64>,
    lo: usize,
    hi: usize,
}

impl Sorted {
    /// No window yet.
    pub fn clear(&mut self) {
        self.values.clear();
        (self.lo, self.hi) = (0, 0);
    }

    /// Moves to `v[lo..hi]`; neither end may be less than in the call before.
    pub fn window(&mut self, v: &[f64], lo: usize, hi: usize) {
        let changes = (lo - self.lo) + (hi - self.hi);
        if lo >= self.hi || changes * SORT_COST > hi - lo {
            self.values.clear();
            self.values.extend_from_slice(&v[lo..hi]);
            self.values.sort_unstable_by(nan_first);
        } else {
            // What leaves and what enters trade places: between them values move up or down by one.
            let leaving = self.lo..lo;
            let entering = self.hi..hi;
            let trades = leaving.len().min(entering.len());
            for (out, new) in leaving.clone().zip(entering.clone()) {
                self.replace(v[out], v[new]);
            }
            for out in leaving.skip(trades) {
                let at = self.position(v[out]);
                self.values.remove(at);
            }
            for new in entering.skip(trades) {
                let at = self.position(v[new]);
                self.values.insert(at, v[new]);
            }
        }
        (self.lo, self.hi) = (lo, hi);
    }

    fn position(&self, v: f64) -> usize {
        self.values.partition_point(|x| nan_first(x, &v).is_lt())
    }

    fn replace(&mut self, old: f64, new: f64) {
        let (from, to) = (self.position(old), self.position(new));
        if to > from {
            self.values.copy_within(from + 1..to, from);
            self.values[to - 1] = new;
        } else {
            self.values.copy_within(to..from, to + 1);
            self.values[to] = new;
        }
    }

    /// The quantile of the window, as [`crate::quantile::quantile`] gives it.
    pub fn quantile(&self, q: f64) -> f64 {
        crate::quantile::of_sorted(q, &self.values)
    }
}

/// Sorting anew is worth it where more than one in so many values changes.
const SORT_COST: usize = 4;

/// The median absolute deviation; NaN where a value is NaN.
pub fn mad(v: &[f64]) -> f64 {
    if v.iter().any(|v| v.is_nan()) {
        return f64::NAN;
    }
    let mut values = v.to_vec();
    let median = crate::quantile::quantile(0.5, &mut values);
    for v in &mut values {
        *v = (*v - median).abs();
    }
    crate::quantile::quantile(0.5, &mut values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sliding_quantiles_are_those_of_each_window() {
        let v: Vec<f64> = (0..200u64)
            .map(|i| {
                if i % 17 == 3 {
                    f64::NAN
                } else {
                    (i * 7919 % 31) as f64 - if i % 5 == 0 { 31.0 } else { 0.0 }
                }
            })
            .collect();
        let mut sorted = Sorted::default();
        for (lo, hi) in (0..150).map(|i| (i, i + 8 + i / 4)).chain([(150, 195), (151, 196), (198, 200)]) {
            sorted.window(&v, lo, hi.min(200));
            for q in [0.0, 0.3, 0.5, 1.0, 1.5, f64::NAN] {
                let expected = crate::quantile::quantile(q, &mut v[lo..hi.min(200)].to_vec());
                assert_eq!(sorted.quantile(q).to_bits(), expected.to_bits(), "{lo}..{hi} {q}");
            }
        }
    }

    #[test]
    fn nan_counts_only_alone_and_the_last_of_equals_wins() {
        let (t, v) = ([0, 1000, 2000, 3000], [f64::NAN, 2.0, 2.0, 1.0]);
        let f = Floats { t: &t, v: &v, st: &[] };
        assert_eq!(extreme(RangeKind::MaxOverTime, f), 2.0);
        assert_eq!(extreme(RangeKind::TsOfMaxOverTime, f), 2.0);
        assert_eq!(extreme(RangeKind::TsOfMinOverTime, f), 3.0);
        assert!(extreme(RangeKind::MinOverTime, f.slice(0, 1)).is_nan());
        let mut queue = VecDeque::new();
        let mut e = Extremes::new(RangeKind::MinOverTime, f, &mut queue);
        assert_eq!((e.window(0, 2), e.window(1, 3), e.window(2, 4)), (2.0, 2.0, 1.0));
        assert_eq!(mad(&[4.0, 6.0, 2.0, 1.0, 999.0]), 2.0);
    }
}
