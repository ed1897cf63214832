//! The PromQL suites of native histograms, as far as an expression is one operation on one loaded histogram: trimming,
//! quantiles, fractions, moments. The evaluator runs the rest.

use std::collections::HashMap;

use sextant_model::{CUSTOM_BUCKETS_SCHEMA, Histogram, ResetHint, Span, almost_equal};

use crate::suite::{Tally, read};

const EPSILON: f64 = 1e-6;

#[test]
fn operations_on_one_histogram() {
    let path = "promql/native_histograms.test";
    if let Some(text) = read(path) {
        let mut tally = Tally::new(path, &[]);
        let mut loaded: HashMap<String, Option<Histogram>> = HashMap::new();
        let mut lines = text.lines().enumerate().peekable();
        while let Some((number, line)) = lines.next() {
            let block: Vec<&str> = std::iter::from_fn(|| {
                lines.next_if(|(_, next)| next.starts_with([' ', '\t'])).map(|(_, l)| l.trim())
            })
            .filter(|line| !line.is_empty())
            .collect();
            if line == "clear" {
                loaded.clear();
            } else if line.starts_with("load ") {
                for series in block.iter().filter(|line| !line.starts_with('#')) {
                    load(&mut loaded, series);
                }
            } else if let Some(rest) = line.strip_prefix("eval instant at ") {
                let expression = rest.split_once(' ').map_or("", |(_, expression)| expression);
                let results: Vec<_> = block.iter().filter(|line| !line.starts_with("expect ")).collect();
                if let (Some(got), [result]) = (evaluate(expression, &loaded), &results[..]) {
                    tally.note(&format!("{}: {expression}", number + 1), compare(&got, result));
                }
            }
        }
        tally.finish();
    }
}

enum Got {
    Number(f64),
    Histogram(Histogram),
}

fn compare(got: &Got, expected: &str) -> Result<(), String> {
    let expected = match expected.rfind('}') {
        // A trailing `}}` belongs to a histogram, a single one to the labels before a number.
        Some(_) if expected.ends_with("}}") && expected.contains("{{") => {
            &expected[expected.find("{{").unwrap_or(0)..]
        }
        Some(end) => &expected[end + 1..],
        None => expected,
    };
    match got {
        Got::Number(got) => {
            let wanted: f64 =
                expected.trim().parse().map_err(|_| format!("expected {expected}, got {got}"))?;
            if almost_equal(*got, wanted, EPSILON) {
                Ok(())
            } else {
                Err(format!("got {got}, expected {wanted}"))
            }
        }
        Got::Histogram(got) => {
            let wanted = parse(expected.trim()).ok_or_else(|| format!("expected {expected}"))?;
            let reparsed = parse(&got.test_expression());
            if !reparsed.is_some_and(|again| again.same_up_to(got, EPSILON)) {
                return Err(format!("{} does not come back", got.test_expression()));
            }
            if got.same_up_to(&wanted, EPSILON) {
                Ok(())
            } else {
                Err(format!("got {}, expected {}", got.test_expression(), wanted.test_expression()))
            }
        }
    }
}

/// Remembers a series if all its samples are one histogram and no other series has the name.
fn load(loaded: &mut HashMap<String, Option<Histogram>>, series: &str) {
    let split = series.find("{{").unwrap_or(series.len());
    let (name, samples) = series.split_at(split);
    let name = name.split(['{', ' ', '\t']).next().unwrap_or("").to_owned();
    let constant = samples.find("}}").is_some_and(|end| {
        let rest = &samples[end + 2..];
        rest.is_empty() || rest.strip_prefix('x').is_some_and(|n| n.parse::<u32>().is_ok())
    });
    let histogram = samples.find("}}").filter(|_| constant).and_then(|end| parse(&samples[..end + 2]));
    let ambiguous = loaded.contains_key(&name);
    loaded.insert(name, histogram.filter(|_| !ambiguous));
}

fn evaluate(expression: &str, loaded: &HashMap<String, Option<Histogram>>) -> Option<Got> {
    let find = |name: &str| loaded.get(name.trim()).and_then(Option::as_ref);
    let number = |text: &str| text.trim().parse::<f64>().ok();
    if let Some((name, value)) = expression.split_once("</") {
        return Some(Got::Histogram(find(name)?.trim_upper(number(value)?)));
    }
    if let Some((name, value)) = expression.split_once(">/") {
        return Some(Got::Histogram(find(name)?.trim_lower(number(value)?)));
    }
    let (function, arguments) = expression.strip_suffix(')')?.split_once('(')?;
    let arguments: Vec<_> = arguments.split(',').collect();
    let value = match (function, &arguments[..]) {
        ("histogram_quantile", [q, name]) => find(name)?.quantile(number(q)?),
        ("histogram_fraction", [lower, upper, name]) => find(name)?.fraction(number(lower)?, number(upper)?),
        ("histogram_avg", [name]) => find(name)?.avg(),
        ("histogram_stddev", [name]) => find(name)?.stddev(),
        ("histogram_stdvar", [name]) => find(name)?.stdvar(),
        _ => return None,
    };
    Some(Got::Number(value))
}

/// Reads `{{schema:0 count:4 buckets:[1 2 1]}}`.
fn parse(text: &str) -> Option<Histogram> {
    let mut rest = text.strip_prefix("{{")?.strip_suffix("}}")?.trim();
    let mut h = Histogram::default();
    let (mut offset, mut n_offset) = (0, 0);
    while !rest.is_empty() {
        let (key, value) = rest.split_once(':')?;
        let end = if value.starts_with('[') {
            value.find(']')? + 1
        } else {
            value.find(' ').unwrap_or(value.len())
        };
        let (value, behind) = value.split_at(end);
        rest = behind.trim_start();
        let list = || -> Option<Vec<f64>> {
            value.trim_matches(['[', ']']).split_whitespace().map(|v| v.parse().ok()).collect()
        };
        match key {
            "schema" => h.schema = value.parse().ok()?,
            "count" => h.count = value.parse().ok()?,
            "sum" => h.sum = value.parse().ok()?,
            "z_bucket" => h.zero_count = value.parse().ok()?,
            "z_bucket_w" => h.zero_threshold = value.parse().ok()?,
            "custom_values" => h.custom_values = list()?,
            "buckets" => h.positive_buckets = list()?,
            "n_buckets" => h.negative_buckets = list()?,
            "offset" => offset = value.parse().ok()?,
            "n_offset" => n_offset = value.parse().ok()?,
            "counter_reset_hint" => {
                h.reset_hint = match value {
                    "reset" => ResetHint::Reset,
                    "not_reset" => ResetHint::NoReset,
                    "gauge" => ResetHint::Gauge,
                    _ => ResetHint::Unknown,
                }
            }
            _ => return None,
        }
    }
    let span = |offset: i32, buckets: &[f64]| {
        (!buckets.is_empty()).then_some(Span { offset, length: buckets.len() as u32 }).into_iter().collect()
    };
    h.positive_spans = span(offset, &h.positive_buckets);
    h.negative_spans = span(n_offset, &h.negative_buckets);
    assert!(h.schema == CUSTOM_BUCKETS_SCHEMA || h.custom_values.is_empty());
    Some(h)
}
