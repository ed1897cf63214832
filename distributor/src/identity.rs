//! Which series a message names, without looking at its labels: the tenant's cache of series identities.
//!
//! Constraints: label bytes are never kept, only a 128-bit hash of them under a secret drawn when the process starts,
//! so that nobody can make two label sets that collide. An entry is one *spelling* of a label set (its raw bytes in one
//! protocol); several spellings may name one series, then all but the first point to the first. Readers share the
//! cache; only label bytes never seen before take it for themselves.
//!
//! Format of a slot: `epoch (low 32 bits) << 32 | ref`. A slot of another epoch than the shard's present one is as good
//! as none, so nothing has to be cleared when a head is flushed.
//!
//! Recovery: the cache holds nothing that matters. It may be emptied at any time; the next requests then bring labels
//! again, and the shards answer with the refs they gave before.

use std::sync::{
    LazyLock,
    atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
};

use hashbrown::HashTable;
use parking_lot::{RwLock, RwLockReadGuard};
use xxhash_rust::xxh3::xxh3_128_with_secret;

use crate::{
    canonical::shard_at,
    rows::{NEEDS_LABELS, NO_ENTRY},
};

const NO_SLOT: u64 = u64::MAX;
/// The length of an entry that no bytes can match.
const NO_BYTES: u32 = u32::MAX;

/// What the hashed bytes are: equal bytes of different forms must not be taken for one another.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Form {
    /// Label fields of remote write 1.0.
    V1,
    /// A symbol of remote write 2.0.
    V2Symbol,
    /// The hashes of a series' symbols in the order sent.
    V2,
    /// Names and values of remote write 2.0 in the order sent, each with its length.
    V2Pairs,
    /// Canonical bytes.
    Canonical,
}

const SECRET_BYTES: usize = 192;

static SECRETS: LazyLock<[[u8; SECRET_BYTES]; 5]> = LazyLock::new(|| {
    use std::hash::{BuildHasher, RandomState};
    let mut out = [[0; SECRET_BYTES]; 5];
    for secret in &mut out {
        // The standard library draws the keys of a `RandomState` from the operating system.
        for (i, chunk) in secret.chunks_exact_mut(8).enumerate() {
            chunk.copy_from_slice(&RandomState::new().hash_one(i).to_le_bytes());
        }
    }
    out
});

/// A keyed hash for one form, with its secret at hand.
#[derive(Clone, Copy)]
pub(crate) struct KeyedHash(&'static [u8; SECRET_BYTES]);

impl KeyedHash {
    pub(crate) fn of(form: Form) -> Self {
        Self(&SECRETS[form as usize])
    }

    #[inline]
    pub(crate) fn hash(self, bytes: &[u8]) -> u128 {
        xxh3_128_with_secret(bytes, self.0)
    }
}

/// The epochs of all shards, as one request sees them.
pub(crate) type Epochs = [u64];

#[derive(Debug)]
struct Entry {
    hash: [u64; 2],
    raw_len: u32,
    /// The entry that followed this one last time.
    next: AtomicU32,
    /// The entry that holds the series' slot: this one, or the first spelling.
    series: u32,
    route: u32,
    slot: AtomicU64,
}

const fn halves(hash: u128) -> [u64; 2] {
    [hash as u64, (hash >> 64) as u64]
}

/// Where the series of an entry goes and how the shard knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub entry: u32,
    pub shard: u32,
    /// A ref, or [`NEEDS_LABELS`].
    pub sent: u32,
}

/// The cache's state; readers hold it while they walk a request.
#[derive(Debug, Default)]
pub(crate) struct Identities {
    generation: u64,
    shard_count: u32,
    entries: Vec<Entry>,
    /// The canonical hash of each entry that is a series' first spelling, parallel to `entries`.
    canonical: Vec<u128>,
    by_raw: HashTable<u32>,
    by_canonical: HashTable<u32>,
}

impl Identities {
    /// Changes when entry numbers or slots of before are void.
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The entry that followed last time, or [`NO_ENTRY`].
    #[inline]
    pub(crate) fn next(&self, entry: u32) -> u32 {
        self.entries.get(entry as usize).map_or(NO_ENTRY, |e| e.next.load(Relaxed))
    }

