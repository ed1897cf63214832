//! The groups of an aggregation with their running values, as rows of numbers.

use std::sync::Arc;

use sextant_model::{Histogram, HistogramError, Labels};

use super::AggregateKind;
use crate::{
    bits,
    block::StepBlock,
    cancel::CancelFlag,
    context::EvalContext,
    error::EvalError,
    groups::{GroupIndex, Grouping},
    kahan::Kahan,
    range::HistogramSum,
    steps::Steps,
};

/// The state of all groups. Row `g` of each column belongs to group `g`; rows have `steps.count` cells.
///
/// What the columns hold: `a` the sum (`sum`, `avg`), the running mean once a sum would overflow (`avg`), the extreme
/// (`min`, `max`; NaN at first), the mean (`stddev`, `stdvar`); `b` the sum's compensation, or the sum of squared
/// deviations; `n` how many floats there were. Columns that a kind does not need are empty.
#[derive(Debug)]
pub struct Groups {
    kind: AggregateKind,
    steps: Steps,
    index: GroupIndex,
    /// Of the query, once there is anything: merging is looked at too.
    pub(super) cancel: Option<CancelFlag>,
    /// Per group, whether its name goes when the query ends.
    pub(super) drop_name: Vec<bool>,
    a: Vec<f64>,
    b: Vec<f64>,
    n: Vec<f64>,
    /// Cells with a float.
    floats: Vec<u64>,
    /// Cells of `avg` whose sum would overflow.
    incremental: Vec<u64>,
    /// Cells that can have no result: histograms that do not go together.
    broken: Vec<u64>,
    /// Sums of histograms, by cell; empty where there is none.
    histograms: Vec<Option<Box<HistogramSum>>>,
}

/// What is to be noted once for the whole aggregation.
#[derive(Default)]
pub struct Notes {
    pub mixed: bool,
    pub collided: bool,
    pub reconciled: bool,
}

impl Groups {
    pub fn new(kind: AggregateKind, steps: Steps) -> Self {
        Self {
            kind,
            steps,
            index: GroupIndex::default(),
            cancel: None,
            drop_name: Vec::new(),
            a: Vec::new(),
            b: Vec::new(),
            n: Vec::new(),
            floats: Vec::new(),
            incremental: Vec::new(),
            broken: Vec::new(),
            histograms: Vec::new(),
        }
    }

    /// The number of the group that a series belongs to.
    pub fn group(&mut self, grouping: &Grouping, labels: &Labels) -> usize {
        let group = self.index.of(grouping, labels);
        self.make_room();
        group
    }

    fn make_room(&mut self) {
        use AggregateKind as K;
        let groups = self.index.len();
        if groups <= self.drop_name.len() {
            return;
        }
        let (cells, words) = (groups * self.steps.count, groups * self.steps.words());
        self.drop_name.resize(groups, false);
        self.floats.resize(words, 0);
        self.broken.resize(words, 0);
        if self.kind == K::Avg {
            self.incremental.resize(words, 0);
        }
        if !self.histograms.is_empty() {
            self.histograms.resize_with(cells, || None);
        }
        match self.kind {
            K::Min | K::Max => self.a.resize(cells, f64::NAN),
            K::Count => self.n.resize(cells, 0.0),
            K::Group => {}
            K::Sum => {
                self.a.resize(cells, 0.0);
                self.b.resize(cells, 0.0);
            }
            K::Avg | K::Stddev | K::Stdvar => {
                self.a.resize(cells, 0.0);
                self.b.resize(cells, 0.0);
                self.n.resize(cells, 0.0);
            }
        }
    }

    /// Adds a row of floats.
    pub fn add_floats(&mut self, group: usize, values: &[f64], present: &[u64]) {
        use AggregateKind as K;
        let (n, w) = (self.steps.count, self.steps.words());
        let cells = group * n..(group + 1) * n;
        let words = group * w..(group + 1) * w;
        let full = bits::is_full(present, n);
        let broken = bits::any(&self.broken[words.clone()]);
        match self.kind {
            // Absent cells are 0.0: adding them changes nothing.
            K::Sum if !broken => {
                add_sums(&mut self.a[cells.clone()], &mut self.b[cells], values);
                bits::or_into(&mut self.floats[words], present);
            }
            K::Min if full && !broken => {
                for (a, &v) in self.a[cells].iter_mut().zip(values) {
                    *a = if *a > v || a.is_nan() { v } else { *a };
                }
                bits::or_into(&mut self.floats[words], present);
            }
            K::Max if full && !broken => {
                for (a, &v) in self.a[cells].iter_mut().zip(values) {
                    *a = if *a < v || a.is_nan() { v } else { *a };
                }
                bits::or_into(&mut self.floats[words], present);
            }
            K::Count if full => {
                self.n[cells].iter_mut().for_each(|n| *n += 1.0);
                bits::or_into(&mut self.floats[words], present);
            }
            K::Group => bits::or_into(&mut self.floats[words], present),
            _ => {
                for step in bits::ones(present) {
                    self.add_float(group, step, values[step]);
                }
            }
        }
    }

