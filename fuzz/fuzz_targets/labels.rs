#![no_main]
//! Canonical label bytes.

use libfuzzer_sys::fuzz_target;
use sextant_model::Labels;

fuzz_target!(|data: &[u8]| {
    let Ok(labels) = Labels::from_canonical_bytes(data) else { return };
    assert_eq!(labels.as_bytes(), data);
    assert_eq!(Labels::from_pairs(labels.iter()).expect("labels"), labels);
    let _ = labels.to_string();
});
