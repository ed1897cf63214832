//! SQL over the signals: read-only, one session per question over one consistent view.

mod filters;
mod function;
mod rows;
mod scan;
mod tables;

use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use datafusion::{
    execution::{context::SQLOptions, runtime_env::RuntimeEnvBuilder},
    logical_expr::LogicalPlan,
    physical_plan::SendableRecordBatchStream,
    prelude::{SessionConfig, SessionContext},
};
use futures::TryStreamExt;
use sextant_model::TenantId;
use sextant_proto::SelectLimits;

use self::{
    function::PromqlFunction,
    tables::{SeriesTable, TableColumns, TableKind},
};
use crate::{dataset::Selection, engine::Querier, error::QueryError, metrics::Language};

/// An answer to a SQL question.
pub struct SqlAnswer {
    /// The columns.
    pub schema: SchemaRef,
    /// The rows.
    pub batches: Vec<RecordBatch>,
}

/// A planned SQL question: its schema is known before it runs.
pub struct SqlPlan {
    context: SessionContext,
    plan: LogicalPlan,
}

impl SqlPlan {
    /// The answer's columns.
    pub fn schema(&self) -> SchemaRef {
        self.plan.schema().inner().clone()
    }

    /// Runs the plan.
    pub async fn stream(self) -> Result<SendableRecordBatchStream, QueryError> {
        let frame = self.context.execute_logical_plan(self.plan).await?;
        Ok(frame.execute_stream().await?)
    }
}

impl Querier {
    /// Plans a SQL question; anything but a read is refused.
    pub async fn sql_plan(&self, tenants: &[TenantId], sql: &str) -> Result<SqlPlan, QueryError> {
        let context = self.sql_session(tenants).await?;
        let plan = context.state().create_logical_plan(sql).await?;
        read_only(&plan)?;
        Ok(SqlPlan { context, plan })
    }

    /// Answers a SQL question.
    pub async fn sql(&self, tenants: &[TenantId], sql: &str) -> Result<SqlAnswer, QueryError> {
        let (this, tenants, sql) = (self.clone(), tenants.to_vec(), sql.to_owned());
        let work = async move {
            let plan = this.sql_plan(&tenants, &sql).await?;
            let schema = plan.schema();
            let batches = plan.stream().await?.try_collect().await?;
            Ok(SqlAnswer { schema, batches })
        };
        self.bounded(Language::Sql, self.config().timeout, work).await
    }

    async fn sql_session(&self, tenants: &[TenantId]) -> Result<SessionContext, QueryError> {
        let dataset = self.dataset(tenants).await?;
        let limits = self.select_limits(&self.limits(tenants));
        let everything = Selection {
            matchers: Vec::new(),
            start: i64::MIN,
            end: i64::MAX,
            limits: SelectLimits::default(),
        };
        let labels = dataset.label_values(&everything, None).await?;
        let config = SessionConfig::new()
            .with_target_partitions(self.config().threads)
            .with_information_schema(true)
            .with_default_catalog_and_schema("sextant", "public")
            .set_bool("datafusion.sql_parser.enable_ident_normalization", true);
        let runtime =
            RuntimeEnvBuilder::new().with_memory_limit(self.config().sql_memory_bytes, 0.9).build_arc()?;
        let context = SessionContext::new_with_config_rt(config, runtime);
        for (name, kind) in [("metrics", TableKind::Metrics), ("samples", TableKind::Samples)] {
            let columns = TableColumns::new(kind, &labels);
            context.register_table(name, Arc::new(SeriesTable::new(dataset.clone(), columns, limits)))?;
        }
        let columns = TableColumns::new(TableKind::Samples, &labels);
        context
            .register_udtf("promql", Arc::new(PromqlFunction::new(self.clone(), tenants.to_vec(), columns)));
        Ok(context)
    }
}

/// Refuses whatever is not a read.
fn read_only(plan: &LogicalPlan) -> Result<(), QueryError> {
    SQLOptions::new()
        .with_allow_ddl(false)
        .with_allow_dml(false)
        .with_allow_statements(false)
        .verify_plan(plan)
        .map_err(|e| {
            QueryError::BadRequest(format!(
                "only reads are answered (SELECT, EXPLAIN, SHOW, DESCRIBE): {}",
                e.strip_backtrace()
            ))
        })
}
