//! Late removal of metric names, and series that become equal by it.

use std::{collections::HashMap, sync::Arc};

use sextant_model::{Labels, METRIC_NAME, SeriesBuf, SeriesSet};

use crate::{
    bits, block::StepBlock, cancel::sort_by, context::EvalContext, error::EvalError, value::RawSeries,
};

/// Work for a label set that is looked up.
const UNITS_PER_LABELS: usize = 32;

/// Whether a label describes the metric, not the series: it goes where an operator changes what the metric means.
pub fn is_metadata(name: &str) -> bool {
    name == METRIC_NAME || name == "__type__" || name == "__unit__"
}

/// The labels without those that describe the metric.
pub fn without_metadata(labels: &Labels) -> Labels {
    labels.filter(|n| !is_metadata(n))
}

/// Removes the names that are to go and merges rows that are equal then.
pub fn finish(mut block: StepBlock, ctx: &EvalContext) -> Result<StepBlock, EvalError> {
    let pace = ctx.cancel.pace();
    for i in 0..block.len() {
        pace.spend(UNITS_PER_LABELS)?;
        if block.drop_name[i] {
            block.labels[i] = without_metadata(&block.labels[i]);
            block.drop_name[i] = false;
        }
    }
    merge_same_labels(block, ctx)
}

/// Merges rows with equal labels. An error where two of them have a value at one step.
pub fn merge_same_labels(mut block: StepBlock, ctx: &EvalContext) -> Result<StepBlock, EvalError> {
    // A row without a value says nothing of its name.
    block.drop_empty_rows();
    let mut first: HashMap<&Labels, usize> = HashMap::with_capacity(block.len());
    let mut target = Vec::with_capacity(block.len());
    let pace = ctx.cancel.pace();
    for (i, labels) in block.labels.iter().enumerate() {
        pace.spend(UNITS_PER_LABELS)?;
        target.push(*first.entry(labels).or_insert(i));
    }
    if target.iter().enumerate().all(|(i, &t)| i == t) {
        return Ok(block);
    }
    let keep: Vec<usize> = (0..block.len()).filter(|&i| target[i] == i).collect();
    let mut out = block.take_rows(&keep);
    for i in (0..block.len()).filter(|&i| target[i] != i) {
        ctx.cancel.check()?;
        let row = keep.binary_search(&target[i]).map_err(|_| EvalError::Internal("a lost row"))?;
        if bits::intersects(out.present_row(row), block.present_row(i)) {
            return Err(EvalError::same_labelset());
        }
        for step in bits::ones(block.present_row(i)) {
            if let Some(cell) = block.row(i).get(step) {
                out.set(row, step, cell);
            }
        }
        out.drop_name[row] |= block.drop_name[i];
    }
    Ok(out)
}

/// The same for raw samples; the result is in order of labels.
pub fn finish_raw(raw: &RawSeries, ctx: &EvalContext) -> Result<Arc<SeriesSet>, EvalError> {
    let set = &raw.set;
    let whole = raw.rows == (0..set.len());
    if whole && raw.drop_name.is_empty() && set.labels.windows(2).all(|w| w[0] < w[1]) {
        return Ok(set.clone());
    }
    let label = |i: usize| {
        if raw.drops_name(i) { without_metadata(&set.labels[i]) } else { set.labels[i].clone() }
    };
    let labels: Vec<Labels> = raw.rows.clone().map(label).collect();
    let mut order: Vec<usize> = (0..labels.len()).collect();
    sort_by(&mut order, &ctx.cancel, |a, b| labels[a].cmp(&labels[b]))?;
    let mut out = SeriesSet::new();
    for same in order.chunk_by(|&a, &b| labels[a] == labels[b]) {
        ctx.cancel.check()?;
        let mut samples: Vec<(i64, f64)> = Vec::new();
        let mut buf = SeriesBuf::default();
        for i in same.iter().map(|i| raw.rows.start + i) {
            let (t, v) = set.floats(i);
            samples.extend(t.iter().copied().zip(v.iter().copied()));
            buf.h.extend_from_slice(set.histograms(i));
        }
        samples.sort_by_key(|(t, _)| *t);
        buf.h.sort_by_key(|h| h.t);
        let twice =
            samples.windows(2).any(|w| w[0].0 == w[1].0) || buf.h.windows(2).any(|w| w[0].t == w[1].t);
        if twice {
            return Err(EvalError::same_labelset());
        }
        (buf.t, buf.v) = samples.into_iter().unzip();
        out.push(labels[same[0]].clone(), &buf);
    }
    Ok(Arc::new(out))
}
