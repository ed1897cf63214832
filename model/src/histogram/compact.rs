//! Compacting: the canonical span layout.

use super::cell::Cell;
use super::spans::SpanRuns;
use super::{Histogram, Span};

impl Histogram {
    /// Removes empty buckets at span ends and runs of more than `max_empty_buckets` of them inside spans, and joins
    /// spans that are at most that far apart. With 0 no empty bucket remains.
    ///
    /// A large value fills gaps with explicit buckets: bound it by what the caller is ready to allocate.
    pub fn compact(&mut self, max_empty_buckets: usize) {
        compact_side(&mut self.positive_spans, &mut self.positive_buckets, max_empty_buckets);
        compact_side(&mut self.negative_spans, &mut self.negative_buckets, max_empty_buckets);
    }
}

/// Compacts one side in place.
///
/// Buckets that no span claims are kept behind the others, and span positions without a bucket count as populated, so
/// that an invalid histogram stays recognisably invalid.
pub(super) fn compact_side<C: Cell>(spans: &mut Vec<Span>, buckets: &mut Vec<C>, max_empty: usize) {
    let max_empty = max_empty as u64;
    let least_gap = max_empty.min(i64::MAX as u64) as i64;
    let untouched = buckets.iter().all(|cell| !cell.is_empty())
        && spans
            .iter()
            .enumerate()
            .all(|(i, span)| span.length > 0 && (i == 0 || i64::from(span.offset) > least_gap));
    if untouched {
        return;
    }
    if spans.iter().all(|span| span.length == 0) {
        spans.clear();
        buckets.clear();
        return;
    }
    let mut out =
        Compacted { runs: SpanRuns::with_capacity(spans.len() + 4), buckets: Vec::new(), max_empty };
    let (mut start, mut read, mut kept) = (0_i64, 0_usize, 0);
    for span in spans.iter() {
        start += i64::from(span.offset);
        let begin = read;
        let end = buckets.len().min(begin.saturating_add(span.length as usize));
        while read < end {
            let first = read + leading(&buckets[read..end], true);
            read = first + leading(&buckets[first..end], false);
            if first == read {
                continue;
            }
            out.reach(start + (first - begin) as i64, (read - first) as u64);
            if max_empty > 0 {
                out.buckets.extend_from_slice(&buckets[first..read]);
            } else {
                // No gap is filled: the list needs no other memory.
                buckets.copy_within(first..read, kept);
                kept += read - first;
            }
        }
        let missing = u64::from(span.length) - (end - begin) as u64;
        if missing > 0 {
            out.reach(start + (end - begin) as i64, missing);
        }
        start += i64::from(span.length);
    }
    if max_empty > 0 {
        out.buckets.extend_from_slice(&buckets[read..]);
        *buckets = out.buckets;
    } else {
        buckets.drain(kept..read);
    }
    *spans = out.runs.finish();
}

/// How many buckets come before the first one that is not empty, or not populated.
fn leading<C: Cell>(buckets: &[C], empty: bool) -> usize {
    buckets.iter().take_while(|cell| cell.is_empty() == empty).count()
}

/// The compacted side under construction.
struct Compacted<C> {
    runs: SpanRuns,
    buckets: Vec<C>,
    max_empty: u64,
}

impl<C: Cell> Compacted<C> {
    /// Adds `length` positions from `index`, filling a gap that is small enough with empty buckets.
    fn reach(&mut self, index: i64, length: u64) {
        let gap = self.runs.end().and_then(|end| u64::try_from(index - end).ok());
        match gap {
            Some(gap) if gap <= self.max_empty => {
                self.buckets.resize(self.buckets.len() + gap as usize, C::default());
                self.runs.extend(gap + length);
            }
            _ => self.runs.open(index, length),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_and_surplus_buckets_stay_visible() {
        let mut h = Histogram {
            positive_spans: vec![Span { offset: 0, length: 3 }, Span { offset: 2, length: 2 }],
            positive_buckets: vec![1.0, 0.0],
            negative_spans: vec![Span { offset: 0, length: 1 }],
            negative_buckets: vec![1.0, 0.0, 2.0],
            ..Histogram::default()
        };
        h.compact(0);
        let lengths: Vec<_> = h.positive_spans.iter().map(|span| (span.offset, span.length)).collect();
        assert_eq!(lengths, [(0, 1), (1, 1), (2, 2)]);
        assert_eq!(h.positive_buckets, [1.0]);
        assert_eq!(h.negative_buckets, [1.0, 0.0, 2.0]);
    }
}
