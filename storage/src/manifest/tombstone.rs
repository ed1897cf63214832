//! Tombstones: deletions that the blocks of a manifest are subject to.
//!
//! A deletion is an entry in every shard's log, and its position there divides the rows: those of entries up to it are
//! deleted, later ones are not. It is committed here when every shard has applied it. A block is **before** it if all its
//! [`crate::LogRange`]s end at or before the shards' positions, **after** it if all begin behind them; a flush makes no other
//! blocks, because the entry ends the generation. Readers leave out what tombstones delete of blocks before them, block by
//! block, so before rows of several blocks are joined.
//!
//! A merge applies the tombstones to each of its inputs and notes in [`BlockMeta::applied`] that nothing is left to do. So a
//! block of rows from both sides is right as it is, provided that it was made knowing the tombstone:
//! - A deletion is announced ([`Manifest::with_announced`]) before its entries are written. Until its tombstone comes, or for some
//!   minutes, blocks that arrived later are not merged: they may be of either side.
//! - [`Manifest::with_tombstone`] refuses where a merge has mixed both sides since the entry was written: the deletion is
//!   asked for anew, at later positions.
//! - [`Manifest::with_merge`] refuses outputs of both sides that were made without a tombstone that an input is subject to.
//!
//! A tombstone goes when no block is subject to it and the manifest covers all rows before it, so that none will come.

use std::{collections::BTreeMap, fmt, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use sextant_model::{MatchOp, Matcher};
use sextant_proto::{DeleteOutcome, ShardId};
use ulid::Ulid;

use super::{BlockId, BlockMeta, Manifest};
use crate::{Result, StorageError};

/// A tombstone's id: that of the deletion in the logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TombstoneId(pub Ulid);

impl TombstoneId {
    /// A new id with the current time.
    pub fn generate() -> Self {
        Self(Ulid::new())
    }

    /// When the id was made, milliseconds since the epoch.
    pub fn created_ms(self) -> i64 {
        i64::try_from(self.0.timestamp_ms()).unwrap_or(i64::MAX)
    }
}

impl fmt::Display for TombstoneId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<TombstoneId> for String {
    fn from(id: TombstoneId) -> Self {
        id.0.to_string()
    }
}

impl TryFrom<String> for TombstoneId {
    type Error = ulid::DecodeError;

    fn try_from(text: String) -> Result<Self, ulid::DecodeError> {
        Ulid::from_string(&text).map(Self)
    }
}

/// Where a deletion is in one shard's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TombstonePosition {
    /// Rows of entries up to it are deleted.
    pub position: u64,
    /// When the manifest covers it, no block with such rows can come any more.
    pub pending: u64,
}

impl From<DeleteOutcome> for TombstonePosition {
    fn from(o: DeleteOutcome) -> Self {
        Self { position: o.position, pending: o.pending }
    }
}

/// See the module's documentation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tombstone {
    /// Its id.
    pub id: TombstoneId,
    /// A series is deleted where all matchers of one of the selectors match.
    #[serde(with = "selectors")]
    pub selectors: Vec<Vec<Matcher>>,
    /// First timestamp, inclusive, milliseconds.
    pub start: i64,
    /// Last timestamp, inclusive, milliseconds.
    pub end: i64,
    /// By shard.
    pub shards: BTreeMap<u32, TombstonePosition>,
    /// The manifest version that first named it, set by [`Manifest::with_tombstone`]: a block without log ranges is before
    /// the tombstone if it arrived before.
    pub version: u64,
}

/// A deletion that is on its way, see [`Manifest::with_announced`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Announcement {
    /// Of the tombstone to come.
    pub id: TombstoneId,
    /// The manifest version that first named it.
    pub version: u64,
}

/// An announcement is believed so long: its author may have died.
const ANNOUNCED_MS_MAX: i64 = 5 * 60_000;

impl Announcement {
    fn is_believed(&self, now_ms: i64) -> bool {
        now_ms.saturating_sub(self.id.created_ms()) < ANNOUNCED_MS_MAX
    }
}

/// Where a block's rows are with regard to a tombstone.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Before,
    After,
    Mixed,
}

