//! Evaluates label matchers through postings.
//!
//! A matcher that does not match the empty value selects the union of the terms that match. One that does (`a=""`,
//! `a!="x"`, `a=~"x|"`) selects every series but those that have the label with a value that does not match.

use roaring::RoaringBitmap;
use sextant_model::Matcher;

use super::{
    postings::{Postings, TermId},
    series::SeriesTable,
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

    /// Goes on; whether it is done. A term that arrives after the first step may be missing, so the answer holds for series
    /// that were there before it.
    pub(crate) fn step(&mut self, postings: &Postings, table: &SeriesTable) -> bool {
        let m = self.matcher;
        // The literals of `=` and `=~` name what to keep, those of `!=` and `!~` what to take out.
        if let Some(literals) = m.literals()
            && m.is_negative() == self.subtract
        {
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

/// The series among the first `count` that all scans select.
pub(crate) fn combine(scans: &[TermScan<'_>], postings: &Postings, count: u32) -> RoaringBitmap {
    let mut result: Option<RoaringBitmap> = None;
    let mut keep: Vec<_> = scans.iter().filter(|s| !s.subtract).collect();
    keep.sort_by_key(|s| s.terms.len());
    for scan in keep {
        let set = scan.series(postings);
        match &mut result {
            Some(r) => *r &= set,
            None => result = Some(set),
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
