//! The operator tree: a plan's nodes. Each is an operator with its children and a pure function from their values.

use std::sync::Arc;

use crate::{
    aggregate::{Aggregate, Partial},
    binary::{ScalarBinary, SetOperation, VectorBinary, VectorScalar},
    context::EvalContext,
    count_values::CountValues,
    error::EvalError,
    functions::{Absent, Elementwise, ScalarFunction, Sort},
    histogram::{HistogramQuantile, HistogramStatistic, HistogramTotals},
    info::Info,
    labels::LabelRewrite,
    quantile::QuantileAggregate,
    range::{RangeFunction, RangeKind},
    rank::Rank,
    select::{InstantSelect, Select},
    steps::Steps,
    subquery::Subquery,
    value::Value,
};

/// One operator of a plan. Immutable; share it with `Arc`.
#[derive(Debug)]
pub struct Node {
    /// What it does.
    pub operator: Operator,
    /// Where its inputs come from, in the order that [`Node::apply`] takes them.
    pub children: Vec<Arc<Node>>,
    /// The grid of its result. A node that gives raw samples has the grid of what uses them.
    pub steps: Steps,
}

/// What a node does.
#[derive(Debug, Clone)]
pub enum Operator {
    /// Leaf: raw samples from the source.
    Select(Select),
    /// Leaf: one number at each step.
    Number(f64),
    /// Leaf: a string.
    Text(Arc<str>),
    /// Leaf: the evaluation time of each step, in seconds.
    Time,
    /// Per series: native histograms reduced to count and sum. Input: raw samples.
    Totals(HistogramTotals),
    /// Per series: the newest sample at each step. Input: raw samples.
    InstantSelect(InstantSelect),
    /// Per series: a function over the window of each step. Inputs: raw samples, then scalars.
    RangeFunction(RangeFunction),
    /// Per series: the values of an inner grid as raw samples. Input: a vector on the inner grid.
    Subquery(Subquery),
    /// Per series: the one step of the input at each step of a longer grid.
    Broadcast,
    /// Per series: `-v`.
    Negate,
    /// Per series: a function of each value (`abs`, `clamp`, `hour` …). Inputs: a vector, then scalars.
    Elementwise(Elementwise),
    /// Per series: a number from each native histogram (`histogram_sum` …).
    HistogramStatistic(HistogramStatistic),
    /// Per series: an operator between a vector and a scalar. Inputs: the vector, the scalar.
    VectorScalar(VectorScalar),
    /// Between scalars.
    ScalarBinary(ScalarBinary),
    /// `scalar`, `vector`, `max_of`, `min_of`.
    ScalarFunction(ScalarFunction),
    /// Matches the series of two vectors.
    VectorBinary(VectorBinary),
    /// `and`, `or`, `unless`.
    SetOperation(SetOperation),
    /// `sum`, `avg`, `count`, `min`, `max`, `group`, `stddev`, `stdvar`.
    Aggregate(Aggregate),
    /// `absent`, `absent_over_time`.
    Absent(Absent),
    /// `topk`, `bottomk`, `limitk`, `limit_ratio`. Inputs: the vector, the parameter.
    Rank(Rank),
    /// `quantile`. Inputs: the vector, the parameter.
    QuantileAggregate(QuantileAggregate),
    /// `count_values`.
    CountValues(CountValues),
    /// `histogram_quantile`, `histogram_quantiles`, `histogram_fraction`. Inputs: the vector, then scalars.
    HistogramQuantile(HistogramQuantile),
    /// `label_replace`, `label_join`.
    LabelRewrite(LabelRewrite),
    /// `sort`, `sort_by_label` and their descending forms.
    Sort(Sort),
    /// `info`. Inputs: the vector, the info series.
    Info(Info),
}

/// How a node's work may be split over series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// It has no input: a [`Select`] or a constant.
    Leaf,
    /// Input 0 may be split by series in any way, the results of [`Node::apply`] are put behind each other; other
    /// inputs are the same for every part.
    PerSeries,
    /// Input 0 may be split by series: [`Node::partial`] on each part, [`Partial::merge`], [`Node::finish`].
    Partial,
    /// It needs its whole inputs.
    Whole,
}

impl Node {
    /// A node.
    pub fn new(operator: Operator, children: Vec<Arc<Node>>, steps: Steps) -> Arc<Self> {
        Arc::new(Self { operator, children, steps })
    }

    /// The nodes its inputs come from.
    pub fn children(&self) -> &[Arc<Node>] {
        &self.children
    }

