//! Arithmetic and comparison between two vectors: matching, `group_left`/`group_right`, `fill`.

use std::collections::HashMap;

use sextant_model::Labels;
use sextant_promql::{BinaryExpr, BinaryOp, Cardinality, PosRange, VectorMatching};

use super::{
    element::{self, Operand},
    matching::{Signatures, match_labels, result_labels},
};
use crate::{
    bits,
    block::{Cell, Row, StepBlock},
    cancel::Pace,
    context::EvalContext,
    error::EvalError,
};

/// An operator between two vectors.
#[derive(Clone, Debug)]
pub struct VectorBinary {
    /// The operator.
    pub op: BinaryOp,
    /// How series pair up.
    pub matching: VectorMatching,
    /// `bool` was given.
    pub return_bool: bool,
    /// The operation, for annotations.
    pub pos: PosRange,
}

impl VectorBinary {
    pub(crate) fn new(b: &BinaryExpr) -> Self {
        Self {
            op: b.op,
            matching: b.matching.clone().unwrap_or_default(),
            return_bool: b.return_bool,
            pos: b.pos,
        }
    }

    /// Pairs rows of one signature and computes them row against row.
    pub fn apply(&self, lhs: StepBlock, rhs: StepBlock, ctx: &EvalContext) -> Result<StepBlock, EvalError> {
        // The right side is the one with at most one series per signature and step; `group_right` swaps.
        let swapped = self.matching.card == Cardinality::OneToMany;
        let (many, one) = if swapped { (&rhs, &lhs) } else { (&lhs, &rhs) };
        let signatures = Signatures::new(&self.matching, &many.labels, &one.labels, ctx)?;
        let mut by_signature = vec![(Vec::new(), Vec::new()); signatures.count];
        signatures.lhs.iter().enumerate().for_each(|(i, &s)| by_signature[s].0.push(i));
        signatures.rhs.iter().enumerate().for_each(|(i, &s)| by_signature[s].1.push(i));
        let mut join = Join {
            op: self,
            many,
            one,
            swapped,
            active: self.active_steps(&lhs, &rhs),
            ctx,
            pace: ctx.cancel.pace(),
            rows: HashMap::new(),
            out: StepBlock::with_capacity(lhs.steps, many.len()),
            outcome: Vec::new(),
        };
        for (many_rows, one_rows) in &by_signature {
            ctx.cancel.check()?;
            join.signature(many_rows, one_rows)?;
        }
        let mut out = join.out;
        out.drop_empty_rows();
        Ok(out)
    }

    /// The steps at which anything can match.
    fn active_steps(&self, lhs: &StepBlock, rhs: &StepBlock) -> Vec<u64> {
        let (mut l, r) = (lhs.any_present(), rhs.any_present());
        if self.matching.fill_lhs.is_none() && self.matching.fill_rhs.is_none() {
            return bits::and(&l, &r);
        }
        bits::or_into(&mut l, &r);
        l
    }
}

/// Steps that are computed between two looks at the pace.
const CHUNK: usize = 1 << 16;

struct Join<'a> {
    op: &'a VectorBinary,
    many: &'a StepBlock,
    one: &'a StepBlock,
    swapped: bool,
    active: Vec<u64>,
    ctx: &'a EvalContext,
    pace: Pace<'a>,
    /// Result rows by their labels.
    rows: HashMap<Labels, usize>,
    out: StepBlock,
    /// One row of results.
    outcome: Vec<f64>,
}

/// Steps that have been matched within one signature, to find a second match.
enum Matched {
    OneToOne(Vec<u64>),
    /// By result labels.
    Many(HashMap<Labels, Vec<u64>>, Vec<u64>),
}

/// One side of a pair: a row, or a fill value at each step.
#[derive(Clone, Copy)]
enum Side<'a> {
    Row(Row<'a>),
    Fill(f64),
}

