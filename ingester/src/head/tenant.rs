//! One tenant's rows in one generation.
//!
//! Constraints: written by the shard's apply only, under the write lock, one batch at a time; readers take the read lock for a
//! few hundred series at a time. Nothing is removed before the generation is.

use std::ops::Range;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use parking_lot::RwLock;
use sextant_model::{Labels, MetadataTable, MetricMetadata, NO_START, TenantId};
use sextant_proto::RefusalKind;

use super::{
    append::Context,
    delete::Deletion,
    exemplars::Exemplars,
    group::{Erased, Group, Written},
    histograms::Histograms,
    order::Order,
    postings::Postings,
    series::{BESIDE, DELTA, HISTOGRAMS, STARTS, SeriesRef, SeriesTable},
    side::Side,
    starts::Starts,
};

type Map<K, V> = HashMap<K, V, RandomState>;

/// Groups remembered by the time they were born at, before the memory is cleared: a scrape of so many targets.
const BIRTHS_MAX: usize = 4096;

/// A tenant's rows, shared between the apply loop and readers.
pub struct TenantHead {
    id: TenantId,
    first: u64,
    pub(crate) rows: RwLock<Rows>,
    pub(crate) order: Order,
}

impl TenantHead {
    pub(crate) fn new(id: TenantId, first: u64) -> Self {
        Self { id, first, rows: RwLock::default(), order: Order::default() }
    }

    /// Whose rows.
    pub fn id(&self) -> &TenantId {
        &self.id
    }

    /// The position of the first entry with rows of the tenant.
    pub fn first(&self) -> u64 {
        self.first
    }
}

/// Values of consecutive series at one time.
pub(crate) struct FloatRun<'a> {
    /// The first series.
    pub(crate) first: SeriesRef,
    /// How the batch names it.
    pub(crate) named: u32,
    pub(crate) t: i64,
    pub(crate) bits: &'a [u64],
    /// Start timestamps, or nothing where no value of the run has a known one.
    pub(crate) starts: &'a [i64],
}

pub(crate) struct GroupEntry {
    pub(crate) group: Group,
    /// The least and the latest member.
    first: SeriesRef,
    last: SeriesRef,
    /// Members joined in order of ref.
    ordered: bool,
}

/// See the module's documentation.
pub(crate) struct Rows {
    pub(crate) table: SeriesTable,
    pub(crate) postings: Postings,
    pub(crate) groups: Vec<GroupEntry>,
    pub(crate) sides: Map<SeriesRef, Side>,
    pub(crate) histograms: Map<SeriesRef, Histograms>,
    pub(crate) exemplars: Map<SeriesRef, Exemplars>,
    pub(crate) metadata: MetadataTable,
    /// Index into `starts` by series, `u32::MAX` where it has none; as long as the last series that has one needs.
    starts_of: Vec<u32>,
    starts: Vec<Starts>,
    births: Map<(u32, i64), u32>,
    by_target: Map<u32, u32>,
    last_birth: Option<(u32, i64, u32)>,
    /// Samples of both kinds. One that replaces a sealed sample is counted again.
    pub(crate) samples: u64,
    pub(crate) t_min: i64,
    pub(crate) t_max: i64,
    pub(crate) memory: usize,
    /// Applied after the generation's seal.
    pub(crate) deletions: Vec<Deletion>,
}

impl Default for Rows {
    fn default() -> Self {
        Self {
            table: SeriesTable::default(),
            postings: Postings::default(),
            groups: Vec::new(),
            sides: Map::default(),
            histograms: Map::default(),
            exemplars: Map::default(),
            metadata: MetadataTable::default(),
            starts_of: Vec::new(),
            starts: Vec::new(),
            births: Map::default(),
            by_target: Map::default(),
            last_birth: None,
            samples: 0,
            t_min: i64::MAX,
            t_max: i64::MIN,
            memory: 4096,
            deletions: Vec::new(),
        }
    }
}

