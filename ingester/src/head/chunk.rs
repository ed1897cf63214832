//! Sealed rows of a group of series: one timestamp column, one value column per member. Immutable, shared with readers.
//!
//! Format: `bytes` is the packed timestamps (differences less the least difference), then the members' columns
//! ([`super::column`]) one after the other, then padding. `ends[i]` is where member i's column ends; an empty column
//! means that the member has no value in these rows.

use super::{
    bits::{PADDING, WIDTH_MAX, pack, packed_len, unpack, width_of},
    column::{Column, ROWS_MAX},
};

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Chunk {
    t_first: i64,
    t_last: i64,
    step_base: u64,
    step_width: u8,
    rows: u8,
    columns_at: u32,
    ends: Box<[u32]>,
    bytes: Box<[u8]>,
}

/// Memory that decoding needs, kept over many chunks.
#[derive(Default)]
pub(crate) struct ChunkBuf {
    times: Vec<i64>,
    column: Column,
}

impl Chunk {
    /// Begins a chunk with its rows' timestamps: strictly ascending, at most [`ROWS_MAX`], at least one.
    pub(crate) fn builder(times: &[i64], members: usize) -> ChunkBuilder {
        debug_assert!(!times.is_empty() && times.len() <= ROWS_MAX);
        let steps = || times.windows(2).map(|w| w[1].wrapping_sub(w[0]) as u64);
        let low = steps().min().unwrap_or(0);
        let width = width_of(steps().max().unwrap_or(0) - low);
        let mut bytes = Vec::with_capacity(64 + members * 32);
        let (step_base, step_width) = if width <= WIDTH_MAX {
            pack(&mut bytes, steps().map(|s| s - low), width);
            (low, width as u8)
        } else {
            times.iter().for_each(|t| bytes.extend_from_slice(&t.to_le_bytes()));
            (0, 64)
        };
        ChunkBuilder {
            chunk: Self {
                t_first: times[0],
                t_last: times[times.len() - 1],
                step_base,
                step_width,
                rows: times.len() as u8,
                columns_at: bytes.len() as u32,
                ends: Box::default(),
                bytes: Box::default(),
            },
            ends: Vec::with_capacity(members),
            bytes,
        }
    }

    /// First and last timestamp of the rows.
    pub(crate) fn range(&self) -> (i64, i64) {
        (self.t_first, self.t_last)
    }

    /// Bytes of memory.
    pub(crate) fn memory(&self) -> usize {
        size_of::<Self>() + 48 + self.ends.len() * 4 + self.bytes.len()
    }

    fn column_bytes(&self, member: usize) -> Option<&[u8]> {
        let end = *self.ends.get(member)?;
        let start = if member == 0 { self.columns_at } else { self.ends[member - 1] };
        (start < end).then(|| &self.bytes[start as usize..])
    }

    /// Bit i is set where the member has a value in row i.
    pub(crate) fn mask(&self, member: usize) -> u64 {
        self.column_bytes(member).map_or(0, |bytes| Column::mask_of(bytes, self.rows as usize))
    }

    /// Calls `f` with (timestamp, bits, present) of each row; not at all where the member has no value.
    pub(crate) fn rows(&self, member: usize, buf: &mut ChunkBuf, mut f: impl FnMut(i64, Option<u64>)) {
        let Some(bytes) = self.column_bytes(member) else { return };
        self.decode_times(&mut buf.times);
        buf.column.decode(bytes, self.rows as usize);
        let (mask, mut values) = (buf.column.mask(), buf.column.values().iter());
        for (i, &t) in buf.times.iter().enumerate() {
            f(t, if mask >> i & 1 == 1 { values.next().copied() } else { None });
        }
    }