impl Join<'_> {
    fn signature(&mut self, many_rows: &[usize], one_rows: &[usize]) -> Result<(), EvalError> {
        self.check_one_side(one_rows)?;
        let words = self.active.len();
        let (many, one) = (self.many, self.one);
        let mut matched = match self.op.matching.card {
            Cardinality::OneToOne => Matched::OneToOne(vec![0; words]),
            _ => Matched::Many(HashMap::new(), vec![0; words]),
        };
        // As in Prometheus, `fill_left` stands for the "many" side even where `group_right` has swapped the sides.
        let (fill_many, fill_one) = (self.op.matching.fill_lhs, self.op.matching.fill_rhs);
        for &m in many_rows {
            let mut rest = many.present_row(m).to_vec();
            for &o in one_rows {
                self.pace.spend(words)?;
                let mask = bits::and(many.present_row(m), one.present_row(o));
                if bits::any(&mask) {
                    rest = bits::and_not(&rest, &mask);
                    let sides = (Side::Row(many.row(m)), Side::Row(one.row(o)));
                    let drop = many.drop_name[m];
                    self.pair(&many.labels[m], &one.labels[o], sides, &mask, drop, &mut matched)?;
                }
            }
            if let Some(fill) = fill_one
                && bits::any(&rest)
            {
                let labels = match_labels(&self.op.matching, &many.labels[m]);
                let sides = (Side::Row(many.row(m)), Side::Fill(fill));
                self.pair(&many.labels[m], &labels, sides, &rest, many.drop_name[m], &mut matched)?;
            }
        }
        let Some(fill) = fill_many else { return Ok(()) };
        for &o in one_rows {
            self.pace.spend(words)?;
            let rest = bits::and_not(one.present_row(o), matched.steps());
            if bits::any(&rest) {
                let labels = match_labels(&self.op.matching, &one.labels[o]);
                let sides = (Side::Fill(fill), Side::Row(one.row(o)));
                self.pair(&labels, &one.labels[o], sides, &rest, one.drop_name[o], &mut matched)?;
            }
        }
        Ok(())
    }

    /// The "one" side must not have two series of one signature at one step.
    fn check_one_side(&self, rows: &[usize]) -> Result<(), EvalError> {
        if rows.len() < 2 {
            return Ok(());
        }
        let mut seen = vec![0; self.active.len()];
        for (k, &i) in rows.iter().enumerate() {
            self.pace.spend(self.active.len())?;
            let present = bits::and(self.one.present_row(i), &self.active);
            if bits::intersects(&seen, &present) {
                let other = rows[..k].iter().find(|&&j| bits::intersects(self.one.present_row(j), &present));
                let duplicate = other.map_or_else(Labels::empty, |&j| self.one.labels[j].clone());
                let side = if self.swapped { "left" } else { "right" };
                return Err(EvalError::execution(format!(
                    "found duplicate series for the match group {} on the {side} hand-side of the operation: \
                     [{}, {}];many-to-many matching not allowed: matching labels must be unique on one side",
                    match_labels(&self.op.matching, &self.one.labels[i]).pairs(),
                    self.one.labels[i].pairs(),
                    duplicate.pairs()
                )));
            }
            bits::or_into(&mut seen, &present);
        }
        Ok(())
    }

    /// Computes one pair at the steps of `mask`.
    fn pair(
        &mut self,
        many: &Labels,
        one: &Labels,
        sides: (Side<'_>, Side<'_>),
        mask: &[u64],
        drop_name: bool,
        matched: &mut Matched,
    ) -> Result<(), EvalError> {
        let op = self.op;
        let meaning = element::changes_meaning(op.op);
        let labels = result_labels(&op.matching, meaning, many, one);
        let (lhs, rhs) = if self.swapped { (sides.1, sides.0) } else { sides };
        let drop_name = op.return_bool || (drop_name && !meaning);
        if let (Side::Row(l), Side::Row(r)) = (lhs, rhs)
            && !is_trim(op.op)
            && !l.has_histogram()
            && !r.has_histogram()
        {
            return self.float_pair(labels, l.values, r.values, mask, drop_name, matched);
        }
        let mut computed = vec![0; mask.len()];
        let mut cells = Vec::with_capacity(bits::count(mask));
        for step in bits::ones(mask) {
            self.pace.spend(64)?;
            let (Some(l), Some(r)) = (lhs.get(step), rhs.get(step)) else { continue };
            let outcome = match (&l, &r) {
                (Cell::Float(a), Cell::Float(b)) if !is_trim(op.op) => {
                    let v = element::float(op.op, *a, *b);
                    let comparison = op.op.is_comparison();
                    let cell = if comparison && !op.return_bool { l } else { Cell::Float(v) };
                    Some((cell, !comparison || op.return_bool || v != 0.0))
                }
                _ => {
                    let notes = &self.ctx.annotations;
                    element::general(op.op, Operand::of(&l), Operand::of(&r), op.pos, notes).map(|o| {
                        if op.return_bool {
                            (Cell::Float(f64::from(u8::from(o.keep))), true)
                        } else {
                            (o.cell, o.keep)
                        }
                    })
                }
            };
            if let Some((cell, keep)) = outcome {
                bits::set(&mut computed, step);
                if keep {
                    cells.push((step, cell));
                }
            }
        }
        matched.add(&labels, &computed)?;
        if cells.is_empty() {
            return Ok(());
        }
        let row = self.row(labels, drop_name)?;
        for (step, cell) in cells {
            if bits::get(self.out.present_row(row), step) {
                return Err(EvalError::same_labelset());
            }
            self.out.set(row, step, cell);
        }
        Ok(())
    }

    /// The same for two rows of floats: all steps are computed, those of the mask are kept.
    fn float_pair(
        &mut self,
        labels: Labels,
        l: &[f64],
        r: &[f64],
        mask: &[u64],
        drop_name: bool,
        matched: &mut Matched,
    ) -> Result<(), EvalError> {
        let op = self.op;
        matched.add(&labels, mask)?;
        self.outcome.resize(l.len(), 0.0);
        for ((out, l), r) in self.outcome.chunks_mut(CHUNK).zip(l.chunks(CHUNK)).zip(r.chunks(CHUNK)) {
            self.pace.spend(4 * l.len())?;
            element::float_rows(op.op, |i| l[i], |i| r[i], out);
        }
        let filter = op.op.is_comparison() && !op.return_bool;
        let mut kept = mask.to_vec();
        if filter {
            for step in bits::ones(mask).filter(|&s| self.outcome[s] == 0.0) {
                bits::clear(&mut kept, step);
            }
            if !bits::any(&kept) {
                return Ok(());
            }
        }
        let row = self.row(labels, drop_name)?;
        if bits::intersects(self.out.present_row(row), &kept) {
            return Err(EvalError::same_labelset());
        }
        let (n, w) = (self.out.steps.count, self.out.steps.words());
        bits::or_into(&mut self.out.present[row * w..(row + 1) * w], &kept);
        let values = &mut self.out.values[row * n..(row + 1) * n];
        let result = if filter { l } else { &self.outcome };
        if bits::is_full(&kept, n) {
            values.copy_from_slice(result);
        } else {
            bits::ones(&kept).for_each(|s| values[s] = result[s]);
        }
        Ok(())
    }

    /// The result row of some labels.
    fn row(&mut self, labels: Labels, drop_name: bool) -> Result<usize, EvalError> {
        if let Some(&row) = self.rows.get(&labels) {
            self.out.drop_name[row] |= drop_name;
            return Ok(row);
        }
        self.ctx.check_cells(self.out.len() + 1, self.out.steps.count)?;
        let row = self.out.len();
        self.out.push_empty(labels.clone(), drop_name);
        self.rows.insert(labels, row);
        Ok(row)
    }
}