impl Rows {
    /// Adds a series. Its labels are checked and not there.
    pub(crate) fn add_series(&mut self, hash: u128, labels: &[u8], flags: u16) -> SeriesRef {
        let series = self.table.insert(hash, labels, flags, &mut self.memory);
        let (job, instance) = self.postings.add(&self.table, series, &mut self.memory);
        // Increments are kept apart, because their groups are written sample by sample.
        let target = match (job, instance) {
            (Some(j), Some(i)) => (j + 1).rotate_left(16) ^ i,
            _ => 0,
        };
        self.table.set_target(series, target ^ u32::from(flags & DELTA) << 31);
        series
    }

    /// A series is declared again: it may have become one of increments, or have ceased to be.
    pub(crate) fn declare(&mut self, series: SeriesRef, flags: u16) {
        let place = self.table.place(series);
        if place.has(DELTA) == (flags & DELTA != 0) {
            return;
        }
        self.table.clear_flags(series, DELTA);
        self.table.set_flags(series, flags & DELTA);
        if let Some((group, _)) = place.group() {
            self.groups[group as usize].group.special = true;
        }
    }

    pub(crate) fn saw(&mut self, t: i64) {
        self.t_min = self.t_min.min(t);
        self.t_max = self.t_max.max(t);
    }

    /// Writes values of consecutive series at one time. `starts` is empty where none of them has a known start.
    pub(crate) fn write_run(&mut self, run: &FloatRun<'_>, context: &mut Context<'_>) {
        let t = run.t;
        let mut done = 0;
        while done < run.bits.len() {
            let (group, slot, n) = self.stretch(run.first + done as u32, run.bits.len() - done, t);
            let values = &run.bits[done..done + n];
            let starts = run.starts.get(done..done + n).unwrap_or_default();
            let first = run.first + done as u32;
            let entry = &self.groups[group as usize].group;
            if entry.special {
                for (k, &bits) in values.iter().enumerate() {
                    let start = starts.get(k).copied().unwrap_or(NO_START);
                    self.write_one(first + k as u32, run.named + (done + k) as u32, t, bits, start, context);
                }
            } else {
                if entry.has_starts || !starts.is_empty() {
                    for k in 0..n {
                        self.set_start(first + k as u32, t, starts.get(k).copied().unwrap_or(NO_START));
                    }
                }
                self.write_values(group, slot, first, t, values);
            }
            self.seal_if_full(group);
            done += n;
        }
    }

    /// Writes the value of one series that has more than floats: it is an increment, or has histograms.
    fn write_one(
        &mut self,
        series: SeriesRef,
        named: u32,
        t: i64,
        mut bits: u64,
        mut start: i64,
        context: &mut Context<'_>,
    ) {
        let (group, slot, _) = self.stretch(series, 1, t);
        let place = self.table.place(series);
        if place.has(DELTA) {
            let id = self.table.id(series);
            let Some((total, since)) = context.add_float(id, t, f64::from_bits(bits), start) else {
                context.refuse(named, 1, RefusalKind::OutsideWindow);
                return;
            };
            (bits, start) = (total.to_bits(), since);
        }
        if place.has(HISTOGRAMS)
            && let Some(h) = self.histograms.get_mut(&series)
            && h.newest().is_some_and(|newest| newest >= t)
        {
            h.push(t, NO_START, None, &mut self.memory);
        }
        if place.has(STARTS) || start != NO_START {
            self.set_start(series, t, start);
        }
        self.write_values(group, slot, series, t, &[bits]);
    }

    fn write_values(&mut self, group: u32, slot: usize, first: SeriesRef, t: i64, values: &[u64]) {
        match self.groups[group as usize].group.write(slot, t, values, &mut self.memory) {
            Written::Rows(new) => self.samples += new as u64,
            Written::Late => {
                for (k, &bits) in values.iter().enumerate() {
                    self.write_beside(first + k as u32, t, Some(bits));
                }
                self.samples += values.len() as u64;
            }
        }
    }

