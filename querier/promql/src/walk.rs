//! Walking a tree without recursion: pre-order visits and the selectors of an expression.

use sextant_model::Matcher;

use crate::ast::{Expr, VectorSelector};

/// Calls `visit` for every expression of the tree, parents before children, in the order of the text. `visit` returns
/// whether to go into the children.
pub fn walk<'a>(expr: &'a Expr, mut visit: impl FnMut(&'a Expr) -> bool) {
    let mut todo = vec![expr];
    while let Some(expr) = todo.pop() {
        if visit(expr) {
            let mut children = expr.children();
            children.reverse();
            todo.append(&mut children);
        }
    }
}

/// Every vector selector of the tree, those inside of matrix selectors too, in the order of the text.
pub fn selectors(expr: &Expr) -> Vec<&VectorSelector> {
    let mut out = Vec::new();
    walk(expr, |e| {
        match e {
            Expr::VectorSelector(v) => out.push(&**v),
            Expr::MatrixSelector(m) => out.push(&m.selector),
            _ => {}
        }
        true
    });
    out
}

/// The matchers of every selector of the tree, in the order of the text.
pub fn extract_selectors(expr: &Expr) -> Vec<&[Matcher]> {
    selectors(expr).into_iter().map(|v| v.matchers.as_slice()).collect()
}
