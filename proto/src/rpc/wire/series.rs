//! Series sets in parts of about a MiB, each of which is read without the others.
//!
//! ```text
//! u8 version=1 | u8 flags | v selection | v pieces { index } | labels of all pieces | columns of each piece
//! flags       bit 0: the first piece goes on with the series of the last piece of the part before
//! selection   which of several selections it belongs to; they follow each other, 0 where there is one
//! index       v label bytes | v floats | v bytes of timestamps | v bytes of starts, 0 where there are none
//!             | v histograms | v bytes of histograms
//! columns     timestamps  { z: the first, then the first difference, then differences of differences }
//!             values      { f64 }
//!             starts      { z start − previous start }
//!             histograms  { z time − previous time, z start − previous start, encoded histogram }
//! ```
//! Series are in order of their labels and unique within a selection; a series larger than a part is several pieces. The index
//! stands before the columns so that a reader can keep a part as it came and decode a few of its series.

use std::{collections::VecDeque, ops::Range};

use bytes::Bytes;
use sextant_model::{Histogram, HistogramSample, Labels, SeriesBuf, SeriesSet};

use super::{Malformed, answer, take_u32};
use crate::write_batch::{Reader, put_varint, put_zigzag};

/// The most samples of a piece; a histogram counts as [`HISTOGRAM_WEIGHT`].
const PIECE_SAMPLES_MAX: usize = 1 << 16;
const HISTOGRAM_WEIGHT: usize = 16;
const FLAG_CONTINUES: u8 = 1;
/// The smallest index entry.
const INDEX_BYTES_MIN: usize = 6;

/// Cuts series into parts of about `target` bytes.
pub(crate) struct PartEncoder {
    target: usize,
    selection: u32,
    continues: bool,
    pieces: u64,
    index: Vec<u8>,
    labels: Vec<u8>,
    columns: Vec<u8>,
}

impl PartEncoder {
    pub(crate) fn new(target: usize) -> Self {
        Self {
            target,
            selection: 0,
            continues: false,
            pieces: 0,
            index: Vec::new(),
            labels: Vec::new(),
            columns: Vec::new(),
        }
    }

    /// Series from here on are of the next selection.
    pub(crate) fn next_selection(&mut self, out: &mut VecDeque<Bytes>) {
        self.finish(out);
        self.selection += 1;
    }

    /// Adds series `i` of a set, and what is full to `out`.
    pub(crate) fn push(&mut self, set: &SeriesSet, i: usize, out: &mut VecDeque<Bytes>) {
        let (t, v) = set.floats(i);
        let (start, h) = (set.starts(i), set.histograms(i));
        let (mut float, mut histogram) = (0, 0);
        loop {
            let floats = float..t.len().min(float + PIECE_SAMPLES_MAX);
            let room = (PIECE_SAMPLES_MAX - floats.len()) / HISTOGRAM_WEIGHT;
            let histograms = histogram..h.len().min(histogram + room);
            (float, histogram) = (floats.end, histograms.end);
            let starts = start.get(floats.clone()).unwrap_or_default();
            self.piece(&set.labels[i], &t[floats.clone()], &v[floats], starts, &h[histograms]);
            let is_last = float == t.len() && histogram == h.len();
            if !is_last || self.bytes() >= self.target {
                self.finish(out);
                self.continues = !is_last;
            }
            if is_last {
                return;
            }
        }
    }

    fn bytes(&self) -> usize {
        self.index.len() + self.labels.len() + self.columns.len()
    }

    fn piece(&mut self, labels: &Labels, t: &[i64], v: &[f64], start: &[i64], h: &[HistogramSample]) {
        self.pieces += 1;
        self.labels.extend_from_slice(labels.as_bytes());
        put_varint(&mut self.index, labels.as_bytes().len() as u64);
        let columns = &mut self.columns;
        columns.reserve(t.len() * 10);
        let at = columns.len();
        let (mut previous, mut step) = (0i64, 0i64);
        for (i, &t) in t.iter().enumerate() {
            let d = t.wrapping_sub(previous);
            put_zigzag(columns, d.wrapping_sub(step));
            // The first timestamp is no step.
            step = if i == 0 { 0 } else { d };
            previous = t;
        }
        put_varint(&mut self.index, t.len() as u64);
        put_varint(&mut self.index, (columns.len() - at) as u64);
        v.iter().for_each(|v| columns.extend_from_slice(&v.to_le_bytes()));
        let at = columns.len();
        let mut previous = 0i64;
        for &s in start {
            put_zigzag(columns, s.wrapping_sub(previous));
            previous = s;
        }
        put_varint(&mut self.index, (columns.len() - at) as u64);
        let at = columns.len();
        let (mut previous, mut previous_start) = (0i64, 0i64);
        for h in h {
            put_zigzag(columns, h.t.wrapping_sub(previous));
            put_zigzag(columns, h.start.wrapping_sub(previous_start));
            h.h.encode(columns);
            (previous, previous_start) = (h.t, h.start);
        }
        put_varint(&mut self.index, h.len() as u64);
        put_varint(&mut self.index, (columns.len() - at) as u64);
    }

