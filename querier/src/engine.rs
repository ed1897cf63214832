//! The querier: takes questions in PromQL and SQL, runs them within their bounds, and answers.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    config::QuerierConfig,
    dataset::{DataSource, Dataset, MissingShards},
    error::QueryError,
    metrics::{Language, QuerierMetrics},
    promql::{PromSession, QueryState},
    queue::{FairQueue, Share},
};
use sextant_model::TenantId;
use sextant_promql::{Expr, ValueType};
use sextant_promql_eval::{CancelFlag, EvalContext, EvalParams, QueryKind, QueryResult, plan};
use sextant_proto::{LimitsHandle, SelectLimits, ShardError, TenantLimits};
use sextant_storage::{ReadStatsSnapshot, StorageError};

/// Stack of a query thread: trees of statements are walked by recursion.
const THREAD_STACK_BYTES: usize = 64 << 20;

/// How often a query begins again because a block was removed while it ran.
const REPEATS_MAX: usize = 2;

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
    /// Recent data of shards that do not answer may be missing; the answer's warnings then say so.
    pub partial: bool,
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
    /// What the query took.
    pub stats: QueryStats,
}

/// What a query took: times, and samples as Prometheus counts them.
#[derive(Clone, Debug, Default)]
pub struct QueryStats {
    /// Waiting for a place among the queries that run.
    pub queue: Duration,
    /// Parsing, planning, and taking the manifests.
    pub preparation: Duration,
    /// Reading and evaluating.
    pub inner_eval: Duration,
    /// All of it.
    pub total: Duration,
    /// Samples that the selectors looked at, each as often as a step did.
    pub total_samples: u64,
    /// The same by evaluation time, milliseconds; empty unless asked for.
    pub samples_per_step: Vec<(i64, u64)>,
    /// The most samples that were in memory at a time.
    pub peak_samples: u64,
    /// Blocks of the manifests in use, read or not.
    pub blocks: usize,
    /// What was read of them.
    pub storage: ReadStatsSnapshot,
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
    queue: FairQueue,
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
pub(crate) struct CancelOnDrop(pub(crate) CancelFlag);

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
            .thread_stack_size(THREAD_STACK_BYTES)
            .enable_all()
            .build()?;
        let session = PromSession::new(config.threads);
        let queue = FairQueue::new(config.max_concurrent);
        let metrics = QuerierMetrics::default();
        Ok(Self {
            inner: Arc::new(Inner {
                source,
                limits,
                config,
                session,
                queue,
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
            limits.max_query_time = match (limits.max_query_time.get(), other.max_query_time.get()) {
                (Some(a), Some(b)) if b < a => other.max_query_time,
                (None, Some(_)) => other.max_query_time,
                _ => limits.max_query_time,
            };
            limits.max_query_memory_bytes =
                strictest(limits.max_query_memory_bytes as usize, other.max_query_memory_bytes as usize)
                    as u64;
            limits.max_concurrent_queries =
                strictest(limits.max_concurrent_queries, other.max_concurrent_queries);
            limits.max_queued_queries = strictest(limits.max_queued_queries, other.max_queued_queries);
        }
        limits
    }

    /// What a question of these tenants may read.
    pub fn select_limits(&self, limits: &TenantLimits) -> SelectLimits {
        let bound = |n: usize| if n == 0 { usize::MAX } else { n };
        SelectLimits {
            series_max: bound(limits.max_query_series),
            samples_max: bound(limits.max_query_samples)
                .min(self.inner.config.max_samples)
                .min(bound(memory_in_samples(limits))),
        }
    }

    /// One consistent view of the tenants' data.
    pub async fn dataset(&self, tenants: &[TenantId]) -> Result<Arc<Dataset>, QueryError> {
        Ok(Arc::new(Dataset::open(&self.inner.source, tenants).await?))
    }

    /// Runs a read, and again over the newest manifests where a block that it was to read has been removed: the
    /// compactor may replace and delete what an older manifest names.
    pub(crate) async fn repeated<T, F>(
        &self,
        tenants: &[TenantId],
        read: impl Fn() -> F,
    ) -> Result<T, QueryError>
    where
        F: Future<Output = Result<T, QueryError>>,
    {
        for _ in 0..REPEATS_MAX {
            match read().await {
                Err(QueryError::Storage(StorageError::Missing { object })) => {
                    tracing::info!(object, "a block was removed during a query, which begins again");
                    for tenant in tenants {
                        self.inner.source.manifests.refresh(tenant).await?;
                    }
                }
                // What one of the manifests in use does not cover may be in blocks and no longer with its shard.
                Err(QueryError::Shard(ShardError::Unavailable(reason))) => {
                    if !self.are_stale(tenants).await? {
                        return Err(QueryError::Shard(ShardError::Unavailable(reason)));
                    }
                    tracing::info!(reason, "a query begins again with newer manifests");
                }
                done => return done,
            }
        }
        read().await
    }

    /// Takes the newest manifests; whether one of them is newer than that in use.
    async fn are_stale(&self, tenants: &[TenantId]) -> Result<bool, QueryError> {
        let manifests = &self.inner.source.manifests;
        let mut stale = false;
        for tenant in tenants {
            let used = manifests.load(tenant).await?.version;
            stale |= manifests.refresh(tenant).await?.version != used;
        }
        Ok(stale)
    }

    /// Answers a PromQL question.
    pub async fn promql(&self, tenants: &[TenantId], query: PromQuery) -> Result<PromAnswer, QueryError> {
        self.promql_counted(tenants, query, false).await
    }

    /// Answers a PromQL question; with `per_step`, samples are counted for each step too.
    pub async fn promql_counted(
        &self,
        tenants: &[TenantId],
        query: PromQuery,
        per_step: bool,
    ) -> Result<PromAnswer, QueryError> {
        let asked = Instant::now();
        let timeout = query.timeout.unwrap_or(self.inner.config.timeout).min(self.inner.config.timeout);
        let this = self.clone();
        let asking = tenants;
        let tenants = tenants.to_vec();
        let cancel = CancelFlag::default();
        let guard = CancelOnDrop(cancel.clone());
        let mut answer = self
            .bounded(asking, Language::PromQl, timeout, async move {
                let queue = asked.elapsed();
                let mut answer = this.promql_inner(&tenants, &query, cancel, per_step).await?;
                answer.stats.queue = queue;
                Ok(answer)
            })
            .await;
        drop(guard);
        if let Ok(answer) = &mut answer {
            answer.stats.total = asked.elapsed();
        }
        answer
    }

    /// Answers within a question that is already bounded.
    pub(crate) async fn promql_inner(
        &self,
        tenants: &[TenantId],
        query: &PromQuery,
        cancel: CancelFlag,
        per_step: bool,
    ) -> Result<PromAnswer, QueryError> {
        let missing = query.partial.then(Arc::<MissingShards>::default);
        if missing.is_some() {
            // So that a shard without an answer is one that is not there.
            self.are_stale(tenants).await?;
        }
        let read = || async {
            let begun = Instant::now();
            let (plan, state) = self.plan(tenants, query, cancel.clone(), per_step, missing.clone()).await?;
            let _log = SlowQuery::watch(self, tenants, query, &plan, &state, begun);
            let preparation = begun.elapsed();
            let result = self.inner.session.run(&plan, &state).await?;
            let context = &state.context;
            let by_step = context.touched_samples_per_step();
            let stats = QueryStats {
                preparation,
                inner_eval: begun.elapsed() - preparation,
                total_samples: context.touched_samples() as u64,
                samples_per_step: by_step
                    .into_iter()
                    .enumerate()
                    .map(|(i, n)| (query.start.saturating_add(query.step.saturating_mul(i as i64)), n))
                    .collect(),
                peak_samples: context.peak_samples() as u64,
                blocks: state.dataset.block_count(),
                storage: state.dataset.stats.snapshot(),
                ..QueryStats::default()
            };
            let annotations = &context.annotations;
            let mut warnings = annotations.warnings(&query.query);
            warnings.extend(missing.iter().flat_map(|m| m.warnings()));
            Ok(PromAnswer { result, warnings, infos: annotations.infos(&query.query), stats })
        };
        self.repeated(tenants, read).await
    }

    async fn plan(
        &self,
        tenants: &[TenantId],
        query: &PromQuery,
        cancel: CancelFlag,
        per_step: bool,
        missing: Option<Arc<MissingShards>>,
    ) -> Result<(sextant_promql_eval::Plan, Arc<QueryState>), QueryError> {
        let expr: Expr = sextant_promql::parse_expr(&query.query)
            .map_err(|e| QueryError::BadRequest(format!("invalid parameter \"query\": {e}")))?;
        if query.kind == QueryKind::Range
            && !matches!(expr.value_type(), ValueType::Scalar | ValueType::Vector)
        {
            return Err(QueryError::BadRequest(format!(
                "invalid parameter \"query\": invalid expression type \"{}\" for range query, must be Scalar or instant Vector",
                expr.value_type().documented()
            )));
        }
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
            // The limit is on the steps between the first and the last point, as in Prometheus.
            max_steps: config.max_steps + 1,
            ..EvalParams::instant(query.start)
        };
        let plan = plan(&expr, &params)?;
        let dataset = Dataset::open(&self.inner.source, tenants).await?;
        let dataset = Arc::new(match missing {
            Some(missing) => dataset.tolerating(missing),
            None => dataset,
        });
        let mut context = EvalContext::new(select_limits.samples_max).with_cancel(cancel);
        if per_step {
            context = context.with_step_counts(params.steps());
        }
        let state = Arc::new(QueryState::new(dataset, context, select_limits, &plan.root));
        Ok((plan, state))
    }

    /// The plan of a PromQL question as text; with `run`, with the rows and bytes of each operator.
    pub async fn explain(
        &self,
        tenants: &[TenantId],
        query: PromQuery,
        run: bool,
    ) -> Result<String, QueryError> {
        let this = self.clone();
        let asking = tenants;
        let tenants = tenants.to_vec();
        let cancel = CancelFlag::default();
        let _guard = CancelOnDrop(cancel.clone());
        let work = async move {
            let (plan, state) = this.plan(&tenants, &query, cancel, false, None).await?;
            let session = &this.inner.session;
            if run { session.explain(&plan, &state).await } else { Ok(session.describe(&plan, &state)) }
        };
        self.bounded(asking, Language::PromQl, self.inner.config.timeout, work).await
    }

    /// Runs a part of a question that was admitted before on the query threads; it ends when the caller goes away.
    pub(crate) async fn spawned<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, QueryError>> + Send + 'static,
    ) -> Result<T, QueryError> {
        match &self.inner.runtime {
            Some(runtime) => AbortOnDrop(runtime.handle().spawn(work)).join().await,
            None => Err(QueryError::Cancelled),
        }
    }

