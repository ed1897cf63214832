//! Prometheus' engine tests as data: `@`, subqueries, look-back, exact timestamps, hints, annotations.

use std::fs;

use serde_json::Value;
use sextant_model::{Labels, SeriesBuf};
use sextant_promql::parse_expr;
use sextant_promql_eval::{
    Cell, EvalContext, EvalError, EvalParams, QueryResult, evaluate, plan,
    testing::{Command, Memory, MemorySource, parse_script, run_script},
};

use crate::scripts::conformance;

fn cases(suite: &str) -> Vec<Value> {
    let Some(root) = conformance() else {
        println!("skipped: no conformance data");
        return Vec::new();
    };
    let text = fs::read_to_string(root.join("promql-engine").join(format!("{suite}.json"))).unwrap();
    let mut suite: Value = serde_json::from_str(&text).unwrap();
    suite["cases"].as_array_mut().map(std::mem::take).unwrap_or_default()
}

fn load(script: &str) -> MemorySource {
    let mut source = MemorySource::default();
    for command in parse_script(script).unwrap() {
        if let Command::Load(load) = command {
            load.series.into_iter().for_each(|(labels, samples)| source.add(labels, samples));
        }
    }
    source
}

fn ms(v: &Value) -> i64 {
    (v.as_f64().unwrap() * 1000.0).round() as i64
}

/// Runs every case; the failures are put together, so that one run shows them all.
fn each(suite: &str, check: impl Fn(&Value) -> Result<(), String>) {
    let cases = cases(suite);
    let failures: Vec<String> =
        cases.iter().filter_map(|c| check(c).err().map(|e| format!("{}: {e}", c["id"]))).collect();
    println!("{suite}: {} of {}", cases.len() - failures.len(), cases.len());
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

fn run(
    query: &str,
    params: &EvalParams,
    source: &MemorySource,
) -> Result<(QueryResult, EvalContext), String> {
    let expr = parse_expr(query).map_err(|e| e.to_string())?;
    let plan = plan(&expr, params).map_err(|e| e.to_string())?;
    let ctx = EvalContext::new(params.max_samples).with_step_counts(plan.steps);
    let result = evaluate(&plan, source, &ctx).map_err(|e| e.to_string())?;
    Ok((result, ctx))
}

/// A result in the suites' form, series in order of their text.
fn shape(result: &QueryResult) -> Value {
    let mut series: Vec<Value> = Vec::new();
    if let QueryResult::Scalar { t_ms, v } = result {
        return serde_json::json!({"T": t_ms, "V": v});
    }
    for s in result.series() {
        let metric: serde_json::Map<String, Value> =
            s.labels.iter().map(|(n, v)| (n.to_owned(), Value::from(v))).collect();
        let points: Vec<(i64, f64)> = s
            .points
            .iter()
            .map(|(t, cell)| match cell {
                Cell::Float(v) => (*t, *v),
                Cell::Histogram(h) => (*t, h.count),
            })
            .collect();
        series.push(match (result, &points[..]) {
            (QueryResult::Vector(_), [(t, v)]) => serde_json::json!({"F": v, "T": t, "Metric": metric}),
            _ => {
                let floats: Vec<Value> =
                    points.iter().map(|(t, v)| serde_json::json!({"F": v, "T": t})).collect();
                serde_json::json!({"Floats": floats, "Metric": metric})
            }
        });
    }
    Value::from(series)
}

/// Numbers compare as numbers: a suite writes `1`, we write `1.0`.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => {
            let (a, b) = (a.as_f64().unwrap(), b.as_f64().unwrap());
            (a - b).abs() <= 1e-9 * a.abs().max(b.abs())
        }
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().all(|x| b.iter().any(|y| same(x, y)))
        }
        (Value::Object(a), Value::Object(b)) => {
            // `DropName` is how a result came about, not a part of it.
            let keys = |o: &serde_json::Map<String, Value>| o.keys().filter(|k| *k != "DropName").count();
            keys(a) == keys(b)
                && a.iter().all(|(k, v)| k == "DropName" || b.get(k).is_some_and(|w| same(v, w)))
        }
        (Value::Null, Value::Array(b)) => b.is_empty(),
        _ => a == b,
    }
}

fn expect(expected: &Value, result: &QueryResult) -> Result<(), String> {
    let actual = shape(result);
    if same(expected, &actual) { Ok(()) } else { Err(format!("expected {expected}, got {actual}")) }
}

