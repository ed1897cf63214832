//! A column of at most 64 float values, compressed without loss.
//!
//! Constraints: decoding gives back every bit, of −0.0, infinities and each NaN too; a column is read without its
//! neighbours. Values with few decimals become integers (`value = m / 10^e`, one IEEE division, checked to the bit when
//! written), stored as differences to the least value or as increments less the least increment, whichever is narrower.
//!
//! Format of a column of `n` values:
//! ```text
//! u8 head: bits 0–4 exponent e, or 30 one value n times, or 31 raw; bit 5 increments; bit 6 exceptions; bit 7 partial
//! partial     u64: bit i is set where row i has a value
//! e = 30      u64: the value's bits                        e = 31   n × u64
//! exceptions  u8 count, { u8 index among the values present, u64 bits }
//! otherwise   u8 width, z base (bit 5: z first, z base), packed (n, or n − 1 for increments)
//! ```

use super::bits::{array, pack, packed_len, put_zigzag, take, unpack, width_of, zigzag};

/// Rows of a sealed column: 60 kept memory lowest in the measurements, and 64 fit a mask.
pub(crate) const ROWS_MAX: usize = 60;

/// What a caller passes before it has seen a column of the series.
pub(crate) const HINT_UNKNOWN: u8 = 254;

const HINT_RAW: u8 = 255;
const CONSTANT: u8 = 30;
const RAW: u8 = 31;
const INCREMENTS: u8 = 0x20;
const EXCEPTIONS: u8 = 0x40;
const PARTIAL: u8 = 0x80;
const EXPONENT_MAX: u8 = 17;
const LANES: usize = 64;

/// 1.5 × 2^52: adding it rounds a double below 2^51 to an integer and leaves that in the low bits.
const ROUND: f64 = 6_755_399_441_055_744.0;
const INTEGER_MAX: f64 = (1u64 << 51) as f64;

const POWERS: [f64; EXPONENT_MAX as usize + 1] =
    [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17];

/// Values and which rows they are in, before encoding and after decoding.
pub(crate) struct Column {
    bits: [u64; LANES],
    len: usize,
    mask: u64,
    rows: usize,
}

impl Default for Column {
    fn default() -> Self {
        Self { bits: [0; LANES], len: 0, mask: 0, rows: 0 }
    }
}

impl Column {
    pub(crate) fn clear(&mut self) {
        (self.len, self.mask, self.rows) = (0, 0, 0);
    }

    /// Adds a row; `None` is a row without a value.
    #[inline]
    pub(crate) fn push(&mut self, bits: Option<u64>) {
        debug_assert!(self.rows < LANES);
        if let Some(b) = bits {
            self.bits[self.len] = b;
            self.len += 1;
            self.mask |= 1 << self.rows;
        }
        self.rows += 1;
    }

    /// The values in order of row.
    pub(crate) fn values(&self) -> &[u64] {
        &self.bits[..self.len]
    }

    /// Bit i is set where row i has a value.
    pub(crate) fn mask(&self) -> u64 {
        self.mask
    }

    fn is_partial(&self) -> bool {
        self.len != self.rows
    }

    /// Appends the encoded column. `hint` is the exponent that fitted the series before; it is kept up to date.
    pub(crate) fn encode(&self, hint: &mut u8, out: &mut Vec<u8>) {
        let values = self.values();
        let partial = if self.is_partial() { PARTIAL } else { 0 };
        let mut scaled = Scaled::default();
        let constant = values.iter().all(|&b| b == values[0]);
        let fits = match constant {
            true if values.is_empty() => false,
            true => scaled.fit(&values[..1], HINT_UNKNOWN).is_some(),
            false => scaled.fit(values, *hint).is_some(),
        };
        if constant && !fits {
            out.push(CONSTANT | partial);
            self.put_mask(out);
            out.extend_from_slice(&values.first().copied().unwrap_or(0).to_le_bytes());
            return;
        }
        if !fits {
            *hint = HINT_RAW;
            out.push(RAW | partial);
            self.put_mask(out);
            for b in values {
                out.extend_from_slice(&b.to_le_bytes());
            }
            return;
        }
        if constant {
            out.push(scaled.exponent | partial);
            self.put_mask(out);
            out.push(0);
            put_zigzag(out, scaled.m[0]);
            return;
        }
        *hint = scaled.exponent;
        scaled.encode(values, partial, |out| self.put_mask(out), out);
    }

