//! Planning statements, and running them: rows come batch by batch, and whoever drops a running statement ends it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arrow_array::RecordBatch;
use datafusion::{
    error::DataFusionError,
    logical_expr::{
        LogicalPlan,
        sqlparser::ast::{Expr, Statement},
    },
    prelude::SessionContext,
    sql::parser::Statement as DfStatement,
};
use futures::StreamExt;
use sextant_model::TenantId;
use sextant_promql_eval::CancelFlag;
use tokio::{sync::mpsc, task::JoinHandle};

use super::{
    catalog::Catalog,
    error::PgError,
    functions, params,
    rewrite::{self, Rewritten},
    types::{self, ColumnType},
};
use crate::{
    engine::{CancelOnDrop, Querier},
    error::QueryError,
    metrics::Language,
    sql::read_only,
};

/// A column of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResultColumn {
    /// Its name.
    pub name: String,
    /// Its type.
    pub kind: ColumnType,
}

/// What planning needs to know of a session.
#[derive(Clone)]
pub struct Scope {
    /// Answers.
    pub querier: Querier,
    /// Whose data is read.
    pub tenants: Arc<[TenantId]>,
    /// The database's name.
    pub database: String,
    /// The user's name.
    pub user: String,
    /// The session's settings.
    pub settings: Vec<(String, String)>,
    /// The number of the connection.
    pub pid: i32,
    /// Longest time for a statement.
    pub timeout: Duration,
}

/// A planned statement.
pub struct Planned {
    context: SessionContext,
    plan: LogicalPlan,
    /// The columns.
    pub columns: Arc<Vec<ResultColumn>>,
}

/// A statement as it is prepared: its parameters' types and its columns.
#[derive(Debug)]
pub struct Described {
    /// The types of the parameters.
    pub parameters: Vec<ColumnType>,
    /// The columns.
    pub columns: Arc<Vec<ResultColumn>>,
}

const TEXT: ColumnType = ColumnType { scalar: types::TEXT, array: false };

impl Scope {
    /// Finds the types of a statement's parameters and columns. `declared` are the types that the client gave.
    pub async fn describe(
        &self,
        sql: &str,
        statement: Statement,
        declared: Vec<u32>,
    ) -> Result<Described, PgError> {
        let (this, sql) = (self.clone(), sql.to_owned());
        let work = async move { Ok(Box::pin(this.describe_now(&sql, statement, &declared)).await) };
        self.querier.bounded(&self.tenants, Language::Sql, self.timeout, work).await?
    }

    async fn describe_now(
        &self,
        sql: &str,
        mut statement: Statement,
        declared: &[u32],
    ) -> Result<Described, PgError> {
        let casts = rewrite::parameters(&mut statement);
        let count = casts.len().max(declared.len());
        let mut known = Vec::with_capacity(count);
        for i in 0..count {
            known.push(match declared.get(i).copied().unwrap_or(0) {
                0 | 705 => casts.get(i).and_then(|c| c.as_deref()).and_then(ColumnType::from_name),
                oid => Some(ColumnType::from_oid(oid).ok_or_else(|| {
                    PgError::new(
                        "42704",
                        format!("the type of parameter ${} (object id {oid}) is not known", i + 1),
                    )
                })?),
            });
        }
        let open = |i: usize| known.get(i).copied().flatten().and_then(|k| params::null(k).ok());
        let closed = |i: usize| params::null(known.get(i).copied().flatten().unwrap_or(TEXT)).ok();
        let mut inferred = Default::default();
        let planned = match self.plan_now(sql, statement.clone(), &open, CancelFlag::default()).await {
            Ok(planned) => {
                inferred = planned.plan.get_parameter_types().unwrap_or_default();
                planned
            }
            Err(_) if known.iter().any(Option::is_none) => {
                self.plan_now(sql, statement, &closed, CancelFlag::default()).await?
            }
            Err(e) => return Err(e),
        };
        let of = |i: usize| inferred.get(&format!("${}", i + 1)).cloned().flatten();
        let parameters = (0..count)
            .map(|i| known[i].or_else(|| of(i).map(|t| ColumnType::of_data_type(&t))).unwrap_or(TEXT))
            .collect();
        Ok(Described { parameters, columns: planned.columns })
    }

    async fn plan_now(
        &self,
        sql: &str,
        mut statement: Statement,
        parameter: &(dyn Fn(usize) -> Option<Expr> + Send + Sync),
        cancel: CancelFlag,
    ) -> Result<Planned, PgError> {
        let rewritten = rewrite::rewrite(&mut statement, parameter)?;
        let config = self
            .querier
            .sql_config()
            .with_information_schema(false)
            .with_default_catalog_and_schema(&self.database, "public")
            .set_bool("datafusion.sql_parser.collect_spans", true)
            .set_str("datafusion.execution.time_zone", "UTC");
        let context = self.querier.sql_session(&self.tenants, config, cancel).await?;
        let of_plan = |e| PgError::from_datafusion(e, sql);
        self.register(&context, &rewritten).await.map_err(of_plan)?;
        let state = context.state();
        let plan =
            state.statement_to_plan(DfStatement::Statement(Box::new(statement))).await.map_err(of_plan)?;
        read_only(&plan).map_err(|e| PgError::new("25006", e.to_string()))?;
        let names = rewritten.names.into_iter().map(Some).chain(std::iter::repeat(None));
        let columns = plan
            .schema()
            .fields()
            .iter()
            .zip(names)
            .map(|(f, name)| ResultColumn {
                name: name.flatten().unwrap_or_else(|| f.name().clone()),
                kind: ColumnType::of(f),
            })
            .collect();
        Ok(Planned { context, plan, columns: Arc::new(columns) })
    }