    /// Runs a question's work on the query threads: when it is its tenant's turn, within its time, counted, and ended when the
    /// caller goes away. The turn is that of the first tenant; the limits are the strictest of all.
    pub async fn bounded<T: Send + 'static>(
        &self,
        tenants: &[TenantId],
        language: Language,
        timeout: Duration,
        work: impl Future<Output = Result<T, QueryError>> + Send + 'static,
    ) -> Result<T, QueryError> {
        let started = Instant::now();
        let metrics = &self.inner.metrics;
        metrics.begin();
        let _running = Running { metrics, language, started };
        let limits = self.limits(tenants);
        let timeout = limits.max_query_time.get().map_or(timeout, |most| timeout.min(most));
        let share = Share {
            weight: limits.query_weight,
            running_max: limits.max_concurrent_queries,
            waiting_max: limits.max_queued_queries,
        };
        let run = async {
            let tenant = tenants.first().map_or("", TenantId::as_str);
            let waiting = metrics.wait();
            let _place = self.inner.queue.wait(tenant, share).await?;
            drop(waiting);
            let handle = match &self.inner.runtime {
                Some(runtime) => runtime.handle().spawn(work),
                None => return Err(QueryError::Cancelled),
            };
            let task = AbortOnDrop(handle);
            task.join().await.map_err(|e| of_memory(e, &limits))
        };
        let result = tokio::time::timeout(timeout, run).await.unwrap_or(Err(QueryError::Timeout(timeout)));
        if result.is_err() {
            _running.failed();
        }
        result
    }
}

