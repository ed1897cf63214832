//! Walking spans: bucket indices in both directions, building spans from indices, comparing layouts.
//!
//! Indices are `i64` while walked. Spans come from the network: their sums may leave `i32` and their lengths may promise
//! more buckets than there are, so every walk is bounded by the bucket list and no sum here can overflow.

use super::Span;

/// The bucket indices of `spans`, ascending. Zip it behind a bucket list: it is as long as the spans claim.
pub(super) fn indices(spans: &[Span]) -> impl Iterator<Item = i64> + '_ {
    let mut next = 0_i64;
    spans.iter().flat_map(move |span| {
        let start = next + i64::from(span.offset);
        next = start + i64::from(span.length);
        start..next
    })
}

/// [`indices`], descending.
pub(super) fn indices_reverse(spans: &[Span]) -> impl Iterator<Item = i64> + '_ {
    let mut end: i64 = spans.iter().map(|span| i64::from(span.offset) + i64::from(span.length)).sum();
    spans.iter().rev().flat_map(move |span| {
        let start = end - i64::from(span.length);
        let run = start..end;
        end = start - i64::from(span.offset);
        run.rev()
    })
}

/// Index and content of every bucket.
pub(super) fn cells<'a, C: Copy>(spans: &'a [Span], buckets: &'a [C]) -> impl Iterator<Item = (i64, C)> + 'a {
    buckets.iter().zip(indices(spans)).map(|(&cell, index)| (index, cell))
}

/// How many buckets the spans claim.
pub(super) fn claimed_buckets(spans: &[Span]) -> u64 {
    spans.iter().map(|span| u64::from(span.length)).sum()
}

/// Buckets of one list that are neighbours in another list too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SharedRun {
    /// Their place in the outer list.
    pub(super) outer: usize,
    /// Their place in the inner list.
    pub(super) inner: usize,
    /// How many they are.
    pub(super) length: usize,
}

/// Where the buckets of `inner` are in the bucket list of `outer`. Ends with a `None` where `outer` lacks a bucket or spans
/// overlap.
pub(super) fn shared_runs<'a>(outer: &'a [Span], inner: &'a [Span]) -> SharedRuns<'a> {
    if outer == inner {
        // One run, whatever the spans.
        let whole = Some(SharedRun { outer: 0, inner: 0, length: claimed_buckets(inner) as usize });
        return SharedRuns { whole, outer: Walk::new(&[]), inner: Walk::new(&[]), failed: false };
    }
    SharedRuns { whole: None, outer: Walk::new(outer), inner: Walk::new(inner), failed: false }
}

/// See [`shared_runs`].
pub(super) struct SharedRuns<'a> {
    whole: Option<SharedRun>,
    outer: Walk<'a>,
    inner: Walk<'a>,
    failed: bool,
}

impl SharedRuns<'_> {
    fn run(&mut self) -> Option<SharedRun> {
        let start = self.inner.open.start;
        while self.outer.open.is_empty() || self.outer.open.end <= start {
            self.outer.skip(self.outer.open.end);
            self.outer.open_next()?;
        }
        if self.outer.open.start > start {
            return None;
        }
        self.outer.skip(start);
        let end = self.outer.open.end.min(self.inner.open.end);
        let run = SharedRun { outer: self.outer.at, inner: self.inner.at, length: (end - start) as usize };
        self.inner.skip(end);
        Some(run)
    }
}

impl Iterator for SharedRuns<'_> {
    type Item = Option<SharedRun>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if let Some(whole) = self.whole.take() {
            return Some(Some(whole));
        }
        while !self.failed && self.inner.open.is_empty() {
            if self.inner.spans.as_slice().is_empty() {
                return None;
            }
            self.failed = self.inner.open_next().is_none();
        }
        if std::mem::take(&mut self.failed) {
            self.inner = Walk::new(&[]);
            return Some(None);
        }
        let run = self.run();
        if run.is_none() {
            self.inner = Walk::new(&[]);
        }
        Some(run)
    }
}

/// A walk over ascending spans.
struct Walk<'a> {
    spans: std::slice::Iter<'a, Span>,
    /// What is left of the open span, and the place of its next bucket in the list.
    open: std::ops::Range<i64>,
    at: usize,
    first: bool,
}

impl<'a> Walk<'a> {
    fn new(spans: &'a [Span]) -> Self {
        Self { spans: spans.iter(), open: 0..0, at: 0, first: true }
    }

    /// Opens the next span; `None` where there is none or it does not lie behind the one before.
    fn open_next(&mut self) -> Option<()> {
        let span = self.spans.next()?;
        let start = self.open.end + i64::from(span.offset);
        self.open = start..start + i64::from(span.length);
        (std::mem::take(&mut self.first) || span.offset >= 0).then_some(())
    }

    /// Leaves the open span's buckets below `index` behind.
    fn skip(&mut self, index: i64) {
        self.at += (index - self.open.start) as usize;
        self.open.start = index;
    }
}

