//! Many series, columnar: the form in which samples travel from a head or a block to the query operators.

use crate::{HistogramSample, Labels, ResetHint};

/// The samples of one series, in order of time. A timestamp occurs once over both kinds.
#[derive(Clone, Debug, Default)]
pub struct SeriesBuf {
    /// Timestamps of the float samples, milliseconds.
    pub t: Vec<i64>,
    /// Values, parallel to `t`.
    pub v: Vec<f64>,
    /// Start timestamps, parallel to `t`; empty where no sample has one.
    pub start: Vec<i64>,
    /// Native histograms.
    pub h: Vec<HistogramSample>,
}

impl SeriesBuf {
    /// Empties the buffers and keeps their memory.
    pub fn clear(&mut self) {
        self.t.clear();
        self.v.clear();
        self.start.clear();
        self.h.clear();
    }

    /// How many samples there are, of both kinds.
    pub fn len(&self) -> usize {
        self.t.len() + self.h.len()
    }

    /// Whether there is no sample.
    pub fn is_empty(&self) -> bool {
        self.t.is_empty() && self.h.is_empty()
    }

    /// Drops the samples within any of the ranges (both ends inclusive, in any order, they may overlap). A histogram that
    /// follows a dropped one no longer knows whether its counter was reset since the one before it.
    pub fn remove(&mut self, ranges: &[(i64, i64)]) {
        let gone = |t: i64| ranges.iter().any(|r| r.0 <= t && t <= r.1);
        if self.t.iter().any(|&t| gone(t)) {
            let keep: Vec<bool> = self.t.iter().map(|&t| !gone(t)).collect();
            retain(&mut self.t, &keep);
            retain(&mut self.v, &keep);
            if !self.start.is_empty() {
                retain(&mut self.start, &keep);
            }
        }
        let mut follows = false;
        self.h.retain_mut(|h| {
            if gone(h.t) {
                follows = true;
                return false;
            }
            if std::mem::take(&mut follows) && h.h.reset_hint != ResetHint::Gauge {
                h.h.reset_hint = ResetHint::Unknown;
            }
            true
        });
    }
}

fn retain<T>(values: &mut Vec<T>, keep: &[bool]) {
    let mut keep = keep.iter();
    values.retain(|_| keep.next().is_none_or(|k| *k));
}

/// Series with their samples: offsets into contiguous buffers. Series are in order of their labels and unique;
/// samples of a series are in order of time.
///
/// Shapes: `n = labels.len()`; `offsets` has `n + 1` entries into `t`, `v` (and `start`, unless empty);
/// `h_offsets` has `n + 1` entries into `h`, or is empty where no series has a histogram.
#[derive(Clone, Debug, Default)]
pub struct SeriesSet {
    /// One label set per series.
    pub labels: Vec<Labels>,
    /// Where each series' float samples begin, and the end of the last.
    pub offsets: Vec<u32>,
    /// Timestamps of float samples, milliseconds.
    pub t: Vec<i64>,
    /// Float values, parallel to `t`.
    pub v: Vec<f64>,
    /// Start timestamps, parallel to `t`; empty where no sample of the set has one.
    pub start: Vec<i64>,
    /// Where each series' histograms begin; empty where there are none.
    pub h_offsets: Vec<u32>,
    /// Histograms.
    pub h: Vec<HistogramSample>,
}

impl SeriesSet {
    /// An empty set.
    pub fn new() -> Self {
        Self { offsets: vec![0], ..Self::default() }
    }

    /// How many series there are.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there is no series.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// How many samples there are, of both kinds.
    pub fn sample_count(&self) -> usize {
        self.t.len() + self.h.len()
    }

    /// Appends a series; its labels come after those before it.
    pub fn push(&mut self, labels: Labels, s: &SeriesBuf) {
        self.push_floats(labels, s);
        self.h.extend_from_slice(&s.h);
        self.end_histograms(!s.h.is_empty());
    }

