//! Adding, subtracting and scaling histograms.
//!
//! Layouts are reconciled, never rejected, within one kind of schema: the coarser schema and the wider zero bucket win,
//! custom bounds are intersected. Results are float histograms whatever the operands were.

use std::borrow::Cow;

use super::cell::{Compensated, kahan_inc};
use super::custom::{RolledUp, shared_bounds};
use super::merge::{Addend, merge_side};
use super::reduce::reduce_side;
use super::spans::shared_runs;
use super::validate::HistogramError;
use super::{Histogram, ResetHint, Span};

/// What an addition or subtraction has to report beside its result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Combined {
    /// One operand was marked as a counter reset, the other as none: worth a warning.
    pub counter_reset_collision: bool,
    /// Custom bounds differed and were intersected: worth an info.
    pub nhcb_bounds_reconciled: bool,
}

impl Combined {
    /// The union of both reports.
    pub fn merge(&mut self, other: Self) {
        self.counter_reset_collision |= other.counter_reset_collision;
        self.nhcb_bounds_reconciled |= other.nhcb_bounds_reconciled;
    }
}

impl Histogram {
    /// Scales all counts and the sum. A negative factor makes a gauge of it.
    pub fn mul(&mut self, factor: f64) {
        self.map_counts(|count| count * factor);
        if factor < 0.0 {
            self.reset_hint = ResetHint::Gauge;
        }
    }

    /// Divides all counts and the sum. Division by zero leaves no buckets. A negative divisor makes a gauge of it.
    pub fn div(&mut self, divisor: f64) {
        if divisor == 0.0 {
            self.positive_spans.clear();
            self.positive_buckets.clear();
            self.negative_spans.clear();
            self.negative_buckets.clear();
        }
        self.map_counts(|count| count / divisor);
        if divisor < 0.0 {
            self.reset_hint = ResetHint::Gauge;
        }
    }

    /// Adds `other`. The result may have empty buckets and adjacent spans: [`Self::compact`] removes them.
    ///
    /// # Errors
    /// [`HistogramError::IncompatibleSchema`] for custom with exponential buckets, with `self` unchanged; errors of
    /// [`Self::reduce_resolution`] if an invalid operand has to be reduced.
    pub fn add(&mut self, other: &Self) -> Result<Combined, HistogramError> {
        self.combine(other, false)
    }

    /// Subtracts `other`. Hints combine as in [`Self::add`]: the caller of a PromQL `-` marks the result as a gauge.
    ///
    /// # Errors
    /// As [`Self::add`].
    pub fn sub(&mut self, other: &Self) -> Result<Combined, HistogramError> {
        self.combine(other, true)
    }

