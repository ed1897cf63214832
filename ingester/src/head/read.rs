//! Reads over the generations of a head that are after a position.

use foldhash::fast::RandomState;
use hashbrown::HashSet;
use roaring::RoaringBitmap;
use sextant_model::{Labels, MetadataTable, MetricMetadata, SeriesBuf, SeriesSet, TenantId};
use sextant_proto::{
    ExemplarSeries, HeadSelection, MetadataEntry, SelectLimits, SelectRequest, ShardError, ShardStats,
};
use std::sync::Arc;

use super::{
    Head, TenantHead,
    merge::join,
    select::{Cursor, Found, compare_labels},
};

type Set<T> = HashSet<T, RandomState>;

impl Head {
    fn tenant_after(&self, tenant: &TenantId, after: u64) -> Result<Vec<Arc<TenantHead>>, ShardError> {
        let generations = self.after_for(tenant.as_str(), after)?;
        Ok(generations.iter().filter_map(|g| g.tenant(tenant.as_str())).collect())
    }

    /// The series that match and have a sample in the range, of each generation.
    fn matching(&self, r: &SelectRequest) -> Result<Vec<(Arc<TenantHead>, RoaringBitmap)>, ShardError> {
        let heads = self.tenant_after(&r.tenant, r.after)?;
        let of = |head: Arc<TenantHead>| {
            let series = head.with_samples(&head.matching(&r.matchers), (r.start, r.end));
            (head, series)
        };
        Ok(heads.into_iter().map(of).collect())
    }

    /// The samples of matching series that have one in the range.
    pub fn select(&self, r: &SelectRequest) -> Result<SeriesSet, ShardError> {
        let heads = self.tenant_after(&r.tenant, r.after)?;
        let range = (r.start, r.end);
        let mut cursors: Vec<_> = heads.iter().map(|h| Cursor::new(h, &r.matchers, range)).collect();
        let mut out = SeriesSet::new();
        let (mut buf, mut newer) = (SeriesBuf::default(), SeriesBuf::default());
        loop {
            let mut least: Option<Labels> = None;
            for c in &mut cursors {
                if let Some(labels) = c.labels()
                    && least.as_ref().is_none_or(|l| compare_labels(labels.as_bytes(), l.as_bytes()).is_lt())
                {
                    least = Some(labels.clone());
                }
            }
            let Some(labels) = least else { return Ok(out) };
            buf.clear();
            let mut first = true;
            for c in cursors.iter_mut().filter_map(|c| (c.labels() == Some(&labels)).then_some(c)) {
                if std::mem::take(&mut first) {
                    c.read(&mut buf);
                } else {
                    c.read(&mut newer);
                    join(&mut buf, &mut newer);
                }
            }
            if !buf.is_empty() {
                check_limits(r, &out, &buf)?;
                out.append(labels, &mut buf);
            }
        }
    }

    /// The matching series of each generation, oldest first, to be read in parts.
    pub fn find(&self, r: &SelectRequest) -> Result<Vec<Arc<dyn HeadSelection>>, ShardError> {
        let mut found: Vec<Arc<dyn HeadSelection>> = Vec::new();
        for head in self.tenant_after(&r.tenant, r.after)? {
            found.push(Arc::new(Found::new(&head, r)?));
        }
        Ok(found)
    }

    /// The labels of matching series that have a sample in the range, in no order.
    pub fn series(&self, r: &SelectRequest) -> Result<Vec<Labels>, ShardError> {
        let mut found: Set<Labels> = Set::default();
        for (head, series) in self.matching(r)? {
            let series: Vec<_> = series.iter().collect();
            found.extend(head.labels_of(&series).into_iter().map(|(labels, _)| labels));
            if found.len() > r.limits.series_max {
                return Err(too_many_series(r.limits));
            }
        }
        Ok(found.into_iter().collect())
    }

