//! Stopping a query from outside.

use std::{
    cell::Cell,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use crate::error::EvalError;

/// Set from outside to stop a query; looked at for each series in every kernel, and within long series.
#[derive(Clone, Debug, Default)]
pub struct CancelFlag(Arc<Flag>);

#[derive(Debug, Default)]
struct Flag {
    stop: AtomicBool,
    watch: Option<Watch>,
}

/// Counts looks at the flag.
#[derive(Debug)]
struct Watch {
    looks: AtomicUsize,
    stop_at: usize,
}

impl CancelFlag {
    /// A flag that counts how often it is looked at, and stops the query at look `stop_at` (from 1): for tests of how
    /// soon an operator sees the flag.
    pub fn counting(stop_at: usize) -> Self {
        let watch = Watch { looks: AtomicUsize::new(0), stop_at };
        Self(Arc::new(Flag { stop: AtomicBool::new(false), watch: Some(watch) }))
    }

    /// How often a [`CancelFlag::counting`] flag has been looked at; 0 for others.
    pub fn looks(&self) -> usize {
        self.0.watch.as_ref().map_or(0, |w| w.looks.load(Ordering::Relaxed))
    }

    /// Stops the query at the next look.
    pub fn cancel(&self) {
        self.0.stop.store(true, Ordering::Relaxed);
    }

    /// Whether the query is to stop.
    #[inline]
    pub fn is_cancelled(&self) -> bool {
        if let Some(watch) = &self.0.watch
            && watch.looks.fetch_add(1, Ordering::Relaxed) + 1 >= watch.stop_at
        {
            self.cancel();
        }
        self.0.stop.load(Ordering::Relaxed)
    }

    /// An error where the query is to stop.
    #[inline]
    pub fn check(&self) -> Result<(), EvalError> {
        if self.is_cancelled() { Err(EvalError::Cancelled) } else { Ok(()) }
    }

    /// A pace for one loop.
    pub(crate) fn pace(&self) -> Pace<'_> {
        Pace { flag: self, left: Cell::new(WORK_PER_LOOK) }
    }
}

/// Units of work between two looks at the flag. A unit takes some nanoseconds: about what a float costs that is read,
/// compared or added.
pub(crate) const WORK_PER_LOOK: usize = 1 << 18;

/// Looks at the flag each [`WORK_PER_LOOK`] units of work.
pub(crate) struct Pace<'a> {
    flag: &'a CancelFlag,
    left: Cell<usize>,
}

impl Pace<'_> {
    /// Counts work; an error where the query is to stop.
    #[inline]
    pub(crate) fn spend(&self, units: usize) -> Result<(), EvalError> {
        match self.left.get().checked_sub(units) {
            Some(left) => {
                self.left.set(left);
                Ok(())
            }
            None => {
                self.left.set(WORK_PER_LOOK);
                self.flag.check()
            }
        }
    }
}

/// Stable merge sort that can be stopped: `sort_by` in pieces, then merges.
pub(crate) fn sort_by<X: Copy>(
    items: &mut Vec<X>,
    flag: &CancelFlag,
    mut compare: impl FnMut(X, X) -> std::cmp::Ordering,
) -> Result<(), EvalError> {
    const PIECE: usize = 4096;
    for piece in items.chunks_mut(PIECE) {
        flag.check()?;
        piece.sort_by(|a, b| compare(*a, *b));
    }
    let mut width = PIECE;
    while width < items.len() {
        let mut merged = Vec::with_capacity(items.len());
        for pair in items.chunks(2 * width) {
            let (mut a, mut b) = pair.split_at(width.min(pair.len()));
            while let (Some(&x), Some(&y)) = (a.first(), b.first()) {
                if merged.len().is_multiple_of(PIECE) {
                    flag.check()?;
                }
                if compare(y, x).is_lt() {
                    merged.push(y);
                    b = &b[1..];
                } else {
                    merged.push(x);
                    a = &a[1..];
                }
            }
            merged.extend_from_slice(a);
            merged.extend_from_slice(b);
        }
        *items = merged;
        width *= 2;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sorts_stably_and_stops() {
        let mut state = 1u64;
        let mut random = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % 1000
        };
        for n in [0, 1, 4096, 4097, 30_000] {
            let mut items: Vec<(u64, usize)> = (0..n).map(|i| (random(), i)).collect();
            let mut expected = items.clone();
            expected.sort_by_key(|x| x.0);
            sort_by(&mut items, &CancelFlag::default(), |a, b| a.0.cmp(&b.0)).unwrap();
            assert_eq!(items, expected);
        }
        let flag = CancelFlag::counting(5);
        let mut items: Vec<usize> = (0..100_000).rev().collect();
        assert!(sort_by(&mut items, &flag, |a, b| a.cmp(&b)).is_err());
        assert_eq!(flag.looks(), 5);
    }

    #[test]
    fn a_pace_looks_after_so_much_work() {
        let flag = CancelFlag::counting(usize::MAX);
        let pace = flag.pace();
        (0..WORK_PER_LOOK * 4).for_each(|_| pace.spend(2).unwrap());
        assert!((7..=8).contains(&flag.looks()), "{}", flag.looks());
    }
}