    /// Appends the member's samples within `start..=end`.
    pub(crate) fn read(
        &self,
        member: usize,
        range: (i64, i64),
        buf: &mut ChunkBuf,
        t: &mut Vec<i64>,
        v: &mut Vec<f64>,
    ) {
        if self.t_last < range.0 || self.t_first > range.1 {
            return;
        }
        let Some(bytes) = self.column_bytes(member) else { return };
        self.decode_times(&mut buf.times);
        let rows = self.rows as usize;
        buf.column.decode(bytes, rows);
        let values = buf.column.values();
        if values.len() == rows && range.0 <= self.t_first && self.t_last <= range.1 {
            t.extend_from_slice(&buf.times);
            v.extend(values.iter().map(|&b| f64::from_bits(b)));
            return;
        }
        let (mask, mut values) = (buf.column.mask(), values.iter());
        for (i, &at) in buf.times.iter().enumerate() {
            if mask >> i & 1 == 1
                && let Some(&b) = values.next()
                && range.0 <= at
                && at <= range.1
            {
                t.push(at);
                v.push(f64::from_bits(b));
            }
        }
    }

    fn decode_times(&self, out: &mut Vec<i64>) {
        out.clear();
        let rows = self.rows as usize;
        if self.step_width == 64 {
            let raw = self.bytes[..rows * 8].chunks_exact(8);
            out.extend(raw.map(|c| i64::from_le_bytes([c[0], c[1], c[2], c[3], c[4], c[5], c[6], c[7]])));
            return;
        }
        let mut t = self.t_first;
        out.push(t);
        unpack(&self.bytes, rows - 1, u32::from(self.step_width), |s| {
            t = t.wrapping_add(self.step_base.wrapping_add(s) as i64);
            out.push(t);
        });
        debug_assert_eq!(
            packed_len(rows - 1, u32::from(self.step_width)),
            self.columns_at as usize,
            "timestamps end where the columns begin"
        );
    }
}

/// Takes the members' columns in order.
pub(crate) struct ChunkBuilder {
    chunk: Chunk,
    ends: Vec<u32>,
    bytes: Vec<u8>,
}

impl ChunkBuilder {
    /// Adds the next member's column; `keep_empty` stores a column without any value, for rows that mean deletion.
    pub(crate) fn push(&mut self, column: &Column, hint: &mut u8, keep_empty: bool) {
        if keep_empty || !column.values().is_empty() {
            column.encode(hint, &mut self.bytes);
        }
        self.ends.push(self.bytes.len() as u32);
    }

    pub(crate) fn finish(mut self) -> Chunk {
        self.bytes.extend_from_slice(&[0; PADDING]);
        self.chunk.ends = self.ends.into_boxed_slice();
        self.chunk.bytes = self.bytes.into_boxed_slice();
        self.chunk
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::head::column::HINT_UNKNOWN;

    #[test]
    fn members_and_odd_timestamps_come_back() {
        for times in [
            vec![5],
            (0..60).map(|i| 1_700_000_000_000 + i * 15_000 + i % 4).collect::<Vec<i64>>(),
            vec![i64::MIN, -1, 0, i64::MAX],
        ] {
            let mut b = Chunk::builder(&times, 3);
            for member in 0..3u64 {
                let mut c = Column::default();
                for i in 0..times.len() as u64 {
                    c.push((member != 1 && (member == 0 || i % 2 == 0)).then(|| (i as f64 * 1.5).to_bits()));
                }
                b.push(&c, &mut { HINT_UNKNOWN }, false);
            }
            let chunk = b.finish();
            let (mut buf, mut t, mut v) = (ChunkBuf::default(), Vec::new(), Vec::new());
            chunk.read(0, (i64::MIN, i64::MAX), &mut buf, &mut t, &mut v);
            assert_eq!(t, times);
            assert_eq!(v, (0..times.len()).map(|i| i as f64 * 1.5).collect::<Vec<_>>());
            t.clear();
            chunk.read(1, (i64::MIN, i64::MAX), &mut buf, &mut t, &mut v);
            chunk.read(3, (i64::MIN, i64::MAX), &mut buf, &mut t, &mut v);
            assert!(t.is_empty());
            chunk.read(2, (times[0] + 1, i64::MAX), &mut buf, &mut t, &mut v);
            assert_eq!(t, times.iter().copied().step_by(2).skip(1).collect::<Vec<_>>());
        }
    }
}
