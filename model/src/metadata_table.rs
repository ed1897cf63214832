//! What targets say of metric families.

use std::collections::BTreeMap;

use crate::MetricMetadata;

/// Descriptions kept of one metric family; beyond it the oldest is dropped.
pub const DESCRIPTIONS_MAX: usize = 10;

/// Bytes of one description beside its texts.
const ENTRY: usize = size_of::<MetricMetadata>() + 64;

/// Descriptions of metric families: all distinct ones of a family, as targets may disagree, newest first, at most
/// [`DESCRIPTIONS_MAX`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetadataTable {
    families: BTreeMap<Box<str>, Vec<MetricMetadata>>,
    memory: usize,
}

impl MetadataTable {
    /// Adds a description that is newer than all others of the family; one that is known becomes the newest.
    pub fn add(&mut self, family: &str, m: &MetricMetadata) {
        let Some(known) = self.families.get_mut(family) else {
            return self.add_older(family, m);
        };
        if let Some(at) = known.iter().position(|k| k == m) {
            return known[..=at].rotate_right(1);
        }
        if known.len() >= DESCRIPTIONS_MAX
            && let Some(oldest) = known.pop()
        {
            self.memory = self.memory.saturating_sub(bytes(family, &oldest));
        }
        known.insert(0, m.clone());
        self.memory += bytes(family, m);
    }

    /// Adds a description that is older than all others of the family, unless it is known or there are enough.
    pub fn add_older(&mut self, family: &str, m: &MetricMetadata) {
        let known = match self.families.get_mut(family) {
            Some(known) => known,
            None => self.families.entry(family.into()).or_default(),
        };
        if known.len() < DESCRIPTIONS_MAX && !known.contains(m) {
            known.push(m.clone());
            self.memory += bytes(family, m);
        }
    }

    /// The newest description of a family.
    pub fn get(&self, family: &str) -> Option<&MetricMetadata> {
        self.families.get(family)?.first()
    }

    /// All families with their descriptions: in order of name, newest first.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &MetricMetadata)> {
        self.families.iter().flat_map(|(n, all)| all.iter().map(move |m| (n.as_ref(), m)))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.families.is_empty()
    }

    /// About how many bytes it takes.
    pub fn memory(&self) -> usize {
        self.memory
    }
}

fn bytes(family: &str, m: &MetricMetadata) -> usize {
    ENTRY + family.len() + m.help.len() + m.unit.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn help(i: usize) -> MetricMetadata {
        MetricMetadata { help: format!("h{i:02}"), ..MetricMetadata::default() }
    }

    fn helps(table: &MetadataTable) -> Vec<String> {
        table.iter().map(|(n, m)| format!("{n} {}", m.help)).collect()
    }

    #[test]
    fn distinct_descriptions_stand_newest_first() {
        let mut table = MetadataTable::default();
        assert!(table.is_empty() && table.get("b").is_none());
        for (family, i) in [("b", 1), ("a", 1), ("b", 2), ("b", 3), ("b", 2), ("b", 2)] {
            table.add(family, &help(i));
        }
        assert_eq!(helps(&table), ["a h01", "b h02", "b h03", "b h01"]);
        assert_eq!(table.get("b"), Some(&help(2)));
        table.add_older("b", &help(3));
        table.add_older("b", &help(4));
        table.add_older("c", &help(5));
        assert_eq!(helps(&table), ["a h01", "b h02", "b h03", "b h01", "b h04", "c h05"]);
        // Types and units tell descriptions apart, too.
        table.add("c", &MetricMetadata { unit: "s".into(), ..help(5) });
        assert_eq!(table.iter().filter(|(n, _)| *n == "c").count(), 2);
    }

    #[test]
    fn the_oldest_goes_where_there_are_too_many() {
        let mut table = MetadataTable::default();
        (0..DESCRIPTIONS_MAX).for_each(|i| table.add("a", &help(i)));
        let memory = table.memory();
        for i in 0..3 * DESCRIPTIONS_MAX {
            table.add("a", &help(i));
        }
        assert_eq!(table.memory(), memory);
        let kept: Vec<_> = table.iter().map(|(_, m)| m.clone()).collect();
        assert_eq!(kept, (2 * DESCRIPTIONS_MAX..3 * DESCRIPTIONS_MAX).rev().map(help).collect::<Vec<_>>());
        table.add_older("a", &help(99));
        assert_eq!((table.get("a"), table.iter().count()), (Some(&help(29)), DESCRIPTIONS_MAX));
    }
}
