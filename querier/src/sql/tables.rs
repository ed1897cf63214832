//! The tables `metrics` (a row a series) and `samples` (a row a sample), labels as columns.
//!
//! Columns are fixed ones first, then one per label name of the tenant, by name. A label whose name is that of a fixed column is
//! `label_<name>`. Labels beyond [`LABEL_COLUMNS_MAX`] are in the map `labels` only, which always has all of them.

use std::{collections::BTreeMap, fmt, sync::Arc};

use arrow_schema::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use async_trait::async_trait;
use datafusion::{
    catalog::{Session, TableProvider},
    common::Result,
    logical_expr::{Expr, TableProviderFilterPushDown, TableType},
    physical_plan::ExecutionPlan,
};
use sextant_model::METRIC_NAME;
use sextant_proto::SelectLimits;

use super::{
    filters::{ColumnNames, ScanFilter},
    scan::SeriesTableExec,
};
use crate::dataset::Dataset;

/// At most this many label names become columns.
pub const LABEL_COLUMNS_MAX: usize = 500;

/// Which of the two tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableKind {
    /// A row a series.
    Metrics,
    /// A row a sample.
    Samples,
}

/// A column of either table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Column {
    /// The metric's name.
    Name,
    /// The sample's time.
    Time,
    /// The sample's float value; NULL for a histogram.
    Value,
    /// The sample's histogram; NULL for a float.
    Histogram,
    /// When the counter started; NULL where unknown.
    StartTime,
    /// All labels but the name.
    Labels,
    /// The family's type.
    Type,
    /// The family's unit.
    Unit,
    /// The family's help text.
    Help,
    /// Time of the series' first sample.
    FirstTime,
    /// Time of the series' last sample.
    LastTime,
    /// How many samples the series has.
    SampleCount,
    /// The value of a label; NULL where the series does not have it.
    Label(String),
}

/// The columns of a table for a set of label names.
#[derive(Clone, Debug)]
pub struct TableColumns {
    /// The table.
    pub kind: TableKind,
    /// The columns in order.
    pub columns: Vec<Column>,
    /// The columns' schema.
    pub schema: SchemaRef,
    by_name: BTreeMap<String, usize>,
}

/// The type of label and name columns.
pub fn label_type() -> DataType {
    DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8))
}

/// The type of time columns.
pub fn time_type() -> DataType {
    DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()))
}

/// The fields of a map entry of the column `labels`.
pub fn map_entry_fields() -> Fields {
    Fields::from(vec![Field::new("key", DataType::Utf8, false), Field::new("value", DataType::Utf8, true)])
}

/// The fields of a bucket of the column `histogram`.
pub fn bucket_fields() -> Fields {
    Fields::from(vec![
        Field::new("lower", DataType::Float64, false),
        Field::new("upper", DataType::Float64, false),
        Field::new("count", DataType::Float64, false),
    ])
}

/// The fields of the column `histogram`.
pub fn histogram_fields() -> Fields {
    let bucket = Arc::new(Field::new("item", DataType::Struct(bucket_fields()), false));
    Fields::from(vec![
        Field::new("count", DataType::Float64, false),
        Field::new("sum", DataType::Float64, false),
        Field::new("schema", DataType::Int32, false),
        Field::new("zero_threshold", DataType::Float64, false),
        Field::new("zero_count", DataType::Float64, false),
        Field::new("buckets", DataType::List(bucket), false),
    ])
}

impl Column {
    fn data_type(&self) -> DataType {
        match self {
            Self::Name | Self::Type | Self::Unit | Self::Help | Self::Label(_) => label_type(),
            Self::Time | Self::StartTime | Self::FirstTime | Self::LastTime => time_type(),
            Self::Value => DataType::Float64,
            Self::Histogram => DataType::Struct(histogram_fields()),
            Self::SampleCount => DataType::UInt64,
            Self::Labels => DataType::Map(
                Arc::new(Field::new("entries", DataType::Struct(map_entry_fields()), false)),
                false,
            ),
        }
    }

    fn nullable(&self) -> bool {
        !matches!(self, Self::Time | Self::FirstTime | Self::LastTime | Self::SampleCount | Self::Labels)
    }
}

impl TableColumns {
    /// The columns for a tenant's label names.
    pub fn new(kind: TableKind, label_names: &[String]) -> Self {
        let mut named: Vec<(String, Column)> = match kind {
            TableKind::Samples => vec![
                ("name".into(), Column::Name),
                ("time".into(), Column::Time),
                ("value".into(), Column::Value),
                ("histogram".into(), Column::Histogram),
                ("start_time".into(), Column::StartTime),
                ("labels".into(), Column::Labels),
            ],
            TableKind::Metrics => vec![
                ("name".into(), Column::Name),
                ("type".into(), Column::Type),
                ("unit".into(), Column::Unit),
                ("help".into(), Column::Help),
                ("first_time".into(), Column::FirstTime),
                ("last_time".into(), Column::LastTime),
                ("sample_count".into(), Column::SampleCount),
                ("labels".into(), Column::Labels),
            ],
        };
        let labels = label_names.iter().filter(|n| *n != METRIC_NAME).take(LABEL_COLUMNS_MAX);
        let mut taken: std::collections::BTreeSet<String> = named.iter().map(|(n, _)| n.clone()).collect();
        for label in labels {
            let mut column = label.clone();
            while !taken.insert(column.clone()) {
                column = format!("label_{column}");
            }
            named.push((column, Column::Label(label.clone())));
        }
        let fields: Vec<Field> =
            named.iter().map(|(n, c)| Field::new(n, c.data_type(), c.nullable())).collect();
        let by_name = named.iter().enumerate().map(|(i, (n, _))| (n.clone(), i)).collect();
        let columns = named.into_iter().map(|(_, c)| c).collect();
        Self { kind, columns, schema: Arc::new(Schema::new(fields)), by_name }
    }
}

impl ColumnNames for TableColumns {
    fn label_of(&self, column: &str) -> Option<String> {
        match &self.columns[*self.by_name.get(column)?] {
            Column::Name => Some(METRIC_NAME.to_owned()),
            Column::Label(l) => Some(l.clone()),
            _ => None,
        }
    }

    fn is_time(&self, column: &str) -> bool {
        self.by_name.get(column).is_some_and(|&i| self.columns[i] == Column::Time)
    }
}

/// One of the two tables over one query's view of the data.
pub struct SeriesTable {
    dataset: Arc<Dataset>,
    columns: TableColumns,
    limits: SelectLimits,
}

impl SeriesTable {
    /// A table over a dataset.
    pub fn new(dataset: Arc<Dataset>, columns: TableColumns, limits: SelectLimits) -> Self {
        Self { dataset, columns, limits }
    }
}

impl fmt::Debug for SeriesTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SeriesTable({:?})", self.columns.kind)
    }
}

#[async_trait]
impl TableProvider for SeriesTable {
    fn schema(&self) -> SchemaRef {
        self.columns.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let mut filter = ScanFilter::default();
        let mut exact = true;
        for f in filters {
            exact &= filter.push(&self.columns, f);
        }
        let projection = projection.cloned().unwrap_or_else(|| (0..self.columns.columns.len()).collect());
        let limit = limit.filter(|_| exact);
        Ok(Arc::new(SeriesTableExec::new(
            self.dataset.clone(),
            self.columns.clone(),
            filter,
            projection,
            limit,
            self.limits,
        )?))
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(filters
            .iter()
            .map(|f| match ScanFilter::default().push(&self.columns, f) {
                true => TableProviderFilterPushDown::Exact,
                false => TableProviderFilterPushDown::Unsupported,
            })
            .collect())
    }
}
