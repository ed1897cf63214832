//! The grid of evaluation times of a query or of a subquery.

/// `count` times, `step_ms` apart, from `start_ms`. An instant query has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Steps {
    /// The first evaluation time, milliseconds since the Unix epoch.
    pub start_ms: i64,
    /// Between two evaluation times; at least 1.
    pub step_ms: i64,
    /// How many evaluation times there are.
    pub count: usize,
}

impl Steps {
    /// One evaluation time.
    pub fn instant(at_ms: i64) -> Self {
        Self { start_ms: at_ms, step_ms: 1, count: 1 }
    }

    /// Every `step_ms` from `start_ms` up to and including `end_ms`; no step where the end comes before the start.
    pub fn range(start_ms: i64, end_ms: i64, step_ms: i64) -> Self {
        let step_ms = step_ms.max(1);
        let count = match end_ms.checked_sub(start_ms) {
            Some(span) if span >= 0 => (span / step_ms) as usize + 1,
            _ => 0,
        };
        Self { start_ms, step_ms, count }
    }

    /// The evaluation time of a step.
    #[inline]
    pub fn at(&self, step: usize) -> i64 {
        self.start_ms.saturating_add(self.step_ms.saturating_mul(step as i64))
    }

    /// The last evaluation time; the first where there is no step.
    pub fn end_ms(&self) -> i64 {
        self.at(self.count.max(1) - 1)
    }

    /// How many 64-bit words the presence bits of one row take.
    #[inline]
    pub fn words(&self) -> usize {
        self.count.div_ceil(64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_are_steps() {
        let s = Steps::range(10, 40, 10);
        assert_eq!((s.count, s.at(3), s.end_ms()), (4, 40, 40));
        assert_eq!(Steps::range(10, 39, 10).count, 3);
        assert_eq!(Steps::range(10, 9, 10).count, 0);
    }
}
