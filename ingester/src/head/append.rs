//! Applies one write batch to a tenant's rows.
//!
//! A batch is checked as a whole first; after that nothing fails, and what limits forbid is refused item by item. What it
//! does depends on the batch and on the state before it only, so every replica does the same.

use sextant_model::{Histogram, Labels};
use sextant_proto::{
    AppendOutcome, NEW_SERIES_BASE, Refusal, RefusalKind, SERIES_DELTA, ShardError, WriteBatchView,
};

use super::{
    carry::TenantCarry,
    histograms,
    series::{DELTA, SeriesRef, SeriesTable},
    tenant::{FloatRun, Rows},
    totals::as_sample,
};

/// What a batch needs besides the rows.
pub(crate) struct Context<'a> {
    carry: &'a mut TenantCarry,
    now_ms: i64,
    refused: Vec<Refusal>,
}

impl Context<'_> {
    /// Refuses samples of a series, by its name in the batch.
    pub(crate) fn refuse(&mut self, series: u32, samples: u32, kind: RefusalKind) {
        match self.refused.last_mut() {
            Some(r) if r.series == series && r.kind == kind => r.samples += samples,
            _ => self.refused.push(Refusal { series, samples, kind }),
        }
    }

    /// Adds an increment; its total and start, or `None` where it comes too late.
    pub(crate) fn add_float(&mut self, series: u128, t: i64, v: f64, start: i64) -> Option<(f64, i64)> {
        self.carry.floats.add(series, t, v, start, self.now_ms)
    }

    fn add_histogram(&mut self, series: u128, t: i64, h: Histogram, start: i64) -> Option<(Histogram, i64)> {
        self.carry.histograms.add(series, t, h, start, self.now_ms)
    }
}

/// Buffers reused from batch to batch.
#[derive(Default)]
pub(crate) struct AppendBuf {
    bits: Vec<u64>,
    starts: Vec<i64>,
    hashes: Vec<u128>,
    encoded: Vec<u8>,
}

fn malformed(what: impl Into<String>) -> ShardError {
    ShardError::Malformed(what.into())
}

/// Whether the batch names series by refs of an epoch.
pub(crate) fn uses_refs(batch: &WriteBatchView<'_>) -> bool {
    batch.runs.iter().any(|r| r.first < NEW_SERIES_BASE)
        || batch.histograms.iter().any(|h| h.series < NEW_SERIES_BASE)
        || batch.exemplars.iter().any(|e| e.series < NEW_SERIES_BASE)
}

/// Whether the batch has a series of increments; `rows` are those that its refs name.
pub(crate) fn has_increments(batch: &WriteBatchView<'_>, rows: Option<&Rows>) -> bool {
    let len = rows.map_or(0, |r| r.table.len());
    let is_delta = |first: u32, count: u32| {
        let (from, to) = (first as usize, first as usize + count as usize);
        let known = rows.filter(|_| first < NEW_SERIES_BASE && to <= len);
        known.is_some_and(|r| (from..to).any(|i| r.table.place(i as SeriesRef).has(DELTA)))
    };
    batch.new_series.iter().any(|s| s.flags & SERIES_DELTA != 0)
        || batch.runs.iter().any(|r| is_delta(r.first, r.count))
        || batch.histograms.iter().any(|h| is_delta(h.series, 1))
}

/// What a batch that was applied before would have been answered: the refs of its series, as far as this generation has them.
pub(crate) fn answer_duplicate(batch: &WriteBatchView<'_>, rows: Option<&Rows>, epoch: u64) -> AppendOutcome {
    let find = |labels: &[u8]| rows.and_then(|r| r.table.find(SeriesTable::hash(labels), labels));
    let new_refs = batch.new_series.iter().map(|s| find(s.labels).unwrap_or(u32::MAX)).collect();
    AppendOutcome { epoch, new_refs, duplicate: true, refused: Vec::new() }
}

/// Checks everything of a batch that can be wrong; `len` is the number of series the tenant has.
pub(crate) fn check(
    batch: &WriteBatchView<'_>,
    rows: Option<&Rows>,
    buf: &mut AppendBuf,
) -> Result<(), ShardError> {
    let len = rows.map_or(0, |r| r.table.len() as u32);
    let known = |series: u32, count: u32| series >= NEW_SERIES_BASE || series + count <= len;
    buf.hashes.clear();
    for s in &batch.new_series {
        let hash = SeriesTable::hash(s.labels);
        buf.hashes.push(hash);
        if rows.is_none_or(|r| r.table.find(hash, s.labels).is_none()) {
            Labels::from_canonical_bytes(s.labels).map_err(|e| malformed(e.to_string()))?;
        }
    }
    if !batch.runs.iter().all(|r| known(r.first, r.count)) {
        return Err(malformed("a run names series that the shard does not have"));
    }
    for h in &batch.histograms {
        if !known(h.series, 1) {
            return Err(malformed("a histogram names a series that the shard does not have"));
        }
        if !histograms::is_valid(h.encoded) {
            return Err(malformed("a histogram does not decode"));
        }
    }
    for e in &batch.exemplars {
        if !known(e.series, 1) {
            return Err(malformed("an exemplar names a series that the shard does not have"));
        }
        Labels::from_canonical_bytes(e.labels).map_err(|e| malformed(e.to_string()))?;
    }
    let mut end = 0;
    for &(first, count, _) in &batch.starts {
        if first < end {
            return Err(malformed("start timestamps are not in order"));
        }
        end = first + count;
    }
    Ok(())
}

