//! Protobuf on the wire: varints, tags and lengths over a byte slice, with positions for error messages.
//!
//! Nothing is allocated and nothing is copied. Every length is checked against the input.

use std::ops::Range;

/// Bytes that are not protobuf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WireError {
    /// What is wrong.
    pub reason: &'static str,
    /// Where.
    pub at: usize,
}

pub(crate) const fn wire_error(reason: &'static str, at: usize) -> WireError {
    WireError { reason, at }
}

/// The value of a field. Ranges are absolute positions in the input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    Bytes(Range<usize>),
}

/// Reads the fields of one message.
pub(crate) struct Wire<'a> {
    buf: &'a [u8],
    pos: usize,
}

impl<'a> Wire<'a> {
    /// Reads the message in a range of the input; the range lies within it.
    pub(crate) fn new(input: &'a [u8], range: Range<usize>) -> Self {
        Self { buf: &input[..range.end], pos: range.start }
    }

    /// Where the next byte is read.
    pub(crate) fn pos(&self) -> usize {
        self.pos
    }

    /// Whether the message ends here.
    pub(crate) fn is_at_end(&self) -> bool {
        self.pos >= self.buf.len()
    }

    /// A varint of up to 64 bits.
    #[inline]
    pub(crate) fn varint(&mut self) -> Result<u64, WireError> {
        let (n, len) = varint(&self.buf[self.pos..]).map_err(|reason| wire_error(reason, self.pos))?;
        self.pos += len;
        Ok(n)
    }

    /// A length and as many bytes.
    #[inline]
    pub(crate) fn bytes(&mut self) -> Result<Range<usize>, WireError> {
        let at = self.pos;
        let n = self.varint()?;
        if n > (self.buf.len() - self.pos) as u64 {
            return Err(wire_error("length goes past the end", at));
        }
        let start = self.pos;
        self.pos += n as usize;
        Ok(start..self.pos)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let bytes = self.buf[self.pos..].first_chunk::<N>().ok_or(wire_error("cut short", self.pos))?;
        self.pos += N;
        Ok(*bytes)
    }

    /// The next field, or `None` at the end of the message.
    pub(crate) fn next(&mut self) -> Result<Option<(u32, Field)>, WireError> {
        if self.is_at_end() {
            return Ok(None);
        }
        let at = self.pos;
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).unwrap_or(0);
        if number == 0 || number >= 1 << 29 {
            return Err(wire_error("field number out of range", at));
        }
        let field = match tag & 7 {
            0 => Field::Varint(self.varint()?),
            1 => Field::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => Field::Bytes(self.bytes()?),
            5 => Field::Fixed32(u32::from_le_bytes(self.array()?)),
            _ => return Err(wire_error("unknown wire type", at)),
        };
        Ok(Some((number, field)))
    }
}

/// The varint at the start of a slice, and its length.
#[inline]
pub(crate) fn varint(bytes: &[u8]) -> Result<(u64, usize), &'static str> {
    let mut n = 0u64;
    for (i, &b) in bytes.iter().take(10).enumerate() {
        if i == 9 && b > 1 {
            break;
        }
        n |= u64::from(b & 0x7f) << (7 * i);
        if b < 0x80 {
            return Ok((n, i + 1));
        }
    }
    Err(if bytes.len() < 10 { "cut short" } else { "varint too long" })
}

/// Appends a varint.
pub(crate) fn put_varint(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_end_where_they_must() {
        for n in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX] {
            let mut out = Vec::new();
            put_varint(&mut out, n);
            assert_eq!(varint(&out), Ok((n, out.len())));
            assert!(varint(&out[..out.len() - 1]).is_err());
        }
        assert_eq!(varint(&[0xff; 10]), Err("varint too long"));
        assert_eq!(varint(&[0xff; 9]), Err("cut short"));
    }

    #[test]
    fn fields_of_every_wire_type() {
        let input = [0x08, 5, 0x11, 1, 0, 0, 0, 0, 0, 0, 0, 0x1a, 2, 7, 8, 0x25, 9, 0, 0, 0];
        let mut w = Wire::new(&input, 0..input.len());
        assert_eq!(w.next().unwrap(), Some((1, Field::Varint(5))));
        assert_eq!(w.next().unwrap(), Some((2, Field::Fixed64(1))));
        assert_eq!(w.next().unwrap(), Some((3, Field::Bytes(13..15))));
        assert_eq!(w.next().unwrap(), Some((4, Field::Fixed32(9))));
        assert_eq!(w.next().unwrap(), None);
        for bad in [&[0x00][..], &[0x0b], &[0x0a, 5, 1], &[0x08], &[0x09, 1], &[0x0d, 1]] {
            assert!(Wire::new(bad, 0..bad.len()).next().is_err(), "{bad:?}");
        }
    }
}
