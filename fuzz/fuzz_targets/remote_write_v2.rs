#![no_main]
//! Remote write 2.0: the decompressed message.

use libfuzzer_sys::fuzz_target;
use sextant_distributor::fuzz::fuzz_walk;

fuzz_target!(|data: &[u8]| fuzz_walk(data, true));
