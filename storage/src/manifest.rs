//! The manifest of one tenant and signal: which blocks are the data, and which part of each shard's log they hold.
//!
//! A manifest is immutable; a change is the next version, created only if no object has its name
//! (`tenants/<tenant>/<signal>/manifest/<20 digits>.json`). The text is
//! `{"crc32c":"xxxxxxxx","manifest":{…}}` where the checksum covers the bytes of the inner object.

mod commit;
mod tombstone;

use std::{collections::BTreeMap, fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};
use sextant_model::TenantId;
use sextant_proto::ShardId;
use ulid::Ulid;

pub(crate) use commit::now_ms;
pub use commit::{ManifestOptions, Manifests};
pub use tombstone::{Announcement, Tombstone, TombstoneId, TombstonePosition};

use crate::{Result, StorageError};

/// A block's id: a ULID, so its age shows in its name.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlockId(pub Ulid);

impl BlockId {
    /// A new id with the current time.
    pub fn generate() -> Self {
        Self(Ulid::new())
    }

    /// When the id was made, milliseconds since the epoch.
    pub fn created_ms(self) -> i64 {
        i64::try_from(self.0.timestamp_ms()).unwrap_or(i64::MAX)
    }
}

impl fmt::Display for BlockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for BlockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlockId({})", self.0)
    }
}

impl FromStr for BlockId {
    type Err = StorageError;

    fn from_str(s: &str) -> Result<Self> {
        Ulid::from_string(s).map(Self).map_err(|e| StorageError::Invalid(format!("block id {s:?}: {e}")))
    }
}

impl Serialize for BlockId {
    fn serialize<S: serde::Serializer>(&self, s: S) -> std::result::Result<S::Ok, S::Error> {
        s.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for BlockId {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> std::result::Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        Ulid::from_string(&text).map(Self).map_err(serde::de::Error::custom)
    }
}

/// Size and checksum of one object of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ObjectMeta {
    /// Bytes.
    pub size: u64,
    /// CRC-32C of the whole object.
    pub crc32c: u32,
}

/// A range of a shard's log: entries `from..=to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogRange {
    /// The shard.
    pub shard: u32,
    /// First entry.
    pub from: u64,
    /// Last entry.
    pub to: u64,
}

/// What a manifest says of one block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlockMeta {
    /// The block's id and folder name.
    pub id: BlockId,
    /// 0 for a flush, 1 and up for compaction windows.
    pub level: u8,
    /// Earliest timestamp, milliseconds.
    pub min_t: i64,
    /// Latest timestamp, milliseconds; inclusive.
    pub max_t: i64,
    /// Series.
    pub series: u64,
    /// Samples, of both kinds.
    pub samples: u64,
    /// The block's objects by name.
    pub objects: BTreeMap<String, ObjectMeta>,
    /// Which parts of which logs the block's rows come from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log: Vec<LogRange>,
    /// Order of arrival: for equal series and timestamps the block with the larger number wins. It is the manifest
    /// version that first named the rows, set by the commit (0 before); a merged block has its inputs' largest.
    /// Flushes of one shard commit in log order, so this is the order of log positions, and it compares across shards.
    pub seq: u64,
    /// The smallest `seq` among the flushes merged into the block.
    pub seq_min: u64,
    /// Tombstones of which nothing is left to apply to the block.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub applied: Vec<TombstoneId>,
}

impl BlockMeta {
    /// Whether the block has a sample that may be in `[start, end]`.
    pub fn overlaps(&self, start: i64, end: i64) -> bool {
        self.min_t <= end && self.max_t >= start
    }

    /// Bytes of all objects.
    pub fn bytes(&self) -> u64 {
        self.objects.values().map(|o| o.size).sum()
    }

    /// What [`crate::merge_series_sets`] takes as the priority of the block's rows.
    pub fn priority(&self) -> u64 {
        self.seq
    }

    /// Order of arrival; the id decides between blocks of one flush.
    pub fn arrival(&self) -> (u64, BlockId) {
        (self.seq, self.id)
    }
}

/// A block that left the manifest and may still be read by holders of an older version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetiredBlock {
    /// The block.
    pub id: BlockId,
    /// When it left, milliseconds since the epoch.
    pub retired_ms: i64,
}

/// One version of what a tenant's data is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The tenant.
    pub tenant: String,
    /// `metrics`.
    pub signal: String,
    /// Counts up by one; 0 is the empty manifest of a tenant without data and is never stored.
    pub version: u64,
    /// Which write made this version: tells a writer whose answer was lost whether it was its own.
    pub commit: String,
    /// The blocks, in order of id.
    pub blocks: Vec<BlockMeta>,
    /// For each shard the last log entry that is in blocks.
    pub covered: BTreeMap<u32, u64>,
    /// Blocks to be deleted after the grace time.
    pub retired: Vec<RetiredBlock>,
    /// Deletions that blocks are subject to, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "tombstone::shared")]
    pub tombstones: Vec<Arc<Tombstone>>,
    /// Deletions whose tombstones are on their way.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub announced: Vec<Announcement>,
}

impl Manifest {
    /// The manifest of a tenant without data.
    pub fn empty(tenant: &TenantId, signal: &str) -> Self {
        Self {
            tenant: tenant.to_string(),
            signal: signal.to_owned(),
            version: 0,
            commit: String::new(),
            blocks: Vec::new(),
            covered: BTreeMap::new(),
            retired: Vec::new(),
            tombstones: Vec::new(),
            announced: Vec::new(),
        }
    }

    /// The last log entry of a shard that is in blocks; 0 for none.
    pub fn covered(&self, shard: ShardId) -> u64 {
        self.covered.get(&shard.0).copied().unwrap_or(0)
    }

