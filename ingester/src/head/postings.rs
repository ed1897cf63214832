//! Which series have a label: term (name and value) → series refs.
//!
//! A term is found by its bytes in the canonical encoding, which lie in the label arena, in the first series that had it.
//! Series come in order of ref, and the series of one target one after the other; so most terms are one run of refs and
//! take no memory beyond their entry. Others are a list, and beyond [`LIST_MAX`] a roaring bitmap.

use std::{hash::BuildHasher, ops::Range};

use foldhash::fast::RandomState;
use hashbrown::{HashMap, HashTable};
use roaring::RoaringBitmap;

use super::series::{SeriesRef, SeriesTable, Span};

/// A list of this many refs takes as much as the bitmap that replaces it.
const LIST_MAX: usize = 64;

/// A term's number.
pub(crate) type TermId = u32;

enum Refs {
    Run(Range<SeriesRef>),
    List(Vec<SeriesRef>),
    Bitmap(Box<RoaringBitmap>),
}

struct Term {
    /// Name and value, each with its length, as in the label bytes.
    span: Span,
    refs: Refs,
    role: Role,
}

/// Labels that together tell a series' target.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    None,
    Job,
    Instance,
}

/// See the module's documentation.
#[derive(Default)]
pub(crate) struct Postings {
    terms: Vec<Term>,
    by_bytes: HashTable<TermId>,
    names: HashMap<Box<str>, Vec<TermId>, RandomState>,
    /// Seeded by chance, so that nobody can choose values that collide; order and numbers do not depend on it.
    hasher: RandomState,
    /// The labels of the series added last: its neighbour shares most of them, at the same position.
    last: Vec<(Range<usize>, TermId)>,
    last_series: Option<SeriesRef>,
    scratch: Vec<(Range<usize>, TermId)>,
}

/// Reads a length at `at`; the bytes are canonical, so it is there.
fn text_end(bytes: &[u8], mut at: usize) -> usize {
    let (mut n, mut shift) = (0usize, 0);
    while let Some(&b) = bytes.get(at) {
        at += 1;
        n |= ((b & 0x7f) as usize) << shift;
        if b < 0x80 {
            break;
        }
        shift += 7;
    }
    at + n
}

impl Postings {
    /// Adds a series, whose ref is larger than every one before. Returns its terms for `job` and `instance`.
    pub(crate) fn add(
        &mut self,
        table: &SeriesTable,
        series: SeriesRef,
        memory: &mut usize,
    ) -> (Option<TermId>, Option<TermId>) {
        let mut target = (None, None);
        let labels = table.label_bytes(series);
        let before = self.last_series.map_or(&[][..], |s| table.label_bytes(s));
        let mut now = std::mem::take(&mut self.scratch);
        now.clear();
        let mut at = 0;
        while at < labels.len() {
            let end = text_end(labels, text_end(labels, at)).min(labels.len());
            let bytes = &labels[at..end];
            let same = self.last.get(now.len()).filter(|(r, _)| before[r.clone()] == *bytes);
            let term = match same {
                Some((_, term)) => *term,
                None => self.term(table, bytes, table.span(series, at..end), memory),
            };
            let t = &mut self.terms[term as usize];
            t.refs.push(series, memory);
            match t.role {
                Role::None => {}
                Role::Job => target.0 = Some(term),
                Role::Instance => target.1 = Some(term),
            }
            now.push((at..end, term));
            at = end;
        }
        self.scratch = std::mem::replace(&mut self.last, now);
        self.last_series = Some(series);
        target
    }

    fn term(&mut self, table: &SeriesTable, bytes: &[u8], span: Span, memory: &mut usize) -> TermId {
        let key = self.hasher.hash_one(bytes);
        let terms = &self.terms;
        if let Some(&id) = self.by_bytes.find(key, |&id| table.bytes(terms[id as usize].span) == bytes) {
            return id;
        }
        let id = self.terms.len() as TermId;
        let before = self.tables_memory();
        let name = split(bytes).0;
        let role = match name {
            "job" => Role::Job,
            "instance" => Role::Instance,
            _ => Role::None,
        };
        self.terms.push(Term { span, refs: Refs::Run(0..0), role });
        let (terms, hasher) = (&self.terms, &self.hasher);
        let rehash = |&id: &TermId| hasher.hash_one(table.bytes(terms[id as usize].span));
        self.by_bytes.insert_unique(key, id, rehash);
        *memory += self.tables_memory() - before;
        match self.names.get_mut(name) {
            Some(ids) => {
                let capacity = ids.capacity();
                ids.push(id);
                *memory += (ids.capacity() - capacity) * 4;
            }
            None => {
                *memory += name.len() + 64;
                self.names.insert(name.into(), vec![id]);
            }
        }
        id
    }