    /// Writes a histogram; a float at its time gives way.
    pub(crate) fn write_histogram(&mut self, series: SeriesRef, t: i64, start: i64, encoded: &[u8]) {
        let place = self.table.place(series);
        if !place.has(HISTOGRAMS) {
            self.table.set_flags(series, HISTOGRAMS);
            self.memory += size_of::<Histograms>() + 16;
        }
        if let Some((group, slot)) = place.group() {
            let entry = &mut self.groups[group as usize].group;
            entry.special = true;
            let erased = entry.erase(slot as usize, t);
            let dissolved = entry.is_dissolved();
            match erased {
                Erased::Gone => self.samples -= 1,
                Erased::Nothing => {}
                Erased::Late => {
                    let beside = self.sides.get(&series).and_then(Side::newest);
                    if !dissolved || beside.is_some_and(|newest| newest >= t) {
                        self.write_beside(series, t, None);
                    }
                }
            }
        }
        let h = self.histograms.entry(series).or_default();
        self.samples += u64::from(h.push(t, start, Some(encoded), &mut self.memory));
    }

    pub(crate) fn add_exemplar(&mut self, series: SeriesRef, t: i64, v: f64, labels: &[u8]) {
        let memory = &mut self.memory;
        let exemplars = self.exemplars.entry(series).or_insert_with(|| {
            *memory += size_of::<Exemplars>() + 16;
            Exemplars::default()
        });
        exemplars.push(t, v, labels, memory);
    }

    pub(crate) fn add_metadata(&mut self, family: &str, m: &MetricMetadata) {
        let before = self.metadata.memory();
        self.metadata.add(family, m);
        self.memory = (self.memory + self.metadata.memory()).saturating_sub(before);
    }

    /// Group, slot and number of consecutive series, from `series` on, that have consecutive slots of one group.
    ///
    /// Members keep their slots. Where they joined in order of ref and the last of n refs has the slot n − 1 places on in the
    /// same group, the refs between have the slots between. (A series joins with its first float, and one that had only
    /// histograms before may join late.)
    #[inline]
    fn stretch(&mut self, series: SeriesRef, max: usize, t: i64) -> (u32, usize, usize) {
        let (group, slot) = match self.table.place(series).group() {
            Some(place) => place,
            None => self.give_places(series, max, t),
        };
        let entry = &self.groups[group as usize];
        let n = max.min(entry.group.len() - slot as usize);
        let places = self.table.places_from(series, n);
        let follows = |k: usize| places[k].group() == Some((group, slot + k as u16));
        let n =
            if entry.ordered && follows(n - 1) { n } else { (1..n).take_while(|&k| follows(k)).count() + 1 };
        (group, slot as usize, n)
    }

    /// Gives a series, and those after it that have none either, a place in a group; returns the place of the first.
    #[cold]
    fn give_places(&mut self, first: SeriesRef, max: usize, t: i64) -> (u32, u16) {
        let mut place = None;
        for series in first..first + max as u32 {
            let p = self.table.place(series);
            if p.group().is_some() {
                break;
            }
            let group = self.group_for(p.target(), t, series);
            let entry = &mut self.groups[group as usize];
            entry.ordered &= entry.last <= series;
            (entry.first, entry.last) = (entry.first.min(series), series);
            let entry = &mut entry.group;
            let slot = entry.join();
            entry.special |= p.has(DELTA | HISTOGRAMS);
            entry.has_starts |= p.has(STARTS);
            self.memory += 1;
            self.table.set_group(series, group, slot);
            place = place.or(Some((group, slot)));
        }
        place.unwrap_or_default()
    }

