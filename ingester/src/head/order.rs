//! The order of a tenant's series by labels, kept as one number for each series.
//!
//! Readers want series in order of labels, and comparing label sets is most of what short queries over many series cost. So
//! once sorting has cost as much as numbering all series would, they are numbered, and a selection is sorted by numbers.
//! Series that came later are sorted by labels until numbering them pays too. A number takes 4 bytes; a head that is never
//! asked has none.

use std::{ops::Range, sync::Arc};

use parking_lot::Mutex;
use roaring::RoaringBitmap;
use sextant_model::Labels;

use super::{select::compare_labels, series::SeriesRef, tenant::TenantHead};

/// Comparisons with series that are numbered are made for so many new series under one lock.
const SEARCHES: usize = 32;

/// See the module's documentation.
#[derive(Default)]
pub(crate) struct Order {
    /// By ref; what is behind its end has no number. Locked for as long as taking or replacing them takes.
    ranks: Mutex<Arc<Vec<u32>>>,
    /// Comparisons made since for series without a number. Whoever numbers holds it meanwhile.
    spent: Mutex<usize>,
}

impl Order {
    /// Bytes that the numbers take.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.ranks.lock().capacity() * size_of::<u32>()
    }
}

fn comparisons(n: usize) -> usize {
    n * (usize::BITS - n.leading_zeros()) as usize
}

impl TenantHead {
    /// Series with their labels, in order of labels.
    pub(crate) fn in_order(&self, series: &RoaringBitmap) -> Vec<(Labels, SeriesRef)> {
        let ranks = self.ranks(series);
        let ranked = (series.len() - rest(series, &ranks)) as usize;
        let mut refs: Vec<SeriesRef> = series.iter().collect();
        let mut keys: Vec<u64> =
            refs[..ranked].iter().map(|&r| u64::from(ranks[r as usize]) << 32 | u64::from(r)).collect();
        keys.sort_unstable();
        refs.splice(..ranked, keys.into_iter().map(|k| k as SeriesRef));
        let mut all = self.labels_of(&refs);
        all[ranked..].sort_unstable_by(|a, b| compare_labels(a.0.as_bytes(), b.0.as_bytes()));
        if ranked > 0 && ranked < all.len() {
            // Two runs: what a stable sort is quickest at.
            all.sort_by(|a, b| compare_labels(a.0.as_bytes(), b.0.as_bytes()));
        }
        all
    }

    /// The numbers, after more were given where the selection makes that worth it.
    fn ranks(&self, series: &RoaringBitmap) -> Arc<Vec<u32>> {
        let known = self.order.ranks.lock().clone();
        let without = rest(series, &known) as usize;
        // Somebody else is numbering: what has no number is sorted by labels meanwhile.
        let Some(mut spent) = (without > 0).then(|| self.order.spent.try_lock()).flatten() else {
            return known;
        };
        // Another may have numbered between the two locks.
        let known = self.order.ranks.lock().clone();
        *spent += comparisons(rest(series, &known) as usize);
        let count = self.rows.read().table.len();
        let missing = known.len()..count;
        if *spent < comparisons(missing.len()) + count {
            return known;
        }
        let ranks = Arc::new(self.number(&known, missing));
        *self.order.ranks.lock() = ranks.clone();
        *spent = 0;
        ranks
    }

    /// The numbers of all series up to the end of `added`, given those of the series before it.
    fn number(&self, before: &[u32], added: Range<usize>) -> Vec<u32> {
        let refs: Vec<SeriesRef> = (added.start as SeriesRef..added.end as SeriesRef).collect();
        let mut new = self.labels_of(&refs);
        new.sort_unstable_by(|a, b| compare_labels(a.0.as_bytes(), b.0.as_bytes()));
        let mut old = vec![0; before.len()];
        for (r, &rank) in before.iter().enumerate() {
            old[rank as usize] = r as SeriesRef;
        }
        let mut ranks = vec![0; added.end];
        let (mut next, mut from) = (0, 0);
        let mut give = |r: SeriesRef| {
            ranks[r as usize] = next;
            next += 1;
        };
        for slice in new.chunks(SEARCHES) {
            let rows = self.rows.read();
            for (labels, r) in slice {
                let less =
                    |&o: &SeriesRef| compare_labels(rows.table.label_bytes(o), labels.as_bytes()).is_lt();
                let upto = from + old[from..].partition_point(less);
                old[from..upto].iter().copied().for_each(&mut give);
                give(*r);
                from = upto;
            }
        }
        old[from..].iter().copied().for_each(&mut give);
        ranks
    }
}

/// How many of the series have no number.
fn rest(series: &RoaringBitmap, ranks: &[u32]) -> u64 {
    series.range_cardinality(ranks.len() as u32..)
}
