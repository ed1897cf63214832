//! What every operator of one running query shares: annotations, cancellation, the sample budget.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use crate::{annotations::Annotations, error::EvalError};

/// Set from outside to stop a query; looked at for each series in every kernel.
#[derive(Clone, Debug, Default)]
pub struct CancelFlag(Arc<AtomicBool>);

impl CancelFlag {
    /// Stops the query at the next look.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether the query is to stop.
    #[inline]
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// An error where the query is to stop.
    #[inline]
    pub fn check(&self) -> Result<(), EvalError> {
        if self.is_cancelled() { Err(EvalError::Cancelled) } else { Ok(()) }
    }
}

/// A block may have so many cells per sample that may be held.
const CELLS_PER_SAMPLE: usize = 4;

/// A block of so few cells is always allowed.
const SMALL_BLOCK: usize = 4096;

/// Shared by the operators of one query; cloning gives another handle to the same.
#[derive(Clone, Debug)]
pub struct EvalContext {
    /// Warnings and infos.
    pub annotations: Annotations,
    /// Cancellation.
    pub cancel: CancelFlag,
    max_samples: usize,
    counts: Arc<Counts>,
}

/// Samples, as Prometheus' query statistics count them.
#[derive(Debug, Default)]
struct Counts {
    live: AtomicUsize,
    peak: AtomicUsize,
    touched: AtomicUsize,
}

impl EvalContext {
    /// A context for one query.
    pub fn new(max_samples: usize) -> Self {
        Self {
            annotations: Annotations::default(),
            cancel: CancelFlag::default(),
            max_samples,
            counts: Arc::default(),
        }
    }

    /// The same context with a flag of the caller's.
    pub fn with_cancel(mut self, cancel: CancelFlag) -> Self {
        self.cancel = cancel;
        self
    }

    /// An error where a block of so many cells must not be made. A block has a cell for every series and step, present
    /// or not, so that a query over many short-lived series could otherwise take memory that no sample accounts for.
    pub(crate) fn check_cells(&self, series: usize, steps: usize) -> Result<(), EvalError> {
        let most = self.max_samples.saturating_mul(CELLS_PER_SAMPLE).saturating_add(SMALL_BLOCK);
        if series.saturating_mul(steps) > most { Err(self.too_many_samples()) } else { Ok(()) }
    }

    fn too_many_samples(&self) -> EvalError {
        EvalError::Limit {
            what: "query processing would load too many samples into memory in query execution".to_owned(),
            limit: "max_samples",
            value: self.max_samples as u64,
        }
    }

    /// Counts samples that are now held; an error where they are too many.
    pub fn hold(&self, samples: usize) -> Result<(), EvalError> {
        let live = self.counts.live.fetch_add(samples, Ordering::Relaxed) + samples;
        self.counts.peak.fetch_max(live, Ordering::Relaxed);
        if live > self.max_samples {
            return Err(self.too_many_samples());
        }
        Ok(())
    }

    /// Counts samples that are no longer held.
    pub fn release(&self, samples: usize) {
        self.counts.live.fetch_sub(samples, Ordering::Relaxed);
    }

    /// Counts samples that a selector has looked at, each as often as a step has.
    pub(crate) fn touch(&self, samples: usize) {
        self.counts.touched.fetch_add(samples, Ordering::Relaxed);
    }

    /// The most samples that were held at a time: `peakSamples` of the HTTP API's statistics.
    pub fn peak_samples(&self) -> usize {
        self.counts.peak.load(Ordering::Relaxed)
    }

    /// The samples that all steps together have looked at: `totalQueryableSamples`.
    pub fn touched_samples(&self) -> usize {
        self.counts.touched.load(Ordering::Relaxed)
    }
}
