//! Queries made to hurt: bounded stack, bounded memory, an error that names the limit.

use std::thread;

use sextant_model::{Labels, SeriesBuf};
use sextant_promql::{MAX_DEPTH, parse_expr};
use sextant_promql_eval::{
    CancelFlag, EvalContext, EvalError, EvalParams, QueryResult, evaluate, plan, testing::MemorySource,
};

/// `series` series of `samples` samples, 15 s apart; `m_total` with a label `a`, and `h_bucket` with `le` too.
fn source(series: usize, samples: i64) -> MemorySource {
    let mut source = MemorySource::default();
    for i in 0..series {
        let (a, le) = (format!("a-{i}"), (i % 10).to_string());
        let (t, v) = (0..samples).map(|k| (k * 15_000, (k * 7 % 1000) as f64 + i as f64 / 7.0)).unzip();
        let buf = SeriesBuf { t, v, ..SeriesBuf::default() };
        let labels = |pairs: &[(&str, &str)]| Labels::from_pairs(pairs.iter().copied()).unwrap();
        source.add(labels(&[("__name__", "m_total"), ("a", &a), ("job", "j")]), buf.clone());
        source.add(labels(&[("__name__", "h_bucket"), ("a", &(i / 10).to_string()), ("le", &le)]), buf);
    }
    source
}

fn run(query: &str, params: &EvalParams, source: &MemorySource) -> Result<QueryResult, EvalError> {
    let expr = parse_expr(query).map_err(|e| EvalError::execution(e.to_string()))?;
    let plan = plan(&expr, params)?;
    evaluate(&plan, source, &EvalContext::new(params.max_samples))
}

fn is_limited(result: Result<QueryResult, EvalError>, what: &str) {
    match result {
        Err(e @ EvalError::Limit { .. }) if e.to_string().contains(what) => {}
        Err(e) => panic!("another error: {e}"),
        Ok(_) => panic!("an answer"),
    }
}

const TOO_MANY: &str = "query processing would load too many samples into memory in query execution";

/// The deepest text of each shape that the parser takes is planned, described, evaluated and dropped on a small stack.
#[test]
fn deep_expressions_need_little_stack() {
    const SHAPES: &[fn(usize) -> String] = &[
        |n| format!("{}m_total{}", "(".repeat(n), ")".repeat(n)),
        |n| format!("{}m_total", "- ".repeat(n)),
        |n| format!("{}m_total", "1 + ".repeat(n)),
        |n| format!("{}m_total", "2 ^ ".repeat(n)),
        |n| format!("{}m_total", "m_total or ".repeat(n)),
        |n| format!("{}m_total{}", "abs(".repeat(n), ")".repeat(n)),
        |n| format!("{}m_total{}", "sum by (a) (".repeat(n), ")".repeat(n)),
        |n| format!("{}m_total{}", "time() + (".repeat(n), ")".repeat(n)),
        |n| format!("{}m_total{}", "max_over_time(".repeat(n), "[1m:15s])".repeat(n)),
        |n| format!("{}m_total{}", "label_replace(".repeat(n), ", 'a', '$1', 'a', '(.*)')".repeat(n)),
    ];
    let test = || {
        let source = source(3, 20);
        for shape in SHAPES {
            let mut accepted = (1..=MAX_DEPTH).rev().filter_map(|n| parse_expr(&shape(n)).ok());
            let expr = accepted.next().expect("some depth is accepted");
            for mut params in [EvalParams::instant(100_000), EvalParams::range(60_000, 120_000, 15_000)] {
                params.max_samples = 10_000;
                match plan(&expr, &params) {
                    Ok(plan) => {
                        assert!(!plan.describe().is_empty());
                        let _ = evaluate(&plan, &source, &EvalContext::new(params.max_samples));
                    }
                    Err(EvalError::Limit { .. }) => {}
                    Err(e) => panic!("{e}"),
                }
            }
        }
    };
    thread::Builder::new().stack_size(512 << 10).spawn(test).unwrap().join().unwrap();
}

