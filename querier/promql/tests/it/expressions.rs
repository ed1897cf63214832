//! Expressions with their trees or their errors, and bad input of our own.

use serde_json::Value;
use sextant_promql::{ParserOptions, extract_selectors, parse_expr, parse_expr_with};

use crate::{suite, tree};

fn options() -> ParserOptions {
    ParserOptions { fill_modifiers: false, ..ParserOptions::default() }
}

#[test]
fn expressions() {
    suite::run("promql-parser/expressions.json", |case| {
        let input = suite::bytes(&case["input"]);
        let result = parse_expr_with(&input, options());
        if case["valid"] == true {
            let expr = result.map_err(|e| format!("refused: {e}"))?;
            return suite::same(tree::tree(&expr), tree::normalize(&case["expected_ast"]));
        }
        let errors = match result {
            Ok(expr) => return Err(format!("accepted as {expr}")),
            Err(errors) => errors.0,
        };
        let want = case["expected_errors"].as_array().ok_or("no expected errors")?;
        let place = |e: &Value| (e["start"].as_u64(), e["end"].as_u64());
        let got: Vec<_> = errors
            .iter()
            .map(|e| (Some(e.pos.start as u64), Some(e.pos.end as u64), e.message.clone()))
            .collect();
        let want: Vec<_> = want
            .iter()
            .map(|e| (place(e).0, place(e).1, e["message"].as_str().unwrap_or_default().to_owned()))
            .collect();
        let mut got_free = got.clone();
        // Where Prometheus names the function of its standard library, our wording is shorter.
        for (g, w) in got_free.iter_mut().zip(&want) {
            if w.2.starts_with("error parsing number: ") && g.2.starts_with("error parsing number: ") {
                g.2.clone_from(&w.2);
            }
        }
        suite::same(got_free, want)
    });
}

#[test]
fn selectors_of_expressions() {
    suite::run("promql-parser/extract_selectors.json", |case| {
        let expr = parse_expr(case["input"].as_str().ok_or("no input")?).map_err(|e| e.to_string())?;
        let got: Vec<Vec<String>> = extract_selectors(&expr)
            .into_iter()
            .map(|matchers| matchers.iter().map(ToString::to_string).collect())
            .collect();
        let want: Vec<Vec<String>> = case["expected"]
            .as_array()
            .ok_or("no expected")?
            .iter()
            .map(|s| {
                let s = s.as_str().unwrap_or_default().trim_matches(['{', '}']);
                s.split(", ").map(str::to_owned).collect()
            })
            .collect();
        suite::same(got, want)
    });
}