    fn put_mask(&self, out: &mut Vec<u8>) {
        if self.is_partial() {
            out.extend_from_slice(&self.mask.to_le_bytes());
        }
    }

    /// Which rows of an encoded column have a value.
    pub(crate) fn mask_of(bytes: &[u8], rows: usize) -> u64 {
        let mut rest = bytes.get(1..).unwrap_or_default();
        match bytes.first() {
            Some(head) if head & PARTIAL != 0 => array(&mut rest).map_or(0, u64::from_le_bytes),
            _ => full_mask(rows),
        }
    }

    /// Replaces the contents by a decoded column of `rows` rows. `bytes` may go on behind the column and must, by
    /// [`super::bits::PADDING`] bytes at least.
    pub(crate) fn decode(&mut self, bytes: &[u8], rows: usize) {
        self.clear();
        self.rows = rows;
        if self.decode_checked(bytes).is_none() {
            debug_assert!(false, "a column is cut");
            self.clear();
        }
    }

    fn decode_checked(&mut self, mut rest: &[u8]) -> Option<()> {
        let rest = &mut rest;
        let head = *rest.first()?;
        *rest = &rest[1..];
        self.mask = full_mask(self.rows);
        if head & PARTIAL != 0 {
            self.mask = u64::from_le_bytes(array(rest)?);
        }
        self.len = self.mask.count_ones() as usize;
        let n = self.len;
        match head & 31 {
            CONSTANT => self.bits[..n].fill(u64::from_le_bytes(array(rest)?)),
            RAW => {
                for (b, c) in self.bits.iter_mut().zip(take(rest, n * 8)?.chunks_exact(8)) {
                    *b = u64::from_le_bytes(c.try_into().ok()?);
                }
            }
            e => self.decode_scaled(rest, head, *POWERS.get(e as usize)?)?,
        }
        Some(())
    }

    #[inline]
    fn decode_scaled(&mut self, rest: &mut &[u8], head: u8, power: f64) -> Option<()> {
        let n = self.len;
        let exceptions = match head & EXCEPTIONS {
            0 => &[][..],
            _ => {
                let count = take(rest, 1)?[0];
                take(rest, count as usize * 9)?
            }
        };
        let width = u32::from(take(rest, 1)?[0]);
        let first = zigzag(rest)?;
        let out = &mut self.bits;
        if head & INCREMENTS != 0 {
            let base = zigzag(rest)?;
            let mut m = first;
            out[0] = (m as f64 / power).to_bits();
            let mut i = 1;
            unpack(rest, n - 1, width, |d| {
                m += base + d as i64;
                out[i & (LANES - 1)] = (m as f64 / power).to_bits();
                i += 1;
            });
        } else if width == 0 {
            out[..n].fill((first as f64 / power).to_bits());
        } else {
            let mut i = 0;
            unpack(rest, n, width, |d| {
                out[i & (LANES - 1)] = ((first + d as i64) as f64 / power).to_bits();
                i += 1;
            });
        }
        for x in exceptions.chunks_exact(9) {
            *self.bits.get_mut(x[0] as usize)? = u64::from_le_bytes(x[1..].try_into().ok()?);
        }
        Some(())
    }
}

fn full_mask(rows: usize) -> u64 {
    if rows == LANES { u64::MAX } else { (1 << rows) - 1 }
}

/// Values as integers of one decimal exponent, with the values that are none.
struct Scaled {
    exponent: u8,
    m: [i64; LANES],
    odd: [bool; LANES],
    odd_count: usize,
}

