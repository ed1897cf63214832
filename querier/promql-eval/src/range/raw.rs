//! A range selector at the top of a query: the samples themselves.

use sextant_model::{HistogramSample, SeriesBuf, SeriesSet, is_stale_nan};

use super::{RangeFunction, extended::interpolate};
use crate::{context::EvalContext, error::EvalError, step_counts::Tally, steps::Steps, value::RawSeries};

impl RangeFunction {
    /// The samples of the window at the only step, without staleness markers and series that have none.
    pub fn raw(&self, raw: &RawSeries, steps: Steps, ctx: &EvalContext) -> Result<RawSeries, EvalError> {
        let window = &self.window;
        let (start, end) = window.at(&steps, 0);
        let before = if window.is_extended() { window.lookback_ms } else { 0 };
        let after = if window.smoothed { window.lookback_ms } else { 0 };
        let inside = |t: i64| t > start.saturating_sub(before) && t <= end.saturating_add(after);
        let mut out = SeriesSet::new();
        for i in raw.rows.clone() {
            ctx.cancel.check()?;
            let (t, v) = raw.set.floats(i);
            let mut buf = SeriesBuf::default();
            for (&t, &v) in t.iter().zip(v).filter(|(t, v)| inside(**t) && !is_stale_nan(**v)) {
                buf.t.push(t);
                buf.v.push(v);
            }
            let histograms = raw.set.histograms(i).iter();
            let kept = histograms.filter(|h| inside(h.t) && !is_stale_nan(h.h.sum));
            buf.h = kept.cloned().collect::<Vec<HistogramSample>>();
            if window.is_extended() {
                if !buf.h.is_empty() {
                    let word = if window.anchored { "anchored" } else { "smoothed" };
                    return Err(EvalError::execution(format!(
                        "{word} modifier is not supported with histograms"
                    )));
                }
                extend(&mut buf, start, end, window.smoothed);
            }
            if !buf.is_empty() {
                out.push(raw.set.labels[i].clone(), &buf);
            }
        }
        let out = RawSeries::new(out);
        ctx.touch(out.held_samples(), self.weight);
        ctx.touch_steps(|| Tally::of_raw(&out), self.weight, self.first_user.as_ref());
        Ok(out)
    }
}

/// Cuts the samples to the window and puts a value at each of its ends.
fn extend(buf: &mut SeriesBuf, start: i64, end: i64, smoothed: bool) {
    let (t, v) = (std::mem::take(&mut buf.t), std::mem::take(&mut buf.v));
    if t.is_empty() {
        return;
    }
    let before = |limit: i64| t.partition_point(|&t| t <= limit).checked_sub(1);
    let value_at = |at: i64| match before(at) {
        None => v[0],
        Some(i) if t[i] == at || !smoothed || i + 1 == t.len() => v[i],
        Some(i) => interpolate((t[i], v[i]), (t[i + 1], v[i + 1]), at, false),
    };
    // Nothing inside and nothing that could stand for it.
    let last = t[t.len() - 1];
    if last <= start || t[0] > end {
        return;
    }
    buf.t.push(start);
    buf.v.push(value_at(start));
    for i in 0..t.len() {
        if t[i] > start && t[i] < end {
            buf.t.push(t[i]);
            buf.v.push(v[i]);
        }
    }
    buf.t.push(end);
    buf.v.push(value_at(end));
}
