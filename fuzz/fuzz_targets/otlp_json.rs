#![no_main]
//! OTLP metrics as JSON, and their translation.

use libfuzzer_sys::fuzz_target;
use sextant_distributor::fuzz::fuzz_otlp;

fuzz_target!(|data: &[u8]| fuzz_otlp(data, true));
