#![no_main]
//! A block's `checksums` object.

use libfuzzer_sys::fuzz_target;
use sextant_storage::fuzz;

fuzz_target!(|data: &[u8]| {
    let _ = fuzz::checksums(data);
});