    /// What is left, to `out`.
    pub(crate) fn finish(&mut self, out: &mut VecDeque<Bytes>) {
        if self.pieces == 0 {
            return;
        }
        let mut part = answer();
        part.reserve_exact(24 + self.bytes());
        part.push(if std::mem::take(&mut self.continues) { FLAG_CONTINUES } else { 0 });
        put_varint(&mut part, u64::from(self.selection));
        put_varint(&mut part, std::mem::take(&mut self.pieces));
        part.append(&mut self.index);
        part.append(&mut self.labels);
        part.append(&mut self.columns);
        out.push_back(part.into());
    }
}

/// A set as parts.
pub(crate) struct SetParts {
    set: SeriesSet,
    next: usize,
    encoder: PartEncoder,
    ready: VecDeque<Bytes>,
}

impl SetParts {
    pub(crate) fn new(set: SeriesSet, target: usize) -> Self {
        Self { set, next: 0, encoder: PartEncoder::new(target), ready: VecDeque::new() }
    }
}

impl Iterator for SetParts {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        while self.ready.is_empty() && self.next < self.set.len() {
            self.encoder.push(&self.set, self.next, &mut self.ready);
            self.next += 1;
        }
        if self.ready.is_empty() {
            self.encoder.finish(&mut self.ready);
        }
        self.ready.pop_front()
    }
}

/// One piece's place in a part.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece {
    pub(crate) floats: u32,
    pub(crate) histograms: u32,
    at: u32,
    t_bytes: u32,
    start_bytes: u32,
    h_bytes: u32,
}

/// A part: its index decoded, its columns as they came.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub(crate) continues: bool,
    pub(crate) selection: u32,
    /// Parallel to `pieces`.
    pub(crate) labels: Vec<Labels>,
    pub(crate) pieces: Vec<Piece>,
    message: Bytes,
}

impl Part {
    pub(crate) fn decode(message: Bytes) -> Result<Self, Malformed> {
        let mut r = super::open_answer(&message)?;
        let flags = r.u8()?;
        if flags & !FLAG_CONTINUES != 0 {
            return Err(Malformed("unknown flags of a part"));
        }
        let selection = take_u32(&mut r)?;
        let n = r.count(INDEX_BYTES_MIN)?;
        let (mut pieces, mut lengths) = (Vec::with_capacity(n), Vec::with_capacity(n));
        // Offsets within the columns, then within the message.
        let (mut label_bytes, mut at) = (0u64, 0u64);
        for _ in 0..n {
            let label = take_u32(&mut r)?;
            let piece = Piece {
                floats: take_u32(&mut r)?,
                t_bytes: take_u32(&mut r)?,
                start_bytes: take_u32(&mut r)?,
                histograms: take_u32(&mut r)?,
                h_bytes: take_u32(&mut r)?,
                at: u32::try_from(at).map_err(|_| Malformed("columns larger than the part"))?,
            };
            if piece.floats > piece.t_bytes || piece.histograms > piece.h_bytes {
                return Err(Malformed("more samples than bytes"));
            }
            if piece.start_bytes != 0 && piece.start_bytes < piece.floats {
                return Err(Malformed("fewer start timestamps than samples"));
            }
            at += u64::from(piece.t_bytes) + u64::from(piece.floats) * 8;
            at += u64::from(piece.start_bytes) + u64::from(piece.h_bytes);
            label_bytes += u64::from(label);
            lengths.push(label as usize);
            pieces.push(piece);
        }
        if label_bytes + at != r.0.len() as u64 {
            return Err(Malformed("the columns are not as long as the index says"));
        }
        let base = message.len() - r.0.len();
        let mut rest = Bytes::copy_from_slice(r.take(label_bytes as usize)?);
        let mut labels = Vec::with_capacity(n);
        for n in lengths {
            let one = Labels::from_canonical(rest.split_to(n));
            labels.push(one.map_err(|_| Malformed("labels are not canonical"))?);
        }
        let base = u32::try_from(base as u64 + label_bytes).map_err(|_| Malformed("part too large"))?;
        for piece in &mut pieces {
            piece.at = piece.at.checked_add(base).ok_or(Malformed("part too large"))?;
        }
        Ok(Self { continues: flags & FLAG_CONTINUES != 0, selection, labels, pieces, message })
    }

