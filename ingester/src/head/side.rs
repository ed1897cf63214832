//! Samples of one series that its group cannot take: late, or of a series that keeps its own time.
//!
//! Constraint: entries are kept in the order of the log, and of two entries for one timestamp the later one counts. An
//! entry without a value says that the float at that time is gone (a histogram took its place). Entries override the
//! group's sealed rows. Sealed every [`SIDE_ROWS`] entries; sealed chunks may overlap in time.

use std::sync::Arc;

use super::{
    chunk::{Chunk, ChunkBuf},
    column::{Column, HINT_UNKNOWN},
};

/// Entries that stay uncompressed: 16 bytes each, so half a KiB per series.
const SIDE_ROWS: usize = 32;

/// See the module's documentation.
#[derive(Clone, Default)]
pub(crate) struct Side {
    sealed: Vec<Arc<Chunk>>,
    t: Vec<i64>,
    bits: Vec<u64>,
    /// Bit i is set where open entry i has no value.
    gone: u64,
    hint: Option<u8>,
}

impl Side {
    /// Adds an entry; `memory` follows what the entries take.
    pub(crate) fn push(&mut self, t: i64, bits: Option<u64>, memory: &mut usize) {
        if bits.is_none() {
            self.gone |= 1 << self.t.len();
        }
        let capacity = self.t.capacity();
        self.t.push(t);
        self.bits.push(bits.unwrap_or(0));
        *memory += (self.t.capacity() - capacity) * 16;
        if self.t.len() == SIDE_ROWS {
            self.seal(memory);
        }
    }

    fn open(&self) -> impl Iterator<Item = (i64, Option<u64>)> + '_ {
        let entries = self.t.iter().zip(&self.bits).enumerate();
        entries.map(|(i, (&t, &b))| (t, (self.gone >> i & 1 == 0).then_some(b)))
    }

    fn seal(&mut self, memory: &mut usize) {
        let mut entries: Vec<(i64, Option<u64>)> = self.open().collect();
        last_of_equal_times(&mut entries);
        let mut times = Vec::with_capacity(entries.len());
        let mut column = Column::default();
        for (t, bits) in entries {
            times.push(t);
            column.push(bits);
        }
        let mut builder = Chunk::builder(&times, 1);
        let mut hint = self.hint.unwrap_or(HINT_UNKNOWN);
        builder.push(&column, &mut hint, true);
        self.hint = Some(hint);
        let chunk = builder.finish();
        *memory += chunk.memory() + 8;
        self.sealed.push(Arc::new(chunk));
        self.t.clear();
        self.bits.clear();
        self.gone = 0;
    }

    /// The entry of the latest time that may hold a value.
    pub(crate) fn newest(&self) -> Option<i64> {
        let sealed = self.sealed.iter().map(|c| c.range().1).max();
        self.t.iter().copied().max().max(sealed)
    }

    /// The entries within a range, one per timestamp, in order of time.
    pub(crate) fn read(&self, range: (i64, i64), buf: &mut ChunkBuf, out: &mut Vec<(i64, Option<u64>)>) {
        out.clear();
        let mut add = |t: i64, bits: Option<u64>| {
            if range.0 <= t && t <= range.1 {
                out.push((t, bits));
            }
        };
        for chunk in &self.sealed {
            let (first, last) = chunk.range();
            if first <= range.1 && last >= range.0 {
                chunk.rows(0, buf, &mut add);
            }
        }
        self.open().for_each(|(t, b)| add(t, b));
        last_of_equal_times(out);
    }
}

/// Sorts by time and keeps, of entries with one timestamp, the last.
fn last_of_equal_times(entries: &mut Vec<(i64, Option<u64>)>) {
    if entries.windows(2).all(|w| w[0].0 < w[1].0) {
        return;
    }
    entries.sort_by_key(|e| e.0);
    entries.dedup_by(|later, kept| {
        let same = later.0 == kept.0;
        if same {
            *kept = *later;
        }
        same
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_entry_of_a_time_counts_across_chunks() {
        let (mut s, mut memory) = (Side::default(), 0);
        for round in 0..5u64 {
            for t in (0..20).rev() {
                s.push(t, (t != 3 || round == 4).then_some(round), &mut memory);
            }
        }
        s.push(7, None, &mut memory);
        let mut out = Vec::new();
        s.read((1, 8), &mut ChunkBuf::default(), &mut out);
        let want: Vec<_> = (1..=8).map(|t| (t, (t != 7).then_some(4))).collect();
        assert_eq!(out, want);
        assert_eq!(s.newest(), Some(19));
    }
}
