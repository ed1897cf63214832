//! Metadata of metric families: where it goes, and what need not be sent again.
//!
//! Remote write 2.0 repeats the metadata with every series of every request. A tenant's memory holds a hash of what a
//! shard has taken in its present epoch; a shard that begins a new epoch is told again. Targets may describe a family
//! differently: each description is sent, all of a family to one shard, which keeps the newest
//! [`sextant_model::DESCRIPTIONS_MAX`].

use hashbrown::HashMap;
use parking_lot::RwLock;
use sextant_model::{MetricMetadata, MetricType};
use xxhash_rust::xxh3::Xxh3;

use crate::{
    canonical::shard_at,
    identity::Epochs,
    rows::{RowMetadata, Rows},
};

/// Entries of 40 bytes a tenant; beyond it everything is sent once more.
const REMEMBERED_MAX: usize = 100_000;

/// What the shards know of a tenant's metadata: hash of family and content, shard and epoch.
#[derive(Debug, Default)]
pub(crate) struct MetadataMemory(RwLock<HashMap<u128, (u32, u64)>>);

impl MetadataMemory {
    fn knows(&self, key: u128, epochs: &Epochs) -> bool {
        let known = self.0.read().get(&key).copied();
        known.is_some_and(|(shard, epoch)| epochs.get(shard as usize) == Some(&epoch))
    }

    /// Remembers what a shard has taken.
    pub(crate) fn record(&self, keys: impl Iterator<Item = u128>, shard: u32, epoch: u64) {
        let mut known = self.0.write();
        if known.len() >= REMEMBERED_MAX {
            known.clear();
        }
        known.extend(keys.map(|k| (k, (shard, epoch))));
    }
}

/// Adds a family's metadata to a request's rows, unless its shard knows it or the request has it already.
pub(crate) fn push(
    memory: &MetadataMemory,
    tenant: &str,
    epochs: &Epochs,
    family: &[u8],
    (metric_type, help, unit): (MetricType, &[u8], &[u8]),
    rows: &mut Rows,
) {
    if family.is_empty() || epochs.is_empty() {
        return;
    }
    let family = base_name(family, metric_type);
    let mut hash = Xxh3::new();
    for part in [family, &[metric_type as u8], help, unit] {
        hash.update(&(part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let key = hash.digest128();
    if memory.knows(key, epochs) || !rows.metadata_seen.insert(key) {
        return;
    }
    let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
    let mut hash = Xxh3::new();
    hash.update(tenant.as_bytes());
    hash.update(&[0xfd]);
    hash.update(family);
    let shard = shard_at((hash.digest() >> 32) as u32, epochs.len() as u32);
    let metadata = MetricMetadata { metric_type, help: text(help), unit: text(unit) };
    rows.metadata.push(RowMetadata { family: text(family), metadata, shard, key });
}

/// The family of a classic histogram's or summary's series: 2.0 gives the metadata with each of them.
fn base_name(name: &[u8], metric_type: MetricType) -> &[u8] {
    let suffixes: &[&[u8]] = match metric_type {
        MetricType::Histogram => &[b"_bucket", b"_count", b"_sum"],
        MetricType::GaugeHistogram => &[b"_bucket", b"_gcount", b"_gsum"],
        MetricType::Summary => &[b"_count", b"_sum"],
        _ => &[],
    };
    let base = suffixes.iter().find_map(|s| name.strip_suffix(*s));
    base.filter(|b| !b.is_empty()).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_is_sent_once_an_epoch() {
        let memory = MetadataMemory::default();
        let mut rows = Rows::default();
        let push_all = |rows: &mut Rows, epoch: u64| {
            rows.clear();
            for name in ["h_bucket", "h_sum", "h_count"] {
                let content = (MetricType::Histogram, &b"help"[..], &b"s"[..]);
                push(&memory, "t", &[epoch], name.as_bytes(), content, rows);
            }
            let keys: Vec<u128> = rows.metadata.iter().map(|m| m.key).collect();
            memory.record(keys.into_iter(), 0, epoch);
            rows.metadata.len()
        };
        assert_eq!(push_all(&mut rows, 1), 1);
        assert_eq!(rows.metadata[0].family, "h");
        assert_eq!(push_all(&mut rows, 1), 0);
        assert_eq!(push_all(&mut rows, 2), 1);
    }

    #[test]
    fn each_description_of_a_family_is_sent_once_to_one_shard() {
        let memory = MetadataMemory::default();
        let mut rows = Rows::default();
        for (help, unit) in [("a", ""), ("b", ""), ("a", ""), ("a", "s"), ("b", "")] {
            let content = (MetricType::Gauge, help.as_bytes(), unit.as_bytes());
            push(&memory, "t", &[1; 16], b"m", content, &mut rows);
        }
        let sent: Vec<_> = rows.metadata.iter().map(|m| (&*m.metadata.help, &*m.metadata.unit)).collect();
        assert_eq!(sent, [("a", ""), ("b", ""), ("a", "s")]);
        assert!(rows.metadata.iter().all(|m| m.family == "m" && m.shard == rows.metadata[0].shard));
    }
}