    /// Adds a float at one step.
    pub fn add_float(&mut self, group: usize, step: usize, v: f64) {
        use AggregateKind as K;
        let (n, w) = (self.steps.count, self.steps.words());
        let i = group * n + step;
        let words = group * w..(group + 1) * w;
        if bits::get(&self.broken[words.clone()], step) {
            return;
        }
        bits::set(&mut self.floats[words.clone()], step);
        match self.kind {
            K::Sum => add_sums(&mut self.a[i..=i], &mut self.b[i..=i], &[v]),
            K::Count => self.n[i] += 1.0,
            K::Group => {}
            K::Min if self.a[i] > v || self.a[i].is_nan() => self.a[i] = v,
            K::Max if self.a[i] < v || self.a[i].is_nan() => self.a[i] = v,
            K::Min | K::Max => {}
            K::Avg => self.add_to_mean(i, words, step, v),
            K::Stddev | K::Stdvar => {
                self.n[i] += 1.0;
                let delta = v - self.a[i];
                self.a[i] += delta / self.n[i];
                self.b[i] += delta * (v - self.a[i]);
            }
        }
    }

    /// Adds to the sum, or, once that would overflow, to the running mean.
    fn add_to_mean(&mut self, i: usize, words: std::ops::Range<usize>, step: usize, v: f64) {
        self.n[i] += 1.0;
        let n = self.n[i];
        let flags = &mut self.incremental[words];
        let mut sum = Kahan { sum: self.a[i], c: self.b[i] };
        if !bits::get(flags, step) {
            let before = sum;
            sum.add(v);
            // A first value that is infinite is a sum like any other.
            if !sum.sum.is_infinite() || n == 1.0 {
                (self.a[i], self.b[i]) = (sum.sum, sum.c);
                return;
            }
            bits::set(flags, step);
            sum = Kahan { sum: before.sum / (n - 1.0), c: before.c / (n - 1.0) };
        }
        let q = (n - 1.0) / n;
        let mut mean = Kahan { sum: q * sum.sum, c: q * sum.c };
        mean.add(v / n);
        (self.a[i], self.b[i]) = (mean.sum, mean.c);
    }

    /// Adds a histogram at one step. The error is given once per cell, which has no result then.
    pub fn add_histogram(&mut self, group: usize, step: usize, h: &Histogram) -> Result<(), HistogramError> {
        let (n, w) = (self.steps.count, self.steps.words());
        let words = group * w..(group + 1) * w;
        if bits::get(&self.broken[words.clone()], step) {
            return Ok(());
        }
        if self.histograms.is_empty() {
            self.histograms.resize_with(self.drop_name.len() * n, || None);
        }
        let cell = &mut self.histograms[group * n + step];
        let result = match cell {
            None => {
                *cell = Some(Box::new(HistogramSum::new(h, self.kind == AggregateKind::Avg)));
                Ok(())
            }
            Some(sum) => sum.add(h),
        };
        if result.is_err() {
            bits::set(&mut self.broken[words], step);
        }
        result
    }

    /// Adds the groups of another state of the same aggregation.
    pub fn merge(&mut self, other: Groups) -> Result<(), EvalError> {
        if other.kind != self.kind || other.steps != self.steps {
            return Err(EvalError::Internal("partial results of different aggregations"));
        }
        let (n, w) = (self.steps.count, self.steps.words());
        let mut histograms = other.histograms;
        let cancel = self.cancel.clone().or(other.cancel);
        for (from, labels) in other.index.labels.iter().enumerate() {
            cancel.as_ref().map_or(Ok(()), CancelFlag::check)?;
            // The labels of a group are its own group by any grouping that made them.
            let to = self.index.by_labels(labels);
            self.make_room();
            self.drop_name[to] |= other.drop_name[from];
            let present = &other.floats[from * w..(from + 1) * w];
            let row = |column: &[f64], step: usize| column.get(from * n + step).copied().unwrap_or(0.0);
            for step in bits::ones(present) {
                let incremental = other.kind == AggregateKind::Avg
                    && bits::get(&other.incremental[from * w..(from + 1) * w], step);
                let cell = Cell {
                    a: row(&other.a, step),
                    b: row(&other.b, step),
                    n: row(&other.n, step),
                    incremental,
                };
                self.merge_cell(to, step, cell);
            }
            bits::or_into(&mut self.broken[to * w..(to + 1) * w], &other.broken[from * w..(from + 1) * w]);
            for step in 0..n {
                if let Some(theirs) = histograms.get_mut(from * n + step).and_then(Option::take) {
                    self.merge_histogram(to, step, theirs);
                }
            }
        }
        Ok(())
    }

    fn merge_histogram(&mut self, group: usize, step: usize, theirs: Box<HistogramSum>) {
        let (n, w) = (self.steps.count, self.steps.words());
        if self.histograms.is_empty() {
            self.histograms.resize_with(self.drop_name.len() * n, || None);
        }
        let cell = &mut self.histograms[group * n + step];
        match cell {
            None => *cell = Some(theirs),
            Some(sum) => {
                if sum.merge(*theirs).is_err() {
                    bits::set(&mut self.broken[group * w..(group + 1) * w], step);
                }
            }
        }
    }

