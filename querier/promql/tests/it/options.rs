//! Parts of the language that can be turned off, and the fine points that no suite pins down.

use sextant_model::METRIC_NAME;
use sextant_promql::{
    AtModifier, Expr, ParserOptions, parse_expr, parse_expr_with, parse_metric_selector, selectors,
};

const NOTHING: ParserOptions = ParserOptions {
    experimental_functions: false,
    duration_expressions: false,
    extended_range_selectors: false,
    fill_modifiers: false,
};

#[test]
fn what_is_off_is_refused_and_what_is_on_is_not() {
    for query in [
        "info(foo)",
        "limitk(1, foo)",
        "foo[5m+1m]",
        "foo[step()]",
        "foo offset (5m)",
        "rate(foo[5m] anchored)",
        "foo smoothed",
        "foo + fill(1) foo",
    ] {
        assert!(parse_expr(query).is_ok(), "{query}");
        assert!(parse_expr_with(query.as_bytes(), NOTHING).is_err(), "{query}");
    }
    for query in ["fill + fill_left / fill_right", "rate(foo[5m] offset -5m)", "anchored", "step"] {
        assert!(parse_expr_with(query.as_bytes(), NOTHING).is_ok(), "{query}");
    }
}

#[test]
fn keywords_are_names_where_nothing_else_fits() {
    for query in [
        "sum",
        "min_of",
        "and",
        "offset offset 5m",
        "by{by=\"by\"}",
        "start + end",
        "min_of(1, max_of(2, 3))",
        "sum by (bool, on, offset, group_left, atan2, fill, step) (rate)",
        "foo + fill",
        "Inf{a=\"b\"}",
        "foo and or or unless",
    ] {
        let result = parse_expr(query);
        let is_number_name = query.starts_with("Inf");
        assert_eq!(result.is_err(), is_number_name, "{query}: {result:?}");
    }
}

#[test]
fn modifiers_come_in_any_order() {
    let mut seen = Vec::new();
    for query in [
        "foo[5m] @ start() offset 1h anchored",
        "foo[5m] anchored offset 1h @ start()",
        "foo[5m] offset 1h anchored @ start()",
    ] {
        let expr = parse_expr(query).expect(query);
        let Expr::MatrixSelector(m) = &expr else { panic!("{query}") };
        assert_eq!(m.selector.at, Some(AtModifier::Start));
        assert_eq!(m.selector.offset_ms, 3_600_000);
        seen.push(expr.to_string());
    }
    seen.dedup();
    assert_eq!(seen, ["foo[5m] anchored @ start() offset 1h"]);
}

#[test]
fn positions_are_byte_ranges_of_the_text() {
    let query = "  sum(é{a=\"ü\"}) ".replace('é', "e") + "+ -rate(foo[5m] offset 1m) * (2)";
    let expr = parse_expr(&query).expect("valid");
    let text = |e: &Expr| query[e.pos().start..e.pos().end].to_owned();
    assert_eq!(text(&expr), query.trim());
    let Expr::Binary(sum) = &expr else { panic!("a sum") };
    assert_eq!(text(&sum.lhs), "sum(e{a=\"ü\"})");
    let Expr::Binary(product) = &sum.rhs else { panic!("a product") };
    assert_eq!(text(&product.lhs), "-rate(foo[5m] offset 1m)");
    assert_eq!(text(&product.rhs), "(2)");
    let Expr::Unary(unary) = &product.lhs else { panic!("a sign") };
    let Expr::Call(call) = &unary.expr else { panic!("a call") };
    assert_eq!(text(&call.args[0]), "foo[5m] offset 1m");
}

#[test]
fn metric_selectors() {
    let matchers = parse_metric_selector("foo{bar=~\"b|c\", 'q x'!=`y`}").expect("valid");
    assert_eq!(matchers.len(), 3);
    assert_eq!((matchers[2].name.as_str(), matchers[2].value.as_str()), (METRIC_NAME, "foo"));
    assert_eq!(parse_metric_selector("{\"foo.bar\"}").expect("valid")[0].value, "foo.bar");
    assert!(parse_metric_selector("{}").expect("valid").is_empty());
    for bad in ["", "foo{", "foo[5m]", "foo + bar", "sum(foo)", "foo offset 5m", "foo{a=b}", "1"] {
        assert!(parse_metric_selector(bad).is_err(), "{bad}");
    }
}

#[test]
fn set_operators_get_their_cardinality_and_scalars_no_matching() {
    let expr = parse_expr("foo and bar or 1 + baz").expect("valid");
    let Expr::Binary(or) = &expr else { panic!("or") };
    assert_eq!(or.matching.as_ref().map(|m| m.card.as_str()), Some("many-to-many"));
    let Expr::Binary(plus) = &or.rhs else { panic!("plus") };
    assert_eq!(plus.matching, None);
    assert_eq!(selectors(&expr).len(), 3);
}

/// Prometheus 3 has `@` and negative offsets always on, and so has this parser: the suite's cases that switch them off
/// do not apply, the others hold.
#[test]
fn what_is_always_on() {
    crate::suite::run("promql-engine/option_validation.json", |case| {
        let query = case["query"].as_str().unwrap_or_default();
        parse_expr(query).map(|_| ()).map_err(|e| e.to_string())
    });
}