impl Default for Scaled {
    fn default() -> Self {
        Self { exponent: 0, m: [0; LANES], odd: [false; LANES], odd_count: 0 }
    }
}

impl Scaled {
    /// Finds the exponent; `None` where more than a quarter of the values would be exceptions.
    fn fit(&mut self, values: &[u64], hint: u8) -> Option<()> {
        let special = |b: &&u64| (**b >> 52) & 0x7ff == 0x7ff || **b == 1 << 63;
        let specials = values.iter().filter(special).count();
        let allowed = values.len() / 4;
        if specials > allowed {
            return None;
        }
        if hint <= EXPONENT_MAX && self.scale(values, hint) == specials {
            self.narrow(values.len());
            return Some(());
        }
        if hint == HINT_RAW {
            // A series of full mantissas stays one: two probes save the search over all exponents.
            let probes = [values[0], values[values.len() / 2]];
            if !probes.iter().any(|&p| (0..=EXPONENT_MAX).any(|e| self.scale(&[p], e) == 0)) {
                return None;
            }
        }
        let mut best = (usize::MAX, 0);
        for e in 0..=EXPONENT_MAX {
            let odd = self.scale(values, e);
            if odd < best.0 {
                best = (odd, e);
            }
            if odd == specials {
                return Some(());
            }
        }
        if best.0 > allowed {
            return None;
        }
        self.scale(values, best.1);
        Some(())
    }

    fn scale(&mut self, values: &[u64], exponent: u8) -> usize {
        let power = POWERS[exponent as usize];
        self.exponent = exponent;
        let mut odd = 0;
        for ((&bits, m), o) in values.iter().zip(&mut self.m).zip(&mut self.odd) {
            let x = f64::from_bits(bits) * power;
            let rounded = x + ROUND;
            *m = (rounded.to_bits() as i64).wrapping_sub(ROUND.to_bits() as i64);
            *o = !(x.abs() < INTEGER_MAX && ((rounded - ROUND) / power).to_bits() == bits);
            odd += usize::from(*o);
        }
        self.odd_count = odd;
        odd
    }

    /// A hint may be larger than needed; take off factors of ten that all values share.
    fn narrow(&mut self, n: usize) {
        while self.exponent > 0 {
            let shared = (0..n).all(|i| self.odd[i] || self.m[i] % 10 == 0);
            let smaller = POWERS[self.exponent as usize - 1];
            let exact = |i: usize| {
                let (m, p) = (self.m[i] as f64, POWERS[self.exponent as usize]);
                ((m / 10.0) / smaller).to_bits() == (m / p).to_bits()
            };
            if !shared || !(0..n).all(|i| self.odd[i] || exact(i)) {
                return;
            }
            self.m[..n].iter_mut().for_each(|m| *m /= 10);
            self.exponent -= 1;
        }
    }

    fn encode(&mut self, values: &[u64], partial: u8, put_mask: impl Fn(&mut Vec<u8>), out: &mut Vec<u8>) {
        let n = values.len();
        if self.odd_count > 0 {
            self.bridge(n);
        }
        let m = &self.m[..n];
        let (mut low, mut high) = (m[0], m[0]);
        let (mut step_low, mut step_high) = (i64::MAX, i64::MIN);
        for i in 1..n {
            (low, high) = (low.min(m[i]), high.max(m[i]));
            let step = m[i] - m[i - 1];
            (step_low, step_high) = (step_low.min(step), step_high.max(step));
        }
        let width = width_of((high - low) as u64);
        let step_width = if n > 1 { width_of((step_high - step_low) as u64) } else { 64 };
        let increments = step_width < width;
        let flags = partial
            | if increments { INCREMENTS } else { 0 }
            | if self.odd_count > 0 { EXCEPTIONS } else { 0 };
        out.push(self.exponent | flags);
        put_mask(out);
        if self.odd_count > 0 {
            out.push(self.odd_count as u8);
            for (i, b) in values.iter().enumerate().filter(|(i, _)| self.odd[*i]) {
                out.push(i as u8);
                out.extend_from_slice(&b.to_le_bytes());
            }
        }
        if increments {
            out.push(step_width as u8);
            put_zigzag(out, m[0]);
            put_zigzag(out, step_low);
            out.reserve(packed_len(n - 1, step_width));
            pack(out, m.windows(2).map(|w| (w[1] - w[0] - step_low) as u64), step_width);
        } else {
            out.push(width as u8);
            put_zigzag(out, low);
            out.reserve(packed_len(n, width));
            pack(out, m.iter().map(|&x| (x - low) as u64), width);
        }
    }