    /// The leaf's request, where the node is one that reads.
    pub fn as_select(&self) -> Option<&Select> {
        match &self.operator {
            Operator::Select(s) => Some(s),
            _ => None,
        }
    }

    /// How the work may be split.
    pub fn split(&self) -> Split {
        match &self.operator {
            Operator::Select(_) | Operator::Number(_) | Operator::Text(_) | Operator::Time => Split::Leaf,
            Operator::Totals(_)
            | Operator::InstantSelect(_)
            | Operator::RangeFunction(_)
            | Operator::Subquery(_)
            | Operator::Broadcast
            | Operator::Negate
            | Operator::Elementwise(_)
            | Operator::HistogramStatistic(_)
            // A scalar is one row: there is nothing to split.
            | Operator::VectorScalar(_) => {
                if self.gives_scalar() {
                    Split::Whole
                } else {
                    Split::PerSeries
                }
            }
            Operator::Aggregate(_) | Operator::Absent(_) => Split::Partial,
            _ => Split::Whole,
        }
    }

    /// Whether input 0 may be split by series with results that are put behind each other.
    pub fn is_per_series(&self) -> bool {
        self.split() == Split::PerSeries
    }

    /// Whether the result is raw samples.
    pub fn gives_series(&self) -> bool {
        match &self.operator {
            Operator::Select(_) | Operator::Totals(_) | Operator::Subquery(_) => true,
            Operator::RangeFunction(f) => f.kind == RangeKind::Raw,
            Operator::Broadcast => self.children.first().is_some_and(|c| c.gives_series()),
            _ => false,
        }
    }

    /// Whether the result is one number per step.
    pub fn gives_scalar(&self) -> bool {
        match &self.operator {
            Operator::Number(_) | Operator::Time | Operator::ScalarBinary(_) => true,
            Operator::ScalarFunction(f) => f.gives_scalar(),
            Operator::Broadcast | Operator::Negate => self.children.first().is_some_and(|c| c.gives_scalar()),
            _ => false,
        }
    }

    /// Computes the node from the values of its children, in their order. For [`Split::PerSeries`] nodes the first
    /// input may be any part of the series.
    ///
    /// A [`Select`] cannot be applied: its value comes from the source.
    pub fn apply(&self, inputs: Vec<Value>, ctx: &EvalContext) -> Result<Value, EvalError> {
        ctx.cancel.check()?;
        let mut args = Inputs(inputs.into_iter());
        let steps = self.steps;
        Ok(match &self.operator {
            Operator::Select(_) => return Err(EvalError::Internal("a leaf cannot be applied")),
            Operator::Number(v) => Value::Scalar(crate::value::Scalars::constant(steps, *v)),
            Operator::Text(s) => Value::String(s.clone()),
            Operator::Time => crate::functions::time(steps),
            Operator::Totals(op) => Value::Series(op.apply(args.series()?, ctx)?),
            Operator::InstantSelect(op) => Value::Vector(op.apply(&args.series()?, steps, ctx)?),
            Operator::RangeFunction(op) => {
                let series = args.series()?;
                if op.kind == RangeKind::Raw {
                    return Ok(Value::Series(op.raw(&series, steps, ctx)?));
                }
                Value::Vector(op.apply(&series, &args.scalars()?, steps, ctx)?)
            }
            Operator::Subquery(op) => Value::Series(op.apply(args.vector()?, ctx)?),
            Operator::Broadcast => match args.next()? {
                Value::Scalar(s) => Value::Scalar(crate::value::Scalars::constant(
                    steps,
                    s.values.first().copied().unwrap_or(f64::NAN),
                )),
                Value::Vector(b) => Value::Vector(b.broadcast(steps, ctx)?),
                other => other,
            },
            Operator::Negate => crate::functions::negate(args.next()?, ctx)?,
            Operator::Elementwise(op) => {
                let block = args.vector()?;
                Value::Vector(op.apply(block, &args.scalars()?, ctx)?)
            }
            Operator::HistogramStatistic(op) => Value::Vector(op.apply(args.vector()?, ctx)?),
            Operator::VectorScalar(op) => {
                let block = args.vector()?;
                Value::Vector(op.apply(block, &args.scalar()?, ctx)?)
            }
            Operator::ScalarBinary(op) => {
                let lhs = args.scalar()?;
                Value::Scalar(op.apply(lhs, &args.scalar()?, ctx)?)
            }
            Operator::ScalarFunction(op) => op.apply(args.rest(), steps, ctx)?,
            Operator::VectorBinary(op) => {
                let lhs = args.vector()?;
                Value::Vector(op.apply(lhs, args.vector()?, ctx)?)
            }
            Operator::SetOperation(op) => {
                let lhs = args.vector()?;
                Value::Vector(op.apply(lhs, args.vector()?, ctx)?)
            }
            Operator::Aggregate(_) | Operator::Absent(_) => {
                let mut partial = self.new_partial()?;
                self.partial(&mut partial, args.vector()?, ctx)?;
                self.finish(partial, ctx)?
            }
            Operator::Rank(op) => {
                let block = args.vector()?;
                Value::Vector(op.apply(block, &args.scalar()?, ctx)?)
            }
            Operator::QuantileAggregate(op) => {
                let block = args.vector()?;
                Value::Vector(op.apply(&block, &args.scalar()?, ctx)?)
            }
            Operator::CountValues(op) => Value::Vector(op.apply(&args.vector()?, ctx)?),
            Operator::HistogramQuantile(op) => {
                let block = args.vector()?;
                Value::Vector(op.apply(block, &args.scalars()?, ctx)?)
            }
            Operator::LabelRewrite(op) => Value::Vector(op.apply(args.vector()?, ctx)?),
            Operator::Sort(op) => Value::Vector(op.apply(args.vector()?, ctx)?),
            Operator::Info(op) => {
                let block = args.vector()?;
                Value::Vector(op.apply(block, &args.vector()?, ctx)?)
            }
        })
    }

