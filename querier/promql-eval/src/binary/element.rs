//! One operator between two values: floats by row, everything else one by one.

use std::sync::Arc;

use sextant_model::{Histogram, HistogramError, ResetHint};
use sextant_promql::{BinaryOp, PosRange};

use crate::{
    annotations::{Annotations, HistogramOp},
    block::Cell,
};

/// Whether an operator changes what the metric means, so that its name goes.
pub fn changes_meaning(op: BinaryOp) -> bool {
    use BinaryOp as B;
    matches!(op, B::Add | B::Sub | B::Mul | B::Div | B::Mod | B::Pow | B::Atan2)
}

/// Arithmetic between floats; for comparisons 1 or 0.
#[inline(always)]
pub fn float(op: BinaryOp, a: f64, b: f64) -> f64 {
    use BinaryOp as B;
    match op {
        B::Add => a + b,
        B::Sub => a - b,
        B::Mul => a * b,
        B::Div => a / b,
        B::Mod => a % b,
        B::Pow => a.powf(b),
        B::Atan2 => a.atan2(b),
        _ => f64::from(u8::from(compare(op, a, b))),
    }
}

/// A comparison between floats.
#[inline(always)]
pub fn compare(op: BinaryOp, a: f64, b: f64) -> bool {
    use BinaryOp as B;
    match op {
        B::Eq => a == b,
        B::Ne => a != b,
        B::Gt => a > b,
        B::Lt => a < b,
        B::Ge => a >= b,
        B::Le => a <= b,
        _ => false,
    }
}

/// `out[i] = a[i] op b[i]` with one loop per operator, so that each can be vectorised.
pub fn float_rows(op: BinaryOp, a: impl Fn(usize) -> f64, b: impl Fn(usize) -> f64, out: &mut [f64]) {
    macro_rules! each {
        ($($op:ident),*) => {
            match op {
                $(BinaryOp::$op => out.iter_mut().enumerate().for_each(|(i, o)| {
                    *o = float(BinaryOp::$op, a(i), b(i));
                }),)*
                other => out.iter_mut().enumerate().for_each(|(i, o)| *o = float(other, a(i), b(i))),
            }
        };
    }
    each!(Add, Sub, Mul, Div, Mod, Eq, Ne, Gt, Lt, Ge, Le);
}

/// An operand that may be a histogram.
#[derive(Clone, Copy)]
pub enum Operand<'a> {
    Float(f64),
    Histogram(&'a Histogram),
}

impl<'a> Operand<'a> {
    pub fn of(cell: &'a Cell) -> Self {
        match cell {
            Cell::Float(v) => Self::Float(*v),
            Cell::Histogram(h) => Self::Histogram(h),
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Float(_) => "float",
            Self::Histogram(_) => "histogram",
        }
    }
}

/// What an operator gives for two values.
pub struct Outcome {
    /// The value; a comparison gives the left one.
    pub cell: Cell,
    /// Whether a comparison holds; else true.
    pub keep: bool,
}

/// An operator between two values of which at least one may be a histogram. `None`, with an annotation, where the
/// operator is not defined.
pub fn general(
    op: BinaryOp,
    lhs: Operand<'_>,
    rhs: Operand<'_>,
    pos: PosRange,
    notes: &Annotations,
) -> Option<Outcome> {
    use BinaryOp as B;
    let kept = |h: Histogram| Some(Outcome { cell: Cell::Histogram(Arc::new(h)), keep: true });
    let scaled = |h: &Histogram, scale: &dyn Fn(&mut Histogram)| {
        let mut h = h.clone();
        scale(&mut h);
        h.compact(0);
        kept(h)
    };
    match (op, lhs, rhs) {
        (B::TrimUpper | B::TrimLower, Operand::Float(_), Operand::Float(_)) => {}
        (_, Operand::Float(a), Operand::Float(b)) if op.is_comparison() => {
            return Some(Outcome { cell: Cell::Float(a), keep: compare(op, a, b) });
        }
        (_, Operand::Float(a), Operand::Float(b)) => {
            return Some(Outcome { cell: Cell::Float(float(op, a, b)), keep: true });
        }
        (B::Mul, Operand::Float(v), Operand::Histogram(h)) => return scaled(h, &|h| h.mul(v)),
        (B::Mul, Operand::Histogram(h), Operand::Float(v)) => return scaled(h, &|h| h.mul(v)),
        (B::Div, Operand::Histogram(h), Operand::Float(v)) => return scaled(h, &|h| h.div(v)),
        (B::TrimUpper, Operand::Histogram(h), Operand::Float(v)) => return kept(h.trim_upper(v)),
        (B::TrimLower, Operand::Histogram(h), Operand::Float(v)) => return kept(h.trim_lower(v)),
        (B::Add | B::Sub, Operand::Histogram(a), Operand::Histogram(b)) => {
            return match combine(op, a, b, pos, notes) {
                Ok(h) => kept(h),
                Err(HistogramError::IncompatibleSchema) => {
                    notes.incompatible_bucket_layout(op.as_str(), pos);
                    None
                }
                Err(_) => None,
            };
        }
        (B::Eq | B::Ne, Operand::Histogram(a), Operand::Histogram(b)) => {
            let cell = Cell::Histogram(Arc::new(a.clone()));
            return Some(Outcome { cell, keep: a.equals(b) == (op == B::Eq) });
        }
        _ => {}
    }
    notes.incompatible_types(lhs.kind(), op.as_str(), rhs.kind(), pos);
    None
}

fn combine(
    op: BinaryOp,
    a: &Histogram,
    b: &Histogram,
    pos: PosRange,
    notes: &Annotations,
) -> Result<Histogram, HistogramError> {
    let mut result = a.clone();
    let (combined, what) = if op == BinaryOp::Sub {
        let combined = result.sub(b)?;
        result.reset_hint = ResetHint::Gauge;
        (combined, HistogramOp::Subtraction)
    } else {
        (result.add(b)?, HistogramOp::Addition)
    };
    if combined.counter_reset_collision {
        notes.counter_reset_collision(what, pos);
    }
    if combined.nhcb_bounds_reconciled {
        notes.mismatched_custom_buckets(what, pos);
    }
    result.compact(0);
    Ok(result)
}
