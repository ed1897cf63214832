//! Histograms reduced to count and sum, for the functions that need no more.

use std::sync::Arc;

use sextant_model::{Histogram, ResetHint, SeriesSet};

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
        let mut set = SeriesSet::clone(&raw.set);
        for i in 0..raw.set.len() {
            ctx.cancel.check()?;
            let from = set.h_offsets[i] as usize;
            let mut previous: Option<&Histogram> = None;
            for (k, sample) in raw.set.histograms(i).iter().enumerate() {
                let h = &sample.h;
                if h.is_stale() {
                    continue;
                }
                let hint = match (h.reset_hint, previous) {
                    (ResetHint::Unknown, Some(p)) if h.detect_reset(p) => ResetHint::Reset,
                    (ResetHint::Unknown, Some(_)) => ResetHint::NoReset,
                    (hint, _) => hint,
                };
                // The schema stays, so that a mix of exponential and custom buckets is still found.
                set.h[from + k].h = Histogram {
                    reset_hint: hint,
                    schema: h.schema,
                    count: h.count,
                    sum: h.sum,
                    ..Histogram::default()
                };
                previous = Some(h);
            }
        }
        Ok(RawSeries { set: Arc::new(set), drop_name: raw.drop_name })
    }
}