    /// Remembers which entry follows which.
    #[inline]
    pub(crate) fn link(&self, entry: u32, next: u32) {
        if let Some(e) = self.entries.get(entry as usize)
            && e.next.load(Relaxed) != next
        {
            e.next.store(next, Relaxed);
        }
    }

    /// How many bytes an entry's labels have.
    #[inline]
    pub(crate) fn raw_len(&self, entry: u32) -> Option<usize> {
        self.entries.get(entry as usize).map(|e| e.raw_len as usize)
    }

    /// Whether an entry stands for bytes with this hash (their length is compared by the caller).
    #[inline]
    pub(crate) fn is(&self, entry: u32, hash: u128) -> bool {
        self.entries.get(entry as usize).is_some_and(|e| e.hash == halves(hash))
    }

    /// The entry of raw label bytes.
    pub(crate) fn find_raw(&self, hash: u128, len: usize) -> Option<u32> {
        let h = halves(hash);
        let same = |&i: &u32| {
            let e = &self.entries[i as usize];
            e.hash == h && e.raw_len as usize == len
        };
        self.by_raw.find(h[0], same).copied()
    }

    /// The entry of a series.
    pub(crate) fn find_canonical(&self, hash: u128) -> Option<u32> {
        self.by_canonical.find(hash as u64, |&i| self.canonical[i as usize] == hash).copied()
    }

    /// Where an entry's series goes.
    #[inline]
    pub(crate) fn place(&self, raw: u32, epochs: &Epochs) -> Place {
        let mut e = &self.entries[raw as usize];
        let entry = e.series;
        if entry != raw {
            e = &self.entries[entry as usize];
        }
        let shard = shard_at(e.route, epochs.len() as u32);
        let slot = e.slot.load(Relaxed);
        let current = slot != NO_SLOT && (slot >> 32) as u32 == epochs[shard as usize] as u32;
        Place { entry, shard, sent: if current { slot as u32 } else { NEEDS_LABELS } }
    }

    /// Adds a spelling (or only the series, where there is none) and returns its entry.
    pub(crate) fn insert(&mut self, raw: Option<(u128, usize)>, canonical: u128, route: u32) -> u32 {
        if let Some(found) = raw.and_then(|(hash, len)| self.find_raw(hash, len)) {
            return found;
        }
        let first = self.find_canonical(canonical);
        if let (None, Some(found)) = (raw, first) {
            return found;
        }
        let at = self.entries.len() as u32;
        let (hash, raw_len) = raw.map_or((0, NO_BYTES), |(h, n)| (h, n as u32));
        self.entries.push(Entry {
            hash: halves(hash),
            raw_len,
            next: AtomicU32::new(NO_ENTRY),
            series: first.unwrap_or(at),
            route,
            slot: AtomicU64::new(NO_SLOT),
        });
        self.canonical.push(canonical);
        if raw.is_some() {
            let entries = &self.entries;
            self.by_raw.insert_unique(hash as u64, at, |&i| entries[i as usize].hash[0]);
        }
        if first.is_none() {
            let all = &self.canonical;
            self.by_canonical.insert_unique(canonical as u64, at, |&i| all[i as usize] as u64);
        }
        at
    }

    /// Drops every slot: the refs of before belong to other shards.
    fn set_shard_count(&mut self, shard_count: u32) {
        self.generation += 1;
        self.shard_count = shard_count;
        for e in &self.entries {
            e.slot.store(NO_SLOT, Relaxed);
        }
    }

    /// Keeps only series that their shard knows in its present epoch; nothing, where that would free too little.
    fn sweep(&mut self, epochs: &Epochs, entries_max: usize) {
        let old = std::mem::take(self);
        self.generation = old.generation + 1;
        self.shard_count = old.shard_count;
        let keeps = |i: u32| old.place(i, epochs).sent != NEEDS_LABELS;
        if (0..old.entries.len() as u32).filter(|&i| keeps(i)).count() > entries_max / 4 * 3 {
            return;
        }
        // First spellings come before their other spellings, so each finds its series here.
        for i in (0..old.entries.len()).filter(|&i| keeps(i as u32)) {
            let e = &old.entries[i];
            let raw = (e.raw_len != NO_BYTES)
                .then(|| (u128::from(e.hash[1]) << 64 | u128::from(e.hash[0]), e.raw_len as usize));
            let at = self.insert(raw, old.canonical[i], e.route);
            self.entries[at as usize].slot.store(e.slot.load(Relaxed), Relaxed);
        }
    }
}

