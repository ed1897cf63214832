//! A twin of the evaluator that is obviously right: per step, per series, per sample, over a part of the language.

use std::collections::BTreeMap;

use proptest::prelude::*;
use sextant_model::{Labels, METRIC_NAME, SeriesBuf, stale_nan};
use sextant_promql::{AggregateOp, BinaryExpr, BinaryOp, Expr, VectorMatching, parse_expr};
use sextant_promql_eval::{Cell, EvalContext, EvalParams, evaluate, plan, testing::MemorySource};

const LOOKBACK: i64 = 300_000;

type Data = Vec<(Labels, Vec<(i64, f64)>)>;
/// Labels, whether the name goes, value.
type Element = (Labels, bool, f64);

enum Naive {
    Scalar(f64),
    Vector(Vec<Element>),
}

/// The value of an expression at one time; `Err` where Prometheus gives an error.
fn naive(expr: &Expr, t: i64, data: &Data) -> Result<Naive, ()> {
    Ok(match expr {
        Expr::Paren(p) => naive(&p.expr, t, data)?,
        Expr::NumberLiteral(n) => Naive::Scalar(n.val),
        Expr::VectorSelector(v) => {
            let at = t - v.offset_ms;
            let mut out = Vec::new();
            for (labels, samples) in matching(data, &v.matchers) {
                let newest = samples.iter().rfind(|(st, _)| *st <= at);
                if let Some((st, value)) = newest
                    && *st > at - LOOKBACK
                    && value.to_bits() != stale_nan().to_bits()
                {
                    out.push((labels.clone(), false, *value));
                }
            }
            Naive::Vector(out)
        }
        Expr::Call(call) => {
            let Expr::MatrixSelector(m) = &call.args[0] else { panic!("not in the twin's language") };
            let end = t - m.selector.offset_ms;
            let start = end - m.range_ms;
            let mut out = Vec::new();
            for (labels, samples) in matching(data, &m.selector.matchers) {
                let window: Vec<(i64, f64)> = samples
                    .iter()
                    .copied()
                    .filter(|(t, v)| *t > start && *t <= end && v.to_bits() != stale_nan().to_bits())
                    .collect();
                if let Some(v) = over_window(call.func.name, &window, start, end) {
                    out.push((labels.clone(), call.func.name != "last_over_time", v));
                }
            }
            Naive::Vector(out)
        }
        Expr::Aggregate(a) => {
            let Naive::Vector(input) = naive(&a.expr, t, data)? else { panic!("a scalar") };
            let mut groups: BTreeMap<Labels, (bool, Vec<f64>)> = BTreeMap::new();
            for (labels, drop, v) in input {
                let listed = |n: &str| a.grouping.iter().any(|g| g == n);
                let key =
                    labels.filter(|n| if a.without { !listed(n) && n != METRIC_NAME } else { listed(n) });
                let group = groups.entry(key).or_default();
                group.0 |= drop;
                group.1.push(v);
            }
            let value = |v: &[f64]| {
                let (n, sum) = (v.len() as f64, v.iter().sum::<f64>());
                match a.op {
                    AggregateOp::Sum => sum,
                    AggregateOp::Avg => sum / n,
                    AggregateOp::Count => n,
                    AggregateOp::Min => v.iter().copied().fold(f64::NAN, f64::min),
                    AggregateOp::Max => v.iter().copied().fold(f64::NAN, f64::max),
                    AggregateOp::Group => 1.0,
                    AggregateOp::Stddev => {
                        (v.iter().map(|x| (x - sum / n) * (x - sum / n)).sum::<f64>() / n).sqrt()
                    }
                    _ => panic!("not in the twin's language"),
                }
            };
            Naive::Vector(groups.into_iter().map(|(l, (drop, v))| (l, drop, value(&v))).collect())
        }
        Expr::Binary(b) => binary(b, naive(&b.lhs, t, data)?, naive(&b.rhs, t, data)?)?,
        _ => panic!("not in the twin's language"),
    })
}

