#![no_main]
//! The text format of scraped targets.

use libfuzzer_sys::fuzz_target;
use sextant_agent::exposition::fuzz::fuzz_text;

fuzz_target!(|data: &[u8]| fuzz_text(data));
