//! Series that arrive together: rows of values with one timestamp each, sealed into chunks.
//!
//! Constraints: rows are ascending in time and strictly after `sealed_until`; a timestamp at or before it never opens a
//! row again, so a sample kept beside the group ([`super::side`]) at such a time is always the later write. Members keep
//! their slots for the group's life.
//!
//! Format: a row holds one `u64` of float bits per member, [`ABSENT`] where there is no value; a row may be shorter than
//! the group, what is missing is absent. The two bit patterns that rows use as markers are escaped into a list.

use std::sync::Arc;

use super::{
    chunk::Chunk,
    column::{Column, HINT_UNKNOWN, ROWS_MAX},
};

/// Members of a group: beyond this, finding and widening rows costs more than a second group.
pub(crate) const MEMBERS_MAX: usize = 512;

/// Rows that stay open when the 60 before them are sealed, for connections that run apart by some scrapes.
pub(crate) const ROWS_KEPT: usize = 12;

/// No value. A NaN that no program writes by accident; if one does, the value is escaped.
const ABSENT: u64 = 0x7ff4_5e78_7461_6e74;

/// A value whose bits are a marker; the last entry of `escapes` for the place has it.
const ESCAPED: u64 = ABSENT | 1;

const fn is_marker(bits: u64) -> bool {
    bits | 1 == ESCAPED
}

struct Row {
    t: i64,
    bits: Vec<u64>,
}

/// Where a run was written.
pub(crate) enum Written {
    /// In rows; so many values had no value before them.
    Rows(usize),
    /// The rows of this time are sealed, or the group has no rows any more: write each sample beside the group.
    Late,
}

/// See the module's documentation.
#[derive(Default)]
pub(crate) struct Group {
    rows: Vec<Row>,
    sealed: Arc<Vec<Arc<Chunk>>>,
    sealed_until: Option<i64>,
    hints: Vec<u8>,
    escapes: Vec<(i64, u32, u64)>,
    closed: bool,
    dissolved: bool,
    /// A member is a series of increments or has histograms: runs are looked at sample by sample.
    pub(crate) special: bool,
    /// A member has start timestamps.
    pub(crate) has_starts: bool,
}

impl Group {
    /// Adds a member and returns its slot.
    pub(crate) fn join(&mut self) -> u16 {
        self.hints.push(HINT_UNKNOWN);
        if self.hints.len() == MEMBERS_MAX {
            self.closed = true;
        }
        (self.hints.len() - 1) as u16
    }

    /// Whether a series whose first sample is at `t` should join.
    pub(crate) fn takes(&self, t: i64) -> bool {
        !self.closed && (self.rows.is_empty() && self.sealed.is_empty() || self.find(t).is_ok())
    }

    /// Members.
    pub(crate) fn len(&self) -> usize {
        self.hints.len()
    }

    /// Whether members were given up to samples of their own.
    pub(crate) fn is_dissolved(&self) -> bool {
        self.dissolved
    }

    /// The sealed chunks, oldest first.
    pub(crate) fn sealed(&self) -> &Arc<Vec<Arc<Chunk>>> {
        &self.sealed
    }

    /// How many rows are open.
    pub(crate) fn open_len(&self) -> usize {
        self.rows.len()
    }

    fn find(&self, t: i64) -> Result<usize, usize> {
        match self.rows.last() {
            Some(r) if r.t == t => Ok(self.rows.len() - 1),
            Some(r) if r.t < t => Err(self.rows.len()),
            _ => self.rows.binary_search_by_key(&t, |r| r.t),
        }
    }