    /// A block by id.
    pub fn block(&self, id: BlockId) -> Option<&BlockMeta> {
        self.blocks.iter().find(|b| b.id == id)
    }

    /// The manifest after a flush: `blocks` hold every row of the shard's log up to entry `position`.
    ///
    /// Idempotent: blocks that are there already are not added again. A position before the one covered is
    /// [`StorageError::Stale`]: another leader has flushed these rows already, and adding the blocks would store
    /// them twice. The same position with other blocks is stale too.
    pub fn with_flush(&self, shard: ShardId, position: u64, blocks: &[BlockMeta]) -> Result<Self> {
        if !blocks.is_empty() && blocks.iter().all(|b| self.block(b.id).is_some()) {
            return Ok(self.clone());
        }
        let covered = self.covered(shard);
        if position < covered || (position == covered && !blocks.is_empty()) {
            return Err(StorageError::Stale {
                tenant: self.tenant.clone(),
                reason: format!("shard {} is covered to {covered}, a flush brings {position}", shard.0),
            });
        }
        let mut next = self.clone();
        next.covered.insert(shard.0, position);
        next.blocks.extend_from_slice(blocks);
        Ok(next)
    }

    /// The manifest after a merge: `inputs` leave, `outputs` come. Every input must still be there.
    pub fn with_merge(&self, inputs: &[BlockId], outputs: &[BlockMeta], now_ms: i64) -> Result<Self> {
        let stale = |reason| StorageError::Stale { tenant: self.tenant.clone(), reason };
        let mut outputs = outputs.to_vec();
        self.check_merge(inputs, &mut outputs, now_ms)?;
        let mut next = self.clone();
        for id in inputs {
            let at = next.blocks.iter().position(|b| b.id == *id);
            let at = at.ok_or_else(|| stale(format!("block {id} has left the manifest")))?;
            next.blocks.remove(at);
            next.retired.push(RetiredBlock { id: *id, retired_ms: now_ms });
        }
        next.blocks.extend(outputs);
        Ok(next)
    }

    /// The stored text.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let body = serde_json::to_vec(self).map_err(|e| StorageError::Invalid(format!("manifest: {e}")))?;
        let mut out = format!("{PREFIX}{:08x}{MIDDLE}", crc32c::crc32c(&body)).into_bytes();
        out.extend_from_slice(&body);
        out.extend_from_slice(SUFFIX.as_bytes());
        Ok(out)
    }

    /// Reads the stored text and checks every byte of it. `object` names it in errors. Safe on any input.
    pub fn decode(object: &str, bytes: &[u8]) -> Result<Self> {
        let bad = |reason: &str| StorageError::corrupt(object, reason);
        let rest =
            bytes.strip_prefix(PREFIX.as_bytes()).ok_or_else(|| bad("does not begin like a manifest"))?;
        let (crc, rest) = rest.split_at_checked(8).ok_or_else(|| bad("cut"))?;
        let rest =
            rest.strip_prefix(MIDDLE.as_bytes()).ok_or_else(|| bad("does not begin like a manifest"))?;
        let body = rest.strip_suffix(SUFFIX.as_bytes()).ok_or_else(|| bad("does not end like a manifest"))?;
        if format!("{:08x}", crc32c::crc32c(body)).as_bytes() != crc {
            return Err(bad("checksum does not match"));
        }
        serde_json::from_slice(body).map_err(|e| StorageError::corrupt(object, e.to_string()))
    }
}

const PREFIX: &str = "{\"crc32c\":\"";
const MIDDLE: &str = "\",\"manifest\":";
const SUFFIX: &str = "}\n";

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        let mut m = Manifest::empty(&TenantId::anonymous(), "metrics");
        m.version = 7;
        m.blocks.push(BlockMeta {
            id: BlockId(Ulid::from_parts(1, 2)),
            level: 0,
            min_t: -5,
            max_t: 10,
            series: 3,
            samples: 9,
            objects: BTreeMap::from([("index".to_owned(), ObjectMeta { size: 1, crc32c: 2 })]),
            log: vec![LogRange { shard: 1, from: 1, to: 4 }],
            seq: 7,
            seq_min: 7,
            applied: Vec::new(),
        });
        m.covered.insert(1, 4);
        m
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let m = manifest();
        let text = m.encode().unwrap();
        assert_eq!(Manifest::decode("x", &text).unwrap(), m);
        for i in 0..text.len() {
            for bit in 0..8 {
                let mut bad = text.clone();
                bad[i] ^= 1 << bit;
                let e = Manifest::decode("tenants/a/x.json", &bad).unwrap_err();
                assert!(
                    matches!(&e, StorageError::Corrupt { object, .. } if object == "tenants/a/x.json"),
                    "{e}"
                );
            }
            assert!(Manifest::decode("x", &text[..i]).is_err());
        }
    }

    #[test]
    fn a_flush_is_taken_once() {
        let m = manifest();
        let mut block = m.blocks[0].clone();
        block.id = BlockId(Ulid::from_parts(2, 2));
        let shard = ShardId(1);
        assert!(matches!(m.with_flush(shard, 3, &[block.clone()]), Err(StorageError::Stale { .. })));
        assert!(matches!(m.with_flush(shard, 4, &[block.clone()]), Err(StorageError::Stale { .. })));
        let next = m.with_flush(shard, 5, &[block.clone()]).unwrap();
        assert_eq!((next.blocks.len(), next.covered(shard)), (2, 5));
        assert_eq!(next.with_flush(shard, 5, &[block]).unwrap(), next);
        assert_eq!(next.with_flush(shard, 5, &[]).unwrap(), next);
    }
}
