//! Durations as text, and duration expressions with a query's times.

use sextant_promql::{
    Expr, format_duration, parse_duration, parse_expr, parse_signed_duration, resolve_durations,
};

use crate::suite;

#[test]
fn durations() {
    suite::run("names-and-durations/durations.json", |case| {
        let input = case["in"].as_str().ok_or("no in")?;
        let parse = if case["allowedNegative"] == true { parse_signed_duration } else { parse_duration };
        let ms = parse(input).map_err(|e| e.to_string())?;
        suite::same(Some(ms * 1_000_000), case["out"].as_i64())?;
        let printed = case["expectedString"].as_str().filter(|s| !s.is_empty()).unwrap_or(input);
        suite::same(format_duration(ms).as_str(), printed)
    });
}

#[test]
fn bad_durations() {
    suite::run("names-and-durations/bad_durations.json", |case| {
        match parse_duration(case["input"].as_str().ok_or("no input")?) {
            Ok(ms) => Err(format!("accepted as {ms} ms")),
            Err(_) => Ok(()),
        }
    });
}

/// Resolves for a query from 50 s to 60 s every 5 s and gives range, step and offset.
fn resolved(query: &str) -> Result<(i64, Option<i64>, i64), String> {
    let mut expr = parse_expr(query).map_err(|e| e.to_string())?;
    resolve_durations(&mut expr, 50_000, 60_000, 5_000).map_err(|e| e.to_string())?;
    Ok(match &expr {
        Expr::VectorSelector(v) => (0, None, v.offset_ms),
        Expr::MatrixSelector(m) => (m.range_ms, None, m.selector.offset_ms),
        Expr::Subquery(s) => (s.range_ms, s.step_ms, s.offset_ms),
        other => return Err(format!("not a selector: {other}")),
    })
}

#[test]
fn duration_expressions_resolve_to_milliseconds() {
    for (query, want) in [
        ("m[step()]", (5_000, None, 0)),
        ("m[1+(STep()-5)*2]", (1_000, None, 0)),
        ("m[24m+((1.5*2m)+2m)]", (1_740_000, None, 0)),
        ("m[1h30m % 1h]", (1_800_000, None, 0)),
        ("m[30m1s-30m1s % 1m]", (1_800_000, None, 0)),
        ("m[2^3^2]", (512_000, None, 0)),
        ("m[max_of(min_of(step()+1,1h),1ms)]", (6_000, None, 0)),
        ("m[range():step()*2] offset -range()", (10_000, Some(10_000), -10_000)),
        ("m[range()*2:]", (20_000, None, 0)),
        ("m offset (100 + 2)", (0, None, 102_000)),
        ("m offset (100) + 2", (0, None, 102_000)),
        ("m offset - -5", (0, None, 5_000)),
        ("m offset -(min_of(step(), 2s)-5)", (0, None, 3_000)),
        ("m offset (-2 ^ 2)", (0, None, -4_000)),
        ("m offset (20*(((((8 - 2) / 3) * 7s) % 4) + 8000ms))", (0, None, 200_000)),
    ] {
        assert_eq!(resolved(query), Ok(want), "{query}");
    }
    for query in ["m offset 100 + 2", "m offset -2 ^ 2", "m offset step()*0", "m offset -(step())+8000"] {
        let expr = parse_expr(query).expect(query);
        assert!(matches!(expr, Expr::Binary(_)), "{query}: the operator is not the offset's");
    }
    for (query, reason) in [
        ("m[step()-5]", "2:10: duration must be greater than 0"),
        ("m[(0)]", "2:5: duration must be greater than 0"),
        ("m[1h:step()-10]", "5:14: duration must be greater than 0"),
        ("m[5/(step()-5)]", "2:14: division by zero"),
        ("m[5%(range()-10)]", "2:16: modulo by zero"),
        ("m offset (10^30)", "9:16: duration is out of range"),
    ] {
        assert_eq!(resolved(query), Err(reason.to_owned()), "{query}");
    }
}
