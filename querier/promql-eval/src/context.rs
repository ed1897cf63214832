//! What every operator of one running query shares: annotations, cancellation, the sample budget.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use crate::{
    annotations::Annotations,
    cancel::CancelFlag,
    error::EvalError,
    step_counts::{FirstUser, StepCounts, Tally},
    steps::Steps,
};

/// A block may have so many cells per sample that may be held: a cell takes 8 bytes, a sample 16.
const CELLS_PER_SAMPLE: usize = 2;

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
    step_counts: Option<Arc<StepCounts>>,
}

/// Samples, as Prometheus' query statistics count them.
#[derive(Debug, Default)]
struct Counts {
    live: AtomicUsize,
    read: AtomicUsize,
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
            step_counts: None,
        }
    }

    /// The same context with a flag of the caller's.
    pub fn with_cancel(mut self, cancel: CancelFlag) -> Self {
        self.cancel = cancel;
        self
    }

    /// The same context, counting samples for each step of the query's grid too: for `stats=all`.
    pub fn with_step_counts(mut self, steps: Steps) -> Self {
        self.step_counts = Some(Arc::new(StepCounts::new(steps.count)));
        self
    }

    /// An error where a block of so many cells must not be made. A block has a cell for every series and step, present
    /// or not, so that a query over many short-lived series could otherwise take memory that no sample accounts for.
    pub(crate) fn check_cells(&self, series: usize, steps: usize) -> Result<(), EvalError> {
        let most = self.max_samples.saturating_mul(CELLS_PER_SAMPLE).saturating_add(SMALL_BLOCK);
        if series.saturating_mul(steps) > most { Err(self.too_many_samples()) } else { Ok(()) }
    }

    /// An error where so many bytes of labels must not be made: what `label_join` and `label_replace` make may be larger
    /// by far than the labels that there were.
    pub(crate) fn check_label_bytes(&self, bytes: usize) -> Result<(), EvalError> {
        const BYTES_PER_SAMPLE: usize = 16;
        const FEW_BYTES: usize = 16 << 20;
        let most = self.max_samples.saturating_mul(BYTES_PER_SAMPLE).saturating_add(FEW_BYTES);
        if bytes > most { Err(self.too_many_samples()) } else { Ok(()) }
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

    /// Counts samples that were read and not evaluated yet; an error where they are too many. Prometheus reads while it
    /// evaluates, so they count against the limit by themselves and not in [`EvalContext::peak_samples`].
    pub fn hold_read(&self, samples: usize) -> Result<(), EvalError> {
        if self.counts.read.fetch_add(samples, Ordering::Relaxed) + samples > self.max_samples {
            return Err(self.too_many_samples());
        }
        Ok(())
    }

    /// Counts samples of [`EvalContext::hold_read`] that are no longer held.
    pub fn release_read(&self, samples: usize) {
        self.counts.read.fetch_sub(samples, Ordering::Relaxed);
    }

    /// Counts samples that a selector has looked at, each as often as a step has: for each of `weight` steps.
    pub(crate) fn touch(&self, samples: usize, weight: usize) {
        self.counts.touched.fetch_add(samples.saturating_mul(weight), Ordering::Relaxed);
    }

    /// Whether samples are counted for each step.
    pub(crate) fn counts_steps(&self) -> bool {
        self.step_counts.is_some()
    }

    /// Counts for each step what was touched, and what was read where `first_user` says for which step.
    pub(crate) fn touch_steps(
        &self,
        tally: impl FnOnce() -> Tally,
        weight: usize,
        first_user: Option<&FirstUser>,
    ) {
        if let Some(counts) = &self.step_counts {
            counts.add(&tally(), weight, first_user);
        }
    }

    /// The most samples that were held at a time: `peakSamples` of the HTTP API's statistics.
    pub fn peak_samples(&self) -> usize {
        self.counts.peak.load(Ordering::Relaxed)
    }

    /// [`EvalContext::touched_samples`] by step: `totalQueryableSamplesPerStep`. Empty unless steps are counted.
    pub fn touched_samples_per_step(&self) -> Vec<u64> {
        self.step_counts.as_ref().map_or_else(Vec::new, |c| c.looked_at())
    }

    /// Samples by the first step that uses them, each once per selector: `samplesReadPerStep`, and their sum
    /// `samplesRead`. Empty unless steps are counted.
    pub fn read_samples_per_step(&self) -> Vec<u64> {
        self.step_counts.as_ref().map_or_else(Vec::new, |c| c.read())
    }

    /// The samples that all steps together have looked at: `totalQueryableSamples`.
    pub fn touched_samples(&self) -> usize {
        self.counts.touched.load(Ordering::Relaxed)
    }
}
