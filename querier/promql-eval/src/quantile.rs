//! Quantiles of floats, and the `quantile` aggregation.

use sextant_promql::PosRange;

use crate::{
    bits,
    block::StepBlock,
    context::EvalContext,
    error::EvalError,
    groups::{GroupIndex, Grouping},
    value::Scalars,
};

/// The `q`-quantile of values, interpolated between the two around its rank. NaN sorts below everything. The order of
/// `values` changes.
pub fn quantile(q: f64, values: &mut [f64]) -> f64 {
    if values.is_empty() || q.is_nan() {
        return f64::NAN;
    }
    if q < 0.0 {
        return f64::NEG_INFINITY;
    }
    if q > 1.0 {
        return f64::INFINITY;
    }
    let rank = q * (values.len() - 1) as f64;
    let lower = rank.floor().max(0.0) as usize;
    let weight = rank - rank.floor();
    let (_, &mut at, above) = values.select_nth_unstable_by(lower, nan_first);
    let next = above.iter().copied().min_by(nan_first).unwrap_or(at);
    at * (1.0 - weight) + next * weight
}

/// The same for values that are in order.
pub fn of_sorted(q: f64, values: &[f64]) -> f64 {
    if values.is_empty() || q.is_nan() {
        return f64::NAN;
    }
    if !(0.0..=1.0).contains(&q) {
        return if q < 0.0 { f64::NEG_INFINITY } else { f64::INFINITY };
    }
    let rank = q * (values.len() - 1) as f64;
    let lower = rank.floor().max(0.0) as usize;
    let weight = rank - rank.floor();
    let next = (lower + 1).min(values.len() - 1);
    values[lower] * (1.0 - weight) + values[next] * weight
}

/// NaN before everything, -0 before 0.
pub fn nan_first(a: &f64, b: &f64) -> std::cmp::Ordering {
    match (a.is_nan(), b.is_nan()) {
        (true, true) => std::cmp::Ordering::Equal,
        (true, false) => std::cmp::Ordering::Less,
        (false, true) => std::cmp::Ordering::Greater,
        (false, false) => a.total_cmp(b),
    }
}

/// `quantile(q, vector)`.
#[derive(Clone, Debug)]
pub struct QuantileAggregate {
    /// Which series go together.
    pub grouping: Grouping,
    /// The vector, for annotations.
    pub pos: PosRange,
    /// The parameter, for annotations.
    pub param_pos: PosRange,
}

impl QuantileAggregate {
    /// The quantile of each group at each step.
    pub fn apply(&self, block: &StepBlock, q: &Scalars, ctx: &EvalContext) -> Result<StepBlock, EvalError> {
        self.annotate(q, ctx);
        let mut index = GroupIndex::default();
        let rows = index.rows(&self.grouping, &block.labels, ctx)?;
        let mut out = StepBlock::with_capacity(block.steps, index.len());
        let mut values = Vec::new();
        let pace = ctx.cancel.pace();
        for (group, rows) in rows.iter().enumerate() {
            ctx.cancel.check()?;
            let drop_name = rows.iter().any(|&i| block.drop_name[i]);
            out.push_empty(index.labels[group].clone(), drop_name);
            for step in 0..block.steps.count {
                pace.spend(8 * rows.len())?;
                values.clear();
                for &i in rows.iter().filter(|&&i| bits::get(block.present_row(i), step)) {
                    if block.row(i).histogram(step).is_some() {
                        ctx.annotations.histogram_ignored_in_aggregation("quantile", self.pos);
                    } else {
                        values.push(block.row(i).values[step]);
                    }
                }
                if !values.is_empty() {
                    out.set_float(group, step, quantile(q.values[step], &mut values));
                }
            }
        }
        out.drop_empty_rows();
        Ok(out)
    }

    fn annotate(&self, q: &Scalars, ctx: &EvalContext) {
        let max = q.values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let min = q.values.iter().copied().fold(f64::INFINITY, f64::min);
        if q.values.iter().any(|q| q.is_nan()) {
            ctx.annotations.invalid_quantile(f64::NAN, self.param_pos);
        }
        if max > 1.0 {
            ctx.annotations.invalid_quantile(max, self.param_pos);
        }
        if min < 0.0 {
            ctx.annotations.invalid_quantile(min, self.param_pos);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interpolates_and_sorts_nan_first() {
        assert_eq!(quantile(0.5, &mut [3.0, 1.0, 2.0, 4.0]), 2.5);
        assert_eq!(quantile(1.0, &mut [3.0, f64::NAN, 2.0]), 3.0);
        assert!(quantile(0.0, &mut [3.0, f64::NAN]).is_nan());
        assert_eq!(quantile(-0.1, &mut [1.0]), f64::NEG_INFINITY);
    }
}
