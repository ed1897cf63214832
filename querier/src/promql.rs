//! PromQL as DataFusion plans: operators of `sextant-promql-eval` as execution plans whose batches are columns of series.
//!
//! `physical` makes an execution plan of an operator tree, `batch` is the form in which values travel, `state` is what the
//! operators of one query share. There is no logical plan: `sextant-promql-eval` has decided everything that DataFusion's
//! optimiser could, and making one took longer than answering a question about few series (`docs/adr/0004-promql-plans.md`).

mod batch;
mod hints;
mod physical;
mod state;

use std::{collections::HashMap, sync::Arc};

use datafusion::{
    execution::TaskContext,
    physical_plan::{ExecutionPlan, displayable},
    prelude::SessionContext,
};
use sextant_promql_eval::{Node, Plan, QueryResult, Select, finish};
use tokio::task::JoinSet;

use self::physical::{gather, physical_plan, values_of};
pub use self::state::QueryState;
use crate::error::QueryError;

/// The session that PromQL plans are made and run in.
#[derive(Clone)]
pub struct PromSession {
    context: Arc<TaskContext>,
    /// At most so many partitions has a plan.
    partitions: usize,
}

impl PromSession {
    /// A session whose plans use so many partitions.
    pub fn new(partitions: usize) -> Self {
        Self { context: SessionContext::new().task_ctx(), partitions: partitions.max(1) }
    }

    /// The plan for what the selectors find: where that is little, one partition, because a task more costs more than it
    /// saves.
    async fn physical(
        &self,
        plan: &Plan,
        state: &Arc<QueryState>,
    ) -> Result<Arc<dyn ExecutionPlan>, QueryError> {
        let mut leaves = HashMap::new();
        collect_leaves(&plan.root, state, &mut leaves);
        let mut found = HashMap::with_capacity(leaves.len());
        if leaves.len() == 1 {
            for (id, select) in leaves {
                found.insert(id, state.parts(&select, self.partitions).await?.len());
            }
        } else {
            let mut tasks = JoinSet::<Result<(usize, usize), QueryError>>::new();
            for (id, select) in leaves {
                let (state, partitions) = (state.clone(), self.partitions);
                tasks.spawn(async move { Ok((id, state.parts(&select, partitions).await?.len())) });
            }
            while let Some(done) = tasks.join_next().await {
                let (id, parts) = done.map_err(|e| QueryError::Internal(e.to_string()))??;
                found.insert(id, parts);
            }
        }
        let partitions = |s: &Select| found.get(&s.id).map_or(self.partitions, |n| (*n).min(self.partitions));
        Ok(physical_plan(&plan.root, state, &partitions))
    }

    /// Runs a plan.
    pub async fn run(&self, plan: &Plan, state: &Arc<QueryState>) -> Result<QueryResult, QueryError> {
        let physical = self.physical(plan, state).await?;
        self.run_physical(plan, state, physical).await
    }

    async fn run_physical(
        &self,
        plan: &Plan,
        state: &Arc<QueryState>,
        physical: Arc<dyn ExecutionPlan>,
    ) -> Result<QueryResult, QueryError> {
        let context = self.context.clone();
        let partitions = physical.properties().output_partitioning().partition_count();
        let streams = (0..partitions)
            .map(|p| values_of(&physical, &plan.root, state, p, &context))
            .collect::<Result<Vec<_>, _>>()?;
        let value = gather(streams, &plan.root).await?;
        Ok(finish(plan, value, &state.context)?)
    }

    /// Runs a plan and shows it as text, with the rows and bytes that each operator gave.
    pub async fn explain(&self, plan: &Plan, state: &Arc<QueryState>) -> Result<String, QueryError> {
        let physical = self.physical(plan, state).await?;
        self.run_physical(plan, state, physical.clone()).await?;
        Ok(datafusion::physical_plan::display::DisplayableExecutionPlan::with_metrics(physical.as_ref())
            .indent(true)
            .to_string())
    }

    /// The execution plan as text, without running it.
    pub fn describe(&self, plan: &Plan, state: &Arc<QueryState>) -> String {
        let physical = physical_plan(&plan.root, state, &|_| self.partitions);
        displayable(physical.as_ref()).indent(true).to_string()
    }
}

/// The selectors that are read in parts.
fn collect_leaves(node: &Node, state: &QueryState, into: &mut HashMap<usize, Select>) {
    if let Some(select) = node.as_select().filter(|s| !state.is_kept(s)) {
        into.insert(select.id, select.clone());
    }
    node.children.iter().for_each(|c| collect_leaves(c, state, into));
}
