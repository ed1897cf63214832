//! `rate`, `increase`, `delta`, `irate` and `idelta` of native histograms.

use std::sync::Arc;

use sextant_model::{Histogram, HistogramError, HistogramSample, ResetHint};

use super::{
    RangeFunction, RangeKind,
    mixed::{At, Floats, Histograms},
    rate::{Edge, is_start_overlap, is_start_reset, zero_point},
};
use crate::{
    annotations::{Annotations, HistogramOp},
    block::Cell,
};

/// What a counter's windows need to know of its histograms: worked out once per series, not per window.
#[derive(Default)]
pub struct Known {
    /// For each histogram whether it comes after a reset.
    resets: Vec<bool>,
    /// For each histogram how many up to it do not simply go on from the one before: a reset, another schema, a gauge or
    /// a start time that overlaps.
    breaks: Vec<u32>,
}

/// [`Known`] of one window; empty for what is no counter.
#[derive(Clone, Copy, Default)]
pub struct KnownWindow<'a> {
    resets: &'a [bool],
    /// Whether the last histogram simply goes on from the first.
    plain: bool,
}

impl Known {
    /// Looks at the histograms of a series.
    pub fn look_at(&mut self, op: &RangeFunction, h: &Histograms<'_>) {
        self.resets.clear();
        self.breaks.clear();
        let gauge = |s: &HistogramSample| s.h.reset_hint == ResetHint::Gauge;
        let mut breaks = 0;
        for (i, s) in h.iter().enumerate() {
            let before = if i > 0 { h[i - 1] } else { s };
            let reset = i > 0 && is_reset(op, before, s);
            let overlap =
                i > 0 && op.use_start_timestamps && is_start_overlap(before.start, before.t, s.start);
            let breaks_off = reset || overlap || gauge(before) || gauge(s) || before.h.schema != s.h.schema;
            breaks += u32::from(breaks_off);
            self.resets.push(reset);
            self.breaks.push(breaks);
        }
    }

    /// What is known of a window that is not empty.
    pub fn window(&self, lo: usize, hi: usize) -> KnownWindow<'_> {
        match (self.resets.get(lo..hi), self.breaks.get(lo), self.breaks.get(hi.wrapping_sub(1))) {
            (Some(resets), Some(first), Some(last)) => KnownWindow { resets, plain: first == last },
            _ => KnownWindow::default(),
        }
    }
}

/// Over one window of histograms that is not empty.
pub fn extrapolated(
    op: &RangeFunction,
    h: &Histograms<'_>,
    known: KnownWindow<'_>,
    at: At,
    name: &str,
    notes: &Annotations,
) -> Option<Cell> {
    match try_extrapolated(op, h, known, at, name, notes) {
        Ok(result) => result.map(|h| Cell::Histogram(Arc::new(h))),
        Err(HistogramError::IncompatibleSchema) => {
            notes.mixed_exponential_custom(name, op.pos);
            None
        }
        Err(_) => None,
    }
}

fn try_extrapolated(
    op: &RangeFunction,
    h: &Histograms<'_>,
    known: KnownWindow<'_>,
    at: At,
    name: &str,
    notes: &Annotations,
) -> Result<Option<Histogram>, HistogramError> {
    let is_counter = op.kind.is_counter();
    let (first, last) = (h[0], h[h.len() - 1]);
    let mut edge = Edge::new(first.t, last.t, h.len() - 1, at.start, at.end);
    let mut result = if h.len() > 1 { Some(increase(op, h, known, name, notes)?) } else { None };
    let start = if op.use_start_timestamps { first.start } else { 0 };
    let zero = if is_counter { zero_point(start, first.t, at.start) } else { None };
    let mut part = None;
    if let Some(zero) = zero {
        edge = edge.starting_at_zero(zero, last.t);
        match &mut result {
            None => result = Some(first.h.clone()),
            Some(result) => {
                if result.add(&first.h)?.nhcb_bounds_reconciled {
                    notes.mismatched_custom_buckets(HistogramOp::Addition, op.pos);
                }
            }
        }
    } else if is_counter
        && let Some(r) = &result
        && r.count > 0.0
        && first.h.count >= 0.0
    {
        part = Some(first.h.count / r.count);
    }
    let Some(mut result) = result else { return Ok(None) };
    let seconds = if op.kind == RangeKind::Rate { op.window.range_ms as f64 / 1000.0 } else { 1.0 };
    result.mul(edge.factor(part) / seconds);
    Ok(Some(result))
}

