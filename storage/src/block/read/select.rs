//! Samples of selected series: which positions, which pages, and the values in their place.

use std::{collections::HashSet, ops::Range, sync::Arc};

use sextant_model::{NO_START, SeriesSet};

use super::{BlockReader, Row};
use crate::{
    Result, StorageError,
    block::{
        grid::GridGroup,
        pages::{Column, Numbers, Wanted},
        scale::{put_odd, rebuild},
        series_group::SeriesGroup,
        stats::{BlockSelect, ReadStats},
        tables::names,
    },
};

/// Timestamps reserved before it is known how many of the series' samples are in the range.
const RESERVE_MAX: usize = 16 << 20;

/// A series with the positions of its samples that are in the range.
struct Part {
    group: usize,
    row: usize,
    /// Positions of float samples.
    samples: Range<usize>,
    /// Where they go in the result.
    at: usize,
    /// Rows of histograms, not yet limited to the range.
    histograms: (u64, u64),
}

impl BlockReader {
    /// The samples in the range that are not deleted, of series that have one.
    pub(super) async fn samples(
        &self,
        groups: &[Option<Arc<SeriesGroup>>],
        rows: &[Row],
        select: &BlockSelect,
        stats: &ReadStats,
    ) -> Result<SeriesSet> {
        let set = self.stored_samples(groups, rows, select, stats).await?;
        Ok(self.deleted.take_out(set, rows, false))
    }

    /// The same with what tombstones delete.
    pub(super) async fn stored_samples(
        &self,
        groups: &[Option<Arc<SeriesGroup>>],
        rows: &[Row],
        select: &BlockSelect,
        stats: &ReadStats,
    ) -> Result<SeriesSet> {
        let grids = self.grids(groups, rows, stats).await?;
        let damaged = |what: &str| self.objects.nonsense(names::SERIES, what);
        let mut set = SeriesSet { offsets: vec![0], ..SeriesSet::default() };
        let mut parts: Vec<Part> = Vec::with_capacity(rows.len());
        let float = |r: &Row| groups.get(r.group).and_then(Option::as_ref).map_or(0, |g| g.samples(r.row));
        set.t.reserve(rows.iter().map(float).sum::<usize>().min(select.limits.samples_max).min(RESERVE_MAX));
        let mut histogram_count = 0usize;
        for &Row { group, row, ref labels, .. } in rows {
            let table = groups.get(group).and_then(Option::as_ref).ok_or_else(|| damaged("a row group"))?;
            let at = set.t.len();
            let mut samples = 0..0;
            if let Some(target) = table.target(row) {
                let times = GridGroup::find(&grids, |g| g.first_target(), target)
                    .and_then(|i| grids[i].times(target))
                    .ok_or_else(|| damaged("an unknown target"))?;
                samples = append_times(table, row, times, select, &mut set.t)
                    .ok_or_else(|| damaged("positions beyond the grid"))?;
            }
            let histograms = table.histograms(row);
            if samples.is_empty() && histograms.1 == 0 {
                continue;
            }
            histogram_count += histograms.1 as usize;
            if set.t.len() + histogram_count > select.limits.samples_max.min(u32::MAX as usize) {
                // Histograms outside of the range are counted too: the limit bounds memory, and they take it.
                return Err(StorageError::Limit { what: "samples", limit: select.limits.samples_max });
            }
            if select.hints.start_timestamps {
                put_starts(table, row, &samples, at, &mut set.start);
            }
            parts.push(Part { group, row, samples, at, histograms });
            set.labels.push(labels.clone());
            set.offsets.push(set.t.len() as u32);
        }
        if !set.start.is_empty() {
            set.start.resize(set.t.len(), NO_START);
        }
        set.v = vec![0.0; set.t.len()];
        self.values(groups, &parts, &mut set.v, select, stats).await?;
        if histogram_count > 0 {
            let wanted: Vec<(u64, u64)> = parts.iter().map(|p| p.histograms).collect();
            self.put_histograms(&wanted, select, stats, &mut set).await?;
        }
        Ok(set)
    }

    /// The grid's row groups of the rows' targets.
    async fn grids(
        &self,
        groups: &[Option<Arc<SeriesGroup>>],
        rows: &[Row],
        stats: &ReadStats,
    ) -> Result<Vec<Arc<GridGroup>>> {
        let mut wanted: Vec<usize> = Vec::new();
        let mut known: HashSet<u32> = HashSet::new();
        for r in rows {
            let target = groups.get(r.group).and_then(Option::as_ref).and_then(|g| g.target(r.row));
            if let Some(target) = target
                && known.insert(target)
                && let Some(group) = GridGroup::find(&self.opened.grid_targets, |t| *t, target)
            {
                wanted.push(group);
            }
        }
        wanted.sort_unstable();
        wanted.dedup();
        let mut grids = Vec::with_capacity(wanted.len());
        for group in wanted {
            grids.push(GridGroup::load(&self.objects, &self.opened, group, stats).await?);
        }
        Ok(grids)
    }

