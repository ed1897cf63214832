//! Functions over histograms, native and classic.

mod quantile;
mod totals;

use sextant_model::Histogram;

use crate::{bits, block::StepBlock, context::EvalContext, error::EvalError};

pub use quantile::{HistogramQuantile, QuantileOutput};
pub use totals::HistogramTotals;

/// A number from each native histogram; floats drop out.
#[derive(Clone, Copy, Debug)]
pub struct HistogramStatistic {
    /// The function's name.
    pub name: &'static str,
    f: fn(&Histogram) -> f64,
}

const STATISTICS: &[HistogramStatistic] = &[
    HistogramStatistic { name: "histogram_avg", f: |h| h.avg() },
    HistogramStatistic { name: "histogram_count", f: |h| h.count },
    HistogramStatistic { name: "histogram_stddev", f: |h| h.stddev() },
    HistogramStatistic { name: "histogram_stdvar", f: |h| h.stdvar() },
    HistogramStatistic { name: "histogram_sum", f: |h| h.sum },
];

impl HistogramStatistic {
    /// The function of a name.
    pub fn of(name: &str) -> Option<Self> {
        STATISTICS.iter().find(|s| s.name == name).copied()
    }

    /// Whether it needs no bucket.
    pub fn needs_totals_only(name: &str) -> bool {
        matches!(name, "histogram_avg" | "histogram_count" | "histogram_sum")
    }

    /// Cell by cell.
    pub fn apply(&self, mut block: StepBlock, ctx: &EvalContext) -> Result<StepBlock, EvalError> {
        let histograms = block.histograms.take();
        let (n, w) = (block.steps.count, block.steps.words());
        block.drop_name.fill(true);
        for i in 0..block.len() {
            ctx.cancel.check()?;
            for step in 0..n {
                let cell = i * n + step;
                match histograms.as_ref().and_then(|h| h[cell].as_ref()) {
                    Some(h) => block.values[cell] = (self.f)(h),
                    None => {
                        bits::clear(&mut block.present[i * w..(i + 1) * w], step);
                        block.values[cell] = 0.0;
                    }
                }
            }
        }
        block.drop_empty_rows();
        Ok(block)
    }
}
