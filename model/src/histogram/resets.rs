//! Detecting counter resets between two histograms of one series.

use super::bounds::{exponential_bound, is_exponential_schema, target_index};
use super::custom::{RolledUp, shared_bounds};
use super::spans::{cells, narrow};
use super::{Histogram, ResetHint, Span};

impl Histogram {
    /// The reset hint that Prometheus' store gives to this sample of a series when `previous` is the sample before it, if
    /// that is known: a gauge and a reset that was reported stay, and where both samples have one layout and no
    /// reset lies between them the hint says so. What a sender said of no reset is not taken over.
    pub fn hint_after(&self, previous: Option<&Self>) -> ResetHint {
        if matches!(self.reset_hint, ResetHint::Gauge | ResetHint::Reset) {
            return self.reset_hint;
        }
        let comparable = |p: &&Self| {
            p.reset_hint != ResetHint::Gauge
                && !p.is_stale()
                && p.schema == self.schema
                && p.zero_threshold == self.zero_threshold
        };
        match previous.filter(comparable) {
            Some(p) if !self.counts_fell_since(p) => ResetHint::NoReset,
            _ => ResetHint::Unknown,
        }
    }

    /// Whether a counter reset lies between `previous` and `self`: a populated bucket has gone, or a count (not the sum)
    /// has fallen.
    ///
    /// A hint that says reset or no reset decides. A gauge is compared as if it were a counter. A finer schema or a
    /// smaller zero threshold proves a reset; for the reverse, `previous` is compared in the layout of `self`. Of custom
    /// buckets with different bounds the counts between shared bounds are compared.
    pub fn detect_reset(&self, previous: &Self) -> bool {
        match self.reset_hint {
            ResetHint::Reset => true,
            ResetHint::NoReset => false,
            ResetHint::Unknown | ResetHint::Gauge => self.counts_fell_since(previous),
        }
    }

    /// [`Self::detect_reset`] whatever the hint says.
    fn counts_fell_since(&self, previous: &Self) -> bool {
        if self.count < previous.count {
            return true;
        }
        if self.uses_custom_buckets() {
            if !previous.uses_custom_buckets() {
                return true;
            }
            if self.custom_values != previous.custom_values {
                return self.custom_counts_fell(previous);
            }
        }
        if self.schema > previous.schema || self.zero_threshold < previous.zero_threshold {
            return true;
        }
        let (zero, threshold) = previous.zero_count_for(self.zero_threshold, None);
        // A threshold inside a populated bucket of `previous` cannot come about by widening.
        if threshold != self.zero_threshold || self.zero_count < zero.sum {
            return true;
        }
        if self.has_layout_of(previous) {
            let fell = |current: &[f64], previous: &[f64]| {
                // Without an early end, several comparisons are one instruction.
                current.iter().zip(previous).fold(false, |fell, (now, count)| fell | (now < count))
            };
            return fell(&self.positive_buckets, &previous.positive_buckets)
                || fell(&self.negative_buckets, &previous.negative_buckets);
        }
        let layout = Layout { schema: self.schema, zero_threshold: self.zero_threshold };
        let sides = |h: &Self| {
            [
                layout.view(&h.positive_spans, &h.positive_buckets, h.schema),
                layout.view(&h.negative_spans, &h.negative_buckets, h.schema),
            ]
        };
        sides(self).iter().zip(&sides(previous)).any(|(current, previous)| counts_fell(current, previous))
    }

    fn custom_counts_fell(&self, previous: &Self) -> bool {
        let shared = shared_bounds(&self.custom_values, &previous.custom_values);
        let roll_up = |h: &Self| {
            let mut rolled = RolledUp::new(&shared);
            rolled.add(&shared, (&h.positive_spans, &h.positive_buckets, &h.custom_values), false);
            rolled
        };
        let (current, previous) = (roll_up(self), roll_up(previous));
        current.counts().iter().zip(previous.counts()).any(|(current, previous)| current < previous)
    }
}

/// The layout in which two histograms are compared.
#[derive(Clone, Copy)]
struct Layout {
    schema: i32,
    zero_threshold: f64,
}

impl Layout {
    /// Index and count of the buckets of one side, merged into this schema, without those in the zero bucket.
    fn view(self, spans: &[Span], buckets: &[f64], schema: i32) -> Vec<(i64, f64)> {
        let exponential = is_exponential_schema(self.schema);
        let mut view: Vec<(i64, f64)> = Vec::with_capacity(buckets.len());
        for (index, count) in cells(spans, buckets) {
            let index = if schema > self.schema { target_index(index, schema, self.schema) } else { index };
            match view.last_mut() {
                Some(last) if last.0 == index => last.1 += count,
                None if exponential
                    && exponential_bound(narrow(index), self.schema) <= self.zero_threshold => {}
                _ => view.push((index, count)),
            }
        }
        view
    }
}

/// Whether a bucket of `previous` is larger than in `current`, or populated and missing there.
fn counts_fell(current: &[(i64, f64)], previous: &[(i64, f64)]) -> bool {
    let mut current = current.iter().peekable();
    previous.iter().any(|&(index, count)| {
        while current.next_if(|&&(other, _)| other < index).is_some() {}
        match current.peek() {
            Some(&&(other, now)) if other == index => now < count,
            _ => count != 0.0,
        }
    })
}
