#![no_main]
//! PromQL's evaluator against a naive one: the bytes choose data, times and an expression, and both must give the same.

use libfuzzer_sys::fuzz_target;
use sextant_promql_eval::testing::fuzz_twin;

fuzz_target!(|data: &[u8]| {
    let _ = fuzz_twin(data);
});
