//! Compares our trees with the trees of the suite, which name Prometheus' nodes and leave out zero fields.

use serde_json::{Map, Value, json};
use sextant_promql::{
    AtModifier, Cardinality, DurationExpr, Expr, MatrixSelector, SubqueryExpr, VectorMatching, VectorSelector,
};

use crate::suite;

/// The expected tree with zero fields left out everywhere and numbers in one form.
pub fn normalize(value: &Value) -> Value {
    match value {
        Value::Object(map) if map.contains_key("$hex") => json!({"bytes": suite::bytes(value)}),
        Value::Object(map) if map.contains_key("ns") => json!(map["ns"].as_f64()),
        Value::Object(map) if map["node"] == "Expressions" => {
            let items = map.get("_").and_then(Value::as_array).cloned().unwrap_or_default();
            Value::Array(items.iter().map(normalize).collect())
        }
        Value::Object(map) => {
            let mut out = Map::new();
            for (key, value) in map {
                let value = match (key.as_str(), value) {
                    ("LabelMatchers", matchers) => matchers.clone(),
                    ("Val", Value::Number(n)) => json!(n.as_f64().map(|v| v.to_string())),
                    ("Val", Value::String(s)) if map["node"] == "NumberLiteral" => {
                        json!(s.trim_start_matches('+').replace("Inf", "inf"))
                    }
                    (_, Value::Number(n)) => json!(n.as_f64()),
                    _ => normalize(value),
                };
                let is_zero = value.is_null()
                    || value == json!(0.0)
                    || value == json!(false)
                    || value.as_array().is_some_and(Vec::is_empty)
                    || value == "CardOneToOne"
                    || key == "BypassEmptyMatcherCheck";
                if !is_zero || key == "Args" {
                    out.insert(key.clone(), value);
                }
            }
            Value::Object(out)
        }
        other => other.clone(),
    }
}

/// Our tree in the same form.
pub fn tree(expr: &Expr) -> Value {
    let value = match expr {
        Expr::NumberLiteral(e) => {
            json!({"node": "NumberLiteral", "Val": number(e.val), "Duration": e.duration})
        }
        Expr::StringLiteral(e) => match &e.raw {
            Some(raw) => json!({"node": "StringLiteral", "Val": {"bytes": raw}}),
            None => json!({"node": "StringLiteral", "Val": e.val}),
        },
        Expr::VectorSelector(e) => vector(e),
        Expr::MatrixSelector(e) => matrix(e),
        Expr::Subquery(e) => subquery(e),
        Expr::Call(e) => json!({
            "node": "Call",
            "Func": e.func.name,
            "Args": e.args.iter().map(tree).collect::<Vec<_>>(),
        }),
        Expr::Aggregate(e) => json!({
            "node": "AggregateExpr",
            "Op": e.op.as_str(),
            "Expr": tree(&e.expr),
            "Param": e.param.as_ref().map(tree),
            "Grouping": e.grouping,
            "Without": e.without,
        }),
        Expr::Binary(e) => json!({
            "node": "BinaryExpr",
            "Op": e.op.as_str(),
            "LHS": tree(&e.lhs),
            "RHS": tree(&e.rhs),
            "ReturnBool": e.return_bool,
            "VectorMatching": e.matching.as_ref().map(matching),
        }),
        Expr::Unary(e) => {
            let op = if e.negative { "-" } else { "+" };
            json!({"node": "UnaryExpr", "Op": op, "Expr": tree(&e.expr)})
        }
        Expr::Paren(e) => json!({"node": "ParenExpr", "Expr": tree(&e.expr)}),
    };
    normalize_own(value)
}

/// Leaves out zero fields of one node.
fn normalize_own(value: Value) -> Value {
    let Value::Object(map) = value else { return value };
    let keep = |key: &str, v: &Value| {
        key == "Args"
            || !(v.is_null()
                || *v == json!(0.0)
                || *v == json!(false)
                || v.as_array().is_some_and(Vec::is_empty)
                || *v == "CardOneToOne")
    };
    Value::Object(map.into_iter().filter(|(k, v)| keep(k, v)).collect())
}

