//! `rate`, `increase` and `delta` of floats: counter resets, and extrapolation to the ends of the window.
//!
//! Formula: Prometheus' `extrapolatedRate`. Where the first or last sample is within 1.1 mean distances of the window's
//! end, the slope is carried on to that end, else by half a mean distance; a counter is not carried below zero. A start
//! timestamp inside of the window is a sample of value zero.

use super::{
    RangeFunction, RangeKind,
    mixed::{At, Floats, Run},
};
use crate::{annotations::Annotations, bits};

/// What the timestamps alone say of each step's window.
pub type Edges = Vec<Edge>;

/// The timestamps' part of the extrapolation.
#[derive(Clone, Copy, Debug, Default)]
pub struct Edge {
    /// Seconds from the first to the last sample.
    sampled: f64,
    /// Seconds to carry on towards the window's start, before the zero point is looked at.
    to_start: f64,
    /// Seconds to carry on towards the window's end.
    to_end: f64,
}

impl Edge {
    /// From the times of the first and last of `gaps + 1` samples.
    #[inline]
    pub fn new(first: i64, last: i64, gaps: usize, start: i64, end: i64) -> Self {
        let sampled = (last - first) as f64 / 1000.0;
        let mean = if gaps > 0 { sampled / gaps as f64 } else { 0.0 };
        let threshold = mean * 1.1;
        let limited = |d: f64| if d >= threshold { mean / 2.0 } else { d };
        Self {
            sampled,
            to_start: limited((first - start) as f64 / 1000.0),
            to_end: limited((end - last) as f64 / 1000.0),
        }
    }

    /// The same with a zero sample at `zero`, inside of the window and before the first sample.
    #[inline]
    pub fn starting_at_zero(self, zero: i64, last: i64) -> Self {
        Self { sampled: (last - zero) as f64 / 1000.0, to_start: 0.0, ..self }
    }

    /// The factor from the sampled to the extrapolated increase. `first_part` is the first value's part of the
    /// increase, for counters that rise from a value that is not negative.
    #[inline]
    pub fn factor(&self, first_part: Option<f64>) -> f64 {
        let mut to_start = self.to_start;
        if let Some(part) = first_part {
            let to_zero = self.sampled * part;
            if to_zero < to_start {
                to_start = to_zero;
            }
        }
        if self.sampled == 0.0 {
            return 1.0;
        }
        (self.sampled + to_start + self.to_end) / self.sampled
    }
}

/// Whether the start timestamp of a sample tells that the counter was reset after the sample before it.
///
/// A start at the time of the sample before is a delta's, unless that one's start is not known (OpenTelemetry's
/// cumulative series with unknown start) or lies after its own time.
#[inline]
pub fn is_start_reset(prev_start: i64, prev_t: i64, start: i64, t: i64) -> bool {
    if start == 0 || start >= t || start < prev_t {
        return false;
    }
    start > prev_t || (prev_start != 0 && prev_start < prev_t)
}

/// Whether the start timestamp of a sample lies before the sample before it, without being that one's start.
pub fn is_start_overlap(prev_start: i64, prev_t: i64, start: i64) -> bool {
    start != 0 && start < prev_t && start != prev_start
}

/// The zero point of a window: the first sample's start timestamp, where it lies inside.
#[inline]
pub fn zero_point(first_start: i64, first_t: i64, window_start: i64) -> Option<i64> {
    (first_start != 0 && first_start > window_start && first_start < first_t).then_some(first_start)
}

/// The resets of one series: positions of the samples after a reset, and running sums of the values before them as
/// pairs (sum, rounding error), so that differences of sums are as exact as the sums themselves.
#[derive(Default)]
pub struct Resets {
    at: Vec<u32>,
    sums: Vec<(f64, f64)>,
}

/// Up to so many resets in a window are added one by one.
const FEW: usize = 8;

impl Resets {
    fn find(&mut self, f: Floats<'_>) {
        self.at.clear();
        if f.st.is_empty() {
            for (i, pair) in f.v.windows(2).enumerate() {
                if pair[1] < pair[0] {
                    self.at.push(i as u32 + 1);
                }
            }
        } else {
            for i in 1..f.v.len() {
                if f.v[i] < f.v[i - 1] || is_start_reset(f.st[i - 1], f.t[i - 1], f.st[i], f.t[i]) {
                    self.at.push(i as u32);
                }
            }
        }
        self.sums.clear();
        if self.at.len() > FEW {
            let (mut sum, mut error) = (0.0, 0.0);
            self.sums.push((0.0, 0.0));
            for &i in &self.at {
                let v = f.v[i as usize - 1];
                let t: f64 = sum + v;
                let kept = t - sum;
                error += (sum - (t - kept)) + (v - kept);
                sum = t;
                self.sums.push((sum, error));
            }
        }
    }

    /// `increase` plus the values before the resets `from..to`.
    fn correct(&self, increase: f64, from: usize, to: usize, v: &[f64]) -> f64 {
        if to - from > FEW {
            let ((a, ae), (b, be)) = (self.sums[from], self.sums[to]);
            let sum = (b - a) + (be - ae);
            if sum.is_finite() {
                return increase + sum;
            }
        }
        self.at[from..to].iter().fold(increase, |sum, &i| sum + v[i as usize - 1])
    }
}

