//! Text that is deep, long or hostile: an answer in bounded stack, on a thread of 512 KiB.

use std::{
    thread,
    time::{Duration, Instant},
};

use sextant_promql::{
    MAX_DEPTH, MAX_NESTING, ParserOptions, parse_expr, parse_expr_with, parse_metric_selector, parse_series,
    prettify, resolve_durations, to_json, tokens,
};

fn on_small_stack(test: impl FnOnce() + Send + 'static) {
    let thread = thread::Builder::new().stack_size(512 << 10).spawn(test).expect("a thread");
    thread.join().expect("no panic");
}

/// Shapes of text that nest, made for a size.
const SHAPES: &[(&str, fn(usize) -> String)] = &[
    ("parentheses", |n| format!("{}1{}", "(".repeat(n), ")".repeat(n))),
    ("open parentheses", |n| "(".repeat(n)),
    ("signs", |n| format!("{}foo", "-".repeat(n))),
    ("signs of numbers", |n| format!("{}1", "- ".repeat(n))),
    ("a chain", |n| format!("{}1", "1+".repeat(n))),
    ("a chain of or", |n| format!("{}a", "a or ".repeat(n))),
    ("a chain of powers", |n| format!("{}1", "1^".repeat(n))),
    ("signed powers", |n| format!("{}1", "-1^".repeat(n))),
    ("calls", |n| format!("{}foo{}", "abs(".repeat(n), ")".repeat(n))),
    ("aggregations", |n| format!("{}foo{}", "sum(".repeat(n), ")".repeat(n))),
    ("open aggregations", |n| "sum by (a) (".repeat(n)),
    ("subqueries", |n| format!("{}foo{}", "rate(".repeat(n), "[1m:])".repeat(n))),
    ("bare subqueries", |n| format!("foo{}", "[1m:]".repeat(n))),
    ("ranges", |n| format!("foo{}", "[1m]".repeat(n))),
    ("offsets", |n| format!("foo{}", " offset 1m".repeat(n))),
    ("duration parentheses", |n| format!("foo[{}1{}]", "(".repeat(n), ")".repeat(n))),
    ("duration signs", |n| format!("foo[{}1]", "-".repeat(n))),
    ("a duration chain", |n| format!("foo[{}1]", "1+".repeat(n))),
    ("duration powers", |n| format!("foo[{}1]", "2^".repeat(n))),
    ("duration calls", |n| format!("foo[{}1,1{}]", "min_of(".repeat(n), ",1)".repeat(n))),
    ("commas in braces", |n| format!("foo{{{}}}", ",".repeat(n))),
    ("commas in a grouping", |n| format!("sum by ({}) (foo)", ",".repeat(n))),
    ("trailing commas", |n| format!("abs({})", "a,,".repeat(n))),
    ("errors after errors", |n| "sum(a b) + ".repeat(n)),
    ("comments", |n| format!("{}1", "#\n".repeat(n))),
];

#[test]
fn deep_text_gets_an_answer() {
    on_small_stack(|| {
        for (name, shape) in SHAPES {
            for n in [1_000, 100_000] {
                let text = shape(n);
                let result = parse_expr(&text);
                if let Ok(expr) = &result {
                    let printed = expr.to_string();
                    assert!(parse_expr(&printed).is_ok(), "{name}");
                }
                drop(result.clone());
                let _ = parse_metric_selector(&text);
                let _ = parse_series(&text);
                assert!(tokens(text.as_bytes(), false).len() <= text.len() + 1, "{name}");
            }
        }
    });
}

#[test]
fn what_is_as_deep_as_allowed_can_be_walked_printed_and_dropped() {
    on_small_stack(|| {
        for (name, shape) in SHAPES {
            // The deepest that is accepted, found from above.
            let deepest = (1..=MAX_DEPTH).rev().find_map(|n| parse_expr(&shape(n)).ok());
            let Some(mut expr) = deepest else { continue };
            let printed = expr.to_string();
            assert!(parse_expr(&printed).is_ok(), "{name}: what is printed is not deeper than what was read");
            assert!(prettify(&expr, 10).len() >= printed.len().min(10), "{name}");
            let _ = resolve_durations(&mut expr, 0, 10, 5);
            let _ = to_json(&expr);
            assert_eq!(expr.clone(), expr);
        }
    });
}

#[test]
fn a_chain_and_nesting_near_the_limit_are_accepted() {
    on_small_stack(|| {
        assert!(parse_expr(&format!("{}a", "a or ".repeat(MAX_DEPTH - 1))).is_ok());
        assert!(parse_expr(&format!("{}1{}", "(".repeat(MAX_NESTING), ")".repeat(MAX_NESTING))).is_ok());
        let error = parse_expr(&"(".repeat(MAX_NESTING + 1)).expect_err("too deep").to_string();
        assert!(error.contains("nested too deep"), "{error}");
    });
}

#[test]
fn ten_megabytes_take_linear_time() {
    on_small_stack(|| {
        // A quadratic step would take hours; the bound leaves room for a debug build on a busy machine.
        let size = 10 << 20;
        let wide = format!("vector({})", " ".repeat(size));
        let arguments = format!("label_join(foo, \"a\", \"b\"{})", ", \"c\"".repeat(size / 5));
        let string = format!("\"{}\"", "x".repeat(size));
        let matchers = format!("foo{{{}}}", "a=\"b\",".repeat(size / 6));
        let texts =
            [wide, arguments, string, matchers, "(".repeat(size), "-".repeat(size), "1+".repeat(size / 2)];
        for text in &texts {
            let started = Instant::now();
            let result = parse_expr(text);
            if let Ok(expr) = &result {
                let _ = expr.to_string();
                let _ = prettify(expr, 100);
            }
            drop(result);
            let took = started.elapsed();
            assert!(took < Duration::from_secs(120), "{:?}… took {took:?}", &text[..20]);
        }
    });
}

#[test]
fn arbitrary_bytes_get_an_answer() {
    on_small_stack(|| {
        // A fixed pseudo-random sequence over the characters that mean something.
        let alphabet: Vec<char> =
            "(){}[]\"'`\\,:=!~<>+-*/%^@#x_.0159aeosmhdw \n\u{e9}\u{fffd}".chars().collect();
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        for length in 0..3_000_usize {
            let mut text = String::new();
            for _ in 0..length % 40 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                text.push(alphabet[(state >> 33) as usize % alphabet.len()]);
            }
            let _ = parse_expr(&text);
            let _ = parse_series(&text);
            let _ = parse_metric_selector(&text);
            let mut bytes = text.into_bytes();
            bytes.push(0xff);
            let _ = parse_expr_with(&bytes, ParserOptions::default());
        }
    });
}