#[test]
fn steps_are_limited() {
    let source = source(1, 2);
    let year = 365 * 86_400_000;
    is_limited(
        run("{__name__=~\".+\"}", &EvalParams::range(0, year, 1000), &source),
        "exceeded maximum resolution of 11000 points",
    );
    // The inner grid of a subquery counts against the samples.
    let mut params = EvalParams::instant(2 * year);
    params.max_samples = 1_000_000;
    for query in [
        "max_over_time(m_total[1y:1s])",
        "max_over_time(vector(1)[1y:1s])",
        "max_over_time(max_over_time(m_total[1y:1m])[1y:1s])",
        "m_total[100y:1ms]",
    ] {
        is_limited(run(query, &params, &source), TOO_MANY);
    }
}

/// Blocks, groups and labels that an operator would make are counted before they are made.
#[test]
fn memory_is_limited_before_it_is_taken() {
    let source = source(200, 100);
    let mut params = EvalParams::range(0, 10_999 * 100, 100);
    params.max_samples = 20_000;
    for query in [
        "m_total",
        "rate(m_total[5m])",
        "sum by (a) (rate(m_total[5m]))",
        "sum(m_total)",
        "m_total @ 60",
        "count_values('v', m_total)",
        "label_replace(m_total, 'b', '$1', 'a', '(.*)')",
        "m_total / on (a) m_total",
        "m_total * on (job) group_left vector(2)",
        "histogram_quantile(0.9, h_bucket)",
        "histogram_quantiles(h_bucket @ 60, 'q', 0.1, 0.2, 0.3, 0.4, 0.5, 0.6)",
        "sort(m_total)",
        "topk(5, m_total)",
        "time() + (time() + (time() + m_total @ 60))",
        "info(m_total @ 60)",
    ] {
        is_limited(run(query, &params, &source), TOO_MANY);
    }
    // One series, a value of its own at each step: a row of steps for each.
    let mut one = MemorySource::default();
    let (t, v) = (0..10_000).map(|k| (k * 100, k as f64)).unzip();
    let labels = Labels::from_pairs([("__name__", "m_total")]).unwrap();
    one.add(labels, SeriesBuf { t, v, ..SeriesBuf::default() });
    is_limited(run("count_values('v', m_total)", &params, &one), TOO_MANY);
}

#[test]
fn labels_are_limited() {
    let source = source(200, 100);
    let mut params = EvalParams::instant(100_000);
    params.max_samples = 10_000;
    let (long, dollars) = ("x".repeat(1 << 20), "$1".repeat(1 << 20));
    for query in [
        format!("label_join(m_total, 'b', '{long}', 'a', 'job')"),
        format!("label_replace(m_total, 'b', '{long}', 'a', '.*')"),
        format!("label_replace(m_total, 'b', '{dollars}', 'a', '(.*)')"),
    ] {
        is_limited(run(&query, &params, &source), TOO_MANY);
    }
}

#[test]
fn regular_expressions_are_limited() {
    let source = source(10, 10);
    let params = EvalParams::instant(100_000);
    let huge = ["((a{1000}){1000}){1000}".to_owned(), "(a|b)?".repeat(100_000), "(".repeat(100_000)];
    for regex in &huge {
        assert!(parse_expr(&format!("m_total{{a=~\"{regex}\"}}")).is_err());
        let error = run(&format!("label_replace(m_total, 'b', '$1', 'a', '{regex}')"), &params, &source);
        assert!(error.unwrap_err().to_string().contains("invalid regular expression in label_replace()"));
    }
    // What makes other engines backtrack takes linear time.
    let text = "a".repeat(5000);
    let query = format!("label_replace(vector(1), 'b', '{text}!', '', '')");
    for regex in ["(a+)+$", "(a|aa)*$", "(.*)*x", "(a?){500}a{500}"] {
        let query = format!("label_replace({query}, 'c', '$1', 'b', '{regex}')");
        assert!(run(&query, &params, &source).is_ok());
    }
    let captures = "(.)".repeat(500);
    let groups: String = (1..=500).map(|i| format!("${{{i}}}")).collect();
    let query = format!("label_replace({query}, 'c', '{groups}', 'b', '{captures}.*')");
    assert_eq!(run(&query, &params, &source).unwrap().series()[0].labels.get("c").map(str::len), Some(500));
}

