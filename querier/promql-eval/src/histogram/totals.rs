//! Histograms reduced to count and sum, for the functions that need no more.

use sextant_model::{Histogram, HistogramSample, ResetHint, SeriesBuf, SeriesSet};

use crate::{context::EvalContext, error::EvalError, value::RawSeries};

/// Drops buckets from raw samples. Resets can no longer be told from what is left, so each histogram whose hint is
/// unknown is compared with the one before it first.
#[derive(Clone, Copy, Debug)]
pub struct HistogramTotals;

impl HistogramTotals {
    /// Series by series.
    pub fn apply(&self, raw: RawSeries, ctx: &EvalContext) -> Result<RawSeries, EvalError> {
        if raw.set.h.is_empty() {
            return Ok(raw);
        }
        let mut set = SeriesSet::new();
        let mut drop_name = Vec::with_capacity(raw.len());
        for i in raw.rows.clone() {
            ctx.cancel.check()?;
            let (t, v) = raw.set.floats(i);
            let start = raw.set.starts(i).to_vec();
            let mut buf = SeriesBuf { t: t.to_vec(), v: v.to_vec(), start, h: Vec::new() };
            let mut previous: Option<&Histogram> = None;
            for sample in raw.set.histograms(i) {
                let h = &sample.h;
                if h.is_stale() {
                    buf.h.push(sample.clone());
                    continue;
                }
                let hint = match (h.reset_hint, previous) {
                    (ResetHint::Unknown, Some(p)) if h.detect_reset(p) => ResetHint::Reset,
                    (ResetHint::Unknown, Some(_)) => ResetHint::NoReset,
                    (hint, _) => hint,
                };
                // The schema stays, so that a mix of exponential and custom buckets is still found.
                let (schema, count, sum) = (h.schema, h.count, h.sum);
                let totals = Histogram { reset_hint: hint, schema, count, sum, ..Histogram::default() };
                buf.h.push(HistogramSample { t: sample.t, start: sample.start, h: totals });
                previous = Some(h);
            }
            set.push(raw.set.labels[i].clone(), &buf);
            drop_name.push(raw.drops_name(i));
        }
        Ok(RawSeries::with_dropped_names(set, drop_name.into()))
    }
}