fn number(value: f64) -> String {
    value.to_string()
}

fn nanos(ms: i64) -> f64 {
    ms as f64 * 1e6
}

fn vector(e: &VectorSelector) -> Value {
    let matchers: Vec<Value> = e
        .matchers
        .iter()
        .map(|m| json!({"name": m.name, "op": m.op.to_string(), "value": m.value}))
        .collect();
    normalize_own(json!({
        "node": "VectorSelector",
        "Name": e.name,
        "LabelMatchers": matchers,
        "OriginalOffset": nanos(e.offset_ms),
        "OriginalOffsetExpr": e.offset_expr.as_ref().map(duration),
        "Timestamp": timestamp(e.at),
        "StartOrEnd": start_or_end(e.at),
        "Anchored": e.anchored,
        "Smoothed": e.smoothed,
    }))
}

fn matrix(e: &MatrixSelector) -> Value {
    json!({
        "node": "MatrixSelector",
        "VectorSelector": vector(&e.selector),
        "Range": nanos(e.range_ms),
        "RangeExpr": e.range_expr.as_ref().map(duration),
    })
}

fn subquery(e: &SubqueryExpr) -> Value {
    json!({
        "node": "SubqueryExpr",
        "Expr": tree(&e.expr),
        "Range": nanos(e.range_ms),
        "RangeExpr": e.range_expr.as_ref().map(duration),
        "Step": nanos(e.step_ms.unwrap_or(0)),
        "StepExpr": e.step_expr.as_ref().map(duration),
        "OriginalOffset": nanos(e.offset_ms),
        "OriginalOffsetExpr": e.offset_expr.as_ref().map(duration),
        "Timestamp": timestamp(e.at),
        "StartOrEnd": start_or_end(e.at),
    })
}

fn timestamp(at: Option<AtModifier>) -> Option<f64> {
    match at {
        Some(AtModifier::Timestamp(ms)) => Some(ms as f64),
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

fn matching(m: &VectorMatching) -> Value {
    let card = match m.card {
        Cardinality::OneToOne => "CardOneToOne",
        Cardinality::ManyToOne => "CardManyToOne",
        Cardinality::OneToMany => "CardOneToMany",
        Cardinality::ManyToMany => "CardManyToMany",
    };
    normalize_own(json!({
        "node": "VectorMatching",
        "Card": card,
        "MatchingLabels": m.labels,
        "On": m.on,
        "Include": m.include,
    }))
}

fn duration(e: &DurationExpr) -> Value {
    let value = match e {
        DurationExpr::Number { val, duration, .. } => {
            json!({"node": "NumberLiteral", "Val": number(*val), "Duration": duration})
        }
        DurationExpr::Step(_) => json!({"node": "DurationExpr", "Op": "step"}),
        DurationExpr::Range(_) => json!({"node": "DurationExpr", "Op": "range"}),
        DurationExpr::MinOf(a, b, _) => {
            json!({"node": "DurationExpr", "Op": "min", "LHS": duration(a), "RHS": duration(b)})
        }
        DurationExpr::MaxOf(a, b, _) => {
            json!({"node": "DurationExpr", "Op": "max", "LHS": duration(a), "RHS": duration(b)})
        }
        DurationExpr::Unary { negative, expr, .. } => {
            let op = if *negative { "-" } else { "+" };
            json!({"node": "DurationExpr", "Op": op, "RHS": duration(expr)})
        }
        DurationExpr::Binary { op, lhs, rhs, .. } => {
            json!({"node": "DurationExpr", "Op": op.as_str(), "LHS": duration(lhs), "RHS": duration(rhs)})
        }
        DurationExpr::Paren(expr, _) => match &**expr {
            DurationExpr::Number { .. } => {
                json!({"node": "DurationExpr", "Op": "+", "RHS": duration(expr), "Wrapped": true})
            }
            inner => {
                let mut value = duration(inner);
                value["Wrapped"] = json!(true);
                value
            }
        },
    };
    normalize_own(value)
}
