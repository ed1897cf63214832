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

/// An index as the struct's spans and buckets hold it.
pub(super) fn narrow(index: i64) -> i32 {
    index.clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32
}

/// Spans under construction, kept with absolute starts.
#[derive(Default)]
pub(super) struct SpanRuns {
    runs: Vec<(i64, u64)>,
}

impl SpanRuns {
    /// Starts a span at `start`, which is not before the end of the last one.
    pub(super) fn open(&mut self, start: i64, length: u64) {
        self.runs.push((start, length));
    }

    /// The index behind the last span.
    pub(super) fn end(&self) -> Option<i64> {
        self.runs.last().map(|&(start, length)| start + length as i64)
    }

    /// Lengthens the last span.
    pub(super) fn extend(&mut self, length: u64) {
        if let Some(last) = self.runs.last_mut() {
            last.1 += length;
        }
    }

    /// Adds a bucket: to the last span if it is adjacent, else in a new one.
    pub(super) fn push(&mut self, index: i64) {
        if self.end() == Some(index) { self.extend(1) } else { self.open(index, 1) }
    }

    /// The spans with relative offsets.
    pub(super) fn finish(self) -> Vec<Span> {
        let mut end = 0;
        self.runs
            .into_iter()
            .map(|(start, length)| {
                let offset = narrow(start - end);
                end = start + length as i64;
                Span { offset, length: u32::try_from(length).unwrap_or(u32::MAX) }
            })
            .collect()
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
