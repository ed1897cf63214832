//! `promql('expr', start, end, step)` as a table: a row per series and step.

use std::{fmt, sync::Arc};

use arrow_schema::SchemaRef;
use async_trait::async_trait;
use datafusion::{
    catalog::{Session, TableFunctionArgs, TableFunctionImpl, TableProvider},
    common::{Result, ScalarValue, plan_err, tree_node::TreeNode},
    datasource::memory::MemorySourceConfig,
    logical_expr::{Expr, TableType, simplify::SimplifyContext},
    optimizer::simplify_expressions::ExprSimplifier,
    physical_plan::ExecutionPlan,
};
use sextant_model::{HistogramSample, NO_START, SeriesBuf, SeriesSet, TenantId};
use sextant_promql_eval::{CancelFlag, Cell, QueryKind, QueryResult};

use super::{rows::sample_batches, tables::TableColumns};
use crate::{
    engine::{PromQuery, Querier},
    http::{parse_span, parse_time},
};

/// The table function.
pub struct PromqlFunction {
    querier: Querier,
    tenants: Vec<TenantId>,
    columns: TableColumns,
    cancel: CancelFlag,
}

impl PromqlFunction {
    /// The function for some tenants; its rows have the columns of `samples`.
    pub fn new(querier: Querier, tenants: Vec<TenantId>, columns: TableColumns, cancel: CancelFlag) -> Self {
        Self { querier, tenants, columns, cancel }
    }
}

impl fmt::Debug for PromqlFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("promql()")
    }
}

impl TableFunctionImpl for PromqlFunction {
    fn call_with_args(&self, args: TableFunctionArgs<'_, '_>) -> Result<Arc<dyn TableProvider>> {
        let usage = "promql('expression', start, end, step): start and end are timestamps, RFC 3339 texts or Unix seconds; step is a duration text, an interval or seconds";
        let [query, rest @ ..] = args.exprs() else { return plan_err!("{usage}") };
        if args.exprs().iter().any(is_open) {
            return Ok(self.table(None));
        }
        let query = literal(query)?;
        let values = rest.iter().map(literal).collect::<Result<Vec<_>>>()?;
        if query.is_null() || values.iter().any(ScalarValue::is_null) {
            return Ok(self.table(None));
        }
        let Some(query) = text(&query) else { return plan_err!("{usage}") };
        let (kind, start, end, step) = match values.as_slice() {
            [at] => {
                let at = time(at)?;
                (QueryKind::Instant, at, at, 0)
            }
            [start, end, step] => (QueryKind::Range, time(start)?, time(end)?, span(step)?),
            _ => return plan_err!("{usage}"),
        };
        if kind == QueryKind::Range && (step <= 0 || end < start) {
            return plan_err!("promql(): the step must be positive and the end not before the start");
        }
        let query =
            PromQuery { query, kind, start, end, step, timeout: None, lookback: None, partial: false };
        Ok(self.table(Some(query)))
    }
}

impl PromqlFunction {
    /// The table of a question; without one (an argument is NULL, or a parameter without a value yet) it has no rows.
    fn table(&self, query: Option<PromQuery>) -> Arc<dyn TableProvider> {
        Arc::new(PromqlTable {
            querier: self.querier.clone(),
            tenants: self.tenants.clone(),
            columns: self.columns.clone(),
            query,
            cancel: self.cancel.clone(),
        })
    }
}

/// Whether an argument holds a parameter that has no value yet.
fn is_open(expr: &Expr) -> bool {
    expr.exists(|e| Ok(matches!(e, Expr::Placeholder(_)))).unwrap_or(false)
}

/// An argument as a constant: arithmetic, casts and `now()` are worked out.
fn literal(expr: &Expr) -> Result<ScalarValue> {
    let context =
        SimplifyContext::builder().with_query_execution_start_time(Some(chrono::Utc::now())).build();
    match ExprSimplifier::new(context).simplify(expr.clone())? {
        Expr::Literal(value, _) => Ok(value),
        other => plan_err!("promql(): {other} is not a constant"),
    }
}

