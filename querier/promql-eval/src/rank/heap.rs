//! The k best values, kept in a binary heap with the worst on top.
//!
//! It moves entries as Go's `container/heap` does, because that decides which of several equal values are kept.

/// Entries: a value and the row it comes from.
pub struct Heap {
    k: usize,
    smallest: bool,
    entries: Vec<(f64, usize)>,
}

impl Heap {
    /// Keeps the `k` largest values, or the smallest. NaN is the worst of all.
    pub fn new(k: usize, smallest: bool) -> Self {
        Self { k, smallest, entries: Vec::new() }
    }

    /// Whether the first value is worse.
    fn worse(&self, a: f64, b: f64) -> bool {
        a.is_nan() || if self.smallest { a > b } else { a < b }
    }

    /// Takes a value where it is among the best so far.
    pub fn offer(&mut self, v: f64, row: usize) {
        if self.entries.len() < self.k {
            self.entries.push((v, row));
            self.up(self.entries.len() - 1);
            return;
        }
        let top = self.entries[0].0;
        let better = if self.smallest { top > v } else { top < v };
        if better || (top.is_nan() && !v.is_nan()) {
            self.entries[0] = (v, row);
            self.down();
        }
    }

    fn up(&mut self, mut j: usize) {
        while j > 0 {
            let i = (j - 1) / 2;
            if !self.worse(self.entries[j].0, self.entries[i].0) {
                break;
            }
            self.entries.swap(i, j);
            j = i;
        }
    }

    fn down(&mut self) {
        let n = self.entries.len();
        let mut i = 0;
        loop {
            let left = 2 * i + 1;
            if left >= n {
                return;
            }
            let right = left + 1;
            let child = if right < n && self.worse(self.entries[right].0, self.entries[left].0) {
                right
            } else {
                left
            };
            if !self.worse(self.entries[child].0, self.entries[i].0) {
                return;
            }
            self.entries.swap(i, child);
            i = child;
        }
    }

    /// The rows, the best first; equal values in order of rows.
    pub fn into_best_first(self) -> impl Iterator<Item = usize> {
        let Self { smallest, mut entries, .. } = self;
        entries.sort_by(|a, b| {
            let by_value = match (a.0.is_nan(), b.0.is_nan()) {
                (true, true) => std::cmp::Ordering::Equal,
                (true, false) => std::cmp::Ordering::Greater,
                (false, true) => std::cmp::Ordering::Less,
                (false, false) if smallest => a.0.total_cmp(&b.0),
                (false, false) => b.0.total_cmp(&a.0),
            };
            by_value.then(a.1.cmp(&b.1))
        });
        entries.into_iter().map(|(_, row)| row)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_come_first_and_nan_last() {
        let mut top = Heap::new(2, false);
        for (row, v) in [f64::NAN, 1.0, 3.0, 2.0].into_iter().enumerate() {
            top.offer(v, row);
        }
        assert_eq!(top.into_best_first().collect::<Vec<_>>(), [2, 3]);
        let mut bottom = Heap::new(3, true);
        for (row, v) in [f64::NAN, 1.0, 3.0].into_iter().enumerate() {
            bottom.offer(v, row);
        }
        assert_eq!(bottom.into_best_first().collect::<Vec<_>>(), [1, 2, 0]);
    }
}
