//! How long the kernels take: `cargo run --release --example eval_bench`.
//!
//! 10,000 series of 240 samples, 239 steps: one hour scraped every 15 s. Timestamps are either shared by the series of
//! a target, as scraping makes them, or differ in every series.

use std::{sync::Mutex, time::Instant};

use sextant_model::{Labels, SeriesBuf, SeriesSet};
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
            "max by (job) (max_over_time(requests_total[5m]))",
            "sum(avg_over_time(requests_total[5m]))",
            "sum(avg_over_time(requests_total[50m]))",
            "sum(quantile_over_time(0.9, requests_total[5m]))",
            "rate(requests_total[5m]) / rate(requests_total[1m])",
            "topk(5, rate(requests_total[5m]))",
            "quantile by (job) (0.9, requests_total)",
        ] {
            let plan = plan(&parse_expr(query).expect("parse"), &params).expect("plan");
            let mut best = f64::INFINITY;
            for _ in 0..7 {
                let source = Prepared(Mutex::new(vec![data.clone(); plan.selects.len()]));
                let ctx = EvalContext::new(params.max_samples);
                let start = Instant::now();
                let result = evaluate(&plan, &source, &ctx).expect("evaluate");
                best = best.min(start.elapsed().as_secs_f64());
                std::hint::black_box(result);
            }
            let per_sample = best * 1e9 / (SERIES * SAMPLES) as f64;
            println!("  {query:52} {:7.1} ms  {per_sample:6.2} ns/sample", best * 1e3);
        }
    }
}