/// Input with the place and a part of the message of its first error.
const BAD: &[(&str, &str, &str)] = &[
    ("", "unknown position", "no expression"),
    ("   ", "1:1", "no expression"),
    ("# only a comment", "1:1", "no expression"),
    ("foo bar", "1:5", "unexpected identifier \"bar\""),
    ("foo\n+\n)", "3:2", "unexpected right parenthesis"),
    ("sum(foo) by (a b)", "1:16", "in grouping opts, expected \",\" or \")\""),
    ("sum(foo bar)", "1:9", "unexpected identifier \"bar\" in aggregation"),
    ("sum by (a) foo", "1:12", "in aggregation"),
    ("sum by (without) (foo)", "1:9", "expected label"),
    ("sum by (\"\") (foo)", "1:9", "invalid label name for grouping"),
    ("foo + on bar", "1:10", "in grouping opts, expected \"(\""),
    ("foo offset", "1:11", "in offset, expected number"),
    ("foo offset -", "1:13", "in offset, expected number"),
    ("foo offset bar", "1:12", "in offset, expected number"),
    ("foo offset 1m offset 2m", "1:1", "offset may not be set multiple times"),
    ("foo @ 1 @ 2", "1:1", "may not be set multiple times"),
    ("foo @ start", "1:12", "in @, expected timestamp"),
    ("foo @ 1e100", "1:1", "timestamp out of bounds"),
    ("foo[5m", "1:7", "unclosed left bracket"),
    ("foo[5m 5m]", "1:8", "in subquery or range, expected \":\" or \"]\""),
    ("foo[5m:5m 5m]", "1:11", "in subquery selector, expected \"]\""),
    ("foo[:5m]", "1:6", "unexpected colon before duration"),
    ("foo[5m::]", "1:8", "unexpected colon"),
    ("foo[1e400]", "1:5", "error parsing number"),
    ("foo[300y]", "1:5", "duration out of range"),
    ("foo[-5m]", "1:5", "duration must be greater than 0"),
    ("foo{a=\"(\", b=~\"(\"}", "1:12", "regular expression"),
    ("foo{,}", "1:5", "expected identifier or \"}\""),
    ("foo{a=\"b\",,}", "1:11", "expected identifier or \"}\""),
    ("{\"a\" \"b\"}", "1:6", "expected \",\" or \"}\""),
    ("{\"\"}", "1:1", "at least one non-empty matcher"),
    ("rate(foo)", "1:6", "expected type range vector"),
    ("Rate(foo[5m])", "1:1", "unknown function with name \"Rate\""),
    ("nope(foo) + nope2(1)", "1:1", "unknown function with name \"nope\""),
    ("label_join()", "1:1", "expected at least 3 argument(s)"),
    ("histogram_quantiles(a, \"q\")", "1:1", "expected at least 3 argument(s)"),
    ("vector(1, 2)", "1:1", "expected 1 argument(s)"),
    ("foo{} + \"a\"", "1:9", "binary expression must contain only scalar and instant vector types"),
    ("-\"a\"", "1:1", "unary expression only allowed"),
    ("\"a\"[5m:]", "1:1", "subquery is only allowed on instant vector, got string instead"),
    ("foo and fill(1) bar", "1:1", "filling in missing series not allowed for set operators"),
    ("foo + fill(1) 1", "1:1", "filling in missing series only allowed between instant vectors"),
    ("foo + fill(1) fill(2) bar", "1:15", "unexpected <fill>"),
    ("foo + fill(a) bar", "1:12", "unexpected identifier \"a\""),
    ("foo + on(a) 1", "1:1", "vector matching only allowed between instant vectors"),
    ("a:b(1)", "1:4", "unexpected \"(\""),
    ("foo[5m:1m] anchored", "1:1", "anchored modifier is not supported for subqueries"),
    ("foo[5m] anchored smoothed", "1:1", "cannot be used together"),
    ("sum(foo) smoothed", "1:1", "smoothed modifier not implemented"),
    ("1 < 2", "1:3", "must use BOOL modifier"),
    ("'a' 'b", "1:5", "unterminated quoted string"),
    ("\u{0}", "1:1", "unexpected character: '\\x00'"),
    ("foo \u{3b1}", "1:5", "unexpected character: '\u{3b1}'"),
    ("on(foo)", "1:1", "unexpected <on>"),
    ("foo atan2", "1:10", "unexpected end of input"),
    ("foo !~ bar", "1:5", "unexpected character after '!': '~'"),
    ("0x", "1:1", "error parsing number"),
    ("5mm", "1:1", "bad number or duration syntax"),
];

#[test]
fn bad_input_is_refused_with_a_place_and_a_reason() {
    for (input, place, reason) in BAD {
        match parse_expr(input) {
            Ok(expr) => panic!("{input:?} was accepted as {expr}"),
            Err(errors) => {
                let text = errors.to_string();
                assert!(text.starts_with(&format!("{place}: parse error: ")), "{input:?}: {text}");
                assert!(text.contains(reason), "{input:?}: {text}");
            }
        }
    }
}

#[test]
fn every_prefix_and_every_byte_lost_of_a_rich_query_is_an_answer_not_a_panic() {
    let query = "sum by (a, \"b.c\") (rate({\"x.y\", z=~'q|r'}[5m + step()] anchored @ end() offset -1h)) / on (a) \
                 group_left (l) fill (-0x1f) -max_over_time(foo[1h:min_of(1m, 2)]) >/ 1_0.5e3 # end";
    parse_expr(query).expect("the query is valid");
    for i in 0..query.len() {
        let _ = parse_expr(&query[..i]);
        let mut bytes = query.as_bytes().to_vec();
        bytes.remove(i);
        let _ = parse_expr_with(&bytes, ParserOptions::default());
        bytes.insert(i, 0xff);
        let _ = parse_expr_with(&bytes, ParserOptions::default());
    }
}
