//! The querier: takes questions in PromQL and SQL, runs them within their bounds, and answers.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use sextant_model::TenantId;
use sextant_promql::Expr;
use sextant_promql_eval::{CancelFlag, EvalContext, EvalParams, QueryKind, QueryResult, plan};
use sextant_proto::{LimitsHandle, SelectLimits, TenantLimits};
use tokio::sync::Semaphore;

use crate::{
    config::QuerierConfig,
    dataset::{DataSource, Dataset},
    error::QueryError,
    metrics::{Language, QuerierMetrics},
    promql::{PromSession, QueryState},
};

/// A question in PromQL.
#[derive(Clone, Debug)]
pub struct PromQuery {
    /// The expression.
    pub query: String,
    /// Instant or range.
    pub kind: QueryKind,
    /// First evaluation time, milliseconds.
    pub start: i64,
    /// Last evaluation time, milliseconds.
    pub end: i64,
    /// Milliseconds between evaluation times.
    pub step: i64,
    /// Time allowed; the configured one where absent or longer.
    pub timeout: Option<Duration>,
    /// Look-back in milliseconds; the configured one where absent.
    pub lookback: Option<i64>,
}

/// An answer to a PromQL question.
#[derive(Debug)]
pub struct PromAnswer {
    /// The columns.
    pub result: QueryResult,
    /// Warnings, with positions.
    pub warnings: Vec<String>,
    /// Infos, with positions.
    pub infos: Vec<String>,
}

/// The querier; clones share everything.
#[derive(Clone)]
pub struct Querier {
    inner: Arc<Inner>,
}

struct Inner {
    source: DataSource,
    limits: LimitsHandle,
    config: QuerierConfig,
    session: PromSession,
    permits: Semaphore,
    metrics: QuerierMetrics,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Sets the flag when the question's future is dropped: the client left, or the time is over.
struct CancelOnDrop(CancelFlag);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

impl Querier {
    /// A querier with threads of its own, so that heavy questions do not hold up writers.
    pub fn new(source: DataSource, limits: LimitsHandle, config: QuerierConfig) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(config.threads.max(1))
            .thread_name("query")
            .enable_all()
            .build()?;
        let session = PromSession::new(config.threads);
        let permits = Semaphore::new(config.max_concurrent.max(1));
        let metrics = QuerierMetrics::default();
        Ok(Self {
            inner: Arc::new(Inner {
                source,
                limits,
                config,
                session,
                permits,
                metrics,
                runtime: Some(runtime),
            }),
        })
    }

    /// The configuration.
    pub fn config(&self) -> &QuerierConfig {
        &self.inner.config
    }

    /// The querier's own metrics.
    pub fn metrics(&self) -> &QuerierMetrics {
        &self.inner.metrics
    }

    /// The limits of the tenants of a question: of several the strictest.
    pub fn limits(&self, tenants: &[TenantId]) -> TenantLimits {
        let mut all = tenants.iter().map(|t| self.inner.limits.of(t));
        let mut limits = all.next().map(|l| (*l).clone()).unwrap_or_default();
        let strictest = |a: usize, b: usize| match (a, b) {
            (0, x) | (x, 0) => x,
            (a, b) => a.min(b),
        };
        for other in all {
            limits.max_query_series = strictest(limits.max_query_series, other.max_query_series);
            limits.max_query_samples = strictest(limits.max_query_samples, other.max_query_samples);
            limits.max_query_range = match (limits.max_query_range.get(), other.max_query_range.get()) {
                (Some(a), Some(b)) if b < a => other.max_query_range,
                (None, Some(_)) => other.max_query_range,
                _ => limits.max_query_range,
            };
        }
        limits
    }

    /// What a question of these tenants may read.
    pub fn select_limits(&self, limits: &TenantLimits) -> SelectLimits {
        let bound = |n: usize| if n == 0 { usize::MAX } else { n };
        SelectLimits {
            series_max: bound(limits.max_query_series),
            samples_max: bound(limits.max_query_samples).min(self.inner.config.max_samples),
        }
    }

    /// One consistent view of the tenants' data.
    pub async fn dataset(&self, tenants: &[TenantId]) -> Result<Arc<Dataset>, QueryError> {
        Ok(Arc::new(Dataset::open(&self.inner.source, tenants).await?))
    }

    /// Answers a PromQL question.
    pub async fn promql(&self, tenants: &[TenantId], query: PromQuery) -> Result<PromAnswer, QueryError> {
        let timeout = query.timeout.unwrap_or(self.inner.config.timeout).min(self.inner.config.timeout);
        let this = self.clone();
        let tenants = tenants.to_vec();
        let cancel = CancelFlag::default();
        let guard = CancelOnDrop(cancel.clone());
        let answer =
            self.bounded(Language::PromQl, timeout, async move {
                this.promql_inner(&tenants, &query, cancel).await
            })
            .await;
        drop(guard);
        answer
    }