    fn merge_cell(&mut self, group: usize, step: usize, other: Cell) {
        use AggregateKind as K;
        let (n, w) = (self.steps.count, self.steps.words());
        let i = group * n + step;
        let words = group * w..(group + 1) * w;
        let fresh = !bits::get(&self.floats[words.clone()], step);
        bits::set(&mut self.floats[words.clone()], step);
        match self.kind {
            K::Group => {}
            K::Count => self.n[i] += other.n,
            K::Min if self.a[i] > other.a || self.a[i].is_nan() => self.a[i] = other.a,
            K::Max if self.a[i] < other.a || self.a[i].is_nan() => self.a[i] = other.a,
            K::Min | K::Max => {}
            K::Sum => {
                let mut sum = Kahan { sum: self.a[i], c: self.b[i] };
                sum.merge(Kahan { sum: other.a, c: other.b });
                (self.a[i], self.b[i]) = (sum.sum, sum.c);
            }
            K::Avg => {
                if fresh {
                    (self.a[i], self.b[i], self.n[i]) = (other.a, other.b, other.n);
                    if other.incremental {
                        bits::set(&mut self.incremental[words], step);
                    }
                    return;
                }
                let flags = &mut self.incremental[words];
                let mut sum = Kahan { sum: self.a[i], c: self.b[i] };
                let mine = bits::get(flags, step);
                sum.merge(Kahan { sum: other.a, c: other.b });
                if !mine && !other.incremental && !sum.sum.is_infinite() {
                    (self.a[i], self.b[i]) = (sum.sum, sum.c);
                } else {
                    let mean = |a: f64, c: f64, n: f64, incremental: bool| {
                        if incremental { a + c } else { a / n + c / n }
                    };
                    let total = self.n[i] + other.n;
                    let ours = mean(self.a[i], self.b[i], self.n[i], mine);
                    let theirs = mean(other.a, other.b, other.n, other.incremental);
                    bits::set(flags, step);
                    self.a[i] = ours * (self.n[i] / total) + theirs * (other.n / total);
                    self.b[i] = 0.0;
                }
                self.n[i] += other.n;
            }
            K::Stddev | K::Stdvar => {
                // Chan's formula for the union of two samples.
                let total = self.n[i] + other.n;
                let delta = other.a - self.a[i];
                self.b[i] += other.b + delta * delta * self.n[i] * other.n / total;
                self.a[i] += delta * other.n / total;
                self.n[i] = total;
            }
        }
    }

    /// The results, without groups that have none.
    pub fn finish(self, notes: &mut Notes, ctx: &EvalContext) -> Result<StepBlock, EvalError> {
        use AggregateKind as K;
        let (n, w) = (self.steps.count, self.steps.words());
        let groups = self.drop_name.len();
        let mut out = StepBlock::with_capacity(self.steps, groups);
        for group in 0..groups {
            ctx.cancel.check()?;
            out.push_empty(self.index.labels[group].clone(), self.drop_name[group]);
            let words = group * w..(group + 1) * w;
            let broken = &self.broken[words.clone()];
            for step in bits::ones(&self.floats[words.clone()]) {
                let i = group * n + step;
                if bits::get(broken, step) {
                    continue;
                }
                if self.histograms.get(i).is_some_and(Option::is_some) {
                    notes.mixed = true;
                    continue;
                }
                let v = match self.kind {
                    K::Sum => self.a[i] + self.b[i],
                    K::Avg if bits::get(&self.incremental[words.clone()], step) => self.a[i] + self.b[i],
                    K::Avg => self.a[i] / self.n[i] + self.b[i] / self.n[i],
                    K::Count => self.n[i],
                    K::Min | K::Max => self.a[i],
                    K::Group => 1.0,
                    K::Stdvar => self.b[i] / self.n[i],
                    K::Stddev => (self.b[i] / self.n[i]).sqrt(),
                };
                out.set_float(group, step, v);
            }
            for step in 0..n {
                let Some(Some(sum)) = self.histograms.get(group * n + step) else { continue };
                let float = bits::get(&self.floats[words.clone()], step);
                notes.reconciled |= sum.reconciled;
                if float || bits::get(broken, step) {
                    continue;
                }
                notes.collided |= sum.collided();
                if let Ok(mut h) = sum.value() {
                    h.compact(0);
                    out.set_histogram(group, step, Arc::new(h));
                }
            }
        }
        out.drop_empty_rows();
        Ok(out)
    }
}

/// One cell of another state.
struct Cell {
    a: f64,
    b: f64,
    n: f64,
    incremental: bool,
}

/// Compensated addition of a row to a row of sums.
fn add_sums(sums: &mut [f64], compensations: &mut [f64], values: &[f64]) {
    for ((sum, c), &v) in sums.iter_mut().zip(compensations).zip(values) {
        let mut k = Kahan { sum: *sum, c: *c };
        k.add(v);
        (*sum, *c) = (k.sum, k.c);
    }
}