/// A tenant's identities, shared by all its requests.
#[derive(Debug, Default)]
pub(crate) struct SeriesCache(RwLock<Identities>);

impl SeriesCache {
    /// The cache for reading, after making it fit the number of shards and its own bound.
    pub(crate) fn read(&self, epochs: &Epochs, entries_max: usize) -> RwLockReadGuard<'_, Identities> {
        let fits = |i: &Identities| i.shard_count as usize == epochs.len() && i.len() < entries_max.max(1);
        let guard = self.0.read();
        if fits(&guard) {
            return guard;
        }
        drop(guard);
        let mut all = self.0.write();
        if all.shard_count as usize != epochs.len() {
            all.set_shard_count(epochs.len() as u32);
        }
        if all.len() >= entries_max.max(1) {
            all.sweep(epochs, entries_max);
        }
        parking_lot::RwLockWriteGuard::downgrade(all)
    }

    /// The cache for adding entries, or `None` where what was read under `generation` is void.
    pub(crate) fn write(&self, generation: u64) -> Option<parking_lot::RwLockWriteGuard<'_, Identities>> {
        let guard = self.0.write();
        (guard.generation == generation).then_some(guard)
    }

    /// Remembers refs that a shard gave: pairs of entry and ref.
    pub(crate) fn record(&self, generation: u64, epoch: u64, refs: impl Iterator<Item = (u32, u32)>) {
        let all = self.0.read();
        if all.generation != generation {
            return;
        }
        for (entry, given) in refs {
            if let Some(e) = all.entries.get(entry as usize) {
                e.slot.store((epoch << 32) | u64::from(given), Relaxed);
            }
        }
    }

    /// How many entries there are.
    pub(crate) fn len(&self) -> usize {
        self.0.read().len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_share_a_series_and_epochs_void_refs() {
        let cache = SeriesCache::default();
        let generation = cache.read(&[1, 1], 100).generation();
        let mut all = cache.write(generation).unwrap();
        let a = all.insert(Some((11, 5)), 100, 0);
        let b = all.insert(Some((12, 6)), 100, 0);
        assert_eq!(all.insert(None, 100, 0), a);
        assert_eq!(all.insert(Some((12, 6)), 100, 0), b);
        drop(all);
        let of = |epochs: &[u64], e: u32| cache.read(epochs, 100).place(e, epochs);
        assert_eq!(of(&[1, 1], b), Place { entry: a, shard: 0, sent: NEEDS_LABELS });
        cache.record(generation, 1, [(a, 7)].into_iter());
        assert_eq!(of(&[1, 1], b).sent, 7);
        assert_eq!(of(&[2, 1], b).sent, NEEDS_LABELS);
        assert_eq!(cache.read(&[1, 1], 100).find_raw(12, 6), Some(b));
        assert_eq!(cache.read(&[1, 1], 100).find_raw(12, 5), None);
        // Another number of shards: the same epoch number may be another shard's.
        assert_eq!(of(&[1, 1, 1], b).sent, NEEDS_LABELS);
        cache.record(generation, 1, [(a, 7)].into_iter());
        assert_eq!(of(&[1, 1, 1], b).sent, NEEDS_LABELS);
        assert!(cache.write(generation).is_none());
    }

    #[test]
    fn a_full_cache_keeps_what_the_shards_know() {
        let cache = SeriesCache::default();
        let generation = cache.read(&[1], 8).generation();
        let mut all = cache.write(generation).unwrap();
        for i in 0..4u128 {
            all.insert(Some((i, 5)), 100 + i, 0);
            all.insert(Some((1000 + i, 5)), 100 + i, 0);
        }
        drop(all);
        cache.record(generation, 1, [(2, 9)].into_iter());
        let all = cache.read(&[1], 8);
        assert_eq!(all.len(), 2);
        let e = all.find_raw(1001, 5).unwrap();
        assert_eq!(all.place(e, &[1]).sent, 9);
        assert_eq!(all.find_raw(0, 5), None);
        drop(all);
        for i in 0..8u128 {
            let generation = cache.read(&[1], 100).generation();
            let e = cache.write(generation).unwrap().insert(Some((50 + i, 5)), 500 + i, 0);
            cache.record(generation, 1, [(e, 1)].into_iter());
        }
        assert_eq!(cache.read(&[1], 8).len(), 0);
    }
}