fn matching<'a>(
    data: &'a Data,
    matchers: &'a [sextant_model::Matcher],
) -> impl Iterator<Item = &'a (Labels, Vec<(i64, f64)>)> {
    data.iter().filter(|(labels, _)| matchers.iter().all(|m| m.matches(labels.get(&m.name).unwrap_or(""))))
}

fn over_window(name: &str, w: &[(i64, f64)], start: i64, end: i64) -> Option<f64> {
    let values: Vec<f64> = w.iter().map(|(_, v)| *v).collect();
    let (first, last) = (*w.first()?, *w.last()?);
    let n = values.len() as f64;
    match name {
        "count_over_time" => return Some(n),
        "sum_over_time" => return Some(values.iter().sum()),
        "avg_over_time" => return Some(values.iter().sum::<f64>() / n),
        "min_over_time" => return values.into_iter().reduce(f64::min),
        "max_over_time" => return values.into_iter().reduce(f64::max),
        "last_over_time" => return Some(last.1),
        "resets" => return Some(values.windows(2).filter(|p| p[1] < p[0]).count() as f64),
        "changes" => return Some(values.windows(2).filter(|p| p[1] != p[0]).count() as f64),
        _ => {}
    }
    if w.len() < 2 {
        return None;
    }
    let counter = name != "delta";
    let mut increase = last.1 - first.1;
    if counter {
        increase += values.windows(2).filter(|p| p[1] < p[0]).map(|p| p[0]).sum::<f64>();
    }
    let seconds = |ms: i64| ms as f64 / 1000.0;
    let sampled = seconds(last.0 - first.0);
    let mean = sampled / (n - 1.0);
    let near = |d: f64| if d < mean * 1.1 { d } else { mean / 2.0 };
    let mut to_start = near(seconds(first.0 - start));
    if counter && increase > 0.0 && first.1 >= 0.0 {
        to_start = to_start.min(sampled * (first.1 / increase));
    }
    let extrapolated = increase * (sampled + to_start + near(seconds(end - last.0))) / sampled;
    Some(if name == "rate" { extrapolated / seconds(end - start) } else { extrapolated })
}

fn arithmetic(op: BinaryOp, a: f64, b: f64) -> f64 {
    match op {
        BinaryOp::Add => a + b,
        BinaryOp::Sub => a - b,
        BinaryOp::Mul => a * b,
        BinaryOp::Div => a / b,
        BinaryOp::Gt => f64::from(u8::from(a > b)),
        _ => panic!("not in the twin's language"),
    }
}

fn binary(b: &BinaryExpr, lhs: Naive, rhs: Naive) -> Result<Naive, ()> {
    let keep = |v: f64| b.op != BinaryOp::Gt || v != 0.0;
    let meaning = b.op != BinaryOp::Gt;
    Ok(match (lhs, rhs) {
        (Naive::Scalar(l), Naive::Scalar(r)) => Naive::Scalar(arithmetic(b.op, l, r)),
        (Naive::Vector(l), Naive::Scalar(r)) => Naive::Vector(
            l.into_iter()
                .filter(|(_, _, v)| keep(arithmetic(b.op, *v, r)))
                .map(|(l, d, v)| (l, d || meaning, if meaning { arithmetic(b.op, v, r) } else { v }))
                .collect(),
        ),
        (Naive::Scalar(l), Naive::Vector(r)) => Naive::Vector(
            r.into_iter()
                .filter(|(_, _, v)| keep(arithmetic(b.op, l, *v)))
                .map(|(labels, d, v)| {
                    (labels, d || meaning, if meaning { arithmetic(b.op, l, v) } else { v })
                })
                .collect(),
        ),
        (Naive::Vector(l), Naive::Vector(r)) => match_vectors(b, &l, &r)?,
    })
}

