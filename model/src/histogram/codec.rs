//! A compact, self-describing byte form of a histogram: for logs and blocks, where one is a value among others.
//!
//! ```text
//! version u8 = 1
//! flags   u8                  bits 0-1 reset hint, bit 2 integer, others 0
//! schema  zigzag varint
//! zero threshold, sum         f64 bits, little-endian
//! zero count and count        values, without their number
//! positive spans, buckets     spans, values
//! negative spans, buckets     spans, values
//! custom bounds               values
//!
//! spans   varint n, then n times: zigzag varint offset, varint length
//! values  varint n, u8 form, then n times: form 0 f64 bits, form 1 varint (all are integers from 0 to 2^53)
//! ```
//!
//! Decoding gives the same bits back, NaN payloads included. It allocates no more than the input's length justifies and
//! no more than the caps, and never panics. Every list of buckets has as many as its spans claim; encoding does not
//! check that: [`Histogram::validate`] belongs before it.

use thiserror::Error;

use super::spans::claimed_buckets;
use super::{Histogram, ResetHint, Span};

const VERSION: u8 = 1;
const FLAG_INTEGER: u8 = 0b100;
const FORM_BITS: u8 = 0;
const FORM_INTEGERS: u8 = 1;
/// Larger integers are not all exact.
const INTEGER_MAX: f64 = 9_007_199_254_740_992.0;

/// The most spans, buckets or bounds of a list. A full side of schema 8 has half a million buckets; more cannot be
/// valid, and would let a few bytes in a compressed request cost much memory.
pub const MAX_LIST_LENGTH: usize = 1 << 20;

/// Why bytes are not a histogram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// Input ends early.
    #[error("input ends inside the histogram")]
    Truncated,
    /// Written by a newer release.
    #[error("unknown histogram version {0}")]
    UnknownVersion(u8),
    /// Bits that have no meaning.
    #[error("unknown histogram flags {0:#04x}")]
    UnknownFlags(u8),
    /// A form of values that does not exist.
    #[error("unknown form {0} of values")]
    UnknownForm(u8),
    /// A number does not fit its field.
    #[error("number out of range")]
    OutOfRange,
    /// A list is longer than the cap, or than the input can hold.
    #[error("list of {0} entries is too long")]
    TooLong(u64),
    /// Spans and buckets contradict each other.
    #[error("spans claim {claimed} buckets, there are {found}")]
    SpansMismatch {
        /// Buckets claimed by spans.
        claimed: u64,
        /// Buckets in the list.
        found: usize,
    },
}

impl Histogram {
    /// Appends the byte form to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(VERSION);
        out.push(self.reset_hint as u8 | if self.integer { FLAG_INTEGER } else { 0 });
        put_varint(out, zigzag(self.schema));
        put_bits(out, self.zero_threshold);
        put_bits(out, self.sum);
        put_values(out, &[self.zero_count, self.count]);
        for (spans, buckets) in
            [(&self.positive_spans, &self.positive_buckets), (&self.negative_spans, &self.negative_buckets)]
        {
            put_varint(out, spans.len() as u64);
            for span in spans {
                put_varint(out, zigzag(span.offset));
                put_varint(out, u64::from(span.length));
            }
            put_list(out, buckets);
        }
        put_list(out, &self.custom_values);
    }

    /// Reads one histogram from the front of `input` and advances it. On an error `input` is where it was.
    ///
    /// # Errors
    /// [`DecodeError`] for bytes that [`Self::encode`] does not write.
    pub fn decode(input: &mut &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader { rest: input };
        let histogram = reader.histogram()?;
        *input = reader.rest;
        Ok(histogram)
    }
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn zigzag(value: i32) -> u64 {
    u64::from(((value << 1) ^ (value >> 31)) as u32)
}

fn put_bits(out: &mut Vec<u8>, value: f64) {
    out.extend_from_slice(&value.to_bits().to_le_bytes());
}

fn put_list(out: &mut Vec<u8>, values: &[f64]) {
    put_varint(out, values.len() as u64);
    put_values(out, values);
}

