//! Finding and reading conformance suites, and the tally of their cases.

use std::path::{Path, PathBuf};

use serde_json::Value;
use sextant_model::{CUSTOM_BUCKETS_SCHEMA, Histogram, ResetHint, Span, deltas_to_counts};

/// How a suite writes bucket counts.
#[derive(Clone, Copy, PartialEq)]
pub enum Counts {
    Absolute,
    Deltas,
}

fn root() -> PathBuf {
    std::env::var_os("SEXTANT_CONFORMANCE")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/conformance"), PathBuf::from)
}

/// The text of a suite's file; prints that the test is skipped if there is none.
pub fn read(path: &str) -> Option<String> {
    let text = std::fs::read_to_string(root().join(path)).ok();
    if text.is_none() {
        println!("{path}: skipped, no such suite");
    }
    text
}

/// Runs `check` on each case of a JSON suite. Cases in `known` (id and reason) are allowed to fail.
pub fn run(path: &str, known: &[(&str, &str)], check: impl Fn(&Value) -> Result<(), String>) {
    let Some(text) = read(path) else { return };
    let suite: Value = serde_json::from_str(&text).expect("the suite is JSON");
    let cases = suite["cases"].as_array().expect("the suite has cases");
    let mut tally = Tally::new(path, known);
    for case in cases {
        tally.note(case["id"].as_str().unwrap_or("?"), check(case));
    }
    tally.finish();
}

/// Counts passed and failed cases.
pub struct Tally<'a> {
    name: &'a str,
    known: &'a [(&'a str, &'a str)],
    passed: usize,
    failures: Vec<String>,
}

impl<'a> Tally<'a> {
    pub fn new(name: &'a str, known: &'a [(&'a str, &'a str)]) -> Self {
        Self { name, known, passed: 0, failures: Vec::new() }
    }

    pub fn note(&mut self, id: &str, result: Result<(), String>) {
        match (result, self.known.iter().find(|(known, _)| *known == id)) {
            (Ok(()), None) => self.passed += 1,
            (Ok(()), Some(_)) => self.failures.push(format!("{id}: listed as failing, but passes")),
            (Err(_), Some((_, reason))) => println!("{}: {id}: known: {reason}", self.name),
            (Err(error), None) => self.failures.push(format!("{id}: {error}")),
        }
    }

    pub fn finish(self) {
        println!("{}: {} passed, {} failed", self.name, self.passed, self.failures.len());
        assert!(self.failures.is_empty(), "{}:\n{}", self.name, self.failures.join("\n"));
        assert!(self.passed > 0, "{}: no case ran", self.name);
    }
}

/// A number; infinities and NaN are strings.
pub fn number(value: &Value) -> f64 {
    match value {
        Value::String(text) => text.parse().unwrap_or_else(|_| panic!("not a number: {text}")),
        other => other.as_f64().unwrap_or(0.0),
    }
}

/// A schema, also by its symbolic name.
pub fn schema(value: &Value) -> i32 {
    match value {
        Value::String(text) if text == "CustomBucketsSchema" => CUSTOM_BUCKETS_SCHEMA,
        other => other.as_i64().unwrap_or(0) as i32,
    }
}

/// A histogram in the suites' notation, with Go's field names.
pub fn histogram(value: &Value, counts: Counts) -> Histogram {
    let numbers = |key: &str| value[key].as_array().into_iter().flatten().map(number).collect::<Vec<_>>();
    let buckets = |key: &str| match counts {
        Counts::Absolute => numbers(key),
        Counts::Deltas => {
            deltas_to_counts(&numbers(key).into_iter().map(|delta| delta as i64).collect::<Vec<_>>())
        }
    };
    let spans = |key: &str| value[key].as_array().into_iter().flatten().map(span).collect::<Vec<_>>();
    Histogram {
        reset_hint: match value["CounterResetHint"].as_str() {
            Some("CounterReset") => ResetHint::Reset,
            Some("NotCounterReset") => ResetHint::NoReset,
            Some("GaugeType") => ResetHint::Gauge,
            _ => ResetHint::Unknown,
        },
        schema: schema(&value["Schema"]),
        integer: counts == Counts::Deltas,
        zero_threshold: number(&value["ZeroThreshold"]),
        zero_count: number(&value["ZeroCount"]),
        count: number(&value["Count"]),
        sum: number(&value["Sum"]),
        positive_spans: spans("PositiveSpans"),
        positive_buckets: buckets("PositiveBuckets"),
        negative_spans: spans("NegativeSpans"),
        negative_buckets: buckets("NegativeBuckets"),
        custom_values: numbers("CustomValues"),
    }
}

fn span(value: &Value) -> Span {
    let field = |position: usize, name: &str| match value {
        Value::Array(pair) => pair[position].as_i64().unwrap_or(0),
        object => object[name].as_i64().unwrap_or(0),
    };
    Span { offset: field(0, "Offset") as i32, length: field(1, "Length") as u32 }
}
