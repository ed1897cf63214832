//! A stream of bits and the codes that Prometheus' chunks are made of (tsdb/docs/format/chunks.md, Apache-2.0).

/// Bits, the highest of a byte first.
#[derive(Clone, Debug, Default)]
pub struct Bits {
    bytes: Vec<u8>,
    /// Bits that are free in the last byte.
    free: u32,
}

impl Bits {
    /// A stream that begins after some bytes.
    pub fn after(bytes: &[u8]) -> Self {
        Self { bytes: bytes.to_vec(), free: 0 }
    }

    /// The bytes; the last is filled up with zeros.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Appends the lowest `n` bits of a number, at most 64.
    pub fn put(&mut self, bits: u64, n: u32) {
        let mut left = n;
        while left > 0 {
            if self.free == 0 {
                self.bytes.push(0);
                self.free = 8;
            }
            let take = left.min(self.free);
            let part = (bits >> (left - take)) & ((1 << take) - 1);
            if let Some(last) = self.bytes.last_mut() {
                *last |= (part << (self.free - take)) as u8;
            }
            self.free -= take;
            left -= take;
        }
    }

    /// A number in groups of seven bits, lowest first.
    pub fn put_uvarint(&mut self, mut n: u64) {
        while n >= 0x80 {
            self.put(n & 0x7f | 0x80, 8);
            n >>= 7;
        }
        self.put(n, 8);
    }

    /// A signed number in groups of seven bits.
    pub fn put_varint(&mut self, n: i64) {
        self.put_uvarint(((n << 1) ^ (n >> 63)) as u64);
    }

    /// The difference of differences of an XOR chunk's timestamps.
    pub fn put_dod(&mut self, n: i64) {
        match n {
            0 => self.put(0, 1),
            _ if fits(n, 14) => self.put_prefixed(0b10, 2, n as u64, 14),
            _ if fits(n, 17) => self.put_prefixed(0b110, 3, n as u64, 17),
            _ if fits(n, 20) => self.put_prefixed(0b1110, 4, n as u64, 20),
            _ => self.put_prefixed(0b1111, 4, n as u64, 64),
        }
    }

    /// A signed number of a histogram chunk: the smaller, the fewer bits.
    pub fn put_varbit(&mut self, n: i64) {
        match SIZES.iter().position(|&size| fits(n, size)) {
            _ if n == 0 => self.put(0, 1),
            Some(i) => self.put_sized(i, n as u64, SIZES[i]),
            None => self.put_sized(SIZES.len(), n as u64, 64),
        }
    }

    /// A number of a histogram chunk.
    pub fn put_uvarbit(&mut self, n: u64) {
        match SIZES.iter().position(|&size| n < 1 << size) {
            _ if n == 0 => self.put(0, 1),
            Some(i) => self.put_sized(i, n, SIZES[i]),
            None => self.put_sized(SIZES.len(), n, 64),
        }
    }

    /// `i + 1` ones, a zero unless the size is the largest, and the number.
    fn put_sized(&mut self, i: usize, n: u64, size: u32) {
        let ones = i as u32 + 1;
        if i == SIZES.len() {
            self.put((1 << ones) - 1, ones);
        } else {
            self.put((1 << (ones + 1)) - 2, ones + 1);
        }
        self.put(n, size);
    }

    fn put_prefixed(&mut self, prefix: u64, prefix_bits: u32, n: u64, bits: u32) {
        self.put(prefix, prefix_bits);
        self.put(n, bits);
    }
}

/// Bits of the varbit codes, before the last with 64.
const SIZES: [u32; 7] = [3, 6, 9, 12, 18, 25, 56];

/// Whether a signed number fits into so many bits, where the lowest pattern stands for the largest number.
fn fits(n: i64, bits: u32) -> bool {
    let half = 1_i64 << (bits - 1);
    -half < n && n <= half
}

/// A float as its difference in bits from the one before.
#[derive(Clone, Copy, Debug)]
pub struct XorFloat {
    value: u64,
    /// Leading and trailing zeros of the last difference that was written with its size.
    window: Option<(u32, u32)>,
}

impl XorFloat {
    /// The first value, written as it is.
    pub fn first(out: &mut Bits, value: f64) -> Self {
        out.put(value.to_bits(), 64);
        Self { value: value.to_bits(), window: None }
    }

    /// The next value.
    pub fn next(&mut self, out: &mut Bits, value: f64) {
        let delta = value.to_bits() ^ self.value;
        self.value = value.to_bits();
        if delta == 0 {
            return out.put(0, 1);
        }
        let (leading, trailing) = (delta.leading_zeros().min(31), delta.trailing_zeros());
        match self.window {
            Some((l, t)) if leading >= l && trailing >= t => {
                out.put(0b10, 2);
                out.put(delta >> t, 64 - l - t);
            }
            _ => {
                let significant = 64 - leading - trailing;
                out.put(0b11, 2);
                out.put(u64::from(leading), 5);
                // 64 is written as 0.
                out.put(u64::from(significant) & 63, 6);
                out.put(delta >> trailing, significant);
                self.window = Some((leading, trailing));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_fill_bytes_from_the_top() {
        let mut bits = Bits::after(&[7]);
        bits.put(0b101, 3);
        bits.put(0b1_1111_0000, 9);
        assert_eq!(bits.into_bytes(), [7, 0b1011_1111, 0b0000_0000]);
        let mut bits = Bits::default();
        bits.put(u64::MAX, 64);
        bits.put_varint(-2);
        bits.put_uvarint(300);
        assert_eq!(bits.into_bytes()[8..], [3, 0xac, 2]);
    }

    #[test]
    fn codes_take_the_bits_that_they_need() {
        let bits_of = |put: &dyn Fn(&mut Bits)| {
            let mut bits = Bits::default();
            put(&mut bits);
            bits.bytes.len() as u32 * 8 - bits.free
        };
        for (n, size) in
            [(0, 1), (4, 5), (-3, 5), (5, 9), (33, 13), (257, 17), (2049, 24), (1 << 40, 64), (i64::MIN, 72)]
        {
            assert_eq!(bits_of(&|b| b.put_varbit(n)), size, "{n}");
        }
        for (n, size) in [(0, 1), (7, 5), (8, 9), (u64::MAX, 72)] {
            assert_eq!(bits_of(&|b| b.put_uvarbit(n)), size, "{n}");
        }
        for (n, size) in [(0, 1), (8192, 16), (-8192, 20), (1 << 19, 24), (1 << 20, 68)] {
            assert_eq!(bits_of(&|b| b.put_dod(n)), size, "{n}");
        }
    }
}