/// The function at each step of one series.
pub fn series(
    run: &Run<'_>,
    f: Floats<'_>,
    bounds: &[(u32, u32)],
    edges: &mut Edges,
    resets: &mut Resets,
    name: impl Fn() -> String,
    values: &mut [f64],
    present: &mut [u64],
) {
    let op = run.op;
    if edges.len() != bounds.len() {
        edges.clear();
        edges.extend(bounds.iter().enumerate().map(|(step, &(lo, hi))| {
            if lo == hi {
                return Edge::default();
            }
            let (start, end) = op.window.at(&run.steps, step);
            Edge::new(f.t[lo as usize], f.t[hi as usize - 1], (hi - lo) as usize - 1, start, end)
        }));
    }
    let is_counter = op.kind.is_counter();
    if is_counter {
        resets.find(f);
    } else {
        resets.at.clear();
    }
    let seconds = if op.kind == RangeKind::Rate { op.window.range_ms as f64 / 1000.0 } else { 1.0 };
    if is_counter && !f.st.is_empty() {
        with_starts(run, f, bounds, edges, resets, seconds, values, present);
        if overlaps(f, bounds) {
            run.ctx.annotations.start_time_overlap(&name(), op.pos);
        }
        return;
    }
    let (mut from, mut to) = (0, 0);
    for (step, &(lo, hi)) in bounds.iter().enumerate() {
        if hi < lo + 2 {
            continue;
        }
        let first = f.v[lo as usize];
        let mut increase = f.v[hi as usize - 1] - first;
        if !resets.at.is_empty() {
            (from, to) = resets_between(&resets.at, from, to, lo, hi);
            increase = resets.correct(increase, from, to, f.v);
        }
        let part = (is_counter && increase > 0.0 && first >= 0.0).then(|| first / increase);
        values[step] = increase * (edges[step].factor(part) / seconds);
        bits::set(present, step);
    }
}

/// Moves pointers into the positions of resets to those strictly inside of `lo..hi`.
fn resets_between(at: &[u32], mut from: usize, mut to: usize, lo: u32, hi: u32) -> (usize, usize) {
    while from < at.len() && at[from] <= lo {
        from += 1;
    }
    to = to.max(from);
    while to < at.len() && at[to] < hi {
        to += 1;
    }
    (from, to)
}

fn with_starts(
    run: &Run<'_>,
    f: Floats<'_>,
    bounds: &[(u32, u32)],
    edges: &[Edge],
    resets: &Resets,
    seconds: f64,
    values: &mut [f64],
    present: &mut [u64],
) {
    let (mut from, mut to) = (0, 0);
    for (step, &(lo, hi)) in bounds.iter().enumerate() {
        if lo == hi {
            continue;
        }
        let (start, _) = run.op.window.at(&run.steps, step);
        let (l, h) = (lo as usize, hi as usize);
        (from, to) = resets_between(&resets.at, from, to, lo, hi);
        let increase = resets.correct(f.v[h - 1] - f.v[l], from, to, f.v);
        if let Some(v) = finish(f, l, h, increase, edges[step], start, seconds) {
            values[step] = v;
            bits::set(present, step);
        }
    }
}

/// The result of a counter with start timestamps over `f[lo..hi]`.
fn finish(
    f: Floats<'_>,
    lo: usize,
    hi: usize,
    increase: f64,
    edge: Edge,
    window_start: i64,
    seconds: f64,
) -> Option<f64> {
    let first = f.v[lo];
    if let Some(zero) = zero_point(f.start(lo), f.t[lo], window_start) {
        return Some((increase + first) * (edge.starting_at_zero(zero, f.t[hi - 1]).factor(None) / seconds));
    }
    if hi - lo < 2 {
        return None;
    }
    let part = (increase > 0.0 && first >= 0.0).then(|| first / increase);
    Some(increase * (edge.factor(part) / seconds))
}

fn overlaps(f: Floats<'_>, bounds: &[(u32, u32)]) -> bool {
    (1..f.t.len()).any(|i| {
        // Both ends of windows only grow: the last window that begins before the sample reaches furthest.
        let before = bounds.partition_point(|&(lo, _)| (lo as usize) < i);
        is_start_overlap(f.st[i - 1], f.t[i - 1], f.st[i])
            && before.checked_sub(1).is_some_and(|last| i < bounds[last].1 as usize)
    })
}

/// The function over one window of floats.
pub fn window(op: &RangeFunction, f: Floats<'_>, at: At, name: &str, notes: &Annotations) -> Option<f64> {
    let n = f.v.len();
    let mut increase = f.v[n - 1] - f.v[0];
    let seconds = if op.kind == RangeKind::Rate { op.window.range_ms as f64 / 1000.0 } else { 1.0 };
    let edge = Edge::new(f.t[0], f.t[n - 1], n - 1, at.start, at.end);
    if !op.kind.is_counter() {
        return (n > 1).then(|| increase * (edge.factor(None) / seconds));
    }
    for i in 1..n {
        if f.v[i] < f.v[i - 1] || is_start_reset(f.start(i - 1), f.t[i - 1], f.start(i), f.t[i]) {
            increase += f.v[i - 1];
        }
    }
    if !f.st.is_empty() && overlaps(f, &[(0, n as u32)]) {
        notes.start_time_overlap(name, op.pos);
    }
    finish(f, 0, n, increase, edge, at.start, seconds)
}
