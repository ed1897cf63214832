//! PromQL operators as execution plans.
//!
//! A leaf splits its series over partitions and cuts each into chunks that fit a core's cache. Per-series operators work chunk by
//! chunk in the partition of their input. Aggregations add chunks to one partial result per partition, each partition on a task of
//! its own, and merge them in order of partition, so that the answer does not depend on timing. Operators that need
//! whole inputs gather them.
//!
//! Operators of one process hand each other values as they are ([`PromExec::values`]); Arrow batches are made only where another
//! operator or another process reads ([`ExecutionPlan::execute`]).

use std::{fmt, sync::Arc};

use datafusion::{
    common::{Result, tree_node::TreeNodeRecursion},
    execution::{SendableRecordBatchStream, TaskContext},
    physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr},
    physical_plan::{
        DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties,
        execution_plan::{Boundedness, EmissionType},
        metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricBuilder, MetricsSet},
        stream::RecordBatchStreamAdapter,
    },
};
use futures::{
    StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};
use sextant_promql_eval::{Node, Partial, RawSeries, Select, Split, Value};
use tokio::sync::OnceCell;

use super::{
    batch::{ValueKind, concat, from_batch, kind_of, to_batch},
    state::QueryState,
};
use crate::error::QueryError;

/// About how many samples a chunk of raw series has: 16 bytes each, so that a chunk stays in a core's cache.
const CHUNK_SAMPLES: usize = 32_768;

/// The execution plan of an operator tree, in which a leaf has as many partitions as `partitions` says.
pub fn physical_plan(
    node: &Arc<Node>,
    state: &Arc<QueryState>,
    partitions: &dyn Fn(&Select) -> usize,
) -> Arc<dyn ExecutionPlan> {
    let children = node.children.iter().map(|c| physical_plan(c, state, partitions)).collect();
    let partitions = node.as_select().map_or(1, partitions);
    Arc::new(PromExec::new(node.clone(), state.clone(), children, partitions))
}