/// A flag that is raised at a look ends the query at that look: nothing runs on and looks again.
#[test]
fn a_query_ends_at_the_look_that_sees_the_flag() {
    let source = source(300, 200);
    for query in QUERIES {
        let expr = parse_expr(query).unwrap();
        let params = EvalParams::range(300_000, 2_900_000, 15_000);
        let plan = plan(&expr, &params).unwrap();
        let looks = |stop_at: usize| {
            let flag = CancelFlag::counting(stop_at);
            let ctx = EvalContext::new(params.max_samples).with_cancel(flag.clone());
            (evaluate(&plan, &source, &ctx), flag.looks())
        };
        let (result, all) = looks(usize::MAX);
        assert!(result.is_ok(), "{query}: {result:?}");
        assert!(all >= 300, "{query}: {all} looks for 300 series");
        for stop_at in [1, 2, 3, all / 3, all / 2, all - 1, all] {
            let (result, seen) = looks(stop_at);
            assert_eq!(result.err(), Some(EvalError::Cancelled), "{query} at {stop_at} of {all}");
            assert_eq!(seen, stop_at, "{query}");
        }
    }
}

const QUERIES: &[&str] = &[
    "m_total",
    "-m_total",
    "m_total @ 60",
    "rate(m_total[5m])",
    "quantile_over_time(0.9, m_total[5m])",
    "sum by (a) (rate(m_total[5m]))",
    "max_over_time(sum by (a) (m_total)[5m:15s])",
    "topk(5, m_total)",
    "quantile by (job) (0.9, m_total)",
    "count_values('v', floor(m_total / 500))",
    "label_replace(m_total, 'b', '$1', 'a', '(.*)')",
    "label_join(m_total, 'b', '-', 'a', 'job')",
    "m_total / m_total",
    "m_total and on (a) m_total",
    "m_total * on (job) group_left () sum by (job) (m_total)",
    "histogram_quantile(0.9, h_bucket)",
    "abs(m_total) > bool 3",
    "sort(m_total)",
    "scalar(m_total) + m_total",
    "absent(m_total)",
    "info(m_total)",
];

/// Work between two looks is bounded, however it is spread: one series or one group with very much to do is looked
/// into, not only passed by.
#[test]
fn long_series_and_large_groups_are_looked_into() {
    // About so many samples or cells may lie between two looks, each of which costs some nanoseconds.
    const BETWEEN: usize = 1 << 19;
    let one = |samples: i64| {
        let mut source = MemorySource::default();
        let (t, v) = (0..samples).map(|k| (k * 1000, (k % 100) as f64)).unzip();
        let labels = Labels::from_pairs([("__name__", "m_total")]).unwrap();
        source.add(labels, SeriesBuf { t, v, ..SeriesBuf::default() });
        source
    };
    let long = one(8_000);
    let wide = source(1500, 30);
    let hour = EvalParams::range(4_000_000, 7_996_000, 4_000);
    let minutes = EvalParams::range(60_000, 400_000, 500);
    // Query, data, and how many samples or cells it looks at.
    let cases: [(&str, &MemorySource, &EvalParams, usize); 9] = [
        ("quantile_over_time(0.5, m_total[4000s])", &long, &hour, 1000 * 4_000),
        ("stddev_over_time(m_total[4000s])", &long, &hour, 1000 * 4_000),
        ("deriv(m_total[4000s])", &long, &hour, 1000 * 4_000),
        ("mad_over_time(m_total[4000s])", &long, &hour, 1000 * 4_000),
        ("quantile(0.5, m_total)", &wide, &minutes, 1500 * 681),
        ("topk(3, m_total)", &wide, &minutes, 1500 * 681),
        ("histogram_quantile(0.5, h_bucket)", &wide, &minutes, 1500 * 681),
        ("m_total + m_total", &wide, &minutes, 1500 * 681),
        ("exp(m_total)", &wide, &minutes, 1500 * 681),
    ];
    for (query, source, params, work) in cases {
        let plan = plan(&parse_expr(query).unwrap(), params).unwrap();
        let flag = CancelFlag::counting(usize::MAX);
        let ctx = EvalContext::new(params.max_samples).with_cancel(flag.clone());
        evaluate(&plan, source, &ctx).unwrap();
        assert!(flag.looks() >= work / BETWEEN, "{query}: {} looks for {work} units", flag.looks());
    }
}
