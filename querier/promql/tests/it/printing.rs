//! The canonical form, the pretty form, and JSON.

use serde_json::json;
use sextant_promql::{parse_expr, prettify, to_json};

use crate::suite;

#[test]
fn printer() {
    suite::run("promql-parser/printer.json", |case| {
        let expr = parse_expr(case["in"].as_str().ok_or("no in")?).map_err(|e| e.to_string())?;
        let out = case["out"].as_str().unwrap_or_default();
        suite::same(
            expr.to_string().as_str(),
            if out.is_empty() { case["in"].as_str().unwrap_or_default() } else { out },
        )
    });
}

#[test]
fn prettier() {
    suite::run("promql-parser/prettier.json", |case| {
        let expr = parse_expr(case["in"].as_str().ok_or("no in")?).map_err(|e| e.to_string())?;
        suite::same(prettify(&expr, 10).as_str(), case["out"].as_str().ok_or("no out")?)
    });
}

#[test]
fn the_answer_of_parse_query() {
    let check = |query: &str, want: serde_json::Value| {
        assert_eq!(to_json(&parse_expr(query).expect(query)), want, "{query}");
    };
    let number = |n: &str| json!({"type": "numberLiteral", "val": n});
    let foo = json!({
        "type": "vectorSelector", "name": "foo", "offset": 0, "timestamp": null, "startOrEnd": null,
        "matchers": [{"name": "__name__", "type": "=", "value": "foo"}], "anchored": false, "smoothed": false,
    });
    check("foo", foo.clone());
    check(
        "-(1)",
        json!({"type": "unaryExpr", "op": "-", "expr": {"type": "parenExpr", "expr": number("1")}}),
    );
    check("\"a\"", json!({"type": "stringLiteral", "val": "a"}));
    check(
        "foo * on(a) group_left(b) fill(1) foo",
        json!({
            "type": "binaryExpr", "op": "*", "bool": false, "lhs": foo, "rhs": foo,
            "matching": {"card": "many-to-one", "labels": ["a"], "on": true, "include": ["b"],
                "fillValues": {"lhs": 1.0, "rhs": 1.0}},
        }),
    );
    check(
        "1 > bool 2",
        json!({"type": "binaryExpr", "op": ">", "bool": true, "lhs": number("1"), "rhs": number("2"), "matching": null}),
    );
    check(
        "topk(5, foo)",
        json!({"type": "aggregation", "op": "topk", "expr": foo, "param": number("5"), "grouping": [], "without": false}),
    );
    check(
        "rate(foo[5m] smoothed @ 1.5 offset -1m)",
        json!({
            "type": "call",
            "func": {"name": "rate", "argTypes": ["matrix"], "variadic": 0, "returnType": "vector"},
            "args": [{
                "type": "matrixSelector", "name": "foo", "range": 300_000, "offset": -60_000, "timestamp": 1500,
                "startOrEnd": null, "matchers": [{"name": "__name__", "type": "=", "value": "foo"}],
                "anchored": false, "smoothed": true,
            }],
        }),
    );
    check(
        "foo[1h:] @ end()",
        json!({
            "type": "subquery", "expr": foo, "range": 3_600_000, "offset": 0, "step": 0, "timestamp": null,
            "startOrEnd": "end",
        }),
    );
}