    /// [`Self::add`] with Kahan summation. `compensation` starts as `None` and belongs to `self` from then on; adding it
    /// to `self` gives the final result.
    ///
    /// # Errors
    /// As [`Self::add`].
    pub fn kahan_add(
        &mut self,
        other: &Self,
        compensation: &mut Option<Self>,
    ) -> Result<Combined, HistogramError> {
        self.check_compatible(other)?;
        let mut report =
            Combined { counter_reset_collision: self.combine_hints(other), nhcb_bounds_reconciled: false };
        self.integer = false;
        let c = compensation.get_or_insert_with(|| self.empty_compensation());
        if !self.uses_custom_buckets() {
            let zero = self.reconcile_zero_bucket(other, Some(c));
            (self.zero_count, c.zero_count) = kahan_inc(zero.sum, self.zero_count, c.zero_count);
            (self.zero_count, c.zero_count) = kahan_inc(zero.c, self.zero_count, c.zero_count);
        }
        (self.count, c.count) = kahan_inc(other.count, self.count, c.count);
        (self.sum, c.sum) = kahan_inc(other.sum, self.sum, c.sum);
        if self.kahan_add_within(other, c) {
            return Ok(report);
        }
        let mut positive = Compensated::zip(&self.positive_buckets, &c.positive_buckets);
        let other_positive = Compensated::zip(&other.positive_buckets, &[]);
        if self.uses_custom_buckets() {
            let receiver = (&mut self.positive_spans, &mut positive, &mut self.custom_values);
            report.nhcb_bounds_reconciled = combine_custom(
                receiver,
                (&other.positive_spans, &other_positive, &other.custom_values),
                false,
            );
            c.custom_values.clone_from(&self.custom_values);
        } else {
            let mut negative = Compensated::zip(&self.negative_buckets, &c.negative_buckets);
            let other_negative = Compensated::zip(&other.negative_buckets, &[]);
            let mut sides = Sides {
                schema: &mut self.schema,
                zero_threshold: self.zero_threshold,
                negate: false,
                receiver: [
                    (&mut self.positive_spans, &mut positive),
                    (&mut self.negative_spans, &mut negative),
                ],
                addend: [(&other.positive_spans, &other_positive), (&other.negative_spans, &other_negative)],
                addend_schema: other.schema,
            };
            sides.combine()?;
            (self.negative_buckets, c.negative_buckets) = Compensated::unzip(&negative);
        }
        (self.positive_buckets, c.positive_buckets) = Compensated::unzip(&positive);
        c.schema = self.schema;
        c.zero_threshold = self.zero_threshold;
        c.positive_spans.clone_from(&self.positive_spans);
        c.negative_spans.clone_from(&self.negative_spans);
        Ok(report)
    }

    /// The fast path for series of one source: where `self` has all buckets of `other`, no new lists are needed.
    fn kahan_add_within(&mut self, other: &Self, c: &mut Self) -> bool {
        let (schema, zero_threshold) = (self.schema, self.zero_threshold);
        let fits = |[spans, c_spans, other_spans]: [&[Span]; 3], [counts, c, other]: [&[f64]; 3]| {
            let addend = Addend { spans: other_spans, buckets: other, schema, zero_threshold, negate: false };
            spans == c_spans && counts.len() == c.len() && addend.is_within(spans, counts.len())
        };
        let within = schema == other.schema
            && schema == c.schema
            && self.custom_values == other.custom_values
            && fits(
                [&self.positive_spans, &c.positive_spans, &other.positive_spans],
                [&self.positive_buckets, &c.positive_buckets, &other.positive_buckets],
            )
            && fits(
                [&self.negative_spans, &c.negative_spans, &other.negative_spans],
                [&self.negative_buckets, &c.negative_buckets, &other.negative_buckets],
            );
        if !within {
            return false;
        }
        let add = |[spans, other_spans]: [&[Span]; 2], counts: &mut [f64], c: &mut [f64], other: &[f64]| {
            for run in shared_runs(spans, other_spans).flatten() {
                let counts = counts[run.outer..].iter_mut().zip(&mut c[run.outer..]);
                for ((count, c), &inc) in counts.zip(&other[run.inner..]).take(run.length) {
                    (*count, *c) = kahan_inc(inc, *count, *c);
                }
            }
        };
        add(
            [&self.positive_spans, &other.positive_spans],
            &mut self.positive_buckets,
            &mut c.positive_buckets,
            &other.positive_buckets,
        );
        add(
            [&self.negative_spans, &other.negative_spans],
            &mut self.negative_buckets,
            &mut c.negative_buckets,
            &other.negative_buckets,
        );
        c.zero_threshold = zero_threshold;
        true
    }

