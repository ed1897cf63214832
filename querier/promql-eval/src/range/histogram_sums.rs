//! `sum_over_time` and `avg_over_time` of native histograms, and the running sum that aggregations use too.

use std::sync::Arc;

use sextant_model::{Histogram, HistogramError, ResetHint};

use super::{RangeFunction, RangeKind, mixed::Histograms};
use crate::{
    annotations::{Annotations, HistogramOp},
    block::Cell,
};

/// A compensated sum of histograms that turns into a running mean where it would overflow.
#[derive(Clone, Debug)]
pub struct HistogramSum {
    sum: Histogram,
    compensation: Option<Histogram>,
    count: f64,
    mean: bool,
    incremental: bool,
    /// Hints seen.
    reset: bool,
    no_reset: bool,
    /// Custom bounds had to be reconciled.
    pub reconciled: bool,
}

impl HistogramSum {
    /// A sum, or a mean, that starts with one histogram.
    pub fn new(h: &Histogram, mean: bool) -> Self {
        let mut new = Self {
            sum: h.clone(),
            compensation: None,
            count: 1.0,
            mean,
            incremental: false,
            reset: false,
            no_reset: false,
            reconciled: false,
        };
        new.look_at_hint(h.reset_hint);
        new
    }

    /// Whether hints contradicted each other.
    pub fn collided(&self) -> bool {
        self.reset && self.no_reset
    }

    fn look_at_hint(&mut self, hint: ResetHint) {
        self.reset |= hint == ResetHint::Reset;
        self.no_reset |= hint == ResetHint::NoReset;
    }

    /// Adds a histogram.
    pub fn add(&mut self, h: &Histogram) -> Result<(), HistogramError> {
        self.look_at_hint(h.reset_hint);
        self.count += 1.0;
        if !self.mean {
            self.reconciled |= self.sum.kahan_add(h, &mut self.compensation)?.nhcb_bounds_reconciled;
            return Ok(());
        }
        if !self.incremental {
            let (mut sum, mut c) = (self.sum.clone(), self.compensation.clone());
            self.reconciled |= sum.kahan_add(h, &mut c)?.nhcb_bounds_reconciled;
            if !has_overflow(&sum) {
                (self.sum, self.compensation) = (sum, c);
                return Ok(());
            }
            self.incremental = true;
            self.sum.div(self.count - 1.0);
            if let Some(c) = &mut self.compensation {
                c.div(self.count - 1.0);
            }
        }
        let q = (self.count - 1.0) / self.count;
        if let Some(c) = &mut self.compensation {
            c.mul(q);
        }
        let mut part = h.clone();
        part.div(self.count);
        self.sum.mul(q);
        self.reconciled |= self.sum.kahan_add(&part, &mut self.compensation)?.nhcb_bounds_reconciled;
        Ok(())
    }

    /// Adds another running sum of the same kind.
    pub fn merge(&mut self, other: HistogramSum) -> Result<(), HistogramError> {
        self.reset |= other.reset;
        self.no_reset |= other.no_reset;
        self.reconciled |= other.reconciled;
        if !self.mean || (!self.incremental && !other.incremental) {
            let (mut sum, mut c) = (self.sum.clone(), self.compensation.clone());
            let mut reconciled = sum.kahan_add(&other.sum, &mut c)?.nhcb_bounds_reconciled;
            if let Some(o) = &other.compensation {
                reconciled |= sum.kahan_add(o, &mut c)?.nhcb_bounds_reconciled;
            }
            self.reconciled |= reconciled;
            if !self.mean || !has_overflow(&sum) {
                (self.sum, self.compensation) = (sum, c);
                self.count += other.count;
                return Ok(());
            }
        }
        let total = self.count + other.count;
        let (mut a, b_count) = (self.clone(), other.count);
        let mut b = other;
        a.sum = a.value()?;
        b.sum = b.value()?;
        a.sum.mul(self.count / total);
        b.sum.mul(b_count / total);
        a.compensation = None;
        self.sum = a.sum;
        self.compensation = None;
        self.reconciled |= self.sum.add(&b.sum)?.nhcb_bounds_reconciled;
        self.count = total;
        self.incremental = true;
        Ok(())
    }

    /// The sum or the mean so far.
    pub fn value(&self) -> Result<Histogram, HistogramError> {
        let mut result = self.sum.clone();
        let mut compensation = self.compensation.clone();
        if self.mean && !self.incremental {
            result.div(self.count);
            if let Some(c) = &mut compensation {
                c.div(self.count);
            }
        }
        if let Some(c) = compensation {
            result.add(&c)?;
        }
        // The compensation is a part of the same histograms: its hint must not change the result's.
        result.reset_hint = self.sum.reset_hint;
        Ok(result)
    }
}

fn has_overflow(h: &Histogram) -> bool {
    h.zero_count.is_infinite()
        || h.count.is_infinite()
        || h.sum.is_infinite()
        || h.positive_buckets.iter().chain(&h.negative_buckets).any(|b| b.is_infinite())
}

/// Over one window of histograms that is not empty.
pub fn over_time(op: &RangeFunction, h: &Histograms<'_>, name: &str, notes: &Annotations) -> Option<Cell> {
    let mut sum = HistogramSum::new(&h[0].h, op.kind == RangeKind::AvgOverTime);
    let result = h[1..].iter().try_for_each(|s| sum.add(&s.h)).and_then(|()| sum.value());
    match result {
        Ok(value) => {
            if sum.collided() {
                notes.counter_reset_collision(HistogramOp::Aggregation, op.pos);
            }
            if sum.reconciled {
                notes.mismatched_custom_buckets(HistogramOp::Aggregation, op.pos);
            }
            Some(Cell::Histogram(Arc::new(value)))
        }
        Err(_) => {
            notes.mixed_exponential_custom(name, op.pos);
            None
        }
    }
}
