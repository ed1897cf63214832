//! Selectors: the leaf that reads raw samples, and the newest sample at each step.

use std::sync::Arc;

use sextant_model::{HistogramError, HistogramSample, METRIC_NAME, Matcher, ResetHint, is_stale_nan};
use sextant_promql::PosRange;

use crate::{
    bits,
    block::StepBlock,
    context::EvalContext,
    error::EvalError,
    range::{interpolate, interpolate_histograms},
    step_counts::{FirstUser, Tally},
    steps::Steps,
    value::RawSeries,
};

/// What a plan asks of the source of samples. Each id is read once, however many operators use it.
#[derive(Clone, Debug, PartialEq)]
pub struct Select {
    /// The leaf's number within its plan: `plan.selects[id]`.
    pub id: usize,
    /// Every matcher, with the one on the name.
    pub matchers: Arc<[Matcher]>,
    /// The first millisecond of which samples are needed.
    pub start_ms: i64,
    /// The last millisecond of which samples are needed.
    pub end_ms: i64,
    /// Between evaluation times; the innermost subquery's step where there is one.
    pub step_ms: i64,
    /// The window of the range function above; 0 for an instant selector.
    pub range_ms: i64,
    /// The function or aggregation right above; empty where there is none or several differ.
    pub function: &'static str,
    /// What of the samples is needed.
    pub what: SelectWhat,
}

/// What of the samples a leaf needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum SelectWhat {
    /// All of it.
    #[default]
    Samples,
}

/// The reference time of a selector at a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SelectorTime {
    /// The time of the `@` modifier, for every step the same.
    pub at_ms: Option<i64>,
    /// How far back, of `offset`.
    pub offset_ms: i64,
}

impl SelectorTime {
    /// The reference time at a step.
    #[inline]
    pub fn at(&self, steps: &Steps, step: usize) -> i64 {
        self.at_ms.unwrap_or_else(|| steps.at(step)).saturating_sub(self.offset_ms)
    }

    /// Whether all steps have one reference time.
    pub fn is_fixed(&self) -> bool {
        self.at_ms.is_some()
    }
}

/// What an instant selector gives at each step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstantOutput {
    /// The value of the newest sample.
    Value,
    /// Its timestamp in seconds: `timestamp(selector)`.
    Timestamp,
    /// Its start timestamp in seconds: `start_timestamp(selector)`.
    StartTimestamp,
    /// The value interpolated between the samples around the step: `smoothed`.
    Smoothed,
    /// As [`InstantOutput::Timestamp`], for the series of info metrics, which must be floats.
    InfoTimestamp,
}

/// The newest sample within the look-back at each step.
#[derive(Clone, Debug)]
pub struct InstantSelect {
    /// The selector as text, for [`crate::Node::describe`].
    pub text: Arc<str>,
    /// Its reference time.
    pub time: SelectorTime,
    /// How far back a sample may be (exclusive).
    pub lookback_ms: i64,
    /// What it gives.
    pub output: InstantOutput,
    /// The selector, for annotations.
    pub pos: PosRange,
    /// How often the statistics count a sample that is found.
    pub weight: usize,
    /// For which step of the query the statistics count a sample as read.
    pub first_user: FirstUser,
}

/// The newest sample at a step.
#[derive(Clone, Copy)]
enum Newest<'a> {
    Float { t: i64, v: f64, start: i64 },
    Histogram(&'a HistogramSample),
}

impl InstantSelect {
    /// Two pointers per series, one over each kind of sample.
    pub fn apply(&self, raw: &RawSeries, steps: Steps, ctx: &EvalContext) -> Result<StepBlock, EvalError> {
        let is_value = matches!(self.output, InstantOutput::Value | InstantOutput::Smoothed);
        ctx.check_cells(raw.len(), steps.count)?;
        let mut out = StepBlock::absent(steps, raw.labels());
        out.drop_name.extend(raw.rows.clone().map(|i| !is_value || raw.drops_name(i)));
        for (row, i) in raw.rows.clone().enumerate() {
            ctx.cancel.check()?;
            match self.output {
                InstantOutput::Smoothed => self.smoothed(raw, i, row, &mut out, ctx),
                InstantOutput::Value if raw.set.histograms(i).is_empty() => {
                    self.floats(raw, i, row, &mut out)
                }
                _ => self.series(raw, i, row, &mut out)?,
            }
        }
        out.drop_empty_rows();
        if self.output != InstantOutput::InfoTimestamp {
            ctx.touch(out.held_samples(), self.weight);
            ctx.touch_steps(|| Tally::of_block(&out), self.weight, Some(&self.first_user));
        }
        if matches!(self.output, InstantOutput::Timestamp | InstantOutput::StartTimestamp) {
            // As Prometheus, which holds the samples of a step beside the timestamps made of them.
            let mut held = 0;
            let mut peak = 0;
            for n in Tally::of_block(&out).read {
                held += n as usize;
                peak = peak.max(held + n as usize);
            }
            ctx.hold(peak)?;
            ctx.release(peak);
        }
        Ok(out)
    }

    /// The values of a series without histograms.
    fn floats(&self, raw: &RawSeries, i: usize, row: usize, out: &mut StepBlock) {
        let (t, v) = raw.set.floats(i);
        let (steps, n, w) = (out.steps, out.steps.count, out.steps.words());
        let values = &mut out.values[row * n..(row + 1) * n];
        let present = &mut out.present[row * w..(row + 1) * w];
        let mut next = 0;
        for (step, value) in values.iter_mut().enumerate() {
            let at = self.time.at(&steps, step);
            while next < t.len() && t[next] <= at {
                next += 1;
            }
            if next > 0 && t[next - 1] > at.saturating_sub(self.lookback_ms) && !is_stale_nan(v[next - 1]) {
                *value = v[next - 1];
                bits::set(present, step);
            }
        }
    }