    /// The neighbour's group, the one born at the same time for the target, or the target's latest if it has a row at `t`.
    fn group_for(&mut self, target: u32, t: i64, series: SeriesRef) -> u32 {
        let takes = |g: &u32| self.groups[*g as usize].group.takes(t);
        let neighbour = self.last_birth.filter(|b| (b.0, b.1) == (target, t)).map(|b| b.2);
        let found = neighbour
            .filter(takes)
            .or_else(|| self.births.get(&(target, t)).copied().filter(takes))
            .or_else(|| self.by_target.get(&target).copied().filter(takes));
        let group = found.unwrap_or_else(|| {
            let group = self.groups.len() as u32;
            let capacity = self.groups.capacity();
            self.groups.push(GroupEntry {
                group: Group::default(),
                first: series,
                last: series,
                ordered: true,
            });
            self.memory += (self.groups.capacity() - capacity) * size_of::<GroupEntry>() + 64;
            if self.births.len() >= BIRTHS_MAX {
                self.births.clear();
            }
            self.births.insert((target, t), group);
            self.by_target.insert(target, group);
            group
        });
        self.last_birth = Some((target, t, group));
        group
    }

    fn write_beside(&mut self, series: SeriesRef, t: i64, bits: Option<u64>) {
        if !self.table.place(series).has(BESIDE) {
            self.table.set_flags(series, BESIDE);
            self.memory += size_of::<Side>() + 16;
        }
        self.sides.entry(series).or_default().push(t, bits, &mut self.memory);
    }

    fn seal_if_full(&mut self, group: u32) {
        let entry = &mut self.groups[group as usize];
        if !entry.group.is_full() {
            return;
        }
        let mut beside = Vec::new();
        entry.group.seal(&mut self.memory, |slot, t, bits| beside.push((slot, t, bits)));
        if beside.is_empty() {
            return;
        }
        let members = self.table.members(group, entry.first, entry.group.len());
        for (slot, t, bits) in beside {
            if let Some(&series) = members.get(slot) {
                self.write_beside(series, t, Some(bits));
            }
        }
    }

    fn set_start(&mut self, series: SeriesRef, t: i64, start: i64) {
        let i = series as usize;
        if start == NO_START && !self.table.place(series).has(STARTS) {
            return;
        }
        if self.starts_of.len() <= i {
            let capacity = self.starts_of.capacity();
            self.starts_of.resize(i + 1, u32::MAX);
            self.memory += (self.starts_of.capacity() - capacity) * 4;
        }
        if self.starts_of[i] == u32::MAX {
            // Samples that are there already have no known start. Which times they are at is not looked up; the
            // tenant's newest time is a bound.
            let unknown_until = (self.samples > 0).then_some(self.t_max);
            self.starts_of[i] = self.starts.len() as u32;
            self.starts.push(Starts::new(unknown_until.filter(|_| self.has_floats(series)), t, start));
            self.memory += size_of::<Starts>() + 8;
            self.table.set_flags(series, STARTS);
            if let Some((group, _)) = self.table.place(series).group() {
                self.groups[group as usize].group.has_starts = true;
            }
            return;
        }
        let starts = &mut self.starts[self.starts_of[i] as usize];
        let before = starts.memory();
        starts.set(t, start);
        self.memory += starts.memory().saturating_sub(before);
    }

    /// Whether a series may have floats already.
    fn has_floats(&self, series: SeriesRef) -> bool {
        let place = self.table.place(series);
        place.has(BESIDE)
            || place.group().is_some_and(|(g, slot)| {
                let g = &self.groups[g as usize].group;
                !g.sealed().is_empty() || g.open_mask(slot as usize).any(|has| has)
            })
    }

    pub(crate) fn starts(&self, series: SeriesRef) -> Option<&Starts> {
        let i = *self.starts_of.get(series as usize)?;
        self.starts.get(i as usize)
    }

    /// A series' labels, as a copy.
    pub(crate) fn labels(&self, series: SeriesRef) -> Labels {
        self.table.labels(series)
    }

    /// All refs.
    pub(crate) fn refs(&self) -> Range<SeriesRef> {
        0..self.table.len() as SeriesRef
    }
}
