//! What an operator takes and gives.

use std::sync::Arc;

use sextant_model::SeriesSet;

use crate::{block::StepBlock, steps::Steps};

/// One number per step.
#[derive(Clone, Debug, PartialEq)]
pub struct Scalars {
    /// The grid.
    pub steps: Steps,
    /// One value per step.
    pub values: Vec<f64>,
}

/// Raw samples: what a leaf reads and what a subquery gives. Shared, as several operators may use one leaf.
#[derive(Clone, Debug, Default)]
pub struct RawSeries {
    /// The samples. A leaf's series are unique and in order; a subquery's need not be.
    pub set: Arc<SeriesSet>,
    /// Per series, whether its name goes when the query ends; empty where none does.
    pub drop_name: Arc<[bool]>,
}

/// A column-shaped value between two operators.
#[derive(Clone, Debug)]
pub enum Value {
    /// Raw samples.
    Series(RawSeries),
    /// An instant vector per step.
    Vector(StepBlock),
    /// A number per step.
    Scalar(Scalars),
    /// A string.
    String(Arc<str>),
}

impl RawSeries {
    /// What a leaf reads.
    pub fn new(set: SeriesSet) -> Self {
        Self { set: Arc::new(set), drop_name: Arc::default() }
    }

    /// Whether the name of a series goes when the query ends.
    pub fn drops_name(&self, series: usize) -> bool {
        self.drop_name.get(series).copied().unwrap_or(false)
    }
}

impl Value {
    /// How many samples it holds.
    pub fn sample_count(&self) -> usize {
        match self {
            Self::Series(s) => s.set.sample_count(),
            Self::Vector(b) => b.sample_count(),
            Self::Scalar(s) => s.values.len(),
            Self::String(_) => 0,
        }
    }
}

impl Scalars {
    /// The same number at each step.
    pub fn constant(steps: Steps, v: f64) -> Self {
        Self { steps, values: vec![v; steps.count] }
    }
}
