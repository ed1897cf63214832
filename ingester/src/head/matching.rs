//! Evaluates label matchers through postings.
//!
//! A matcher that does not match the empty value selects the union of the terms that match. One that does (`a=""`,
//! `a!="x"`, `a=~"x|"`) selects every series but those that have the label with a value that does not match.
//!
//! Matchers that name their values come first. What they leave may be so few series that looking at the labels of each costs
//! less than looking at every value of a label that a later matcher is about.

use roaring::RoaringBitmap;
use sextant_model::{LabelIter, Matcher};

use super::{
    postings::{Postings, TermId},
    series::{SeriesRef, SeriesTable},
};

/// Terms looked at in one go, so that a reader can let a writer in between.
const STEP: usize = 4096;

/// A matcher's terms, gathered step by step.
pub(crate) struct TermScan<'m> {
    matcher: &'m Matcher,
    /// The terms are those to take out.
    subtract: bool,
    terms: Vec<TermId>,
    next: usize,
}

impl<'m> TermScan<'m> {
    pub(crate) fn new(matcher: &'m Matcher) -> Self {
        Self { matcher, subtract: matcher.matches_empty(), terms: Vec::new(), next: 0 }
    }

    /// The values that the matcher names: of `=` and `=~` what to keep, of `!=` and `!~` what to take out.
    fn literals(&self) -> Option<Vec<&'m str>> {
        self.matcher.literals().filter(|_| self.matcher.is_negative() == self.subtract)
    }

    /// Whether the matcher is cheap and leaves few series.
    pub(crate) fn names_values(&self) -> bool {
        !self.subtract && self.literals().is_some()
    }

    /// Whether looking at each of so many series costs less than looking at the label's values.
    pub(crate) fn prefers_series(&self, postings: &Postings, series: u64) -> bool {
        self.literals().is_none() && series <= postings.terms(&self.matcher.name).len() as u64
    }

    /// Whether a series matches, by its labels.
    pub(crate) fn matches(&self, table: &SeriesTable, series: SeriesRef) -> bool {
        let mut labels = LabelIter::over(table.label_bytes(series));
        let value = labels.find(|(name, _)| *name == self.matcher.name).map_or("", |(_, value)| value);
        self.matcher.matches(value)
    }

    /// Goes on; whether it is done. A term that arrives after the first step may be missing, so the answer holds for series
    /// that were there before it.
    pub(crate) fn step(&mut self, postings: &Postings, table: &SeriesTable) -> bool {
        let m = self.matcher;
        if let Some(literals) = self.literals() {
            let found = literals.iter().filter(|l| !l.is_empty());
            self.terms = found.filter_map(|l| postings.find(table, &m.name, l)).collect();
            return true;
        }
        let all = postings.terms(&m.name);
        let end = (self.next + STEP).min(all.len());
        let hit = |&&t: &&TermId| m.matches(postings.value(table, t)) != self.subtract;
        self.terms.extend(all[self.next..end].iter().filter(hit));
        self.next = end;
        end == all.len()
    }

    fn series(&self, postings: &Postings) -> RoaringBitmap {
        let mut set = RoaringBitmap::new();
        self.terms.iter().for_each(|&t| postings.union_into(t, &mut set));
        set
    }
}

/// The series that all scans select, of `among` or else of the first `count`.
pub(crate) fn combine(
    scans: &[TermScan<'_>],
    among: Option<RoaringBitmap>,
    postings: &Postings,
    count: u32,
) -> RoaringBitmap {
    let mut result = among;
    let mut keep: Vec<_> = scans.iter().filter(|s| !s.subtract).collect();
    keep.sort_by_key(|s| s.terms.len());
    for scan in keep {
        match (&mut result, &scan.terms[..]) {
            (Some(r), [term]) => postings.intersect_into(*term, r),
            (Some(r), _) => *r &= scan.series(postings),
            (None, _) => result = Some(scan.series(postings)),
        }
        if result.as_ref().is_some_and(RoaringBitmap::is_empty) {
            return RoaringBitmap::new();
        }
    }
    let mut result = result.unwrap_or_else(|| {
        let mut all = RoaringBitmap::new();
        all.insert_range(0..count);
        all
    });
    for scan in scans.iter().filter(|s| s.subtract && !s.terms.is_empty()) {
        result -= scan.series(postings);
    }
    result.remove_range(count..);
    result
}
