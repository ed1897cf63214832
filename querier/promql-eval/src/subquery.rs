//! Subqueries: the answer of an inner grid, seen as raw samples by the range function above.

use std::sync::Arc;

use sextant_model::{HistogramSample, ResetHint, SeriesBuf, SeriesSet};

use crate::{
    bits,
    block::{Cell, StepBlock},
    context::EvalContext,
    error::EvalError,
    select::SelectorTime,
    value::RawSeries,
};

/// Work for a histogram that is copied.
const UNITS_PER_HISTOGRAM: usize = 32;

/// Turns a vector on an inner grid into raw samples. The inner grid is its child's.
#[derive(Clone, Debug)]
pub struct Subquery {
    /// The window of the function above.
    pub range_ms: i64,
    /// The reference time of that window.
    pub time: SelectorTime,
}

impl Subquery {
    /// Row by row. Start timestamps are lost, and so is what is known of counter resets: samples between two steps
    /// may be missing or seen twice.
    pub fn apply(&self, block: StepBlock, ctx: &EvalContext) -> Result<RawSeries, EvalError> {
        let mut set = SeriesSet::new();
        let mut buf = SeriesBuf::default();
        let mut drop_name = Vec::with_capacity(block.len());
        let pace = ctx.cancel.pace();
        for i in 0..block.len() {
            ctx.cancel.check()?;
            buf.clear();
            let row = block.row(i);
            for step in bits::ones(row.present) {
                let t = block.steps.at(step);
                pace.spend(if row.histograms.is_empty() { 1 } else { UNITS_PER_HISTOGRAM })?;
                match row.get(step) {
                    Some(Cell::Float(v)) => {
                        buf.t.push(t);
                        buf.v.push(v);
                    }
                    Some(Cell::Histogram(h)) => {
                        let mut h = Arc::unwrap_or_clone(h);
                        if h.reset_hint != ResetHint::Gauge {
                            h.reset_hint = ResetHint::Unknown;
                        }
                        buf.h.push(HistogramSample { t, start: 0, h });
                    }
                    None => {}
                }
            }
            if !buf.is_empty() {
                set.push(block.labels[i].clone(), &buf);
                drop_name.push(block.drop_name[i]);
            }
        }
        let drop_name = if drop_name.contains(&true) { drop_name.into() } else { Arc::default() };
        Ok(RawSeries::with_dropped_names(set, drop_name))
    }
}
