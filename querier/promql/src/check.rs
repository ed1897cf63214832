//! The type checker. It walks the tree with a stack of its own, children before the rules of their parents, so that
//! errors come in Prometheus' order.

use std::fmt;

use sextant_model::METRIC_NAME;

use crate::{
    ast::{AggregateExpr, BinaryExpr, CallExpr, Cardinality, Expr, PosRange, ValueType, VectorSelector},
    operators::AggregateOp,
    parser::{Parser, operator_range},
    quote::quote,
};

/// What remains to be checked.
enum Step<'e> {
    Check(&'e Expr),
    /// The rules of an expression whose children are checked.
    Rules(&'e Expr),
    /// The type of an expression, with what it is for.
    Expect(&'e Expr, ValueType, Place),
}

/// Where a type is expected.
#[derive(Clone, Copy)]
enum Place {
    Aggregation,
    Parameter,
    Call(&'static str),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Aggregation => f.write_str("aggregation expression"),
            Self::Parameter => f.write_str("aggregation parameter"),
            Self::Call(name) => write!(f, "call to function {}", quote(name.as_bytes())),
        }
    }
}

/// Adds every type error of a tree to the parser's errors.
pub(crate) fn check(expr: &Expr, parser: &mut Parser<'_>) {
    let mut todo = vec![Step::Check(expr)];
    while let Some(step) = todo.pop() {
        match step {
            Step::Check(expr) => plan(expr, parser, &mut todo),
            Step::Rules(expr) => rules(expr, parser),
            Step::Expect(expr, want, place) => {
                let got = expr.value_type();
                if got != want {
                    let (want, got) = (want.documented(), got.documented());
                    parser.add_error(expr.pos(), format!("expected type {want} in {place}, got {got}"));
                }
            }
        }
    }
}

/// Puts an expression's checks on the stack, the first on top.
fn plan<'e>(expr: &'e Expr, parser: &mut Parser<'_>, todo: &mut Vec<Step<'e>>) {
    match expr {
        Expr::NumberLiteral(_) | Expr::StringLiteral(_) => {}
        Expr::VectorSelector(v) => selector(v, v.pos, parser),
        Expr::MatrixSelector(m) => selector(&m.selector, m.selector.pos, parser),
        Expr::Paren(e) => todo.push(Step::Check(&e.expr)),
        Expr::Unary(e) => todo.extend([Step::Rules(expr), Step::Check(&e.expr)]),
        Expr::Subquery(e) => todo.extend([Step::Rules(expr), Step::Check(&e.expr)]),
        Expr::Binary(e) => todo.extend([Step::Rules(expr), Step::Check(&e.rhs), Step::Check(&e.lhs)]),
        Expr::Aggregate(e) => plan_aggregate(e, todo),
        Expr::Call(e) => {
            argument_count(e, parser);
            let info_selector = info_selector(e, parser);
            plan_arguments(e, info_selector, todo);
        }
    }
}

fn plan_aggregate<'e>(e: &'e AggregateExpr, todo: &mut Vec<Step<'e>>) {
    if let Some(param) = &e.param {
        let want = if e.op == AggregateOp::CountValues { ValueType::String } else { ValueType::Scalar };
        todo.extend([Step::Expect(param, want, Place::Parameter), Step::Check(param)]);
    }
    todo.extend([Step::Expect(&e.expr, ValueType::Vector, Place::Aggregation), Step::Check(&e.expr)]);
}

fn argument_count(e: &CallExpr, parser: &mut Parser<'_>) {
    let (types, given) = (e.func.arg_types.len(), e.args.len());
    let name = quote(e.func.name.as_bytes());
    let required = types.saturating_sub(1);
    if e.func.variadic == 0 {
        if types != given {
            parser.add_error(e.pos, format!("expected {types} argument(s) in call to {name}, got {given}"));
        }
    } else if given < required {
        let message = format!("expected at least {required} argument(s) in call to {name}, got {given}");
        parser.add_error(e.pos, message);
    } else if let Ok(more) = usize::try_from(e.func.variadic)
        && given > required + more
    {
        let most = required + more;
        parser
            .add_error(e.pos, format!("expected at most {most} argument(s) in call to {name}, got {given}"));
    }
}

/// The second argument of `info()`: matchers without a name. Whether there is a selector that may match everything.
fn info_selector(e: &CallExpr, parser: &mut Parser<'_>) -> bool {
    let Some(second) = e.args.get(1).filter(|_| e.func.name == "info") else { return false };
    let got = second.value_type();
    if got != ValueType::Vector {
        let (want, got) = (ValueType::Vector.documented(), got.documented());
        let message = format!("expected type {want} in call to function \"info\", got {got}");
        parser.add_error(e.pos, message);
    }
    match second {
        Expr::VectorSelector(v) if v.name.is_some() => {
            let message = "expected label selectors only, got vector selector instead";
            parser.add_error(second.pos(), message);
            false
        }
        Expr::VectorSelector(_) => true,
        _ => {
            parser.add_error(second.pos(), "expected label selectors only");
            false
        }
    }
}