fn match_vectors(b: &BinaryExpr, lhs: &[Element], rhs: &[Element]) -> Result<Naive, ()> {
    let matching: VectorMatching = b.matching.clone().unwrap_or_default();
    let listed = |n: &str| matching.labels.iter().any(|l| l == n);
    let key = |l: &Labels| l.filter(|n| if matching.on { listed(n) } else { !listed(n) && n != METRIC_NAME });
    if lhs.is_empty() || rhs.is_empty() {
        return Ok(Naive::Vector(Vec::new()));
    }
    for (i, r) in rhs.iter().enumerate() {
        if rhs[..i].iter().any(|o| key(&o.0) == key(&r.0)) {
            return Err(());
        }
    }
    let meaning = b.op != BinaryOp::Gt;
    let mut out: Vec<Element> = Vec::new();
    let mut matched: Vec<Labels> = Vec::new();
    for l in lhs {
        let Some(r) = rhs.iter().find(|r| key(&r.0) == key(&l.0)) else { continue };
        if matched.contains(&key(&l.0)) {
            return Err(());
        }
        matched.push(key(&l.0));
        let v = arithmetic(b.op, l.2, r.2);
        if !meaning && v == 0.0 {
            continue;
        }
        let labels = l.0.filter(|n| !(meaning && n == METRIC_NAME) && listed(n) == matching.on);
        out.push((labels, l.1 && !meaning, if meaning { v } else { l.2 }));
    }
    Ok(Naive::Vector(out))
}

/// The whole range query, names removed, by labels and time.
fn naive_range(expr: &Expr, steps: &[i64], data: &Data) -> Result<BTreeMap<Labels, BTreeMap<i64, f64>>, ()> {
    let mut out: BTreeMap<Labels, BTreeMap<i64, f64>> = BTreeMap::new();
    // The mark of a series at one step holds for the series: Prometheus keeps one per series.
    let mut dropped: BTreeMap<Labels, bool> = BTreeMap::new();
    let mut by_step = Vec::new();
    for &t in steps {
        let elements = match naive(expr, t, data)? {
            Naive::Scalar(v) => vec![(Labels::empty(), false, v)],
            Naive::Vector(v) => v,
        };
        for (labels, drop, _) in &elements {
            *dropped.entry(labels.clone()).or_default() |= drop;
        }
        by_step.push((t, elements));
    }
    for (t, elements) in by_step {
        for (labels, _, v) in elements {
            let labels = if dropped[&labels] { labels.filter(|n| n != METRIC_NAME) } else { labels };
            if out.entry(labels).or_default().insert(t, v).is_some() {
                return Err(());
            }
        }
    }
    Ok(out)
}

fn columnar(
    expr: &Expr,
    params: &EvalParams,
    data: &Data,
) -> Result<BTreeMap<Labels, BTreeMap<i64, f64>>, String> {
    let mut source = MemorySource::default();
    for (labels, samples) in data {
        let (t, v) = samples.iter().copied().unzip();
        source.add(labels.clone(), SeriesBuf { t, v, ..SeriesBuf::default() });
    }
    let plan = plan(expr, params).map_err(|e| e.to_string())?;
    let result =
        evaluate(&plan, &source, &EvalContext::new(params.max_samples)).map_err(|e| e.to_string())?;
    let float = |cell: Cell| match cell {
        Cell::Float(v) => v,
        Cell::Histogram(_) => f64::NAN,
    };
    Ok(result
        .series()
        .into_iter()
        .map(|s| (s.labels, s.points.into_iter().map(|(t, c)| (t, float(c))).collect()))
        .collect())
}

/// Series of two metrics over two labels, with gaps, resets and staleness markers.
fn data() -> impl Strategy<Value = Data> {
    let value = prop_oneof![
        6 => (0..100i32).prop_map(f64::from),
        1 => Just(stale_nan()),
        1 => (-1000..1000i32).prop_map(|v| f64::from(v) / 8.0),
    ];
    let samples = prop::collection::vec((1..40_000i64, value), 0..60).prop_map(|gaps| {
        let mut t = 0;
        gaps.into_iter()
            .map(|(gap, v)| {
                t += gap;
                (t, v)
            })
            .collect::<Vec<_>>()
    });
    let labels = (prop::sample::select(vec!["m", "n"]), 0..3u8, 0..2u8).prop_map(|(name, a, b)| {
        let (a, b) = (a.to_string(), if b == 0 { String::new() } else { b.to_string() });
        Labels::from_pairs([(METRIC_NAME, name), ("a", a.as_str()), ("b", b.as_str())]).unwrap()
    });
    prop::collection::btree_map(labels, samples, 0..8).prop_map(|m| m.into_iter().collect())
}

