//! `resets` and `changes` over windows that may mix floats and histograms.

use sextant_model::HistogramSample;

use super::{
    RangeFunction,
    mixed::{At, Floats, Histograms},
    rate::is_start_reset,
};

#[derive(Clone, Copy)]
enum Sample<'a> {
    Float { t: i64, st: i64, v: f64 },
    Histogram(&'a HistogramSample),
}

/// Counts the resets from one sample to the next.
pub fn resets(op: &RangeFunction, f: Floats<'_>, h: &Histograms<'_>, at: At) -> Option<f64> {
    let starts = op.use_start_timestamps;
    count(op, f, h, at, |a, b| match (a, b) {
        (Sample::Float { t: pt, st: ps, v: p }, Sample::Float { t, st, v }) => {
            v < p || is_start_reset(ps, pt, st, t)
        }
        (Sample::Histogram(p), Sample::Histogram(h)) => {
            (starts && is_start_reset(p.start, p.t, h.start, h.t)) || h.h.detect_reset(&p.h)
        }
        _ => true,
    })
}

/// Counts how often a sample differs from the one before.
pub fn changes(op: &RangeFunction, f: Floats<'_>, h: &Histograms<'_>, at: At) -> Option<f64> {
    count(op, f, h, at, |a, b| match (a, b) {
        (Sample::Float { v: p, .. }, Sample::Float { v, .. }) => v != p && !(v.is_nan() && p.is_nan()),
        (Sample::Histogram(p), Sample::Histogram(h)) => !h.h.equals(&p.h),
        _ => true,
    })
}

fn count(
    op: &RangeFunction,
    f: Floats<'_>,
    h: &Histograms<'_>,
    at: At,
    hit: impl Fn(Sample<'_>, Sample<'_>) -> bool,
) -> Option<f64> {
    let (mut i, mut k) = if op.window.anchored { anchor(f, h, at.start)? } else { (0, 0) };
    let mut previous = None;
    let mut hits = 0;
    while i < f.t.len() || k < h.len() {
        let float_first = k >= h.len() || (i < f.t.len() && f.t[i] < h[k].t);
        let sample = if float_first {
            i += 1;
            Sample::Float { t: f.t[i - 1], st: f.start(i - 1), v: f.v[i - 1] }
        } else {
            k += 1;
            Sample::Histogram(h[k - 1])
        };
        if let Some(previous) = previous {
            hits += usize::from(hit(previous, sample));
        }
        previous = Some(sample);
    }
    previous.map(|_| hits as f64)
}

/// The first samples of an anchored window: the newest one at or before the window's start, of either kind, and what
/// comes after the start. `None` where nothing does.
fn anchor(f: Floats<'_>, h: &Histograms<'_>, start: i64) -> Option<(usize, usize)> {
    let i = f.t.partition_point(|&t| t <= start);
    let k = h.partition_point(|h| h.t <= start);
    if i >= f.t.len() && k >= h.len() {
        return None;
    }
    Some(match (i, k) {
        (0, 0) => (0, 0),
        (i, 0) => (i - 1, 0),
        (0, k) => (0, k - 1),
        (i, k) if f.t[i - 1] >= h[k - 1].t => (i - 1, k),
        (i, k) => (i, k - 1),
    })
}