    fn series(&self, raw: &RawSeries, i: usize, row: usize, out: &mut StepBlock) -> Result<(), EvalError> {
        let ((t, v), starts, h) = (raw.set.floats(i), raw.set.starts(i), raw.set.histograms(i));
        let (mut next_f, mut next_h) = (0, 0);
        // One histogram is often the newest at several steps: it is copied once.
        let mut shared: Option<(i64, Arc<sextant_model::Histogram>)> = None;
        for step in 0..out.steps.count {
            let at = self.time.at(&out.steps, step);
            while next_f < t.len() && t[next_f] <= at {
                next_f += 1;
            }
            while next_h < h.len() && h[next_h].t <= at {
                next_h += 1;
            }
            let start = |f: usize| starts.get(f).copied().unwrap_or(0);
            let newest = match (next_f.checked_sub(1), next_h.checked_sub(1)) {
                (None, None) => continue,
                (Some(f), Some(k)) if h[k].t > t[f] => Newest::Histogram(&h[k]),
                (Some(f), _) => Newest::Float { t: t[f], v: v[f], start: start(f) },
                (None, Some(k)) => Newest::Histogram(&h[k]),
            };
            let (sample_t, value, start) = match newest {
                Newest::Float { t, v, start } => (t, v, start),
                Newest::Histogram(h) => (h.t, h.h.sum, h.start),
            };
            if sample_t <= at.saturating_sub(self.lookback_ms) || is_stale_nan(value) {
                continue;
            }
            match (self.output, newest) {
                (InstantOutput::Value | InstantOutput::Smoothed, Newest::Float { v, .. }) => {
                    out.set_float(row, step, v);
                }
                (InstantOutput::Value | InstantOutput::Smoothed, Newest::Histogram(h)) => {
                    let copy = match &shared {
                        Some((t, copy)) if *t == h.t => copy.clone(),
                        _ => Arc::new(h.h.clone()),
                    };
                    shared = Some((h.t, copy.clone()));
                    out.set_histogram(row, step, copy);
                }
                (InstantOutput::InfoTimestamp, Newest::Histogram(_)) => {
                    return Err(EvalError::execution(format!(
                        "this should be an info metric, with float samples: {}",
                        raw.set.labels[i]
                    )));
                }
                (InstantOutput::StartTimestamp, _) => out.set_float(row, step, start as f64 / 1000.0),
                (InstantOutput::Timestamp | InstantOutput::InfoTimestamp, _) => {
                    out.set_float(row, step, sample_t as f64 / 1000.0);
                }
            }
        }
        Ok(())
    }

    /// Between the samples around each step, or the one before where none follows.
    fn smoothed(&self, raw: &RawSeries, i: usize, row: usize, out: &mut StepBlock, ctx: &EvalContext) {
        let (t, v) = raw.set.floats(i);
        let floats: Vec<(i64, f64)> =
            t.iter().copied().zip(v.iter().copied()).filter(|(_, v)| !is_stale_nan(*v)).collect();
        let h: Vec<&HistogramSample> =
            raw.set.histograms(i).iter().filter(|h| !is_stale_nan(h.h.sum)).collect();
        let name = raw.set.labels[i].get(METRIC_NAME).unwrap_or("");
        for step in 0..out.steps.count {
            let at = self.time.at(&out.steps, step);
            let (from, to) = (at.saturating_sub(self.lookback_ms), at.saturating_add(self.lookback_ms));
            let inside = |t: i64| t > from && t <= to;
            let (fa, fb) = (floats.partition_point(|p| p.0 <= at), floats.partition_point(|p| p.0 < at));
            let f_before = fa.checked_sub(1).map(|k| floats[k]).filter(|p| inside(p.0));
            let f_after = floats.get(fb).copied().filter(|p| inside(p.0));
            let (ha, hb) = (h.partition_point(|h| h.t <= at), h.partition_point(|h| h.t < at));
            let h_before = ha.checked_sub(1).map(|k| h[k]).filter(|h| inside(h.t));
            let h_after = h.get(hb).copied().filter(|h| inside(h.t));
            let any_float = f_before.is_some() || f_after.is_some();
            let any_histogram = h_before.is_some() || h_after.is_some();
            if any_float && any_histogram {
                ctx.annotations.mixed_floats_histograms(name, self.pos);
                continue;
            }
            match (f_before, f_after) {
                (Some(a), Some(b)) if a.0 < at => out.set_float(row, step, interpolate(a, b, at, false)),
                (Some(a), _) => out.set_float(row, step, a.1),
                (None, _) => {}
            }
            let Some(a) = h_before else { continue };
            let result = match h_after {
                Some(b) if a.t < at && a.h.uses_custom_buckets() != b.h.uses_custom_buckets() => {
                    Err(HistogramError::IncompatibleSchema)
                }
                Some(b) if a.t < at => {
                    let is_counter = b.h.reset_hint != ResetHint::Gauge;
                    let note = |what| ctx.annotations.mismatched_custom_buckets(what, self.pos);
                    interpolate_histograms((a.t, &a.h), (b.t, &b.h), at, is_counter, note)
                }
                _ => Ok(a.h.clone()),
            };
            match result {
                Ok(h) => out.set_histogram(row, step, Arc::new(h)),
                Err(HistogramError::IncompatibleSchema) => {
                    ctx.annotations.mixed_exponential_custom(name, self.pos);
                }
                Err(_) => {}
            }
        }
    }
}