    fn combine(&mut self, other: &Self, negate: bool) -> Result<Combined, HistogramError> {
        self.check_compatible(other)?;
        let mut report =
            Combined { counter_reset_collision: self.combine_hints(other), nhcb_bounds_reconciled: false };
        self.integer = false;
        let sign = if negate { -1.0 } else { 1.0 };
        if !self.uses_custom_buckets() {
            let zero = self.reconcile_zero_bucket(other, None);
            self.zero_count += sign * zero.sum;
        }
        self.count += sign * other.count;
        self.sum += sign * other.sum;
        if self.uses_custom_buckets() {
            let receiver = (&mut self.positive_spans, &mut self.positive_buckets, &mut self.custom_values);
            let addend = (
                other.positive_spans.as_slice(),
                other.positive_buckets.as_slice(),
                other.custom_values.as_slice(),
            );
            report.nhcb_bounds_reconciled = combine_custom(receiver, addend, negate);
            return Ok(report);
        }
        let mut sides = Sides {
            schema: &mut self.schema,
            zero_threshold: self.zero_threshold,
            negate,
            receiver: [
                (&mut self.positive_spans, &mut self.positive_buckets),
                (&mut self.negative_spans, &mut self.negative_buckets),
            ],
            addend: [
                (&other.positive_spans, &other.positive_buckets),
                (&other.negative_spans, &other.negative_buckets),
            ],
            addend_schema: other.schema,
        };
        sides.combine()?;
        Ok(report)
    }

    fn check_compatible(&self, other: &Self) -> Result<(), HistogramError> {
        if self.uses_custom_buckets() == other.uses_custom_buckets() {
            Ok(())
        } else {
            Err(HistogramError::IncompatibleSchema)
        }
    }

    /// The hint of a sum: a gauge if either is one, unknown if they differ otherwise. Returns whether they contradict
    /// each other.
    pub(super) fn combine_hints(&mut self, other: &Self) -> bool {
        use ResetHint::{Gauge, NoReset, Reset, Unknown};
        let (hint, collision) = match (self.reset_hint, other.reset_hint) {
            (a, b) if a == b => (a, false),
            (Gauge, _) | (_, Gauge) => (Gauge, false),
            (Reset, NoReset) | (NoReset, Reset) => (Unknown, true),
            _ => (Unknown, false),
        };
        self.reset_hint = hint;
        collision
    }

    fn map_counts(&mut self, f: impl Fn(f64) -> f64) {
        self.integer = false;
        for counts in [&mut self.positive_buckets, &mut self.negative_buckets] {
            counts.iter_mut().for_each(|count| *count = f(*count));
        }
        for count in [&mut self.zero_count, &mut self.count, &mut self.sum] {
            *count = f(*count);
        }
    }

    /// A histogram of the same layout with nothing in it.
    fn empty_compensation(&self) -> Self {
        Self {
            zero_count: 0.0,
            count: 0.0,
            sum: 0.0,
            positive_buckets: vec![0.0; self.positive_buckets.len()],
            negative_buckets: vec![0.0; self.negative_buckets.len()],
            ..self.clone()
        }
    }
}

/// Both sides of two exponential histograms.
struct Sides<'a, C> {
    schema: &'a mut i32,
    zero_threshold: f64,
    negate: bool,
    receiver: [(&'a mut Vec<Span>, &'a mut Vec<C>); 2],
    addend: [(&'a [Span], &'a [C]); 2],
    addend_schema: i32,
}

impl<C: super::cell::Cell> Sides<'_, C> {
    /// Merges in the coarser of the two schemas.
    fn combine(&mut self) -> Result<(), HistogramError> {
        let origin = *self.schema;
        let target = origin.min(self.addend_schema);
        for ((spans, buckets), (other_spans, other_buckets)) in self.receiver.iter_mut().zip(self.addend) {
            if target < origin {
                (**spans, **buckets) = reduce_side(spans, buckets, origin, target)?;
            }
            let (other_spans, other_buckets) = if target < self.addend_schema {
                let (spans, buckets) = reduce_side(other_spans, other_buckets, self.addend_schema, target)?;
                (Cow::Owned(spans), Cow::Owned(buckets))
            } else {
                (Cow::Borrowed(other_spans), Cow::Borrowed(other_buckets))
            };
            let other = Addend {
                spans: &other_spans,
                buckets: &other_buckets,
                schema: target,
                zero_threshold: self.zero_threshold,
                negate: self.negate,
            };
            merge_side(spans, buckets, other);
        }
        *self.schema = target;
        Ok(())
    }
}

