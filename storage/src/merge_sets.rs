//! Sets of series from blocks and heads into one: each series once, each timestamp once, the last write wins.

use std::{cmp::Ordering, collections::BinaryHeap};

use sextant_model::{HistogramSample, Labels, NO_START, SeriesBuf, SeriesSet};

use crate::block::order;

/// Samples of one series in one place.
#[derive(Clone, Copy, Default)]
pub(crate) struct Part<'a> {
    pub t: &'a [i64],
    pub v: &'a [f64],
    /// Empty, or parallel to `t`.
    pub start: &'a [i64],
    pub h: &'a [HistogramSample],
}

impl<'a> Part<'a> {
    pub fn of(set: &'a SeriesSet, i: usize) -> Self {
        let (t, v) = set.floats(i);
        Self { t, v, start: set.starts(i), h: set.histograms(i) }
    }

    fn first(&self) -> i64 {
        let float = self.t.first().copied().unwrap_or(i64::MAX);
        self.h.first().map_or(float, |h| float.min(h.t))
    }

    fn last(&self) -> i64 {
        let float = self.t.last().copied().unwrap_or(i64::MIN);
        self.h.last().map_or(float, |h| float.max(h.t))
    }
}

/// Merges sets, each with its priority: for equal series and timestamps the sample of the higher priority is taken
/// (of equal ones the later in the list), also where one is a float and the other a histogram. A block's priority is
/// [`crate::BlockMeta::priority`]; what is not in blocks yet is newer than all of them, `u64::MAX`.
///
/// Fewer than 2^32 samples come out: the caller's limits see to it.
pub fn merge_series_sets(sets: Vec<(u64, SeriesSet)>) -> SeriesSet {
    let mut sets: Vec<(u64, SeriesSet)> = sets.into_iter().filter(|(_, s)| !s.is_empty()).collect();
    if sets.len() <= 1 {
        return sets.pop().map_or_else(SeriesSet::new, |(_, s)| s);
    }
    sets.sort_by_key(|(priority, _)| *priority);
    let sets: Vec<SeriesSet> = sets.into_iter().map(|(_, s)| s).collect();
    let mut out = SeriesSet::new();
    out.t.reserve(sets.iter().map(|s| s.t.len()).sum());
    out.v.reserve(sets.iter().map(|s| s.v.len()).sum());
    let mut heap: BinaryHeap<Head<'_>> =
        sets.iter().enumerate().map(|(set, s)| Head { labels: &s.labels[0], set, at: 0 }).collect();
    let mut same: Vec<(usize, usize)> = Vec::new();
    let mut parts: Vec<Part<'_>> = Vec::new();
    let mut buf = SeriesBuf::default();
    while let Some(head) = heap.pop() {
        let labels = head.labels;
        same.clear();
        same.push((head.set, head.at));
        while let Some(next) = heap.peek()
            && next.labels.as_bytes() == labels.as_bytes()
        {
            same.push((next.set, next.at));
            heap.pop();
        }
        for &(set, at) in &same {
            if let Some(labels) = sets[set].labels.get(at + 1) {
                heap.push(Head { labels, set, at: at + 1 });
            }
        }
        if let [(set, at)] = same[..] {
            append(&mut out, labels, Part::of(&sets[set], at));
            continue;
        }
        // The heap gives equal labels in order of set, which is that of priority.
        parts.clear();
        parts.extend(same.iter().map(|&(set, at)| Part::of(&sets[set], at)));
        buf.clear();
        merge_parts(&parts, &mut buf);
        append(&mut out, labels, Part { t: &buf.t, v: &buf.v, start: &buf.start, h: &buf.h });
    }
    out
}

/// The next series of a set.
struct Head<'a> {
    labels: &'a Labels,
    set: usize,
    at: usize,
}

impl Ord for Head<'_> {
    /// The heap's greatest is the first in order of labels and set.
    fn cmp(&self, other: &Self) -> Ordering {
        order::compare(other.labels.as_bytes(), self.labels.as_bytes()).then(other.set.cmp(&self.set))
    }
}

impl PartialOrd for Head<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Head<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Head<'_> {}

