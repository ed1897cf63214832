#![no_main]
//! A write batch, and the batch built again from it.

use libfuzzer_sys::fuzz_target;
use sextant_proto::fuzz::fuzz_write_batch;

fuzz_target!(|data: &[u8]| fuzz_write_batch(data));
