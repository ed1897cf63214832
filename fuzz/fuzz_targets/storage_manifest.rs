#![no_main]
//! A tenant's manifest.

use libfuzzer_sys::fuzz_target;
use sextant_storage::fuzz;

fuzz_target!(|data: &[u8]| {
    let _ = fuzz::manifest(data);
});