#[test]
fn at_modifier() {
    each("at_modifier", |c| {
        let start = ms(&c["start"]);
        let params = match (c["end"].as_f64(), c["interval"].as_f64()) {
            (Some(_), Some(_)) => EvalParams::range(start, ms(&c["end"]), ms(&c["interval"])),
            _ => EvalParams::instant(start),
        };
        let mut source = load(c["load"].as_str().unwrap());
        // The script language has no negative times: the suite's source adds these two by hand.
        let named = |name: &str| Labels::from_pairs([("__name__", name)]).unwrap();
        let (t, v) = (0..=1000).rev().map(|k| (-1000 * k, (k + 1) as f64)).unzip();
        source.add(named("metric_neg"), SeriesBuf { t, v, ..SeriesBuf::default() });
        let (t, v) = (vec![3_600_000], vec![1.0]);
        source.add(named("metric_timestamp"), SeriesBuf { t, v, ..SeriesBuf::default() });
        expect(&c["result"], &run(c["query"].as_str().unwrap(), &params, &source)?.0)
    });
}

#[test]
fn subqueries() {
    each("subquery", |c| {
        let source = load(c["load"].as_str().unwrap());
        let params = EvalParams::instant(ms(&c["at_seconds"]));
        expect(&c["expected"]["value"], &run(c["query"].as_str().unwrap(), &params, &source)?.0)
    });
}

#[test]
fn extended_range_selectors() {
    each("extended_range_selectors", |c| {
        let source = load(c["load"].as_str().unwrap());
        expect(
            &c["expected"],
            &run(c["query"].as_str().unwrap(), &EvalParams::instant(ms(&c["t"])), &source)?.0,
        )
    });
}

#[test]
fn statement_timestamps() {
    each("statement_timestamps", |c| {
        let source = load(c["load"].as_str().unwrap());
        let params = if c["Interval"].is_null() {
            EvalParams::instant(ms(&c["Start"]))
        } else {
            EvalParams::range(ms(&c["Start"]), ms(&c["End"]), ms(&c["Interval"]))
        };
        expect(&c["Result"], &run(c["Query"].as_str().unwrap(), &params, &source)?.0)
    });
}

#[test]
fn lookback() {
    each("lookback_delta", |c| {
        let source = load("load 5m\n  metric 0 1 2\n");
        let mut params = EvalParams::instant(ms(&c["ts"]));
        let given = [&c["queryLookback"], &c["engineLookback"]]
            .into_iter()
            .filter_map(Value::as_i64)
            .find(|ns| *ns > 0);
        params.lookback_ms = given.map_or(params.lookback_ms, |ns| ns / 1_000_000);
        let (result, _) = run("metric", &params, &source)?;
        let found = !result.series().is_empty();
        if Some(found) == c["expectSamples"].as_bool() { Ok(()) } else { Err(format!("found: {found}")) }
    });
}

#[test]
fn rate_annotations() {
    each("rate_annotations", |c| {
        // A line of the data may name a series without a sample.
        let lines = c["data"].as_str().unwrap().lines().map(str::trim).filter(|l| l.contains(' '));
        let source = load(&format!("load 1m\n{}", lines.collect::<Vec<_>>().join("\n")));
        let mut params = EvalParams::instant(60_000);
        params.type_and_unit_labels = c["typeAndUnitLabelsEnabled"].as_bool().unwrap_or(false);
        let query = c["expr"].as_str().unwrap();
        let (_, ctx) = run(query, &params, &source)?;
        let (warnings, infos) = (ctx.annotations.warnings(query), ctx.annotations.infos(query));
        let list = |v: &Value| -> Vec<String> {
            v.as_array().unwrap().iter().map(|v| v.as_str().unwrap().to_owned()).collect()
        };
        if warnings != list(&c["expectedWarningAnnotations"]) || infos != list(&c["expectedInfoAnnotations"])
        {
            return Err(format!("got {warnings:?} {infos:?}, expected {c}"));
        }
        Ok(())
    });
}

