#![no_main]
//! The limits file.

use libfuzzer_sys::fuzz_target;
use sextant_proto::fuzz::fuzz_limits;

fuzz_target!(|data: &[u8]| fuzz_limits(data));
