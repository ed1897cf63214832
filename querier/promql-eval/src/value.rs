//! What an operator takes and gives.

use std::{ops::Range, sync::Arc};

use sextant_model::{Histogram, Labels, SeriesSet};

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
    /// Per series of the set, whether its name goes when the query ends; empty where none does.
    pub drop_name: Arc<[bool]>,
    /// The part of the set that is meant: a part is made without copying samples.
    pub rows: Range<usize>,
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
    /// All series of a set, with their names.
    pub fn new(set: impl Into<Arc<SeriesSet>>) -> Self {
        Self::with_dropped_names(set, Arc::default())
    }

    /// All series of a set; `drop_name` is empty or has one entry per series.
    pub fn with_dropped_names(set: impl Into<Arc<SeriesSet>>, drop_name: Arc<[bool]>) -> Self {
        let set = set.into();
        let rows = 0..set.len();
        Self { set, drop_name, rows }
    }

    /// How many series are meant.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether no series is meant.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// How many samples it counts for against `max_samples`.
    pub fn held_samples(&self) -> usize {
        let histograms = |i| self.set.histograms(i).iter().map(|h| histogram_cost(&h.h)).sum::<usize>();
        self.rows.clone().map(|i| self.set.floats(i).0.len() + histograms(i)).sum()
    }

    /// Series `rows` of this part.
    pub fn slice(&self, rows: Range<usize>) -> Self {
        let start = self.rows.start;
        let end = (start + rows.end).min(self.rows.end);
        Self { rows: (start + rows.start).min(end)..end, ..self.clone() }
    }

    /// The labels of each series.
    pub fn labels(&self) -> &[Labels] {
        &self.set.labels[self.rows.clone()]
    }

    /// Whether the name of series `i` of the set goes when the query ends.
    pub fn drops_name(&self, i: usize) -> bool {
        self.drop_name.get(i).copied().unwrap_or(false)
    }
}

impl Value {
    /// How many samples it counts for against `max_samples`: a float for one, a histogram for as many as fit in its
    /// memory.
    pub fn sample_count(&self) -> usize {
        match self {
            Self::Series(s) => s.held_samples(),
            Self::Vector(b) => b.held_samples(),
            Self::Scalar(s) => s.values.len(),
            Self::String(_) => 0,
        }
    }

    /// Bytes that its columns take, labels and what histograms share left out.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Series(s) => 16 * s.held_samples(),
            Self::Vector(b) => {
                8 * (b.values.len() + b.present.len()) + 8 * b.histograms.as_ref().map_or(0, Vec::len)
            }
            Self::Scalar(s) => 8 * s.values.len(),
            Self::String(s) => s.len(),
        }
    }
}

/// How many float samples (16 bytes each) take the memory of a histogram; as Prometheus counts.
pub(crate) fn histogram_cost(h: &Histogram) -> usize {
    const FIXED_BYTES: usize = 168 + 8;
    let lists = h.positive_spans.len()
        + h.negative_spans.len()
        + h.positive_buckets.len()
        + h.negative_buckets.len()
        + h.custom_values.len();
    (FIXED_BYTES + 8 * lists) / 16
}

impl Scalars {
    /// The same number at each step.
    pub fn constant(steps: Steps, v: f64) -> Self {
        Self { steps, values: vec![v; steps.count] }
    }
}