    fn tables_memory(&self) -> usize {
        self.terms.capacity() * size_of::<Term>() + self.by_bytes.allocation_size()
    }

    /// The label names in use.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.names.keys().map(AsRef::as_ref)
    }

    /// The terms of a name, in order of arrival.
    pub(crate) fn terms(&self, name: &str) -> &[TermId] {
        self.names.get(name).map_or(&[], Vec::as_slice)
    }

    /// A term's value.
    pub(crate) fn value<'a>(&self, table: &'a SeriesTable, term: TermId) -> &'a str {
        split(table.bytes(self.terms[term as usize].span)).1
    }

    /// The term of a name and value.
    pub(crate) fn find(&self, table: &SeriesTable, name: &str, value: &str) -> Option<TermId> {
        let mut bytes = Vec::with_capacity(name.len() + value.len() + 4);
        for text in [name, value] {
            super::bits::put_varint(&mut bytes, text.len() as u64);
            bytes.extend_from_slice(text.as_bytes());
        }
        let same = |&id: &TermId| table.bytes(self.terms[id as usize].span) == bytes;
        self.by_bytes.find(self.hasher.hash_one(&bytes[..]), same).copied()
    }

    /// Adds a term's series to a set.
    pub(crate) fn union_into(&self, term: TermId, set: &mut RoaringBitmap) {
        match &self.terms[term as usize].refs {
            Refs::Run(r) => {
                set.insert_range(r.clone());
            }
            Refs::List(l) => set.extend(l.iter().copied()),
            Refs::Bitmap(b) => *set |= &**b,
        }
    }

    /// Leaves a term's series of a set.
    pub(crate) fn intersect_into(&self, term: TermId, set: &mut RoaringBitmap) {
        match &self.terms[term as usize].refs {
            Refs::Run(r) => {
                set.remove_range(..r.start);
                set.remove_range(r.end..);
            }
            Refs::List(l) => *set = l.iter().copied().filter(|&r| set.contains(r)).collect(),
            Refs::Bitmap(b) => *set &= &**b,
        }
    }

    /// Whether one of a term's series is in a set.
    pub(crate) fn intersects(&self, term: TermId, set: &RoaringBitmap) -> bool {
        match &self.terms[term as usize].refs {
            Refs::Run(r) => set.range_cardinality(r.clone()) > 0,
            Refs::List(l) => l.iter().any(|&r| set.contains(r)),
            Refs::Bitmap(b) => !b.is_disjoint(set),
        }
    }
}

/// Name and value of a term's bytes.
fn split(bytes: &[u8]) -> (&str, &str) {
    split_checked(bytes).unwrap_or(("", ""))
}

fn split_checked(bytes: &[u8]) -> Option<(&str, &str)> {
    let name_end = text_end(bytes, 0);
    let len_of = |at: usize| (at..bytes.len()).take_while(|&i| bytes[i] >= 0x80).count() + 1;
    let name = bytes.get(len_of(0)..name_end)?;
    let value = bytes.get(name_end + len_of(name_end)..)?;
    Some((std::str::from_utf8(name).ok()?, std::str::from_utf8(value).ok()?))
}

impl Refs {
    fn push(&mut self, series: SeriesRef, memory: &mut usize) {
        match self {
            Self::Run(r) if r.start == r.end => *r = series..series + 1,
            Self::Run(r) if r.end == series => r.end += 1,
            Self::Run(r) => {
                if r.len() < LIST_MAX {
                    let list: Vec<_> = r.clone().chain([series]).collect();
                    *memory += list.capacity() * 4 + 16;
                    *self = Self::List(list);
                } else {
                    let mut set = RoaringBitmap::new();
                    set.insert_range(r.clone());
                    set.insert(series);
                    *self = Self::bitmap(set, memory);
                }
            }
            Self::List(l) if l.len() < LIST_MAX => {
                let capacity = l.capacity();
                l.push(series);
                *memory += (l.capacity() - capacity) * 4;
            }
            Self::List(l) => {
                l.push(series);
                let set = l.iter().copied().collect();
                *memory -= l.capacity() * 4;
                *self = Self::bitmap(set, memory);
            }
            Self::Bitmap(b) => {
                // Refs only grow, so this appends.
                if b.try_push(series).is_ok() {
                    *memory += 2;
                }
            }
        }
    }

    /// Containers of a bitmap cost more than their contents; later pushes are counted at two bytes each.
    fn bitmap(set: RoaringBitmap, memory: &mut usize) -> Self {
        *memory += size_of::<RoaringBitmap>() + set.serialized_size() + 64;
        Self::Bitmap(Box::new(set))
    }
}
