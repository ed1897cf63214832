//! A twin of the evaluator that is obviously right, over most of the language: random data and queries must have the
//! same answer from both.

mod generate;
mod naive;
mod windows;

use std::collections::BTreeMap;

use sextant_model::{Histogram, Labels};
use sextant_promql::{Expr, parse_expr};

use self::{
    generate::Choices,
    naive::{Env, Naive, Sample, Series, Stop, V, final_labels},
};
use super::MemorySource;
use crate::{
    Cell, EvalContext, EvalParams, Select, SelectWhat, SeriesProvider, evaluate, plan, result::QueryResult,
};

type Answer = BTreeMap<Labels, BTreeMap<i64, V>>;

/// What became of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Both gave the same answer, with so many points.
    Same(usize),
    /// Both gave an error.
    Error,
    /// The twin does not say.
    Unsure,
}

/// Makes data and a query of arbitrary bytes and compares the evaluator's answer with the twin's.
///
/// # Panics
///
/// Where they differ: it is for fuzz targets and tests.
pub fn fuzz_twin(data: &[u8]) -> Verdict {
    let mut c = Choices::new(data);
    let start = c.below(250) as i64 * 4321;
    let step = c.one(&[15_000i64, 60_000, 1, 301_000]);
    let count = c.one(&[1i64, 2, 5, 20, 65]);
    let source = generate::data(&mut c);
    let query = generate::query(&mut c);
    // Some of what the generator writes has wrong types or labels.
    let Ok(expr) = parse_expr(&query) else { return Verdict::Unsure };
    let params = EvalParams::range(start, start + step * (count - 1), step);
    let steps: Vec<i64> = (0..count).map(|i| start + step * i).collect();
    let expected = naive_range(&expr, &steps, &series_of(&source), params.lookback_ms);
    let actual = columnar(&expr, &params, &source);
    match (expected, actual) {
        (Err(Stop::Unsure(_)), _) => Verdict::Unsure,
        (Err(Stop::Error), Err(_)) => Verdict::Error,
        (Ok(e), Ok(a)) => {
            let difference = difference(&e, &a);
            assert!(
                difference.is_none(),
                "{query}\n from {start} every {step}, {count} steps: {difference:?}"
            );
            Verdict::Same(e.values().map(BTreeMap::len).sum())
        }
        // A subquery's whole grid is computed, also where no window looks.
        (Ok(_), Err(_)) if query.contains(':') => Verdict::Unsure,
        (e, a) => {
            let (e, a) = (e.map(|_| "an answer"), a.map(|_| "an answer"));
            assert!(e.is_ok() == a.is_ok(), "{query}\n at {start}: twin {e:?}, columns {a:?}");
            Verdict::Error
        }
    }
}

fn series_of(source: &MemorySource) -> Vec<Series> {
    let all = Select {
        id: 0,
        matchers: [].into(),
        start_ms: i64::MIN,
        end_ms: i64::MAX,
        step_ms: 0,
        range_ms: 0,
        function: "",
        what: SelectWhat::Samples,
    };
    let Ok(set) = source.select(&all) else { return Vec::new() };
    (0..set.len())
        .map(|i| {
            let (t, v) = set.floats(i);
            let mut samples: Vec<Sample> = t.iter().zip(v).map(|(&t, &v)| Sample { t, v: V::F(v) }).collect();
            samples.extend(set.histograms(i).iter().map(|h| Sample { t: h.t, v: V::H(h.h.clone()) }));
            samples.sort_by_key(|s| s.t);
            Series { labels: set.labels[i].clone(), samples }
        })
        .collect()
}

/// The whole range query, names removed, by labels and time.
fn naive_range(expr: &Expr, steps: &[i64], data: &[Series], lookback: i64) -> Result<Answer, Stop> {
    let (start, end) = (steps[0], steps[steps.len() - 1]);
    let env = Env { data, start, end, lookback };
    // The mark of a series at one step holds for the series: Prometheus keeps one per series.
    let mut dropped: BTreeMap<Labels, bool> = BTreeMap::new();
    let mut by_step = Vec::new();
    for &t in steps {
        let elements = match env.eval(expr, t)? {
            Naive::Scalar(v) => vec![(Labels::empty(), false, V::F(v))],
            Naive::Vector(v) => v,
        };
        for (labels, drop, _) in &elements {
            *dropped.entry(labels.clone()).or_default() |= drop;
        }
        by_step.push((t, elements));
    }
    let mut out = Answer::new();
    for (t, elements) in by_step {
        for (labels, _, v) in elements {
            let labels = final_labels(&labels, dropped.get(&labels).copied().unwrap_or(false));
            if out.entry(labels).or_default().insert(t, v).is_some() {
                return Err(Stop::Error);
            }
        }
    }
    Ok(out)
}

fn columnar(expr: &Expr, params: &EvalParams, source: &MemorySource) -> Result<Answer, String> {
    let plan = plan(expr, params).map_err(|e| e.to_string())?;
    let ctx = EvalContext::new(params.max_samples);
    let result: QueryResult = evaluate(&plan, source, &ctx).map_err(|e| e.to_string())?;
    let value = |cell: Cell| match cell {
        Cell::Float(v) => V::F(v),
        Cell::Histogram(h) => V::H(h.as_ref().clone()),
    };
    let series = result.series().into_iter();
    Ok(series.map(|s| (s.labels, s.points.into_iter().map(|(t, c)| (t, value(c))).collect())).collect())
}

fn difference(expected: &Answer, actual: &Answer) -> Option<String> {
    if !expected.keys().eq(actual.keys()) {
        let (e, a): (Vec<_>, Vec<_>) = (expected.keys().collect(), actual.keys().collect());
        return Some(format!("series: twin {e:?}, columns {a:?}"));
    }
    for ((labels, e), a) in expected.iter().zip(actual.values()) {
        if !e.keys().eq(a.keys()) {
            return Some(format!("{labels}: twin at {:?}, columns at {:?}", e.keys(), a.keys()));
        }
        for ((t, e), a) in e.iter().zip(a.values()) {
            let same = match (e, a) {
                (V::F(e), V::F(a)) => is_close(*e, *a),
                (V::H(e), V::H(a)) => same_histogram(e, a),
                _ => false,
            };
            if !same {
                return Some(format!("{labels} at {t}: twin {e:?}, columns {a:?}"));
            }
        }
    }
    None
}

fn is_close(a: f64, b: f64) -> bool {
    a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= 1e-6 * a.abs().max(b.abs()).max(1e-2)
}

/// The same observations, whatever the spans.
fn same_histogram(a: &Histogram, b: &Histogram) -> bool {
    let buckets = |h: &Histogram| -> Vec<(f64, f64)> {
        h.all_buckets().filter(|b| b.count.abs() > 1e-6).map(|b| (b.upper, b.count)).collect()
    };
    let (x, y) = (buckets(a), buckets(b));
    is_close(a.count, b.count)
        && is_close(a.sum, b.sum)
        && is_close(a.zero_count, b.zero_count)
        && x.len() == y.len()
        && x.iter().zip(&y).all(|(x, y)| x.0 == y.0 && is_close(x.1, y.1))
}
