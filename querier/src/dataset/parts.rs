//! A selection that is read part by part, so that a query holds the samples of a few parts and not of all its series.
//!
//! A part is an interval in the order of labels: in every source its series are consecutive. So parts are independent, can
//! be read at the same time, and behind each other give the order of labels.

use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use sextant_model::{Labels, SeriesSet};
use sextant_proto::{HeadSelection, SelectLimits};
use sextant_storage::{BlockSelection, ReadStats, merge_series_sets};

use crate::error::QueryError;

/// Where a selection's series come from: found, but not read.
pub(super) enum Source {
    /// A head's, newer than all blocks; of two the later one.
    Head(Arc<dyn HeadSelection>),
    /// A block's.
    Block(Box<BlockSelection>),
}

impl Source {
    fn len(&self) -> usize {
        match self {
            Self::Head(head) => head.labels().len(),
            Self::Block(block) => block.len(),
        }
    }

    fn labels(&self, i: usize) -> &Labels {
        match self {
            Self::Head(head) => &head.labels()[i],
            Self::Block(block) => block.labels(i),
        }
    }

    fn estimate(&self, i: usize) -> usize {
        match self {
            Self::Head(head) => head.estimate(i),
            Self::Block(block) => block.estimate(i),
        }
    }

    fn priority(&self) -> u64 {
        match self {
            Self::Head(_) => u64::MAX,
            Self::Block(block) => block.priority(),
        }
    }

    async fn read(&self, series: Range<usize>, stats: &ReadStats) -> Result<SeriesSet, QueryError> {
        Ok(match self {
            Self::Head(head) => head.read(series).await?,
            Self::Block(block) => block.read(series, stats).await?,
        })
    }

    /// The first series at or after `labels`, from `from` on.
    fn find(&self, from: usize, labels: &Labels) -> usize {
        let (mut low, mut high) = (from, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.labels(middle) < labels { low = middle + 1 } else { high = middle }
        }
        low
    }
}

/// The series that begin a part if each has about `target` samples.
fn cuts(estimates: &[usize], target: usize) -> Vec<usize> {
    let mut cuts = Vec::new();
    let mut samples = 0;
    for (i, estimate) in estimates.iter().enumerate() {
        if samples >= target {
            cuts.push(i);
            samples = 0;
        }
        samples += estimate;
    }
    cuts
}

/// A selection of less than a part's share this large for each part is one part: a core reads it in less time than it takes to
/// wake another.
const SPLIT_SHARE_MIN: usize = 16;

/// The parts of a selection.
pub struct SelectParts {
    sources: Vec<Source>,
    /// Per part, for each source its range of series.
    parts: Vec<Vec<Range<usize>>>,
    stats: Arc<ReadStats>,
    limits: SelectLimits,
    samples: AtomicUsize,
}

impl SelectParts {
    /// Cuts a selection into parts of about `target` samples, into at least `least` where there are as many series and it is
    /// not small.
    pub(super) fn new(
        mut sources: Vec<Source>,
        target: usize,
        least: usize,
        stats: Arc<ReadStats>,
        limits: SelectLimits,
    ) -> Result<Self, QueryError> {
        sources.retain(|s| s.len() > 0);
        if sources.iter().map(Source::len).max().unwrap_or(0) > limits.series_max {
            return Err(QueryError::limit("series", "max_query_series", limits.series_max));
        }
        let estimates: Vec<Vec<usize>> =
            sources.iter().map(|s| (0..s.len()).map(|i| s.estimate(i)).collect()).collect();
        let all: usize = estimates.iter().flatten().sum();
        let least = if all / least.max(1) < target / SPLIT_SHARE_MIN { 1 } else { least.max(1) };
        let target = target.min(all / least).max(1);
        let parts = match &sources[..] {
            [one] => {
                let cuts = cuts(&estimates[0], target);
                let starts = std::iter::once(0).chain(cuts.iter().copied());
                let ends = cuts.iter().copied().chain([one.len()]);
                starts.zip(ends).map(|(a, b)| std::iter::once(a..b).collect()).collect()
            }
            several => {
                let share = target / several.len().max(1);
                let mut cuts: Vec<&Labels> = several
                    .iter()
                    .zip(&estimates)
                    .flat_map(|(s, e)| cuts(e, share.max(1)).into_iter().map(|i| s.labels(i)))
                    .collect();
                cuts.sort_unstable();
                cuts.dedup();
                intervals(several, &cuts)
            }
        };
        Ok(Self { sources, parts, stats, limits, samples: AtomicUsize::new(0) })
    }

