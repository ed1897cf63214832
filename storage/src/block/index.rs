//! The sidecar: label name → value → series.
//!
//! ```text
//! postings     series lists one after the other, equal ones stored once
//! per label    value section: u32 offset of each group of 16 values (from the first group), then the groups;
//!              in a group each value shares a prefix with the one before it:
//!              varint shared, varint rest length, rest, list
//! footer       varint series, varint labels, per label: varint name length, name, varint values,
//!              u64 section offset, varint section length, varint group count, list of all series that have the label
//! trailer      u64 footer offset, u32 footer length, u32 crc32c of the footer, u32 version, "SXIX"
//!
//! list         varint n; n = 1: varint series;  else varint offset in postings, varint length
//! a posting    byte kind; 0: varint first, varint differences − 1;  1: roaring bitmap in its portable format
//! ```
//! A look-up of one value reads the footer, the label's section and one posting, and parses one group of the section.

mod read;
mod write;

pub use read::{IndexFooter, LabelEntry, Section, decode_posting, walk};
pub use write::write_index;

/// Values of one group: what a look-up parses.
pub const GROUP_VALUES: usize = 16;

/// Bytes of the trailer.
pub const TRAILER_BYTES: usize = 24;
const MAGIC: &[u8; 4] = b"SXIX";
const VERSION: u32 = 1;

/// Where a value's series are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListRef {
    /// The one series.
    One(u32),
    /// A posting: offset, length.
    At(u64, u32),
}

fn put_varint(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

fn take_varint(rest: &mut &[u8]) -> Option<u64> {
    let mut n = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, tail) = rest.split_first()?;
        *rest = tail;
        n |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(n);
        }
    }
    None
}