/// Logs a question that took long, however it ended: its tenants, its text, what it read, and its plan.
struct SlowQuery<'a> {
    querier: &'a Querier,
    tenants: &'a [TenantId],
    query: &'a PromQuery,
    plan: &'a sextant_promql_eval::Plan,
    state: &'a Arc<QueryState>,
    begun: Instant,
}

impl<'a> SlowQuery<'a> {
    fn watch(
        querier: &'a Querier,
        tenants: &'a [TenantId],
        query: &'a PromQuery,
        plan: &'a sextant_promql_eval::Plan,
        state: &'a Arc<QueryState>,
        begun: Instant,
    ) -> Option<Self> {
        let is_on = !querier.inner.config.slow_query.is_zero();
        is_on.then_some(Self { querier, tenants, query, plan, state, begun })
    }
}

impl Drop for SlowQuery<'_> {
    fn drop(&mut self) {
        let took = self.begun.elapsed();
        if took < self.querier.inner.config.slow_query {
            return;
        }
        let tenants: Vec<&str> = self.tenants.iter().map(TenantId::as_str).collect();
        let read = self.state.dataset.stats.snapshot();
        let plan = self.querier.inner.session.describe(self.plan, self.state);
        let samples = self.state.context.touched_samples();
        let PromQuery { query, start, end, step, .. } = self.query;
        tracing::warn!(
            tenants = tenants.join("|"),
            query,
            start,
            end,
            step,
            ?took,
            samples,
            fetched_bytes = read.bytes_fetched,
            requests = read.requests,
            plan,
            "slow query"
        );
    }
}

/// A query's memory as samples of 16 bytes: what it reads and holds is counted in samples. 0 where there is no limit.
fn memory_in_samples(limits: &TenantLimits) -> usize {
    limits.max_query_memory_bytes.div_ceil(SAMPLE_BYTES) as usize
}

/// Bytes of a sample in a query's memory; a histogram counts for as many samples as take its memory.
const SAMPLE_BYTES: u64 = 16;

/// The error of a query that may hold no more samples because of its limit of memory, by that limit's name.
fn of_memory(error: QueryError, limits: &TenantLimits) -> QueryError {
    let memory = memory_in_samples(limits);
    match error {
        QueryError::Limit(text)
            if memory > 0 && (limits.max_query_samples == 0 || memory < limits.max_query_samples) =>
        {
            QueryError::Limit(text.replace("max_query_samples", "max_query_memory_bytes / 16"))
        }
        other => other,
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
