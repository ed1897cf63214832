//! The intermediate result of a query: many series over one grid of steps, as columns.

use std::sync::Arc;

use sextant_model::{Histogram, Labels};

use crate::{bits, context::EvalContext, error::EvalError, steps::Steps, value::histogram_cost};

/// What one series has at one step.
#[derive(Clone, Debug)]
pub enum Cell {
    /// A float.
    Float(f64),
    /// A native histogram.
    Histogram(Arc<Histogram>),
}

/// Series by steps. Row `i` is series `i`; its values are `values[i * steps.count..][..steps.count]` and its presence
/// bits `present[i * steps.words()..][..steps.words()]`.
///
/// Invariants: a cell whose presence bit is not set has the value `0.0` and no histogram, so that a sum need not look
/// at the bits; bits past the last step are not set; a cell with a histogram is present and has the value `0.0`. A
/// value may be NaN and present. Rows may lack an order; two rows have equal labels only between an operator that can
/// make them so and the check at the end of it or of the query.
#[derive(Clone, Debug)]
pub struct StepBlock {
    /// The grid.
    pub steps: Steps,
    /// One label set per row.
    pub labels: Vec<Labels>,
    /// Per row, whether the metric name (and `__type__`, `__unit__`) goes when the query ends: names are removed
    /// late, so that an operator in between may still use them.
    pub drop_name: Vec<bool>,
    /// Floats, row by row.
    pub values: Vec<f64>,
    /// Presence bits, row by row.
    pub present: Vec<u64>,
    /// Histograms, parallel to `values`; `None` where no cell of the block has one.
    pub histograms: Option<Vec<Option<Arc<Histogram>>>>,
}

/// One row, borrowed.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    /// Floats.
    pub values: &'a [f64],
    /// Presence bits.
    pub present: &'a [u64],
    /// Histograms; empty where the block has none.
    pub histograms: &'a [Option<Arc<Histogram>>],
}

impl Row<'_> {
    /// What the row has at a step.
    pub fn get(&self, step: usize) -> Option<Cell> {
        if !bits::get(self.present, step) {
            return None;
        }
        Some(match self.histograms.get(step).and_then(Option::as_ref) {
            Some(h) => Cell::Histogram(h.clone()),
            None => Cell::Float(self.values[step]),
        })
    }

    /// The histogram at a step.
    pub fn histogram(&self, step: usize) -> Option<&Arc<Histogram>> {
        self.histograms.get(step).and_then(Option::as_ref)
    }

    /// Whether any cell is a histogram.
    pub fn has_histogram(&self) -> bool {
        self.histograms.iter().any(Option::is_some)
    }
}

impl StepBlock {
    /// No series.
    pub fn new(steps: Steps) -> Self {
        Self::with_capacity(steps, 0)
    }

    /// No series, with room for `rows`.
    pub fn with_capacity(steps: Steps, rows: usize) -> Self {
        Self {
            steps,
            labels: Vec::with_capacity(rows),
            drop_name: Vec::with_capacity(rows),
            values: Vec::with_capacity(rows * steps.count),
            present: Vec::with_capacity(rows * steps.words()),
            histograms: None,
        }
    }

    /// A row for each label set, with all cells absent. `drop_name` is left to the caller.
    pub(crate) fn absent(steps: Steps, labels: &[Labels]) -> Self {
        let n = labels.len();
        Self {
            steps,
            labels: labels.to_vec(),
            drop_name: Vec::with_capacity(n),
            values: vec![0.0; n * steps.count],
            present: vec![0; n * steps.words()],
            histograms: None,
        }
    }

    /// How many series there are.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there is no series.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// How many cells have a value.
    pub fn sample_count(&self) -> usize {
        bits::count(&self.present)
    }

    /// How many samples it counts for against `max_samples`.
    pub fn held_samples(&self) -> usize {
        let histograms = self.histograms.iter().flatten().flatten();
        self.sample_count() + histograms.map(|h| histogram_cost(h) - 1).sum::<usize>()
    }

    /// The same for one row.
    pub(crate) fn held_in_row(&self, i: usize) -> usize {
        let row = self.row(i);
        let histograms = row.histograms.iter().flatten();
        bits::count(row.present) + histograms.map(|h| histogram_cost(h) - 1).sum::<usize>()
    }