fn expression() -> impl Strategy<Value = String> {
    let selector = prop::sample::select(vec!["m", "n", "{a=~\"0|1\"}", "m{b!=\"\"}"]);
    let offset = prop::sample::select(vec!["", " offset 30s", " offset -1m"]);
    let instant = (selector.clone(), offset.clone()).prop_map(|(s, o)| format!("{s}{o}"));
    let function = prop::sample::select(vec![
        "rate",
        "increase",
        "delta",
        "avg_over_time",
        "sum_over_time",
        "min_over_time",
        "max_over_time",
        "count_over_time",
        "last_over_time",
        "resets",
        "changes",
    ]);
    let range = prop::sample::select(vec!["30s", "1m", "5m"]);
    let ranged = (function, selector, range, offset).prop_map(|(f, s, r, o)| format!("{f}({s}[{r}]{o})"));
    let leaf = prop_oneof![2 => instant, 3 => ranged];
    leaf.prop_recursive(3, 12, 2, |inner| {
        let aggregation = prop::sample::select(vec!["sum", "avg", "count", "min", "max", "group", "stddev"]);
        let by = prop::sample::select(vec!["", " by (a)", " by (a, b)", " without (a)", " by (__name__)"]);
        let op = prop::sample::select(vec!["+", "-", "*", "/", ">"]);
        let on = prop::sample::select(vec!["", " on (a)", " on (a, b)", " ignoring (b)"]);
        prop_oneof![
            (aggregation, by, inner.clone()).prop_map(|(f, by, e)| format!("{f}{by} ({e})")),
            (inner.clone(), op.clone(), on, inner.clone())
                .prop_map(|(l, op, on, r)| format!("({l}) {op}{on} ({r})")),
            (inner.clone(), op.clone()).prop_map(|(e, op)| format!("({e}) {op} 2.5")),
            (inner, op).prop_map(|(e, op)| format!("7 {op} ({e})")),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn columns_give_what_the_twin_gives(
        data in data(),
        query in expression(),
        start in 0..600_000i64,
        step in prop::sample::select(vec![1i64, 15_000, 60_000, 301_000]),
        count in prop::sample::select(vec![1i64, 2, 63, 64, 65, 130]),
    ) {
        let expr = parse_expr(&query).unwrap();
        let end = start + step * (count - 1);
        let params = EvalParams::range(start, end, step);
        let steps: Vec<i64> = (0..count).map(|i| start + step * i).collect();
        let expected = naive_range(&expr, &steps, &data);
        let actual = columnar(&expr, &params, &data);
        match (&expected, &actual) {
            (Err(()), Err(_)) => {}
            (Ok(e), Ok(a)) => {
                prop_assert_eq!(e.keys().collect::<Vec<_>>(), a.keys().collect::<Vec<_>>(), "{}", query);
                for (labels, points) in e {
                    for ((et, ev), (at, av)) in points.iter().zip(&a[labels]) {
                        prop_assert_eq!(et, at, "{} {}", &query, labels);
                        let close = (ev - av).abs() <= 1e-9 * ev.abs().max(av.abs()).max(1e-3)
                            || ev == av || (ev.is_nan() && av.is_nan());
                        prop_assert!(close, "{} {} at {}: twin {} columns {}", &query, labels, et, ev, av);
                    }
                    prop_assert_eq!(points.len(), a[labels].len(), "{} {}", &query, labels);
                }
            }
            _ => prop_assert!(false, "{}: twin {:?}, columns {:?}", query, expected, actual),
        }
    }
}
