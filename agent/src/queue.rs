//! Writes on their way to the sink: bounded, merged, repeated while the sink cannot take them.
//!
//! One writer keeps the order of a series' samples. While it waits for a sink that answers 429 or 503, new writes pile up to
//! the bound; then the oldest go, because a monitoring system that comes back is asked about now.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use sextant_model::TenantId;
use sextant_proto::{ErrorClass, WriteError, WriteRequest, WriteSink};
use tokio::{sync::Notify, time::Instant};

use crate::metrics::{AgentMetrics, add, set};

/// Small targets are written together up to this many samples: one write costs the sink one log entry.
const MERGE_SAMPLES_MAX: usize = 20_000;
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// The queue between collecting and writing.
pub struct WriteQueue {
    state: Mutex<State>,
    wake: Notify,
    samples_max: usize,
    metrics: Arc<AgentMetrics>,
}

#[derive(Default)]
struct State {
    writes: VecDeque<WriteRequest>,
    samples: usize,
    /// Set when the agent ends: what is left is written until then and dropped after.
    deadline: Option<Instant>,
}

fn sample_count(request: &WriteRequest) -> usize {
    let samples: usize =
        request.series.iter().map(|s| s.samples.len() + s.histograms.len() + s.exemplars.len()).sum();
    // Metadata alone takes memory too.
    samples.max(1)
}