    /// [`Self::push`] that moves the histograms out of `s`, where their copies would cost what reading them costs.
    pub fn append(&mut self, labels: Labels, s: &mut SeriesBuf) {
        self.push_floats(labels, s);
        let has_histograms = !s.h.is_empty();
        self.h.append(&mut s.h);
        self.end_histograms(has_histograms);
    }

    /// Ends the histograms of the series that was added last.
    fn end_histograms(&mut self, has_histograms: bool) {
        if has_histograms && self.h_offsets.is_empty() {
            self.h_offsets.resize(self.labels.len(), 0);
        }
        if !self.h_offsets.is_empty() {
            self.h_offsets.push(self.h.len() as u32);
        }
    }

    fn push_floats(&mut self, labels: Labels, s: &SeriesBuf) {
        if self.offsets.is_empty() {
            self.offsets.push(0);
        }
        self.labels.push(labels);
        if !s.start.is_empty() && self.start.len() < self.t.len() {
            self.start.resize(self.t.len(), crate::NO_START);
        }
        self.t.extend_from_slice(&s.t);
        self.v.extend_from_slice(&s.v);
        if !s.start.is_empty() {
            self.start.extend_from_slice(&s.start);
        } else if !self.start.is_empty() {
            self.start.resize(self.t.len(), crate::NO_START);
        }
        self.offsets.push(self.t.len() as u32);
    }

    /// A range of the series as a set of their own.
    pub fn slice(&self, series: std::ops::Range<usize>) -> Self {
        let (a, b) = (self.offsets[series.start] as usize, self.offsets[series.end] as usize);
        let mut out = Self {
            labels: self.labels[series.clone()].to_vec(),
            offsets: self.offsets[series.start..=series.end].iter().map(|o| o - a as u32).collect(),
            t: self.t[a..b].to_vec(),
            v: self.v[a..b].to_vec(),
            ..Self::default()
        };
        if !self.start.is_empty() {
            out.start = self.start[a..b].to_vec();
        }
        if !self.h_offsets.is_empty() {
            let (a, b) = (self.h_offsets[series.start] as usize, self.h_offsets[series.end] as usize);
            out.h_offsets = self.h_offsets[series.start..=series.end].iter().map(|o| o - a as u32).collect();
            out.h = self.h[a..b].to_vec();
        }
        out
    }

    /// The float samples of a series: timestamps and values.
    pub fn floats(&self, i: usize) -> (&[i64], &[f64]) {
        let r = self.offsets[i] as usize..self.offsets[i + 1] as usize;
        (&self.t[r.clone()], &self.v[r])
    }

    /// The start timestamps of a series' float samples; empty where the set has none.
    pub fn starts(&self, i: usize) -> &[i64] {
        if self.start.is_empty() {
            return &[];
        }
        &self.start[self.offsets[i] as usize..self.offsets[i + 1] as usize]
    }

    /// The histograms of a series.
    pub fn histograms(&self, i: usize) -> &[HistogramSample] {
        if self.h_offsets.is_empty() {
            return &[];
        }
        &self.h[self.h_offsets[i] as usize..self.h_offsets[i + 1] as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn appended_series_are_those_that_were_pushed() {
        let floats = SeriesBuf { t: vec![1, 2], v: vec![0.5, 1.5], ..SeriesBuf::default() };
        let histograms = SeriesBuf {
            h: vec![HistogramSample { t: 3, start: 0, h: Default::default() }],
            ..floats.clone()
        };
        let (mut pushed, mut appended) = (SeriesSet::new(), SeriesSet::new());
        for s in [&floats, &histograms, &floats] {
            pushed.push(Labels::empty(), s);
            let mut moved = s.clone();
            appended.append(Labels::empty(), &mut moved);
            assert!(moved.h.is_empty());
        }
        assert_eq!((&appended.offsets, &appended.h_offsets), (&pushed.offsets, &pushed.h_offsets));
        assert_eq!((&appended.v, &appended.h), (&pushed.v, &pushed.h));
        assert_eq!(appended.h_offsets, [0, 0, 1, 1]);
    }
}