fn append(out: &mut SeriesSet, labels: &Labels, p: Part<'_>) {
    let before = out.t.len();
    out.labels.push(labels.clone());
    out.t.extend_from_slice(p.t);
    out.v.extend_from_slice(p.v);
    if !p.start.is_empty() {
        out.start.resize(before, NO_START);
        out.start.extend_from_slice(p.start);
    } else if !out.start.is_empty() {
        out.start.resize(out.t.len(), NO_START);
    }
    out.offsets.push(out.t.len() as u32);
    if !p.h.is_empty() {
        out.h_offsets.resize(out.labels.len(), out.h.len() as u32);
        out.h.extend_from_slice(p.h);
    }
    if !out.h_offsets.is_empty() {
        out.h_offsets.push(out.h.len() as u32);
    }
}

/// Merges parts of one series, in ascending order of priority, into an empty buffer.
pub(crate) fn merge_parts(parts: &[Part<'_>], out: &mut SeriesBuf) {
    let mut by_time: Vec<&Part<'_>> = parts.iter().filter(|p| !p.t.is_empty() || !p.h.is_empty()).collect();
    by_time.sort_by_key(|p| p.first());
    if by_time.windows(2).all(|p| p[0].last() < p[1].first()) {
        for p in by_time {
            put_floats(out, p.t, p.v, p.start);
            out.h.extend_from_slice(p.h);
        }
        return;
    }
    if parts.iter().all(|p| p.h.is_empty()) {
        let mut older = SeriesBuf::default();
        for p in parts {
            std::mem::swap(out, &mut older);
            out.clear();
            merge_floats(&older, p, out);
        }
        return;
    }
    merge_kinds(parts, out);
}

fn put_floats(out: &mut SeriesBuf, t: &[i64], v: &[f64], start: &[i64]) {
    if !start.is_empty() {
        out.start.resize(out.t.len(), NO_START);
        out.start.extend_from_slice(start);
    } else if !out.start.is_empty() {
        out.start.resize(out.t.len() + t.len(), NO_START);
    }
    out.t.extend_from_slice(t);
    out.v.extend_from_slice(v);
}

/// Copies runs of both sides; at equal timestamps the newer side's sample.
fn merge_floats(older: &SeriesBuf, newer: &Part<'_>, out: &mut SeriesBuf) {
    let slice = |start: &[i64], r: std::ops::Range<usize>| -> std::ops::Range<usize> {
        if start.is_empty() { 0..0 } else { r }
    };
    let (mut a, mut b) = (0, 0);
    while a < older.t.len() && b < newer.t.len() {
        let a_end = a + older.t[a..].partition_point(|t| *t < newer.t[b]);
        put_floats(out, &older.t[a..a_end], &older.v[a..a_end], &older.start[slice(&older.start, a..a_end)]);
        a = a_end;
        let Some(&bound) = older.t.get(a) else { break };
        let b_end = b + newer.t[b..].partition_point(|t| *t <= bound);
        put_floats(out, &newer.t[b..b_end], &newer.v[b..b_end], &newer.start[slice(newer.start, b..b_end)]);
        if b_end > b && newer.t[b_end - 1] == bound {
            a += 1;
        }
        b = b_end;
    }
    let (a_end, b_end) = (older.t.len(), newer.t.len());
    put_floats(out, &older.t[a..], &older.v[a..], &older.start[slice(&older.start, a..a_end)]);
    put_floats(out, &newer.t[b..], &newer.v[b..], &newer.start[slice(newer.start, b..b_end)]);
}

/// The general way: every sample with its time and priority, the last of each timestamp.
fn merge_kinds(parts: &[Part<'_>], out: &mut SeriesBuf) {
    let mut all: Vec<(i64, usize, bool, usize)> = Vec::new();
    for (priority, p) in parts.iter().enumerate() {
        all.extend(p.t.iter().enumerate().map(|(k, &t)| (t, priority, false, k)));
        all.extend(p.h.iter().enumerate().map(|(k, h)| (h.t, priority, true, k)));
    }
    all.sort_unstable();
    for (i, &(t, priority, histogram, k)) in all.iter().enumerate() {
        if all.get(i + 1).is_some_and(|next| next.0 == t) {
            continue;
        }
        let p = &parts[priority];
        if histogram {
            out.h.push(p.h[k].clone());
        } else {
            let start = if p.start.is_empty() { &[][..] } else { &p.start[k..=k] };
            put_floats(out, &p.t[k..=k], &p.v[k..=k], start);
        }
    }
}
