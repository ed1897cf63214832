#![no_main]
//! The head's part of a checkpoint.

use libfuzzer_sys::fuzz_target;
use sextant_ingester::head::Head;

fuzz_target!(|data: &[u8]| {
    let _ = Head::new().restore(1, data);
});
