//! Functions of each value of a vector, with scalars beside it. Histograms drop out.

use super::math::{MathFunction, go_max, go_min};
use crate::{bits, block::StepBlock, context::EvalContext, date::DatePart, error::EvalError, value::Scalars};

/// A function of each value.
#[derive(Clone, Debug)]
pub struct Elementwise {
    /// Which one.
    pub kind: ElementwiseKind,
}

/// Which function of each value.
#[derive(Clone, Copy, Debug)]
pub enum ElementwiseKind {
    /// A function of one number.
    Math(MathFunction),
    /// A part of a time.
    Date(DatePart),
    /// `clamp(v, min, max)`.
    Clamp,
    /// `clamp_min(v, min)`.
    ClampMin,
    /// `clamp_max(v, max)`.
    ClampMax,
    /// `round(v, to_nearest = 1)`.
    Round,
    /// `timestamp` of what is not a selector: the evaluation time.
    StepTime,
    /// `start_timestamp` of what has none.
    Nothing,
}

impl Elementwise {
    /// The function's name.
    pub fn name(&self) -> &'static str {
        match self.kind {
            ElementwiseKind::Math(f) => f.name,
            ElementwiseKind::Date(part) => part.name(),
            ElementwiseKind::Clamp => "clamp",
            ElementwiseKind::ClampMin => "clamp_min",
            ElementwiseKind::ClampMax => "clamp_max",
            ElementwiseKind::Round => "round",
            ElementwiseKind::StepTime => "timestamp",
            ElementwiseKind::Nothing => "start_timestamp",
        }
    }

    /// In place.
    pub fn apply(
        &self,
        mut block: StepBlock,
        args: &[Scalars],
        ctx: &EvalContext,
    ) -> Result<StepBlock, EvalError> {
        use ElementwiseKind as K;
        block.drop_name.fill(true);
        let arg = |n: usize, s: usize| args.get(n).and_then(|a| a.values.get(s)).copied();
        match self.kind {
            K::Nothing => return Ok(StepBlock::new(block.steps)),
            K::StepTime => {
                let steps = block.steps;
                block.histograms = None;
                each(&mut block, ctx, |_, s| Some(steps.at(s) as f64 / 1000.0))?;
                return Ok(block);
            }
            _ => drop_histograms(&mut block),
        }
        match self.kind {
            K::Math(f) => each(&mut block, ctx, |v, _| Some((f.f)(v)))?,
            K::Date(part) => each(&mut block, ctx, |v, _| Some(part.get(v)))?,
            K::Round => each(&mut block, ctx, |v, s| {
                // Ties are rounded up; inverting loses less precision.
                let inverse = 1.0 / arg(0, s).unwrap_or(1.0);
                Some((v * inverse + 0.5).floor() / inverse)
            })?,
            K::Clamp | K::ClampMin | K::ClampMax => each(&mut block, ctx, |v, s| {
                let first = arg(0, s).unwrap_or(f64::NAN);
                let (min, max) = match self.kind {
                    K::ClampMin => (first, f64::INFINITY),
                    K::ClampMax => (f64::NEG_INFINITY, first),
                    _ => (first, arg(1, s).unwrap_or(f64::NAN)),
                };
                if max < min { None } else { Some(go_max(min, go_min(max, v))) }
            })?,
            K::StepTime | K::Nothing => {}
        }
        block.drop_empty_rows();
        Ok(block)
    }
}

/// Work for one call of a function such as `exp`.
const UNITS_PER_CALL: usize = 8;

/// Replaces each present value, or clears its cell.
fn each(
    block: &mut StepBlock,
    ctx: &EvalContext,
    mut f: impl FnMut(f64, usize) -> Option<f64>,
) -> Result<(), EvalError> {
    let (n, w) = (block.steps.count, block.steps.words());
    let pace = ctx.cancel.pace();
    for i in 0..block.labels.len() {
        ctx.cancel.check()?;
        let present = &mut block.present[i * w..(i + 1) * w];
        let values = &mut block.values[i * n..(i + 1) * n];
        for (step, v) in values.iter_mut().enumerate() {
            if step.is_multiple_of(64) {
                pace.spend(64 * UNITS_PER_CALL)?;
            }
            if !bits::get(present, step) {
                continue;
            }
            match f(*v, step) {
                Some(new) => *v = new,
                None => {
                    bits::clear(present, step);
                    *v = 0.0;
                }
            }
        }
    }
    Ok(())
}

fn drop_histograms(block: &mut StepBlock) {
    let Some(histograms) = block.histograms.take() else { return };
    let (n, w) = (block.steps.count, block.steps.words());
    for (cell, h) in histograms.iter().enumerate() {
        if h.is_some() {
            let row = cell / n;
            bits::clear(&mut block.present[row * w..(row + 1) * w], cell % n);
        }
    }
}
