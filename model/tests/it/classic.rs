//! The PromQL suite of classic histograms: quantiles and fractions of one selector, over the classic buckets and over
//! the native histogram with custom buckets that has the same content.

use std::collections::BTreeMap;

use sextant_model::{
    CUSTOM_BUCKETS_SCHEMA, ClassicBucket, Histogram, Span, almost_equal, bucket_fraction, bucket_quantile,
};

use crate::suite::{Tally, read};

const PATH: &str = "promql/histograms.test";

/// Samples by `(name, labels without le)`, then by bound.
type Loaded = BTreeMap<(String, String), Vec<(f64, Vec<Option<f64>>)>>;

#[test]
fn quantiles_and_fractions() {
    let Some(text) = read(PATH) else { return };
    let mut tally = Tally::new(PATH, &[]);
    let mut loaded = Loaded::new();
    let mut step = 0.0;
    let mut lines = text.lines().enumerate().peekable();
    while let Some((number, line)) = lines.next() {
        let block: Vec<&str> = std::iter::from_fn(|| {
            lines.next_if(|(_, next)| next.starts_with([' ', '\t'])).map(|(_, l)| l.trim())
        })
        .filter(|line| !line.is_empty() && !line.starts_with('#') && !line.starts_with("expect "))
        .collect();
        if line == "clear" {
            loaded.clear();
        } else if let Some(duration) =
            line.strip_prefix("load_with_nhcb ").or_else(|| line.strip_prefix("load "))
        {
            step = seconds(duration);
            block.iter().for_each(|series| load(&mut loaded, series));
        } else if let Some((at, expression)) =
            line.strip_prefix("eval instant at ").and_then(|rest| rest.split_once(' '))
            && let Some(operation) = Operation::parse(expression)
        {
            let position = (seconds(at) / step) as usize;
            for expected in &block {
                if let Some(result) = check(&operation, &loaded, position, expected) {
                    tally.note(&format!("{}: {expression}", number + 1), result);
                }
            }
        }
    }
    tally.finish();
}

enum Operation<'a> {
    Quantile(f64, &'a str),
    Fraction(f64, f64, &'a str),
}

impl<'a> Operation<'a> {
    fn parse(expression: &'a str) -> Option<Self> {
        let (function, arguments) = expression.strip_suffix(')')?.split_once('(')?;
        let number = |text: &str| match text.trim() {
            "1./6." => Some(1.0 / 6.0),
            "5./6." => Some(5.0 / 6.0),
            other => other.parse::<f64>().ok(),
        };
        match (function, &arguments.split(',').collect::<Vec<_>>()[..]) {
            ("histogram_quantile", [q, name]) => Some(Self::Quantile(number(q)?, name.trim())),
            ("histogram_fraction", [lower, upper, name]) => {
                Some(Self::Fraction(number(lower)?, number(upper)?, name.trim()))
            }
            _ => None,
        }
    }
}

/// `None` if the suite's line is about something that is not loaded as classic buckets.
fn check(
    operation: &Operation<'_>,
    loaded: &Loaded,
    position: usize,
    expected: &str,
) -> Option<Result<(), String>> {
    let (labels, wanted) = expected.strip_prefix('{')?.split_once('}')?;
    let wanted: f64 = wanted.trim().parse().ok()?;
    let name = match operation {
        Operation::Quantile(_, name) | Operation::Fraction(_, _, name) => name,
    };
    let classic = name.strip_suffix("_bucket");
    let series = loaded.get(&(classic.unwrap_or(name).to_owned(), sorted(labels)))?;
    let mut buckets: Vec<ClassicBucket> = series
        .iter()
        .filter_map(|(upper_bound, samples)| {
            let samples = &samples[..samples.len().min(position + 1)];
            Some(ClassicBucket { upper_bound: *upper_bound, count: samples.iter().rev().find_map(|s| *s)? })
        })
        .collect();
    let got = match (operation, classic) {
        (Operation::Quantile(q, _), Some(_)) => bucket_quantile(*q, &mut buckets).value,
        (Operation::Quantile(q, _), None) => native(&mut buckets)?.quantile(*q),
        (Operation::Fraction(lower, upper, _), Some(_)) => bucket_fraction(*lower, *upper, &mut buckets),
        (Operation::Fraction(lower, upper, _), None) => native(&mut buckets)?.fraction(*lower, *upper),
    };
    Some(if almost_equal(got, wanted, 1e-6) { Ok(()) } else { Err(format!("got {got}, expected {wanted}")) })
}

fn native(buckets: &mut [ClassicBucket]) -> Option<Histogram> {
    buckets.sort_by(|a, b| a.upper_bound.total_cmp(&b.upper_bound));
    let last = *buckets.last().filter(|last| last.upper_bound == f64::INFINITY)?;
    let mut below = 0.0;
    let positive_buckets: Vec<f64> =
        buckets.iter().map(|bucket| bucket.count - std::mem::replace(&mut below, bucket.count)).collect();
    Some(Histogram {
        schema: CUSTOM_BUCKETS_SCHEMA,
        count: last.count,
        custom_values: buckets[..buckets.len() - 1].iter().map(|bucket| bucket.upper_bound).collect(),
        positive_spans: vec![Span { offset: 0, length: positive_buckets.len() as u32 }],
        positive_buckets,
        ..Histogram::default()
    })
}

fn load(loaded: &mut Loaded, line: &str) {
    let Some((name, rest)) = line.split_once("_bucket{") else { return };
    let Some((labels, samples)) = rest.split_once('}') else { return };
    let label = |text: &str| {
        text.split_once('=').map(|(key, value)| (key.trim() == "le", value.trim_matches('"').to_owned()))
    };
    let bound =
        labels.split(',').filter_map(label).find(|(le, _)| *le).and_then(|(_, value)| value.parse().ok());
    let Some(bound) = bound else { return };
    let others: Vec<_> = labels.split(',').filter(|text| label(text).is_some_and(|(le, _)| !le)).collect();
    let samples = samples.split_whitespace().flat_map(expand).collect();
    loaded.entry((name.to_owned(), sorted(&others.join(",")))).or_default().push((bound, samples));
}

/// `_`, `3`, `3x2`, `0+5x10`.
fn expand(token: &str) -> Vec<Option<f64>> {
    let Some((value, times)) = token.split_once('x') else { return vec![token.parse().ok()] };
    let times: u32 = times.parse().unwrap_or(0);
    let (start, increment) = value.split_once('+').unwrap_or((value, "0"));
    let number = |text: &str| text.parse::<f64>().unwrap_or(0.0);
    (0..=times).map(|i| Some(number(start) + number(increment) * f64::from(i))).collect()
}

fn sorted(labels: &str) -> String {
    let mut labels: Vec<_> = labels.split(',').map(str::trim).filter(|label| !label.is_empty()).collect();
    labels.sort_unstable();
    labels.join(",")
}

fn seconds(duration: &str) -> f64 {
    let duration = duration.trim();
    let unit = if duration.ends_with('m') { 60.0 } else { 1.0 };
    duration.trim_end_matches(['m', 's']).parse::<f64>().unwrap_or(0.0) * unit
}
