#![no_main]
//! A segment of the log, as recovery reads it.

use libfuzzer_sys::fuzz_target;
use sextant_replication::fuzz_decode_segment;

fuzz_target!(|data: &[u8]| fuzz_decode_segment(data));
