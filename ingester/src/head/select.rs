//! Reads of one tenant's rows in one generation.
//!
//! Constraint: the read lock is held for [`SLICE`] series at a time, so that a writer waits for microseconds, and samples
//! are decoded outside it. Series are never removed, so what was found in one slice is there in the next.

use std::{cmp::Ordering, collections::VecDeque, ops::Range, sync::Arc};

use async_trait::async_trait;
use roaring::RoaringBitmap;
use sextant_model::{Labels, Matcher, SeriesBuf, SeriesSet};
use sextant_proto::{ExemplarSeries, HeadSelection, SelectLimits, SelectRequest, ShardError};

use super::{
    bits::{take, varint},
    matching::{TermScan, combine},
    read::{too_many_samples, too_many_series},
    series::SeriesRef,
    snapshot::{ReadBuf, Snapshot, has_any_sample, has_samples},
    tenant::{Rows, TenantHead},
};

const SLICE: usize = 256;

/// Prometheus' order of label sets, over canonical bytes: pair by pair, name then value.
pub(crate) fn compare_labels(mut a: &[u8], mut b: &[u8]) -> Ordering {
    fn text<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
        let len = varint(rest).unwrap_or(0) as usize;
        take(rest, len).unwrap_or_default()
    }
    while !a.is_empty() && !b.is_empty() {
        match text(&mut a).cmp(text(&mut b)) {
            Ordering::Equal => {}
            other => return other,
        }
    }
    a.len().cmp(&b.len())
}

impl TenantHead {
    /// The series that match.
    pub(crate) fn matching(&self, matchers: &[Matcher]) -> RoaringBitmap {
        let count = self.rows.read().table.len() as u32;
        let scans = matchers.iter().map(TermScan::new);
        let (mut named, mut others): (Vec<_>, Vec<_>) = scans.partition(TermScan::names_values);
        self.scan(&mut named);
        let among = (!named.is_empty()).then(|| combine(&named, None, &self.rows.read().postings, count));
        let Some(mut among) = among else {
            self.scan(&mut others);
            return combine(&others, None, &self.rows.read().postings, count);
        };
        others.retain(|scan| {
            let by_series = scan.prefers_series(&self.rows.read().postings, among.len());
            if by_series {
                let mut kept: Vec<SeriesRef> = Vec::new();
                self.in_slices(&among, |rows, slice| {
                    kept.extend(slice.iter().filter(|&&r| scan.matches(&rows.table, r)));
                    true
                });
                among = kept.into_iter().collect();
            }
            !by_series
        });
        if others.is_empty() || among.is_empty() {
            return among;
        }
        self.scan(&mut others);
        combine(&others, Some(among), &self.rows.read().postings, count)
    }

    fn scan(&self, scans: &mut [TermScan<'_>]) {
        for scan in scans {
            loop {
                let rows = self.rows.read();
                if scan.step(&rows.postings, &rows.table) {
                    break;
                }
            }
        }
    }

    /// Calls `f` with the rows and a few series at a time, until all were seen or `f` returns false.
    fn in_slices(&self, series: &RoaringBitmap, mut f: impl FnMut(&Rows, &[SeriesRef]) -> bool) {
        let mut slice = Vec::with_capacity(SLICE);
        let mut refs = series.iter().peekable();
        while refs.peek().is_some() {
            slice.clear();
            slice.extend(refs.by_ref().take(SLICE));
            if !f(&self.rows.read(), &slice) {
                return;
            }
        }
    }

    /// Those of the series that have a sample within the range.
    pub(crate) fn with_samples(&self, series: &RoaringBitmap, range: (i64, i64)) -> RoaringBitmap {
        let mut found: Vec<SeriesRef> = Vec::new();
        let mut buf = Default::default();
        self.in_slices(series, |rows, slice| {
            let whole = range.0 <= rows.t_min && rows.t_max <= range.1;
            found.extend(slice.iter().filter(|&&r| match whole {
                true => has_any_sample(rows, r, &mut buf),
                false => has_samples(rows, r, range, &mut buf),
            }));
            true
        });
        found.into_iter().collect()
    }

    /// The labels of series.
    pub(crate) fn labels_of(&self, series: &[SeriesRef]) -> Vec<(Labels, SeriesRef)> {
        let mut out = Vec::with_capacity(series.len());
        for slice in series.chunks(SLICE) {
            let rows = self.rows.read();
            out.extend(slice.iter().map(|&r| (rows.labels(r), r)));
        }
        out
    }

    /// The values of a label, or the label names, over series.
    pub(crate) fn values_of(&self, series: &RoaringBitmap, label: Option<&str>) -> Vec<String> {
        let rows = self.rows.read();
        let used = |term: &&u32| rows.postings.intersects(**term, series);
        match label {
            Some(name) => {
                let terms = rows.postings.terms(name).iter().filter(used);
                terms.map(|&t| rows.postings.value(&rows.table, t).to_owned()).collect()
            }
            None => {
                let names = rows.postings.names();
                let used = names.filter(|n| rows.postings.terms(n).iter().any(|t| used(&t)));
                used.map(str::to_owned).collect()
            }
        }
    }

    /// The exemplars of series within the range.
    pub(crate) fn exemplars_of(&self, series: &RoaringBitmap, range: (i64, i64)) -> Vec<ExemplarSeries> {
        let with: RoaringBitmap = self.rows.read().exemplars.keys().copied().collect();
        let mut out = Vec::new();
        self.in_slices(&(with & series), |rows, slice| {
            for r in slice {
                let exemplars = rows.exemplars_of(*r, range);
                if !exemplars.is_empty() {
                    out.push(ExemplarSeries { labels: rows.labels(*r), exemplars });
                }
            }
            true
        });
        out
    }
}

/// Goes through series in order of their labels.
pub(crate) struct Cursor<'a> {
    head: &'a TenantHead,
    range: (i64, i64),
    /// In reverse order: the next one is last.
    series: Vec<(Labels, SeriesRef)>,
    ahead: VecDeque<Snapshot>,
    buf: ReadBuf,
}

