#![no_main]
//! The bodies of OTLP over HTTP: gzip and zstd.

use libfuzzer_sys::fuzz_target;
use sextant_distributor::fuzz::fuzz_otlp_body;

fuzz_target!(|data: &[u8]| fuzz_otlp_body(data));
