//! Every series of a selection, once, without all of them in memory: for statistics of cardinality.

use std::collections::HashSet;

use sextant_model::{Labels, SeriesId};

use super::{Dataset, Selection};
use crate::error::QueryError;

/// Where series are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// In recent data only.
    Head,
    /// In recent data and in blocks.
    All,
}

/// How much was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scanned {
    /// Distinct series.
    pub series: u64,
    /// Pieces that the series are in: one in each shard's head and in each block.
    pub pieces: u64,
}

impl Dataset {
    /// Calls `each` with the labels of every matching series, once for each tenant it is of. Holds 16 bytes for each series,
    /// and the labels of one block at a time; more series than the selection's limit allows are an error.
    pub async fn scan_series(
        &self,
        selection: &Selection,
        scope: Scope,
        mut each: impl FnMut(&Labels) + Send,
    ) -> Result<Scanned, QueryError> {
        let mut scanned = Scanned::default();
        for (view, matchers) in self.views(&selection.matchers) {
            let mut seen = HashSet::<SeriesId>::new();
            let mut take = |found: Vec<Labels>| {
                scanned.pieces += found.len() as u64;
                for labels in found {
                    if seen.insert(labels.series_id()) {
                        scanned.series += 1;
                        each(&labels);
                    }
                }
                match scanned.series > selection.limits.series_max as u64 {
                    true => Err(QueryError::limit("series", "max_query_series", selection.limits.series_max)),
                    false => Ok(()),
                }
            };
            let (start, end, limits) = (selection.start, selection.end, selection.limits);
            let select = self.block_select(&matchers, selection);
            let heads = self
                .each_shard(view, matchers, start, end, limits, |shards, shard, r| {
                    Box::pin(async move { shards.series(shard, r).await })
                })
                .await?;
            for found in heads {
                take(found)?;
            }
            if scope == Scope::All {
                for meta in self.blocks(view, start, end) {
                    take(self.reader(view, meta).await?.series(&select, &self.stats).await?)?;
                }
            }
        }
        Ok(scanned)
    }

    /// The earliest and the latest timestamp of recent data and blocks; `(i64::MAX, i64::MIN)` where there is none.
    pub async fn time_bounds(&self) -> Result<(i64, i64), QueryError> {
        let mut bounds = (i64::MAX, i64::MIN);
        for view in &self.tenants {
            for shard in 0..self.source.shards.shard_count() {
                let (id, after) = (sextant_proto::ShardId(shard), super::covered(&view.manifest, shard));
                let stats = self.source.shards.stats(id, view.tenant.clone(), after).await?;
                bounds = (bounds.0.min(stats.min_t), bounds.1.max(stats.max_t));
            }
            for block in &view.manifest.blocks {
                bounds = (bounds.0.min(block.min_t), bounds.1.max(block.max_t));
            }
        }
        Ok(bounds)
    }
}
