//! `histogram_quantile`, `histogram_quantiles` and `histogram_fraction`.

use std::collections::HashMap;

use sextant_model::{
    ClassicBucket, Histogram, Labels, METRIC_NAME, NanInfo, bucket_fraction, bucket_quantile,
};
use sextant_promql::PosRange;

use crate::{
    bits, block::StepBlock, cancel::Pace, context::EvalContext, error::EvalError, format::open_metrics_float,
    value::Scalars,
};

/// Work for a series whose labels are looked up.
const UNITS_PER_LABELS: usize = 64;

/// The label with a classic bucket's upper bound.
const BUCKET_LABEL: &str = "le";

/// Quantiles or fractions of every histogram of a vector.
#[derive(Clone, Debug)]
pub struct HistogramQuantile {
    /// What is computed.
    pub output: QuantileOutput,
    /// The vector, for annotations.
    pub vector_pos: PosRange,
    /// The scalars, for annotations.
    pub scalar_pos: Vec<PosRange>,
}

/// What is computed from each histogram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QuantileOutput {
    /// One quantile. Scalars: q.
    Quantile,
    /// Several, told apart by a label. Scalars: every q.
    Quantiles {
        /// The label that takes q.
        label: String,
    },
    /// The fraction of observations in a range. Scalars: lower, upper.
    Fraction,
}

/// A classic histogram: its labels without `le`, and the rows of its buckets.
struct Classic {
    labels: Labels,
    buckets: Vec<(f64, usize)>,
}

impl HistogramQuantile {
    /// The function's name.
    pub fn name(&self) -> &'static str {
        match self.output {
            QuantileOutput::Quantile => "histogram_quantile",
            QuantileOutput::Quantiles { .. } => "histogram_quantiles",
            QuantileOutput::Fraction => "histogram_fraction",
        }
    }

    /// Classic histograms are put together once; at each step their present buckets count.
    pub fn apply(
        &self,
        block: StepBlock,
        args: &[Scalars],
        ctx: &EvalContext,
    ) -> Result<StepBlock, EvalError> {
        self.annotate_quantiles(args, ctx);
        let (classics, of_labels) = self.classics(&block, ctx)?;
        let mut run = Run {
            op: self,
            args,
            ctx,
            pace: ctx.cancel.pace(),
            out: StepBlock::new(block.steps),
            rows: HashMap::new(),
            labels: HashMap::new(),
        };
        // Steps at which a native histogram has taken the place of a classic one: neither has an answer there.
        let mut blocked: Vec<Vec<u64>> = vec![Vec::new(); classics.len()];
        for i in 0..block.len() {
            ctx.cancel.check()?;
            let row = block.row(i);
            if !row.has_histogram() {
                continue;
            }
            let classic = of_labels.get(&block.labels[i]).copied();
            for step in bits::ones(row.present) {
                let Some(h) = row.histogram(step) else { continue };
                let conflict = classic.filter(|&c| {
                    classics[c].buckets.iter().any(|&(_, b)| block.row(b).get(step).is_some_and(is_float))
                });
                if let Some(c) = conflict {
                    blocked[c].resize(block.steps.words(), 0);
                    bits::set(&mut blocked[c], step);
                    ctx.annotations.mixed_classic_native(block.labels[i].metric_name(), self.vector_pos);
                    continue;
                }
                run.native(&block.labels[i], step, h)?;
            }
        }
        for (classic, blocked) in classics.iter().zip(&blocked) {
            ctx.cancel.check()?;
            run.classic(classic, blocked, &block)?;
        }
        let mut out = run.out;
        out.drop_empty_rows();
        Ok(out)
    }

    fn annotate_quantiles(&self, args: &[Scalars], ctx: &EvalContext) {
        if self.output == QuantileOutput::Fraction {
            return;
        }
        for (values, &pos) in args.iter().zip(&self.scalar_pos) {
            for &q in values.values.iter().filter(|q| !(0.0..=1.0).contains(*q)) {
                ctx.annotations.invalid_quantile(q, pos);
            }
        }
    }

    /// The classic histograms of a vector, and where each is by its labels. Floats without a bound are noted.
    fn classics(
        &self,
        block: &StepBlock,
        ctx: &EvalContext,
    ) -> Result<(Vec<Classic>, HashMap<Labels, usize>), EvalError> {
        let mut classics: Vec<Classic> = Vec::new();
        let mut index: HashMap<Labels, usize> = HashMap::new();
        let pace = ctx.cancel.pace();
        for i in 0..block.len() {
            pace.spend(UNITS_PER_LABELS + block.steps.words())?;
            let row = block.row(i);
            if !bits::ones(row.present).any(|s| row.histogram(s).is_none()) {
                continue;
            }
            let le = block.labels[i].get(BUCKET_LABEL).unwrap_or("");
            let Ok(bound) = le.parse::<f64>() else {
                ctx.annotations.bad_bucket_label(block.labels[i].metric_name(), le, self.vector_pos);
                continue;
            };
            let labels = block.labels[i].filter(|n| n != BUCKET_LABEL);
            let id = *index.entry(labels.clone()).or_insert_with(|| {
                classics.push(Classic { labels, buckets: Vec::new() });
                classics.len() - 1
            });
            classics[id].buckets.push((bound, i));
        }
        Ok((classics, index))
    }
}

