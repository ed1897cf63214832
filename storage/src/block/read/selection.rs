//! A selection that is read in parts: its series are found at once, their samples range by range.

use std::{ops::Range, sync::Arc};

use sextant_model::{Labels, SeriesSet};

use super::{BlockReader, Row};
use crate::{
    Result,
    block::{
        series_group::SeriesGroup,
        stats::{BlockSelect, ReadStats},
    },
};

/// The series of a block that match, in order of labels. Their samples are read by [`BlockSelection::read`], so a reader
/// of many series holds those of one part at a time.
pub struct BlockSelection {
    reader: BlockReader,
    select: BlockSelect,
    groups: Vec<Option<Arc<SeriesGroup>>>,
    rows: Vec<Row>,
}

impl BlockReader {
    /// Finds the series of a selection. Among them may be some without a sample in the range: those whose first and
    /// last samples are around it.
    pub async fn selection(self, select: BlockSelect, stats: &ReadStats) -> Result<BlockSelection> {
        if !self.meta().overlaps(select.start, select.end) {
            return Ok(BlockSelection { reader: self, select, groups: Vec::new(), rows: Vec::new() });
        }
        let ids = self.matching(&select, stats).await?;
        let (groups, rows) = self.rows(&ids, &select, stats).await?;
        Ok(BlockSelection { reader: self, select, groups, rows })
    }
}

impl BlockSelection {
    /// How many series there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The block's place among blocks for equal timestamps, see [`crate::BlockMeta::priority`].
    pub fn priority(&self) -> u64 {
        self.reader.meta().priority()
    }

    /// The labels of series `i < len`.
    pub fn labels(&self, i: usize) -> &Labels {
        &self.rows[i].labels
    }

    /// About how many samples of series `i < len` are in the range: as many of the block's as the range is part of
    /// the series' time. A histogram counts as 16.
    pub fn estimate(&self, i: usize) -> usize {
        let Row { group, row, .. } = self.rows[i];
        let Some(Some(table)) = self.groups.get(group) else { return 0 };
        let all = table.samples(row) + table.histograms(row).1 as usize * 16;
        let (min, max) = table.bounds(row);
        let (from, to) = (min.max(self.select.start), max.min(self.select.end));
        let span = max.saturating_sub(min).max(1) as f64;
        let part = to.saturating_sub(from).max(0) as f64 / span;
        (all as f64 * part.min(1.0)) as usize + 1
    }

    /// The samples of a range of series, those with one in the selection's range.
    pub async fn read(&self, series: Range<usize>, stats: &ReadStats) -> Result<SeriesSet> {
        let rows = self.rows.get(series).unwrap_or_default();
        if rows.is_empty() {
            return Ok(SeriesSet::new());
        }
        let set = self.reader.samples(&self.groups, rows, &self.select, stats).await?;
        ReadStats::add(&stats.series, set.len());
        ReadStats::add(&stats.samples, set.sample_count());
        Ok(set)
    }
}
