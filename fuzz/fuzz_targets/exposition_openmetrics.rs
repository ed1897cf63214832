#![no_main]
//! OpenMetrics of scraped targets.

use libfuzzer_sys::fuzz_target;
use sextant_agent::exposition::fuzz::fuzz_openmetrics;

fuzz_target!(|data: &[u8]| fuzz_openmetrics(data));
