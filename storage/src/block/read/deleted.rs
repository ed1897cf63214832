//! What tombstones delete of a block.

use std::sync::Arc;

use roaring::RoaringBitmap;
use sextant_model::{SeriesBuf, SeriesSet};

use super::{BlockReader, Row};
use crate::{
    Result, Tombstone, TombstoneId,
    block::{
        cache::CacheKey,
        fetch::Objects,
        opened::Opened,
        postings::Postings,
        stats::{BlockSelect, ReadStats},
    },
};

/// Series whose samples are counted at a time, to see whether any is left.
const COUNTED: usize = 1024;

/// Times that are deleted of some series.
struct Cut {
    range: (i64, i64),
    series: Arc<RoaringBitmap>,
}

/// The tombstones that a block is read with, and what they delete of it.
#[derive(Default)]
pub(super) struct Deleted {
    tombstones: Vec<TombstoneId>,
    cuts: Vec<Cut>,
}

impl Deleted {
    /// Finds the series. What a tombstone selects of a block never changes, so it is kept in the cache.
    pub(super) async fn find(
        objects: &Objects,
        opened: &Opened,
        tombstones: &[Arc<Tombstone>],
        stats: &ReadStats,
    ) -> Result<Self> {
        let mut found = Self::default();
        for t in tombstones {
            found.tombstones.push(t.id);
            let key = CacheKey::Deleted(objects.meta().id, t.id);
            let series = match objects.cache().parsed::<RoaringBitmap>(&key) {
                Some(series) => series,
                None => {
                    let postings = Postings { objects, opened, stats, fill_cache: true };
                    let mut series = RoaringBitmap::new();
                    for selector in &t.selectors {
                        series |= postings.select(selector).await?;
                    }
                    let (bytes, series) = (series.serialized_size(), Arc::new(series));
                    objects.cache().put_parsed(key, series.clone(), bytes);
                    series
                }
            };
            if !series.is_empty() {
                found.cuts.push(Cut { range: (t.start, t.end), series });
            }
        }
        Ok(found)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.cuts.is_empty()
    }

    /// Whether samples of a series may be deleted.
    pub(super) fn has(&self, id: u32) -> bool {
        self.cuts.iter().any(|c| c.series.contains(id))
    }

    /// The times that are deleted of a series.
    pub(super) fn of(&self, id: u32) -> Vec<(i64, i64)> {
        self.cuts.iter().filter(|c| c.series.contains(id)).map(|c| c.range).collect()
    }

    /// Whether one tombstone deletes all of a series with these first and last timestamps.
    pub(super) fn wholly(&self, id: u32, (min, max): (i64, i64)) -> bool {
        self.cuts.iter().any(|c| c.range.0 <= min && max <= c.range.1 && c.series.contains(id))
    }

    /// Takes deleted samples out of a set whose series are among `rows`, in their order; series without any left stay
    /// where `keep_empty`.
    pub(super) fn take_out(&self, set: SeriesSet, rows: &[Row], keep_empty: bool) -> SeriesSet {
        if self.is_empty() || !rows.iter().any(|r| self.has(r.id)) {
            return set;
        }
        let mut out = SeriesSet::new();
        let mut buf = SeriesBuf::default();
        let mut rows = rows.iter();
        for (i, labels) in set.labels.iter().enumerate() {
            let ranges = rows.find(|r| r.labels == *labels).map(|r| self.of(r.id)).unwrap_or_default();
            buf.clear();
            let (t, v) = set.floats(i);
            buf.t.extend_from_slice(t);
            buf.v.extend_from_slice(v);
            buf.start.extend_from_slice(set.starts(i));
            buf.h.extend_from_slice(set.histograms(i));
            buf.remove(&ranges);
            if keep_empty || !buf.is_empty() {
                out.push(labels.clone(), &buf);
            }
        }
        out
    }
}

impl BlockReader {
    /// The tombstones it was opened with.
    pub fn tombstones(&self) -> &[TombstoneId] {
        &self.deleted.tombstones
    }

    /// Whether the tombstones select a series of the block.
    pub fn has_deletions(&self) -> bool {
        !self.deleted.is_empty()
    }

    /// Drops rows that have lost their samples in the range: those that no tombstone selects stay unread.
    pub(super) async fn still_there(
        &self,
        groups: &[Option<Arc<super::SeriesGroup>>],
        rows: Vec<Row>,
        select: &BlockSelect,
        stats: &ReadStats,
    ) -> Result<Vec<Row>> {
        if self.deleted.is_empty() {
            return Ok(rows);
        }
        let mut select = select.clone();
        select.limits.samples_max = usize::MAX;
        let (cut, mut kept): (Vec<Row>, Vec<Row>) = rows.into_iter().partition(|r| self.deleted.has(r.id));
        let mut cut = cut.into_iter().peekable();
        while cut.peek().is_some() {
            let some: Vec<Row> = cut.by_ref().take(COUNTED).collect();
            let left = self.samples(groups, &some, &select, stats).await?;
            let mut left = left.labels.iter().peekable();
            kept.extend(some.into_iter().filter(|r| left.next_if(|l| **l == r.labels).is_some()));
        }
        kept.sort_by(|a, b| crate::block::order::compare(a.labels.as_bytes(), b.labels.as_bytes()));
        Ok(kept)
    }
}
