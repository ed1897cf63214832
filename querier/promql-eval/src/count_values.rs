//! `count_values`: how many series of a group have each value.

use std::collections::HashMap;

use sextant_model::Labels;

use crate::{
    bits,
    block::{Cell, StepBlock},
    context::EvalContext,
    error::EvalError,
    format::plain_float,
    groups::Grouping,
};

/// Work for a value that becomes a label.
const UNITS_PER_LABELS: usize = 128;

/// `count_values("label", vector)`.
#[derive(Clone, Debug)]
pub struct CountValues {
    /// The label that takes the value.
    pub label: String,
    grouping: Grouping,
}

impl CountValues {
    /// An error where the label cannot be one.
    pub fn new(label: String, grouping: Grouping) -> Result<Self, EvalError> {
        if label.is_empty() {
            return Err(EvalError::execution(format!("invalid label name {label:?}")));
        }
        let grouping = grouping.with_label(&label);
        Ok(Self { label, grouping })
    }

    /// As in a query.
    pub fn describe(&self) -> String {
        format!("count_values(\"{}\"){}", self.label, self.grouping.describe())
    }

    /// One series per group and value.
    pub fn apply(&self, block: &StepBlock, ctx: &EvalContext) -> Result<StepBlock, EvalError> {
        let mut out = StepBlock::new(block.steps);
        let mut rows: HashMap<Labels, usize> = HashMap::new();
        let pace = ctx.cancel.pace();
        for i in 0..block.len() {
            ctx.cancel.check()?;
            // Values often repeat from step to step: the row of the last value is kept.
            let mut last: Option<(u64, usize)> = None;
            let row = block.row(i);
            for step in bits::ones(row.present) {
                let Some(cell) = row.get(step) else { continue };
                let target = match (&cell, last) {
                    (Cell::Float(v), Some((bits, target))) if v.to_bits() == bits => target,
                    _ => {
                        pace.spend(UNITS_PER_LABELS)?;
                        ctx.check_cells(rows.len() + 1, out.steps.count)?;
                        let text = match &cell {
                            Cell::Float(v) => plain_float(*v),
                            Cell::Histogram(h) => h.to_string(),
                        };
                        let mut labels = block.labels[i].to_builder();
                        let labels = self.grouping.labels_of(&labels.set(&self.label, &text).build());
                        *rows.entry(labels.clone()).or_insert_with(|| {
                            out.push_empty(labels, false);
                            out.len() - 1
                        })
                    }
                };
                last = match cell {
                    Cell::Float(v) => Some((v.to_bits(), target)),
                    Cell::Histogram(_) => None,
                };
                let count = out.row(target).values[step];
                out.set_float(target, step, count + 1.0);
            }
        }
        Ok(out)
    }
}
