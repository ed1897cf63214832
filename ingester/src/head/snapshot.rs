//! What a reader takes of one series under the lock, and decodes outside it: shared pointers to sealed pieces, copies of
//! what is open.

use std::sync::Arc;

use sextant_model::{Labels, SeriesBuf};

use super::{
    chunk::{Chunk, ChunkBuf},
    histograms::Histograms,
    series::{BESIDE, DELTA, HISTOGRAMS, STARTS, SeriesRef},
    side::Side,
    starts::Starts,
    tenant::Rows,
};

/// One series at one moment.
pub(crate) struct Snapshot {
    pub(crate) labels: Labels,
    sealed: Option<Arc<Vec<Arc<Chunk>>>>,
    slot: u16,
    open_t: Vec<i64>,
    open_v: Vec<f64>,
    side: Option<Side>,
    histograms: Option<Histograms>,
    starts: Option<Starts>,
    /// Times to leave out.
    deleted: Vec<(i64, i64)>,
}

/// Memory that reading needs, kept over many series.
#[derive(Default)]
pub(crate) struct ReadBuf {
    chunk: ChunkBuf,
    side: Vec<(i64, Option<u64>)>,
    merged_t: Vec<i64>,
    merged_v: Vec<f64>,
}

impl Snapshot {
    /// Takes a series; open values outside the range are left behind.
    pub(crate) fn take(rows: &Rows, series: SeriesRef, labels: Labels, range: (i64, i64)) -> Self {
        let place = rows.table.place(series);
        let mut snapshot = Self {
            labels,
            sealed: None,
            slot: 0,
            open_t: Vec::new(),
            open_v: Vec::new(),
            side: None,
            histograms: None,
            starts: None,
            deleted: rows.deleted(series),
        };
        if let Some((group, slot)) = place.group() {
            let group = &rows.groups[group as usize].group;
            snapshot.slot = slot;
            if !group.sealed().is_empty() {
                snapshot.sealed = Some(group.sealed().clone());
            }
            let open = group.open_len();
            snapshot.open_t.reserve_exact(open);
            snapshot.open_v.reserve_exact(open);
            for (t, bits) in group.open_values(slot as usize, range) {
                snapshot.open_t.push(t);
                snapshot.open_v.push(f64::from_bits(bits));
            }
        }
        if place.has(BESIDE) {
            snapshot.side = rows.sides.get(&series).cloned();
        }
        if place.has(HISTOGRAMS) {
            snapshot.histograms = rows.histograms.get(&series).cloned();
        }
        if place.has(STARTS) {
            snapshot.starts = rows.starts(series).cloned();
        }
        snapshot
    }

    /// Replaces the contents of `out` by the samples within the range.
    pub(crate) fn read(&self, range: (i64, i64), buf: &mut ReadBuf, out: &mut SeriesBuf) {
        out.clear();
        for chunk in self.sealed.iter().flat_map(|s| s.iter()) {
            chunk.read(self.slot as usize, range, &mut buf.chunk, &mut out.t, &mut out.v);
        }
        out.t.extend_from_slice(&self.open_t);
        out.v.extend_from_slice(&self.open_v);
        if let Some(side) = &self.side {
            side.read(range, &mut buf.chunk, &mut buf.side);
            overlay(out, buf);
        }
        if let Some(histograms) = &self.histograms {
            histograms.read(range, &mut out.h);
        }
        if let Some(starts) = &self.starts {
            starts.read(&out.t, &mut out.start);
            if out.start.iter().all(|&s| s == sextant_model::NO_START) {
                out.start.clear();
            }
        }
        if !self.deleted.is_empty() {
            out.remove(&self.deleted);
        }
    }
}

/// Merges the side entries in `buf` into `out`, where they override.
fn overlay(out: &mut SeriesBuf, buf: &mut ReadBuf) {
    let ReadBuf { side, merged_t, merged_v, .. } = buf;
    merged_t.clear();
    merged_v.clear();
    let mut i = 0;
    for &(t, bits) in side.iter() {
        let upto = i + out.t[i..].partition_point(|&x| x < t);
        merged_t.extend_from_slice(&out.t[i..upto]);
        merged_v.extend_from_slice(&out.v[i..upto]);
        i = upto + usize::from(out.t.get(upto) == Some(&t));
        if let Some(bits) = bits {
            merged_t.push(t);
            merged_v.push(f64::from_bits(bits));
        }
    }
    merged_t.extend_from_slice(&out.t[i..]);
    merged_v.extend_from_slice(&out.v[i..]);
    std::mem::swap(&mut out.t, merged_t);
    std::mem::swap(&mut out.v, merged_v);
}

/// Whether a series has a sample at all. A series of increments can have a place and no sample, because all its
/// increments came too late.
pub(crate) fn has_any_sample(rows: &Rows, series: SeriesRef, buf: &mut (ReadBuf, SeriesBuf)) -> bool {
    let place = rows.table.place(series);
    if place.has(DELTA) || rows.is_cut(series) {
        return has_samples(rows, series, (i64::MIN, i64::MAX), buf);
    }
    place.group().is_some() || place.has(HISTOGRAMS)
}

/// Whether a series has a sample within the range. Looks at rows' masks first, and decodes only at the range's ends.
pub(crate) fn has_samples(
    rows: &Rows,
    series: SeriesRef,
    range: (i64, i64),
    buf: &mut (ReadBuf, SeriesBuf),
) -> bool {
    let place = rows.table.place(series);
    let simple = !place.has(BESIDE | HISTOGRAMS) && !rows.is_cut(series);
    if simple {
        let Some((group, slot)) = place.group() else { return false };
        let group = &rows.groups[group as usize].group;
        if group.open_values(slot as usize, range).next().is_some() {
            return true;
        }
        let inside = |c: &&Arc<Chunk>| range.0 <= c.range().0 && c.range().1 <= range.1;
        if group.sealed().iter().filter(inside).any(|c| c.mask(slot as usize) != 0) {
            return true;
        }
        let cut = |c: &Arc<Chunk>| {
            let (first, last) = c.range();
            first <= range.1 && last >= range.0 && !inside(&c)
        };
        if !group.sealed().iter().any(cut) {
            return false;
        }
    }
    Snapshot::take(rows, series, Labels::empty(), range).read(range, &mut buf.0, &mut buf.1);
    !buf.1.is_empty()
}