    /// Writes consecutive members' float bits at one time. `memory` follows what the group takes.
    #[inline]
    pub(crate) fn write(&mut self, slot: usize, t: i64, values: &[u64], memory: &mut usize) -> Written {
        let i = match self.find(t) {
            Ok(i) => i,
            Err(_) if self.dissolved || self.sealed_until.is_some_and(|s| t <= s) => return Written::Late,
            Err(i) => {
                let bits = Vec::with_capacity(self.hints.len().max(slot + values.len()));
                *memory += row_memory(bits.capacity());
                self.rows.insert(i, Row { t, bits });
                i
            }
        };
        let row = &mut self.rows[i].bits;
        let capacity = row.capacity();
        let mut written = 0;
        let mut rest = values;
        if row.len() < slot {
            row.resize(slot, ABSENT);
        }
        let overlap = (row.len() - slot).min(values.len());
        if overlap > 0 {
            let (over, tail) = values.split_at(overlap);
            rest = tail;
            for (k, &bits) in over.iter().enumerate() {
                let old = &mut row[slot + k];
                written += usize::from(*old == ABSENT);
                *old = bits;
                if is_marker(bits) {
                    *old = ESCAPED;
                    self.escapes.push((t, (slot + k) as u32, bits));
                }
            }
        }
        if !rest.is_empty() {
            let first = row.len();
            row.extend_from_slice(rest);
            written += rest.len();
            let odd = row[first..].iter().fold(false, |odd, &b| odd | is_marker(b));
            if odd {
                for (k, bits) in row.iter_mut().enumerate().skip(first).filter(|(_, b)| is_marker(**b)) {
                    self.escapes.push((t, k as u32, *bits));
                    *bits = ESCAPED;
                }
            }
        }
        if row.capacity() != capacity {
            *memory += (row.capacity() - capacity) * 8;
        }
        Written::Rows(written)
    }

    /// Takes back a value; whether the rows of that time are still open, so that it is gone.
    pub(crate) fn erase(&mut self, slot: usize, t: i64) -> Erased {
        if self.dissolved || self.sealed_until.is_some_and(|s| t <= s) {
            return Erased::Late;
        }
        match self.find(t).ok().and_then(|i| self.rows[i].bits.get_mut(slot)) {
            Some(bits) if *bits != ABSENT => {
                *bits = ABSENT;
                Erased::Gone
            }
            _ => Erased::Nothing,
        }
    }

    /// Whether it is time to seal.
    pub(crate) fn is_full(&self) -> bool {
        self.rows.len() >= ROWS_MAX + ROWS_KEPT
    }

    /// The members' values in open rows within a range, in order of time.
    pub(crate) fn open_values(
        &self,
        slot: usize,
        range: (i64, i64),
    ) -> impl Iterator<Item = (i64, u64)> + '_ {
        let first = self.rows.partition_point(|r| r.t < range.0);
        let rows = self.rows[first..].iter().take_while(move |r| r.t <= range.1);
        rows.filter_map(move |r| Some((r.t, self.bits(r, slot)?)))
    }

    /// Calls `f` with whether the member has a value, for each open row.
    pub(crate) fn open_mask(&self, slot: usize) -> impl Iterator<Item = bool> + '_ {
        self.rows.iter().map(move |r| self.bits(r, slot).is_some())
    }

    fn bits(&self, row: &Row, slot: usize) -> Option<u64> {
        match row.bits.get(slot).copied() {
            None | Some(ABSENT) => None,
            Some(ESCAPED) => {
                let mine = |e: &&(i64, u32, u64)| e.0 == row.t && e.1 as usize == slot;
                Some(self.escapes.iter().rev().find(mine).map_or(ESCAPED, |e| e.2))
            }
            Some(bits) => Some(bits),
        }
    }

    /// Seals the oldest 60 rows. Where fewer than a third of the places hold a value, the members do not keep time
    /// together: the group gives up its rows, and every sample in them is handed to `beside` in order of time.
    pub(crate) fn seal(&mut self, memory: &mut usize, mut beside: impl FnMut(usize, i64, u64)) {
        let rows = &self.rows[..ROWS_MAX];
        let present: usize =
            rows.iter().map(|r| r.bits.iter().map(|&b| usize::from(b != ABSENT)).sum::<usize>()).sum();
        if present * 3 < ROWS_MAX * self.len() {
            for row in &self.rows {
                for slot in 0..row.bits.len() {
                    if let Some(bits) = self.bits(row, slot) {
                        beside(slot, row.t, bits);
                    }
                }
                *memory -= row_memory(row.bits.capacity());
            }
            self.rows = Vec::new();
            self.escapes = Vec::new();
            (self.dissolved, self.closed) = (true, true);
            return;
        }
        let chunk = self.seal_rows();
        *memory += chunk.memory();
        self.sealed_until = Some(chunk.range().1);
        Arc::make_mut(&mut self.sealed).push(Arc::new(chunk));
        for row in self.rows.drain(..ROWS_MAX) {
            *memory -= row_memory(row.bits.capacity());
        }
        self.escapes.retain(|e| self.sealed_until.is_some_and(|s| e.0 > s));
    }

    fn seal_rows(&mut self) -> Chunk {
        /// Members taken at a time: eight values are one cache line of a row.
        const BLOCK: usize = 8;
        let rows = &self.rows[..ROWS_MAX];
        let mut times = [0; ROWS_MAX];
        times.iter_mut().zip(rows).for_each(|(t, r)| *t = r.t);
        let mut builder = Chunk::builder(&times, self.len());
        let mut columns: [Column; BLOCK] = std::array::from_fn(|_| Column::default());
        let mut hints = std::mem::take(&mut self.hints);
        let mut dead = 0;
        for (block, hints) in hints.chunks_mut(BLOCK).enumerate() {
            columns.iter_mut().for_each(Column::clear);
            for row in rows {
                let cells = row.bits.get(block * BLOCK..).unwrap_or_default();
                for (k, column) in columns[..hints.len()].iter_mut().enumerate() {
                    column.push(match cells.get(k).copied().unwrap_or(ABSENT) {
                        ABSENT => None,
                        ESCAPED => self.bits(row, block * BLOCK + k),
                        bits => Some(bits),
                    });
                }
            }
            for (column, hint) in columns.iter().zip(hints) {
                dead += usize::from(column.values().is_empty());
                builder.push(column, hint, false);
            }
        }
        // Dead members widen every row: no newcomers, so that the group can die out.
        self.closed |= dead * 4 > hints.len();
        self.hints = hints;
        builder.finish()
    }
}

