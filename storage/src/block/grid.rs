//! A row group of the grid table in memory: timestamps by target.

use std::sync::Arc;

use arrow_array::{Array, Int32Array, Int64Array, ListArray, RecordBatch};

use parquet::file::metadata::ParquetMetaData;

use super::{
    cache::CacheKey,
    fetch::Objects,
    opened::{Opened, decode_group, int_bounds, row_group_range},
    stats::ReadStats,
    tables::names,
};
use crate::Result;

/// See the module's documentation.
pub struct GridGroup {
    first_target: u32,
    /// Where each target's timestamps begin, and the end of the last.
    offsets: Vec<usize>,
    times: Vec<i64>,
}

impl GridGroup {
    /// The first target of each row group of a grid table; `None` where its statistics do not say.
    pub fn first_targets(grid: &ParquetMetaData) -> Option<Vec<u32>> {
        let first = |g| int_bounds(grid, g, 0).and_then(|(min, _)| u32::try_from(min).ok());
        (0..grid.num_row_groups()).map(first).collect()
    }

    /// Of row groups or loaded groups in order, the one that holds a target.
    pub fn find<T>(groups: &[T], first_target: impl Fn(&T) -> u32, target: u32) -> Option<usize> {
        groups.partition_point(|g| first_target(g) <= target).checked_sub(1)
    }

    /// The first target.
    pub fn first_target(&self) -> u32 {
        self.first_target
    }

    /// From the cache, or read.
    pub async fn load(
        objects: &Objects,
        opened: &Opened,
        group: usize,
        stats: &ReadStats,
    ) -> Result<Arc<Self>> {
        let key = CacheKey::Grid(objects.meta().id, group as u32);
        if let Some(known) = objects.cache().parsed::<Self>(&key) {
            return Ok(known);
        }
        let range = row_group_range(&opened.grid, group);
        let object = objects.ranges(names::GRID, &opened.sums, &[range], false, stats).await?;
        let bad = |e: String| objects.nonsense(names::GRID, e);
        let batch = decode_group(object, &opened.grid, None, group, None, None).map_err(bad)?;
        let parsed = Arc::new(Self::of(&batch).ok_or_else(|| bad("unexpected columns".into()))?);
        let bytes = (parsed.offsets.len() + parsed.times.len()) * 8;
        objects.cache().put_parsed(key, parsed.clone(), bytes);
        Ok(parsed)
    }

    fn of(batch: &RecordBatch) -> Option<Self> {
        fn get<T: Clone + 'static>(batch: &RecordBatch, name: &str) -> Option<T> {
            batch.column_by_name(name)?.as_any().downcast_ref::<T>().cloned()
        }
        let (target, t0): (Int32Array, Int64Array) = (get(batch, "target")?, get(batch, "t0")?);
        let (p0, dt): (Int32Array, Int64Array) = (get(batch, "p0")?, get(batch, "dt")?);
        let jitter: ListArray = get(batch, "jitter")?;
        let values = jitter.values().as_any().downcast_ref::<Int32Array>()?;
        let first_target = u32::try_from(*target.values().first()?).ok()?;
        let mut grid = Self { first_target, offsets: vec![0], times: Vec::with_capacity(values.len()) };
        for row in 0..batch.num_rows() {
            let index = usize::try_from(target.value(row)).ok()?.checked_sub(first_target as usize)?;
            match index.checked_sub(grid.offsets.len() - 1)? {
                0 => {}
                1 => grid.offsets.push(grid.times.len()),
                _ => return None,
            }
            if grid.times.len() - grid.offsets.last()? != usize::try_from(p0.value(row)).ok()? {
                return None;
            }
            let (t0, dt) = (t0.value(row), dt.value(row));
            let range = jitter.value_offsets();
            let list = values.values().get(range[row] as usize..range[row + 1] as usize)?;
            grid.times.extend(
                (0i64..)
                    .zip(list)
                    .map(|(i, &j)| t0.wrapping_add(i.wrapping_mul(dt)).wrapping_add(i64::from(j))),
            );
        }
        grid.offsets.push(grid.times.len());
        Some(grid)
    }

    /// The timestamps of a target, by position.
    pub fn times(&self, target: u32) -> Option<&[i64]> {
        let i = target.checked_sub(self.first_target)? as usize;
        self.times.get(*self.offsets.get(i)?..*self.offsets.get(i + 1)?)
    }
}