/// One PromQL operator.
pub struct PromExec {
    node: Arc<Node>,
    kind: ValueKind,
    state: Arc<QueryState>,
    children: Vec<Arc<dyn ExecutionPlan>>,
    /// The inputs behind the first of a per-series operator: scalars, the same for every chunk.
    others: Arc<OnceCell<Vec<Value>>>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl PromExec {
    /// An operator over its inputs' plans; leaves are split into `partitions`.
    pub fn new(
        node: Arc<Node>,
        state: Arc<QueryState>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        partitions: usize,
    ) -> Self {
        let kind = kind_of(&node);
        let partitions = match node.split() {
            Split::Leaf if kind == ValueKind::Series => partitions.max(1),
            Split::PerSeries => children.first().map_or(1, partition_count),
            _ => 1,
        };
        let properties = Arc::new(PlanProperties::new(
            EquivalenceProperties::new(kind.schema()),
            Partitioning::UnknownPartitioning(partitions),
            EmissionType::Incremental,
            Boundedness::Bounded,
        ));
        Self {
            node,
            kind,
            state,
            children,
            others: Arc::default(),
            properties,
            metrics: ExecutionPlanMetricsSet::new(),
        }
    }

    fn input(&self, i: usize, context: &Arc<TaskContext>) -> Result<Input> {
        let streams = (0..partition_count(&self.children[i]))
            .map(|p| self.input_partition(i, p, context))
            .collect::<Result<Vec<_>>>()?;
        Ok(Input { streams, node: self.node.children[i].clone() })
    }

    fn input_partition(&self, i: usize, p: usize, context: &Arc<TaskContext>) -> Result<ValueStream> {
        values_of(&self.children[i], &self.node.children[i], &self.state, p, context)
    }

    /// The values of one partition.
    pub fn values(&self, partition: usize, context: &Arc<TaskContext>) -> Result<ValueStream> {
        let (node, state) = (self.node.clone(), self.state.clone());
        let baseline = BaselineMetrics::new(&self.metrics, partition);
        let values: ValueStream = match node.split() {
            Split::Leaf if self.kind == ValueKind::Series => {
                leaf(node, state, partition, self.properties.partitioning.partition_count())?
            }
            Split::Leaf => {
                stream::once(async move { apply(&node, &state, Vec::new(), Held::default()) }).boxed()
            }
            Split::PerSeries => {
                let input = self.input_partition(0, partition, context)?;
                let others =
                    (1..self.children.len()).map(|i| self.input(i, context)).collect::<Result<Vec<_>>>()?;
                per_series(node, state, input, others, self.others.clone()).boxed()
            }
            Split::Partial => {
                let input = self.input(0, context)?;
                stream::once(aggregate(node, state, input)).boxed()
            }
            Split::Whole => {
                let inputs =
                    (0..self.children.len()).map(|i| self.input(i, context)).collect::<Result<Vec<_>>>()?;
                stream::once(async move {
                    let values = futures::future::try_join_all(inputs.into_iter().map(Input::gather)).await?;
                    let released =
                        node.children.iter().zip(&values).map(|(n, v)| Held::by(n, &state, v)).sum();
                    apply(&node, &state, values, released)
                })
                .boxed()
            }
        };
        let bytes = MetricBuilder::new(&self.metrics).output_bytes(partition);
        let counted = move |v: &Value| {
            baseline.record_output(rows(v));
            bytes.add(v.bytes());
        };
        Ok(values.inspect_ok(counted).boxed())
    }
}

fn partition_count(plan: &Arc<dyn ExecutionPlan>) -> usize {
    plan.properties().output_partitioning().partition_count()
}

/// Values of one partition, in order.
pub type ValueStream = BoxStream<'static, Result<Value, QueryError>>;

/// The values of a plan's partition: as they are where the plan is an operator of this process.
pub fn values_of(
    plan: &Arc<dyn ExecutionPlan>,
    node: &Arc<Node>,
    state: &Arc<QueryState>,
    partition: usize,
    context: &Arc<TaskContext>,
) -> Result<ValueStream> {
    if let Some(operator) = plan.downcast_ref::<PromExec>() {
        return operator.values(partition, context);
    }
    let (kind, steps, state) = (kind_of(node), node.steps, state.clone());
    let batches = plan.execute(partition, context.clone())?;
    let value = move |batch| from_batch(batch, kind, steps, &state.labels);
    Ok(batches.map_err(QueryError::from).and_then(move |b| std::future::ready(value(b))).boxed())
}

fn rows(value: &Value) -> usize {
    match value {
        Value::Series(s) => s.len(),
        Value::Vector(b) => b.len(),
        Value::Scalar(_) | Value::String(_) => 1,
    }
}

/// The streams of one input.
struct Input {
    streams: Vec<ValueStream>,
    node: Arc<Node>,
}

impl Input {
    /// The whole input as one value; partitions are read concurrently and put behind each other in order.
    async fn gather(self) -> Result<Value, QueryError> {
        gather(self.streams, &self.node).await
    }
}

/// All partitions of a node's plan as one value.
pub async fn gather(mut streams: Vec<ValueStream>, node: &Node) -> Result<Value, QueryError> {
    let kind = kind_of(node);
    if let [one] = &mut streams[..] {
        return concat(one.try_collect().await?, kind, node.steps);
    }
    let mut tasks = tokio::task::JoinSet::new();
    for (p, stream) in streams.into_iter().enumerate() {
        tasks.spawn(async move { Ok::<_, QueryError>((p, stream.try_collect::<Vec<Value>>().await?)) });
    }
    let mut parts: Vec<(usize, Vec<Value>)> = Vec::new();
    while let Some(done) = tasks.join_next().await {
        parts.push(done.map_err(|e| QueryError::Internal(e.to_string()))??);
    }
    parts.sort_by_key(|(p, _)| *p);
    concat(parts.into_iter().flat_map(|(_, v)| v).collect(), kind, node.steps)
}

/// Samples of a node's value that count against the query's budget until the value is used; a leaf that is kept counts
/// until the query ends.
#[derive(Clone, Copy, Default)]
struct Held {
    read: usize,
    evaluated: usize,
}

impl std::iter::Sum for Held {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        let add = |a: Self, b: Self| Self { read: a.read + b.read, evaluated: a.evaluated + b.evaluated };
        all.fold(Self::default(), add)
    }
}

impl Held {
    fn by(node: &Node, state: &QueryState, value: &Value) -> Self {
        match (value, node.as_select()) {
            (Value::Series(_), Some(select)) if !state.is_kept(select) => {
                Self { read: value.sample_count(), evaluated: 0 }
            }
            (Value::Series(_), _) => Self::default(),
            (other, _) => Self { read: 0, evaluated: other.sample_count() },
        }
    }

    fn release(self, state: &QueryState) {
        state.context.release_read(self.read);
        state.context.release(self.evaluated);
    }
}

/// Applies an operator and keeps the sample budget.
fn apply(node: &Node, state: &QueryState, inputs: Vec<Value>, released: Held) -> Result<Value, QueryError> {
    let value = node.apply(inputs, &state.context)?;
    emit(state, value, released)
}

fn emit(state: &QueryState, value: Value, released: Held) -> Result<Value, QueryError> {
    if !matches!(value, Value::Series(_)) {
        state.context.hold(value.sample_count())?;
    }
    released.release(state);
    Ok(value)
}

impl fmt::Debug for PromExec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PromExec({})", self.node.describe())
    }
}

impl DisplayAs for PromExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "PromExec: {}, partitions={}",
            self.node.describe(),
            self.properties.partitioning.partition_count()
        )
    }
}

impl ExecutionPlan for PromExec {
    fn name(&self) -> &str {
        "PromExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        self.children.iter().collect()
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false; self.children.len()]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let partitions = self.properties.partitioning.partition_count();
        Ok(Arc::new(Self::new(self.node.clone(), self.state.clone(), children, partitions)))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let state = self.state.clone();
        let batches = self.values(partition, &context)?.map(move |v| Ok(to_batch(v?, &state.labels)?));
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.kind.schema(), batches)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}