/// Adds custom buckets to the receiver's. Returns whether their bounds differed.
fn combine_custom<C: super::cell::Cell>(
    (spans, buckets, bounds): (&mut Vec<Span>, &mut Vec<C>, &mut Vec<f64>),
    (other_spans, other_buckets, other_bounds): (&[Span], &[C], &[f64]),
    negate: bool,
) -> bool {
    if bounds == other_bounds {
        let schema = super::CUSTOM_BUCKETS_SCHEMA;
        let other =
            Addend { spans: other_spans, buckets: other_buckets, schema, zero_threshold: 0.0, negate };
        merge_side(spans, buckets, other);
        return false;
    }
    let shared = shared_bounds(bounds, other_bounds);
    let mut rolled = RolledUp::new(&shared);
    rolled.add(&shared, (spans, buckets, bounds), false);
    rolled.add(&shared, (other_spans, other_buckets, other_bounds), negate);
    (*spans, *buckets) = rolled.finish();
    *bounds = shared;
    true
}

#[cfg(test)]
mod tests {
    use super::super::CUSTOM_BUCKETS_SCHEMA;
    use super::super::spans::{SpanRuns, cells};
    use super::*;

    fn one_bucket(count: f64) -> Histogram {
        Histogram {
            count,
            sum: count,
            positive_spans: vec![Span { offset: 0, length: 1 }],
            positive_buckets: vec![count],
            ..Histogram::default()
        }
    }

    #[test]
    fn kahan_add_keeps_small_counts_beside_large_ones() {
        let mut total = one_bucket(1.0);
        let mut compensation = None;
        for (schema, count) in [(2, 1e100), (0, 1.0), (0, -1e100)] {
            let mut other = one_bucket(count);
            other.schema = schema;
            assert_eq!(total.kahan_add(&other, &mut compensation), Ok(Combined::default()));
        }
        let compensation = compensation.unwrap_or_default();
        assert_eq!(total.positive_buckets, [0.0]);
        assert_eq!(total.add(&compensation), Ok(Combined::default()));
        assert_eq!((total.count, total.sum, total.positive_buckets[0]), (2.0, 2.0, 2.0));
    }

    #[test]
    fn kahan_add_is_a_sum_per_index_whatever_the_spans() {
        // Three histograms one after the other, each with some of five buckets, against a map as the naive twin.
        let of = |bits: u32, unit: f64| {
            let mut runs = SpanRuns::default();
            let indices: Vec<i64> = (0..5).filter(|i| bits >> i & 1 == 1).collect();
            indices.iter().for_each(|&i| runs.push(i));
            let positive_buckets = indices.iter().map(|&i| unit * (i + 1) as f64).collect();
            Histogram { positive_spans: runs.finish(), positive_buckets, ..Histogram::default() }
        };
        for layouts in 0..1 << 15 {
            let parts =
                [(0, 1e17), (5, 0.3), (10, -1e17)].map(|(shift, unit)| of(layouts >> shift & 31, unit));
            let (mut total, mut compensation) = (parts[0].clone(), None);
            for other in &parts[1..] {
                assert_eq!(total.kahan_add(other, &mut compensation), Ok(Combined::default()));
            }
            let mut expected = std::collections::BTreeMap::new();
            for (i, count) in parts.iter().flat_map(|p| cells(&p.positive_spans, &p.positive_buckets)) {
                let (sum, c) = expected.get(&i).copied().unwrap_or((0.0, 0.0));
                expected.insert(i, kahan_inc(count, sum, c));
            }
            let c = compensation.unwrap_or_default();
            assert_eq!(c.positive_spans, total.positive_spans);
            let got: Vec<_> = cells(&total.positive_spans, &total.positive_buckets)
                .zip(&c.positive_buckets)
                .map(|((i, sum), &c)| (i, (sum, c)))
                .collect();
            assert_eq!(got, expected.into_iter().collect::<Vec<_>>(), "{layouts:o}");
        }
    }

