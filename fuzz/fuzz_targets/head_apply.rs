#![no_main]
//! Commands of the log applied to a head: each is two bytes of length and the payload. The head answers what it then holds.

use libfuzzer_sys::fuzz_target;
use sextant_ingester::head::{Head, TenantFlush};
use sextant_model::SeriesBuf;

fuzz_target!(|data: &[u8]| {
    let head = Head::new();
    let (mut rest, mut index) = (data, 1);
    while let Some((length, after)) = rest.split_first_chunk::<2>() {
        let length = usize::from(u16::from_le_bytes(*length)).min(after.len());
        let (payload, after) = after.split_at(length);
        let _ = head.apply(index, payload);
        (rest, index) = (after, index + 1);
    }
    let mut buf = SeriesBuf::default();
    for tenant in head.sealed().iter().flat_map(|g| g.tenants()) {
        let flush = TenantFlush::new(tenant);
        (0..flush.len()).for_each(|i| flush.read(i, &mut buf));
    }
    let _ = (head.memory(), head.position(), head.active(), head.sealed());
});
