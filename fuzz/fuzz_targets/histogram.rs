#![no_main]
//! The encoding of native histograms; what is read encodes to bytes that read alike.

use libfuzzer_sys::fuzz_target;
use sextant_model::Histogram;

fuzz_target!(|data: &[u8]| {
    let Ok(histogram) = Histogram::decode(&mut &*data) else { return };
    let mut encoded = Vec::new();
    histogram.encode(&mut encoded);
    let again = Histogram::decode(&mut encoded.as_slice()).expect("what was encoded");
    let mut twice = Vec::new();
    again.encode(&mut twice);
    assert_eq!(encoded, twice);
    let _ = histogram.validate();
});
