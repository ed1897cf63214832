//! `info`: adds the data labels of info metrics of the same target to series.

use std::collections::{HashMap, HashSet};

use sextant_model::{Labels, LabelsBuilder, METRIC_NAME, Matcher};

use crate::{bits, block::StepBlock, context::EvalContext, error::EvalError, names};

/// The labels that tell targets apart.
const IDENTIFYING: [&str; 2] = ["instance", "job"];

/// Enriches a vector. The second input has the info series; their values are the timestamps of their samples.
#[derive(Clone, Debug)]
pub struct Info {
    /// The matchers on the name of info metrics.
    names: Vec<Matcher>,
    /// The matchers on data labels; only these labels are added where there are any.
    data: Vec<Matcher>,
}

impl Info {
    /// `wanted` are the matchers of the info series, `given` those of the query.
    pub(crate) fn new(wanted: &[Matcher], given: &[Matcher]) -> Self {
        Self {
            names: wanted.iter().filter(|m| m.name == METRIC_NAME).cloned().collect(),
            data: given.iter().filter(|m| m.name != METRIC_NAME).cloned().collect(),
        }
    }

    /// Adds labels step by step, as which info series is current may change.
    pub fn apply(
        &self,
        base: StepBlock,
        info: &StepBlock,
        ctx: &EvalContext,
    ) -> Result<StepBlock, EvalError> {
        // The info series of each target, by metric name.
        let mut targets: HashMap<Labels, Vec<(&str, Vec<usize>)>> = HashMap::new();
        for (i, labels) in info.labels.iter().enumerate() {
            ctx.cancel.check()?;
            let of = targets.entry(target(labels)).or_default();
            let name = labels.metric_name();
            match of.iter_mut().find(|(n, _)| *n == name) {
                Some((_, rows)) => rows.push(i),
                None => of.push((name, vec![i])),
            }
        }
        let mut out = StepBlock::new(base.steps);
        let mut rows: HashMap<(Labels, bool), usize> = HashMap::new();
        let pace = ctx.cancel.pace();
        for i in 0..base.len() {
            ctx.cancel.check()?;
            let labels = &base.labels[i];
            let is_info = self.names.iter().all(|m| m.matches(labels.metric_name()));
            let of = if is_info { None } else { targets.get(&target(labels)) };
            let mut last: Option<(Vec<usize>, Option<usize>)> = None;
            for step in bits::ones(base.present_row(i)) {
                pace.spend(of.map_or(1, |of| of.iter().map(|(_, rows)| 4 + rows.len()).sum()))?;
                let current = of.map_or_else(|| Ok(Vec::new()), |of| current(of, info, step))?;
                let row = match &last {
                    Some((same, row)) if *same == current => *row,
                    _ => {
                        let enriched =
                            if is_info { Some(labels.clone()) } else { self.enrich(labels, &current, info)? };
                        ctx.check_cells(out.len() + 1, out.steps.count)?;
                        pace.spend(256)?;
                        enriched.map(|enriched| {
                            let drop_name = base.drop_name[i];
                            *rows.entry((enriched.clone(), drop_name)).or_insert_with(|| {
                                out.push_empty(enriched, drop_name);
                                out.len() - 1
                            })
                        })
                    }
                };
                last = Some((current, row));
                let (Some(row), Some(cell)) = (row, base.row(i).get(step)) else { continue };
                if bits::get(out.present_row(row), step) {
                    return Err(EvalError::same_labelset());
                }
                out.set(row, step, cell);
            }
        }
        names::merge_same_labels(out, ctx)
    }

    /// The labels of a series with those of its current info series; `None` where a matcher wants labels that no info
    /// series has.
    fn enrich(
        &self,
        labels: &Labels,
        current: &[usize],
        info: &StepBlock,
    ) -> Result<Option<Labels>, EvalError> {
        if current.is_empty() && self.data.iter().any(|m| !m.matches_empty()) {
            return Ok(None);
        }
        let wanted: HashSet<&str> = self.data.iter().map(|m| m.name.as_str()).collect();
        let mut added = LabelsBuilder::default();
        for &row in current {
            for (n, v) in info.labels[row].iter() {
                if n == METRIC_NAME || (!wanted.is_empty() && !wanted.contains(n)) {
                    continue;
                }
                if added.get(n).is_some_and(|old| old != v) {
                    return Err(EvalError::execution(format!("conflicting label: {n}")));
                }
                if labels.get(n).is_none() {
                    added.set(n, v);
                }
            }
        }
        let mut builder = labels.to_builder();
        for (n, v) in added.iter() {
            builder.set(n, v);
        }
        Ok(Some(builder.build()))
    }
}

fn target(labels: &Labels) -> Labels {
    labels.filter(|n| IDENTIFYING.contains(&n))
}

/// The newest series of each info metric at a step.
fn current(of: &[(&str, Vec<usize>)], info: &StepBlock, step: usize) -> Result<Vec<usize>, EvalError> {
    let mut current = Vec::with_capacity(of.len());
    for (name, rows) in of {
        let mut best: Option<(f64, usize)> = None;
        for &row in rows.iter().filter(|&&row| bits::get(info.present_row(row), step)) {
            let t = info.row(row).values[step];
            match best {
                Some((b, _)) if b == t => {
                    return Err(EvalError::execution(format!(
                        "found duplicate series for info metric {name}"
                    )));
                }
                Some((b, _)) if b > t => {}
                _ => best = Some((t, row)),
            }
        }
        current.extend(best.map(|(_, row)| row));
    }
    Ok(current)
}
