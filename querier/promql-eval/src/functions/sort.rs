//! `sort`, `sort_desc`, `sort_by_label`, `sort_by_label_desc`.

use std::cmp::Ordering;

use sextant_promql::PosRange;

use super::natural;
use crate::{bits, block::StepBlock, cancel::sort_by, context::EvalContext, error::EvalError};

/// What is sorted by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SortKey {
    /// The value; NaN comes last either way, histograms drop out.
    Value,
    /// These labels one after the other, numbers inside of texts by value, then all labels.
    Labels(Vec<String>),
}

/// Orders the series of an instant query.
#[derive(Clone, Debug)]
pub struct Sort {
    /// By what.
    pub key: SortKey,
    /// Largest first.
    pub descending: bool,
    /// The steps are those of a range query, whose answer is in order of labels whatever this does.
    pub several_steps: bool,
    /// The call, for annotations.
    pub pos: PosRange,
}

impl Sort {
    /// The function's name.
    pub fn name(&self) -> &'static str {
        match (&self.key, self.descending) {
            (SortKey::Value, false) => "sort",
            (SortKey::Value, true) => "sort_desc",
            (SortKey::Labels(_), false) => "sort_by_label",
            (SortKey::Labels(_), true) => "sort_by_label_desc",
        }
    }

    /// The same rows in order.
    pub fn apply(&self, mut block: StepBlock, ctx: &EvalContext) -> Result<StepBlock, EvalError> {
        if self.several_steps {
            ctx.annotations.sort_in_range_query(self.pos);
        }
        if self.key == SortKey::Value && block.histograms.is_some() {
            for i in 0..block.len() {
                ctx.cancel.check()?;
                for step in 0..block.steps.count {
                    if block.row(i).histogram(step).is_some() {
                        block.clear(i, step);
                    }
                }
            }
            block.drop_empty_rows();
        }
        if block.steps.count != 1 {
            return Ok(block);
        }
        block.drop_empty_rows();
        let mut order: Vec<usize> = (0..block.len()).filter(|&i| bits::any(block.present_row(i))).collect();
        sort_by(&mut order, &ctx.cancel, |a, b| match &self.key {
            SortKey::Value => self.by_value(block.values[a], block.values[b]),
            SortKey::Labels(names) => {
                let by_names = names.iter().map(|n| {
                    let get = |i: usize| block.labels[i].get(n).unwrap_or("");
                    natural::compare(get(a), get(b))
                });
                let order = by_names
                    .fold(Ordering::Equal, Ordering::then)
                    .then_with(|| block.labels[a].cmp(&block.labels[b]));
                if self.descending { order.reverse() } else { order }
            }
        })?;
        Ok(block.take_rows(&order))
    }

    fn by_value(&self, a: f64, b: f64) -> Ordering {
        match (a.is_nan(), b.is_nan()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            (false, false) => {
                let order = a.partial_cmp(&b).unwrap_or(Ordering::Equal);
                if self.descending { order.reverse() } else { order }
            }
        }
    }
}