/// An index as the struct's spans and buckets hold it.
pub(super) fn narrow(index: i64) -> i32 {
    index.clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32
}

/// Spans under construction from absolute indices.
#[derive(Default)]
pub(super) struct SpanRuns {
    spans: Vec<Span>,
    /// The length of the last span, which may promise more than a span can.
    length: u64,
    /// The index behind it.
    end: i64,
}

impl SpanRuns {
    /// None yet, with room for so many.
    pub(super) fn with_capacity(spans: usize) -> Self {
        Self { spans: Vec::with_capacity(spans), ..Self::default() }
    }

    /// Starts a span at `start`, which is not before the end of the last one.
    pub(super) fn open(&mut self, start: i64, length: u64) {
        self.spans.push(Span { offset: narrow(start - self.end), length: 0 });
        (self.length, self.end) = (0, start);
        self.extend(length);
    }

    /// The index behind the last span.
    pub(super) fn end(&self) -> Option<i64> {
        (!self.spans.is_empty()).then_some(self.end)
    }

    /// Lengthens the last span.
    pub(super) fn extend(&mut self, length: u64) {
        if let Some(last) = self.spans.last_mut() {
            self.length += length;
            self.end += length as i64;
            last.length = u32::try_from(self.length).unwrap_or(u32::MAX);
        }
    }

    /// Adds a bucket: to the last span if it is adjacent, else in a new one.
    pub(super) fn push(&mut self, index: i64) {
        if self.end() == Some(index) { self.extend(1) } else { self.open(index, 1) }
    }

    /// The spans with relative offsets.
    pub(super) fn finish(self) -> Vec<Span> {
        self.spans
    }
}

/// Whether both describe the same spans, apart from spans of length zero.
pub(super) fn spans_match(a: &[Span], b: &[Span]) -> bool {
    populated(a).eq(populated(b))
}

/// Spans that have buckets; offsets of those without are carried over.
fn populated(spans: &[Span]) -> impl Iterator<Item = (i64, u32)> + '_ {
    let mut carried = 0_i64;
    spans.iter().filter_map(move |span| {
        carried += i64::from(span.offset);
        (span.length > 0).then(|| (std::mem::take(&mut carried), span.length))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn span(offset: i32, length: u32) -> Span {
        Span { offset, length }
    }

    #[test]
    fn indices_agree_in_both_directions() {
        let spans = [span(-3, 2), span(1, 0), span(2, 3)];
        let forward: Vec<_> = indices(&spans).collect();
        let mut reverse: Vec<_> = indices_reverse(&spans).collect();
        assert_eq!(forward, [-3, -2, 2, 3, 4]);
        reverse.reverse();
        assert_eq!(forward, reverse);
    }

    #[test]
    fn shared_runs_are_found_by_index() {
        let outer = [span(-3, 4), span(2, 3), span(1, 2)];
        let runs = |inner: &[Span]| -> Option<Vec<(usize, usize, usize)>> {
            let runs = shared_runs(&outer, inner);
            runs.map(|run| run.map(|r| (r.outer, r.inner, r.length))).collect()
        };
        assert_eq!(runs(&outer), Some(vec![(0, 0, 9)]));
        assert_eq!(runs(&outer[..2]), Some(vec![(0, 0, 4), (4, 4, 3)]));
        assert_eq!(runs(&[span(-2, 1), span(1, 1), span(7, 1)]), Some(vec![(1, 0, 1), (3, 1, 1), (8, 2, 1)]));
        assert_eq!(runs(&[span(4, 2)]), Some(vec![(5, 0, 2)]));
        assert_eq!(runs(&[span(-3, 0), span(1, 1), span(0, 1)]), Some(vec![(1, 0, 1), (2, 1, 1)]));
        let split = [span(0, 2), span(0, 0), span(0, 3)];
        let pieces: Vec<_> =
            shared_runs(&split, &[span(1, 3)]).flatten().map(|r| (r.outer, r.length)).collect();
        assert_eq!(pieces, [(1, 1), (2, 2)]);
        for missing in
            [&[span(-4, 1)][..], &[span(0, 2)], &[span(2, 2)], &[span(8, 2)], &[span(0, 1), span(-1, 1)]]
        {
            assert_eq!(runs(missing), None, "{missing:?}");
        }
        assert_eq!(runs(&[]), Some(vec![]));
    }

    #[test]
    fn empty_spans_do_not_break_a_match() {
        assert!(spans_match(&[span(0, 2), span(3, 1)], &[span(0, 2), span(1, 0), span(2, 1), span(9, 0)]));
        assert!(!spans_match(&[span(0, 3)], &[span(0, 2), span(0, 1)]));
        assert!(!spans_match(&[span(0, 3)], &[]));
    }

    #[test]
    fn runs_become_relative() {
        let mut runs = SpanRuns::default();
        for index in [-2, -1, 4, 5, 9] {
            runs.push(index);
        }
        assert_eq!(runs.finish(), [span(-2, 2), span(4, 2), span(3, 1)]);
    }
}
