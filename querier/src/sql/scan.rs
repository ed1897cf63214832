//! The scan behind both tables: reads series metric by metric and turns them into rows.
//!
//! Memory is bounded by the largest metric of the answer: the scan asks for the metric names first and reads one at a time.

use std::{fmt, sync::Arc};

use arrow_array::{ArrayRef, DictionaryArray, Int32Array, RecordBatch, StringArray, UInt64Array};
use arrow_schema::SchemaRef;
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
use futures::{StreamExt, TryStreamExt, stream};
use sextant_model::{METRIC_NAME, MatchOp, Matcher, SeriesSet};
use sextant_proto::{MetadataEntry, SelectLimits};

use super::{
    filters::ScanFilter,
    rows::{batch, sample_batches, series_column, time_array},
    tables::{Column, TableColumns, TableKind},
};
use crate::{
    dataset::{Dataset, Selection},
    error::QueryError,
};

/// The scan of `metrics` or `samples`.
pub struct SeriesTableExec {
    dataset: Arc<Dataset>,
    columns: TableColumns,
    filter: ScanFilter,
    projection: Vec<usize>,
    limit: Option<usize>,
    limits: SelectLimits,
    schema: SchemaRef,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl SeriesTableExec {
    /// A scan of the projected columns.
    pub fn new(
        dataset: Arc<Dataset>,
        columns: TableColumns,
        filter: ScanFilter,
        projection: Vec<usize>,
        limit: Option<usize>,
        limits: SelectLimits,
    ) -> Result<Self> {
        let schema = Arc::new(columns.schema.project(&projection)?);
        let properties = Arc::new(PlanProperties::new(
            EquivalenceProperties::new(schema.clone()),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        ));
        Ok(Self {
            dataset,
            columns,
            filter,
            projection,
            limit,
            limits,
            schema,
            properties,
            metrics: ExecutionPlanMetricsSet::new(),
        })
    }
}

impl fmt::Debug for SeriesTableExec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SeriesTableExec({:?})", self.columns.kind)
    }
}

impl DisplayAs for SeriesTableExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let table = match self.columns.kind {
            TableKind::Metrics => "metrics",
            TableKind::Samples => "samples",
        };
        write!(f, "SeriesTableExec: table={table}, matchers=[")?;
        for (i, m) in self.filter.matchers.iter().enumerate() {
            write!(f, "{}{m}", if i > 0 { ", " } else { "" })?;
        }
        f.write_str("]")?;
        if self.filter.start > i64::MIN {
            write!(f, ", time>={}ms", self.filter.start)?;
        }
        if self.filter.end < i64::MAX {
            write!(f, ", time<={}ms", self.filter.end)?;
        }
        if let Some(limit) = self.limit {
            write!(f, ", limit={limit}")?;
        }
        let columns: Vec<&str> = self.schema.fields().iter().map(|f| f.name().as_str()).collect();
        write!(f, ", columns=[{}]", columns.join(", "))
    }
}

impl ExecutionPlan for SeriesTableExec {
    fn name(&self) -> &str {
        "SeriesTableExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(&self, partition: usize, _: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let baseline = BaselineMetrics::new(&self.metrics, partition);
        let series_read = MetricBuilder::new(&self.metrics).counter("series_read", partition);
        let scan = Arc::new(Scan {
            dataset: self.dataset.clone(),
            filter: self.filter.clone(),
            columns: self.projection.iter().map(|&i| self.columns.columns[i].clone()).collect(),
            kind: self.columns.kind,
            schema: self.schema.clone(),
            limits: self.limits,
        });
        let limit = self.limit.unwrap_or(usize::MAX);
        let first = scan.clone();
        let batches = stream::once(async move { first.metric_names().await })
            .map_ok(move |(names, metadata)| {
                let scan = scan.clone();
                let metadata = Arc::new(metadata);
                stream::iter(names).then(move |name| {
                    let (scan, metadata) = (scan.clone(), metadata.clone());
                    async move { scan.read(name, &metadata).await }
                })
            })
            .try_flatten()
            .map_ok(move |(series, batches)| {
                series_read.add(series);
                stream::iter(batches.into_iter().map(Ok::<_, QueryError>))
            })
            .try_flatten();
        let mut left = limit;
        let limited = batches
            .try_take_while(move |_| std::future::ready(Ok(true)))
            .map_err(Into::into)
            .map_ok(move |b: RecordBatch| {
                let n = b.num_rows().min(left);
                left -= n;
                baseline.record_output(n);
                b.slice(0, n)
            })
            .try_filter(|b| std::future::ready(b.num_rows() > 0));
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), stop_after(limited, limit))))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}

