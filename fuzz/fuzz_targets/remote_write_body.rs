#![no_main]
//! Snappy, and remote write of both versions behind it.

use libfuzzer_sys::fuzz_target;
use sextant_distributor::fuzz::fuzz_body;

fuzz_target!(|data: &[u8]| fuzz_body(data));
