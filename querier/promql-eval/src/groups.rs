//! Which series go together: the groups of aggregations. Worked out once per series, never per step.

use std::collections::HashMap;

use sextant_model::{Labels, METRIC_NAME};

use crate::{context::EvalContext, error::EvalError};

/// Work for a label set whose group is looked up.
const UNITS_PER_LABELS: usize = 32;

/// The labels of `by` or `without`.
#[derive(Clone, Debug, PartialEq)]
pub struct Grouping {
    labels: Vec<String>,
    without: bool,
}

impl Grouping {
    /// `by (labels)`, or `without (labels)`.
    pub fn new(labels: &[String], without: bool) -> Self {
        let mut labels = labels.to_vec();
        labels.sort();
        labels.dedup();
        Self { labels, without }
    }

    /// As `by`, with one more label; `without` stays as it is.
    pub fn with_label(&self, label: &str) -> Self {
        if self.without {
            return self.clone();
        }
        let mut labels = self.labels.clone();
        labels.push(label.to_owned());
        Self::new(&labels, false)
    }

    /// The labels of the group that a series belongs to.
    pub fn labels_of(&self, labels: &Labels) -> Labels {
        if !self.without && self.labels.is_empty() {
            return Labels::empty();
        }
        labels.filter(|n| self.keeps(n))
    }

    fn keeps(&self, name: &str) -> bool {
        let listed = self.labels.binary_search_by(|l| l.as_str().cmp(name)).is_ok();
        if self.without { !listed && name != METRIC_NAME } else { listed }
    }

    /// Writes what tells the series' group from others: its kept labels.
    fn key(&self, labels: &Labels, key: &mut Vec<u8>) {
        key.clear();
        if !self.without && self.labels.is_empty() {
            return;
        }
        write_key(labels.iter().filter(|(n, _)| self.keeps(n)), key);
    }

    /// As in a query: `by (a, b)`; empty for everything in one group.
    pub fn describe(&self) -> String {
        match (self.without, self.labels.is_empty()) {
            (false, true) => String::new(),
            (false, false) => format!(" by ({})", self.labels.join(", ")),
            (true, _) => format!(" without ({})", self.labels.join(", ")),
        }
    }
}

/// A byte that no UTF-8 text has stands between the texts.
fn write_key<'a>(labels: impl Iterator<Item = (&'a str, &'a str)>, key: &mut Vec<u8>) {
    for (n, v) in labels {
        key.extend_from_slice(n.as_bytes());
        key.push(0xff);
        key.extend_from_slice(v.as_bytes());
        key.push(0xff);
    }
}

/// Numbers the groups of series in the order in which they first occur.
#[derive(Clone, Debug, Default)]
pub struct GroupIndex {
    ids: HashMap<Vec<u8>, usize>,
    key: Vec<u8>,
    /// The labels of each group.
    pub labels: Vec<Labels>,
}

impl GroupIndex {
    /// The number of a series' group.
    pub fn of(&mut self, grouping: &Grouping, labels: &Labels) -> usize {
        grouping.key(labels, &mut self.key);
        if let Some(&id) = self.ids.get(self.key.as_slice()) {
            return id;
        }
        let id = self.labels.len();
        self.labels.push(grouping.labels_of(labels));
        self.ids.insert(self.key.clone(), id);
        id
    }

    /// The rows of each group.
    pub fn rows(
        &mut self,
        grouping: &Grouping,
        labels: &[Labels],
        ctx: &EvalContext,
    ) -> Result<Vec<Vec<usize>>, EvalError> {
        let pace = ctx.cancel.pace();
        let mut rows: Vec<Vec<usize>> = Vec::new();
        for (i, labels) in labels.iter().enumerate() {
            pace.spend(UNITS_PER_LABELS)?;
            let group = self.of(grouping, labels);
            if group == rows.len() {
                rows.push(Vec::new());
            }
            rows[group].push(i);
        }
        Ok(rows)
    }

    /// The number of the group that has these labels: [`GroupIndex::of`] for labels that are a group's own.
    pub fn by_labels(&mut self, labels: &Labels) -> usize {
        self.key.clear();
        write_key(labels.iter(), &mut self.key);
        if let Some(&id) = self.ids.get(self.key.as_slice()) {
            return id;
        }
        let id = self.labels.len();
        self.labels.push(labels.clone());
        self.ids.insert(self.key.clone(), id);
        id
    }

    /// How many groups there are.
    pub fn len(&self) -> usize {
        self.labels.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_and_without() {
        let l = Labels::from_pairs([("__name__", "m"), ("a", "1"), ("b", "2")]).unwrap();
        let names = |n: &[&str]| n.iter().map(|s| s.to_string()).collect::<Vec<_>>();
        assert_eq!(Grouping::new(&names(&["b", "x"]), false).labels_of(&l).to_string(), r#"{b="2"}"#);
        assert_eq!(Grouping::new(&names(&["b"]), true).labels_of(&l).to_string(), r#"{a="1"}"#);
        let mut index = GroupIndex::default();
        let all = Grouping::new(&[], false);
        assert_eq!((index.of(&all, &l), index.of(&all, &Labels::empty()), index.len()), (0, 0, 1));
    }
}
