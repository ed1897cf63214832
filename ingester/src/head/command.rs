//! What the log of a shard holds: one tag byte, then the body.
//!
//! ```text
//! 1 write     the write batch (its own format)
//! 2 seal      nothing
//! 3 flushed   u64 position, little-endian
//! 4 begin     u64 position, little-endian
//! 5 delete    the deletion (see `delete`)
//! ```

use bytes::Bytes;

const WRITE: u8 = 1;
const SEAL: u8 = 2;
const FLUSHED: u8 = 3;
const BEGIN: u8 = 4;
const DELETE: u8 = 5;

/// One payload of a shard's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command<'a> {
    /// Apply a batch.
    Write(&'a [u8]),
    /// End the active generation at this entry's position. The payload must be alone in its entry, because positions
    /// are those of entries.
    Seal,
    /// Everything up to this position is in blocks that the manifests name.
    Flushed(u64),
    /// The first payload of a new log: positions go on behind this one, because the manifests cover what an earlier log,
    /// whose disk is gone, had up to it.
    Begin(u64),
    /// Delete rows that came before, see [`super::encode_delete`]. Alone in its entry, like a seal.
    Delete(&'a [u8]),
}

impl<'a> Command<'a> {
    /// Reads a payload; `None` where it is none of ours.
    pub fn decode(payload: &'a [u8]) -> Option<Self> {
        match payload.split_first()? {
            (&WRITE, batch) => Some(Self::Write(batch)),
            (&SEAL, []) => Some(Self::Seal),
            (&FLUSHED, body) => Some(Self::Flushed(u64::from_le_bytes(body.try_into().ok()?))),
            (&BEGIN, body) => Some(Self::Begin(u64::from_le_bytes(body.try_into().ok()?))),
            (&DELETE, body) => Some(Self::Delete(body)),
            _ => None,
        }
    }

    /// The payload's bytes.
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::new();
        match self {
            Self::Write(body) | Self::Delete(body) => {
                out.reserve_exact(1 + body.len());
                out.push(if matches!(self, Self::Delete(_)) { DELETE } else { WRITE });
                out.extend_from_slice(body);
            }
            Self::Seal => out.push(SEAL),
            Self::Flushed(position) | Self::Begin(position) => {
                out.push(if matches!(self, Self::Begin(_)) { BEGIN } else { FLUSHED });
                out.extend_from_slice(&position.to_le_bytes());
            }
        }
        out.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_come_back_and_nothing_else_is_one() {
        for c in [
            Command::Write(b"abc"),
            Command::Seal,
            Command::Flushed(7),
            Command::Begin(9),
            Command::Delete(b"x"),
        ] {
            assert_eq!(Command::decode(&c.encode()), Some(c));
        }
        for bad in [&b""[..], b"\x00", b"\x02x", b"\x03short", b"\x04", b"\x06"] {
            assert_eq!(Command::decode(bad), None);
        }
    }
}
