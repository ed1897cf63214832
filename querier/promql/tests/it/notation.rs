//! Series and histogram notation, and start timestamps.

use serde_json::{Value, json};
use sextant_model::{Histogram, ResetHint, Span, is_stale_nan};
use sextant_promql::{LoadLine, SequenceValue, parse_load_line, parse_series, parse_start_sequence};

use crate::suite;

#[test]
fn series_notation() {
    suite::run("promql-parser/series_notation.json", |case| {
        let input = case["input"].as_str().ok_or("no input")?;
        let result = parse_series(input);
        if case["valid"] != true {
            return result.map_or(Ok(()), |ok| Err(format!("accepted as {ok:?}")));
        }
        let (labels, values) = result.map_err(|e| e.to_string())?;
        let metric: serde_json::Map<String, Value> =
            labels.iter().map(|(n, v)| (n.to_owned(), json!(v))).collect();
        suite::same(&Value::Object(metric), &case["expected_metric"])?;
        // The suite writes an omitted value as the smallest float.
        let omitted = f64::from_bits(1);
        let want: Vec<f64> =
            case["expected_values"].as_array().ok_or("no values")?.iter().map(suite::number).collect();
        let got: Vec<f64> = values
            .iter()
            .map(|v| match v {
                SequenceValue::Omitted => omitted,
                SequenceValue::Float(f) => *f,
                SequenceValue::Histogram(..) => f64::INFINITY,
            })
            .collect();
        suite::same(got, want)
    });
}

fn spans(value: &Value) -> Vec<Span> {
    let number = |v: &Value| v.as_i64().unwrap_or_default();
    value.as_array().map_or_else(Vec::new, |spans| {
        spans
            .iter()
            .map(|s| Span { offset: number(&s["Offset"]) as i32, length: number(&s["Length"]) as u32 })
            .collect()
    })
}

fn expected_histogram(value: &Value) -> Histogram {
    let number = |key: &str| value.get(key).map(suite::number).unwrap_or_default();
    let numbers = |key: &str| -> Vec<f64> {
        value[key].as_array().map_or_else(Vec::new, |v| v.iter().map(suite::number).collect())
    };
    Histogram {
        reset_hint: match value["CounterResetHint"].as_str() {
            Some("GaugeType") => ResetHint::Gauge,
            Some("CounterReset") => ResetHint::Reset,
            Some("NotCounterReset") => ResetHint::NoReset,
            _ => ResetHint::Unknown,
        },
        schema: number("Schema") as i32,
        integer: false,
        zero_threshold: number("ZeroThreshold"),
        zero_count: number("ZeroCount"),
        count: number("Count"),
        sum: number("Sum"),
        positive_spans: spans(&value["PositiveSpans"]),
        positive_buckets: numbers("PositiveBuckets"),
        negative_spans: spans(&value["NegativeSpans"]),
        negative_buckets: numbers("NegativeBuckets"),
        custom_values: numbers("CustomValues"),
    }
}

#[test]
fn histogram_notation() {
    suite::run("promql-parser/histogram_notation.json", |case| {
        let result = parse_series(case["input"].as_str().ok_or("no input")?);
        if let Some(error) = case["expected_error"].as_str() {
            // The position must agree; the wording is free where Prometheus names numbers of its grammar.
            return match result {
                Ok(ok) => Err(format!("accepted as {ok:?}")),
                Err(e) => {
                    let place = error.split(' ').next().unwrap_or_default();
                    let got = e.to_string();
                    suite::same(got.split(' ').next().unwrap_or_default(), place)
                }
            };
        }
        let (_, values) = result.map_err(|e| e.to_string())?;
        let want: Vec<Histogram> =
            case["expected"].as_array().ok_or("no expected")?.iter().map(expected_histogram).collect();
        let got: Vec<Histogram> = values
            .into_iter()
            .filter_map(|v| match v {
                SequenceValue::Histogram(h, _) => Some(*h),
                _ => None,
            })
            .collect();
        suite::same(got, want)
    });
}

#[test]
fn start_sequences() {
    suite::run("promql-test-runner/st_sequence.json", |case| {
        let result = parse_start_sequence(case["input"].as_str().ok_or("no input")?);
        if case["wantErr"] == true {
            return result.map_or(Ok(()), |ok| Err(format!("accepted as {ok:?}")));
        }
        let want: Vec<Option<i64>> = case["expected"].as_array().map_or_else(Vec::new, |values| {
            values.iter().map(|v| v["Value"].as_f64().map(|ms| ms as i64)).collect()
        });
        suite::same(result.map_err(|e| e.to_string())?, want)
    });
}

#[test]
fn load_lines() {
    let Ok(LoadLine::Samples(labels, values)) = parse_load_line("m{a=\"x @st y\"} 1 stale _x2 {{}} 0x1 Inf")
    else {
        panic!("samples");
    };
    assert_eq!(labels.to_string(), "m{a=\"x @st y\"}");
    assert!(matches!(values[1], SequenceValue::Float(v) if is_stale_nan(v)));
    assert_eq!(values[2..4], [SequenceValue::Omitted, SequenceValue::Omitted]);
    assert!(matches!(values[4], SequenceValue::Histogram(_, false)));
    assert_eq!(values.len(), 8);

    let Ok(LoadLine::Starts(labels, starts)) = parse_load_line("{\"a.b\", c=\"d\"}@st  _ -30s-1mx2") else {
        panic!("starts");
    };
    assert_eq!(labels.get("__name__"), Some("a.b"));
    assert_eq!(starts, [None, Some(-30_000), Some(-90_000), Some(-150_000)]);

    for bad in [
        "m@st 5",
        "m@sst 1",
        "m 1 x",
        "m 1x99999999",
        "m 1+1",
        "m {{sum:1 sum:2}}",
        "m {{buckets:[}}",
        "m{a} 1",
    ] {
        assert!(parse_load_line(bad).is_err(), "{bad}");
    }
}
