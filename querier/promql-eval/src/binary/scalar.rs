//! Operators with a scalar on one side or on both.

use sextant_promql::{BinaryExpr, BinaryOp, PosRange};

use super::element::{self, Operand};
use crate::{
    bits,
    block::{Cell, StepBlock},
    context::EvalContext,
    error::EvalError,
    value::Scalars,
};

/// Steps that are computed between two looks at the cancel flag.
const CHUNK: usize = 1 << 16;

/// Between two scalars.
#[derive(Clone, Debug)]
pub struct ScalarBinary {
    /// The operator.
    pub op: BinaryOp,
}

impl ScalarBinary {
    /// Step by step; a comparison gives 1 or 0.
    pub fn apply(&self, mut lhs: Scalars, rhs: &Scalars, ctx: &EvalContext) -> Result<Scalars, EvalError> {
        for (a, b) in lhs.values.chunks_mut(CHUNK).zip(rhs.values.chunks(CHUNK)) {
            ctx.cancel.check()?;
            for (a, &b) in a.iter_mut().zip(b) {
                *a = element::float(self.op, *a, b);
            }
        }
        Ok(lhs)
    }
}

/// Between a vector and a scalar.
#[derive(Clone, Debug)]
pub struct VectorScalar {
    /// The operator.
    pub op: BinaryOp,
    /// The scalar is on the left.
    pub scalar_first: bool,
    /// `bool` was given.
    pub return_bool: bool,
    /// The operation, for annotations.
    pub pos: PosRange,
}

impl VectorScalar {
    pub(crate) fn new(b: &BinaryExpr, scalar_first: bool) -> Self {
        Self { op: b.op, scalar_first, return_bool: b.return_bool, pos: b.pos }
    }

    /// In place. A comparison keeps the cells of the vector that pass, whichever side the vector is on.
    pub fn apply(
        &self,
        mut block: StepBlock,
        scalar: &Scalars,
        ctx: &EvalContext,
    ) -> Result<StepBlock, EvalError> {
        let mut outcome = vec![0.0; block.steps.count];
        for i in 0..block.len() {
            ctx.cancel.check()?;
            if block.row(i).has_histogram() || matches!(self.op, BinaryOp::TrimUpper | BinaryOp::TrimLower) {
                self.mixed_row(&mut block, i, scalar, ctx)?;
            } else {
                self.float_row(&mut block, i, &scalar.values, &mut outcome, ctx)?;
            }
            if element::changes_meaning(self.op) || self.return_bool {
                block.drop_name[i] = true;
            }
        }
        block.drop_empty_rows();
        Ok(block)
    }

    fn float_row(
        &self,
        block: &mut StepBlock,
        i: usize,
        scalar: &[f64],
        outcome: &mut [f64],
        ctx: &EvalContext,
    ) -> Result<(), EvalError> {
        let (n, w) = (block.steps.count, block.steps.words());
        let values = &mut block.values[i * n..(i + 1) * n];
        let present = &mut block.present[i * w..(i + 1) * w];
        let chunks = outcome.chunks_mut(CHUNK).zip(values.chunks(CHUNK)).zip(scalar.chunks(CHUNK));
        for (k, ((outcome, values), scalar)) in chunks.enumerate() {
            if k > 0 {
                ctx.cancel.check()?;
            }
            if self.scalar_first {
                element::float_rows(self.op, |s| scalar[s], |s| values[s], outcome);
            } else {
                element::float_rows(self.op, |s| values[s], |s| scalar[s], outcome);
            }
        }
        if self.op.is_comparison() && !self.return_bool {
            for step in 0..n {
                if outcome[step] == 0.0 {
                    bits::clear(present, step);
                    values[step] = 0.0;
                }
            }
            return Ok(());
        }
        for step in 0..n {
            values[step] = if bits::get(present, step) { outcome[step] } else { 0.0 };
        }
        Ok(())
    }

    fn mixed_row(
        &self,
        block: &mut StepBlock,
        i: usize,
        scalar: &Scalars,
        ctx: &EvalContext,
    ) -> Result<(), EvalError> {
        let pace = ctx.cancel.pace();
        for step in 0..block.steps.count {
            let Some(cell) = block.row(i).get(step) else { continue };
            pace.spend(64)?;
            let (vector, number) = (Operand::of(&cell), Operand::Float(scalar.values[step]));
            let (lhs, rhs) = if self.scalar_first { (number, vector) } else { (vector, number) };
            let outcome = element::general(self.op, lhs, rhs, self.pos, &ctx.annotations);
            block.clear(i, step);
            let Some(outcome) = outcome else { continue };
            if self.return_bool {
                block.set(i, step, Cell::Float(f64::from(u8::from(outcome.keep))));
            } else if outcome.keep {
                block.set(i, step, if self.op.is_comparison() { cell } else { outcome.cell });
            }
        }
        Ok(())
    }
}