fn plan_arguments<'e>(e: &'e CallExpr, info_selector: bool, todo: &mut Vec<Step<'e>>) {
    let first = todo.len();
    for (i, arg) in e.args.iter().enumerate() {
        let want = match e.func.arg_types.get(i) {
            Some(want) => *want,
            // More arguments than a function takes are an error already.
            None if e.func.variadic == 0 => break,
            None => match e.func.arg_types.last() {
                Some(want) => *want,
                None => break,
            },
        };
        if !(info_selector && i == 1) {
            todo.push(Step::Check(arg));
        }
        todo.push(Step::Expect(arg, want, Place::Call(e.func.name)));
    }
    if let Some(steps) = todo.get_mut(first..) {
        steps.reverse();
    }
}

fn rules(expr: &Expr, parser: &mut Parser<'_>) {
    match expr {
        Expr::Unary(e) => {
            let got = e.expr.value_type();
            if !matches!(got, ValueType::Scalar | ValueType::Vector) {
                let allowed = "unary expression only allowed on expressions of type scalar or instant vector";
                parser.add_error(e.pos, format!("{allowed}, got \"{}\"", got.documented()));
            }
        }
        Expr::Subquery(e) => {
            let got = e.expr.value_type();
            if got != ValueType::Vector {
                let message = "subquery is only allowed on instant vector";
                parser.add_error(e.pos, format!("{message}, got {} instead", got.as_str()));
            }
        }
        Expr::Binary(e) => binary_rules(e, parser),
        _ => {}
    }
}

fn binary_rules(e: &BinaryExpr, parser: &mut Parser<'_>) {
    let (lt, rt) = (e.lhs.value_type(), e.rhs.value_type());
    let range = operator_range(parser.lexer.input(), e.lhs.pos(), e.rhs.pos());
    let both_scalar = lt == ValueType::Scalar && rt == ValueType::Scalar;
    if e.return_bool && !e.op.is_comparison() {
        parser.add_error(range, "bool modifier can only be used on comparison operators");
    }
    if e.op.is_comparison() && !e.return_bool && both_scalar {
        parser.add_error(range, "comparisons between scalars must use BOOL modifier");
    }
    if let Some(m) = e.matching.as_ref().filter(|m| m.on) {
        for label in m.labels.iter().filter(|l| m.include.contains(l)) {
            let label = quote(label.as_bytes());
            parser.add_error(range, format!("label {label} must not occur in ON and GROUP clause at once"));
        }
    }
    for (side, side_type) in [(&e.lhs, lt), (&e.rhs, rt)] {
        if !matches!(side_type, ValueType::Scalar | ValueType::Vector) {
            let message = "binary expression must contain only scalar and instant vector types";
            parser.add_error(side.pos(), message);
        }
    }
    matching_rules(e, lt == ValueType::Vector && rt == ValueType::Vector, parser);
    if e.op.is_set() && (lt == ValueType::Scalar || rt == ValueType::Scalar) {
        let message = format!("set operator \"{}\" not allowed in binary scalar expression", e.op.as_str());
        parser.add_error(e.pos, message);
    }
}

fn matching_rules(e: &BinaryExpr, both_vectors: bool, parser: &mut Parser<'_>) {
    let Some(m) = &e.matching else { return };
    let fills = m.fill_lhs.is_some() || m.fill_rhs.is_some();
    if !both_vectors {
        if !m.labels.is_empty() {
            parser.add_error(e.pos, "vector matching only allowed between instant vectors");
        }
        if fills {
            parser.add_error(e.pos, "filling in missing series only allowed between instant vectors");
        }
    } else if e.op.is_set() {
        if matches!(m.card, Cardinality::OneToMany | Cardinality::ManyToOne) {
            parser.add_error(e.pos, format!("no grouping allowed for \"{}\" operation", e.op.as_str()));
            parser.add_error(e.pos, "set operations must always be many-to-many");
        }
        if fills {
            parser.add_error(e.pos, "filling in missing series not allowed for set operators");
        }
    }
}

fn selector(v: &VectorSelector, pos: PosRange, parser: &mut Parser<'_>) {
    if let Some(name) = &v.name {
        let others = v.matchers.split_last().map_or(&[][..], |(_, others)| others);
        for m in others.iter().filter(|m| m.name == METRIC_NAME) {
            let (name, other) = (quote(name.as_bytes()), quote(m.value.as_bytes()));
            parser.add_error(pos, format!("metric name must not be set twice: {name} or {other}"));
        }
    } else if v.matchers.iter().all(|m| m.matches_empty()) {
        parser.add_error(pos, "vector selector must contain at least one non-empty matcher");
    }
}

/// Gives every binary operation of a valid tree its final matching: many-to-many for set operators, none where a side
/// is a scalar.
pub(crate) fn settle_matching(expr: &mut Expr) {
    let mut todo = vec![expr];
    while let Some(expr) = todo.pop() {
        if let Expr::Binary(e) = expr {
            let both_vectors =
                e.lhs.value_type() == ValueType::Vector && e.rhs.value_type() == ValueType::Vector;
            if !both_vectors {
                e.matching = None;
            } else if let Some(m) = e.matching.as_mut().filter(|_| e.op.is_set()) {
                m.card = Cardinality::ManyToMany;
            }
        }
        todo.extend(expr.children_mut());
    }
}
