//! Entry points for fuzzers: each takes any bytes and must neither panic nor allocate more than a small multiple of
//! them. `true` where the bytes were accepted.

use crate::{Checksums, Manifest, block};

/// The `index` sidecar: footer, every value, every posting.
pub fn sidecar(bytes: &[u8]) -> bool {
    block::walk_index(bytes).is_some()
}

/// The `checksums` object, with a checksum put right first so that the rest is reached.
pub fn checksums(bytes: &[u8]) -> bool {
    let Some((body, _)) = bytes.split_last_chunk::<4>() else { return false };
    let mut whole = body.to_vec();
    whole.extend(crc32c::crc32c(body).to_le_bytes());
    Checksums::decode("fuzz", bytes).is_ok() | Checksums::decode("fuzz", &whole).is_ok()
}

/// A manifest, as stored and as the inner object alone.
pub fn manifest(bytes: &[u8]) -> bool {
    let mut framed = format!("{{\"crc32c\":\"{:08x}\",\"manifest\":", crc32c::crc32c(bytes)).into_bytes();
    framed.extend(bytes);
    framed.extend(b"}\n");
    Manifest::decode("fuzz", bytes).is_ok() | Manifest::decode("fuzz", &framed).is_ok()
}

/// The body of a page of the sample table, for a page of as many rows as the first two bytes say.
pub fn sample_page(bytes: &[u8]) -> bool {
    let Some((rows, body)) = bytes.split_first_chunk::<2>() else { return false };
    block::read_page(body, usize::from(u16::from_le_bytes(*rows)))
}
