//! PromQL operators as nodes of a DataFusion logical plan.

use std::{
    cmp::Ordering,
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
};

use datafusion::{
    common::{DFSchema, DFSchemaRef, Result},
    logical_expr::{Expr, Extension, LogicalPlan, UserDefinedLogicalNodeCore},
};
use sextant_promql_eval::{Node, Operator};

use super::{batch::ValueKind, state::QueryState};

/// One PromQL operator with its inputs.
#[derive(Clone, Debug)]
pub struct PromNode {
    /// The operator.
    pub node: Arc<Node>,
    /// The query it belongs to.
    pub state: Arc<QueryState>,
    inputs: Vec<LogicalPlan>,
    schema: DFSchemaRef,
}

/// What kind of value a node gives.
pub fn kind_of(node: &Node) -> ValueKind {
    match &node.operator {
        _ if node.gives_series() => ValueKind::Series,
        Operator::Text(_) => ValueKind::String,
        Operator::Broadcast => node.children.first().map_or(ValueKind::Vector, |c| kind_of(c)),
        _ if node.gives_scalar() => ValueKind::Scalar,
        _ => ValueKind::Vector,
    }
}

/// The logical plan of an operator tree.
pub fn logical_plan(node: &Arc<Node>, state: &Arc<QueryState>) -> Result<LogicalPlan> {
    let inputs = node.children.iter().map(|c| logical_plan(c, state)).collect::<Result<Vec<_>>>()?;
    let kind = kind_of(node);
    let schema = Arc::new(DFSchema::try_from(kind.schema().as_ref().clone())?);
    let node = PromNode { node: node.clone(), state: state.clone(), inputs, schema };
    Ok(LogicalPlan::Extension(Extension { node: Arc::new(node) }))
}

impl PartialEq for PromNode {
    /// Operators are compared by identity: two of one text may belong to two queries.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.node, &other.node)
            && Arc::ptr_eq(&self.state, &other.state)
            && self.inputs == other.inputs
    }
}

impl Eq for PromNode {}

impl Hash for PromNode {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.node).hash(state);
        self.inputs.hash(state);
    }
}

impl PartialOrd for PromNode {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (self == other).then_some(Ordering::Equal)
    }
}

impl UserDefinedLogicalNodeCore for PromNode {
    fn name(&self) -> &str {
        "PromQL"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        self.inputs.iter().collect()
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        Vec::new()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.node.describe())
    }

    fn with_exprs_and_inputs(&self, _: Vec<Expr>, inputs: Vec<LogicalPlan>) -> Result<Self> {
        Ok(Self { inputs, ..self.clone() })
    }

    fn necessary_children_exprs(&self, _: &[usize]) -> Option<Vec<Vec<usize>>> {
        Some(self.inputs.iter().map(|i| (0..i.schema().fields().len()).collect()).collect())
    }
}
