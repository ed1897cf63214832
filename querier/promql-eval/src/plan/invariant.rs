//! Which parts of an expression have one answer for every step: constants and what has an `@` on each selector.

use std::collections::HashSet;

use sextant_promql::Expr;

/// Functions whose result changes with the step even where their arguments do not.
const USES_STEP_TIME: &[&str] = &[
    "day_of_month",
    "day_of_week",
    "day_of_year",
    "days_in_month",
    "end",
    "hour",
    "minute",
    "month",
    "predict_linear",
    "range",
    "start",
    "step",
    "time",
    "timestamp",
    "year",
];

/// The step-invariant expressions of one tree, by address: the tree must not move.
pub struct Invariant(HashSet<*const Expr>);

impl Invariant {
    /// Whether an expression of the tree is step-invariant.
    pub fn contains(&self, expr: &Expr) -> bool {
        self.0.contains(&std::ptr::from_ref(expr))
    }
}

/// Looks at every expression of a tree once, children first.
pub fn find(root: &Expr) -> Invariant {
    let mut found = Invariant(HashSet::new());
    visit(root, &mut found);
    found
}

fn visit(expr: &Expr, found: &mut Invariant) -> bool {
    // Every child must be visited: no short circuit.
    let children = expr.children().into_iter().map(|c| visit(c, found)).fold(true, std::ops::BitAnd::bitand);
    let invariant = match expr {
        Expr::NumberLiteral(_) | Expr::StringLiteral(_) => true,
        Expr::VectorSelector(v) => v.at.is_some(),
        Expr::MatrixSelector(m) => m.selector.at.is_some(),
        Expr::Subquery(s) => s.at.is_some(),
        Expr::Call(c) => children && !USES_STEP_TIME.contains(&c.func.name),
        Expr::Aggregate(_) | Expr::Binary(_) | Expr::Unary(_) | Expr::Paren(_) => children,
    };
    if invariant {
        found.0.insert(std::ptr::from_ref(expr));
    }
    invariant
}