fn is_float(cell: crate::block::Cell) -> bool {
    matches!(cell, crate::block::Cell::Float(_))
}

struct Run<'a> {
    op: &'a HistogramQuantile,
    args: &'a [Scalars],
    ctx: &'a EvalContext,
    pace: Pace<'a>,
    out: StepBlock,
    rows: HashMap<Labels, usize>,
    /// Labels with a quantile's label, by the labels before and the quantile.
    labels: HashMap<(Labels, u64), Labels>,
}

impl Run<'_> {
    fn native(&mut self, labels: &Labels, step: usize, h: &Histogram) -> Result<(), EvalError> {
        let name = labels.get(METRIC_NAME).unwrap_or("");
        let (notes, pos) = (&self.ctx.annotations, self.op.vector_pos);
        if self.op.output == QuantileOutput::Fraction {
            let (v, info) = h.fraction_with_info(self.args[0].values[step], self.args[1].values[step]);
            if info == NanInfo::ExcludedFromFraction {
                notes.fraction_nan(name, pos);
            }
            return self.set(labels.clone(), step, v);
        }
        for n in 0..self.args.len() {
            let q = self.args[n].values[step];
            let (v, info) = h.quantile_with_info(q);
            match info {
                NanInfo::ResultIsNan => notes.quantile_nan_result(name, pos),
                NanInfo::SkewedHigher => notes.quantile_nan_skew(name, pos),
                NanInfo::None | NanInfo::ExcludedFromFraction => {}
            }
            self.pace.spend(crate::value::histogram_cost(h) * 8)?;
            let labels = self.with_quantile(labels, q);
            self.set(labels, step, v)?;
        }
        Ok(())
    }

    fn classic(&mut self, classic: &Classic, blocked: &[u64], block: &StepBlock) -> Result<(), EvalError> {
        let name = classic.labels.get(METRIC_NAME).unwrap_or("");
        let mut buckets: Vec<ClassicBucket> = Vec::with_capacity(classic.buckets.len());
        for step in 0..block.steps.count {
            if !blocked.is_empty() && bits::get(blocked, step) {
                continue;
            }
            let load = |buckets: &mut Vec<ClassicBucket>| {
                buckets.clear();
                for &(upper_bound, row) in &classic.buckets {
                    let row = block.row(row);
                    if bits::get(row.present, step) && row.histogram(step).is_none() {
                        buckets.push(ClassicBucket { upper_bound, count: row.values[step] });
                    }
                }
            };
            self.pace.spend(16 * classic.buckets.len() * self.args.len())?;
            load(&mut buckets);
            if buckets.is_empty() {
                continue;
            }
            if self.op.output == QuantileOutput::Fraction {
                let (lower, upper) = (self.args[0].values[step], self.args[1].values[step]);
                let v = bucket_fraction(lower, upper, &mut buckets);
                self.set(classic.labels.clone(), step, v)?;
                continue;
            }
            for n in 0..self.args.len() {
                let q = self.args[n].values[step];
                load(&mut buckets);
                let result = bucket_quantile(q, &mut buckets);
                if let Some(forced) = result.forced_monotonic {
                    self.ctx.annotations.forced_monotonicity(
                        name,
                        self.op.vector_pos,
                        block.steps.at(step),
                        (forced.min_bound, forced.max_bound),
                        forced.max_difference,
                    );
                }
                let labels = self.with_quantile(&classic.labels, q);
                self.set(labels, step, result.value)?;
            }
        }
        Ok(())
    }

    /// The labels of a result.
    fn with_quantile(&mut self, labels: &Labels, q: f64) -> Labels {
        let QuantileOutput::Quantiles { label } = &self.op.output else { return labels.clone() };
        self.labels
            .entry((labels.clone(), q.to_bits()))
            .or_insert_with(|| labels.to_builder().set(label, &open_metrics_float(q)).build())
            .clone()
    }

    fn set(&mut self, labels: Labels, step: usize, v: f64) -> Result<(), EvalError> {
        if !self.rows.contains_key(&labels) {
            self.ctx.check_cells(self.out.len() + 1, self.out.steps.count)?;
        }
        let out = &mut self.out;
        let row = *self.rows.entry(labels.clone()).or_insert_with(|| {
            out.push_empty(labels, true);
            out.len() - 1
        });
        if bits::get(self.out.present_row(row), step) {
            return Err(EvalError::same_labelset());
        }
        self.out.set_float(row, step, v);
        Ok(())
    }
}
