#![no_main]
//! PromQL's parser: any bytes are an expression or errors. What is accepted prints to a text that parses and prints alike.

use libfuzzer_sys::fuzz_target;
use sextant_promql::{ParserOptions, parse_expr_with, prettify, to_json, tokens};

fuzz_target!(|data: &[u8]| {
    let _ = (tokens(data, false), tokens(data, true));
    let Ok(expr) = parse_expr_with(data, ParserOptions::default()) else { return };
    let printed = expr.to_string();
    let again = parse_expr_with(printed.as_bytes(), ParserOptions::default());
    let again = again.unwrap_or_else(|e| panic!("{printed:?} does not parse: {e}"));
    assert_eq!(again.to_string(), printed);
    let _ = (to_json(&expr), prettify(&expr, 80));
});