/// Applies a batch that [`check`] accepted with the same buffers.
pub(crate) fn apply(
    batch: &WriteBatchView<'_>,
    rows: &mut Rows,
    carry: &mut TenantCarry,
    buf: &mut AppendBuf,
    epoch: u64,
) -> AppendOutcome {
    let header = &batch.header;
    let new_refs = add_series(batch, rows, buf);
    // The newest time before the batch counts, so that the order within a batch does not decide.
    let floor = match (header.ooo_window_ms, carry.t_max) {
        (window @ 0.., Some(newest)) => newest.saturating_sub(window),
        _ => i64::MIN,
    };
    carry.touched_ms = carry.touched_ms.max(header.now_ms);
    let mut context = Context { carry, now_ms: header.now_ms, refused: Vec::new() };
    apply_floats(batch, rows, &mut context, buf, &new_refs, floor);
    apply_histograms(batch, rows, &mut context, buf, &new_refs, floor);
    for e in &batch.exemplars {
        match resolve(e.series, &new_refs) {
            Some(series) => rows.add_exemplar(series, e.t, e.v, e.labels),
            None => context.refuse(e.series, 1, RefusalKind::SeriesLimit),
        }
    }
    for (family, m) in &batch.metadata {
        rows.add_metadata(family, m);
    }
    AppendOutcome { epoch, new_refs, duplicate: false, refused: context.refused }
}

fn add_series(batch: &WriteBatchView<'_>, rows: &mut Rows, buf: &AppendBuf) -> Vec<u32> {
    let limit = match batch.header.max_series {
        0 => u64::from(NEW_SERIES_BASE),
        n => n.min(u64::from(NEW_SERIES_BASE)),
    };
    let mut new_refs = Vec::with_capacity(batch.new_series.len());
    for (s, &hash) in batch.new_series.iter().zip(&buf.hashes) {
        let flags = if s.flags & SERIES_DELTA != 0 { DELTA } else { 0 };
        new_refs.push(match rows.table.find(hash, s.labels) {
            Some(series) => {
                rows.declare(series, flags);
                series
            }
            None if rows.table.len() as u64 >= limit => u32::MAX,
            None => rows.add_series(hash, s.labels, flags),
        });
    }
    new_refs
}

fn resolve(series: u32, new_refs: &[u32]) -> Option<SeriesRef> {
    match series.checked_sub(NEW_SERIES_BASE) {
        None => Some(series),
        Some(i) => new_refs.get(i as usize).copied().filter(|&r| r != u32::MAX),
    }
}

fn apply_floats(
    batch: &WriteBatchView<'_>,
    rows: &mut Rows,
    context: &mut Context<'_>,
    buf: &mut AppendBuf,
    new_refs: &[u32],
    floor: i64,
) {
    buf.bits.clear();
    buf.bits.extend(batch.values().map(f64::to_bits));
    buf.starts.clear();
    if !batch.starts.is_empty() {
        buf.starts.resize(buf.bits.len(), sextant_model::NO_START);
        for &(first, count, start) in &batch.starts {
            buf.starts[first as usize..(first + count) as usize].fill(start);
        }
    }
    let mut at = 0;
    for run in &batch.runs {
        let range = at..at + run.count as usize;
        at = range.end;
        if run.t < floor {
            for k in 0..run.count {
                let kind = match resolve(run.first + k, new_refs) {
                    Some(_) => RefusalKind::OutsideWindow,
                    None => RefusalKind::SeriesLimit,
                };
                context.refuse(run.first + k, 1, kind);
            }
            continue;
        }
        let bits = &buf.bits[range.clone()];
        let mut starts = buf.starts.get(range).unwrap_or_default();
        if starts.iter().all(|&s| s == sextant_model::NO_START) {
            starts = &[];
        }
        let mut write = |first, named, part: std::ops::Range<usize>| {
            let starts = starts.get(part.clone()).unwrap_or_default();
            rows.write_run(&FloatRun { first, named, t: run.t, bits: &bits[part], starts }, context);
            context.carry.saw(run.t);
        };
        match run.first.checked_sub(NEW_SERIES_BASE) {
            None => write(run.first, run.first, 0..bits.len()),
            Some(i) => {
                let refs = &new_refs[i as usize..i as usize + bits.len()];
                let mut k = 0;
                for piece in refs.chunk_by(|a, b| *b == a.wrapping_add(1) && *b != u32::MAX) {
                    if piece[0] != u32::MAX {
                        write(piece[0], run.first + k, k as usize..k as usize + piece.len());
                    }
                    k += piece.len() as u32;
                }
                for (k, _) in refs.iter().enumerate().filter(|(_, r)| **r == u32::MAX) {
                    context.refuse(run.first + k as u32, 1, RefusalKind::SeriesLimit);
                }
            }
        }
        rows.saw(run.t);
    }
}

fn apply_histograms(
    batch: &WriteBatchView<'_>,
    rows: &mut Rows,
    context: &mut Context<'_>,
    buf: &mut AppendBuf,
    new_refs: &[u32],
    floor: i64,
) {
    for h in &batch.histograms {
        let Some(series) = resolve(h.series, new_refs) else {
            context.refuse(h.series, 1, RefusalKind::SeriesLimit);
            continue;
        };
        if h.t < floor {
            context.refuse(h.series, 1, RefusalKind::OutsideWindow);
            continue;
        }
        if rows.table.place(series).has(DELTA) {
            let increment = histograms::decode(h.encoded);
            let id = rows.table.id(series);
            let Some((total, start)) = context.add_histogram(id, h.t, increment, h.start) else {
                context.refuse(h.series, 1, RefusalKind::OutsideWindow);
                continue;
            };
            buf.encoded.clear();
            as_sample(total).encode(&mut buf.encoded);
            rows.write_histogram(series, h.t, start, &buf.encoded);
        } else {
            rows.write_histogram(series, h.t, h.start, h.encoded);
        }
        context.carry.saw(h.t);
        rows.saw(h.t);
    }
}
