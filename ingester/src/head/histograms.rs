//! Native histograms of one series, encoded as they came.
//!
//! Constraint: entries are in the order of the log, and of two entries for one timestamp the later one counts. An entry
//! without bytes says that the histogram at that time is gone (a float took its place).

use std::sync::Arc;

use sextant_model::{Histogram, HistogramSample};

/// Entries or bytes after which a piece becomes immutable, so that a reader copies only the open piece.
const PIECE_ENTRIES: usize = 32;
const PIECE_BYTES: usize = 16 << 10;

#[derive(Clone, Copy, Debug)]
struct Entry {
    t: i64,
    start: i64,
    at: u32,
    /// `u32::MAX` where the histogram is gone.
    len: u32,
}

#[derive(Clone, Debug, Default)]
struct Piece {
    entries: Vec<Entry>,
    bytes: Vec<u8>,
}

/// See the module's documentation.
#[derive(Clone, Debug, Default)]
pub(crate) struct Histograms {
    sealed: Vec<Arc<Piece>>,
    open: Piece,
    newest: Option<i64>,
}

impl Piece {
    fn memory(&self) -> usize {
        self.entries.capacity() * size_of::<Entry>() + self.bytes.capacity()
    }

    fn encoded(&self, e: &Entry) -> Option<&[u8]> {
        if e.len == u32::MAX {
            return None;
        }
        self.bytes.get(e.at as usize..)?.get(..e.len as usize)
    }
}

impl Histograms {
    /// Adds an entry. `memory` follows what the entries take. Whether a histogram is now at a time that had none, as far as the
    /// newest entry tells.
    pub(crate) fn push(&mut self, t: i64, start: i64, encoded: Option<&[u8]>, memory: &mut usize) -> bool {
        if let Some(e) = self.open.entries.last()
            && (e.t, e.start) == (t, start)
            && self.open.encoded(e) == encoded
        {
            return false;
        }
        let before = self.open.memory();
        let at = self.open.bytes.len() as u32;
        let len = encoded.map_or(u32::MAX, |b| b.len() as u32);
        self.open.bytes.extend_from_slice(encoded.unwrap_or_default());
        self.open.entries.push(Entry { t, start, at, len });
        *memory += self.open.memory() - before;
        let new = encoded.is_some() && self.newest.is_none_or(|n| t > n);
        self.newest = self.newest.max(Some(t));
        if self.open.entries.len() >= PIECE_ENTRIES || self.open.bytes.len() >= PIECE_BYTES {
            let mut piece = std::mem::take(&mut self.open);
            let before = piece.memory();
            piece.entries.shrink_to_fit();
            piece.bytes.shrink_to_fit();
            *memory = (*memory + piece.memory() + size_of::<Piece>() + 24).saturating_sub(before);
            self.sealed.push(Arc::new(piece));
        }
        new
    }

    /// The latest time of an entry.
    pub(crate) fn newest(&self) -> Option<i64> {
        self.newest
    }

    /// Appends the histograms within a range, in order of time.
    pub(crate) fn read(&self, range: (i64, i64), out: &mut Vec<HistogramSample>) {
        let pieces = self.sealed.iter().map(Arc::as_ref).chain([&self.open]);
        let mut entries: Vec<(Entry, Option<&[u8]>)> = pieces
            .flat_map(|p| p.entries.iter().map(move |e| (*e, p.encoded(e))))
            .filter(|(e, _)| range.0 <= e.t && e.t <= range.1)
            .collect();
        if !entries.windows(2).all(|w| w[0].0.t < w[1].0.t) {
            entries.sort_by_key(|(e, _)| e.t);
        }
        let first = out.len();
        for (i, (e, encoded)) in entries.iter().enumerate() {
            let is_last = entries.get(i + 1).is_none_or(|(next, _)| next.t != e.t);
            if let Some(encoded) = encoded.filter(|_| is_last) {
                out.push(HistogramSample { t: e.t, start: e.start, h: decode(encoded) });
            }
        }
        // Who reads everything gets what was sent.
        if range.0 > i64::MIN
            && let Some(first) = out.get_mut(first)
        {
            first.h.reset_hint = first.h.hint_after(self.last_before(range.0).as_ref());
        }
    }

    /// The last histogram before a time.
    fn last_before(&self, t: i64) -> Option<Histogram> {
        let pieces = self.sealed.iter().map(Arc::as_ref).chain([&self.open]);
        let entries = pieces.flat_map(|p| p.entries.iter().map(move |e| (e.t, p.encoded(e))));
        // Of equal times the last entry counts, and may say that the histogram is gone.
        let last = entries.filter(|(at, _)| *at < t).max_by_key(|(at, _)| *at);
        last.and_then(|(_, encoded)| encoded).map(decode)
    }
}

/// Whether bytes are a histogram in the model's encoding.
pub(crate) fn is_valid(encoded: &[u8]) -> bool {
    let mut rest = encoded;
    Histogram::decode(&mut rest).is_ok() && rest.is_empty()
}

/// Decodes what was checked when it was applied.
pub(crate) fn decode(encoded: &[u8]) -> Histogram {
    Histogram::decode(&mut &encoded[..]).unwrap_or_default()
}