    #[test]
    fn kahan_add_agrees_with_add_whatever_the_layouts() {
        let parts = [
            Histogram { schema: 3, zero_threshold: 0.25, zero_count: 2.0, ..one_bucket(3.0) },
            Histogram { schema: 1, zero_threshold: 0.001, ..one_bucket(5.0) },
            Histogram {
                schema: -1,
                zero_threshold: 2.0,
                negative_spans: vec![Span { offset: 1, length: 2 }],
                negative_buckets: vec![1.0, 7.0],
                ..one_bucket(11.0)
            },
        ];
        let mut plain = parts[0].clone();
        let mut compensated = parts[0].clone();
        let mut compensation = None;
        for other in &parts[1..] {
            assert_eq!(plain.add(other), compensated.kahan_add(other, &mut compensation));
        }
        assert_eq!(compensated.add(&compensation.unwrap_or_default()), Ok(Combined::default()));
        plain.compact(0);
        compensated.compact(0);
        assert!(plain.equals(&compensated), "{plain} != {compensated}");
    }

    #[test]
    fn kahan_add_reconciles_custom_bounds() {
        let custom = |bounds: &[f64], counts: &[f64]| Histogram {
            schema: CUSTOM_BUCKETS_SCHEMA,
            custom_values: bounds.to_vec(),
            positive_spans: vec![Span { offset: 0, length: counts.len() as u32 }],
            positive_buckets: counts.to_vec(),
            ..Histogram::default()
        };
        let mut h = custom(&[1.0, 2.0], &[1.0, 2.0, 4.0]);
        let mut compensation = None;
        let report = h.kahan_add(&custom(&[2.0, 3.0], &[8.0, 16.0, 32.0]), &mut compensation);
        assert_eq!(report, Ok(Combined { nhcb_bounds_reconciled: true, ..Combined::default() }));
        assert_eq!(
            (h.custom_values.as_slice(), h.positive_buckets.as_slice()),
            (&[2.0][..], &[11.0, 52.0][..])
        );
        assert_eq!(compensation.map(|c| c.positive_buckets), Some(vec![0.0, 0.0]));
    }

    #[test]
    fn hints_combine() {
        use ResetHint::{Gauge, NoReset, Reset, Unknown};
        let cases = [
            (Gauge, Reset, Gauge, false),
            (NoReset, Gauge, Gauge, false),
            (Unknown, Reset, Unknown, false),
            (NoReset, Unknown, Unknown, false),
            (NoReset, NoReset, NoReset, false),
            (Reset, NoReset, Unknown, true),
        ];
        for (a, b, expected, collision) in cases {
            let mut h = Histogram { reset_hint: a, ..Histogram::default() };
            let other = Histogram { reset_hint: b, ..Histogram::default() };
            let report = Combined { counter_reset_collision: collision, ..Combined::default() };
            assert_eq!(h.sub(&other), Ok(report));
            assert_eq!(h.reset_hint, expected);
        }
    }

    #[test]
    fn buckets_of_the_addend_inside_the_zero_bucket_are_not_added_twice() {
        let mut h = Histogram { zero_threshold: 1.0, zero_count: 1.0, ..one_bucket(0.0) };
        let other = Histogram { zero_threshold: 0.5, zero_count: 1.0, ..one_bucket(4.0) };
        assert_eq!(h.add(&other), Ok(Combined::default()));
        assert_eq!((h.zero_count, h.zero_threshold), (6.0, 1.0));
        assert_eq!(h.positive_buckets, [0.0]);
    }
}
