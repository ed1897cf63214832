//! Matchers to series: by the sidecar where there is one, else by the label columns.

use roaring::RoaringBitmap;
use sextant_model::Matcher;

use super::{
    fetch::Objects,
    index::{IndexFooter, LabelEntry, ListRef, Section, decode_posting},
    opened::{Opened, group_starts},
    series_group::SeriesGroup,
    stats::ReadStats,
    tables::names,
};
use crate::Result;

/// Answers matchers on one block.
pub struct Postings<'a> {
    pub objects: &'a Objects,
    pub opened: &'a Opened,
    pub stats: &'a ReadStats,
    pub fill_cache: bool,
}

impl Postings<'_> {
    /// The series that all matchers accept.
    pub async fn select(&self, matchers: &[Matcher]) -> Result<RoaringBitmap> {
        match &self.opened.index {
            Some(index) => self.by_index(index, matchers).await,
            None => self.by_columns(matchers).await,
        }
    }

    async fn by_index(&self, index: &IndexFooter, matchers: &[Matcher]) -> Result<RoaringBitmap> {
        let all = || (0..index.series).collect::<RoaringBitmap>();
        let mut found: Option<RoaringBitmap> = None;
        // What narrows comes first, the exact ones before the expressions.
        let mut ordered: Vec<&Matcher> = matchers.iter().collect();
        ordered.sort_by_key(|m| (m.matches_empty(), m.literals().is_none()));
        for m in ordered {
            if found.as_ref().is_some_and(RoaringBitmap::is_empty) {
                break;
            }
            let label = index.label(&m.name);
            found = Some(match (label, m.matches_empty()) {
                (None, true) => found.unwrap_or_else(all),
                (None, false) => RoaringBitmap::new(),
                (Some(label), false) => {
                    let with = self.values(index, label, m, true).await?;
                    match found {
                        Some(f) => f & with,
                        None => with,
                    }
                }
                (Some(label), true) => {
                    found.unwrap_or_else(all) - self.values(index, label, m, false).await?
                }
            });
        }
        Ok(found.unwrap_or_else(all))
    }

    /// The series that have the label and whose value the matcher accepts (or not, as `wanted` says).
    async fn values(
        &self,
        index: &IndexFooter,
        label: &LabelEntry,
        m: &Matcher,
        wanted: bool,
    ) -> Result<RoaringBitmap> {
        // `!=""` and `=~".+"` need no values.
        if m.literals().is_some_and(|l| l == [""]) && m.is_negative() == wanted {
            return self.lists(index, &[label.all]).await;
        }
        let section = self.section(label).await?;
        let damaged = || self.objects.nonsense(names::INDEX, format!("values of label {:?}", label.name));
        let mut lists = Vec::new();
        match m.literals() {
            // The literals are what a positive matcher accepts and what a negative one does not.
            Some(literals) if m.is_negative() != wanted => {
                let mut literals: Vec<&str> = literals.into_iter().filter(|l| !l.is_empty()).collect();
                literals.sort_unstable();
                literals.dedup();
                for l in literals {
                    lists.extend(section.find(l).ok_or_else(damaged)?);
                }
            }
            _ => {
                section
                    .for_each(|value, list| {
                        if m.matches(value) == wanted {
                            lists.push(list);
                        }
                    })
                    .ok_or_else(damaged)?;
                if lists.len() as u64 == label.values {
                    lists = vec![label.all];
                }
            }
        }
        self.lists(index, &lists).await
    }

    /// The value section of a label.
    pub async fn section(&self, label: &LabelEntry) -> Result<Section> {
        let range = label.offset..label.offset + label.len;
        let sums = &self.opened.sums;
        let bytes = self.objects.range(names::INDEX, sums, range, self.fill_cache, self.stats).await?;
        Section::new(label, bytes)
            .ok_or_else(|| self.objects.nonsense(names::INDEX, format!("values of label {:?}", label.name)))
    }

    /// The union of lists.
    pub async fn lists(&self, index: &IndexFooter, lists: &[ListRef]) -> Result<RoaringBitmap> {
        let mut union = RoaringBitmap::new();
        let mut ranges = Vec::new();
        for list in lists {
            match *list {
                ListRef::One(s) => drop(union.insert(s)),
                ListRef::At(at, len) => ranges.push(at..at.saturating_add(u64::from(len))),
            }
        }
        if ranges.is_empty() {
            return Ok(union);
        }
        let read = self
            .objects
            .ranges(names::INDEX, &self.opened.sums, &ranges, self.fill_cache, self.stats)
            .await?;
        for r in ranges {
            let bitmap = read.get(r).and_then(|b| decode_posting(&b, index.series));
            union |= bitmap.ok_or_else(|| self.objects.nonsense(names::INDEX, "a posting"))?;
        }
        Ok(union)
    }

    async fn by_columns(&self, matchers: &[Matcher]) -> Result<RoaringBitmap> {
        let mut found = RoaringBitmap::new();
        for (group, start) in group_starts(&self.opened.series).iter().enumerate() {
            if group == self.opened.series.num_row_groups() {
                break;
            }
            let rows = SeriesGroup::load(self.objects, self.opened, group, self.stats).await?;
            let mut keep = vec![true; rows.len()];
            for m in matchers {
                let verdicts = rows.matching(m);
                keep.iter_mut().zip(verdicts).for_each(|(k, v)| *k &= v);
            }
            found.extend(
                keep.iter().enumerate().filter(|(_, k)| **k).map(|(row, _)| (*start as usize + row) as u32),
            );
        }
        Ok(found)
    }
}
