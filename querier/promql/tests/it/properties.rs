//! Properties over generated expressions: what is printed parses to a tree that prints the same, in both forms.

use proptest::prelude::*;
use sextant_promql::{format_duration, parse_duration, parse_expr, prettify};

fn selector() -> impl Strategy<Value = String> {
    let name = prop_oneof![Just("foo"), Just("a:b"), Just("sum"), Just("start")];
    let matchers = prop_oneof![
        Just(String::new()),
        Just("{a=\"b\"}".to_owned()),
        "[a-z\"\\\\\u{e9}]{0,6}".prop_map(|v| format!("{{\"x.y\"!={v:?}}}")),
    ];
    (name, matchers).prop_map(|(n, m)| format!("{n}{m}"))
}

fn duration() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("5m".to_owned()),
        Just("step() * 2".to_owned()),
        Just("max_of(range(), (1h))".to_owned()),
        (1u32..5000).prop_map(|s| format!("{s}")),
    ]
}

fn vector() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        selector(),
        (selector(), duration()).prop_map(|(s, d)| format!("rate({s}[{d}] offset -1m)")),
        (selector(), any::<i32>()).prop_map(|(s, t)| format!("{s} @ {t}")),
        any::<f64>().prop_filter("a number", |v| v.is_finite()).prop_map(|v| format!("vector({v})")),
    ];
    leaf.prop_recursive(5, 40, 3, |inner| {
        let op = prop_oneof![
            Just("+"),
            Just("^"),
            Just("*"),
            Just("== bool"),
            Just("and"),
            Just("or"),
            Just("atan2"),
            Just("/ on (a, \"x.y\") group_left (c)"),
            Just("- fill_left (1) fill_right (NaN)"),
            Just("</"),
        ];
        prop_oneof![
            (inner.clone(), op, inner.clone()).prop_map(|(l, op, r)| format!("{l} {op} {r}")),
            inner.clone().prop_map(|e| format!("({e})")),
            inner.clone().prop_map(|e| format!("-{e}")),
            inner.clone().prop_map(|e| format!("sum by (a) ({e})")),
            inner.clone().prop_map(|e| format!("topk(2, {e}) without (b)")),
            (inner, duration()).prop_map(|(e, d)| format!("max_over_time(({e})[{d}:])")),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn printing_and_parsing_are_inverse(query in vector(), limit in 5usize..120) {
        let expr = parse_expr(&query).map_err(|e| TestCaseError::fail(format!("{query}: {e}")))?;
        let printed = expr.to_string();
        let again = parse_expr(&printed).map_err(|e| TestCaseError::fail(format!("{printed}: {e}")))?;
        prop_assert_eq!(again.to_string(), printed.clone());
        let pretty = prettify(&expr, limit);
        let again = parse_expr(&pretty).map_err(|e| TestCaseError::fail(format!("{pretty}: {e}")))?;
        prop_assert_eq!(again.to_string(), printed);
    }

    #[test]
    fn durations_print_as_what_they_are(ms in 0i64..9_000_000_000_000) {
        prop_assert_eq!(parse_duration(&format_duration(ms)), Ok(ms));
    }

    #[test]
    fn arbitrary_text_gets_an_answer(text in any::<String>()) {
        if let Err(errors) = parse_expr(&text) {
            prop_assert!(!errors.0.is_empty());
            prop_assert!(errors.0.iter().all(|e| e.pos.start <= e.pos.end && e.pos.end <= text.len() && !e.message.is_empty()));
        }
    }
}
