//! Reads a block: selections by matchers and time, label names and values, exemplars, metadata.

mod batch;
mod deleted;
mod extras;
mod select;
mod selection;

use std::{collections::BTreeSet, sync::Arc};

pub use batch::SeriesBatch;
use deleted::Deleted;
use object_store::ObjectStore;
use roaring::RoaringBitmap;
pub use selection::BlockSelection;
use sextant_model::{Labels, METRIC_NAME, SeriesSet, TenantId};
use sextant_proto::{ExemplarSeries, MetadataEntry};

use super::{
    cache::BlockCache,
    fetch::Objects,
    opened::{Opened, group_starts},
    postings::Postings,
    series_group::SeriesGroup,
    stats::{BlockSelect, ReadStats},
};
use crate::{BlockMeta, Result, StorageError, Tombstone};

/// One block. Cheap to make where the block was read lately; every method reads what it needs, checks it and decodes
/// it on the calling task.
pub struct BlockReader {
    objects: Objects,
    opened: Arc<Opened>,
    deleted: Deleted,
}

/// A series of a selection.
struct Row {
    id: u32,
    group: usize,
    row: usize,
    labels: Labels,
}

impl BlockReader {
    /// Opens a block: its checksums and footers are read unless they are cached. What the tombstones delete is not there for
    /// any method but [`BlockReader::metadata`]; they are those that the manifest in use has for the block, see
    /// [`crate::Manifest::tombstones_of`].
    pub async fn open(
        store: Arc<dyn ObjectStore>,
        tenant: &TenantId,
        meta: Arc<BlockMeta>,
        tombstones: &[Arc<Tombstone>],
        cache: Arc<BlockCache>,
    ) -> Result<Self> {
        let objects = Objects::new(store, tenant, meta, cache);
        let stats = ReadStats::default();
        let opened = Opened::load(&objects, &stats).await?;
        let deleted = Deleted::find(&objects, &opened, tombstones, &stats).await?;
        Ok(Self { objects, opened, deleted })
    }

    /// What the manifest says of the block.
    pub fn meta(&self) -> &Arc<BlockMeta> {
        self.objects.meta()
    }

    /// The samples of matching series that have one in the range, in order of labels.
    pub async fn select(&self, select: &BlockSelect, stats: &ReadStats) -> Result<SeriesSet> {
        if !self.meta().overlaps(select.start, select.end) {
            return Ok(SeriesSet::new());
        }
        let ids = self.matching(select, stats).await?;
        let (groups, rows) = self.rows(&ids, select, stats).await?;
        let set = if select.hints.samples {
            self.samples(&groups, &rows, select, stats).await?
        } else {
            let rows = self.still_there(&groups, rows, select, stats).await?;
            let offsets = vec![0; rows.len() + 1];
            SeriesSet {
                labels: rows.into_iter().map(|r| r.labels).collect(),
                offsets,
                ..SeriesSet::default()
            }
        };
        ReadStats::add(&stats.series, set.len());
        ReadStats::add(&stats.samples, set.sample_count());
        Ok(set)
    }

    /// The labels of matching series whose first and last sample are around or in the range, in order of labels.
    pub async fn series(&self, select: &BlockSelect, stats: &ReadStats) -> Result<Vec<Labels>> {
        let mut select = select.clone();
        select.hints.samples = false;
        Ok(self.select(&select, stats).await?.labels)
    }

    /// The distinct label names of matching series, in order.
    pub async fn label_names(&self, select: &BlockSelect, stats: &ReadStats) -> Result<Vec<String>> {
        if let (Some(index), true) = (&self.opened.index, self.whole(select)) {
            return Ok(index.labels.iter().map(|l| l.name.clone()).collect());
        }
        let mut names = BTreeSet::new();
        for labels in self.series(select, stats).await? {
            for (name, _) in &labels {
                if !names.contains(name) {
                    names.insert(name.to_owned());
                }
            }
        }
        Ok(names.into_iter().collect())
    }

