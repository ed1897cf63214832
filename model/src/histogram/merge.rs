//! Merging the buckets of one side: the heart of `add` and `sub`.
//!
//! The layout of the result is that of Prometheus: existing spans keep their identity; a new bucket lengthens the span
//! before it if adjacent, else the span behind it if adjacent, else becomes a span.

use super::Span;
use super::bounds::{exponential_bound, is_exponential_schema};
use super::cell::Cell;
use super::spans::{SpanRuns, cells, claimed_buckets, narrow, shared_runs};

/// The side that is added.
#[derive(Clone, Copy)]
pub(super) struct Addend<'a, C> {
    pub(super) spans: &'a [Span],
    pub(super) buckets: &'a [C],
    /// The result's schema, in which the buckets are.
    pub(super) schema: i32,
    /// Leading buckets whose upper bound is not above it are in the zero bucket already and are left out.
    pub(super) zero_threshold: f64,
    /// Whether to subtract.
    pub(super) negate: bool,
}

impl<C: Cell> Addend<'_, C> {
    fn in_zero_bucket(&self, index: i64) -> bool {
        is_exponential_schema(self.schema)
            && exponential_bound(narrow(index), self.schema) <= self.zero_threshold
    }

    /// Whether each bucket is one of the `length` buckets of `spans` already, and none is to be left out: then
    /// [`shared_runs`] says which.
    pub(super) fn is_within(&self, spans: &[Span], length: usize) -> bool {
        claimed_buckets(spans) == length as u64
            && claimed_buckets(self.spans) == self.buckets.len() as u64
            && self.spans.first().is_none_or(|first| !self.in_zero_bucket(i64::from(first.offset)))
            && shared_runs(spans, self.spans).all(|run| run.is_some())
    }

    fn sign(&self, cell: C) -> C {
        if self.negate { cell.negated() } else { cell }
    }
}

/// Adds `other` to the buckets of one side.
pub(super) fn merge_side<C: Cell>(spans: &mut Vec<Span>, buckets: &mut Vec<C>, other: Addend<'_, C>) {
    if other.buckets.is_empty() {
        return;
    }
    if other.is_within(spans, buckets.len()) {
        // The usual case for series of one source.
        for run in shared_runs(spans, other.spans).flatten() {
            let cells = buckets[run.outer..].iter_mut().zip(&other.buckets[run.inner..]);
            cells.take(run.length).for_each(|(cell, &added)| cell.accumulate(other.sign(added)));
        }
        return;
    }
    let mut merge = Merge::new(spans, buckets, other.buckets.len());
    let populated = cells(other.spans, other.buckets).skip_while(|&(index, _)| other.in_zero_bucket(index));
    for (index, cell) in populated {
        merge.add(index, other.sign(cell));
    }
    (*spans, *buckets) = merge.finish();
}

/// One pass over the receiver's spans and buckets, with buckets to add in ascending order.
struct Merge<'a, C> {
    /// Spans not yet reached.
    spans: std::slice::Iter<'a, Span>,
    /// Where the first of them starts.
    next_start: Option<i64>,
    /// The index behind the last position of the open span, and how many of its positions are not copied yet.
    open_end: i64,
    open_left: u64,
    buckets: std::slice::Iter<'a, C>,
    runs: SpanRuns,
    out: Vec<C>,
}

impl<'a, C: Cell> Merge<'a, C> {
    fn new(spans: &'a [Span], buckets: &'a [C], added: usize) -> Self {
        let mut merge = Self {
            spans: spans.iter(),
            next_start: None,
            open_end: 0,
            open_left: 0,
            buckets: buckets.iter(),
            runs: SpanRuns::with_capacity(spans.len() + 4),
            out: Vec::with_capacity(buckets.len() + added),
        };
        merge.find_next_start(0);
        merge
    }

    fn find_next_start(&mut self, end: i64) {
        self.next_start = self.spans.as_slice().first().map(|span| end + i64::from(span.offset));
    }

    fn add(&mut self, index: i64, cell: C) {
        self.copy_until(index);
        if self.open_left > 0 && self.open_end - self.open_left as i64 == index {
            let mut sum = self.buckets.next().copied().unwrap_or_default();
            sum.accumulate(cell);
            self.out.push(sum);
            self.runs.extend(1);
            self.open_left -= 1;
            return;
        }
        self.out.push(cell);
        if self.runs.end() == Some(index) {
            self.runs.extend(1);
        } else if self.next_start == Some(index + 1) {
            self.open_next(index, 1);
        } else {
            self.runs.open(index, 1);
        }
    }

