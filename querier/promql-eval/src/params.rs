//! What a query is evaluated with, besides its expression.

use crate::steps::Steps;

/// Instant or range: it decides the form of the answer, not how it is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueryKind {
    /// One evaluation time.
    Instant,
    /// A grid of evaluation times; the answer is always a matrix.
    Range,
}

/// The parameters of one evaluation.
#[derive(Clone, Debug)]
pub struct EvalParams {
    /// Instant or range.
    pub kind: QueryKind,
    /// The first evaluation time, milliseconds.
    pub start_ms: i64,
    /// The last evaluation time, milliseconds; equal to the start for an instant query.
    pub end_ms: i64,
    /// Between evaluation times; 0 for an instant query.
    pub step_ms: i64,
    /// How far back an instant selector looks for a sample (exclusive).
    pub lookback_ms: i64,
    /// The step of a subquery that has none.
    pub default_subquery_step_ms: i64,
    /// Whether start timestamps of samples count as counter resets and zero points.
    pub use_start_timestamps: bool,
    /// Whether series carry `__type__`: it then decides, not the name, whether `rate` was given a counter.
    pub type_and_unit_labels: bool,
    /// The most samples that one query may hold at a time.
    pub max_samples: usize,
    /// The most steps that a query may have.
    pub max_steps: usize,
}

impl EvalParams {
    /// An instant query with Prometheus' defaults.
    pub fn instant(at_ms: i64) -> Self {
        Self {
            kind: QueryKind::Instant,
            start_ms: at_ms,
            end_ms: at_ms,
            step_ms: 0,
            lookback_ms: 5 * 60 * 1000,
            default_subquery_step_ms: 60 * 1000,
            use_start_timestamps: true,
            type_and_unit_labels: false,
            max_samples: 50_000_000,
            max_steps: 11_000,
        }
    }

    /// A range query with Prometheus' defaults.
    pub fn range(start_ms: i64, end_ms: i64, step_ms: i64) -> Self {
        Self { kind: QueryKind::Range, end_ms, step_ms, ..Self::instant(start_ms) }
    }

    /// The grid of evaluation times.
    pub fn steps(&self) -> Steps {
        match self.kind {
            QueryKind::Instant => Steps::instant(self.start_ms),
            QueryKind::Range => Steps::range(self.start_ms, self.end_ms, self.step_ms),
        }
    }
}
