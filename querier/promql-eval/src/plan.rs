//! From an expression to an operator tree.
//!
//! Passes, in order: durations are resolved (`resolve_durations` of the parser), parts that do not depend on the step
//! are found ([`invariant`]), the requests of all selectors are collected and those that overlap are merged
//! ([`leaves`]), and the tree is built with the merged leaves. Building runs twice, once for the requests.

mod calls;
mod invariant;
mod leaves;
mod selectors;

use std::sync::Arc;

use sextant_promql::{
    AggregateExpr, AggregateOp, BinaryExpr, BinaryOp, Expr, SubqueryExpr, UnaryExpr, ValueType,
};

use crate::{
    aggregate::{Aggregate, AggregateKind},
    binary::{ScalarBinary, SetOperation, VectorBinary, VectorScalar},
    count_values::CountValues,
    error::EvalError,
    groups::Grouping,
    node::{Node, Operator},
    params::{EvalParams, QueryKind},
    quantile::QuantileAggregate,
    rank::Rank,
    select::{Select, SelectorTime},
    step_counts::FirstUser,
    steps::Steps,
    subquery::Subquery,
};

pub use leaves::SelectorRange;
pub use selectors::selector_text as describe_selector;

/// A query, ready to run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The operator that gives the answer.
    pub root: Arc<Node>,
    /// Every leaf, by id; each is read once.
    pub selects: Vec<Select>,
    /// What each selector of the text asks for, in the order of the text, before leaves are shared.
    pub selector_ranges: Vec<SelectorRange>,
    /// The grid of the answer.
    pub steps: Steps,
    /// The form of the answer.
    pub kind: QueryKind,
}

/// Plans an expression.
pub fn plan(expr: &Expr, params: &EvalParams) -> Result<Plan, EvalError> {
    let steps = params.steps();
    check_limits(expr, params, steps)?;
    let mut expr = expr.clone();
    sextant_promql::resolve_durations(&mut expr, params.start_ms, params.end_ms, params.step_ms)
        .map_err(|e| EvalError::execution(e.to_string()))?;
    let invariant = invariant::find(&expr);
    let mut planner = Planner { params, invariant: &invariant, leaves: leaves::Leaves::default() };
    let scope = Scope {
        steps,
        span: (params.start_ms, params.end_ms.max(params.start_ms)),
        step_ms: params.step_ms,
        above: "",
        histograms: Histograms::Any,
        weight: 1,
        first_user: &FirstUser::default(),
    };
    planner.root(&expr, &scope)?;
    planner.leaves.share();
    let root = planner.root(&expr, &scope)?;
    let (selects, selector_ranges) = planner.leaves.into_parts();
    Ok(Plan { root, selects, selector_ranges, steps, kind: params.kind })
}

fn check_limits(expr: &Expr, params: &EvalParams, steps: Steps) -> Result<(), EvalError> {
    let value_type = expr.value_type();
    if params.kind == QueryKind::Range && !matches!(value_type, ValueType::Scalar | ValueType::Vector) {
        return Err(EvalError::execution(format!(
            "invalid expression type {:?} for range query, must be Scalar or instant Vector",
            value_type.documented()
        )));
    }
    if steps.count > params.max_steps {
        return Err(EvalError::Limit {
            what: format!(
                "exceeded maximum resolution of {} points per timeseries. Try decreasing the query resolution (?step=XX)",
                params.max_steps
            ),
            limit: "max_steps",
            value: params.max_steps as u64,
        });
    }
    Ok(())
}

/// Where in the query an expression is planned.
#[derive(Clone, Copy)]
struct Scope<'a> {
    /// The grid of the expression.
    steps: Steps,
    /// First and last time that selectors without `@` are evaluated at, as Prometheus' select hints count them.
    span: (i64, i64),
    /// The step for hints: the innermost subquery's, else the query's.
    step_ms: i64,
    /// The function or aggregation right above.
    above: &'static str,
    /// What the functions above need of native histograms.
    histograms: Histograms,
    /// How often the statistics count what a selector looks at.
    weight: usize,
    /// For which step of the query the statistics count what is read.
    first_user: &'a FirstUser,
}

/// What is needed of native histograms.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Histograms {
    /// All: nothing above says otherwise.
    Any,
    /// Count and sum: `histogram_count` or the like is above.
    Totals,
    /// All, whatever is in between: buckets are looked at above.
    Buckets,
}

