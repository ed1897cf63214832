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

/// Shared by the operators of one query; cloning gives another handle to the same.
#[derive(Clone, Debug)]
pub struct EvalContext {
    /// Warnings and infos.
    pub annotations: Annotations,
    /// Cancellation.
    pub cancel: CancelFlag,
    max_samples: usize,
    live: Arc<AtomicUsize>,
}

impl EvalContext {
    /// A context for one query.
    pub fn new(max_samples: usize) -> Self {
        Self {
            annotations: Annotations::default(),
            cancel: CancelFlag::default(),
            max_samples,
            live: Arc::default(),
        }
    }

    /// The same context with a flag of the caller's.
    pub fn with_cancel(mut self, cancel: CancelFlag) -> Self {
        self.cancel = cancel;
        self
    }

    /// Counts samples that are now held; an error where they are too many.
    pub fn hold(&self, samples: usize) -> Result<(), EvalError> {
        let live = self.live.fetch_add(samples, Ordering::Relaxed) + samples;
        if live > self.max_samples {
            return Err(EvalError::Limit {
                what: "query processing would load too many samples into memory in query execution"
                    .to_owned(),
                limit: "max_samples",
                value: self.max_samples as u64,
            });
        }
        Ok(())
    }

    /// Counts samples that are no longer held.
    pub fn release(&self, samples: usize) {
        self.live.fetch_sub(samples, Ordering::Relaxed);
    }
}