    /// The part's size in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.message.len()
    }

    /// Appends the samples of one piece.
    pub(crate) fn read(&self, piece: Piece, out: &mut SeriesBuf) -> Result<(), Malformed> {
        let mut r = Reader(self.message.get(piece.at as usize..).unwrap_or_default());
        let mut t = Reader(r.take(piece.t_bytes as usize)?);
        let values = r.take(piece.floats as usize * 8)?;
        let mut start = Reader(r.take(piece.start_bytes as usize)?);
        let mut h = Reader(r.take(piece.h_bytes as usize)?);
        let before = out.t.len();
        let (mut previous, mut step) = (0i64, 0i64);
        out.t.reserve(piece.floats as usize);
        for i in 0..piece.floats {
            let d = step.wrapping_add(t.zigzag()?);
            step = if i == 0 { 0 } else { d };
            previous = previous.wrapping_add(d);
            out.t.push(previous);
        }
        super::end(&t)?;
        let double = |b: &[u8]| f64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]);
        out.v.extend(values.chunks_exact(8).map(double));
        if piece.start_bytes != 0 {
            out.start.resize(before, sextant_model::NO_START);
            let mut previous = 0i64;
            for _ in 0..piece.floats {
                previous = previous.wrapping_add(start.zigzag()?);
                out.start.push(previous);
            }
            super::end(&start)?;
        } else if !out.start.is_empty() {
            out.start.resize(out.t.len(), sextant_model::NO_START);
        }
        let (mut previous, mut previous_start) = (0i64, 0i64);
        for _ in 0..piece.histograms {
            previous = previous.wrapping_add(h.zigzag()?);
            previous_start = previous_start.wrapping_add(h.zigzag()?);
            let decoded = Histogram::decode(&mut h.0).map_err(|_| Malformed("not a histogram"))?;
            out.h.push(HistogramSample { t: previous, start: previous_start, h: decoded });
        }
        super::end(&h)
    }
}

/// Why a part was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotTaken {
    Malformed(Malformed),
    /// More series, or samples, than the limits allow.
    TooManySeries,
    TooManySamples,
}

impl From<Malformed> for NotTaken {
    fn from(e: Malformed) -> Self {
        Self::Malformed(e)
    }
}

/// One selection's parts, as they came, and its series in order.
#[derive(Debug, Default)]
pub(crate) struct Parts {
    pub(crate) labels: Vec<Labels>,
    /// Where each series' pieces begin in `pieces`.
    first: Vec<u32>,
    /// (part, index in it)
    pieces: Vec<(u32, u32)>,
    parts: Vec<Part>,
    samples: usize,
}

impl Parts {
    /// Adds the next part of this selection within what is left of the limits.
    pub(crate) fn push(&mut self, part: Part, series_max: usize, samples_max: usize) -> Result<(), NotTaken> {
        let number = u32::try_from(self.parts.len()).map_err(|_| Malformed("too many parts"))?;
        for (i, (labels, piece)) in part.labels.iter().zip(&part.pieces).enumerate() {
            if i == 0 && part.continues {
                if self.labels.last() != Some(labels) {
                    return Err(Malformed("a part goes on with another series").into());
                }
            } else {
                if self.labels.last().is_some_and(|last| last >= labels) {
                    return Err(Malformed("series out of order").into());
                }
                if self.labels.len() >= series_max {
                    return Err(NotTaken::TooManySeries);
                }
                self.first.push(self.pieces.len() as u32);
                self.labels.push(labels.clone());
            }
            self.samples += piece.floats as usize + piece.histograms as usize;
            if self.samples > samples_max.min(u32::MAX as usize) {
                return Err(NotTaken::TooManySamples);
            }
            self.pieces.push((number, i as u32));
        }
        self.parts.push(Part { labels: Vec::new(), ..part });
        Ok(())
    }

    pub(crate) fn samples(&self) -> usize {
        self.samples
    }

    /// Bytes kept, without the labels' own.
    pub(crate) fn bytes(&self) -> usize {
        self.parts.iter().map(Part::bytes).sum()
    }

    fn pieces(&self, series: usize) -> impl Iterator<Item = (&Part, Piece)> {
        let end = self.first.get(series + 1).map_or(self.pieces.len(), |&n| n as usize);
        let range = self.first.get(series).map_or(end, |&n| n as usize)..end;
        let found = self.pieces.get(range).unwrap_or_default();
        found.iter().filter_map(|&(part, piece)| {
            let part = self.parts.get(part as usize)?;
            Some((part, *part.pieces.get(piece as usize)?))
        })
    }

    /// Samples of a series; a histogram counts as 16.
    pub(crate) fn estimate(&self, series: usize) -> usize {
        self.pieces(series).map(|(_, p)| p.floats as usize + p.histograms as usize * HISTOGRAM_WEIGHT).sum()
    }

    /// A range of the series with their samples.
    pub(crate) fn read(&self, series: Range<usize>) -> Result<SeriesSet, Malformed> {
        let (mut set, mut buf) = (SeriesSet::new(), SeriesBuf::default());
        for i in series {
            buf.clear();
            for (part, piece) in self.pieces(i) {
                part.read(piece, &mut buf)?;
            }
            if let Some(labels) = self.labels.get(i).filter(|_| !buf.is_empty()) {
                set.push(labels.clone(), &buf);
            }
        }
        Ok(set)
    }
}
