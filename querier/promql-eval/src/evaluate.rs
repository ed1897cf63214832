//! Driving a plan without an engine: for tests, tools, and comparison with one.

use std::{collections::HashMap, sync::Arc};

use sextant_model::SeriesSet;

use crate::{
    context::EvalContext,
    error::EvalError,
    node::{Node, Operator, Split},
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
///
/// `max_samples` bounds what operators hold, as in Prometheus: what a leaf reads is the provider's to bound.
pub fn evaluate(
    plan: &Plan,
    provider: &dyn SeriesProvider,
    ctx: &EvalContext,
) -> Result<QueryResult, EvalError> {
    let mut driver = Driver { provider, ctx, leaves: HashMap::new() };
    let value = driver.value(&plan.root)?;
    finish(plan, value, ctx)
}

/// Series per part of [`Driver::in_parts`].
const PART: usize = 128;

struct Driver<'a> {
    provider: &'a dyn SeriesProvider,
    ctx: &'a EvalContext,
    leaves: HashMap<usize, RawSeries>,
}

impl Driver<'_> {
    /// Children before parents, with a stack of its own: plans may be as deep as expressions are long.
    fn value(&mut self, root: &Arc<Node>) -> Result<Value, EvalError> {
        let mut open: Vec<(&Arc<Node>, Vec<Value>)> = Vec::new();
        let mut next = Some(root);
        loop {
            if let Some(node) = next {
                self.ctx.cancel.check()?;
                match (self.at_once(node)?, open.last_mut()) {
                    (Some(value), None) => return Ok(value),
                    (Some(value), Some((_, inputs))) => inputs.push(value),
                    (None, _) => open.push((node, Vec::with_capacity(node.children.len()))),
                }
            }
            let Some((node, inputs)) = open.last_mut() else {
                return Err(EvalError::Internal("no operator is left"));
            };
            next = node.children.get(inputs.len());
            if next.is_some() {
                continue;
            }
            let (node, inputs) = (*node, std::mem::take(inputs));
            open.pop();
            let value = self.apply(node, inputs)?;
            match open.last_mut() {
                None => return Ok(value),
                Some((_, inputs)) => inputs.push(value),
            }
        }
    }

    /// The value of a leaf, and of an aggregation that can be computed in parts; `None` where the inputs are needed.
    fn at_once(&mut self, node: &Arc<Node>) -> Result<Option<Value>, EvalError> {
        match &node.operator {
            Operator::Select(select) => self.leaf(select).map(|s| Some(Value::Series(s))),
            _ if node.split() == Split::Partial => self.in_parts(node),
            _ => Ok(None),
        }
    }

    fn apply(&mut self, node: &Arc<Node>, inputs: Vec<Value>) -> Result<Value, EvalError> {
        let raw = node.children.iter().map(|c| is_raw(c));
        let held: usize = inputs.iter().zip(raw).filter(|(_, raw)| !raw).map(|(v, _)| v.sample_count()).sum();
        let value = node.apply(inputs, self.ctx)?;
        if is_raw(node) {
            return Ok(value);
        }
        // These only put the same samples into another form.
        if matches!(node.operator, Operator::Broadcast | Operator::Subquery(_)) {
            self.ctx.release(held);
            self.ctx.hold(value.sample_count())?;
        } else {
            self.ctx.hold(value.sample_count())?;
            self.ctx.release(held);
        }
        Ok(value)
    }

    /// An aggregation over per-series operators over a leaf, some series at a time: what is in between stays small and
    /// in the cache. `None` where the operators below are others.
    fn in_parts(&mut self, node: &Arc<Node>) -> Result<Option<Value>, EvalError> {
        let mut chain = Vec::new();
        let mut at = node.children.first().ok_or(EvalError::Internal("an aggregation of nothing"))?;
        while at.is_per_series() {
            let mut others = Vec::new();
            for child in at.children.iter().skip(1) {
                others.push(self.value(child)?);
            }
            chain.push((at, others));
            match at.children.first() {
                Some(child) => at = child,
                None => return Ok(None),
            }
        }
        let Some(select) = at.as_select() else { return Ok(None) };
        let raw = self.leaf(select)?;
        let mut partial = node.new_partial()?;
        for start in (0..raw.len()).step_by(PART) {
            let mut value = Value::Series(raw.slice(start..start + PART));
            let mut held = 0;
            for (node, others) in chain.iter().rev() {
                let mut inputs = vec![value];
                inputs.extend(others.iter().cloned());
                value = node.apply(inputs, self.ctx)?;
                if !is_raw(node) {
                    self.ctx.release(held);
                    held = value.sample_count();
                    self.ctx.hold(held)?;
                }
            }
            let Value::Vector(block) = value else {
                return Err(EvalError::Internal("not an instant vector"));
            };
            node.partial(&mut partial, block, self.ctx)?;
            self.ctx.release(held);
        }
        let value = node.finish(partial, self.ctx)?;
        self.ctx.hold(value.sample_count())?;
        Ok(Some(value))
    }

    fn leaf(&mut self, select: &Select) -> Result<RawSeries, EvalError> {
        if let Some(known) = self.leaves.get(&select.id) {
            return Ok(known.clone());
        }
        let series = RawSeries::new(self.provider.select(select)?);
        self.leaves.insert(select.id, series.clone());
        Ok(series)
    }
}

/// Whether a node gives what the provider has read.
fn is_raw(node: &Node) -> bool {
    matches!(node.operator, Operator::Select(_) | Operator::Totals(_))
}