#[test]
fn selector_ranges() {
    each("select_hints", |c| {
        let (start, end) = (c["start"].as_i64().unwrap_or(0), c["end"].as_i64().unwrap_or(0));
        let mut params =
            if end > 0 { EvalParams::range(start, end, 1000) } else { EvalParams::instant(start) };
        params.lookback_ms = 5000;
        let expr = parse_expr(c["query"].as_str().unwrap()).map_err(|e| e.to_string())?;
        let plan = plan(&expr, &params).map_err(|e| e.to_string())?;
        let actual: Vec<(i64, i64, i64, i64, &str)> = plan
            .selector_ranges
            .iter()
            .map(|r| (r.start_ms, r.end_ms, r.step_ms, r.range_ms, r.function))
            .collect();
        let get = |e: &Value, k: &str| e[k].as_i64().unwrap_or(0);
        let expected: Vec<(i64, i64, i64, i64, String)> = c["expected"]
            .as_array()
            .unwrap()
            .iter()
            .map(|e| {
                let function = e["Func"].as_str().unwrap_or("").to_owned();
                (get(e, "Start"), get(e, "End"), get(e, "Step"), get(e, "Range"), function)
            })
            .collect();
        let equal = actual.len() == expected.len()
            && actual
                .iter()
                .zip(&expected)
                .all(|(a, e)| (a.0, a.1, a.2, a.3) == (e.0, e.1, e.2, e.3) && a.4 == e.4);
        if equal { Ok(()) } else { Err(format!("got {actual:?}, expected {expected:?}")) }
    });
}

#[test]
fn sample_limit() {
    each("max_query_samples", |c| {
        let source = load(c["load"].as_str().unwrap());
        let mut params = if c["Interval"].is_null() {
            EvalParams::instant(ms(&c["Start"]))
        } else {
            EvalParams::range(ms(&c["Start"]), ms(&c["End"]), ms(&c["Interval"]))
        };
        let limit = c["MaxSamples"].as_u64().unwrap() as usize;
        let query = c["Query"].as_str().unwrap();
        let mut works = |max_samples: usize| {
            params.max_samples = max_samples;
            run(query, &params, &source).is_ok()
        };
        let least = (1..500).find(|&n| works(n));
        if least == Some(limit) {
            Ok(())
        } else {
            Err(format!("{query} needs {least:?}, Prometheus {limit}"))
        }
    });
}

#[test]
fn statistics() {
    each("query_statistics", |c| {
        let source = load(c["load"].as_str().unwrap());
        let params = if c["Interval"].is_null() {
            EvalParams::instant(ms(&c["Start"]))
        } else {
            EvalParams::range(ms(&c["Start"]), ms(&c["End"]), ms(&c["Interval"]))
        };
        let (_, ctx) = run(c["Query"].as_str().unwrap(), &params, &source)?;
        let (touched, peak) = (ctx.touched_samples() as u64, ctx.peak_samples() as u64);
        let by_step = |counts: Vec<u64>| -> Value {
            let steps = params.steps();
            (0..)
                .zip(counts)
                .map(|(i, n)| (steps.at(i).to_string(), Value::from(n)))
                .collect::<serde_json::Map<_, _>>()
                .into()
        };
        let read = ctx.read_samples_per_step();
        let counted = [
            ("TotalSamples", touched.into()),
            ("SamplesRead", read.iter().sum::<u64>().into()),
            ("TotalSamplesPerStep", by_step(ctx.touched_samples_per_step())),
            ("SamplesReadPerStep", by_step(read)),
            ("PeakSamples", peak.into()),
        ];
        for (what, n) in counted {
            // A literal holds nothing; the suite skips the peak there.
            if !c[what].is_null() && c[what] != n {
                return Err(format!("{} {what} {n}, Prometheus {}", c["Query"], c[what]));
            }
        }
        Ok(())
    });
}

