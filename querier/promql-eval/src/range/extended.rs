//! `rate`, `increase` and `delta` with `anchored` or `smoothed`: no extrapolation, but a value at each end of the
//! window. Anchored takes the newest sample at or before an end; smoothed interpolates between the samples around it.

use std::sync::Arc;

use sextant_model::{Histogram, HistogramError, ResetHint};

use super::{
    RangeFunction, RangeKind,
    mixed::{At, Floats, Histograms},
};
use crate::{
    annotations::{Annotations, HistogramOp},
    block::Cell,
};

/// The value between two samples at `t`. A counter that was reset in between starts from zero.
pub fn interpolate((t1, v1): (i64, f64), (t2, v2): (i64, f64), t: i64, is_counter: bool) -> f64 {
    let v1 = if is_counter && v2 < v1 { 0.0 } else { v1 };
    v1 + (v2 - v1) * (t - t1) as f64 / (t2 - t1) as f64
}

/// The first and last sample that matter, of the timestamps of an extended window; `None` where there is no answer.
fn ends(t: impl Fn(usize) -> i64, n: usize, smoothed: bool, at: At) -> Option<(usize, usize)> {
    let mut last = n - 1;
    let search = |pred: &dyn Fn(i64) -> bool| (0..last).find(|&i| pred(t(i))).unwrap_or(last);
    let first = search(&|t| t > at.start).saturating_sub(1);
    if smoothed {
        last = search(&|t| t >= at.end);
    }
    if t(last) <= at.start || (smoothed && t(first) > at.end) {
        return None;
    }
    Some((first, last))
}

/// Over one window of floats.
pub fn floats(op: &RangeFunction, f: Floats<'_>, at: At) -> Option<f64> {
    let (smoothed, is_counter) = (op.window.smoothed, op.kind.is_counter());
    let (mut first, last) = ends(|i| f.t[i], f.t.len(), smoothed, at)?;
    let sample = |i: usize| (f.t[i], f.v[i]);
    let left = if smoothed && f.t[first] < at.start {
        interpolate(sample(first), sample(first + 1), at.start, is_counter)
    } else {
        f.v[first]
    };
    let right = if smoothed && last > 0 && f.t[last] > at.end {
        interpolate(sample(last - 1), sample(last), at.end, is_counter)
    } else {
        f.v[last]
    };
    let mut result = right - left;
    if is_counter {
        // Only samples strictly inside: resets around the ends are in the interpolated values.
        let mut end = last + 1;
        if f.t[first] <= at.start {
            first += 1;
        }
        if f.t[last] >= at.end {
            end -= 1;
        }
        let mut previous = left;
        for &v in f.v[first.min(end)..end].iter().chain([&right]) {
            if v < previous {
                result += previous;
            }
            previous = v;
        }
    }
    if op.kind == RangeKind::Rate {
        result /= op.window.range_ms as f64 / 1000.0;
    }
    Some(result)
}

/// The histogram between two at `t`; notes bounds that had to be reconciled.
pub fn interpolate_histograms(
    (t1, h1): (i64, &Histogram),
    (t2, h2): (i64, &Histogram),
    t: i64,
    is_counter: bool,
    mut reconciled: impl FnMut(HistogramOp),
) -> Result<Histogram, HistogramError> {
    if t == t1 {
        return Ok(h1.clone());
    }
    let mut result = h2.clone();
    if t == t2 {
        return Ok(result);
    }
    let fraction = (t - t1) as f64 / (t2 - t1) as f64;
    if is_counter && h2.detect_reset(h1) {
        result.mul(fraction);
        return Ok(result);
    }
    if result.sub(h1)?.nhcb_bounds_reconciled {
        reconciled(HistogramOp::Subtraction);
    }
    result.mul(fraction);
    if result.add(h1)?.nhcb_bounds_reconciled {
        reconciled(HistogramOp::Addition);
    }
    Ok(result)
}