fn is_trim(op: BinaryOp) -> bool {
    matches!(op, BinaryOp::TrimUpper | BinaryOp::TrimLower)
}

impl Side<'_> {
    fn get(&self, step: usize) -> Option<Cell> {
        match self {
            Self::Row(row) => row.get(step),
            Self::Fill(v) => Some(Cell::Float(*v)),
        }
    }
}

impl Matched {
    /// Every matched step.
    fn steps(&self) -> &[u64] {
        match self {
            Self::OneToOne(steps) | Self::Many(_, steps) => steps,
        }
    }

    fn add(&mut self, labels: &Labels, steps: &[u64]) -> Result<(), EvalError> {
        match self {
            Self::OneToOne(seen) => {
                if bits::intersects(seen, steps) {
                    return Err(EvalError::execution(
                        "multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)",
                    ));
                }
                bits::or_into(seen, steps);
            }
            Self::Many(by_labels, seen) => {
                let of = by_labels.entry(labels.clone()).or_insert_with(|| vec![0; steps.len()]);
                if bits::intersects(of, steps) {
                    return Err(EvalError::execution(
                        "multiple matches for labels: grouping labels must ensure unique matches",
                    ));
                }
                bits::or_into(of, steps);
                bits::or_into(seen, steps);
            }
        }
        Ok(())
    }
}