/// Ends the stream once `limit` rows have come.
fn stop_after(
    batches: impl futures::Stream<Item = Result<RecordBatch>> + Send + 'static,
    limit: usize,
) -> impl futures::Stream<Item = Result<RecordBatch>> + Send + 'static {
    let mut seen = 0usize;
    let mut done = limit == 0;
    batches.take_while(move |b| {
        let go = !done;
        if let Ok(b) = b {
            seen += b.num_rows();
            done = seen >= limit;
        }
        std::future::ready(go)
    })
}

struct Scan {
    dataset: Arc<Dataset>,
    filter: ScanFilter,
    columns: Vec<Column>,
    kind: TableKind,
    schema: SchemaRef,
    limits: SelectLimits,
}

type FamilyMetadata = std::collections::HashMap<String, MetadataEntry>;

impl Scan {
    fn selection(&self, name: Option<&str>) -> Result<Selection, QueryError> {
        let mut matchers = self.filter.matchers.clone();
        if let Some(name) = name {
            matchers.push(Matcher::equal(METRIC_NAME, name));
        }
        if matchers.iter().all(Matcher::matches_empty) {
            let any = Matcher::new(METRIC_NAME, MatchOp::NotEqual, "")
                .map_err(|e| QueryError::BadRequest(e.to_string()))?;
            matchers.push(any);
        }
        Ok(Selection { matchers, start: self.filter.start, end: self.filter.end, limits: self.limits })
    }

    async fn metric_names(&self) -> Result<(Vec<String>, FamilyMetadata), QueryError> {
        let wants_metadata =
            self.columns.iter().any(|c| matches!(c, Column::Type | Column::Unit | Column::Help));
        let metadata = if wants_metadata {
            let mut by_name = FamilyMetadata::new();
            for entry in self.dataset.metadata().await? {
                by_name.entry(entry.name.clone()).or_insert(entry);
            }
            by_name
        } else {
            FamilyMetadata::new()
        };
        let names = self.dataset.label_values(&self.selection(None)?, Some(METRIC_NAME)).await?;
        Ok((names, metadata))
    }

    async fn read(
        &self,
        name: String,
        metadata: &FamilyMetadata,
    ) -> Result<(usize, Vec<RecordBatch>), QueryError> {
        let set = self.dataset.select(&self.selection(Some(&name))?).await?;
        let batches = match self.kind {
            TableKind::Metrics => vec![self.series_rows(&set, &name, metadata)?],
            TableKind::Samples => sample_batches(&set, &self.columns, &self.schema)?,
        };
        Ok((set.len(), batches))
    }

    fn series_rows(
        &self,
        set: &SeriesSet,
        name: &str,
        metadata: &FamilyMetadata,
    ) -> Result<RecordBatch, QueryError> {
        let family = family_metadata(name, metadata);
        let times = |i: usize| {
            let floats = set.floats(i).0;
            let hists = set.histograms(i);
            let first =
                floats.first().copied().into_iter().chain(hists.first().map(|h| h.t)).min().unwrap_or(0);
            let last = floats.last().copied().into_iter().chain(hists.last().map(|h| h.t)).max().unwrap_or(0);
            (first, last, (floats.len() + hists.len()) as u64)
        };
        let series: Vec<usize> = (0..set.len()).collect();
        let constant = |text: Option<&str>| -> ArrayRef {
            let keys = Int32Array::from(vec![text.map(|_| 0); set.len()]);
            Arc::new(DictionaryArray::new(keys, Arc::new(StringArray::from(vec![text.unwrap_or("")]))))
        };
        let arrays = self
            .columns
            .iter()
            .map(|c| -> Result<ArrayRef, QueryError> {
                Ok(match c {
                    Column::Type => constant(family.map(|m| m.metadata.metric_type.as_str())),
                    Column::Unit => constant(family.map(|m| m.metadata.unit.as_str())),
                    Column::Help => constant(family.map(|m| m.metadata.help.as_str())),
                    Column::FirstTime => time_array(series.iter().map(|&i| times(i).0)),
                    Column::LastTime => time_array(series.iter().map(|&i| times(i).1)),
                    Column::SampleCount => {
                        Arc::new(UInt64Array::from_iter_values(series.iter().map(|&i| times(i).2)))
                    }
                    other => series_column(set, other, &series, &vec![1; set.len()])?,
                })
            })
            .collect::<Result<Vec<_>, _>>()?;
        batch(&self.schema, arrays, set.len())
    }
}

/// Metadata of a metric: of its own name, or of the family it is a part of.
fn family_metadata<'a>(name: &str, metadata: &'a FamilyMetadata) -> Option<&'a MetadataEntry> {
    metadata.get(name).or_else(|| {
        ["_total", "_bucket", "_count", "_sum", "_created", "_info"]
            .iter()
            .find_map(|suffix| metadata.get(name.strip_suffix(suffix)?))
    })
}
