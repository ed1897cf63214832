//! Fixed-width bit packing of at most 64 small numbers, and the varints around them.
//!
//! Constraint: a packed run is read with one unaligned 64-bit load per number, so every buffer of packed runs ends with
//! [`PADDING`] zero bytes and no width exceeds [`WIDTH_MAX`].

/// Zero bytes behind the last packed run of a buffer.
pub(crate) const PADDING: usize = 8;

/// A number of this many bits still lies within the 64 bits loaded at its first byte.
pub(crate) const WIDTH_MAX: u32 = 57;

/// Bits needed for a number.
pub(crate) fn width_of(n: u64) -> u32 {
    64 - n.leading_zeros()
}

/// Bytes of `n` packed numbers.
pub(crate) fn packed_len(n: usize, width: u32) -> usize {
    (n * width as usize).div_ceil(8)
}

/// Appends numbers of `width` bits each.
pub(crate) fn pack(out: &mut Vec<u8>, numbers: impl Iterator<Item = u64>, width: u32) {
    debug_assert!(width <= WIDTH_MAX);
    let (mut word, mut used) = (0u64, 0u32);
    for n in numbers {
        word |= n << used;
        used += width;
        if used >= 64 {
            out.extend_from_slice(&word.to_le_bytes());
            used -= 64;
            // Where the number ended exactly at the word's end, a shift by `width` leaves nothing.
            word = n.checked_shr(width - used).unwrap_or(0);
        }
    }
    out.extend_from_slice(&word.to_le_bytes()[..used.div_ceil(8) as usize]);
}

/// Calls `f` with each of `n` packed numbers. Reads of missing bytes give zeros.
#[inline]
pub(crate) fn unpack(bytes: &[u8], n: usize, width: u32, mut f: impl FnMut(u64)) {
    let mask = (1u64 << width) - 1;
    let mut bit = 0usize;
    for _ in 0..n {
        let at = bit >> 3;
        let word = match bytes.get(at..at + 8) {
            Some(b) => u64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]),
            None => 0,
        };
        f((word >> (bit & 7)) & mask);
        bit += width as usize;
    }
}

/// Appends a LEB128 varint.
pub(crate) fn put_varint(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

/// Appends a zigzag varint.
pub(crate) fn put_zigzag(out: &mut Vec<u8>, n: i64) {
    put_varint(out, ((n << 1) ^ (n >> 63)) as u64);
}

/// Reads a varint and moves past it; `None` at the end of the input or where it is too long.
pub(crate) fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut n = 0u64;
    for shift in (0..64).step_by(7) {
        let (&b, tail) = rest.split_first()?;
        *rest = tail;
        n |= u64::from(b & 0x7f) << shift;
        if b < 0x80 {
            return Some(n);
        }
    }
    None
}

/// Reads a zigzag varint and moves past it.
pub(crate) fn zigzag(rest: &mut &[u8]) -> Option<i64> {
    varint(rest).map(|n| (n >> 1) as i64 ^ -((n & 1) as i64))
}

/// Takes `n` bytes.
pub(crate) fn take<'a>(rest: &mut &'a [u8], n: usize) -> Option<&'a [u8]> {
    let (head, tail) = rest.split_at_checked(n)?;
    *rest = tail;
    Some(head)
}

/// Takes a fixed number of bytes.
pub(crate) fn array<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    take(rest, N)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_width_comes_back() {
        for width in 0..=WIDTH_MAX {
            let mask = (1u64 << width) - 1;
            for n in [0usize, 1, 2, 7, 8, 59, 63, 64] {
                let numbers: Vec<u64> =
                    (0..n as u64).map(|i| (i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) & mask).collect();
                let mut bytes = Vec::new();
                pack(&mut bytes, numbers.iter().copied(), width);
                assert_eq!(bytes.len(), packed_len(n, width));
                bytes.extend_from_slice(&[0; PADDING]);
                let mut back = Vec::new();
                unpack(&bytes, n, width, |x| back.push(x));
                assert_eq!(back, numbers, "width {width}");
            }
        }
    }

    #[test]
    fn varints_come_back_and_cuts_are_seen() {
        for n in [0, 1, -1, 63, 64, i64::MAX, i64::MIN] {
            let mut out = Vec::new();
            put_zigzag(&mut out, n);
            assert_eq!(zigzag(&mut &out[..]), Some(n));
            assert_eq!(zigzag(&mut &out[..out.len() - 1]), None);
        }
    }
}