    /// A row.
    pub fn row(&self, i: usize) -> Row<'_> {
        let n = self.steps.count;
        Row {
            values: &self.values[i * n..(i + 1) * n],
            present: self.present_row(i),
            histograms: self.histograms.as_ref().map_or(&[], |h| &h[i * n..(i + 1) * n]),
        }
    }

    /// The presence bits of a row.
    pub fn present_row(&self, i: usize) -> &[u64] {
        let w = self.steps.words();
        &self.present[i * w..(i + 1) * w]
    }

    /// Appends a row whose cells are all absent.
    pub fn push_empty(&mut self, labels: Labels, drop_name: bool) {
        self.labels.push(labels);
        self.drop_name.push(drop_name);
        self.values.resize(self.labels.len() * self.steps.count, 0.0);
        self.present.resize(self.labels.len() * self.steps.words(), 0);
        if let Some(h) = &mut self.histograms {
            h.resize(self.labels.len() * self.steps.count, None);
        }
    }

    /// Appends a row. `values` of absent cells must be `0.0`.
    pub fn push(&mut self, labels: Labels, drop_name: bool, row: Row<'_>) {
        if !row.histograms.is_empty() {
            self.histogram_column();
        }
        self.labels.push(labels);
        self.drop_name.push(drop_name);
        self.values.extend_from_slice(row.values);
        self.present.extend_from_slice(row.present);
        if let Some(h) = &mut self.histograms {
            if row.histograms.is_empty() {
                h.resize(self.labels.len() * self.steps.count, None);
            } else {
                h.extend_from_slice(row.histograms);
            }
        }
    }

    /// Sets a float in a row.
    #[inline]
    pub fn set_float(&mut self, row: usize, step: usize, v: f64) {
        self.values[row * self.steps.count + step] = v;
        let w = self.steps.words();
        bits::set(&mut self.present[row * w..(row + 1) * w], step);
    }

    /// Sets a histogram in a row.
    pub fn set_histogram(&mut self, row: usize, step: usize, h: Arc<Histogram>) {
        let n = self.steps.count;
        self.histogram_column()[row * n + step] = Some(h);
        let w = self.steps.words();
        bits::set(&mut self.present[row * w..(row + 1) * w], step);
    }

    /// Sets a cell.
    pub fn set(&mut self, row: usize, step: usize, cell: Cell) {
        match cell {
            Cell::Float(v) => self.set_float(row, step, v),
            Cell::Histogram(h) => self.set_histogram(row, step, h),
        }
    }

    /// The histograms, made where there were none.
    pub fn histogram_column(&mut self) -> &mut Vec<Option<Arc<Histogram>>> {
        let len = self.values.len();
        self.histograms.get_or_insert_with(|| vec![None; len])
    }

    /// Clears the cells whose bit is not set in `keep`, which has the shape of `present`.
    pub fn keep_only(&mut self, keep: &[u64]) {
        let (n, w) = (self.steps.count, self.steps.words());
        for row in 0..self.labels.len() {
            for word in 0..w {
                let i = row * w + word;
                let gone = self.present[i] & !keep[i];
                self.present[i] &= keep[i];
                for step in bits::ones(&[gone]) {
                    let cell = row * n + word * 64 + step;
                    self.values[cell] = 0.0;
                    if let Some(h) = &mut self.histograms {
                        h[cell] = None;
                    }
                }
            }
        }
    }

    /// Clears one cell.
    pub fn clear(&mut self, row: usize, step: usize) {
        let (n, w) = (self.steps.count, self.steps.words());
        bits::clear(&mut self.present[row * w..(row + 1) * w], step);
        self.values[row * n + step] = 0.0;
        if let Some(h) = &mut self.histograms {
            h[row * n + step] = None;
        }
    }

    /// Drops rows without a value.
    pub fn drop_empty_rows(&mut self) {
        let (n, w) = (self.steps.count, self.steps.words());
        let mut kept = 0;
        for i in 0..self.len() {
            if !bits::any(self.present_row(i)) {
                continue;
            }
            if kept < i {
                self.labels.swap(kept, i);
                self.drop_name[kept] = self.drop_name[i];
                self.values.copy_within(i * n..(i + 1) * n, kept * n);
                self.present.copy_within(i * w..(i + 1) * w, kept * w);
                if let Some(h) = &mut self.histograms {
                    (0..n).for_each(|s| h.swap(kept * n + s, i * n + s));
                }
            }
            kept += 1;
        }
        self.labels.truncate(kept);
        self.drop_name.truncate(kept);
        self.values.truncate(kept * n);
        self.present.truncate(kept * w);
        if let Some(h) = &mut self.histograms {
            h.truncate(kept * n);
        }
    }

    /// The given rows, in the given order.
    pub fn take_rows(&self, rows: &[usize]) -> Self {
        let mut out = Self::with_capacity(self.steps, rows.len());
        for &i in rows {
            out.push(self.labels[i].clone(), self.drop_name[i], self.row(i));
        }
        out
    }

    /// The rows of `other` behind the rows of this block; both have one grid.
    pub fn append(&mut self, other: StepBlock) {
        debug_assert_eq!(self.steps, other.steps);
        if self.is_empty() {
            *self = other;
            return;
        }
        let rows = self.len() + other.len();
        if other.histograms.is_some() {
            self.histogram_column();
        }
        self.labels.extend(other.labels);
        self.drop_name.extend(other.drop_name);
        self.values.extend(other.values);
        self.present.extend(other.present);
        if let Some(h) = &mut self.histograms {
            match other.histograms {
                Some(o) => h.extend(o),
                None => h.resize(rows * self.steps.count, None),
            }
        }
    }

    /// Per step, whether any series has a value.
    pub fn any_present(&self) -> Vec<u64> {
        let mut any = vec![0; self.steps.words()];
        for i in 0..self.len() {
            bits::or_into(&mut any, self.present_row(i));
        }
        any
    }

    /// Repeats the one step of this block on a longer grid.
    pub(crate) fn broadcast(&self, steps: Steps, ctx: &EvalContext) -> Result<Self, EvalError> {
        ctx.check_cells(self.len(), steps.count)?;
        let mut out = Self::with_capacity(steps, self.len());
        let full = bits::full(steps.count);
        for i in 0..self.len() {
            ctx.cancel.check()?;
            match self.row(i).get(0) {
                None => continue,
                Some(Cell::Float(v)) => out.push(
                    self.labels[i].clone(),
                    self.drop_name[i],
                    Row { values: &vec![v; steps.count], present: &full, histograms: &[] },
                ),
                Some(Cell::Histogram(h)) => out.push(
                    self.labels[i].clone(),
                    self.drop_name[i],
                    Row {
                        values: &vec![0.0; steps.count],
                        present: &full,
                        histograms: &vec![Some(h); steps.count],
                    },
                ),
            }
        }
        Ok(out)
    }
}