    /// The values of a label, or the label names, over matching series; sorted.
    pub fn label_values(&self, r: &SelectRequest, label: Option<&str>) -> Result<Vec<String>, ShardError> {
        let mut found: Set<String> = Set::default();
        for (head, series) in self.matching(r)? {
            found.extend(head.values_of(&series, label));
        }
        let mut found: Vec<String> = found.into_iter().collect();
        found.sort_unstable();
        Ok(found)
    }

    /// The exemplars of matching series in the range, in order of labels, then time.
    pub fn exemplars(&self, r: &SelectRequest) -> Result<Vec<ExemplarSeries>, ShardError> {
        let mut found: Vec<ExemplarSeries> = Vec::new();
        for head in self.tenant_after(&r.tenant, r.after)? {
            found.extend(head.exemplars_of(&head.matching(&r.matchers), (r.start, r.end)));
        }
        found.sort_by(|a, b| a.labels.cmp(&b.labels));
        found.dedup_by(|later, kept| {
            let same = later.labels == kept.labels;
            if same {
                kept.exemplars.append(&mut later.exemplars);
                kept.exemplars.sort_by_key(|e| e.t);
                kept.exemplars.dedup();
            }
            same
        });
        Ok(found)
    }

    /// All metadata of a tenant, in order of name, each family's newest first.
    pub fn metadata(&self, tenant: &TenantId, after: u64) -> Result<Vec<MetadataEntry>, ShardError> {
        let mut found = MetadataTable::default();
        for head in self.tenant_after(tenant, after)?.iter().rev() {
            head.rows.read().metadata.iter().for_each(|(name, m)| found.add_older(name, m));
        }
        let entry =
            |(name, m): (&str, &MetricMetadata)| MetadataEntry { name: name.into(), metadata: m.clone() };
        Ok(found.iter().map(entry).collect())
    }

    /// Counts for a tenant. A sample that replaces one that was sealed already is counted again.
    pub fn stats(&self, tenant: &TenantId, after: u64) -> Result<ShardStats, ShardError> {
        let heads = self.tenant_after(tenant, after)?;
        let mut stats = ShardStats { min_t: i64::MAX, max_t: i64::MIN, ..ShardStats::default() };
        let mut ids: Set<u128> = Set::default();
        for head in &heads {
            let rows = head.rows.read();
            if rows.has_cuts() {
                drop(rows);
                head.count_left(&mut stats, &mut ids);
                continue;
            }
            stats.samples += rows.samples;
            stats.min_t = stats.min_t.min(rows.t_min);
            stats.max_t = stats.max_t.max(rows.t_max);
            stats.series += rows.table.len() as u64;
            if heads.len() > 1 {
                ids.extend(rows.refs().map(|r| rows.table.id(r)));
            }
        }
        if heads.len() > 1 {
            stats.series = ids.len() as u64;
        }
        Ok(stats)
    }

    /// Tenants with rows, in order.
    pub fn tenants(&self) -> Vec<TenantId> {
        let generations = self.after(0);
        let mut all: Vec<TenantId> =
            generations.iter().flat_map(|g| g.tenants()).map(|t| t.id().clone()).collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}

pub(super) fn too_many_series(limits: SelectLimits) -> ShardError {
    ShardError::Limit(format!("the query selects more than {} series (series_max)", limits.series_max))
}

pub(super) fn too_many_samples(limits: SelectLimits) -> ShardError {
    // Offsets into the answer are 32 bits wide.
    let max = limits.samples_max.min(u32::MAX as usize);
    ShardError::Limit(format!("the query selects more than {max} samples (samples_max)"))
}

fn check_limits(r: &SelectRequest, out: &SeriesSet, next: &SeriesBuf) -> Result<(), ShardError> {
    if out.len() >= r.limits.series_max {
        return Err(too_many_series(r.limits));
    }
    if out.sample_count() + next.len() > r.limits.samples_max.min(u32::MAX as usize) {
        return Err(too_many_samples(r.limits));
    }
    Ok(())
}