impl Scope<'_> {
    fn under(&self, above: &'static str) -> Self {
        Self { above, ..*self }
    }

    fn needing_buckets(&self) -> Self {
        Self { histograms: Histograms::Buckets, ..*self }
    }
}

struct Planner<'a> {
    params: &'a EvalParams,
    invariant: &'a invariant::Invariant,
    leaves: leaves::Leaves,
}

impl Planner<'_> {
    fn root(&mut self, expr: &Expr, scope: &Scope<'_>) -> Result<Arc<Node>, EvalError> {
        match expr.unwrap_parens() {
            Expr::MatrixSelector(m) => self.raw_selector(m, scope),
            Expr::Subquery(s) => self.subquery(s, scope, scope.weight).map(|(node, ..)| node),
            other => self.expr(other, scope),
        }
    }

    fn expr(&mut self, expr: &Expr, scope: &Scope<'_>) -> Result<Arc<Node>, EvalError> {
        let expr = expr.unwrap_parens();
        let constant = matches!(expr, Expr::NumberLiteral(_) | Expr::StringLiteral(_));
        if scope.steps.count > 1 && !constant && self.invariant.contains(expr) {
            let steps = Steps::instant(scope.steps.start_ms);
            let once = Scope { steps, weight: scope.weight * scope.steps.count, ..*scope };
            let inner = self.expr(expr, &once)?;
            return Ok(Node::new(Operator::Broadcast, vec![inner], scope.steps));
        }
        self.plain(expr, scope)
    }

    /// An expression that is computed at each of its steps.
    fn plain(&mut self, expr: &Expr, scope: &Scope<'_>) -> Result<Arc<Node>, EvalError> {
        match expr {
            Expr::NumberLiteral(n) => Ok(Node::new(Operator::Number(n.val), vec![], scope.steps)),
            Expr::StringLiteral(s) => {
                Ok(Node::new(Operator::Text(s.val.as_str().into()), vec![], scope.steps))
            }
            Expr::VectorSelector(v) => self.instant_selector(v, scope),
            Expr::Call(c) => self.call(c, scope),
            Expr::Aggregate(a) => self.aggregate(a, scope),
            Expr::Binary(b) => self.binary(b, scope),
            Expr::Unary(u) => self.unary(u, scope),
            Expr::Paren(p) => self.expr(&p.expr, scope),
            Expr::MatrixSelector(_) | Expr::Subquery(_) => {
                Err(EvalError::Internal("a range vector where an instant vector must be"))
            }
        }
    }

    fn unary(&mut self, unary: &UnaryExpr, scope: &Scope<'_>) -> Result<Arc<Node>, EvalError> {
        let inner = self.expr(&unary.expr, scope)?;
        if !unary.negative {
            return Ok(inner);
        }
        Ok(Node::new(Operator::Negate, vec![inner], scope.steps))
    }

    /// A chain of operators is as deep as it is long, on its left side: that side is walked in a loop.
    fn binary(&mut self, b: &BinaryExpr, scope: &Scope<'_>) -> Result<Arc<Node>, EvalError> {
        let mut chain = Vec::new();
        let (mut next, mut scope) = (Some(b), *scope);
        let mut first = &b.lhs;
        while let Some(b) = next {
            scope = scope.under("");
            if b.op.is_comparison() || matches!(b.op, BinaryOp::TrimUpper | BinaryOp::TrimLower) {
                scope = scope.needing_buckets();
            }
            chain.push((b, scope));
            first = b.lhs.unwrap_parens();
            next = match first {
                Expr::Binary(lhs) if scope.steps.count <= 1 || !self.invariant.contains(first) => {
                    Some(&**lhs)
                }
                _ => None,
            };
        }
        let mut lhs = self.expr(first, &scope)?;
        while let Some((b, scope)) = chain.pop() {
            let rhs = self.expr(&b.rhs, &scope)?;
            lhs = binary_node(b, lhs, rhs, scope.steps);
        }
        Ok(lhs)
    }

    fn aggregate(&mut self, a: &AggregateExpr, scope: &Scope<'_>) -> Result<Arc<Node>, EvalError> {
        let grouping = Grouping::new(&a.grouping, a.without);
        let input = self.expr(&a.expr, &scope.under(a.op.as_str()))?;
        let input_pos = a.expr.unwrap_parens().pos();
        if a.op == AggregateOp::CountValues {
            let label = match a.param.as_ref().map(Expr::unwrap_parens) {
                Some(Expr::StringLiteral(s)) if s.raw.is_none() => s.val.clone(),
                Some(Expr::StringLiteral(s)) => {
                    return Err(EvalError::execution(format!("invalid label name {:?}", s.val)));
                }
                _ => return Err(EvalError::Internal("count_values without a label")),
            };
            let op = Operator::CountValues(CountValues::new(label, grouping)?);
            return Ok(Node::new(op, vec![input], scope.steps));
        }
        if let Some(kind) = AggregateKind::of(a.op) {
            let op = Operator::Aggregate(Aggregate { kind, grouping, pos: input_pos });
            return Ok(Node::new(op, vec![input], scope.steps));
        }
        let param = a.param.as_ref().ok_or(EvalError::Internal("an aggregation without its parameter"))?;
        let param_pos = param.unwrap_parens().pos();
        let param = self.expr(param, &scope.under(""))?;
        let op = if a.op == AggregateOp::Quantile {
            Operator::QuantileAggregate(QuantileAggregate { grouping, pos: input_pos, param_pos })
        } else {
            Operator::Rank(Rank { op: a.op, grouping, pos: a.pos, param_pos })
        };
        Ok(Node::new(op, vec![input, param], scope.steps))
    }

    /// The inner expression on its own grid, as raw samples, with the reference time and the range of the window that
    /// a function above looks through. Such a function counts what it looks at, so that `weight` is 0 then.
    fn subquery(
        &mut self,
        s: &SubqueryExpr,
        scope: &Scope<'_>,
        weight: usize,
    ) -> Result<(Arc<Node>, SelectorTime, i64), EvalError> {
        let (time, steps, span) = self.subquery_grid(s, scope)?;
        let first_user = scope.first_user.below(scope.steps, steps, time, s.range_ms);
        let inner = Scope {
            steps,
            span,
            step_ms: steps.step_ms,
            weight,
            first_user: &first_user,
            ..scope.needing_buckets()
        };
        let child = self.expr(&s.expr, &inner)?;
        let op = Operator::Subquery(Subquery { range_ms: s.range_ms, time });
        Ok((Node::new(op, vec![child], scope.steps), time, s.range_ms))
    }

    /// A subquery's reference time, its grid, and the times that selectors inside of it are evaluated at. Apart from
    /// the recursion, so that a level of it takes little stack.
    fn subquery_grid(
        &self,
        s: &SubqueryExpr,
        scope: &Scope<'_>,
    ) -> Result<(SelectorTime, Steps, (i64, i64)), EvalError> {
        let time = self.selector_time(s.at, s.offset_ms);
        let step_ms = s.step_ms.unwrap_or(self.params.default_subquery_step_ms).max(1);
        let first = time.at(&scope.steps, 0);
        let last = time.at(&scope.steps, scope.steps.count.max(1) - 1);
        // The first multiple of the step after the window's open left end. Division truncates, as Prometheus' does.
        let left = first.saturating_sub(s.range_ms);
        let mut start = step_ms * (left / step_ms);
        if start <= left {
            start = start.saturating_add(step_ms);
        }
        let steps = Steps::range(start, last, step_ms);
        if steps.count > self.params.max_samples {
            return Err(EvalError::Limit {
                what: "query processing would load too many samples into memory in query execution"
                    .to_owned(),
                limit: "max_samples",
                value: self.params.max_samples as u64,
            });
        }
        let base = time.at_ms.map_or(scope.span, |t| (t, t));
        let end = base.1.saturating_sub(s.offset_ms);
        let span = (base.0.saturating_sub(s.offset_ms).saturating_sub(s.range_ms), end);
        Ok((time, steps, span))
    }
}

fn binary_node(b: &BinaryExpr, lhs: Arc<Node>, rhs: Arc<Node>, steps: Steps) -> Arc<Node> {
    let scalar = |e: &Expr| e.value_type() == ValueType::Scalar;
    let (operator, children) = match (scalar(&b.lhs), scalar(&b.rhs)) {
        (true, true) => (Operator::ScalarBinary(ScalarBinary { op: b.op }), vec![lhs, rhs]),
        (false, true) => (Operator::VectorScalar(VectorScalar::new(b, false)), vec![lhs, rhs]),
        (true, false) => (Operator::VectorScalar(VectorScalar::new(b, true)), vec![rhs, lhs]),
        (false, false) if b.op.is_set() => (Operator::SetOperation(SetOperation::new(b)), vec![lhs, rhs]),
        (false, false) => (Operator::VectorBinary(VectorBinary::new(b)), vec![lhs, rhs]),
    };
    Node::new(operator, children, steps)
}
