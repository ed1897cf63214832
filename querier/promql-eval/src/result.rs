//! The end of a query: names go, colliding series are found, and the answer takes its form.

use std::sync::Arc;

use sextant_model::{Labels, SeriesSet};

use crate::{
    block::{Cell, StepBlock},
    cancel::sort_by,
    context::EvalContext,
    error::EvalError,
    names,
    params::QueryKind,
    plan::Plan,
    value::{Scalars, Value},
};

/// A query's answer, still as columns.
#[derive(Clone, Debug)]
pub enum QueryResult {
    /// A number at one time.
    Scalar {
        /// The evaluation time, milliseconds.
        t_ms: i64,
        /// The number.
        v: f64,
    },
    /// A string at one time.
    String {
        /// The evaluation time, milliseconds.
        t_ms: i64,
        /// The string.
        s: Arc<str>,
    },
    /// An instant vector: one step, rows in the order of the answer, every row present.
    Vector(StepBlock),
    /// A matrix: rows in order of their labels, none of them without a value.
    Matrix(StepBlock),
    /// The raw samples of a range selector or a subquery at the top of an instant query, in order of labels.
    Raw(Arc<SeriesSet>),
}

/// One series of a matrix, row-shaped: a convenience for printing and tests.
#[derive(Clone, Debug)]
pub struct MatrixSeries {
    /// Its labels.
    pub labels: Labels,
    /// Its points in order of time.
    pub points: Vec<(i64, Cell)>,
}

/// Removes names, finds collisions, sorts and shapes the root's value.
pub fn finish(plan: &Plan, value: Value, ctx: &EvalContext) -> Result<QueryResult, EvalError> {
    let t_ms = plan.steps.start_ms;
    Ok(match (plan.kind, value) {
        (_, Value::String(s)) => QueryResult::String { t_ms, s },
        (QueryKind::Instant, Value::Scalar(s)) => {
            QueryResult::Scalar { t_ms, v: s.values.first().copied().unwrap_or(f64::NAN) }
        }
        (QueryKind::Range, Value::Scalar(s)) => QueryResult::Matrix(scalar_matrix(s)),
        (kind, Value::Vector(mut block)) => {
            block.drop_empty_rows();
            let mut block = names::finish(block, ctx)?;
            if kind == QueryKind::Instant {
                return Ok(QueryResult::Vector(block));
            }
            let mut order: Vec<usize> = (0..block.len()).collect();
            if !block.labels.is_sorted() {
                sort_by(&mut order, &ctx.cancel, |a, b| block.labels[a].cmp(&block.labels[b]))?;
                block = block.take_rows(&order);
            }
            QueryResult::Matrix(block)
        }
        (_, Value::Series(raw)) => QueryResult::Raw(names::finish_raw(&raw, ctx)?),
    })
}

fn scalar_matrix(s: Scalars) -> StepBlock {
    StepBlock {
        steps: s.steps,
        labels: vec![Labels::empty()],
        drop_name: vec![false],
        present: crate::bits::full(s.steps.count),
        values: s.values,
        histograms: None,
    }
}

impl QueryResult {
    /// The word of the HTTP API: `scalar`, `string`, `vector` or `matrix`.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Scalar { .. } => "scalar",
            Self::String { .. } => "string",
            Self::Vector(_) => "vector",
            Self::Matrix(_) | Self::Raw(_) => "matrix",
        }
    }

    /// The series of a vector or a matrix, row-shaped; none for scalars and strings.
    pub fn series(&self) -> Vec<MatrixSeries> {
        match self {
            Self::Scalar { .. } | Self::String { .. } => Vec::new(),
            Self::Vector(b) | Self::Matrix(b) => (0..b.len())
                .map(|i| MatrixSeries {
                    labels: b.labels[i].clone(),
                    points: crate::bits::ones(b.present_row(i))
                        .filter_map(|s| Some((b.steps.at(s), b.row(i).get(s)?)))
                        .collect(),
                })
                .collect(),
            Self::Raw(set) => (0..set.len()).map(|i| raw_series(set, i)).collect(),
        }
    }
}

fn raw_series(set: &SeriesSet, i: usize) -> MatrixSeries {
    let (t, v) = set.floats(i);
    let mut points: Vec<(i64, Cell)> = t.iter().zip(v).map(|(&t, &v)| (t, Cell::Float(v))).collect();
    points.extend(set.histograms(i).iter().map(|h| (h.t, Cell::Histogram(Arc::new(h.h.clone())))));
    points.sort_by_key(|(t, _)| *t);
    MatrixSeries { labels: set.labels[i].clone(), points }
}
