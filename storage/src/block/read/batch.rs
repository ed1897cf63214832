//! Reads a block from one end to the other, for a merge.

use std::collections::BTreeMap;

use sextant_model::{Exemplar, MetricMetadata, SeriesSet};

use super::{BlockReader, Row};
use crate::{
    Result,
    block::{
        opened::group_starts,
        stats::{BlockSelect, ReadStats},
    },
};

/// Consecutive series of a block, in the block's order (which is not that of a [`SeriesSet`] handed to queries).
#[derive(Default)]
pub struct SeriesBatch {
    /// Series with all their samples.
    pub set: SeriesSet,
    /// Which series share timestamps.
    pub targets: Vec<Option<u32>>,
    /// Which series have lost samples to a deletion, perhaps all: the others of their target have other timestamps.
    pub cut: Vec<bool>,
    /// What is known of the series' families.
    pub metadata: Vec<Option<MetricMetadata>>,
}

impl BlockReader {
    /// The series from `first` on, up to about so many samples, at least one series; empty at the end of the block.
    pub(crate) async fn batch(&self, first: u32, samples: usize, stats: &ReadStats) -> Result<SeriesBatch> {
        let mut select = BlockSelect::new(Vec::new(), i64::MIN, i64::MAX);
        // The tables are needed again for the next batch, samples are not.
        select.hints.fill_cache = false;
        let starts = group_starts(&self.opened.series);
        let mut batch = SeriesBatch::default();
        let group = starts.partition_point(|s| *s <= u64::from(first)).saturating_sub(1);
        if group >= self.opened.series.num_row_groups() {
            return Ok(batch);
        }
        let table = self.group(group, stats).await?;
        let mut rows = Vec::new();
        let mut scratch = Vec::new();
        let mut taken = 0;
        for row in (u64::from(first) - starts[group]) as usize..table.len() {
            let n = table.samples(row) + table.histograms(row).1 as usize;
            if taken > 0 && taken + n > samples {
                break;
            }
            taken += n;
            batch.targets.push(table.target(row));
            let id = (starts[group] + row as u64) as u32;
            batch.cut.push(self.deleted.has(id));
            batch.metadata.push(table.metadata(row));
            rows.push(Row { id, group, row, labels: table.labels(row, &mut scratch) });
        }
        let mut groups = vec![None; group + 1];
        groups[group] = Some(table);
        let expected = rows.len();
        let set = self.stored_samples(&groups, &rows, &select, stats).await?;
        if set.len() != expected {
            return Err(self.objects.nonsense(crate::names::SERIES, "a series without samples"));
        }
        batch.set = self.deleted.take_out(set, &rows, true);
        Ok(batch)
    }

    /// All exemplars of the block by series.
    pub(crate) async fn all_exemplars(&self, stats: &ReadStats) -> Result<BTreeMap<u32, Vec<Exemplar>>> {
        let mut select = BlockSelect::new(Vec::new(), i64::MIN, i64::MAX);
        select.hints.fill_cache = false;
        self.exemplars_by_series(None, &select, stats).await
    }
}