    /// How many parts there are.
    pub fn len(&self) -> usize {
        self.parts.len()
    }

    /// Whether no series matches.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// The samples of part `i < len`, in order of labels; each part should be read once, as its samples count against the
    /// limit.
    pub async fn read(&self, i: usize) -> Result<SeriesSet, QueryError> {
        let ranges = self.parts.get(i).map(Vec::as_slice).unwrap_or_default();
        let mut sets = Vec::with_capacity(ranges.len());
        for (source, range) in self.sources.iter().zip(ranges).filter(|(_, r)| !r.is_empty()) {
            sets.push((source.priority(), source.read(range.clone(), &self.stats).await?));
        }
        let set = merge_series_sets(sets);
        let samples = self.samples.fetch_add(set.sample_count(), Relaxed) + set.sample_count();
        if samples > self.limits.samples_max {
            return Err(QueryError::limit("samples", "max_query_samples", self.limits.samples_max));
        }
        Ok(set)
    }
}

fn intervals(sources: &[Source], cuts: &[&Labels]) -> Vec<Vec<Range<usize>>> {
    let mut from = vec![0; sources.len()];
    let mut parts = Vec::with_capacity(cuts.len() + 1);
    for cut in cuts.iter().copied().map(Some).chain([None]) {
        let part: Vec<Range<usize>> = sources
            .iter()
            .zip(&mut from)
            .map(|(source, from)| {
                let end = cut.map_or(source.len(), |cut| source.find(*from, cut));
                std::mem::replace(from, end)..end
            })
            .collect();
        if part.iter().any(|r| !r.is_empty()) {
            parts.push(part);
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use sextant_model::SeriesBuf;

    use super::*;

    fn set(names: &[&str], value: f64) -> SeriesSet {
        let mut out = SeriesSet::new();
        for name in names {
            let labels = Labels::from_pairs([("__name__", *name)]).unwrap();
            out.push(labels, &SeriesBuf { t: vec![1, 2], v: vec![value; 2], ..SeriesBuf::default() });
        }
        out
    }

    fn head(set: SeriesSet) -> Source {
        Source::Head(Arc::new(set))
    }

    #[tokio::test]
    async fn parts_behind_each_other_are_the_whole() {
        let (a, b) = (["a", "b", "c", "d", "e"], ["b", "bb", "e", "f"]);
        for target in 1..20 {
            let sources = vec![head(set(&a, 1.0)), head(set(&b, 2.0))];
            let parts =
                SelectParts::new(sources, target, 2, Arc::default(), SelectLimits::default()).unwrap();
            assert!(parts.len() >= 2);
            let mut got = Vec::new();
            for i in 0..parts.len() {
                let part = parts.read(i).await.unwrap();
                got.extend(
                    (0..part.len()).map(|i| (part.labels[i].metric_name().to_owned(), part.floats(i).1[1])),
                );
            }
            let expected =
                [("a", 1.0), ("b", 2.0), ("bb", 2.0), ("c", 1.0), ("d", 1.0), ("e", 2.0), ("f", 2.0)];
            assert_eq!(got, expected.map(|(n, v)| (n.to_owned(), v)));
        }
    }

    #[tokio::test]
    async fn samples_of_all_parts_count_against_the_limit() {
        let limits = SelectLimits { samples_max: 5, ..SelectLimits::default() };
        let sources = vec![head(set(&["a", "b", "c"], 1.0))];
        let parts = SelectParts::new(sources, 2, 1, Arc::default(), limits).unwrap();
        assert_eq!(parts.len(), 3);
        assert!(parts.read(0).await.is_ok() && parts.read(1).await.is_ok());
        let error = parts.read(2).await.unwrap_err().to_string();
        assert!(error.contains("max_query_samples"), "{error}");
    }
}
