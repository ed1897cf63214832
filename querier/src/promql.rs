//! PromQL as DataFusion plans: operators of `sextant-promql-eval` as plan nodes whose batches are columns of series.
//!
//! `logical` makes a logical plan of an operator tree, `physical` its execution plan, `batch` is the form in which values travel,
//! `state` is what the operators of one query share.

mod batch;
mod hints;
mod logical;
mod physical;
mod state;

use std::sync::Arc;

use datafusion::{
    execution::{context::SessionState, session_state::SessionStateBuilder},
    physical_plan::{ExecutionPlan, displayable},
    physical_planner::{DefaultPhysicalPlanner, PhysicalPlanner},
    prelude::SessionConfig,
};
use sextant_promql_eval::{Plan, QueryResult, finish};

pub use self::state::QueryState;
use self::{
    logical::logical_plan,
    physical::{PromPlanner, gather, values_of},
};
use crate::error::QueryError;

/// The session that PromQL plans are made and run in.
#[derive(Clone)]
pub struct PromSession(Arc<SessionState>);

impl PromSession {
    /// A session whose plans use so many partitions.
    pub fn new(partitions: usize) -> Self {
        let config = SessionConfig::new().with_target_partitions(partitions.max(1));
        // The operators bring their own partitioning; of DataFusion's optimiser only what keeps a plan valid is needed.
        let state = SessionStateBuilder::new()
            .with_config(config)
            .with_optimizer_rules(Vec::new())
            .with_physical_optimizer_rules(Vec::new())
            .build();
        Self(Arc::new(state))
    }

    async fn physical(
        &self,
        plan: &Plan,
        state: &Arc<QueryState>,
    ) -> Result<Arc<dyn ExecutionPlan>, QueryError> {
        let logical = logical_plan(&plan.root, state)?;
        let planner = DefaultPhysicalPlanner::with_extension_planners(vec![Arc::new(PromPlanner)]);
        Ok(planner.create_physical_plan(&logical, self.0.as_ref()).await?)
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
        let context = self.0.task_ctx();
        let partitions = physical.properties().output_partitioning().partition_count();
        let streams = (0..partitions)
            .map(|p| values_of(&physical, &plan.root, state, p, &context))
            .collect::<Result<Vec<_>, _>>()?;
        let value = gather(streams, &plan.root).await?;
        Ok(finish(plan, value, &state.context)?)
    }

    /// The execution plan as text, with the rows of each operator where it has been run.
    pub async fn explain(&self, plan: &Plan, state: &Arc<QueryState>) -> Result<String, QueryError> {
        let physical = self.physical(plan, state).await?;
        self.run_physical(plan, state, physical.clone()).await?;
        Ok(datafusion::physical_plan::display::DisplayableExecutionPlan::with_metrics(physical.as_ref())
            .indent(true)
            .to_string())
    }

    /// The execution plan as text, without running it.
    pub async fn describe(&self, plan: &Plan, state: &Arc<QueryState>) -> Result<String, QueryError> {
        let physical = self.physical(plan, state).await?;
        Ok(displayable(physical.as_ref()).indent(true).to_string())
    }
}