/// One partition of a leaf: values of about equal size, in order of labels.
fn leaf(node: Arc<Node>, state: Arc<QueryState>, partition: usize, partitions: usize) -> Result<ValueStream> {
    let select =
        node.as_select().cloned().ok_or_else(|| QueryError::Internal("a leaf without a selector".into()))?;
    let share = move |n: usize| n * partition / partitions..n * (partition + 1) / partitions;
    if state.is_kept(&select) {
        let chunks = async move {
            let raw = state.leaf(&select).await?;
            let_others_run(partitions).await;
            let mine = raw.slice(share(raw.len()));
            Ok::<_, QueryError>(stream::iter(kept_chunks(&mine).into_iter().map(|c| Ok(Value::Series(c)))))
        };
        return Ok(stream::once(chunks).try_flatten().boxed());
    }
    let parts = async move {
        let parts = state.parts(&select, partitions).await?;
        let_others_run(partitions).await;
        Ok::<_, QueryError>(stream::iter(share(parts.len())).then(move |i| {
            let (parts, state) = (parts.clone(), state.clone());
            async move { Ok(Value::Series(state.part(&parts, i).await?)) }
        }))
    };
    Ok(stream::once(parts).try_flatten().boxed())
}

/// Partitions wait for one that finds their leaf's series. It wakes them on its own thread, where they would wait until it
/// is done with its part: what is in memory is read without a pause. After this any thread takes them.
async fn let_others_run(partitions: usize) {
    if partitions > 1 {
        tokio::task::yield_now().await;
    }
}

/// A partition's share of a leaf that is kept, cut into chunks; no sample is copied.
fn kept_chunks(raw: &RawSeries) -> Vec<RawSeries> {
    let mut chunks = Vec::new();
    let (mut begin, mut samples) = (0, 0);
    for (row, i) in raw.rows.clone().enumerate() {
        let n = raw.set.floats(i).0.len() + raw.set.histograms(i).len() * 16;
        if samples + n > CHUNK_SAMPLES && row > begin {
            chunks.push(raw.slice(begin..row));
            (begin, samples) = (row, 0);
        }
        samples += n;
    }
    if begin < raw.len() {
        chunks.push(raw.slice(begin..raw.len()));
    }
    chunks
}

fn per_series(
    node: Arc<Node>,
    state: Arc<QueryState>,
    input: ValueStream,
    others: Vec<Input>,
    cell: Arc<OnceCell<Vec<Value>>>,
) -> impl futures::Stream<Item = Result<Value, QueryError>> + Send {
    let child = node.children[0].clone();
    let scalars = async move {
        let gather = async { futures::future::try_join_all(others.into_iter().map(Input::gather)).await };
        cell.get_or_try_init(|| gather).await.cloned()
    };
    // The input is read only once the scalars are there.
    let ready = stream::once(scalars).map_ok(Arc::new);
    stream::try_unfold(
        (Some(ready.boxed()), input, None::<Arc<Vec<Value>>>),
        move |(first, mut input, scalars)| {
            let (node, state, child) = (node.clone(), state.clone(), child.clone());
            async move {
                let scalars = match (scalars, first) {
                    (Some(s), _) => s,
                    (None, Some(mut first)) => match first.try_next().await? {
                        Some(s) => s,
                        None => return Ok(None),
                    },
                    (None, None) => return Ok(None),
                };
                let Some(value) = input.try_next().await? else { return Ok(None) };
                let released = Held::by(&child, &state, &value);
                let inputs = std::iter::once(value).chain(scalars.iter().cloned()).collect();
                let out = apply(&node, &state, inputs, released)?;
                Ok(Some((out, (None, input, Some(scalars)))))
            }
        },
    )
}

/// A partial result per partition, merged in order.
async fn aggregate(node: Arc<Node>, state: Arc<QueryState>, input: Input) -> Result<Value, QueryError> {
    let Input { streams, node: child } = input;
    let count = streams.len();
    let mut tasks = tokio::task::JoinSet::new();
    let mut parts: Vec<(usize, Partial)> = Vec::with_capacity(count);
    for (p, stream) in streams.into_iter().enumerate() {
        let part = partial(node.clone(), state.clone(), child.clone(), stream);
        if count == 1 {
            parts.push((p, part.await?));
        } else {
            tasks.spawn(async move { part.await.map(|r| (p, r)) });
        }
    }
    while let Some(done) = tasks.join_next().await {
        parts.push(done.map_err(|e| QueryError::Internal(e.to_string()))??);
    }
    parts.sort_by_key(|(p, _)| *p);
    let mut merged = node.new_partial()?;
    for (_, part) in parts {
        merged.merge(part)?;
    }
    let value = node.finish(merged, &state.context)?;
    emit(&state, value, Held::default())
}

async fn partial(
    node: Arc<Node>,
    state: Arc<QueryState>,
    child: Arc<Node>,
    mut stream: ValueStream,
) -> Result<Partial, QueryError> {
    let mut into = node.new_partial()?;
    while let Some(value) = stream.try_next().await? {
        let released = Held::by(&child, &state, &value);
        let Value::Vector(block) = value else {
            return Err(QueryError::Internal("an aggregation's input is not a vector".into()));
        };
        node.partial(&mut into, block, &state.context)?;
        released.release(&state);
    }
    Ok(into)
}