fn text(value: &ScalarValue) -> Option<String> {
    match value {
        ScalarValue::Utf8(Some(s)) | ScalarValue::LargeUtf8(Some(s)) | ScalarValue::Utf8View(Some(s)) => {
            Some(s.clone())
        }
        _ => None,
    }
}

fn number(value: &ScalarValue) -> Option<f64> {
    match value.cast_to(&arrow_schema::DataType::Float64).ok()? {
        ScalarValue::Float64(v) if value.data_type().is_numeric() => v,
        _ => None,
    }
}

fn time(value: &ScalarValue) -> Result<i64> {
    if let Some(s) = text(value) {
        return parse_time(&s).or_else(|e| plan_err!("promql(): {e}"));
    }
    if let Some(seconds) = number(value) {
        return Ok((seconds * 1000.0) as i64);
    }
    match value.cast_to(&super::tables::time_type())? {
        ScalarValue::TimestampMillisecond(Some(ms), _) => Ok(ms),
        other => plan_err!("promql(): {other} is not a time"),
    }
}

fn span(value: &ScalarValue) -> Result<i64> {
    if let Some(s) = text(value) {
        return parse_span(&s).or_else(|e| plan_err!("promql(): {e}"));
    }
    if let Some(seconds) = number(value) {
        return Ok((seconds * 1000.0) as i64);
    }
    match value {
        ScalarValue::IntervalMonthDayNano(Some(i)) if i.months == 0 => {
            Ok(i64::from(i.days) * 86_400_000 + i.nanoseconds / 1_000_000)
        }
        ScalarValue::IntervalDayTime(Some(i)) => {
            Ok(i64::from(i.days) * 86_400_000 + i64::from(i.milliseconds))
        }
        other => plan_err!("promql(): {other} is not a duration"),
    }
}

/// The function with its arguments.
struct PromqlTable {
    querier: Querier,
    tenants: Vec<TenantId>,
    columns: TableColumns,
    query: Option<PromQuery>,
    cancel: CancelFlag,
}

impl fmt::Debug for PromqlTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "promql({:?})", self.query.as_ref().map(|q| &q.query))
    }
}

#[async_trait]
impl TableProvider for PromqlTable {
    fn schema(&self) -> SchemaRef {
        self.columns.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Temporary
    }

    async fn scan(
        &self,
        _: &dyn Session,
        projection: Option<&Vec<usize>>,
        _: &[Expr],
        _: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let set = match &self.query {
            Some(query) => {
                let cancel = self.cancel.clone();
                series_set(&self.querier.promql_inner(&self.tenants, query, cancel, false).await?.result)
            }
            None => SeriesSet::new(),
        };
        let all: Vec<usize> = (0..self.columns.columns.len()).collect();
        let projected = projection.unwrap_or(&all);
        let columns: Vec<_> = projected.iter().map(|&i| self.columns.columns[i].clone()).collect();
        let schema = Arc::new(self.columns.schema.project(projected)?);
        let batches = sample_batches(&set, &columns, &schema)?;
        Ok(MemorySourceConfig::try_new_exec(&[batches], schema, None)?)
    }
}

/// An answer as series with samples.
fn series_set(result: &QueryResult) -> SeriesSet {
    let mut set = SeriesSet::new();
    let mut buf = SeriesBuf::default();
    match result {
        QueryResult::Scalar { t_ms, v } => {
            buf.t.push(*t_ms);
            buf.v.push(*v);
            set.push(sextant_model::Labels::empty(), &buf);
        }
        QueryResult::String { .. } => {}
        QueryResult::Raw(raw) => set = (**raw).clone(),
        QueryResult::Vector(_) | QueryResult::Matrix(_) => {
            for series in result.series() {
                buf.clear();
                for (t, cell) in series.points {
                    match cell {
                        Cell::Float(v) => {
                            buf.t.push(t);
                            buf.v.push(v);
                        }
                        Cell::Histogram(h) => {
                            buf.h.push(HistogramSample { t, start: NO_START, h: (*h).clone() });
                        }
                    }
                }
                set.push(series.labels, &buf);
            }
        }
    }
    set
}