    async fn values(
        &self,
        groups: &[Option<Arc<SeriesGroup>>],
        parts: &[Part],
        out: &mut [f64],
        select: &BlockSelect,
        stats: &ReadStats,
    ) -> Result<()> {
        let damaged = |what: String| self.objects.nonsense(names::SAMPLES, what);
        let mut columns: [Vec<Wanted>; 3] = Default::default();
        for (tag, part) in parts.iter().enumerate().filter(|(_, p)| !p.samples.is_empty()) {
            let Some(Some(table)) = groups.get(part.group) else { continue };
            match Column::of(table.enc(part.row)) {
                None => {
                    let out = &mut out[part.at..part.at + part.samples.len()];
                    rebuild::<i64>(&table.scale(part.row), None, part.samples.start, out);
                }
                Some(column) => {
                    let off = table.offset(part.row);
                    // Sums begin at the series' first number; doubles and order 0 stand for themselves, but most
                    // series are counters and most reads want all of a series.
                    let rows = off..off.saturating_add(part.samples.end as u64);
                    columns[column as usize - 1].push(Wanted { rows, tag });
                }
            }
        }
        for (column, mut wanted) in [Column::Narrow, Column::Wide, Column::Double].into_iter().zip(columns) {
            if wanted.is_empty() {
                continue;
            }
            wanted.sort_unstable_by_key(|w| w.rows.start);
            if wanted.windows(2).any(|p| p[0].rows.end > p[1].rows.start) {
                return Err(damaged("two series share rows".into()));
            }
            let mut ranges = Vec::new();
            self.opened.pages.ranges(column, &wanted, &mut ranges);
            let fill = select.hints.fill_cache;
            let object = self.objects.ranges(names::SAMPLES, &self.opened.sums, &ranges, fill, stats).await?;
            let put = |tag: usize, numbers: Numbers<'_>| {
                let part = parts.get(tag).ok_or("an unknown series")?;
                let table = groups.get(part.group).and_then(Option::as_ref).ok_or("an unknown row group")?;
                let from = part.samples.start;
                let out = &mut out[part.at..part.at + part.samples.len()];
                match numbers {
                    Numbers::Narrow(r) => rebuild(&table.scale(part.row), Some(r), from, out),
                    Numbers::Wide(w) => rebuild(&table.scale(part.row), Some(w), from, out),
                    Numbers::Double(v) => {
                        out.copy_from_slice(v.get(from..).ok_or("cut numbers")?);
                        put_odd(&table.scale(part.row), from, out);
                    }
                }
                Ok(())
            };
            self.opened.pages.decode(column, &object, &wanted, stats, put).map_err(damaged)?;
        }
        Ok(())
    }
}

/// Appends the timestamps in the range and returns their positions; `None` where the series names positions that the
/// grid does not have.
fn append_times(
    table: &SeriesGroup,
    row: usize,
    grid: &[i64],
    select: &BlockSelect,
    out: &mut Vec<i64>,
) -> Option<Range<usize>> {
    let n = table.samples(row);
    match table.positions(row) {
        None => {
            let first = table.first_position(row);
            let times = grid.get(first..first.checked_add(n)?)?;
            let from = times.partition_point(|t| *t < select.start);
            let to = times.partition_point(|t| *t <= select.end).max(from);
            out.extend_from_slice(&times[from..to]);
            Some(from..to)
        }
        Some(positions) => {
            if positions.len() != n
                || positions.iter().any(|&p| usize::try_from(p).map_or(true, |p| p >= grid.len()))
            {
                return None;
            }
            let time = |p: &i32| grid[*p as usize];
            let from = positions.partition_point(|p| time(p) < select.start);
            let to = positions.partition_point(|p| time(p) <= select.end).max(from);
            out.extend(positions[from..to].iter().map(time));
            Some(from..to)
        }
    }
}

/// Writes the start timestamps of a series' samples, which begin at `at`, where it has any.
fn put_starts(table: &SeriesGroup, row: usize, samples: &Range<usize>, at: usize, out: &mut Vec<i64>) {
    let mut runs = table.starts(row).peekable();
    if runs.peek().is_none() || samples.is_empty() {
        return;
    }
    out.resize(at, NO_START);
    let mut current = NO_START;
    for k in samples.clone() {
        while let Some((_, start)) = runs.next_if(|(from, _)| *from <= k) {
            current = start;
        }
        out.push(current);
    }
}
