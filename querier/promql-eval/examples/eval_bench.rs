//! How long the kernels take: `cargo run --release --example eval_bench`.
//!
//! 10,000 series of 240 samples, 239 steps: one hour scraped every 15 s. Timestamps are either shared by the series of
//! a target, as scraping makes them, or differ in every series.

use std::{sync::Mutex, time::Instant};

use sextant_model::{Histogram, HistogramSample, Labels, SeriesBuf, SeriesSet, Span};
use sextant_promql::parse_expr;
use sextant_promql_eval::{EvalContext, EvalError, EvalParams, Select, SeriesProvider, evaluate, plan};

const SERIES: usize = 10_000;
const SAMPLES: usize = 240;
const EVERY_MS: i64 = 15_000;

/// Hands out copies that were made before the clock started.
struct Prepared(Mutex<Vec<SeriesSet>>);

impl SeriesProvider for Prepared {
    fn select(&self, _: &Select) -> Result<SeriesSet, EvalError> {
        let mut copies = self.0.lock().map_err(|_| EvalError::Source("poisoned".to_owned()))?;
        copies.pop().ok_or_else(|| EvalError::Source("no copy left".to_owned()))
    }
}

fn series(jitter: bool, resets: bool) -> SeriesSet {
    let mut set = SeriesSet::new();
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for i in 0..SERIES {
        let (instance, job) = (format!("10.0.{}.{}:9100", i / 250, i % 250), format!("job-{}", i % 20));
        let pairs =
            [("__name__", "requests_total"), ("instance", &*instance), ("job", &*job), ("code", "200")];
        let labels = Labels::from_pairs(pairs).expect("labels");
        let mut buf = SeriesBuf::default();
        let mut v = 0.0;
        for k in 0..SAMPLES {
            v += (random() % 1000) as f64;
            if resets && random() % 50 == 0 {
                v = 0.0;
            }
            let shift = if jitter { (random() % 500) as i64 } else { 0 };
            buf.t.push(k as i64 * EVERY_MS + shift);
            buf.v.push(v);
        }
        set.push(labels, &buf);
    }
    set
}

/// Histograms of eleven buckets: `SERIES` series in all.
fn buckets() -> SeriesSet {
    let mut set = SeriesSet::new();
    for i in 0..SERIES {
        let (le, instance) = ((i % 11).to_string(), (i / 11).to_string());
        let job = format!("job-{}", i / 11 % 20);
        let le = if i % 11 == 10 { "+Inf" } else { &le };
        let pairs = [("__name__", "b_bucket"), ("instance", &*instance), ("job", &*job), ("le", le)];
        let step = (i % 11 + 1) as f64;
        let mut buf = SeriesBuf::default();
        for k in 0..SAMPLES {
            buf.t.push(k as i64 * EVERY_MS);
            buf.v.push(k as f64 * step + (i / 11) as f64);
        }
        set.push(Labels::from_pairs(pairs).expect("labels"), &buf);
    }
    set
}

/// Native histograms of 46 buckets, of which the outer ones rarely grow: `SERIES / 10` series.
fn native() -> SeriesSet {
    let mut set = SeriesSet::new();
    for i in 0..SERIES / 10 {
        let (instance, job) = (i.to_string(), format!("job-{}", i % 20));
        let pairs = [("__name__", "h"), ("instance", &*instance), ("job", &*job)];
        let mut buf = SeriesBuf::default();
        for k in 0..SAMPLES {
            let count = |b: usize| if (8..38).contains(&b) { k * (b % 7 + 1) } else { (k + i) / (b + 20) };
            let positive_buckets: Vec<f64> = (0..46).map(|b| count(b) as f64).collect();
            let count = positive_buckets.iter().sum();
            let positive_spans = vec![Span { offset: -20, length: 40 }, Span { offset: 2, length: 6 }];
            let h = Histogram {
                schema: 3,
                count,
                sum: count,
                positive_spans,
                positive_buckets,
                ..Default::default()
            };
            buf.h.push(HistogramSample { t: k as i64 * EVERY_MS, start: 0, h });
        }
        set.append(Labels::from_pairs(pairs).expect("labels"), &mut buf);
    }
    set
}