    /// Copies the receiver's buckets below `index`, and opens the span that starts at `index` if there is one.
    fn copy_until(&mut self, index: i64) {
        loop {
            let position = self.open_end - self.open_left as i64;
            let below = u64::try_from(index - position).unwrap_or(0).min(self.open_left);
            self.copy(below);
            if self.open_left > 0 {
                return;
            }
            match self.next_start {
                Some(start) if start <= index => self.open_next(start, 0),
                _ => return,
            }
        }
    }

    /// Opens the next span in the result, at `start` and with `length` buckets that were added before it.
    fn open_next(&mut self, start: i64, length: u64) {
        let (Some(span), Some(own_start)) = (self.spans.next(), self.next_start) else { return };
        self.runs.open(start, length);
        self.open_left = u64::from(span.length);
        self.open_end = own_start + i64::from(span.length);
        self.find_next_start(self.open_end);
    }

    /// Copies positions of the open span. A position without a bucket, in an invalid histogram, ends the span.
    fn copy(&mut self, positions: u64) {
        let available = self.buckets.as_slice();
        let copied = (positions as usize).min(available.len());
        self.out.extend_from_slice(&available[..copied]);
        self.buckets = available[copied..].iter();
        self.runs.extend(copied as u64);
        self.open_left -= positions;
        if (copied as u64) < positions {
            self.open_left = 0;
        }
    }

    fn finish(mut self) -> (Vec<Span>, Vec<C>) {
        loop {
            self.copy(self.open_left);
            match self.next_start {
                Some(start) => self.open_next(start, 0),
                None => break,
            }
        }
        (self.runs.finish(), self.out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(offset: i32, length: u32) -> Span {
        Span { offset, length }
    }

    fn merged(a: (&[Span], &[f64]), b: (&[Span], &[f64])) -> (Vec<Span>, Vec<f64>) {
        let (mut spans, mut buckets) = (a.0.to_vec(), a.1.to_vec());
        let other = Addend { spans: b.0, buckets: b.1, schema: 0, zero_threshold: 0.0, negate: false };
        merge_side(&mut spans, &mut buckets, other);
        (spans, buckets)
    }

    #[test]
    fn new_buckets_join_the_span_before_then_the_span_behind() {
        let a: (&[Span], &[f64]) = (&[span(0, 1), span(3, 1)], &[1.0, 2.0]);
        assert_eq!(merged(a, (&[span(1, 1)], &[5.0])), (vec![span(0, 2), span(2, 1)], vec![1.0, 5.0, 2.0]));
        assert_eq!(merged(a, (&[span(3, 1)], &[5.0])), (vec![span(0, 1), span(2, 2)], vec![1.0, 5.0, 2.0]));
        assert_eq!(
            merged(a, (&[span(2, 1)], &[5.0])),
            (vec![span(0, 1), span(1, 1), span(1, 1)], vec![1.0, 5.0, 2.0])
        );
        assert_eq!(merged(a, (&[span(9, 1)], &[5.0])).0, [span(0, 1), span(3, 1), span(4, 1)]);
        assert_eq!(merged(a, (&[span(-1, 1)], &[5.0])).0, [span(-1, 2), span(3, 1)]);
    }

    #[test]
    fn any_pair_of_layouts_merges_by_index() {
        // Every subset of eight indices as runs, against a map as the naive twin.
        let side = |bits: u32| {
            let mut runs = SpanRuns::default();
            let indices: Vec<i64> = (0..8).filter(|i| bits >> i & 1 == 1).collect();
            indices.iter().for_each(|&i| runs.push(i));
            let buckets: Vec<f64> = indices.iter().map(|&i| (i + 1) as f64).collect();
            (runs.finish(), buckets)
        };
        for a in 0..256 {
            for b in 0..256 {
                let (a_side, b_side) = (side(a), side(b));
                let (spans, buckets) = merged((&a_side.0, &a_side.1), (&b_side.0, &b_side.1));
                let mut expected = std::collections::BTreeMap::new();
                for (i, v) in cells(&a_side.0, &a_side.1).chain(cells(&b_side.0, &b_side.1)) {
                    *expected.entry(i).or_insert(0.0) += v;
                }
                let got: Vec<_> = cells(&spans, &buckets).collect();
                assert_eq!(got, expected.into_iter().collect::<Vec<_>>(), "{a:b} + {b:b}");
            }
        }
    }

    #[test]
    fn invalid_spans_do_not_panic() {
        let hostile = [span(i32::MAX, u32::MAX), span(i32::MIN, u32::MAX), span(-5, 0), span(1, 3)];
        for a in [&[][..], &[1.0][..], &[1.0; 9][..]] {
            for b in [&[1.0][..], &[2.0; 12][..]] {
                merged((&hostile, a), (&hostile[1..], b));
                merged((&hostile[2..], a), (&hostile, b));
            }
        }
    }
}
