//! Plans that can be stopped: DataFusion's joins may compute for minutes within one poll, and a task ends only between polls.
//!
//! Every join yields to the scheduler as scans do, and a nested-loop join, whose work is in its filter, looks at the query's cancel flag
//! each time that the filter is evaluated.

use std::{
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
};

use arrow_array::RecordBatch;
use arrow_schema::{DataType, FieldRef, Schema};
use datafusion::{
    common::{
        Result,
        config::ConfigOptions,
        tree_node::{Transformed, TreeNode},
    },
    logical_expr::ColumnarValue,
    physical_expr::PhysicalExpr,
    physical_optimizer::PhysicalOptimizerRule,
    physical_plan::{
        ExecutionPlan,
        coop::CooperativeExec,
        joins::{
            CrossJoinExec, HashJoinExec, NestedLoopJoinExec, NestedLoopJoinExecBuilder, SortMergeJoinExec,
            utils::JoinFilter,
        },
    },
};
use sextant_promql_eval::CancelFlag;

use crate::error::QueryError;

/// The rule that makes a plan stop when its query is cancelled.
pub struct Interruptible(pub CancelFlag);

impl fmt::Debug for Interruptible {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Interruptible")
    }
}

impl PhysicalOptimizerRule for Interruptible {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let node = |plan: Arc<dyn ExecutionPlan>| {
            if let Some(join) = plan.downcast_ref::<NestedLoopJoinExec>() {
                return Ok(Transformed::yes(cooperative(Arc::new(self.watched(join)?))));
            }
            let join =
                plan.is::<CrossJoinExec>() || plan.is::<HashJoinExec>() || plan.is::<SortMergeJoinExec>();
            Ok(if join { Transformed::yes(cooperative(plan)) } else { Transformed::no(plan) })
        };
        plan.transform_up(node).map(|t| t.data)
    }

    fn name(&self) -> &str {
        "Interruptible"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

fn cooperative(plan: Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan> {
    Arc::new(CooperativeExec::new(plan))
}

impl Interruptible {
    fn watched(&self, join: &NestedLoopJoinExec) -> Result<NestedLoopJoinExec> {
        let filter = join.filter().map(|f| {
            let expr = Watched { inner: f.expression().clone(), cancel: self.0.clone() };
            JoinFilter::new(Arc::new(expr), f.column_indices().to_vec(), f.schema().clone())
        });
        NestedLoopJoinExecBuilder::from(join).with_filter(filter).build()
    }
}

/// An expression that fails once its query is cancelled.
#[derive(Clone)]
struct Watched {
    inner: Arc<dyn PhysicalExpr>,
    cancel: CancelFlag,
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl fmt::Display for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl PartialEq for Watched {
    fn eq(&self, other: &Self) -> bool {
        self.inner.eq(&other.inner)
    }
}

impl Eq for Watched {}

impl Hash for Watched {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.inner.hash(state);
    }
}

impl PhysicalExpr for Watched {
    fn data_type(&self, schema: &Schema) -> Result<DataType> {
        self.inner.data_type(schema)
    }

    fn nullable(&self, schema: &Schema) -> Result<bool> {
        self.inner.nullable(schema)
    }

    fn return_field(&self, schema: &Schema) -> Result<FieldRef> {
        self.inner.return_field(schema)
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        if self.cancel.is_cancelled() {
            return Err(QueryError::Cancelled.into());
        }
        self.inner.evaluate(batch)
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.inner]
    }

    fn with_new_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn PhysicalExpr>>,
    ) -> Result<Arc<dyn PhysicalExpr>> {
        match children.pop() {
            Some(inner) => Ok(Arc::new(Self { inner, cancel: self.cancel.clone() })),
            None => Ok(self),
        }
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt_sql(f)
    }
}