impl Tombstone {
    fn side(&self, block: &BlockMeta) -> Side {
        let sides = block.log.iter().map(|r| match self.shards.get(&r.shard) {
            Some(p) if r.to <= p.position => Side::Before,
            Some(p) if r.from <= p.position => Side::Mixed,
            _ => Side::After,
        });
        let arrived = match block.seq {
            1.. if block.seq < self.version => Side::Before,
            _ => Side::After,
        };
        sides.reduce(|a, b| if a == b { a } else { Side::Mixed }).unwrap_or(arrived)
    }

    fn concerns(&self, block: &BlockMeta) -> bool {
        self.start <= self.end && block.overlaps(self.start, self.end) && !block.applied.contains(&self.id)
    }

    /// Whether rows of the block may be deleted by it.
    pub fn applies_to(&self, block: &BlockMeta) -> bool {
        self.concerns(block) && self.side(block) == Side::Before
    }
}

impl Manifest {
    /// The tombstones that a block's reader must apply.
    pub fn tombstones_of(&self, block: &BlockMeta) -> Vec<Arc<Tombstone>> {
        self.tombstones.iter().filter(|t| t.applies_to(block)).cloned().collect()
    }

    /// The last entry of a shard's log that the manifest knows of: positions of a new log go on behind it.
    pub fn known_position(&self, shard: ShardId) -> u64 {
        let deleted = self.tombstones.iter().filter_map(|t| t.shards.get(&shard.0)).map(|p| p.position);
        deleted.fold(self.covered(shard), u64::max)
    }

    /// The manifest with a deletion announced, before its entries are written to the logs. Without blocks there is nothing that
    /// could be merged, and it stays as it is.
    pub fn with_announced(&self, id: TombstoneId) -> Self {
        let mut next = self.clone();
        if !self.blocks.is_empty() && !self.announced.iter().any(|a| a.id == id) {
            next.announced.retain(|a| a.is_believed(id.created_ms()));
            next.announced.push(Announcement { id, version: self.version + 1 });
        }
        next
    }

    /// The manifest without an announcement: the deletion was given up.
    pub fn without_announced(&self, id: TombstoneId) -> Self {
        let mut next = self.clone();
        next.announced.retain(|a| a.id != id);
        next
    }

