//! Aggregations whose partial results can be merged: `sum`, `avg`, `count`, `min`, `max`, `group`, `stddev`, `stdvar`.
//!
//! A group's state is a few rows of numbers, one per step; adding a series is a loop over two rows. Sums are
//! compensated, so that merging partial results gives what one pass gives, but for the last bit.

mod state;

use sextant_promql::{AggregateOp, PosRange};

use crate::{
    annotations::HistogramOp, bits, block::StepBlock, context::EvalContext, error::EvalError,
    groups::Grouping, steps::Steps, value::histogram_cost,
};
pub use state::Groups;

/// The mergeable aggregations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AggregateKind {
    /// `sum`
    Sum,
    /// `avg`
    Avg,
    /// `count`
    Count,
    /// `min`
    Min,
    /// `max`
    Max,
    /// `group`
    Group,
    /// `stddev`
    Stddev,
    /// `stdvar`
    Stdvar,
}

impl AggregateKind {
    /// The kind of an operator that has a mergeable form.
    pub fn of(op: AggregateOp) -> Option<Self> {
        Some(match op {
            AggregateOp::Sum => Self::Sum,
            AggregateOp::Avg => Self::Avg,
            AggregateOp::Count => Self::Count,
            AggregateOp::Min => Self::Min,
            AggregateOp::Max => Self::Max,
            AggregateOp::Group => Self::Group,
            AggregateOp::Stddev => Self::Stddev,
            AggregateOp::Stdvar => Self::Stdvar,
            _ => return None,
        })
    }

    /// The operator's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sum => "sum",
            Self::Avg => "avg",
            Self::Count => "count",
            Self::Min => "min",
            Self::Max => "max",
            Self::Group => "group",
            Self::Stddev => "stddev",
            Self::Stdvar => "stdvar",
        }
    }
}

/// An aggregation of groups of series.
#[derive(Clone, Debug)]
pub struct Aggregate {
    /// Which one.
    pub kind: AggregateKind,
    /// Which series go together.
    pub grouping: Grouping,
    /// The aggregated expression, for annotations.
    pub pos: PosRange,
}

/// A partial result, of a part of the series. [`Partial::merge`] puts two together.
#[derive(Debug)]
pub enum Partial {
    /// Of an aggregation.
    Groups(Box<Groups>),
    /// Of `absent`: per step, whether any series has a value.
    Present(Vec<u64>),
}

impl Partial {
    /// Adds another partial result of the same node.
    pub fn merge(&mut self, other: Partial) -> Result<(), EvalError> {
        match (self, other) {
            (Self::Groups(a), Self::Groups(b)) => a.merge(*b),
            (Self::Present(a), Self::Present(b)) => {
                bits::or_into(a, &b);
                Ok(())
            }
            _ => Err(EvalError::Internal("partial results of different operators")),
        }
    }
}

impl Aggregate {
    /// No group yet.
    pub fn start(&self, steps: Steps) -> Groups {
        Groups::new(self.kind, steps)
    }

    /// Adds series.
    pub fn add(&self, groups: &mut Groups, block: &StepBlock, ctx: &EvalContext) -> Result<(), EvalError> {
        groups.cancel.get_or_insert_with(|| ctx.cancel.clone());
        for i in 0..block.len() {
            ctx.cancel.check()?;
            let row = block.row(i);
            if !bits::any(row.present) {
                continue;
            }
            let group = groups.group(&self.grouping, &block.labels[i]);
            ctx.check_cells(group + 1, block.steps.count)?;
            groups.drop_name[group] |= block.drop_name[i];
            if row.has_histogram() {
                self.add_mixed_row(groups, group, block, i, ctx)?;
            } else {
                groups.add_floats(group, row.values, row.present);
            }
        }
        Ok(())
    }

    /// Adds a row in which some cells are histograms.
    fn add_mixed_row(
        &self,
        groups: &mut Groups,
        group: usize,
        block: &StepBlock,
        i: usize,
        ctx: &EvalContext,
    ) -> Result<(), EvalError> {
        use AggregateKind as K;
        let row = block.row(i);
        let pace = ctx.cancel.pace();
        for step in bits::ones(row.present) {
            pace.spend(row.histogram(step).map_or(4, |h| 16 * histogram_cost(h)))?;
            match (row.histogram(step), self.kind) {
                (None, _) => groups.add_float(group, step, row.values[step]),
                // These do not look at the value.
                (Some(_), K::Count | K::Group) => groups.add_float(group, step, 1.0),
                (Some(h), K::Sum | K::Avg) => {
                    if groups.add_histogram(group, step, h).is_err() {
                        ctx.annotations.mixed_exponential_custom(block.labels[i].metric_name(), self.pos);
                    }
                }
                (Some(_), K::Min | K::Max | K::Stddev | K::Stdvar) => {
                    ctx.annotations.histogram_ignored_in_aggregation(self.kind.name(), self.pos);
                }
            }
        }
        Ok(())
    }

    /// The groups' values.
    pub fn finish(&self, groups: Groups, ctx: &EvalContext) -> Result<StepBlock, EvalError> {
        let mut notes = state::Notes::default();
        let block = groups.finish(&mut notes, ctx)?;
        if notes.mixed {
            ctx.annotations.mixed_floats_histograms_in_aggregation(self.pos);
        }
        if notes.collided {
            ctx.annotations.counter_reset_collision(HistogramOp::Aggregation, self.pos);
        }
        if notes.reconciled {
            ctx.annotations.mismatched_custom_buckets(HistogramOp::Aggregation, self.pos);
        }
        Ok(block)
    }
}
