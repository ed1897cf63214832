//! Label names and values of a block's series, each stored once.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};
use sextant_model::Labels;

/// Interned label names and values, and each series' labels as ids.
#[derive(Default)]
pub struct Terms {
    names: Strings,
    /// Values of each name; `ids` are local to the name.
    values: Vec<Strings>,
    /// For each name and value the series that have it, ascending.
    postings: Vec<Vec<Vec<u32>>>,
    /// (name, value) of all series' labels, in order of name.
    pairs: Vec<(u32, u32)>,
    /// Where each series' pairs end.
    ends: Vec<usize>,
}

impl Terms {
    /// Appends a series.
    pub fn push(&mut self, labels: &Labels) {
        let sid = self.ends.len() as u32;
        for (name, value) in labels {
            let n = self.names.intern(name);
            if n as usize == self.values.len() {
                self.values.push(Strings::default());
                self.postings.push(Vec::new());
            }
            let v = self.values[n as usize].intern(value);
            let lists = &mut self.postings[n as usize];
            if v as usize == lists.len() {
                lists.push(Vec::new());
            }
            lists[v as usize].push(sid);
            self.pairs.push((n, v));
        }
        self.ends.push(self.pairs.len());
    }

    /// How many series there are.
    pub fn series(&self) -> usize {
        self.ends.len()
    }

    /// Label names with their ids, in order of name.
    pub fn sorted_names(&self) -> Vec<(&str, u32)> {
        let mut names: Vec<_> = (0..self.values.len() as u32).map(|id| (self.names.get(id), id)).collect();
        names.sort_unstable();
        names
    }

    /// A name's values with the series that have them, in order of value.
    pub fn sorted_values(&self, name: u32) -> Vec<(&str, &[u32])> {
        let values = &self.values[name as usize];
        let lists = &self.postings[name as usize];
        let mut sorted: Vec<_> =
            lists.iter().enumerate().map(|(v, l)| (values.get(v as u32), l.as_slice())).collect();
        sorted.sort_unstable_by_key(|(v, _)| *v);
        sorted
    }

    /// How many series have a name.
    pub fn frequency(&self, name: u32) -> usize {
        self.postings[name as usize].iter().map(Vec::len).sum()
    }

    /// A series' labels as ids, in order of name.
    pub fn pairs(&self, sid: usize) -> &[(u32, u32)] {
        let from = if sid == 0 { 0 } else { self.ends[sid - 1] };
        &self.pairs[from..self.ends[sid]]
    }

    /// A name.
    pub fn name(&self, name: u32) -> &str {
        self.names.get(name)
    }

    /// A name's value.
    pub fn value(&self, name: u32, value: u32) -> &str {
        self.values[name as usize].get(value)
    }
}

/// Strings with consecutive ids.
#[derive(Default)]
pub struct Strings {
    text: String,
    ends: Vec<usize>,
    table: HashTable<u32>,
    hasher: DefaultHashBuilder,
    /// Neighbours in order of series often have the same value.
    last: u32,
}

impl Strings {
    /// The id of a string.
    pub fn intern(&mut self, s: &str) -> u32 {
        if !self.ends.is_empty() && text_of(&self.text, &self.ends, self.last) == s {
            return self.last;
        }
        let hash = self.hasher.hash_one(s);
        let (text, ends, hasher) = (&self.text, &self.ends, &self.hasher);
        let found = self.table.find(hash, |&id| text_of(text, ends, id) == s).copied();
        self.last = match found {
            Some(id) => id,
            None => {
                let id = self.ends.len() as u32;
                self.table.insert_unique(hash, id, |&id| hasher.hash_one(text_of(text, ends, id)));
                self.text.push_str(s);
                self.ends.push(self.text.len());
                id
            }
        };
        self.last
    }

    /// The string of an id.
    pub fn get(&self, id: u32) -> &str {
        text_of(&self.text, &self.ends, id)
    }
}

fn text_of<'a>(text: &'a str, ends: &[usize], id: u32) -> &'a str {
    let id = id as usize;
    let from = if id == 0 { 0 } else { ends[id - 1] };
    &text[from..ends[id]]
}