/// Processor time of this process so far, seconds.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<f64> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .map(|f| f.parse().unwrap_or(0.0))
        .collect();
    // User and system time, in hundredths of a second.
    fields.get(11).unwrap_or(&0.0) / 100.0 + fields.get(12).unwrap_or(&0.0) / 100.0
}

fn measure(query: &str, params: &EvalParams, data: &SeriesSet) {
    const RUNS: usize = 7;
    let plan = plan(&parse_expr(query).expect("parse"), params).expect("plan");
    let mut times = Vec::new();
    let mut cpu = 0.0;
    for _ in 0..RUNS {
        let source = Prepared(Mutex::new(vec![data.clone(); plan.selects.len()]));
        let ctx = EvalContext::new(params.max_samples);
        let (start, cpu_start) = (Instant::now(), cpu_seconds());
        let result = evaluate(&plan, &source, &ctx).expect("evaluate");
        times.push(start.elapsed().as_secs_f64() * 1e3);
        std::hint::black_box(result);
        cpu += (cpu_seconds() - cpu_start) * 1e3 / RUNS as f64;
    }
    times.sort_by(f64::total_cmp);
    let (best, median) = (times[0], times[RUNS / 2]);
    println!("  {query:62} {best:7.1} ms best {median:7.1} ms median {cpu:7.1} ms cpu");
}

fn main() {
    let end = (SAMPLES as i64 - 1) * EVERY_MS;
    let params = EvalParams { max_samples: usize::MAX, ..EvalParams::range(EVERY_MS, end, EVERY_MS) };
    for (name, jitter, resets) in [
        ("shared timestamps", false, false),
        ("own timestamps", true, false),
        ("own timestamps, resets", true, true),
    ] {
        let data = series(jitter, resets);
        println!("{name}");
        for query in [
            "sum by (job) (rate(requests_total[5m]))",
            "rate(requests_total[5m])",
            "sum by (job) (requests_total)",
            "max by (job) (requests_total)",
            "max by (job) (max_over_time(requests_total[5m]))",
            "sum(avg_over_time(requests_total[5m]))",
            "sum(avg_over_time(requests_total[50m]))",
            "sum(quantile_over_time(0.9, requests_total[5m]))",
            "rate(requests_total[5m]) / rate(requests_total[1m])",
            "topk(5, rate(requests_total[5m]))",
            "quantile by (job) (0.9, requests_total)",
            "max_over_time(sum(rate(requests_total[5m]))[30m:1m])",
            "sum(deriv(requests_total[5m]))",
            "sum(stddev_over_time(requests_total[5m]))",
            "avg by (job) (requests_total)",
            "stddev by (job) (requests_total)",
        ] {
            measure(query, &params, &data);
        }
    }
    println!("classic histograms");
    measure("histogram_quantile(0.99, sum by (le, job) (rate(b_bucket[5m])))", &params, &buckets());
    measure("histogram_quantile(0.99, rate(b_bucket[5m]))", &params, &buckets());
    println!("native histograms, {} series", SERIES / 10);
    let histograms = native();
    measure("histogram_quantile(0.99, sum by (job) (rate(h[5m])))", &params, &histograms);
    measure("rate(h[5m])", &params, &histograms);
    println!("instant, 100,000 series");
    let mut many = SeriesSet::new();
    for i in 0..100_000 {
        let instance = i.to_string();
        let pairs = [("__name__", "up"), ("instance", &*instance), ("job", "j")];
        let buf = SeriesBuf { t: vec![end - 5000], v: vec![1.0], ..SeriesBuf::default() };
        many.push(Labels::from_pairs(pairs).expect("labels"), &buf);
    }
    let instant = EvalParams { max_samples: usize::MAX, ..EvalParams::instant(end) };
    for query in [
        "count(up)",
        "sum by (job) (up)",
        "topk(5, up)",
        "up == 0",
        "sort_desc(up)",
        "count by (instance) (up)",
    ] {
        measure(query, &instant, &many);
    }
}
