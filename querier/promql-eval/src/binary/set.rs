//! `and`, `or` and `unless`.

use sextant_promql::{BinaryExpr, BinaryOp, VectorMatching};

use super::matching::Signatures;
use crate::{bits, block::StepBlock, context::EvalContext, error::EvalError, names};

/// A set operator between two vectors.
#[derive(Clone, Debug)]
pub struct SetOperation {
    /// Which one.
    pub op: BinaryOp,
    /// What is compared.
    pub matching: VectorMatching,
}

impl SetOperation {
    pub(crate) fn new(b: &BinaryExpr) -> Self {
        Self { op: b.op, matching: b.matching.clone().unwrap_or_default() }
    }

    /// Presence bits against presence bits.
    pub fn apply(
        &self,
        mut lhs: StepBlock,
        mut rhs: StepBlock,
        ctx: &EvalContext,
    ) -> Result<StepBlock, EvalError> {
        let signatures = Signatures::new(&self.matching, &lhs.labels, &rhs.labels, ctx)?;
        ctx.cancel.check()?;
        let pace = ctx.cancel.pace();
        if self.op == BinaryOp::Or {
            let left = present_by_signature(&lhs, &signatures.lhs, signatures.count);
            let w = lhs.steps.words();
            let mut keep = rhs.present.clone();
            for (i, &s) in signatures.rhs.iter().enumerate() {
                pace.spend(w)?;
                let row = &mut keep[i * w..(i + 1) * w];
                row.iter_mut().zip(&left[s * w..(s + 1) * w]).for_each(|(k, l)| *k &= !l);
            }
            rhs.keep_only(&keep);
            rhs.drop_empty_rows();
            lhs.append(rhs);
            // A series may come from the left at one step and from the right at another.
            return if lhs.steps.count > 1 { names::merge_same_labels(lhs, ctx) } else { Ok(lhs) };
        }
        let right = present_by_signature(&rhs, &signatures.rhs, signatures.count);
        let w = lhs.steps.words();
        let mut keep = lhs.present.clone();
        for (i, &s) in signatures.lhs.iter().enumerate() {
            pace.spend(w)?;
            let row = &mut keep[i * w..(i + 1) * w];
            for (k, r) in row.iter_mut().zip(&right[s * w..(s + 1) * w]) {
                *k &= if self.op == BinaryOp::And { *r } else { !r };
            }
        }
        lhs.keep_only(&keep);
        lhs.drop_empty_rows();
        Ok(lhs)
    }
}

fn present_by_signature(block: &StepBlock, of: &[usize], count: usize) -> Vec<u64> {
    let w = block.steps.words();
    let mut present = vec![0; count * w];
    for (i, &s) in of.iter().enumerate() {
        bits::or_into(&mut present[s * w..(s + 1) * w], block.present_row(i));
    }
    present
}