    /// Exceptions carry on with their left neighbour, so that they widen nothing.
    fn bridge(&mut self, n: usize) {
        let first = (0..n).find(|&i| !self.odd[i]).map_or(0, |i| self.m[i]);
        let mut left = first;
        for i in 0..n {
            if self.odd[i] {
                self.m[i] = left;
            }
            left = self.m[i];
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::bits::PADDING, *};

    fn round_trip(rows: &[Option<u64>], hint: &mut u8) -> usize {
        let mut c = Column::default();
        rows.iter().for_each(|r| c.push(*r));
        let mut out = Vec::new();
        c.encode(hint, &mut out);
        let len = out.len();
        out.extend_from_slice(&[0xff; PADDING]);
        let mut back = Column::default();
        back.decode(&out, rows.len());
        assert_eq!(back.values(), c.values());
        assert_eq!(back.mask(), c.mask());
        len
    }

    fn floats(values: &[f64]) -> Vec<Option<u64>> {
        values.iter().map(|v| Some(v.to_bits())).collect()
    }

    #[test]
    fn common_columns_are_small() {
        let counter: Vec<f64> = (0..60).map(|i| 1e9 + f64::from(i * 15 + i % 3)).collect();
        assert!(round_trip(&floats(&counter), &mut { HINT_UNKNOWN }) <= 24);
        assert!(round_trip(&floats(&[3.0; 60]), &mut { HINT_UNKNOWN }) <= 3);
        assert!(round_trip(&floats(&[f64::NAN; 60]), &mut { HINT_UNKNOWN }) <= 9);
        let gauge: Vec<f64> = (0..60).map(|i| f64::from(i * 37 % 100) / 100.0).collect();
        assert!(round_trip(&floats(&gauge), &mut { HINT_UNKNOWN }) <= 60);
        let mut odd = gauge.clone();
        (odd[0], odd[7], odd[59]) = (-0.0, f64::INFINITY, sextant_model::stale_nan());
        assert!(round_trip(&floats(&odd), &mut { 2 }) <= 90);
    }

    proptest! {
        #[test]
        fn every_bit_comes_back(
            rows in proptest::collection::vec(proptest::option::weighted(0.9, prop_oneof![
                any::<u64>(),
                (-100_000i64..100_000).prop_map(|n| (n as f64 / 1000.0).to_bits()),
                (0i64..1 << 53).prop_map(|n| (n as f64).to_bits()),
                (0u32..1000).prop_map(|n| f64::from(n).to_bits()),
                Just((-0.0f64).to_bits()),
                Just(sextant_model::STALE_NAN_BITS),
            ]), 1..=60),
            hint in any::<u8>(),
        ) {
            round_trip(&rows, &mut { hint });
        }

        #[test]
        fn decimals_come_back(e in 0u32..8, base in -1_000_000i64..1_000_000, steps in proptest::collection::vec(0i64..500, 1..=60)) {
            let mut m = base;
            let rows: Vec<_> = steps.iter().map(|s| { m += s; Some((m as f64 / 10f64.powi(e as i32)).to_bits()) }).collect();
            round_trip(&rows, &mut { HINT_UNKNOWN });
        }
    }
}
