//! The `checksums` object: a CRC-32C for each chunk of each other object, so that a part of an object can be read and
//! checked without the rest. The manifest holds this object's own checksum.
//!
//! ```text
//! "SXCK"  version u32 = 1  chunk bytes u32  objects u32
//! per object: name length u16, name, size u64, one u32 per chunk
//! crc32c u32 of everything before
//! ```
//! Numbers are little-endian.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::{CHUNK_BYTES, Result, StorageError};

const MAGIC: &[u8; 4] = b"SXCK";
const VERSION: u32 = 1;

/// Checksums of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectChecksums {
    /// The object's size.
    pub size: u64,
    /// One per [`CHUNK_BYTES`], the last for what is left.
    pub chunks: Vec<u32>,
}

/// Checksums of a block's objects by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checksums {
    /// By object name.
    pub objects: BTreeMap<String, ObjectChecksums>,
}

impl Checksums {
    /// Computes the checksums of an object.
    pub fn add(&mut self, name: &str, bytes: &Bytes) {
        let chunks = bytes.chunks(CHUNK_BYTES).map(crc32c::crc32c).collect();
        self.objects.insert(name.to_owned(), ObjectChecksums { size: bytes.len() as u64, chunks });
    }

    /// The object's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend(VERSION.to_le_bytes());
        out.extend((CHUNK_BYTES as u32).to_le_bytes());
        out.extend((self.objects.len() as u32).to_le_bytes());
        for (name, o) in &self.objects {
            out.extend((name.len() as u16).to_le_bytes());
            out.extend(name.as_bytes());
            out.extend(o.size.to_le_bytes());
            for c in &o.chunks {
                out.extend(c.to_le_bytes());
            }
        }
        out.extend(crc32c::crc32c(&out).to_le_bytes());
        out
    }

    /// Reads the object. `object` names it in errors. Safe on any input.
    pub fn decode(object: &str, bytes: &[u8]) -> Result<Self> {
        Self::parse(bytes).map_err(|reason| StorageError::corrupt(object, reason))
    }

    fn parse(bytes: &[u8]) -> std::result::Result<Self, &'static str> {
        let (mut rest, crc) = bytes.split_last_chunk::<4>().ok_or("cut")?;
        if crc32c::crc32c(rest) != u32::from_le_bytes(*crc) {
            return Err("checksum does not match");
        }
        let rest = &mut rest;
        if take::<4>(rest)? != *MAGIC {
            return Err("not a table of checksums");
        }
        if u32::from_le_bytes(take(rest)?) != VERSION {
            return Err("unknown version");
        }
        if u32::from_le_bytes(take(rest)?) as usize != CHUNK_BYTES {
            return Err("unknown chunk size");
        }
        let mut objects = BTreeMap::new();
        for _ in 0..u32::from_le_bytes(take(rest)?) {
            let len = usize::from(u16::from_le_bytes(take(rest)?));
            let (name, tail) = rest.split_at_checked(len).ok_or("cut name")?;
            *rest = tail;
            let name = std::str::from_utf8(name).map_err(|_| "name is not UTF-8")?.to_owned();
            let size = u64::from_le_bytes(take(rest)?);
            let count = size.div_ceil(CHUNK_BYTES as u64);
            // Checked before anything is allocated for it.
            if count > (rest.len() / 4) as u64 {
                return Err("cut checksums");
            }
            let (table, tail) = rest.split_at_checked(count as usize * 4).ok_or("cut checksums")?;
            *rest = tail;
            let chunks = table.as_chunks::<4>().0.iter().map(|c| u32::from_le_bytes(*c)).collect();
            objects.insert(name, ObjectChecksums { size, chunks });
        }
        if rest.is_empty() { Ok(Self { objects }) } else { Err("bytes after the end") }
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> std::result::Result<[u8; N], &'static str> {
    let (head, tail) = rest.split_first_chunk::<N>().ok_or("cut")?;
    *rest = tail;
    Ok(*head)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_tables_are_refused() {
        let mut sums = Checksums::default();
        sums.add("a", &Bytes::from(vec![1u8; CHUNK_BYTES * 2 + 5]));
        sums.add("empty", &Bytes::new());
        let good = sums.encode();
        assert_eq!(Checksums::decode("x", &good).unwrap(), sums);
        for i in 0..good.len() {
            assert!(Checksums::decode("x", &good[..i]).is_err());
            let mut bad = good.clone();
            bad[i] ^= 0x10;
            assert!(Checksums::decode("x", &bad).is_err());
            // With a checksum that matches: no panic, no huge allocation.
            let end = bad.len() - 4;
            let crc = crc32c::crc32c(&bad[..end]).to_le_bytes();
            bad[end..].copy_from_slice(&crc);
            let _ = Checksums::decode("x", &bad);
        }
    }
}
