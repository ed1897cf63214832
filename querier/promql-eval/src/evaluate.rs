//! Driving a plan without an engine: for tests, tools, and comparison with one.

use std::{collections::HashMap, sync::Arc};

use sextant_model::SeriesSet;

use crate::{
    context::EvalContext,
    error::EvalError,
    node::{Node, Operator},
    plan::Plan,
    result::{QueryResult, finish},
    select::Select,
    value::{RawSeries, Value},
};

/// A source of raw samples.
pub trait SeriesProvider {
    /// Every series that matches with its samples from `select.start_ms` to `select.end_ms`, both inclusive. Series
    /// without a sample in that time may be left out; more samples than asked for do no harm.
    fn select(&self, select: &Select) -> Result<SeriesSet, EvalError>;
}

/// Evaluates a plan on the calling thread.
pub fn evaluate(
    plan: &Plan,
    provider: &dyn SeriesProvider,
    ctx: &EvalContext,
) -> Result<QueryResult, EvalError> {
    let mut driver = Driver { provider, ctx, leaves: HashMap::new() };
    let value = driver.value(&plan.root)?;
    finish(plan, value)
}

struct Driver<'a> {
    provider: &'a dyn SeriesProvider,
    ctx: &'a EvalContext,
    leaves: HashMap<usize, RawSeries>,
}

impl Driver<'_> {
    fn value(&mut self, node: &Arc<Node>) -> Result<Value, EvalError> {
        self.ctx.cancel.check()?;
        if let Operator::Select(select) = &node.operator {
            return self.leaf(select).map(Value::Series);
        }
        let mut inputs = Vec::with_capacity(node.children.len());
        for child in &node.children {
            inputs.push(self.value(child)?);
        }
        let held: usize = inputs.iter().map(intermediate_samples).sum();
        let value = node.apply(inputs, self.ctx)?;
        self.ctx.hold(intermediate_samples(&value))?;
        self.ctx.release(held);
        Ok(value)
    }

    fn leaf(&mut self, select: &Select) -> Result<RawSeries, EvalError> {
        if let Some(known) = self.leaves.get(&select.id) {
            return Ok(known.clone());
        }
        let series = RawSeries::new(self.provider.select(select)?);
        self.ctx.hold(series.set.sample_count())?;
        self.leaves.insert(select.id, series.clone());
        Ok(series)
    }
}

/// Leaves are counted once, when they are read.
fn intermediate_samples(value: &Value) -> usize {
    match value {
        Value::Series(_) => 0,
        other => other.sample_count(),
    }
}