impl WriteQueue {
    /// An empty queue that holds at most `samples_max` samples.
    pub fn new(samples_max: usize, metrics: Arc<AgentMetrics>) -> Self {
        Self { state: Mutex::default(), wake: Notify::new(), samples_max, metrics }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a write; never waits. The oldest writes go where there are too many samples.
    pub fn push(&self, request: WriteRequest) {
        if request.series.is_empty() && request.metadata.is_empty() {
            return;
        }
        let mut state = self.lock();
        state.samples += sample_count(&request);
        state.writes.push_back(request);
        let mut dropped = 0;
        while state.samples > self.samples_max && state.writes.len() > 1 {
            let Some(oldest) = state.writes.pop_front() else { break };
            let n = sample_count(&oldest);
            state.samples -= n;
            dropped += n;
        }
        set(&self.metrics.queue_samples, state.samples as u64);
        drop(state);
        if dropped > 0 {
            add(&self.metrics.dropped_queue_full, dropped as u64);
        }
        self.wake.notify_one();
    }

    /// Ends the queue: `run` returns when it is empty, or at the deadline.
    pub fn close(&self, deadline: Instant) {
        self.lock().deadline = Some(deadline);
        self.wake.notify_one();
    }

    /// The oldest writes as one; `None` where there are none, with the deadline if the queue is closed.
    fn take(&self) -> Result<(WriteRequest, usize), Option<Instant>> {
        let mut state = self.lock();
        let Some(mut merged) = state.writes.pop_front() else { return Err(state.deadline) };
        let mut samples = sample_count(&merged);
        while let Some(next) = state.writes.front() {
            let n = sample_count(next);
            if samples + n > MERGE_SAMPLES_MAX {
                break;
            }
            samples += n;
            if let Some(next) = state.writes.pop_front() {
                merged.series.extend(next.series);
                merged.metadata.extend(next.metadata);
            }
        }
        state.samples -= samples.min(state.samples);
        set(&self.metrics.queue_samples, state.samples as u64);
        Ok((merged, samples))
    }

    /// Writes until the queue is closed and empty.
    pub async fn run(&self, tenant: &TenantId, sink: &dyn WriteSink) {
        loop {
            match self.take() {
                Ok((request, samples)) => self.write(tenant, sink, request, samples).await,
                Err(Some(_)) => return,
                Err(None) => self.wake.notified().await,
            }
        }
    }

    async fn write(&self, tenant: &TenantId, sink: &dyn WriteSink, request: WriteRequest, samples: usize) {
        let mut backoff = BACKOFF_MIN;
        loop {
            let error = match sink.write(tenant, request.clone()).await {
                Ok(summary) => {
                    add(
                        &self.metrics.written_samples,
                        summary.samples + summary.histograms + summary.exemplars,
                    );
                    add(&self.metrics.dropped_refused, summary.refused_samples);
                    if let Some(first) = summary.refused.first() {
                        tracing::warn!(
                            refused = summary.refused_samples,
                            series = first.series,
                            reason = first.reason,
                            "the sink refused samples"
                        );
                    }
                    return;
                }
                Err(error) => error,
            };
            if !may_repeat(error.class) {
                add(&self.metrics.dropped_rejected, samples as u64);
                tracing::warn!(%error, samples, "the sink rejected a write");
                return;
            }
            let wait = wait_before_retry(&error, backoff);
            backoff = (backoff * 2).min(BACKOFF_MAX);
            add(&self.metrics.write_retries, 1);
            tracing::debug!(%error, ?wait, "the sink cannot take a write now");
            if !self.sleep(wait).await {
                add(&self.metrics.dropped_shutdown, samples as u64);
                return;
            }
        }
    }

    /// Sleeps; false where the queue's deadline comes first.
    async fn sleep(&self, wait: Duration) -> bool {
        let until = Instant::now() + wait;
        loop {
            let deadline = self.lock().deadline;
            if deadline.is_some_and(|d| d <= until) {
                return false;
            }
            tokio::select! {
                () = tokio::time::sleep_until(until) => return true,
                // More writes came, or the queue was closed.
                () = self.wake.notified() => {}
            }
        }
    }
}

fn may_repeat(class: ErrorClass) -> bool {
    matches!(
        class,
        ErrorClass::TooManyRequests | ErrorClass::Unavailable | ErrorClass::Timeout | ErrorClass::Internal
    )
}

fn wait_before_retry(error: &WriteError, backoff: Duration) -> Duration {
    match error.retry_after_s {
        Some(s) => Duration::from_secs(u64::from(s)).clamp(backoff, BACKOFF_MAX),
        None => backoff,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use async_trait::async_trait;
    use sextant_model::Labels;
    use sextant_proto::WriteSummary;

    use super::*;
    use crate::active::float_write;

    /// Answers with these errors first, then takes everything.
    #[derive(Default)]
    struct Sink {
        errors: Mutex<Vec<ErrorClass>>,
        writes: Mutex<Vec<Vec<f64>>>,
    }

    #[async_trait]
    impl WriteSink for Sink {
        async fn write(&self, _: &TenantId, request: WriteRequest) -> Result<WriteSummary, WriteError> {
            if let Some(class) = self.errors.lock().expect("not poisoned").pop() {
                return Err(WriteError { class, reason: "no".into(), retry_after_s: None });
            }
            let values = request.series.iter().map(|s| s.samples[0].v).collect();
            self.writes.lock().expect("not poisoned").push(values);
            Ok(WriteSummary { samples: request.series.len() as u64, ..WriteSummary::default() })
        }
    }

    fn one(v: f64) -> WriteRequest {
        WriteRequest { series: vec![float_write(Labels::empty(), 1, v)], ..WriteRequest::default() }
    }

    async fn written(errors: Vec<ErrorClass>, samples_max: usize) -> (Vec<Vec<f64>>, Arc<AgentMetrics>) {
        let metrics = Arc::new(AgentMetrics::default());
        let queue = WriteQueue::new(samples_max, metrics.clone());
        for v in [1.0, 2.0, 3.0] {
            queue.push(one(v));
        }
        queue.close(Instant::now() + Duration::from_secs(2));
        let sink = Sink { errors: Mutex::new(errors), ..Sink::default() };
        queue.run(&TenantId::anonymous(), &sink).await;
        (sink.writes.into_inner().expect("not poisoned"), metrics)
    }

    #[tokio::test]
    async fn small_writes_are_merged_and_the_oldest_go_first() {
        let (writes, metrics) = written(vec![], 2).await;
        assert_eq!(writes, [[2.0, 3.0]]);
        assert_eq!(metrics.dropped_queue_full.load(Relaxed), 1);
        assert_eq!(metrics.written_samples.load(Relaxed), 2);
    }

    #[tokio::test]
    async fn a_write_is_repeated_where_that_may_help() {
        let (writes, metrics) = written(vec![ErrorClass::Unavailable], 9).await;
        assert_eq!(writes, [[1.0, 2.0, 3.0]]);
        assert_eq!(metrics.write_retries.load(Relaxed), 1);

        let (writes, metrics) = written(vec![ErrorClass::BadRequest], 9).await;
        assert!(writes.is_empty());
        assert_eq!(metrics.dropped_rejected.load(Relaxed), 3);
    }

    #[tokio::test]
    async fn what_cannot_be_written_before_the_end_is_dropped() {
        let (writes, metrics) = written(vec![ErrorClass::Unavailable; 100], 9).await;
        assert!(writes.is_empty());
        assert_eq!(metrics.dropped_shutdown.load(Relaxed), 3);
    }
}
