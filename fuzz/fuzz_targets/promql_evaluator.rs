#![no_main]
//! PromQL's evaluator: any expression over a few series of floats is an answer or an error, as an instant and as a range, and
//! takes no more than it is allowed to.

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use sextant_model::{Labels, SeriesBuf, stale_nan};
use sextant_promql::{ParserOptions, parse_expr_with};
use sextant_promql_eval::{EvalContext, EvalParams, evaluate, plan, testing::MemorySource};

const EXPRESSION_BYTES_MAX: usize = 300;
const SAMPLES_MAX: usize = 100_000;

/// Two metrics over three targets and five buckets: counters with resets, gaps, markers and not-a-number.
static SOURCE: LazyLock<MemorySource> = LazyLock::new(|| {
    let mut source = MemorySource::default();
    for i in 0..15u32 {
        let (name, target) = (if i % 2 == 0 { "m" } else { "n" }, (i % 3).to_string());
        let le = ["0.1", "1", "10", "+Inf", ""][i as usize / 3];
        let labels = Labels::from_pairs([("__name__", name), ("a", &target), ("le", le)]);
        let value = |n: u32| match (n * 7 + i) % 23 {
            0 => stale_nan(),
            1 => f64::NAN,
            2 => f64::INFINITY,
            k => f64::from(k * n % 101),
        };
        let t: Vec<i64> = (0..40).filter(|n| (n + i) % 11 != 0).map(|n| i64::from(n) * 15_000).collect();
        let v = (0..t.len() as u32).map(value).collect();
        source.add(labels.expect("labels"), SeriesBuf { t, v, ..SeriesBuf::default() });
    }
    source
});

fuzz_target!(|data: &[u8]| {
    if data.len() > EXPRESSION_BYTES_MAX {
        return;
    }
    let Ok(expr) = parse_expr_with(data, ParserOptions::default()) else { return };
    for mut params in [EvalParams::instant(300_000), EvalParams::range(0, 600_000, 60_000)] {
        params.max_samples = SAMPLES_MAX;
        params.max_steps = 1_000;
        let Ok(plan) = plan(&expr, &params) else { continue };
        let _ = evaluate(&plan, &*SOURCE, &EvalContext::new(params.max_samples));
    }
});
