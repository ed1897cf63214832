#![no_main]
//! The protobuf format of scraped targets.

use libfuzzer_sys::fuzz_target;
use sextant_agent::exposition::fuzz::fuzz_protobuf;

fuzz_target!(|data: &[u8]| fuzz_protobuf(data));