/// The difference of the last and the first histogram, corrected for resets.
fn increase(
    op: &RangeFunction,
    h: &Histograms<'_>,
    KnownWindow { resets, plain }: KnownWindow<'_>,
    name: &str,
    notes: &Annotations,
) -> Result<Histogram, HistogramError> {
    let is_counter = op.kind.is_counter();
    let (first, last) = (&h[0].h, &h[h.len() - 1].h);
    if is_counter && plain {
        let (mut result, report) = last.difference(first)?;
        if report.nhcb_bounds_reconciled {
            notes.mismatched_custom_buckets(HistogramOp::Subtraction, op.pos);
        }
        result.reset_hint = ResetHint::Gauge;
        return Ok(result);
    }
    let gauge = |h: &Histogram| h.reset_hint == ResetHint::Gauge;
    if is_counter && h.iter().any(|s| gauge(&s.h)) {
        notes.not_counter(name, op.pos);
    }
    let gauges = gauge(first) && gauge(last);
    if !is_counter && !gauges {
        notes.not_gauge(name, op.pos);
    }
    // Where the second histogram comes after a reset, the first does not matter, nor does its layout.
    let nothing;
    let mut previous = first;
    if is_counter && resets[1] {
        let second = &h[1].h;
        nothing = Histogram {
            schema: second.schema,
            custom_values: second.custom_values.clone(),
            ..Histogram::default()
        };
        previous = &nothing;
    }
    let custom = previous.uses_custom_buckets();
    let mut schema = last.schema.min(previous.schema);
    let between = if is_counter { &h[1..h.len() - 1] } else { &[] };
    for s in between {
        schema = schema.min(s.h.schema);
    }
    if last.uses_custom_buckets() != custom || between.iter().any(|s| s.h.uses_custom_buckets() != custom) {
        return Err(HistogramError::IncompatibleSchema);
    }
    let mut result = last.copy_to_schema(schema)?;
    if result.sub(previous)?.nhcb_bounds_reconciled {
        notes.mismatched_custom_buckets(HistogramOp::Subtraction, op.pos);
    }
    if is_counter {
        let mut overlap = false;
        for (i, s) in h.iter().enumerate().skip(1) {
            let before = h[i - 1];
            overlap |= op.use_start_timestamps && is_start_overlap(before.start, before.t, s.start);
            // What came before the first reset is left out already.
            if i > 1 && resets[i] && result.add(previous)?.nhcb_bounds_reconciled {
                notes.mismatched_custom_buckets(HistogramOp::Addition, op.pos);
            }
            previous = &s.h;
        }
        if overlap {
            notes.start_time_overlap(name, op.pos);
        }
    }
    result.reset_hint = ResetHint::Gauge;
    result.compact(0);
    Ok(result)
}

fn is_reset(op: &RangeFunction, before: &HistogramSample, s: &HistogramSample) -> bool {
    (op.use_start_timestamps && is_start_reset(before.start, before.t, s.start, s.t))
        || s.h.detect_reset(&before.h)
}

#[derive(Clone, Copy)]
enum Sample<'a> {
    Float { t: i64, st: i64, v: f64 },
    Histogram(&'a HistogramSample),
}

impl Sample<'_> {
    fn t(&self) -> i64 {
        match self {
            Self::Float { t, .. } => *t,
            Self::Histogram(h) => h.t,
        }
    }
}

/// `irate` and `idelta`: from the last two samples, of whichever kind.
pub fn last_two(
    op: &RangeFunction,
    f: Floats<'_>,
    h: &Histograms<'_>,
    name: &str,
    notes: &Annotations,
) -> Option<Cell> {
    let mut newest: Vec<Sample<'_>> = (f.t.len().saturating_sub(2)..f.t.len())
        .map(|i| Sample::Float { t: f.t[i], st: f.start(i), v: f.v[i] })
        .chain(h[h.len().saturating_sub(2)..].iter().map(|h| Sample::Histogram(h)))
        .collect();
    newest.sort_by_key(Sample::t);
    let [.., a, b] = newest[..] else { return None };
    let is_rate = op.kind == RangeKind::Irate;
    let seconds = (b.t() - a.t()) as f64 / 1000.0;
    if seconds == 0.0 {
        return None;
    }
    match (a, b) {
        (Sample::Float { t: pt, st: ps, v: p }, Sample::Float { t, st, v }) => {
            let reset = is_rate && (v < p || is_start_reset(ps, pt, st, t));
            let result = if reset { v } else { v - p };
            Some(Cell::Float(if is_rate { result / seconds } else { result }))
        }
        (Sample::Histogram(p), Sample::Histogram(h)) => {
            match histogram_step(op, p, h, seconds, name, notes) {
                Ok(h) => Some(Cell::Histogram(Arc::new(h))),
                Err(_) => {
                    notes.mixed_exponential_custom(name, op.pos);
                    None
                }
            }
        }
        _ => {
            notes.mixed_floats_histograms(name, op.pos);
            None
        }
    }
}

fn histogram_step(
    op: &RangeFunction,
    p: &HistogramSample,
    h: &HistogramSample,
    seconds: f64,
    name: &str,
    notes: &Annotations,
) -> Result<Histogram, HistogramError> {
    let is_rate = op.kind == RangeKind::Irate;
    let gauges = [p, h].iter().filter(|s| s.h.reset_hint == ResetHint::Gauge).count();
    if is_rate && gauges > 0 {
        notes.not_counter(name, op.pos);
    }
    if !is_rate && gauges < 2 {
        notes.not_gauge(name, op.pos);
    }
    let mut result = h.h.clone();
    if (!is_rate || !is_reset(op, p, h)) && result.sub(&p.h)?.nhcb_bounds_reconciled {
        notes.mismatched_custom_buckets(HistogramOp::Subtraction, op.pos);
    }
    result.reset_hint = ResetHint::Gauge;
    result.compact(0);
    if is_rate {
        result.div(seconds);
    }
    Ok(result)
}
