#![no_main]
//! Series with their values in Prometheus' test language.

use libfuzzer_sys::fuzz_target;
use sextant_promql::{
    parse_load_line, parse_metric, parse_metric_selector, parse_series, parse_signed_duration,
};

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let _ = (parse_metric(text), parse_metric_selector(text), parse_signed_duration(text));
    // A few bytes repeat a value up to a bound that the parser sets.
    let _ = (parse_series(text), parse_load_line(text));
});