    /// Whether blocks must not be merged now, because an announced deletion may divide them.
    pub(crate) fn is_divided<'a>(&self, blocks: impl Iterator<Item = &'a BlockMeta>, now_ms: i64) -> bool {
        let believed = self.announced.iter().filter(|a| a.is_believed(now_ms)).map(|a| a.version);
        let Some(oldest) = believed.min() else { return false };
        let (count, newest) = blocks.fold((0, 0), |(n, seq), b| (n + 1, b.seq.max(seq)));
        count > 1 && newest >= oldest
    }

    fn is_done(&self, t: &Tombstone) -> bool {
        let covered = t.shards.iter().all(|(&shard, p)| self.covered(ShardId(shard)) >= p.pending);
        covered && !self.blocks.iter().any(|b| t.applies_to(b))
    }

    /// The manifest with a tombstone. Idempotent; one that has nothing to do is left out.
    ///
    /// [`StorageError::Stale`]: a merge has mixed rows from before and after the deletion; ask for it anew.
    pub fn with_tombstone(&self, tombstone: &Tombstone) -> Result<Self> {
        if self.tombstones.iter().any(|t| t.id == tombstone.id) {
            return Ok(self.clone());
        }
        let tombstone = Tombstone { version: self.version + 1, ..tombstone.clone() };
        let mixed = |b: &&BlockMeta| tombstone.concerns(b) && tombstone.side(b) == Side::Mixed;
        if let Some(b) = self.blocks.iter().find(mixed) {
            return Err(StorageError::Stale {
                tenant: self.tenant.clone(),
                reason: format!("block {} was merged during deletion {}", b.id, tombstone.id),
            });
        }
        let mut next = self.without_announced(tombstone.id);
        if !self.is_done(&tombstone) {
            next.tombstones.push(Arc::new(tombstone));
        }
        Ok(next)
    }

    /// The manifest after it was found that tombstones delete nothing of a block.
    pub fn with_applied(&self, block: BlockId, tombstones: &[TombstoneId]) -> Self {
        let mut next = self.clone();
        if let Some(b) = next.blocks.iter_mut().find(|b| b.id == block) {
            b.applied.extend(tombstones);
            b.applied.sort_unstable();
            b.applied.dedup();
        }
        next.prune();
        next
    }

    /// The manifest without tombstones that have nothing to do any more, and without announcements that nobody redeems.
    pub fn without_done_tombstones(&self, now_ms: i64) -> Self {
        let mut next = self.clone();
        next.announced.retain(|a| a.is_believed(now_ms));
        next.tombstones.retain(|t| !self.is_done(t));
        if next.tombstones.len() < self.tombstones.len() {
            next.prune();
        }
        next
    }

    /// Forgets what was applied of tombstones that are gone.
    fn prune(&mut self) {
        for b in &mut self.blocks {
            b.applied.retain(|id| self.tombstones.iter().any(|t| t.id == *id));
        }
    }

    /// Checks that outputs of a merge were made with all tombstones that its inputs are subject to, and forgets those of
    /// the outputs that are gone.
    pub(super) fn check_merge(
        &self,
        inputs: &[BlockId],
        outputs: &mut [BlockMeta],
        now_ms: i64,
    ) -> Result<()> {
        let inputs = || inputs.iter().filter_map(|id| self.block(*id));
        if !outputs.is_empty() && self.is_divided(inputs(), now_ms) {
            return Err(StorageError::Stale {
                tenant: self.tenant.clone(),
                reason: "a deletion was announced during a merge".to_owned(),
            });
        }
        for t in &self.tombstones {
            let missing = outputs.iter().any(|b| !b.applied.contains(&t.id));
            // Outputs of inputs that are all before it are subject to it themselves.
            let mixes = inputs().any(|b| t.side(b) != Side::Before);
            if missing && mixes && inputs().any(|b| t.applies_to(b)) {
                return Err(StorageError::Stale {
                    tenant: self.tenant.clone(),
                    reason: format!("deletion {} came during a merge", t.id),
                });
            }
        }
        for b in outputs {
            b.applied.retain(|id| self.tombstones.iter().any(|t| t.id == *id));
        }
        Ok(())
    }
}

/// Tombstones are shared with readers.
pub(super) mod shared {
    use super::{Arc, Deserialize, Deserializer, Serializer, Tombstone};

    pub fn serialize<S: Serializer>(all: &[Arc<Tombstone>], s: S) -> Result<S::Ok, S::Error> {
        s.collect_seq(all.iter().map(|t| &**t))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<Arc<Tombstone>>, D::Error> {
        Ok(Vec::<Tombstone>::deserialize(d)?.into_iter().map(Arc::new).collect())
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredMatcher {
    name: String,
    op: String,
    value: String,
}

mod selectors {
    use super::{Deserialize, Deserializer, Error, MatchOp, Matcher, Serializer, StoredMatcher};

    const OPS: [MatchOp; 4] = [MatchOp::Equal, MatchOp::NotEqual, MatchOp::Regex, MatchOp::NotRegex];

    pub fn serialize<S: Serializer>(all: &[Vec<Matcher>], s: S) -> Result<S::Ok, S::Error> {
        let stored = |m: &Matcher| StoredMatcher {
            name: m.name.clone(),
            op: m.op.to_string(),
            value: m.value.clone(),
        };
        s.collect_seq(all.iter().map(|s| s.iter().map(stored).collect::<Vec<_>>()))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<Vec<Matcher>>, D::Error> {
        let compile = |m: StoredMatcher| {
            let op = OPS.into_iter().find(|op| op.to_string() == m.op);
            let op = op.ok_or_else(|| D::Error::custom(format!("unknown comparison {:?}", m.op)))?;
            Matcher::new(m.name, op, m.value).map_err(D::Error::custom)
        };
        let stored = Vec::<Vec<StoredMatcher>>::deserialize(d)?;
        stored.into_iter().map(|s| s.into_iter().map(compile).collect()).collect()
    }
}