fn put_values(out: &mut Vec<u8>, values: &[f64]) {
    // −0.0 is not below 0.0; its bits differ from those of the integer.
    let integers =
        values.iter().all(|&v| (0.0..=INTEGER_MAX).contains(&v) && v.fract() == 0.0 && v.is_sign_positive());
    if integers {
        out.push(FORM_INTEGERS);
        values.iter().for_each(|&value| put_varint(out, value as u64));
    } else {
        out.push(FORM_BITS);
        values.iter().for_each(|&value| put_bits(out, value));
    }
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl Reader<'_> {
    fn histogram(&mut self) -> Result<Histogram, DecodeError> {
        let version = self.byte()?;
        if version != VERSION {
            return Err(DecodeError::UnknownVersion(version));
        }
        let flags = self.byte()?;
        let reset_hint = match flags & 0b11 {
            0 => ResetHint::Unknown,
            1 => ResetHint::Reset,
            2 => ResetHint::NoReset,
            _ => ResetHint::Gauge,
        };
        if flags & !(FLAG_INTEGER | 0b11) != 0 {
            return Err(DecodeError::UnknownFlags(flags));
        }
        let schema = self.signed()?;
        let zero_threshold = self.bits()?;
        let sum = self.bits()?;
        let [zero_count, count] = match self.byte()? {
            FORM_BITS => [self.bits()?, self.bits()?],
            FORM_INTEGERS => [self.integer()?, self.integer()?],
            form => return Err(DecodeError::UnknownForm(form)),
        };
        let (positive_spans, positive_buckets) = self.side()?;
        let (negative_spans, negative_buckets) = self.side()?;
        let custom_values = self.list()?;
        Ok(Histogram {
            reset_hint,
            schema,
            integer: flags & FLAG_INTEGER != 0,
            zero_threshold,
            zero_count,
            count,
            sum,
            positive_spans,
            positive_buckets,
            negative_spans,
            negative_buckets,
            custom_values,
        })
    }

    fn side(&mut self) -> Result<(Vec<Span>, Vec<f64>), DecodeError> {
        // A span has at least two bytes.
        let n = self.length(2)?;
        // Collecting results would not reserve: lists of a query's many histograms would grow step by step.
        let mut spans = Vec::with_capacity(n);
        for _ in 0..n {
            spans.push(self.span()?);
        }
        let buckets = self.list()?;
        let claimed = claimed_buckets(&spans);
        if claimed != buckets.len() as u64 {
            return Err(DecodeError::SpansMismatch { claimed, found: buckets.len() });
        }
        Ok((spans, buckets))
    }

    fn span(&mut self) -> Result<Span, DecodeError> {
        let offset = self.signed()?;
        let length = u32::try_from(self.varint()?).map_err(|_| DecodeError::OutOfRange)?;
        Ok(Span { offset, length })
    }

    fn list(&mut self) -> Result<Vec<f64>, DecodeError> {
        let n = self.length(1)?;
        self.values(n)
    }

    fn values(&mut self, n: usize) -> Result<Vec<f64>, DecodeError> {
        let form = self.byte()?;
        let least = match form {
            FORM_BITS => size_of::<f64>(),
            FORM_INTEGERS => 1,
            form => return Err(DecodeError::UnknownForm(form)),
        };
        // Refuse before allocating: `n` was checked against one byte a value, before the form was read.
        if n > self.rest.len() / least {
            return Err(DecodeError::Truncated);
        }
        let mut values = Vec::with_capacity(n);
        if form == FORM_BITS {
            for _ in 0..n {
                values.push(self.bits()?);
            }
        } else {
            for _ in 0..n {
                values.push(self.integer()?);
            }
        }
        Ok(values)
    }

    #[inline]
    fn integer(&mut self) -> Result<f64, DecodeError> {
        let value = self.varint()?;
        if value > INTEGER_MAX as u64 { Err(DecodeError::OutOfRange) } else { Ok(value as f64) }
    }

    /// The number of entries of a list, of which each has at least `entry_size` bytes.
    fn length(&mut self, entry_size: usize) -> Result<usize, DecodeError> {
        let n = self.varint()?;
        let most = (self.rest.len() / entry_size).min(MAX_LIST_LENGTH);
        usize::try_from(n).ok().filter(|&n| n <= most).ok_or(DecodeError::TooLong(n))
    }

    fn byte(&mut self) -> Result<u8, DecodeError> {
        let (&byte, rest) = self.rest.split_first().ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(byte)
    }

    fn bits(&mut self) -> Result<f64, DecodeError> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(f64::from_bits(u64::from_le_bytes(*bytes)))
    }

    #[inline]
    fn varint(&mut self) -> Result<u64, DecodeError> {
        // Most counts of a bucket have one byte to three.
        match *self.rest {
            [a, ref rest @ ..] if a < 0x80 => {
                self.rest = rest;
                Ok(u64::from(a))
            }
            [a, b, ref rest @ ..] if b < 0x80 => {
                self.rest = rest;
                Ok(u64::from(a & 0x7f) | u64::from(b) << 7)
            }
            [a, b, c, ref rest @ ..] if c < 0x80 => {
                self.rest = rest;
                Ok(u64::from(a & 0x7f) | u64::from(b & 0x7f) << 7 | u64::from(c) << 14)
            }
            _ => self.long_varint(),
        }
    }

    #[cold]
    fn long_varint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(DecodeError::OutOfRange);
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(DecodeError::OutOfRange)
    }

    fn signed(&mut self) -> Result<i32, DecodeError> {
        let value = u32::try_from(self.varint()?).map_err(|_| DecodeError::OutOfRange)?;
        Ok((value >> 1) as i32 ^ -((value & 1) as i32))
    }
}