impl<'a> Cursor<'a> {
    /// Begins with the first of the series that match.
    pub(crate) fn new(head: &'a TenantHead, matchers: &[Matcher], range: (i64, i64)) -> Self {
        let mut series = head.in_order(&head.matching(matchers));
        series.reverse();
        Self { head, range, series, ahead: VecDeque::new(), buf: ReadBuf::default() }
    }

    /// The current series' labels; `None` behind the last one.
    pub(crate) fn labels(&mut self) -> Option<&Labels> {
        if self.ahead.is_empty() && !self.series.is_empty() {
            let rows = self.head.rows.read();
            let at = self.series.len().saturating_sub(SLICE);
            let slice = self.series.drain(at..).rev();
            self.ahead.extend(slice.map(|(labels, r)| Snapshot::take(&rows, r, labels, self.range)));
        }
        self.ahead.front().map(|s| &s.labels)
    }

    /// Reads the current series' samples and goes on to the next one.
    pub(crate) fn read(&mut self, out: &mut SeriesBuf) {
        match self.ahead.pop_front() {
            Some(s) => s.read(self.range, &mut self.buf, out),
            None => out.clear(),
        }
    }
}

/// One generation's series that match, in order of labels.
pub(crate) struct Found {
    head: Arc<TenantHead>,
    range: (i64, i64),
    labels: Vec<Labels>,
    refs: Vec<SeriesRef>,
    /// About how many samples each has in the range.
    estimate: usize,
    limits: SelectLimits,
}

impl Found {
    /// Finds the series of one generation.
    pub(crate) fn new(head: &Arc<TenantHead>, r: &SelectRequest) -> Result<Self, ShardError> {
        let matching = head.matching(&r.matchers);
        if matching.len() > r.limits.series_max as u64 {
            return Err(too_many_series(r.limits));
        }
        let (labels, refs) = head.in_order(&matching).into_iter().unzip();
        let rows = head.rows.read();
        let each = rows.samples as f64 / rows.table.len().max(1) as f64;
        let (from, to) = (rows.t_min.max(r.start), rows.t_max.min(r.end));
        let part =
            to.saturating_sub(from).max(0) as f64 / rows.t_max.saturating_sub(rows.t_min).max(1) as f64;
        let estimate = (each * part.min(1.0)) as usize + 1;
        drop(rows);
        Ok(Self { head: head.clone(), range: (r.start, r.end), labels, refs, estimate, limits: r.limits })
    }
}

#[async_trait]
impl HeadSelection for Found {
    fn labels(&self) -> &[Labels] {
        &self.labels
    }

    fn estimate(&self, _: usize) -> usize {
        self.estimate
    }

    async fn read(&self, series: Range<usize>) -> Result<SeriesSet, ShardError> {
        let mut out = SeriesSet::new();
        let (mut buf, mut decoded) = (ReadBuf::default(), SeriesBuf::default());
        for from in series.clone().step_by(SLICE) {
            let slice = from..(from + SLICE).min(series.end);
            let snapshots: Vec<Snapshot> = {
                let rows = self.head.rows.read();
                let take = |i: usize| Snapshot::take(&rows, self.refs[i], self.labels[i].clone(), self.range);
                slice.map(take).collect()
            };
            for snapshot in snapshots {
                snapshot.read(self.range, &mut buf, &mut decoded);
                if decoded.is_empty() {
                    continue;
                }
                if out.sample_count() + decoded.len() > self.limits.samples_max.min(u32::MAX as usize) {
                    return Err(too_many_samples(self.limits));
                }
                out.append(snapshot.labels, &mut decoded);
            }
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_compare_as_labels_do() {
        let sets: Vec<Labels> = [
            vec![],
            vec![("a", "1")],
            vec![("a", "1"), ("b", "1")],
            vec![("a", "10")],
            vec![("a", "2")],
            vec![("aa", "1")],
            vec![("b", "longer than the others")],
        ]
        .into_iter()
        .map(|p| Labels::from_pairs(p).unwrap())
        .collect();
        for a in &sets {
            for b in &sets {
                assert_eq!(compare_labels(a.as_bytes(), b.as_bytes()), a.cmp(b), "{a} {b}");
            }
        }
    }
}
