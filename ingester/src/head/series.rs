//! The series of one tenant in one generation: identity, label bytes, place.
//!
//! Refs are dense from 0 in order of arrival, per tenant and generation. Identity is the XXH3-128 of the canonical label
//! bytes; the bytes themselves are compared as well, so a collision makes two series, never one.

use hashbrown::HashTable;
use sextant_model::Labels;
use xxhash_rust::xxh3::xxh3_128;

use super::arena::Arena;

/// A series' number within its tenant and generation.
pub(crate) type SeriesRef = u32;

/// The series' samples are increments.
pub(crate) const DELTA: u16 = 1;
/// The series has histograms.
pub(crate) const HISTOGRAMS: u16 = 2;
/// The series has start timestamps.
pub(crate) const STARTS: u16 = 4;
/// The series has samples beside its group.
pub(crate) const BESIDE: u16 = 8;

/// Where a series' rows are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// The group, or what [`Place::group`] hides until the series has one.
    group: u32,
    slot: u16,
    /// [`DELTA`] and so on.
    pub(crate) flags: u16,
}

impl Place {
    /// Group and slot; `None` before the first float sample.
    #[inline]
    pub(crate) fn group(self) -> Option<(u32, u16)> {
        (self.slot != u16::MAX).then_some((self.group, self.slot))
    }

    /// What the series' target is known by, while it has no group.
    pub(crate) fn target(self) -> u32 {
        self.group
    }

    pub(crate) fn has(self, flag: u16) -> bool {
        self.flags & flag != 0
    }
}

struct Entry {
    hash: [u64; 2],
    labels: Labels,
}

/// A part of a series' label bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    series: SeriesRef,
    at: u32,
    len: u32,
}

/// See the module's documentation.
#[derive(Default)]
pub(crate) struct SeriesTable {
    arena: Arena,
    entries: Vec<Entry>,
    places: Vec<Place>,
    by_hash: HashTable<SeriesRef>,
}

impl SeriesTable {
    /// How many series there are.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The identity of canonical label bytes.
    pub(crate) fn hash(labels: &[u8]) -> u128 {
        xxh3_128(labels)
    }

    /// Finds a series by its labels and their [`SeriesTable::hash`].
    pub(crate) fn find(&self, hash: u128, labels: &[u8]) -> Option<SeriesRef> {
        let halves = [hash as u64, (hash >> 64) as u64];
        let same = |&r: &SeriesRef| {
            let e = &self.entries[r as usize];
            e.hash == halves && e.labels.as_bytes() == labels
        };
        self.by_hash.find(hash as u64, same).copied()
    }

    /// Adds a series that is not there.
    pub(crate) fn insert(&mut self, hash: u128, labels: &[u8], flags: u16, memory: &mut usize) -> SeriesRef {
        let series = self.entries.len() as SeriesRef;
        let before = self.tables_memory();
        let labels = self.arena.push(labels, memory);
        self.entries.push(Entry { hash: [hash as u64, (hash >> 64) as u64], labels });
        self.places.push(Place { group: 0, slot: u16::MAX, flags });
        let entries = &self.entries;
        self.by_hash.insert_unique(hash as u64, series, |&r| entries[r as usize].hash[0]);
        *memory += self.tables_memory() - before;
        series
    }

    fn tables_memory(&self) -> usize {
        self.entries.capacity() * size_of::<Entry>()
            + self.places.capacity() * size_of::<Place>()
            + self.by_hash.allocation_size()
    }

    /// Where a part of a series' label bytes lies.
    pub(crate) fn span(&self, series: SeriesRef, part: std::ops::Range<usize>) -> Span {
        Span { series, at: part.start as u32, len: part.len() as u32 }
    }

    /// The series' identity.
    pub(crate) fn id(&self, series: SeriesRef) -> u128 {
        let [low, high] = self.entries[series as usize].hash;
        u128::from(low) | u128::from(high) << 64
    }

    /// The canonical label bytes.
    #[inline]
    pub(crate) fn label_bytes(&self, series: SeriesRef) -> &[u8] {
        self.entries[series as usize].labels.as_bytes()
    }

    /// The labels; shared, not copied.
    #[inline]
    pub(crate) fn labels(&self, series: SeriesRef) -> Labels {
        self.entries[series as usize].labels.clone()
    }

    /// Bytes of a part of a series' labels.
    #[inline]
    pub(crate) fn bytes(&self, span: Span) -> &[u8] {
        &self.label_bytes(span.series)[span.at as usize..(span.at + span.len) as usize]
    }

    #[inline]
    pub(crate) fn place(&self, series: SeriesRef) -> Place {
        self.places[series as usize]
    }

    /// The places of consecutive series.
    #[inline]
    pub(crate) fn places_from(&self, first: SeriesRef, count: usize) -> &[Place] {
        &self.places[first as usize..first as usize + count]
    }

    pub(crate) fn set_group(&mut self, series: SeriesRef, group: u32, slot: u16) {
        debug_assert!(slot != u16::MAX);
        let place = &mut self.places[series as usize];
        (place.group, place.slot) = (group, slot);
    }

    /// What the series' target is known by, until it has a group.
    pub(crate) fn set_target(&mut self, series: SeriesRef, target: u32) {
        self.places[series as usize].group = target;
    }

    pub(crate) fn set_flags(&mut self, series: SeriesRef, flags: u16) {
        self.places[series as usize].flags |= flags;
    }

    pub(crate) fn clear_flags(&mut self, series: SeriesRef, flags: u16) {
        self.places[series as usize].flags &= !flags;
    }

    /// The `count` members of a group by slot; none has a lesser ref than `least`.
    pub(crate) fn members(&self, group: u32, least: SeriesRef, count: usize) -> Vec<SeriesRef> {
        let mut members = vec![SeriesRef::MAX; count];
        let mut missing = count;
        for (i, place) in self.places.iter().enumerate().skip(least as usize) {
            if let Some((g, slot)) = place.group()
                && g == group
            {
                members[slot as usize] = i as SeriesRef;
                missing -= 1;
                if missing == 0 {
                    break;
                }
            }
        }
        members
    }
}
