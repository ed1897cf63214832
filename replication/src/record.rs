//! The bytes of one log record. Pure: no I/O, no allocation beyond the payload list.
//!
//! # Constraints
//!
//! * Segment files are recycled in place, so a reader always finds old records behind the new ones. A record therefore
//!   carries a *stamp*, the sequence number of its segment mixed with the store's random nonce. A record of an earlier use
//!   of the file has another stamp.
//! * Payloads come from outside. The nonce also seeds the checksum, so a payload cannot imitate a record.
//! * Pages of one unsynced write may reach the disk in any order, so "a valid record follows a bad one" does not prove that the
//!   bad one was ever acknowledged. A record therefore carries how far the segment was synced when it was written: a bad record
//!   below that mark is damage, above it is the torn end of the log.
//!
//! # Format
//!
//! Little endian, a head of 64 bytes, then the body, then zeros up to a multiple of 8.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 4 | CRC32C over the rest of the head and the body, seeded with the nonce |
//! | 4 | 4 | bytes of the body |
//! | 8 | 8 | stamp |
//! | 16 | 8 | group |
//! | 24 | 8 | Raft index |
//! | 32 | 8 | Raft term |
//! | 40 | 8 | Raft node (the leader of that term) |
//! | 48 | 4 | synced: bytes of this segment that were durable when the record was written |
//! | 52 | 1 | kind |
//! | 53 | 1 | flag: of a vote, whether it is committed |
//! | 54 | 2 | zero |
//! | 56 | 4 | payloads of a batch |
//! | 60 | 4 | magic |
//!
//! The body of a batch is one `u32` length per payload, then the payloads. That of a membership is described in
//! [`crate::membership`]. Other kinds have none.

/// Bytes of a record's head.
pub(crate) const HEAD_BYTES: usize = 64;
/// Records begin at multiples of this.
pub(crate) const ALIGN: usize = 8;

const MAGIC: u32 = 0x5352_4c31;

/// What a record says. The numbers are part of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// An entry without content, which a new leader appends.
    Blank = 1,
    /// An entry with payloads.
    Batch = 2,
    /// An entry with a change of members.
    Membership = 3,
    /// The group's vote.
    Vote = 4,
    /// The group's last committed log id. It may be older than the truth: it is written along with other records only.
    Committed = 5,
    /// Everything of the group up to the log id is gone.
    Purge = 6,
    /// Everything of the group from the index on is gone.
    Truncate = 7,
    /// The segment is complete; the log goes on in the next one.
    End = 8,
    /// The store was closed in order. It exists for its synced mark, which makes damage to the last records evident.
    Close = 9,
}

impl Kind {
    fn from_byte(b: u8) -> Option<Self> {
        Some(match b {
            1 => Self::Blank,
            2 => Self::Batch,
            3 => Self::Membership,
            4 => Self::Vote,
            5 => Self::Committed,
            6 => Self::Purge,
            7 => Self::Truncate,
            8 => Self::End,
            9 => Self::Close,
            _ => return None,
        })
    }
}

/// The fields of a head that its writer chooses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) kind: Kind,
    pub(crate) flag: bool,
    pub(crate) group: u64,
    pub(crate) index: u64,
    pub(crate) term: u64,
    pub(crate) node: u64,
    pub(crate) payloads: u32,
}

impl Head {
    /// A record that belongs to no group.
    pub(crate) fn of_store(kind: Kind) -> Self {
        Self { kind, flag: false, group: 0, index: 0, term: 0, node: 0, payloads: 0 }
    }
}

/// What ties a record to one use of one segment file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seal {
    stamp: u64,
    seed: u32,
}

impl Seal {
    pub(crate) fn new(nonce: u64, sequence: u64) -> Self {
        Self { stamp: nonce ^ sequence, seed: crc32c::crc32c(&nonce.to_le_bytes()) }
    }
}

/// Bytes that a record with this body takes in the segment.
pub(crate) fn record_bytes(body: usize) -> usize {
    HEAD_BYTES + body.next_multiple_of(ALIGN)
}

/// The head of a record whose body is the concatenation of `body`.
pub(crate) fn encode_head<'a>(
    head: Head,
    seal: Seal,
    synced: u32,
    body_bytes: u32,
    body: impl Iterator<Item = &'a [u8]>,
) -> [u8; HEAD_BYTES] {
    let mut out = [0u8; HEAD_BYTES];
    out[4..8].copy_from_slice(&body_bytes.to_le_bytes());
    out[8..16].copy_from_slice(&seal.stamp.to_le_bytes());
    out[16..24].copy_from_slice(&head.group.to_le_bytes());
    out[24..32].copy_from_slice(&head.index.to_le_bytes());
    out[32..40].copy_from_slice(&head.term.to_le_bytes());
    out[40..48].copy_from_slice(&head.node.to_le_bytes());
    out[48..52].copy_from_slice(&synced.to_le_bytes());
    out[52] = head.kind as u8;
    out[53] = u8::from(head.flag);
    out[56..60].copy_from_slice(&head.payloads.to_le_bytes());
    out[60..64].copy_from_slice(&MAGIC.to_le_bytes());
    let crc = body.fold(crc32c::crc32c_append(seal.seed, &out[4..]), crc32c::crc32c_append);
    out[0..4].copy_from_slice(&crc.to_le_bytes());
    out
}