/// The runner itself: it must fail where the suite says so, and pass where it does not.
#[test]
fn runner_cases() {
    let Some(root) = conformance() else {
        println!("skipped: no conformance data");
        return;
    };
    let text = fs::read_to_string(root.join("promql-test-runner/runner_cases.json")).unwrap();
    let suite: Value = serde_json::from_str(&text).unwrap();
    let mut failures = Vec::new();
    for c in suite["cases"].as_array().unwrap() {
        let must_fail = c["expected_error"].as_str().is_some_and(|e| !e.is_empty());
        let result =
            parse_script(c["script"].as_str().unwrap()).map_err(|e| e.to_string()).and_then(|commands| {
                let report = run_script(&commands, &mut Memory::default())?;
                let failure = report.failures().next().map(|o| o.failure.clone().unwrap_or_default());
                failure.map_or(Ok(()), Err)
            });
        if must_fail != result.is_err() {
            failures.push(format!("{}: expected {}, got {result:?}", c["id"], c["expected_error"]));
        }
    }
    println!("runner_cases: {} failures", failures.len());
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Times at the ends of what fits give an answer or an error, never a panic.
#[test]
fn extreme_times() {
    let source = load("load 1m\n  m 1 2 3");
    for query in [
        "m @ 9223372036854775",
        "m @ -9223372036854775 offset 292y",
        "rate(m[292y] @ -9223372036854775 offset 292y)",
        "m smoothed @ 9223372036854775 offset -292y",
        "rate(m[1y] smoothed @ 9223372036854775 offset -292y)",
        "sum_over_time(m[10ms:1ms] @ 9223372036854775 offset -292y)",
        "m[1y] anchored @ -9223372036854775 offset 292y",
        "info(m @ 9223372036854775 offset -292y)",
    ] {
        for at in [i64::MIN, -1, i64::MAX] {
            let _ = run(query, &EvalParams::instant(at), &source);
            let _ = run(query, &EvalParams::range(at.saturating_sub(60_000), at, 60_000), &source);
        }
    }
}

/// Every expression of the parser's and the compliance suites is evaluated: no panic, no operators that do not fit.
#[test]
fn every_valid_expression_evaluates() {
    let Some(root) = conformance() else {
        println!("skipped: no conformance data");
        return;
    };
    let source = load(
        "load 15s\n  foo{bar=\"a\", le=\"1\"} 0+1x40\n  foo{bar=\"b\", le=\"+Inf\"} 0+2x40\n  some_metric{foo=\"bar\"} 1 stale 2x30\n  \
         bar{bar=\"a\"} {{schema:1 count:5 sum:20 buckets:[1 2 1 1]}}x30\n  demo_memory_usage_bytes{instance=\"a\", type=\"free\"} 1+1x40\n  \
         demo_cpu_usage_seconds_total{instance=\"a\", mode=\"idle\"} 1+1x40\n  demo_num_cpus{instance=\"a\"} 4x40",
    );
    let mut evaluated = 0;
    for (file, key) in
        [("promql-parser/expressions.json", "input"), ("promql-compliance/queries.json", "queries")]
    {
        let suite: Value = serde_json::from_str(&fs::read_to_string(root.join(file)).unwrap()).unwrap();
        let cases = suite["cases"].as_array().unwrap();
        let texts = cases.iter().flat_map(|c| match &c[key] {
            Value::Array(all) => all.iter().filter_map(Value::as_str).collect(),
            one => one.as_str().into_iter().collect::<Vec<_>>(),
        });
        for text in texts {
            let Ok(expr) = parse_expr(text) else { continue };
            for params in [EvalParams::instant(300_000), EvalParams::range(0, 600_000, 37_000)] {
                let result = plan(&expr, &params).and_then(|plan| {
                    assert!(!plan.describe().is_empty());
                    evaluate(&plan, &source, &EvalContext::new(params.max_samples))
                });
                assert!(!matches!(result, Err(EvalError::Internal(_))), "{text}: {result:?}");
                evaluated += 1;
            }
        }
    }
    println!("{evaluated} evaluations");
}

/// The text of EXPLAIN: one leaf for two selectors that overlap, invariant parts once.
#[test]
fn plans_as_text() {
    let expr = parse_expr("sum by (job) (rate(m[5m])) / on (job) (max(m offset 1m) + x @ 60)").unwrap();
    let plan = plan(&expr, &EvalParams::range(600_000, 1_200_000, 60_000)).unwrap();
    let expected = "\
VectorBinary / one-to-one on (job)
  Aggregate sum by (job)
    RangeFunction rate(m[5m])
      Select #0 m [240001, 1200000]
  VectorBinary + one-to-one
    Aggregate max
      InstantSelect m offset 60000ms lookback=300000ms
        Select #0 m [240001, 1200000]
    StepInvariant steps=11
      InstantSelect x @ 60000ms lookback=300000ms
        Select #1 x [-239999, 60000]
";
    assert_eq!(plan.describe(), expected);
    assert_eq!(plan.selects.len(), 2);
}