    /// Answers within a question that is already bounded.
    pub(crate) async fn promql_inner(
        &self,
        tenants: &[TenantId],
        query: &PromQuery,
        cancel: CancelFlag,
    ) -> Result<PromAnswer, QueryError> {
        let (plan, state) = self.plan(tenants, query, cancel).await?;
        let result = self.inner.session.run(&plan, &state).await?;
        let annotations = &state.context.annotations;
        Ok(PromAnswer {
            result,
            warnings: annotations.warnings(&query.query),
            infos: annotations.infos(&query.query),
        })
    }

    async fn plan(
        &self,
        tenants: &[TenantId],
        query: &PromQuery,
        cancel: CancelFlag,
    ) -> Result<(sextant_promql_eval::Plan, Arc<QueryState>), QueryError> {
        let expr: Expr = sextant_promql::parse_expr(&query.query)
            .map_err(|e| QueryError::BadRequest(format!("invalid parameter \"query\": {e}")))?;
        let limits = self.limits(tenants);
        if let (Some(longest), QueryKind::Range) = (limits.max_query_range.get_ms(), query.kind)
            && query.end - query.start > longest
        {
            return Err(QueryError::Limit(format!(
                "the query's range of {} s is longer than limit max_query_range ({} s) allows; raise it with the limits key max_query_range",
                (query.end - query.start) / 1000,
                longest / 1000
            )));
        }
        let config = &self.inner.config;
        let select_limits = self.select_limits(&limits);
        let params = EvalParams {
            kind: query.kind,
            start_ms: query.start,
            end_ms: query.end,
            step_ms: query.step,
            lookback_ms: query.lookback.unwrap_or(config.lookback.as_millis() as i64),
            max_samples: select_limits.samples_max,
            max_steps: config.max_steps,
            ..EvalParams::instant(query.start)
        };
        let plan = plan(&expr, &params)?;
        let dataset = self.dataset(tenants).await?;
        let context = EvalContext::new(select_limits.samples_max).with_cancel(cancel);
        Ok((plan, Arc::new(QueryState::new(dataset, context, select_limits))))
    }

    /// The plan of a PromQL question as text; with `run`, with the rows of each operator.
    pub async fn explain(
        &self,
        tenants: &[TenantId],
        query: PromQuery,
        run: bool,
    ) -> Result<String, QueryError> {
        let this = self.clone();
        let tenants = tenants.to_vec();
        let cancel = CancelFlag::default();
        let _guard = CancelOnDrop(cancel.clone());
        let work = async move {
            let (plan, state) = this.plan(&tenants, &query, cancel).await?;
            let session = &this.inner.session;
            if run { session.explain(&plan, &state).await } else { session.describe(&plan, &state).await }
        };
        self.bounded(Language::PromQl, self.inner.config.timeout, work).await
    }

    /// Runs a question's work on the query threads: within its time, counted, and ended when the caller goes away.
    pub async fn bounded<T: Send + 'static>(
        &self,
        language: Language,
        timeout: Duration,
        work: impl Future<Output = Result<T, QueryError>> + Send + 'static,
    ) -> Result<T, QueryError> {
        let started = Instant::now();
        let metrics = &self.inner.metrics;
        metrics.begin();
        let _running = Running { metrics, language, started };
        let run = async {
            let _permit = self.inner.permits.acquire().await.map_err(|_| QueryError::Cancelled)?;
            let handle = match &self.inner.runtime {
                Some(runtime) => runtime.handle().spawn(work),
                None => return Err(QueryError::Cancelled),
            };
            let task = AbortOnDrop(handle);
            task.join().await
        };
        let result = tokio::time::timeout(timeout, run).await.unwrap_or(Err(QueryError::Timeout(timeout)));
        if result.is_err() {
            _running.failed();
        }
        result
    }
}

struct Running<'a> {
    metrics: &'a QuerierMetrics,
    language: Language,
    started: Instant,
}

impl Running<'_> {
    fn failed(self) {
        self.metrics.end(self.language, self.started.elapsed(), false);
        std::mem::forget(self);
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.metrics.end(self.language, self.started.elapsed(), true);
    }
}

struct AbortOnDrop<T>(tokio::task::JoinHandle<T>);

impl<T> AbortOnDrop<T> {
    async fn join<U>(mut self) -> Result<U, QueryError>
    where
        T: Into<Result<U, QueryError>>,
    {
        match (&mut self.0).await {
            Ok(result) => result.into(),
            Err(e) if e.is_cancelled() => Err(QueryError::Cancelled),
            Err(e) => Err(QueryError::Internal(format!("the query's task failed: {e}"))),
        }
    }
}

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