/// Any bytes as a record that its seal, length and checksum fit; for fuzzing. `None` where they are shorter than a head.
pub(crate) fn fuzz_sealed(bytes: &[u8], seal: Seal) -> Option<Vec<u8>> {
    let body = u32::try_from(bytes.len().checked_sub(HEAD_BYTES)?).ok()?;
    let mut out = bytes.to_vec();
    out[4..8].copy_from_slice(&body.to_le_bytes());
    out[8..16].copy_from_slice(&seal.stamp.to_le_bytes());
    out[60..64].copy_from_slice(&MAGIC.to_le_bytes());
    let crc = crc32c::crc32c_append(seal.seed, &out[4..]);
    out[0..4].copy_from_slice(&crc.to_le_bytes());
    out.resize(record_bytes(body as usize), 0);
    Some(out)
}

/// A record as found in a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    pub(crate) head: Head,
    pub(crate) synced: u32,
    pub(crate) body: &'a [u8],
}

impl Record<'_> {
    /// Bytes that the record takes in its segment.
    pub(crate) fn bytes(&self) -> usize {
        record_bytes(self.body.len())
    }
}

/// Why there is no record at an offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Bad {
    /// Nothing of this use of the segment is here: zeros, or a record of an earlier use.
    #[error("no record of this segment")]
    Absent,
    #[error("the record is longer than the segment")]
    Long,
    #[error("checksum mismatch")]
    Checksum,
    #[error("unknown kind of record")]
    Kind,
    #[error("the payload lengths do not add up to the body")]
    Payloads,
}

fn u32_at(b: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]])
}

fn u64_at(b: &[u8], at: usize) -> u64 {
    u64::from(u32_at(b, at)) | u64::from(u32_at(b, at + 4)) << 32
}

/// Decodes the record at the beginning of `bytes`.
pub(crate) fn decode(bytes: &[u8], seal: Seal) -> Result<Record<'_>, Bad> {
    if bytes.len() < HEAD_BYTES || u64_at(bytes, 8) != seal.stamp {
        return Err(Bad::Absent);
    }
    let body_bytes = u32_at(bytes, 4) as usize;
    let (end, padded) = (HEAD_BYTES + body_bytes, record_bytes(body_bytes));
    if padded > bytes.len() {
        return Err(Bad::Long);
    }
    let intact = crc32c::crc32c_append(seal.seed, &bytes[4..end]) == u32_at(bytes, 0);
    if !intact || bytes[end..padded].iter().any(|&b| b != 0) {
        return Err(Bad::Checksum);
    }
    // What follows can only fail for a record of a newer version or a wrong writer: the checksum holds.
    let kind = Kind::from_byte(bytes[52]).filter(|_| u32_at(bytes, 60) == MAGIC).ok_or(Bad::Kind)?;
    let head = Head {
        kind,
        flag: bytes[53] != 0,
        group: u64_at(bytes, 16),
        index: u64_at(bytes, 24),
        term: u64_at(bytes, 32),
        node: u64_at(bytes, 40),
        payloads: u32_at(bytes, 56),
    };
    let record = Record { head, synced: u32_at(bytes, 48), body: &bytes[HEAD_BYTES..end] };
    if kind == Kind::Batch && payload_ranges(&record).is_none() {
        return Err(Bad::Payloads);
    }
    Ok(record)
}

/// Where the payloads of a batch lie in its body; `None` when the lengths do not add up.
pub(crate) fn payload_ranges(record: &Record<'_>) -> Option<Vec<std::ops::Range<usize>>> {
    let count = record.head.payloads as usize;
    let mut at = count.checked_mul(4).filter(|&n| n <= record.body.len())?;
    let mut ranges = Vec::with_capacity(count);
    for i in 0..count {
        let end = at.checked_add(u32_at(record.body, 4 * i) as usize)?;
        ranges.push(at..end);
        at = end;
    }
    (at == record.body.len()).then_some(ranges)
}

/// Whether the bytes could begin with a record of this seal: a cheap test before a checksum is computed.
pub(crate) fn looks_like_record(bytes: &[u8], seal: Seal) -> bool {
    bytes.len() >= HEAD_BYTES && u64_at(bytes, 8) == seal.stamp && u32_at(bytes, 60) == MAGIC
}

#[cfg(test)]
mod tests;
