//! Functions over instant vectors and scalars that look at one value at a time, and the ones that look at presence.

mod elementwise;
mod math;
mod natural;
mod sort;

use std::sync::Arc;

use sextant_model::Labels;

use crate::{
    bits,
    block::{Row, StepBlock},
    context::EvalContext,
    error::EvalError,
    steps::Steps,
    value::{Scalars, Value},
};

pub use elementwise::{Elementwise, ElementwiseKind};
pub use math::MathFunction;
pub use sort::{Sort, SortKey};

/// `time()`.
pub fn time(steps: Steps) -> Value {
    Value::Scalar(Scalars { steps, values: (0..steps.count).map(|s| steps.at(s) as f64 / 1000.0).collect() })
}

/// `-v`.
pub fn negate(value: Value, ctx: &EvalContext) -> Result<Value, EvalError> {
    Ok(match value {
        Value::Scalar(mut s) => {
            s.values.iter_mut().for_each(|v| *v = -*v);
            Value::Scalar(s)
        }
        Value::Vector(mut b) => {
            negate_floats(&mut b, ctx)?;
            let pace = ctx.cancel.pace();
            for h in b.histograms.iter_mut().flatten().flatten() {
                pace.spend(crate::value::histogram_cost(h) * 8)?;
                Arc::make_mut(h).mul(-1.0);
            }
            b.drop_name.fill(true);
            Value::Vector(b)
        }
        _ => return Err(EvalError::Internal("a sign in front of what has none")),
    })
}

/// Present zeros get a sign; absent cells stay `0.0`.
fn negate_floats(b: &mut StepBlock, ctx: &EvalContext) -> Result<(), EvalError> {
    let (n, w) = (b.steps.count, b.steps.words());
    for i in 0..b.labels.len() {
        ctx.cancel.check()?;
        let present = &b.present[i * w..(i + 1) * w];
        let values = &mut b.values[i * n..(i + 1) * n];
        if bits::is_full(present, n) {
            values.iter_mut().for_each(|v| *v = -*v);
            continue;
        }
        for (step, v) in values.iter_mut().enumerate() {
            if bits::get(present, step) {
                *v = -*v;
            }
        }
    }
    Ok(())
}

/// Functions that make or take scalars.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScalarFunction {
    /// `scalar(vector)`: the only float of a step, else NaN.
    Scalar,
    /// `vector(scalar)`.
    Vector,
    /// `max_of(a, b)`.
    MaxOf,
    /// `min_of(a, b)`.
    MinOf,
}

impl ScalarFunction {
    /// Whether the result is a scalar.
    pub fn gives_scalar(self) -> bool {
        self != Self::Vector
    }

    /// The function's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Vector => "vector",
            Self::MaxOf => "max_of",
            Self::MinOf => "min_of",
        }
    }

    pub(crate) fn apply(
        self,
        inputs: Vec<Value>,
        steps: Steps,
        ctx: &EvalContext,
    ) -> Result<Value, EvalError> {
        let mut inputs = inputs.into_iter();
        match (self, inputs.next(), inputs.next()) {
            (Self::Scalar, Some(Value::Vector(b)), None) => Ok(Value::Scalar(only_float(&b, ctx)?)),
            (Self::Vector, Some(Value::Scalar(s)), None) => {
                let mut block = StepBlock::with_capacity(steps, 1);
                let present = bits::full(steps.count);
                block.push(
                    Labels::empty(),
                    false,
                    Row { values: &s.values, present: &present, histograms: &[] },
                );
                Ok(Value::Vector(block))
            }
            (Self::MaxOf | Self::MinOf, Some(Value::Scalar(mut a)), Some(Value::Scalar(b))) => {
                let f = if self == Self::MaxOf { math::go_max } else { math::go_min };
                a.values.iter_mut().zip(&b.values).for_each(|(a, &b)| *a = f(*a, b));
                Ok(Value::Scalar(a))
            }
            _ => Err(EvalError::Internal("a scalar function with other arguments")),
        }
    }
}

fn only_float(b: &StepBlock, ctx: &EvalContext) -> Result<Scalars, EvalError> {
    let mut seen = vec![0usize; b.steps.count];
    let mut values = vec![f64::NAN; b.steps.count];
    for i in 0..b.len() {
        ctx.cancel.check()?;
        let row = b.row(i);
        for step in bits::ones(row.present).filter(|&s| row.histogram(s).is_none()) {
            seen[step] += 1;
            values[step] = if seen[step] == 1 { row.values[step] } else { f64::NAN };
        }
    }
    Ok(Scalars { steps: b.steps, values })
}

/// `absent`: 1 at the steps at which no series has a value.
#[derive(Clone, Debug)]
pub struct Absent {
    /// The labels of the result.
    pub labels: Labels,
}

impl Absent {
    /// From the steps at which any series has a value.
    pub(crate) fn finish(&self, any: &[u64], steps: Steps) -> StepBlock {
        let mut out = StepBlock::new(steps);
        let absent = bits::and_not(&bits::full(steps.count), any);
        if bits::any(&absent) {
            let values: Vec<f64> =
                (0..steps.count).map(|s| f64::from(u8::from(bits::get(&absent, s)))).collect();
            out.push(self.labels.clone(), false, Row { values: &values, present: &absent, histograms: &[] });
        }
        out
    }
}