    /// The distinct values of a label of matching series, in order.
    pub async fn label_values(
        &self,
        name: &str,
        select: &BlockSelect,
        stats: &ReadStats,
    ) -> Result<Vec<String>> {
        if let (Some(index), true) = (&self.opened.index, self.whole(select)) {
            let Some(label) = index.label(name) else { return Ok(Vec::new()) };
            let section = self.postings(select, stats).section(label).await?;
            let mut values = Vec::new();
            let damaged =
                || self.objects.nonsense(super::tables::names::INDEX, format!("values of label {name:?}"));
            section.for_each(|value, _| values.push(value.to_owned())).ok_or_else(damaged)?;
            return Ok(values);
        }
        let mut values = BTreeSet::new();
        for labels in self.series(select, stats).await? {
            let value = if name == METRIC_NAME { Some(labels.metric_name()) } else { labels.get(name) };
            if let Some(value) = value.filter(|v| !v.is_empty() && !values.contains(*v)) {
                values.insert(value.to_owned());
            }
        }
        Ok(values.into_iter().collect())
    }

    /// Exemplars of matching series in the range, in order of labels and time.
    pub async fn exemplars(&self, select: &BlockSelect, stats: &ReadStats) -> Result<Vec<ExemplarSeries>> {
        // An exemplar may be older than its series' first sample, so the series' times say nothing.
        let ids = self.matching(select, stats).await?;
        self.exemplars_of(&ids, select, stats).await
    }

    /// All metadata of the block, in order of name, each family's newest first.
    pub async fn metadata(&self, stats: &ReadStats) -> Result<Vec<MetadataEntry>> {
        self.metadata_rows(stats).await
    }

    /// Whether a selection takes every series of the block, and the block has every series that was written.
    fn whole(&self, select: &BlockSelect) -> bool {
        let meta = self.meta();
        self.deleted.is_empty()
            && select.matchers.is_empty()
            && select.start <= meta.min_t
            && select.end >= meta.max_t
    }

    fn postings<'a>(&'a self, select: &BlockSelect, stats: &'a ReadStats) -> Postings<'a> {
        Postings { objects: &self.objects, opened: &self.opened, stats, fill_cache: select.hints.fill_cache }
    }

    async fn matching(&self, select: &BlockSelect, stats: &ReadStats) -> Result<RoaringBitmap> {
        self.postings(select, stats).select(&select.matchers).await
    }

    async fn group(&self, group: usize, stats: &ReadStats) -> Result<Arc<SeriesGroup>> {
        SeriesGroup::load(&self.objects, &self.opened, group, stats).await
    }

    /// The rows of series that may have a sample in the range, in order of labels, and the row groups they are in.
    async fn rows(
        &self,
        ids: &RoaringBitmap,
        select: &BlockSelect,
        stats: &ReadStats,
    ) -> Result<(Vec<Option<Arc<SeriesGroup>>>, Vec<Row>)> {
        let starts = group_starts(&self.opened.series);
        let mut groups: Vec<Option<Arc<SeriesGroup>>> = vec![None; self.opened.series.num_row_groups()];
        let mut rows: Vec<Row> = Vec::new();
        let mut scratch = Vec::new();
        for (group, bounds) in starts.windows(2).enumerate() {
            let (first, end) = (bounds[0] as u32, bounds[1] as u32);
            if first == end || ids.range_cardinality(first..end) == 0 {
                continue;
            }
            let table = self.group(group, stats).await?;
            for id in ids.range(first..end) {
                let row = (id - first) as usize;
                let (min, max) = table.bounds(row);
                if min <= select.end && max >= select.start && !self.deleted.wholly(id, (min, max)) {
                    rows.push(Row { id, group, row, labels: table.labels(row, &mut scratch) });
                }
            }
            if rows.len() > select.limits.series_max {
                return Err(StorageError::Limit { what: "series", limit: select.limits.series_max });
            }
            groups[group] = Some(table);
        }
        // The block's order is name first; it is the labels' order unless a label sorts before the name.
        let before = |a: &Row, b: &Row| super::order::compare(a.labels.as_bytes(), b.labels.as_bytes());
        if !rows.is_sorted_by(|a, b| before(a, b).is_le()) {
            rows.sort_by(before);
        }
        Ok((groups, rows))
    }
}
