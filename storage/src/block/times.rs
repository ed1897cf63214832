//! Timestamps, stored once for all series that were scraped together.
//!
//! A *target* is a set of series whose timestamps come from one list. The grid table holds the list in windows: time
//! of position `p0 + i` is `t0 + i * dt + jitter[i]`. A series is positions `g0, g0 + 1, …`, or the positions `idx`
//! where it misses some.

use std::collections::HashMap;

/// Where a series' timestamps are.
#[derive(Clone, Copy, Debug)]
pub struct TimeRef {
    target: u32,
    pattern: u32,
    start: u32,
}

/// A run of positions of a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// The target.
    pub target: u32,
    /// First position.
    pub p0: u32,
    /// Time of the first position without its jitter.
    pub t0: i64,
    /// Regular distance.
    pub dt: i64,
    /// What each time is later than the regular one.
    pub jitter: Vec<i32>,
}

/// So many different lists are kept apart for one target until the end; series beyond that become a target of their
/// own, which keeps the search for a list short and memory bounded when a key is wrong.
const PATTERNS_MAX: usize = 32;

/// Collects the timestamps of the series of a block.
#[derive(Default)]
pub struct TimeTable {
    /// For each target its distinct lists.
    targets: Vec<Vec<Vec<i64>>>,
    by_key: HashMap<u64, u32>,
    by_content: HashMap<u64, u32>,
}

impl TimeTable {
    /// Takes the timestamps of a series, ascending and not empty. `key` is as in [`crate::SeriesSource::time_key`].
    pub fn add(&mut self, key: Option<u64>, t: &[i64]) -> TimeRef {
        if let Some(key) = key {
            let target = *self.by_key.entry(key).or_insert_with(|| {
                self.targets.push(Vec::new());
                self.targets.len() as u32 - 1
            });
            let patterns = &mut self.targets[target as usize];
            for (i, pattern) in patterns.iter().enumerate() {
                if let Some(start) = position(pattern, t) {
                    return TimeRef { target, pattern: i as u32, start };
                }
            }
            if patterns.len() < PATTERNS_MAX {
                patterns.push(t.to_vec());
                return TimeRef { target, pattern: patterns.len() as u32 - 1, start: 0 };
            }
        }
        let hash = content_hash(t);
        if let Some(&target) = self.by_content.get(&hash)
            && self.targets[target as usize][0] == t
        {
            return TimeRef { target, pattern: 0, start: 0 };
        }
        self.targets.push(vec![t.to_vec()]);
        let target = self.targets.len() as u32 - 1;
        self.by_content.insert(hash, target);
        TimeRef { target, pattern: 0, start: 0 }
    }

    /// Ends collecting: the windows of every target, and where the series find their timestamps.
    pub fn finish(self) -> (Vec<Window>, Places) {
        let mut windows = Vec::new();
        let mut patterns = Vec::with_capacity(self.targets.len());
        for (target, lists) in self.targets.into_iter().enumerate() {
            let mut union: Vec<i64> = lists.iter().flatten().copied().collect();
            if lists.len() > 1 {
                union.sort_unstable();
                union.dedup();
            }
            patterns.push(
                lists
                    .iter()
                    .map(|list| match position(&union, list) {
                        Some(start) => Pattern::Run(start),
                        None => Pattern::Some(
                            list.iter().map(|t| union.binary_search(t).map_or(0, |p| p as i32)).collect(),
                        ),
                    })
                    .collect(),
            );
            split(target as u32, &union, &mut windows);
        }
        (windows, Places { patterns })
    }
}

enum Pattern {
    Run(u32),
    Some(Vec<i32>),
}

/// Resolves [`TimeRef`]s.
pub struct Places {
    patterns: Vec<Vec<Pattern>>,
}

impl Places {
    /// The target, the first position, and the positions where they are not a run, of `n` samples.
    pub fn place(&self, r: TimeRef, n: usize) -> (u32, u32, Option<&[i32]>) {
        match &self.patterns[r.target as usize][r.pattern as usize] {
            Pattern::Run(at) => (r.target, at + r.start, None),
            Pattern::Some(idx) => {
                let idx = &idx[r.start as usize..r.start as usize + n];
                match idx {
                    [first, .., last] if (last - first) as usize + 1 == n => (r.target, *first as u32, None),
                    [only] => (r.target, *only as u32, None),
                    _ => (r.target, 0, Some(idx)),
                }
            }
        }
    }
}

