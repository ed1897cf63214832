//! Trees as JSON, in the shape of Prometheus' `/api/v1/parse_query`.

use serde_json::{Value, json};
use sextant_model::Matcher;

use crate::{
    ast::{
        AggregateExpr, AtModifier, BinaryExpr, CallExpr, Expr, SubqueryExpr, VectorMatching, VectorSelector,
    },
    number::format_float,
};

/// The `data` of a `parse_query` answer. Durations are milliseconds; those that only a query's times resolve are 0.
///
/// Children first, with a stack of its own.
pub fn to_json(expr: &Expr) -> Value {
    let mut open = vec![(expr, false)];
    let mut done: Vec<Value> = Vec::new();
    while let Some((expr, has_children)) = open.pop() {
        if has_children {
            let own = node(expr);
            let value = with_children(expr, own, &mut done);
            done.push(value);
        } else {
            open.push((expr, true));
            open.extend(expr.children().into_iter().rev().map(|child| (child, false)));
        }
    }
    done.pop().unwrap_or(Value::Null)
}

/// A node without its children.
fn node(expr: &Expr) -> Value {
    match expr {
        Expr::NumberLiteral(e) => json!({"type": "numberLiteral", "val": format_float(e.val)}),
        Expr::StringLiteral(e) => json!({"type": "stringLiteral", "val": e.val}),
        Expr::VectorSelector(e) => selector("vectorSelector", e),
        Expr::MatrixSelector(e) => {
            let mut value = selector("matrixSelector", &e.selector);
            value["range"] = json!(e.range_ms);
            value
        }
        Expr::Subquery(e) => subquery(e),
        Expr::Call(e) => call(e),
        Expr::Aggregate(e) => aggregate(e),
        Expr::Binary(e) => binary(e),
        Expr::Unary(e) => json!({"type": "unaryExpr", "op": if e.negative { "-" } else { "+" }}),
        Expr::Paren(_) => json!({"type": "parenExpr"}),
    }
}

/// A node with its children, which are the last of `done`.
fn with_children(expr: &Expr, own: Value, done: &mut Vec<Value>) -> Value {
    let mut last = || done.pop().unwrap_or(Value::Null);
    match expr {
        Expr::Subquery(_) | Expr::Unary(_) | Expr::Paren(_) => with(own, [("expr", last())]),
        Expr::Binary(_) => {
            let rhs = last();
            with(own, [("lhs", last()), ("rhs", rhs)])
        }
        Expr::Aggregate(e) => {
            let expr = last();
            let param = if e.param.is_some() { last() } else { Value::Null };
            with(own, [("expr", expr), ("param", param)])
        }
        Expr::Call(e) => {
            let args = done.split_off(done.len().saturating_sub(e.args.len()));
            with(own, [("args", Value::Array(args))])
        }
        Expr::NumberLiteral(_)
        | Expr::StringLiteral(_)
        | Expr::VectorSelector(_)
        | Expr::MatrixSelector(_) => own,
    }
}

/// Puts values into an object as they are: `json!` would copy each with all that is below it.
fn with<const N: usize>(mut object: Value, values: [(&str, Value); N]) -> Value {
    for (name, value) in values {
        object[name] = value;
    }
    object
}

fn selector(kind: &str, e: &VectorSelector) -> Value {
    json!({
        "type": kind,
        "name": e.name.as_deref().unwrap_or_default(),
        "offset": e.offset_ms,
        "matchers": e.matchers.iter().map(matcher).collect::<Vec<_>>(),
        "timestamp": timestamp(e.at),
        "startOrEnd": start_or_end(e.at),
        "anchored": e.anchored,
        "smoothed": e.smoothed,
    })
}

fn matcher(m: &Matcher) -> Value {
    json!({"name": m.name, "value": m.value, "type": m.op.to_string()})
}

fn timestamp(at: Option<AtModifier>) -> Option<i64> {
    match at {
        Some(AtModifier::Timestamp(ms)) => Some(ms),
        _ => None,
    }
}

fn start_or_end(at: Option<AtModifier>) -> Option<&'static str> {
    match at {
        Some(AtModifier::Start) => Some("start"),
        Some(AtModifier::End) => Some("end"),
        _ => None,
    }
}

fn subquery(e: &SubqueryExpr) -> Value {
    json!({
        "type": "subquery",
        "range": e.range_ms,
        "offset": e.offset_ms,
        "step": e.step_ms.unwrap_or_default(),
        "timestamp": timestamp(e.at),
        "startOrEnd": start_or_end(e.at),
    })
}

fn call(e: &CallExpr) -> Value {
    let arg_types: Vec<&str> = e.func.arg_types.iter().map(|t| t.as_str()).collect();
    json!({
        "type": "call",
        "func": {
            "name": e.func.name,
            "argTypes": arg_types,
            "variadic": e.func.variadic,
            "returnType": e.func.return_type.as_str(),
        },
    })
}

fn aggregate(e: &AggregateExpr) -> Value {
    json!({
        "type": "aggregation",
        "op": e.op.as_str(),
        "grouping": e.grouping,
        "without": e.without,
    })
}

fn binary(e: &BinaryExpr) -> Value {
    json!({
        "type": "binaryExpr",
        "op": e.op.as_str(),
        "matching": e.matching.as_ref().map(matching),
        "bool": e.return_bool,
    })
}

fn matching(m: &VectorMatching) -> Value {
    json!({
        "card": m.card.as_str(),
        "labels": m.labels,
        "on": m.on,
        "include": m.include,
        "fillValues": {"lhs": fill(m.fill_lhs), "rhs": fill(m.fill_rhs)},
    })
}

/// A number where JSON has it, else its text: JSON knows neither infinities nor NaN.
fn fill(value: Option<f64>) -> Value {
    match value {
        None => Value::Null,
        Some(v) if v.is_finite() => json!(v),
        Some(v) => json!(format_float(v)),
    }
}
