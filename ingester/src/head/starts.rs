//! Start timestamps of one series' float samples, as runs over time.
//!
//! Constraint: once a series has a known start timestamp, every later sample of it is told to [`Starts::set`], unknown
//! starts too. So a run may span times without samples, and never spans a sample whose start it does not have.

use sextant_model::NO_START;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    first: i64,
    last: i64,
    start: i64,
}

/// See the module's documentation.
#[derive(Clone, Debug)]
pub(crate) struct Starts {
    /// The latest run, kept apart: nearly every series has only this one.
    newest: Run,
    /// Ascending, disjoint, before `newest`.
    older: Vec<Run>,
}

impl Starts {
    /// Begins with a sample; samples up to `unknown_until`, if any, came without a start.
    pub(crate) fn new(unknown_until: Option<i64>, t: i64, start: i64) -> Self {
        let Some(last) = unknown_until else {
            return Self { newest: Run { first: t, last: t, start }, older: Vec::new() };
        };
        let mut starts = Self { newest: Run { first: i64::MIN, last, start: NO_START }, older: Vec::new() };
        starts.set(t, start);
        starts
    }

    /// Records a sample's start.
    #[inline]
    pub(crate) fn set(&mut self, t: i64, start: i64) {
        if t > self.newest.last {
            if start == self.newest.start {
                self.newest.last = t;
            } else {
                self.older.push(std::mem::replace(&mut self.newest, Run { first: t, last: t, start }));
            }
        } else if t < self.newest.first || start != self.newest.start {
            self.set_within(t, start);
        }
    }

    fn set_within(&mut self, t: i64, start: i64) {
        let mut runs = std::mem::take(&mut self.older);
        runs.push(self.newest);
        let i = runs.partition_point(|r| r.last < t);
        let new = Run { first: t, last: t, start };
        match runs[i] {
            r if r.first > t => runs.insert(i, new),
            r if r.start == start => {}
            r => {
                let before = (r.first < t).then(|| Run { last: t - 1, ..r });
                let after = (r.last > t).then(|| Run { first: t + 1, ..r });
                runs.splice(i..=i, before.into_iter().chain([new]).chain(after));
            }
        }
        if let Some(newest) = runs.pop() {
            self.newest = newest;
        }
        self.older = runs;
    }

    /// Appends the starts of samples at ascending times.
    pub(crate) fn read(&self, times: &[i64], out: &mut Vec<i64>) {
        let mut runs = self.older.iter().chain([&self.newest]).peekable();
        for &t in times {
            while runs.next_if(|r| r.last < t).is_some() {}
            out.push(runs.peek().filter(|r| r.first <= t).map_or(NO_START, |r| r.start));
        }
    }

    /// Whether a sample in the range may have a known start.
    pub(crate) fn memory(&self) -> usize {
        size_of::<Self>() + self.older.capacity() * size_of::<Run>()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn starts_are_those_of_the_last_write(writes in proptest::collection::vec((-20i64..20, 0i64..4), 1..80), plain in 0usize..10) {
            let mut naive = BTreeMap::new();
            let mut starts: Option<Starts> = None;
            let mut newest = None;
            for (i, &(t, s)) in writes.iter().enumerate() {
                let s = if i < plain { 0 } else { s };
                match &mut starts {
                    Some(x) => x.set(t, s),
                    None if s != 0 => starts = Some(Starts::new(newest, t, s)),
                    None => newest = newest.max(Some(t)),
                }
                naive.insert(t, s);
            }
            if let Some(x) = starts {
                let times: Vec<i64> = naive.keys().copied().collect();
                let mut out = Vec::new();
                x.read(&times, &mut out);
                prop_assert_eq!(out, naive.into_values().collect::<Vec<_>>());
            }
        }
    }
}
