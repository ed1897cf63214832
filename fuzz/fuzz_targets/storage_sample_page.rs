#![no_main]
//! A page of a block's sample table.

use libfuzzer_sys::fuzz_target;
use sextant_storage::fuzz;

fuzz_target!(|data: &[u8]| {
    let _ = fuzz::sample_page(data);
});
