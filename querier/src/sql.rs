//! SQL over the signals: read-only, one session per question over one consistent view.

mod filters;
mod function;
mod interrupt;
mod rows;
mod scan;
mod tables;

use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use datafusion::{
    execution::{SessionStateBuilder, context::SQLOptions, runtime_env::RuntimeEnvBuilder},
    logical_expr::LogicalPlan,
    physical_plan::SendableRecordBatchStream,
    prelude::{SessionConfig, SessionContext},
};
use futures::TryStreamExt;
use sextant_model::TenantId;
use sextant_promql_eval::CancelFlag;
use sextant_proto::SelectLimits;

use self::{
    function::PromqlFunction,
    interrupt::Interruptible,
    tables::{SeriesTable, TableColumns, TableKind},
};
use crate::{
    dataset::Selection,
    engine::{CancelOnDrop, Querier},
    error::QueryError,
    metrics::Language,
};

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
        self.sql_plan_until(tenants, sql, CancelFlag::default()).await
    }

    async fn sql_plan_until(
        &self,
        tenants: &[TenantId],
        sql: &str,
        cancel: CancelFlag,
    ) -> Result<SqlPlan, QueryError> {
        crate::postgres::refuse_deep(sql)?;
        let context = self.sql_session(tenants, self.sql_config(), cancel).await?;
        let plan = context.state().create_logical_plan(sql).await?;
        read_only(&plan)?;
        Ok(SqlPlan { context, plan })
    }

    /// Answers a SQL question.
    pub async fn sql(&self, tenants: &[TenantId], sql: &str) -> Result<SqlAnswer, QueryError> {
        let asking = tenants;
        let (this, tenants, sql) = (self.clone(), tenants.to_vec(), sql.to_owned());
        let cancel = CancelFlag::default();
        let _guard = CancelOnDrop(cancel.clone());
        let work = async move {
            let read = || async {
                let plan = this.sql_plan_until(&tenants, &sql, cancel.clone()).await?;
                let schema = plan.schema();
                let batches = plan.stream().await?.try_collect().await?;
                Ok(SqlAnswer { schema, batches })
            };
            this.repeated(&tenants, read).await
        };
        self.bounded(asking, Language::Sql, self.config().timeout, work).await
    }

    /// How SQL is planned and run.
    pub(crate) fn sql_config(&self) -> SessionConfig {
        SessionConfig::new()
            .with_target_partitions(self.config().threads)
            .with_information_schema(true)
            .with_default_catalog_and_schema("sextant", "public")
            .set_bool("datafusion.sql_parser.enable_ident_normalization", true)
    }

    /// A session with the tables and functions of SQL over one view of the tenants' data. `cancel` ends what runs in it.
    pub(crate) async fn sql_session(
        &self,
        tenants: &[TenantId],
        config: SessionConfig,
        cancel: CancelFlag,
    ) -> Result<SessionContext, QueryError> {
        let dataset = self.dataset(tenants).await?;
        let tenant_limits = self.limits(tenants);
        let limits = self.select_limits(&tenant_limits);
        let memory = match tenant_limits.max_query_memory_bytes as usize {
            0 => self.config().sql_memory_bytes,
            most => most.min(self.config().sql_memory_bytes),
        };
        let everything = Selection {
            matchers: Vec::new(),
            start: i64::MIN,
            end: i64::MAX,
            limits: SelectLimits::default(),
        };
        let labels = dataset.label_values(&everything, None).await?;
        let runtime = RuntimeEnvBuilder::new().with_memory_limit(memory, 0.9).build_arc()?;
        let state = SessionStateBuilder::new()
            .with_config(config)
            .with_runtime_env(runtime)
            .with_default_features()
            .with_physical_optimizer_rule(Arc::new(Interruptible(cancel.clone())))
            .build();
        let context = SessionContext::new_with_state(state);
        for (name, kind) in [("metrics", TableKind::Metrics), ("samples", TableKind::Samples)] {
            let columns = TableColumns::new(kind, &labels);
            context.register_table(name, Arc::new(SeriesTable::new(dataset.clone(), columns, limits)))?;
        }
        let columns = TableColumns::new(TableKind::Samples, &labels);
        let promql = PromqlFunction::new(self.clone(), tenants.to_vec(), columns, cancel);
        context.register_udtf("promql", Arc::new(promql));
        Ok(context)
    }
}

/// Refuses whatever is not a read.
pub(crate) fn read_only(plan: &LogicalPlan) -> Result<(), QueryError> {
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
