//! Query statistics per step, counted as Prometheus counts them: only where `stats=all` asks for them.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use crate::{
    block::StepBlock,
    select::SelectorTime,
    steps::Steps,
    value::{RawSeries, histogram_cost},
};

/// Samples by step of the query's own grid. A native histogram counts for as many samples as fit in its memory.
#[derive(Debug)]
pub(crate) struct StepCounts {
    looked_at: Vec<AtomicU64>,
    read: Vec<AtomicU64>,
}

/// What one operator has counted by step of its own grid, before it goes to the query's.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Samples that each step looks at.
    pub looked_at: Vec<u64>,
    /// Those of them that no step before has looked at.
    pub read: Vec<u64>,
}

impl Tally {
    pub(crate) fn new(steps: usize) -> Self {
        Self { looked_at: vec![0; steps], read: vec![0; steps] }
    }

    /// The cells of a selector's result: each is looked at and read once.
    pub(crate) fn of_block(block: &StepBlock) -> Self {
        let mut counts = vec![0; block.steps.count];
        for i in 0..block.len() {
            let row = block.row(i);
            for step in crate::bits::ones(row.present) {
                counts[step] += row.histogram(step).map_or(1, |h| histogram_cost(h)) as u64;
            }
        }
        Self { read: counts.clone(), looked_at: counts }
    }

    /// Everything at the only step.
    pub(crate) fn of_raw(raw: &RawSeries) -> Self {
        let held = raw.held_samples() as u64;
        Self { looked_at: vec![held], read: vec![held] }
    }

    /// One window of each step: `lo..hi` into what has the costs `cost`.
    pub(crate) fn add_windows(&mut self, bounds: &[(u32, u32)], cost: impl Fn(u32, u32) -> u64) {
        let mut seen = 0;
        for (step, &(lo, hi)) in bounds.iter().enumerate() {
            if lo < hi {
                self.looked_at[step] += cost(lo, hi);
                self.read[step] += if seen < hi { cost(lo.max(seen), hi) } else { 0 };
                seen = seen.max(hi);
            }
        }
    }
}

impl StepCounts {
    pub(crate) fn new(steps: usize) -> Self {
        let zeros = || (0..steps).map(|_| AtomicU64::new(0)).collect();
        Self { looked_at: zeros(), read: zeros() }
    }

    /// Adds what an operator has counted. `weight` is how many of the query's steps its own stand for: none below a
    /// subquery whose user counts, one on the query's grid, all of them where it has one answer for every step.
    pub(crate) fn add(&self, tally: &Tally, weight: usize, first_user: Option<&FirstUser>) {
        let steps = self.looked_at.len();
        let count = |into: &AtomicU64, n: u64| _ = into.fetch_add(n, Ordering::Relaxed);
        let all: u64 = tally.looked_at.iter().sum();
        match self.looked_at.as_slice() {
            _ if weight == 0 => {}
            // Inside of a subquery at the top there may be parts with one answer for all of its steps.
            [only] => count(only, all * weight as u64),
            each if tally.looked_at.len() == steps => {
                each.iter().zip(&tally.looked_at).for_each(|(into, &n)| count(into, n));
            }
            each => each.iter().for_each(|into| count(into, all)),
        }
        let Some(first_user) = first_user else { return };
        for (k, &n) in tally.read.iter().enumerate().filter(|(_, n)| **n > 0) {
            if let Some(into) = first_user.of(k).and_then(|step| self.read.get(step)) {
                count(into, n);
            }
        }
    }

    pub(crate) fn looked_at(&self) -> Vec<u64> {
        self.looked_at.iter().map(|n| n.load(Ordering::Relaxed)).collect()
    }

    pub(crate) fn read(&self) -> Vec<u64> {
        self.read.iter().map(|n| n.load(Ordering::Relaxed)).collect()
    }
}

/// Which step of the query is the first to use a step of an operator's grid: a path through the subqueries around it.
#[derive(Clone, Debug, Default)]
pub struct FirstUser(Vec<Arc<Level>>);

/// One subquery of the path.
#[derive(Debug)]
struct Level {
    outer: Steps,
    inner: Steps,
    time: SelectorTime,
    range_ms: i64,
}

impl FirstUser {
    /// The path of what is inside of one more subquery.
    pub(crate) fn below(&self, outer: Steps, inner: Steps, time: SelectorTime, range_ms: i64) -> Self {
        let mut levels = self.0.clone();
        levels.push(Arc::new(Level { outer, inner, time, range_ms }));
        Self(levels)
    }

    fn of(&self, step: usize) -> Option<usize> {
        self.0.iter().rev().try_fold(step, |step, level| level.first_user(step))
    }
}

impl Level {
    /// The first outer step whose window has the inner step; `None` where it lies between two windows.
    fn first_user(&self, step: usize) -> Option<usize> {
        if self.outer.count <= 1 || self.time.is_fixed() {
            return Some(0);
        }
        let t = self.inner.at(step).saturating_add(self.time.offset_ms);
        let after = t.saturating_sub(self.outer.start_ms).max(0);
        let user = usize::try_from((after - 1).div_euclid(self.outer.step_ms) + 1).ok()?;
        let is_inside = user < self.outer.count && t > self.outer.at(user).saturating_sub(self.range_ms);
        is_inside.then_some(user)
    }
}
