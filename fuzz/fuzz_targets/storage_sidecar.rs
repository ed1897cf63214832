#![no_main]
//! A block's `index` object, as it is and with the footer's checksum put right so that what lies behind it is reached.

use libfuzzer_sys::fuzz_target;
use sextant_storage::fuzz;

/// Bytes behind the footer: its offset (`u64`), length and checksum (`u32` each), version, magic.
const TRAILER_BYTES: usize = 24;

fuzz_target!(|data: &[u8]| {
    let _ = fuzz::sidecar(data);
    let Some(at) = data.len().checked_sub(TRAILER_BYTES) else { return };
    let offset = u64::from_le_bytes(std::array::from_fn(|i| data[at + i]));
    let length = u32::from_le_bytes(std::array::from_fn(|i| data[at + 8 + i]));
    let Some(end) = offset.checked_add(u64::from(length)).and_then(|end| usize::try_from(end).ok()) else {
        return;
    };
    let Some(footer) = data.get(offset as usize..end) else { return };
    let mut whole = data.to_vec();
    whole[at + 12..at + 16].copy_from_slice(&crc32c::crc32c(footer).to_le_bytes());
    let _ = fuzz::sidecar(&whole);
});