/// Over one window of histograms.
pub fn histograms(
    op: &RangeFunction,
    h: &Histograms<'_>,
    at: At,
    name: &str,
    notes: &Annotations,
) -> Option<Cell> {
    match try_histograms(op, h, at, name, notes) {
        Ok(cell) => cell,
        Err(HistogramError::IncompatibleSchema) => {
            notes.mixed_exponential_custom(name, op.pos);
            None
        }
        Err(_) => None,
    }
}

fn try_histograms(
    op: &RangeFunction,
    h: &Histograms<'_>,
    at: At,
    name: &str,
    notes: &Annotations,
) -> Result<Option<Cell>, HistogramError> {
    let (smoothed, is_counter) = (op.window.smoothed, op.kind.is_counter());
    let Some((first, last)) = ends(|i| h[i].t, h.len(), smoothed, at) else { return Ok(None) };
    let custom = h[first].h.uses_custom_buckets();
    for sample in &h[first..=last] {
        if sample.h.uses_custom_buckets() != custom {
            return Err(HistogramError::IncompatibleSchema);
        }
        if is_counter && sample.h.reset_hint == ResetHint::Gauge {
            notes.not_counter(name, op.pos);
        }
    }
    let reconciled = |what| notes.mismatched_custom_buckets(what, op.pos);
    let sample = |i: usize| (h[i].t, &h[i].h);
    let left = if smoothed && h[first].t < at.start {
        interpolate_histograms(sample(first), sample(first + 1), at.start, is_counter, reconciled)?
    } else {
        h[first].h.clone()
    };
    let right = if smoothed && last > 0 && h[last].t > at.end {
        interpolate_histograms(sample(last - 1), sample(last), at.end, is_counter, reconciled)?
    } else {
        h[last].h.clone()
    };
    let gauge = |h: &Histogram| h.reset_hint == ResetHint::Gauge;
    let gauges = gauge(&left) && gauge(&right);
    if !is_counter && !gauges {
        notes.not_gauge(name, op.pos);
    }
    let mut result = right.clone();
    if result.sub(&left)?.nhcb_bounds_reconciled {
        reconciled(HistogramOp::Subtraction);
    }
    if is_counter
        && let Some(correction) = correction(op, h, (first, last), (&left, &right), at, notes)?
        && result.add(&correction)?.nhcb_bounds_reconciled
    {
        reconciled(HistogramOp::Addition);
    }
    if op.kind == RangeKind::Rate {
        result.div(op.window.range_ms as f64 / 1000.0);
    }
    result.reset_hint = ResetHint::Gauge;
    result.compact(0);
    Ok(Some(Cell::Histogram(Arc::new(result))))
}

/// The sum of what was lost in resets between the left and the right value.
fn correction(
    op: &RangeFunction,
    h: &Histograms<'_>,
    (first, last): (usize, usize),
    (left, right): (&Histogram, &Histogram),
    at: At,
    notes: &Annotations,
) -> Result<Option<Histogram>, HistogramError> {
    // `left` stands for the first sample, `right` for the last: neither is looked at again, as a hint on it would be
    // taken for a second reset.
    let mut next = first + 1;
    let mut previous = left;
    if op.window.smoothed && h[first].t < at.start && h[first + 1].h.detect_reset(&h[first].h) {
        // The left value was interpolated over this reset: compare what follows with the sample after it.
        previous = &h[first + 1].h;
        next += 1;
    }
    if next > last {
        return Ok(None);
    }
    let mut correction: Option<Histogram> = None;
    let between = h[next..last].iter().map(|s| &s.h);
    for current in between.chain([right]) {
        if current.detect_reset(previous) {
            match &mut correction {
                None => correction = Some(previous.clone()),
                Some(sum) => {
                    if sum.add(previous)?.nhcb_bounds_reconciled {
                        notes.mismatched_custom_buckets(HistogramOp::Addition, op.pos);
                    }
                }
            }
        }
        previous = current;
    }
    Ok(correction)
}
