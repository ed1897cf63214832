//! Functions over range vectors: one window per series and step, found with pointers that only move forward.

mod counters;
mod extended;
mod float_kernels;
mod histogram_rate;
mod histogram_sums;
mod mixed;
mod ordered;
mod rate;
mod raw;
mod regression;
pub mod window;

use sextant_model::METRIC_NAME;
use sextant_promql::PosRange;

use crate::{
    block::StepBlock,
    context::EvalContext,
    error::EvalError,
    step_counts::FirstUser,
    steps::Steps,
    value::{RawSeries, Scalars},
};

pub use extended::{interpolate, interpolate_histograms};
pub use histogram_sums::HistogramSum;
pub use window::Window;

/// The functions over range vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeKind {
    /// The samples themselves: a range selector at the top of a query.
    Raw,
    /// `rate`
    Rate,
    /// `increase`
    Increase,
    /// `delta`
    Delta,
    /// `irate`
    Irate,
    /// `idelta`
    Idelta,
    /// `resets`
    Resets,
    /// `changes`
    Changes,
    /// `deriv`
    Deriv,
    /// `predict_linear`
    PredictLinear,
    /// `double_exponential_smoothing`
    DoubleExponentialSmoothing,
    /// `avg_over_time`
    AvgOverTime,
    /// `sum_over_time`
    SumOverTime,
    /// `count_over_time`
    CountOverTime,
    /// `min_over_time`
    MinOverTime,
    /// `max_over_time`
    MaxOverTime,
    /// `stddev_over_time`
    StddevOverTime,
    /// `stdvar_over_time`
    StdvarOverTime,
    /// `quantile_over_time`
    QuantileOverTime,
    /// `mad_over_time`
    MadOverTime,
    /// `first_over_time`
    FirstOverTime,
    /// `last_over_time`
    LastOverTime,
    /// `present_over_time`
    PresentOverTime,
    /// `ts_of_first_over_time`
    TsOfFirstOverTime,
    /// `ts_of_last_over_time`
    TsOfLastOverTime,
    /// `ts_of_min_over_time`
    TsOfMinOverTime,
    /// `ts_of_max_over_time`
    TsOfMaxOverTime,
}

const NAMES: &[(&str, RangeKind)] = &[
    ("rate", RangeKind::Rate),
    ("increase", RangeKind::Increase),
    ("delta", RangeKind::Delta),
    ("irate", RangeKind::Irate),
    ("idelta", RangeKind::Idelta),
    ("resets", RangeKind::Resets),
    ("changes", RangeKind::Changes),
    ("deriv", RangeKind::Deriv),
    ("predict_linear", RangeKind::PredictLinear),
    ("double_exponential_smoothing", RangeKind::DoubleExponentialSmoothing),
    ("avg_over_time", RangeKind::AvgOverTime),
    ("sum_over_time", RangeKind::SumOverTime),
    ("count_over_time", RangeKind::CountOverTime),
    ("min_over_time", RangeKind::MinOverTime),
    ("max_over_time", RangeKind::MaxOverTime),
    ("stddev_over_time", RangeKind::StddevOverTime),
    ("stdvar_over_time", RangeKind::StdvarOverTime),
    ("quantile_over_time", RangeKind::QuantileOverTime),
    ("mad_over_time", RangeKind::MadOverTime),
    ("first_over_time", RangeKind::FirstOverTime),
    ("last_over_time", RangeKind::LastOverTime),
    ("present_over_time", RangeKind::PresentOverTime),
    ("ts_of_first_over_time", RangeKind::TsOfFirstOverTime),
    ("ts_of_last_over_time", RangeKind::TsOfLastOverTime),
    ("ts_of_min_over_time", RangeKind::TsOfMinOverTime),
    ("ts_of_max_over_time", RangeKind::TsOfMaxOverTime),
];

impl RangeKind {
    /// The function of a name.
    pub fn of(name: &str) -> Option<Self> {
        NAMES.iter().find(|(n, _)| *n == name).map(|(_, k)| *k)
    }

    /// The name of the function.
    pub fn name(self) -> &'static str {
        NAMES.iter().find(|(_, k)| *k == self).map_or("samples", |(n, _)| n)
    }

    fn is_counter(self) -> bool {
        matches!(self, Self::Rate | Self::Increase)
    }

    /// `rate`, `increase` and `delta`.
    fn is_extrapolated(self) -> bool {
        matches!(self, Self::Rate | Self::Increase | Self::Delta)
    }
}

/// A function over the window of each step. Inputs: raw samples, then one scalar per further argument.
#[derive(Clone, Debug)]
pub struct RangeFunction {
    /// Which function.
    pub kind: RangeKind,
    /// Where its window lies.
    pub window: Window,
    /// The argument that annotations point at.
    pub pos: PosRange,
    /// Whether start timestamps count.
    pub use_start_timestamps: bool,
    /// Whether `__type__` tells what is a counter.
    pub type_and_unit_labels: bool,
    /// How often the statistics count a sample of a window.
    pub weight: usize,
    /// For which step of the query the statistics count a sample as read; `None` over a subquery, which reads nothing.
    pub first_user: Option<FirstUser>,
}

impl RangeFunction {
    pub(crate) fn new(kind: RangeKind, window: Window) -> Self {
        Self {
            kind,
            window,
            pos: PosRange::default(),
            use_start_timestamps: true,
            type_and_unit_labels: false,
            weight: 1,
            first_user: None,
        }
    }

    /// Computes the function for each series.
    pub fn apply(
        &self,
        raw: &RawSeries,
        args: &[Scalars],
        steps: Steps,
        ctx: &EvalContext,
    ) -> Result<StepBlock, EvalError> {
        let keeps_name = matches!(self.kind, RangeKind::FirstOverTime | RangeKind::LastOverTime);
        ctx.check_cells(raw.len(), steps.count)?;
        let mut out = StepBlock::absent(steps, raw.labels());
        out.drop_name.extend(raw.rows.clone().map(|i| !keeps_name || raw.drops_name(i)));
        let mut run = mixed::Run::new(self, args, steps, ctx);
        run.check_args()?;
        for (row, i) in raw.rows.clone().enumerate() {
            ctx.cancel.check()?;
            run.series(&raw.set, i, row, &mut out)?;
        }
        ctx.hold(run.peak)?;
        ctx.release(run.peak);
        ctx.touch(run.touched, self.weight);
        if let Some(tally) = run.tally {
            ctx.touch_steps(|| tally, self.weight, self.first_user.as_ref());
        }
        if self.kind.is_counter() {
            self.annotate_non_counters(raw, &out, ctx);
        }
        Ok(out)
    }

    /// Infos on series with a float result that do not look like counters.
    fn annotate_non_counters(&self, raw: &RawSeries, out: &StepBlock, ctx: &EvalContext) {
        let mut last = "";
        for (i, labels) in raw.labels().iter().enumerate() {
            let name = labels.get(METRIC_NAME).unwrap_or("");
            if name.is_empty() || (name == last && !self.type_and_unit_labels) {
                continue;
            }
            let row = out.row(i);
            let has_float = crate::bits::ones(row.present).any(|s| row.histogram(s).is_none());
            if !has_float {
                continue;
            }
            last = name;
            if self.type_and_unit_labels {
                let kind = labels.get("__type__").unwrap_or("");
                if kind != "counter" && kind != "histogram" {
                    ctx.annotations.possible_non_counter_type(name, kind, self.pos);
                }
            } else if !["_total", "_sum", "_count", "_bucket"].iter().any(|s| name.ends_with(s)) {
                ctx.annotations.possible_non_counter(name, self.pos);
            }
        }
    }
}