    async fn register(
        &self,
        context: &SessionContext,
        rewritten: &Rewritten,
    ) -> datafusion::error::Result<()> {
        let mut tables = Vec::new();
        for name in ["metrics", "samples"] {
            let table = context.table_provider(name).await?;
            tables.push((name.to_owned(), table.schema()));
        }
        let catalog = Arc::new(Catalog {
            database: self.database.clone(),
            user: self.user.clone(),
            settings: self.settings.clone(),
            pid: self.pid,
            relations: Catalog::relations(tables),
        });
        if rewritten.catalog
            && let Some(provider) = context.catalog(&self.database)
        {
            catalog.register(&*provider)?;
        }
        functions::register(&mut *context.state_ref().write(), &catalog)
    }

    /// Plans a statement and begins to run it; `parameter` gives the parameters' values.
    pub fn run(&self, sql: Arc<str>, statement: Statement, parameters: Vec<Expr>) -> Running {
        let (pieces, receiver) = mpsc::channel(2);
        let this = self.clone();
        let cancel = CancelFlag::default();
        let guard = CancelOnDrop(cancel.clone());
        let task = tokio::spawn(async move {
            let (querier, tenants) = (this.querier.clone(), this.tenants.clone());
            let timeout = this.timeout;
            let work = async move {
                Ok(Box::pin(this.run_now(&sql, statement, &parameters, cancel, &pieces)).await)
            };
            querier.bounded(&tenants, Language::Sql, timeout, work).await?
        });
        Running { pieces: receiver, task, outcome: None, _guard: guard }
    }

    async fn run_now(
        &self,
        sql: &str,
        statement: Statement,
        parameters: &[Expr],
        cancel: CancelFlag,
        pieces: &mpsc::Sender<Piece>,
    ) -> Result<(), PgError> {
        let begun = AtomicBool::new(false);
        let failed = parking_lot::Mutex::new(None);
        let read = || async {
            let parameter = |i: usize| parameters.get(i).cloned();
            let planned = match self.plan_now(sql, statement.clone(), &parameter, cancel.clone()).await {
                Ok(planned) => planned,
                Err(e) => {
                    *failed.lock() = Some(e);
                    return Ok(());
                }
            };
            let fail = |e: DataFusionError| {
                *failed.lock() = Some(PgError::from_datafusion(e, sql));
                Ok(())
            };
            let frame = match planned.context.execute_logical_plan(planned.plan).await {
                Ok(frame) => frame,
                Err(e) => return fail(e),
            };
            let mut batches = match frame.execute_stream().await {
                Ok(batches) => batches,
                Err(e) if removed(&e) => return Err(e.into()),
                Err(e) => return fail(e),
            };
            // Nobody waits for the rows any more where sending fails.
            if !begun.swap(true, Ordering::Relaxed)
                && pieces.send(Piece::Columns(planned.columns)).await.is_err()
            {
                return Ok(());
            }
            let mut sent = false;
            while let Some(batch) = batches.next().await {
                match batch {
                    Ok(batch) => {
                        sent = true;
                        if pieces.send(Piece::Batch(batch)).await.is_err() {
                            return Ok(());
                        }
                    }
                    Err(e) if !sent && removed(&e) => return Err(e.into()),
                    Err(e) => return fail(e),
                }
            }
            Ok::<(), QueryError>(())
        };
        self.querier.repeated(&self.tenants, read).await?;
        failed.into_inner().map_or(Ok(()), Err)
    }
}

/// Whether a block was removed before it was read, so that the statement may begin again.
fn removed(e: &DataFusionError) -> bool {
    match e.find_root() {
        DataFusionError::External(inner) => matches!(
            inner.downcast_ref::<QueryError>(),
            Some(QueryError::Storage(sextant_storage::StorageError::Missing { .. }))
        ),
        _ => false,
    }
}

/// What a running statement gives.
pub enum Piece {
    /// The columns, first.
    Columns(Arc<Vec<ResultColumn>>),
    /// Rows.
    Batch(RecordBatch),
}

/// A running statement; dropped, it is ended.
pub struct Running {
    pieces: mpsc::Receiver<Piece>,
    task: JoinHandle<Result<(), PgError>>,
    outcome: Option<Result<(), PgError>>,
    _guard: CancelOnDrop,
}

impl Running {
    /// The next piece; `None` at the end. A statement whose time is over ends here, even if what it computes goes on a moment.
    pub async fn next(&mut self) -> Result<Option<Piece>, PgError> {
        if self.outcome.is_none() {
            tokio::select! {
                biased;
                piece = self.pieces.recv() => {
                    if piece.is_some() {
                        return Ok(piece);
                    }
                    self.outcome = Some(joined((&mut self.task).await));
                }
                ended = &mut self.task => self.outcome = Some(joined(ended)),
            }
        }
        match self.pieces.try_recv() {
            Ok(piece) => Ok(Some(piece)),
            Err(_) => self.outcome.clone().unwrap_or(Ok(())).map(|()| None),
        }
    }
}

fn joined(ended: Result<Result<(), PgError>, tokio::task::JoinError>) -> Result<(), PgError> {
    ended.unwrap_or_else(|e| Err(PgError::new("XX000", format!("the statement's task failed: {e}"))))
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}