/// Where `t` is a run of `list`.
fn position(list: &[i64], t: &[i64]) -> Option<u32> {
    let first = t.first()?;
    let start = if list.first() == Some(first) { 0 } else { list.binary_search(first).ok()? };
    (list.get(start..start + t.len())? == t).then_some(start as u32)
}

fn content_hash(t: &[i64]) -> u64 {
    t.iter().fold(t.len() as u64, |h, &x| (h.rotate_left(23) ^ x as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

fn split(target: u32, t: &[i64], out: &mut Vec<Window>) {
    let dt = usual_distance(t);
    let before = out.len();
    windows(target, t, dt, i128::from(dt / 2).max(1), out);
    // Gaps begin a new window, which keeps jitter narrow. Times without a rhythm would begin one all the time.
    if (out.len() - before) * 16 > t.len() {
        out.truncate(before);
        windows(target, t, dt, i128::from(i32::MAX) / 2, out);
    }
}

fn windows(target: u32, t: &[i64], dt: i64, off_max: i128, out: &mut Vec<Window>) {
    let mut start = 0;
    while start < t.len() {
        let regular = |i: usize| i128::from(t[start]) + (i - start) as i128 * i128::from(dt);
        let end =
            (start..t.len()).find(|&i| (i128::from(t[i]) - regular(i)).abs() > off_max).unwrap_or(t.len());
        let off = |i: usize| (i128::from(t[i]) - regular(i)) as i64;
        // The first is off by nothing, so the smallest is at most 0 and jitter at most twice `off_max`.
        let low = (start..end).map(off).min().unwrap_or(0);
        out.push(Window {
            target,
            p0: start as u32,
            t0: t[start].wrapping_add(low),
            dt,
            jitter: (start..end).map(|i| (off(i) - low) as i32).collect(),
        });
        start = end;
    }
}

/// The median distance of the first timestamps; 0 where there is none or it is absurd.
fn usual_distance(t: &[i64]) -> i64 {
    let mut d: Vec<i64> = t.windows(2).take(65).map(|p| p[1].saturating_sub(p[0])).collect();
    d.sort_unstable();
    d.get(d.len() / 2).copied().filter(|d| *d < 1 << 40).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(windows: &[Window], target: u32) -> Vec<i64> {
        let of = windows.iter().filter(|w| w.target == target);
        of.flat_map(|w| (0..).zip(&w.jitter).map(|(i, j)| w.t0 + i * w.dt + i64::from(*j))).collect()
    }

    #[test]
    fn series_of_a_target_share_a_grid() {
        let full: Vec<i64> = (0..100).map(|i| 1_000_000 + i * 15_000 + i % 3).collect();
        let gap: Vec<i64> = full.iter().copied().filter(|t| t % 7 != 0).collect();
        let mut table = TimeTable::default();
        let a = table.add(Some(1), &full[10..20]);
        let b = table.add(Some(1), &full);
        let c = table.add(Some(1), &gap);
        let d = table.add(Some(1), &full[50..]);
        let e = table.add(None, &[5, 9, 100_000_000_000, i64::MAX]);
        let f = table.add(None, &[5, 9, 100_000_000_000, i64::MAX]);
        let (windows, places) = table.finish();
        for (r, want) in [(a, &full[10..20]), (b, &full[..]), (c, &gap[..]), (d, &full[50..])] {
            let (target, g0, idx) = places.place(r, want.len());
            let grid = times(&windows, target);
            let got: Vec<i64> = match idx {
                Some(idx) => idx.iter().map(|&p| grid[p as usize]).collect(),
                None => grid[g0 as usize..g0 as usize + want.len()].to_vec(),
            };
            assert_eq!(got, want);
        }
        assert_eq!(places.place(e, 4), places.place(f, 4));
        assert_eq!(times(&windows, 1), [5, 9, 100_000_000_000, i64::MAX]);
        assert_eq!(windows.iter().filter(|w| w.target == 0).count(), 1);
    }

    #[test]
    fn a_pause_begins_a_window_and_chaos_does_not() {
        let mut out = Vec::new();
        let mut t: Vec<i64> = (0..100).map(|i| i * 1000).collect();
        t.extend((0..100).map(|i| 500_000 + i * 1000));
        split(0, &t, &mut out);
        assert_eq!((out.len(), times(&out, 0)), (2, t));
        let t: Vec<i64> = (0..200).map(|i| i * i * 37).collect();
        out.clear();
        split(0, &t, &mut out);
        assert_eq!((out.len(), times(&out, 0)), (1, t));
    }
}
