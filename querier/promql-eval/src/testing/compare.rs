//! Comparing an answer with what a script expects.

use sextant_model::{Labels, ResetHint, almost_equal};
use sextant_promql::SequenceValue;

use super::{EvalTime, Expectation, ExpectedSeries, Pattern};
use crate::Cell;

/// Floats agree within this relative difference.
const EPSILON: f64 = 1e-6;

/// A query's answer, as a target gives it.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The value.
    pub value: AnswerValue,
    /// Warnings with their positions.
    pub warnings: Vec<String>,
    /// Infos with their positions.
    pub infos: Vec<String>,
}

/// The value of an answer.
#[derive(Debug, Clone)]
pub enum AnswerValue {
    /// A number.
    Scalar(f64),
    /// A string.
    String(String),
    /// An instant vector, in the order of the answer.
    Vector(Vec<(Labels, Cell)>),
    /// A matrix.
    Matrix(Vec<(Labels, Vec<(i64, Cell)>)>),
}

/// Checks a successful answer.
pub fn check(expect: &Expectation, time: EvalTime, answer: &Answer) -> Result<(), String> {
    check_annotations(expect, answer)?;
    check_value(expect, time, &answer.value)
}

fn check_annotations(expect: &Expectation, answer: &Answer) -> Result<(), String> {
    for (word, expected, none, actual) in [
        ("warning", &expect.warn, expect.no_warn, &answer.warnings),
        ("info", &expect.info, expect.no_info, &answer.infos),
    ] {
        if none && !actual.is_empty() {
            return Err(format!("unexpected {word}s: {actual:?}"));
        }
        if let Some(missing) = expected.iter().find(|p| !actual.iter().any(|a| p.matches(a))) {
            return Err(format!("expected {word} {missing:?}, got {actual:?}"));
        }
        let specific = !expected.is_empty() && !expected.iter().any(|p| matches!(p, Pattern::Any));
        if specific && let Some(other) = actual.iter().find(|a| !expected.iter().any(|p| p.matches(a))) {
            return Err(format!("unexpected {word}: {other}"));
        }
    }
    Ok(())
}

/// Checks a value without its annotations.
pub fn check_value(expect: &Expectation, time: EvalTime, value: &AnswerValue) -> Result<(), String> {
    if let Some(text) = &expect.string {
        return match value {
            AnswerValue::String(s) if s == text => Ok(()),
            other => Err(format!("expected string {text:?}, got {other:?}")),
        };
    }
    match value {
        AnswerValue::Scalar(v) => match expect.series.first() {
            Some(ExpectedSeries { labels: None, values }) => match values.first() {
                Some(SequenceValue::Float(e)) if almost_equal(*e, *v, EPSILON) => Ok(()),
                other => Err(format!("expected {other:?}, got scalar {v}")),
            },
            other => Err(format!("expected {other:?}, got scalar {v}")),
        },
        AnswerValue::String(s) => Err(format!("expected series, got string {s:?}")),
        AnswerValue::Vector(series) => check_vector(expect, series),
        AnswerValue::Matrix(series) => check_matrix(expect, time, series),
    }
}

fn check_vector(expect: &Expectation, series: &[(Labels, Cell)]) -> Result<(), String> {
    for (i, (labels, cell)) in series.iter().enumerate() {
        if series[..i].iter().any(|(l, _)| l == labels) {
            return Err(format!("series {labels} occurs twice"));
        }
        let position = expect.series.iter().position(|e| e.labels.as_ref() == Some(labels));
        let Some(position) = position else {
            return Err(format!("unexpected series {labels} {}", show(cell)));
        };
        if expect.ordered && position != i {
            return Err(format!("{labels} at position {i}, expected at {position}"));
        }
        let [expected] = &expect.series[position].values[..] else {
            return Err(format!("{labels}: a script must expect one value of an instant query"));
        };
        compare(expected, cell).map_err(|e| format!("{labels}: {e}"))?;
    }
    let missing = |e: &&ExpectedSeries| !series.iter().any(|(l, _)| e.labels.as_ref() == Some(l));
    match expect.series.iter().find(missing) {
        Some(e) => Err(format!("missing series {:?} {:?}", e.labels, e.values)),
        None => Ok(()),
    }
}

fn check_matrix(
    expect: &Expectation,
    time: EvalTime,
    series: &[(Labels, Vec<(i64, Cell)>)],
) -> Result<(), String> {
    let (from, step) = match (expect.range_vector, time) {
        (Some((from, _, step)), _) | (None, EvalTime::Range(from, _, step)) => (from, step),
        (None, EvalTime::Instant(_)) if series.is_empty() && expect.series.is_empty() => return Ok(()),
        (None, EvalTime::Instant(_)) => return Err("a matrix where a vector is expected".to_owned()),
    };
    for (i, (labels, points)) in series.iter().enumerate() {
        if series[..i].iter().any(|(l, _)| l == labels) {
            return Err(format!("series {labels} occurs twice"));
        }
        let expected = expect.series.iter().find(|e| e.labels.as_ref() == Some(labels));
        let Some(expected) = expected else { return Err(format!("unexpected series {labels} {points:?}")) };
        let wanted: Vec<(i64, &SequenceValue)> = expected
            .values
            .iter()
            .enumerate()
            .map(|(i, v)| (from + step * i as i64, v))
            .filter(|(_, v)| !matches!(v, SequenceValue::Omitted))
            .collect();
        if wanted.len() != points.len() {
            return Err(format!("{labels}: expected {} points, got {points:?}", wanted.len()));
        }
        for ((et, expected), (t, cell)) in wanted.iter().zip(points) {
            if et != t {
                return Err(format!("{labels}: a point at {t} ms, expected at {et} ms"));
            }
            compare(expected, cell).map_err(|e| format!("{labels} at {t} ms: {e}"))?;
        }
    }
    let missing = |e: &&ExpectedSeries| {
        let any = e.values.iter().any(|v| !matches!(v, SequenceValue::Omitted));
        any && !series.iter().any(|(l, _)| e.labels.as_ref() == Some(l))
    };
    match expect.series.iter().find(missing) {
        Some(e) => Err(format!("missing series {:?} {:?}", e.labels, e.values)),
        None => Ok(()),
    }
}

fn compare(expected: &SequenceValue, cell: &Cell) -> Result<(), String> {
    match (expected, cell) {
        (SequenceValue::Float(e), Cell::Float(v)) if almost_equal(*e, *v, EPSILON) => Ok(()),
        (SequenceValue::Histogram(e, hint_written), Cell::Histogram(h)) => {
            let mut expected = e.as_ref().clone();
            let mut actual = h.as_ref().clone();
            if !hint_written {
                expected.reset_hint = ResetHint::Unknown;
                actual.reset_hint = ResetHint::Unknown;
            }
            if expected.same_up_to(&actual, EPSILON) && expected.reset_hint == actual.reset_hint {
                Ok(())
            } else {
                Err(format!("expected {}, got {}", e.test_expression(), h.test_expression()))
            }
        }
        (SequenceValue::Histogram(e, _), _) => {
            Err(format!("expected {}, got {}", e.test_expression(), show(cell)))
        }
        (other, _) => Err(format!("expected {other:?}, got {}", show(cell))),
    }
}

fn show(cell: &Cell) -> String {
    match cell {
        Cell::Float(v) => format!("{v}"),
        Cell::Histogram(h) => h.test_expression(),
    }
}
