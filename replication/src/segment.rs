//! The bytes of one segment file: its head, and the scan that finds its end. Pure: no I/O.
//!
//! A segment is a head of 4096 bytes, then records (see [`crate::record`]) one after the other. It ends with an `End` record
//! if the log goes on in another segment; the newest segment ends where no record follows.

use crate::record::{self, ALIGN, Bad, HEAD_BYTES, Kind, Record, Seal};

/// Bytes before the first record. A block of its own, so that taking a recycled file into use never rewrites a sector that
/// holds records.
pub(crate) const SEGMENT_HEAD_BYTES: usize = 4096;

/// Version of the segment format.
pub(crate) const VERSION: u32 = 1;

const MAGIC: &[u8; 8] = b"SXLOGSEG";

/// The head of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentHead {
    /// Counts the segments of the store, from 1. Never used twice.
    pub(crate) sequence: u64,
    /// Random, the same in all segments of a store.
    pub(crate) nonce: u64,
    /// Bytes of the file, head included.
    pub(crate) bytes: u32,
}

/// Why a head was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadHead {
    #[error("not a log segment")]
    Magic,
    #[error("format version {0}")]
    Version(u32),
    #[error("checksum mismatch in the segment's head")]
    Checksum,
}

impl SegmentHead {
    /// Magic, version, size, sequence, nonce, CRC32C over all of it.
    pub(crate) fn encode(&self) -> [u8; 36] {
        let mut out = [0u8; 36];
        out[0..8].copy_from_slice(MAGIC);
        out[8..12].copy_from_slice(&VERSION.to_le_bytes());
        out[12..16].copy_from_slice(&self.bytes.to_le_bytes());
        out[16..24].copy_from_slice(&self.sequence.to_le_bytes());
        out[24..32].copy_from_slice(&self.nonce.to_le_bytes());
        let crc = crc32c::crc32c(&out[..32]);
        out[32..36].copy_from_slice(&crc.to_le_bytes());
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, BadHead> {
        let (head, crc) = match (bytes.get(..32), bytes.get(32..36)) {
            (Some(head), Some(crc)) if &head[..8] == MAGIC => (head, crc),
            _ => return Err(BadHead::Magic),
        };
        let u32_at = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        if crc32c::crc32c(head).to_le_bytes() != crc {
            return Err(BadHead::Checksum);
        }
        // After the checksum: a flipped bit in the version must not read as "written by a newer program".
        if u32_at(8) != VERSION {
            return Err(BadHead::Version(u32_at(8)));
        }
        Ok(Self { bytes: u32_at(12), sequence: u64_at(16), nonce: u64_at(24) })
    }

    pub(crate) fn seal(&self) -> Seal {
        Seal::new(self.nonce, self.sequence)
    }
}

/// How a segment's records end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Tail {
    /// With an `End` record, behind which nothing counts.
    Ended,
    /// No record follows.
    Open,
    /// The last write did not reach the disk as a whole. Nothing from the offset on was acknowledged.
    Torn(Bad),
    /// The record was durable once and is not readable now.
    Damaged(Bad),
}

/// Result of a scan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scan {
    /// Offset behind the last good record.
    pub(crate) end: usize,
    /// The highest synced mark found in a good record.
    pub(crate) synced: usize,
    /// How it ended.
    pub(crate) tail: Tail,
}

/// Reads the records of a segment in order. `bytes` is the whole file; `visit` gets each record with its offset and may
/// stop the scan with an error.
pub(crate) fn scan<'a, E>(
    bytes: &'a [u8],
    seal: Seal,
    mut visit: impl FnMut(usize, Record<'a>) -> Result<(), E>,
) -> Result<Scan, E> {
    let mut at = SEGMENT_HEAD_BYTES;
    let mut synced = SEGMENT_HEAD_BYTES;
    let bad = loop {
        match record::decode(bytes.get(at..).unwrap_or_default(), seal) {
            Ok(found) => {
                let next = at + found.bytes();
                synced = synced.max(found.synced as usize);
                visit(at, found)?;
                at = next;
                if found.head.kind == Kind::End {
                    return Ok(Scan { end: at, synced, tail: Tail::Ended });
                }
            }
            Err(bad) => break bad,
        }
    };
    let tail = match mark_behind(bytes, at, seal) {
        Some(mark) if mark > at => Tail::Damaged(bad),
        Some(_) => Tail::Torn(bad),
        None if bad == Bad::Absent => Tail::Open,
        None => Tail::Torn(bad),
    };
    Ok(Scan { end: at, synced, tail })
}

/// The highest synced mark of the good records behind a bad one, wherever they begin; `None` when there is none.
fn mark_behind(bytes: &[u8], bad_at: usize, seal: Seal) -> Option<usize> {
    let mut best = None;
    let mut at = bad_at + ALIGN;
    while at + HEAD_BYTES <= bytes.len() {
        let rest = &bytes[at..];
        if record::looks_like_record(rest, seal)
            && let Ok(found) = record::decode(rest, seal)
        {
            best = best.max(Some(found.synced as usize));
            at += found.bytes();
        } else {
            at += ALIGN;
        }
    }
    best
}

#[cfg(test)]
mod tests;
