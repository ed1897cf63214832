//! A sealed generation's rows of one tenant, in the order of a block: by metric name, then labels.

use std::{cmp::Ordering, sync::Arc};

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use parking_lot::Mutex;
use sextant_model::{Exemplar, Labels, METRIC_NAME, MetricMetadata, SeriesBuf};

use super::{
    select::compare_labels,
    series::{BESIDE, HISTOGRAMS, SeriesRef},
    snapshot::{ReadBuf, Snapshot, has_any_sample},
    tenant::{Rows, TenantHead},
};

type LabelIter<'a> = <&'a Labels as IntoIterator>::IntoIter;

const ALL: (i64, i64) = (i64::MIN, i64::MAX);

/// Suffixes of series that belong to a metric family of another name.
const SUFFIXES: [&str; 6] = ["_bucket", "_sum", "_count", "_total", "_created", "_info"];

/// See the module's documentation.
pub struct TenantFlush {
    head: Arc<TenantHead>,
    series: Vec<(SeriesRef, Option<u64>)>,
    buf: Mutex<ReadBuf>,
}

impl TenantFlush {
    /// Sorts the series that have samples or exemplars. The generation must be sealed.
    pub fn new(head: Arc<TenantHead>) -> Self {
        let rows = head.rows.read();
        let mut buf = Default::default();
        let used = |&r: &SeriesRef| {
            has_any_sample(&rows, r, &mut buf) || (!rows.is_cut(r) && rows.exemplars.contains_key(&r))
        };
        let mut sorted: Vec<(&str, SeriesRef)> =
            rows.refs().filter(used).map(|r| (metric_name(rows.table.label_bytes(r)), r)).collect();
        sorted.sort_unstable_by(|a, b| {
            let labels = || compare_labels(rows.table.label_bytes(a.1), rows.table.label_bytes(b.1));
            a.0.cmp(b.0).then_with(labels)
        });
        let mut keys = TimeKeys::default();
        let series = sorted.into_iter().map(|(_, r)| (r, keys.of(&rows, r))).collect();
        drop(rows);
        Self { head, series, buf: Mutex::default() }
    }

    /// Series.
    pub fn len(&self) -> usize {
        self.series.len()
    }

    /// Whether there is no series.
    pub fn is_empty(&self) -> bool {
        self.series.is_empty()
    }

    /// The i-th series' labels.
    pub fn labels(&self, i: usize) -> Labels {
        self.head.rows.read().labels(self.series[i].0)
    }

    /// Series with equal keys have the same timestamps; `None` says nothing.
    pub fn time_key(&self, i: usize) -> Option<u64> {
        self.series[i].1
    }

    /// Replaces the contents of `out` by the i-th series' samples.
    pub fn read(&self, i: usize, out: &mut SeriesBuf) {
        let rows = self.head.rows.read();
        let snapshot = Snapshot::take(&rows, self.series[i].0, Labels::empty(), ALL);
        drop(rows);
        snapshot.read(ALL, &mut self.buf.lock(), out);
    }

    /// The i-th series' exemplars.
    pub fn exemplars(&self, i: usize) -> Vec<Exemplar> {
        let rows = self.head.rows.read();
        rows.exemplars_of(self.series[i].0, ALL)
    }

    /// Metadata of the i-th series' family: of its name, or of its name without a suffix.
    pub fn metadata(&self, i: usize) -> Option<MetricMetadata> {
        let rows = self.head.rows.read();
        if rows.metadata.is_empty() {
            return None;
        }
        let name = metric_name(rows.table.label_bytes(self.series[i].0));
        let families = SUFFIXES.iter().filter_map(|s| name.strip_suffix(s));
        std::iter::once(name).chain(families).find_map(|f| rows.metadata.get(f)).cloned()
    }
}

impl TenantFlush {
    /// All metadata of the tenant's metric families, in order of name, the newest description first.
    pub fn families(&self) -> Vec<(String, MetricMetadata)> {
        let rows = self.head.rows.read();
        rows.metadata.iter().map(|(n, m)| (n.to_string(), m.clone())).collect()
    }
}

fn metric_name(labels: &[u8]) -> &str {
    LabelIter::over(labels).find(|(n, _)| *n == METRIC_NAME).map_or("", |(_, v)| v)
}

/// Numbers for sets of timestamps: the rows of a group in which a series has a value.
#[derive(Default)]
struct TimeKeys {
    known: HashMap<(u32, Vec<u64>), u64, RandomState>,
    scratch: Vec<u64>,
}

impl TimeKeys {
    fn of(&mut self, rows: &Rows, series: SeriesRef) -> Option<u64> {
        let place = rows.table.place(series);
        let simple = !place.has(BESIDE | HISTOGRAMS) && !rows.is_cut(series);
        let (group, slot) = place.group().filter(|_| simple)?;
        let entry = &rows.groups[group as usize].group;
        self.scratch.clear();
        self.scratch.extend(entry.sealed().iter().map(|c| c.mask(slot as usize)));
        let mut word = 0;
        for (i, has) in entry.open_mask(slot as usize).enumerate() {
            word |= u64::from(has) << (i % 64);
            if i % 64 == 63 {
                self.scratch.push(word);
                word = 0;
            }
        }
        self.scratch.push(word);
        let next = self.known.len() as u64;
        Some(*self.known.entry((group, self.scratch.clone())).or_insert(next))
    }
}

/// Order of a block's series.
pub fn block_order(a: &Labels, b: &Labels) -> Ordering {
    a.metric_name().cmp(b.metric_name()).then_with(|| a.cmp(b))
}
