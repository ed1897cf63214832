//! What a fuzz target calls, and tests with it.

use serde_json::Value;

use crate::{
    ParserOptions, parse_duration, parse_expr, parse_expr_with, parse_metric_selector, parse_series,
    prettify, to_json, tokens,
};

/// Parses arbitrary bytes as everything that can be parsed. What parses as an expression prints, on one line and on
/// several, as text that parses to the same tree.
///
/// # Panics
///
/// Where that does not hold: it is for fuzz targets and tests.
pub fn fuzz_parse(data: &[u8]) {
    let _ = tokens(data, false);
    let text = String::from_utf8_lossy(data);
    let _ = parse_metric_selector(&text);
    let _ = parse_series(&text);
    let _ = parse_duration(&text);
    let expr = match parse_expr_with(data, ParserOptions::default()) {
        Ok(expr) => expr,
        Err(errors) => {
            assert!(!errors.0.is_empty(), "an error that says nothing");
            for e in &errors.0 {
                assert!(
                    e.pos.start <= e.pos.end && e.pos.end <= data.len(),
                    "an error outside of the text: {e}"
                );
            }
            return;
        }
    };
    let (printed, tree) = (expr.to_string(), in_order(to_json(&expr)));
    for (what, text) in [("printed", printed.clone()), ("pretty", prettify(&expr, 20))] {
        let again = parse_expr(&text);
        assert!(again.is_ok(), "{what} text is no expression: {text:?}: {again:?}");
        let Ok(again) = again else { return };
        assert_eq!(again.to_string(), printed, "{what} text prints differently");
        assert_eq!(in_order(to_json(&again)), tree, "{what} text is another tree: {text:?}");
    }
}

/// A tree with matchers in order: they are printed so.
fn in_order(mut tree: Value) -> Value {
    let mut open = vec![&mut tree];
    while let Some(value) = open.pop() {
        match value {
            Value::Array(all) => open.extend(all),
            Value::Object(fields) => {
                if let Some(Value::Array(matchers)) = fields.get_mut("matchers") {
                    matchers.sort_by_cached_key(Value::to_string);
                }
                open.extend(fields.values_mut());
            }
            _ => {}
        }
    }
    tree
}
