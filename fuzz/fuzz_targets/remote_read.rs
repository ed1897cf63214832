#![no_main]
//! A remote read request, and the request encoded again.

use libfuzzer_sys::fuzz_target;
use sextant_proto::fuzz::fuzz_remote_read;

fuzz_target!(|data: &[u8]| fuzz_remote_read(data));
