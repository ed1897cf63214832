//! Running totals of series whose samples are increments (OTLP delta temporality).
//!
//! Rules: increments are added in the order of the log. A second increment for the newest time replaces the one before
//! it (the last write wins). One for an earlier time is refused: the totals after it may be flushed already. A NaN (a
//! staleness marker too) is handed through and adds nothing. The total's start is that of its first increment.

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use sextant_model::{Histogram, ResetHint};

/// A total without increments for this long begins anew.
const IDLE_MS_MAX: i64 = 3_600_000;

/// The total of one series.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Total<V> {
    /// Start timestamp of the first increment.
    pub(crate) start: i64,
    /// Time of the newest increment.
    pub(crate) t: i64,
    /// Total before the newest increment; `None` where that is the first.
    pub(crate) before: Option<V>,
    /// Total with it.
    pub(crate) total: V,
    /// When the last increment came, by the distributor's clock.
    pub(crate) touched_ms: i64,
}

/// A value that can be added up.
pub(crate) trait Increment: Clone {
    /// Whether the value is handed through.
    fn is_marker(&self) -> bool;
    /// `self + other`; `None` where the two do not fit together.
    fn plus(&self, other: &Self) -> Option<Self>;
}

impl Increment for f64 {
    fn is_marker(&self) -> bool {
        self.is_nan()
    }

    fn plus(&self, other: &Self) -> Option<Self> {
        Some(self + other)
    }
}

impl Increment for Histogram {
    fn is_marker(&self) -> bool {
        self.is_stale()
    }

    fn plus(&self, other: &Self) -> Option<Self> {
        let mut sum = self.clone();
        sum.add(other).ok()?;
        Some(sum)
    }
}

/// Totals by series id.
#[derive(Clone, Debug)]
pub(crate) struct Totals<V> {
    pub(crate) by_series: HashMap<u128, Total<V>, RandomState>,
}

impl<V> Default for Totals<V> {
    fn default() -> Self {
        Self { by_series: HashMap::default() }
    }
}

impl<V: Increment> Totals<V> {
    /// Adds an increment and gives the total and its start; `None` where the increment comes too late.
    pub(crate) fn add(
        &mut self,
        series: u128,
        t: i64,
        increment: V,
        start: i64,
        now_ms: i64,
    ) -> Option<(V, i64)> {
        let Some(x) = self.by_series.get_mut(&series) else {
            if !increment.is_marker() {
                let new = Total { start, t, before: None, total: increment.clone(), touched_ms: now_ms };
                self.by_series.insert(series, new);
            }
            return Some((increment, start));
        };
        if t < x.t {
            return None;
        }
        if increment.is_marker() {
            return Some((increment, x.start));
        }
        if t > x.t {
            x.before = Some(x.total.clone());
        }
        x.total = match x.before.as_ref().map(|b| b.plus(&increment)) {
            Some(Some(sum)) => sum,
            // The first increment again, or one of another shape: the total begins with it.
            other => {
                if other.is_some() {
                    (x.start, x.before) = (start, None);
                }
                increment
            }
        };
        (x.t, x.touched_ms) = (t, x.touched_ms.max(now_ms));
        Some((x.total.clone(), x.start))
    }

    /// Forgets totals that no increment has reached for an hour.
    pub(crate) fn expire(&mut self, now_ms: i64) {
        self.by_series.retain(|_, x| x.touched_ms >= now_ms.saturating_sub(IDLE_MS_MAX));
    }
}

/// A total as a sample: whether a counter was reset must be seen by comparison.
pub(crate) fn as_sample(mut h: Histogram) -> Histogram {
    if h.reset_hint != ResetHint::Gauge {
        h.reset_hint = ResetHint::Unknown;
    }
    h
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn increments_add_up_in_order() {
        let mut t = Totals::<f64>::default();
        assert_eq!(t.add(1, 10, 5.0, 3, 0), Some((5.0, 3)));
        assert_eq!(t.add(1, 10, 6.0, 3, 0), Some((6.0, 3)));
        assert_eq!(t.add(1, 20, 1.0, 10, 0), Some((7.0, 3)));
        assert_eq!(t.add(1, 20, 2.0, 10, 0), Some((8.0, 3)));
        assert_eq!(t.add(1, 15, 2.0, 10, 0), None);
        assert!(t.add(1, 25, sextant_model::stale_nan(), 0, 0).is_some_and(|(v, _)| v.is_nan()));
        assert_eq!(t.add(1, 30, 1.0, 20, 0), Some((9.0, 3)));
        assert_eq!(t.add(2, 30, 1.0, 20, 9_000_000), Some((1.0, 20)));
        t.expire(9_000_000);
        assert_eq!(t.add(1, 5, 1.0, 4, 0), Some((1.0, 4)));
    }
}