    /// An empty partial result of a [`Split::Partial`] node.
    pub fn new_partial(&self) -> Result<Partial, EvalError> {
        match &self.operator {
            Operator::Aggregate(op) => Ok(Partial::Groups(Box::new(op.start(self.steps)))),
            Operator::Absent(_) => Ok(Partial::Present(vec![0; self.steps.words()])),
            _ => Err(EvalError::Internal("the operator has no partial form")),
        }
    }

    /// Adds a part of the input's series to a partial result.
    pub fn partial(&self, into: &mut Partial, part: StepBlock, ctx: &EvalContext) -> Result<(), EvalError> {
        match (&self.operator, into) {
            (Operator::Aggregate(op), Partial::Groups(groups)) => op.add(groups, &part, ctx),
            (Operator::Absent(_), Partial::Present(any)) => {
                crate::bits::or_into(any, &part.any_present());
                Ok(())
            }
            _ => Err(EvalError::Internal("a partial result of another operator")),
        }
    }

    /// The result of a [`Split::Partial`] node, once every part is in.
    pub fn finish(&self, partial: Partial, ctx: &EvalContext) -> Result<Value, EvalError> {
        match (&self.operator, partial) {
            (Operator::Aggregate(op), Partial::Groups(groups)) => Ok(Value::Vector(op.finish(*groups, ctx)?)),
            (Operator::Absent(op), Partial::Present(any)) => Ok(Value::Vector(op.finish(&any, self.steps))),
            _ => Err(EvalError::Internal("a partial result of another operator")),
        }
    }
}

use crate::{block::StepBlock, value::RawSeries, value::Scalars};

/// The inputs of one application, taken in order and by type.
struct Inputs(std::vec::IntoIter<Value>);

impl Inputs {
    fn next(&mut self) -> Result<Value, EvalError> {
        self.0.next().ok_or(EvalError::Internal("an input is missing"))
    }

    fn vector(&mut self) -> Result<StepBlock, EvalError> {
        match self.next()? {
            Value::Vector(b) => Ok(b),
            _ => Err(EvalError::Internal("an input is not an instant vector")),
        }
    }

    fn series(&mut self) -> Result<RawSeries, EvalError> {
        match self.next()? {
            Value::Series(s) => Ok(s),
            _ => Err(EvalError::Internal("an input is not raw samples")),
        }
    }

    fn scalar(&mut self) -> Result<Scalars, EvalError> {
        match self.next()? {
            Value::Scalar(s) => Ok(s),
            _ => Err(EvalError::Internal("an input is not a scalar")),
        }
    }

    fn scalars(&mut self) -> Result<Vec<Scalars>, EvalError> {
        let mut out = Vec::with_capacity(self.0.len());
        while self.0.len() > 0 {
            out.push(self.scalar()?);
        }
        Ok(out)
    }

    fn rest(&mut self) -> Vec<Value> {
        self.0.by_ref().collect()
    }
}