/// What erasing did.
pub(crate) enum Erased {
    /// There was a value; it is gone.
    Gone,
    /// There was none.
    Nothing,
    /// The rows of that time are sealed; whether there was a value is not looked up.
    Late,
}

fn row_memory(capacity: usize) -> usize {
    size_of::<Row>() + 16 + capacity * 8
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::head::chunk::ChunkBuf;

    fn all(g: &Group, slot: usize) -> Vec<(i64, u64)> {
        let (mut t, mut v) = (Vec::new(), Vec::new());
        let mut buf = ChunkBuf::default();
        let range = (i64::MIN, i64::MAX);
        g.sealed().iter().for_each(|c| c.read(slot, range, &mut buf, &mut t, &mut v));
        let sealed = t.into_iter().zip(v.into_iter().map(f64::to_bits));
        sealed.chain(g.open_values(slot, range)).collect()
    }

    #[test]
    fn markers_are_values_too() {
        let (mut g, mut memory) = (Group::default(), 0);
        for _ in 0..3 {
            g.join();
        }
        g.write(0, 10, &[1, ABSENT, ESCAPED], &mut memory);
        g.write(0, 10, &[ABSENT], &mut memory);
        g.write(1, 20, &[7], &mut memory);
        assert_eq!(all(&g, 0), [(10, ABSENT)]);
        assert_eq!(all(&g, 1), [(10, ABSENT), (20, 7)]);
        assert_eq!(all(&g, 2), [(10, ESCAPED)]);
        for t in 21..100 {
            g.write(0, t, &[t as u64, t as u64, t as u64], &mut memory);
            if g.is_full() {
                g.seal(&mut memory, |_, _, _| unreachable!("rows are full"));
            }
        }
        assert_eq!(g.sealed().len(), 1);
        assert_eq!(all(&g, 1)[..3], [(10, ABSENT), (20, 7), (21, 21)]);
        assert_eq!(all(&g, 2)[..2], [(10, ESCAPED), (21, 21)]);
        assert_eq!(all(&g, 0).len(), 80);
        assert!(matches!(g.write(0, 11, &[1], &mut memory), Written::Late));
    }

    #[test]
    fn rows_of_single_values_are_given_up() {
        let (mut g, mut memory) = (Group::default(), 0);
        for _ in 0..100 {
            g.join();
        }
        let mut beside = 0;
        for t in 0..100i64 {
            if let Written::Late = g.write(t as usize, t, &[1], &mut memory) {
                beside += 1;
            }
            if g.is_full() {
                g.seal(&mut memory, |_, _, _| beside += 1);
            }
        }
        assert!(g.is_dissolved());
        assert_eq!((beside, memory), (100, 0));
    }
}
