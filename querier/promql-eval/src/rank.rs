//! `topk`, `bottomk`, `limitk` and `limit_ratio`: some of each group's series, unchanged.

mod hash;
mod heap;

use sextant_promql::{AggregateOp, PosRange};

use crate::{
    bits,
    block::StepBlock,
    context::EvalContext,
    error::EvalError,
    groups::{GroupIndex, Grouping},
    value::Scalars,
};
use heap::Heap;

/// An aggregation that keeps series.
#[derive(Clone, Debug)]
pub struct Rank {
    /// Which one.
    pub op: AggregateOp,
    /// Which series go together.
    pub grouping: Grouping,
    /// The aggregation, for annotations.
    pub pos: PosRange,
    /// The parameter, for annotations.
    pub param_pos: PosRange,
}

impl Rank {
    /// The kept cells. For one step the rows come out in order: the best of a group first.
    pub fn apply(
        &self,
        mut block: StepBlock,
        param: &Scalars,
        ctx: &EvalContext,
    ) -> Result<StepBlock, EvalError> {
        let p = &param.values;
        let max = p.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let min = p.iter().copied().fold(f64::INFINITY, f64::min);
        let any_nan = p.iter().any(|v| v.is_nan());
        if self.op == AggregateOp::LimitRatio {
            if max == 0.0 && min == 0.0 && !any_nan {
                return Ok(StepBlock::new(block.steps));
            }
            if any_nan {
                return Err(EvalError::execution("Ratio value is NaN"));
            }
            if max > 1.0 {
                ctx.annotations.invalid_ratio(max, 1.0, self.param_pos);
            }
            if min < -1.0 {
                ctx.annotations.invalid_ratio(min, -1.0, self.param_pos);
            }
            return self.limit_ratio(block, p, ctx);
        }
        if max < 1.0 && !any_nan {
            return Ok(StepBlock::new(block.steps));
        }
        if any_nan {
            return Err(EvalError::execution("Parameter value is NaN"));
        }
        if min <= i64::MIN as f64 {
            return Err(EvalError::execution(format!("Scalar value {min} underflows int64")));
        }
        if max >= i64::MAX as f64 {
            return Err(EvalError::execution(format!("Scalar value {max} overflows int64")));
        }
        let mut index = GroupIndex::default();
        let groups = index.rows(&self.grouping, &block.labels, ctx)?;
        let mut keep = vec![0; block.present.len()];
        let w = block.steps.words();
        let mut order = Vec::new();
        for (step, &k) in p.iter().enumerate() {
            ctx.cancel.check()?;
            let k = (k as i64).min(block.len() as i64);
            if k < 1 {
                continue;
            }
            order.clear();
            for rows in &groups {
                self.best(&block, rows, step, k as usize, ctx, &mut order)?;
            }
            for &i in &order {
                bits::set(&mut keep[i * w..(i + 1) * w], step);
            }
        }
        if block.steps.count == 1 {
            return Ok(block.take_rows(&order));
        }
        block.keep_only(&keep);
        block.drop_empty_rows();
        Ok(block)
    }

    /// Appends the rows of one group that are kept at a step, the best first.
    fn best(
        &self,
        block: &StepBlock,
        rows: &[usize],
        step: usize,
        k: usize,
        ctx: &EvalContext,
        out: &mut Vec<usize>,
    ) -> Result<(), EvalError> {
        let pace = ctx.cancel.pace();
        let present = rows.iter().copied().filter(|&i| bits::get(block.present_row(i), step));
        if self.op == AggregateOp::Limitk {
            out.extend(present.take(k));
            return Ok(());
        }
        let mut heap = Heap::new(k, self.op == AggregateOp::Bottomk);
        for i in present {
            pace.spend(16)?;
            let row = block.row(i);
            if row.histogram(step).is_some() {
                ctx.annotations.histogram_ignored_in_aggregation(self.op.as_str(), self.pos);
            } else {
                heap.offer(row.values[step], i);
            }
        }
        out.extend(heap.into_best_first());
        Ok(())
    }

    fn limit_ratio(
        &self,
        mut block: StepBlock,
        p: &[f64],
        ctx: &EvalContext,
    ) -> Result<StepBlock, EvalError> {
        let w = block.steps.words();
        let mut keep = vec![0; block.present.len()];
        for i in 0..block.len() {
            ctx.cancel.check()?;
            let offset = hash::ratio_offset(&block.labels[i]);
            for (step, &ratio) in p.iter().enumerate() {
                let ratio = ratio.clamp(-1.0, 1.0);
                let kept = if ratio >= 0.0 { offset < ratio } else { offset >= 1.0 + ratio };
                if kept {
                    bits::set(&mut keep[i * w..(i + 1) * w], step);
                }
            }
        }
        block.keep_only(&keep);
        block.drop_empty_rows();
        Ok(block)
    }
}
