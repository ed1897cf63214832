//! One range function over one series at a time: float series take the kernels of [`super::float_kernels`], series
//! with histograms are looked at window by window.

use sextant_model::{HistogramSample, METRIC_NAME, SeriesSet, is_stale_nan};

use super::{
    RangeFunction, RangeKind, counters, extended, float_kernels,
    histogram_rate::{self, Known, KnownWindow},
    histogram_sums, ordered,
    rate::Edges,
    regression,
    window::Bounds,
};
use crate::{
    block::{Cell, StepBlock},
    cancel::Pace,
    context::EvalContext,
    error::EvalError,
    kahan,
    step_counts::Tally,
    steps::Steps,
    value::{Scalars, histogram_cost},
};

/// The float samples of one series or of one window of it; `st` is empty where no sample has a start timestamp.
#[derive(Clone, Copy, Debug)]
pub struct Floats<'a> {
    pub t: &'a [i64],
    pub v: &'a [f64],
    pub st: &'a [i64],
}

impl<'a> Floats<'a> {
    pub fn slice(&self, lo: usize, hi: usize) -> Floats<'a> {
        let st = if self.st.is_empty() { &[] } else { &self.st[lo..hi] };
        Floats { t: &self.t[lo..hi], v: &self.v[lo..hi], st }
    }

    /// The start timestamp of a sample; 0 where it has none.
    pub fn start(&self, i: usize) -> i64 {
        self.st.get(i).copied().unwrap_or(0)
    }
}

/// The histograms of one series or of one window.
pub type Histograms<'a> = [&'a HistogramSample];

/// Work per 16 bytes of a histogram that is added or compared.
const UNITS_PER_HISTOGRAM_SAMPLE: usize = 8;

/// Work for two histograms that are compared.
const UNITS_PER_COMPARISON: usize = 64;

/// Where a window lies.
#[derive(Clone, Copy, Debug)]
pub struct At {
    /// The window's start, exclusive.
    pub start: i64,
    /// The window's end, inclusive.
    pub end: i64,
    /// The evaluation time.
    pub ts: i64,
    /// The step's number.
    pub step: usize,
}

/// One evaluation of a range function, with the buffers it keeps between series.
pub struct Run<'a> {
    pub op: &'a RangeFunction,
    pub args: &'a [Scalars],
    pub steps: Steps,
    pub ctx: &'a EvalContext,
    pub pace: Pace<'a>,
    pub buffers: Buffers,
    /// The most samples held at a time, as Prometheus counts them: the results so far with a window of the series at
    /// hand, and with its last window and its own results.
    pub peak: usize,
    /// How many samples the results so far count for.
    produced: usize,
    /// How many samples all windows together have.
    pub touched: usize,
    /// The same by step, where that is asked for.
    pub tally: Option<Tally>,
}

/// Buffers kept between series. Series of one target share their timestamps: `bounds` and `edges` are made anew only
/// where the timestamps differ from those of the series before.
#[derive(Default)]
pub struct Buffers {
    pub bounds: Bounds,
    pub edges: Edges,
    pub kernel: float_kernels::Scratch,
    seen_t: Vec<i64>,
    /// Of `bounds`: the longest window, and all together.
    longest: usize,
    touched: usize,
    h_bounds: Bounds,
    h_known: Known,
    /// What the histograms before each one cost, and all together.
    h_costs: Vec<usize>,
    t: Vec<i64>,
    v: Vec<f64>,
    st: Vec<i64>,
}

impl<'a> Run<'a> {
    pub fn new(op: &'a RangeFunction, args: &'a [Scalars], steps: Steps, ctx: &'a EvalContext) -> Self {
        let tally = ctx.counts_steps().then(|| Tally::new(steps.count));
        let pace = ctx.cancel.pace();
        Self {
            op,
            args,
            steps,
            ctx,
            pace,
            buffers: Buffers::default(),
            peak: 0,
            produced: 0,
            touched: 0,
            tally,
        }
    }

    /// Arguments that no value can have.
    pub fn check_args(&self) -> Result<(), EvalError> {
        if self.op.kind == RangeKind::DoubleExponentialSmoothing && self.args.len() != 2 {
            return Err(EvalError::Internal("double_exponential_smoothing takes two numbers"));
        }
        let takes_one = matches!(self.op.kind, RangeKind::QuantileOverTime | RangeKind::PredictLinear);
        if takes_one && self.args.len() != 1 {
            return Err(EvalError::Internal("a range function lacks its number"));
        }
        Ok(())
    }

    /// The n-th scalar argument at a step.
    pub fn arg(&self, n: usize, step: usize) -> f64 {
        self.args.get(n).and_then(|a| a.values.get(step)).copied().unwrap_or(f64::NAN)
    }

    pub fn at(&self, step: usize) -> At {
        let (start, end) = self.op.window.at(&self.steps, step);
        At { start, end, ts: self.steps.at(step), step }
    }

    /// Fills a row of `out` from series `i` of `set`.
    pub fn series(
        &mut self,
        set: &SeriesSet,
        i: usize,
        row: usize,
        out: &mut StepBlock,
    ) -> Result<(), EvalError> {
        let (t, v) = set.floats(i);
        let st = if self.op.use_start_timestamps { set.starts(i) } else { &[] };
        let st = if st.iter().any(|&s| s != 0) { st } else { &[] };
        // The buffers are moved out so that the kernels may borrow them beside `self`.
        let mut b = std::mem::take(&mut self.buffers);
        let mut floats = Floats { t, v, st };
        let (mut ft, mut fv, mut fst) =
            (std::mem::take(&mut b.t), std::mem::take(&mut b.v), std::mem::take(&mut b.st));
        if v.iter().any(|&v| is_stale_nan(v)) {
            without_stale(floats, &mut ft, &mut fv, &mut fst);
            floats = Floats { t: &ft, v: &fv, st: &fst };
        }
        if b.seen_t != floats.t || b.bounds.len() != self.steps.count {
            self.pace.spend(floats.t.len() + self.steps.count)?;
            self.op.window.bounds(floats.t, &self.steps, &mut b.bounds);
            let windows = b.bounds.iter().map(|(lo, hi)| (hi - lo) as usize);
            b.longest = windows.clone().max().unwrap_or(0);
            b.touched = windows.sum();
            b.edges.clear();
            b.seen_t.clear();
            b.seen_t.extend_from_slice(floats.t);
        }
        let h: Vec<&HistogramSample> = set.histograms(i).iter().filter(|h| !is_stale_nan(h.h.sum)).collect();
        let result = if h.is_empty() {
            self.touched += b.touched;
            self.pace.spend(floats.t.len() + self.steps.count)?;
            if let Some(tally) = &mut self.tally {
                tally.add_windows(&b.bounds, |lo, hi| u64::from(hi - lo));
            }
            let last = b.bounds.last().map_or(0, |(lo, hi)| (hi - lo) as usize);
            let done = float_kernels::series(self, floats, &mut b, &set.labels[i], row, out);
            self.account(b.longest, last, out.held_in_row(row));
            done
        } else {
            let name = set.labels[i].get(METRIC_NAME).unwrap_or("").to_owned();
            self.series_with_histograms(floats, &h, &mut b, &name, row, out)
        };
        (b.t, b.v, b.st) = (ft, fv, fst);
        self.buffers = b;
        result
    }

    fn series_with_histograms(
        &mut self,
        floats: Floats<'_>,
        h: &Histograms<'_>,
        b: &mut Buffers,
        name: &str,
        row: usize,
        out: &mut StepBlock,
    ) -> Result<(), EvalError> {
        let times: Vec<i64> = h.iter().map(|h| h.t).collect();
        self.op.window.bounds(&times, &self.steps, &mut b.h_bounds);
        if let Some(tally) = &mut self.tally {
            tally.add_windows(&b.bounds, |lo, hi| u64::from(hi - lo));
            tally.add_windows(&b.h_bounds, |lo, hi| {
                h[lo as usize..hi as usize].iter().map(|h| histogram_cost(&h.h) as u64).sum()
            });
        }
        let counter = self.op.kind.is_counter() && !self.op.window.is_extended();
        if counter {
            self.pace.spend(h.len() * UNITS_PER_COMPARISON)?;
            b.h_known.look_at(self.op, h);
        }
        b.h_costs.clear();
        b.h_costs.push(0);
        let mut costs = 0;
        b.h_costs.extend(h.iter().map(|h| {
            costs += histogram_cost(&h.h);
            costs
        }));
        let (mut longest, mut last) = (0, 0);
        for step in 0..self.steps.count {
            let (lo, hi) = b.bounds[step];
            let (hlo, hhi) = b.h_bounds[step];
            last = 0;
            if lo == hi && hlo == hhi {
                continue;
            }
            let f = floats.slice(lo as usize, hi as usize);
            let window = &h[hlo as usize..hhi as usize];
            let cost = f.t.len() + b.h_costs[hhi as usize] - b.h_costs[hlo as usize];
            longest = longest.max(cost);
            last = cost;
            self.touched += cost;
            self.pace.spend(f.t.len() + cost * UNITS_PER_HISTOGRAM_SAMPLE)?;
            let known =
                if counter { b.h_known.window(hlo as usize, hhi as usize) } else { Default::default() };
            if let Some(cell) = self.window(f, window, known, self.at(step), name)? {
                out.set(row, step, cell);
            }
        }
        self.account(longest, last, out.held_in_row(row));
        Ok(())
    }

    /// Counts what one series has held: its longest window, its last one, its results.
    fn account(&mut self, longest: usize, last: usize, results: usize) {
        self.peak = self.peak.max(self.produced + longest.max(last + results));
        self.produced += results;
    }

    /// The function over one window that is not empty, straightforwardly. `known` belongs to `h` and is needed for
    /// counters only.
    pub fn window(
        &self,
        f: Floats<'_>,
        h: &Histograms<'_>,
        known: KnownWindow<'_>,
        at: At,
        name: &str,
    ) -> Result<Option<Cell>, EvalError> {
        use RangeKind as K;
        let (op, notes) = (self.op, &self.ctx.annotations);
        let mixed = !f.t.is_empty() && !h.is_empty();
        // A function of floats only says so where it leaves histograms out, and gives nothing without floats.
        let floats_only = |least: usize| {
            if f.t.is_empty() {
                return false;
            }
            if !h.is_empty() {
                notes.histogram_ignored_in_range(name, op.pos);
            }
            f.t.len() >= least
        };
        let float = |v: f64| Ok(Some(Cell::Float(v)));
        match op.kind {
            K::Raw => Ok(None),
            K::Rate | K::Increase | K::Delta | K::SumOverTime | K::AvgOverTime if mixed => {
                notes.mixed_floats_histograms(name, op.pos);
                Ok(None)
            }
            K::Rate | K::Increase | K::Delta if op.window.is_extended() => {
                if h.is_empty() {
                    return Ok(extended::floats(op, f, at).map(Cell::Float));
                }
                Ok(extended::histograms(op, h, at, name, notes))
            }
            K::Rate | K::Increase | K::Delta => {
                if h.is_empty() {
                    return Ok(super::rate::window(op, f, at, name, notes).map(Cell::Float));
                }
                Ok(histogram_rate::extrapolated(op, h, known, at, name, notes))
            }
            K::Irate | K::Idelta => Ok(histogram_rate::last_two(op, f, h, name, notes)),
            K::Resets => Ok(counters::resets(op, f, h, at).map(Cell::Float)),
            K::Changes => Ok(counters::changes(op, f, h, at).map(Cell::Float)),
            K::SumOverTime | K::AvgOverTime if !h.is_empty() => {
                Ok(histogram_sums::over_time(op, h, name, notes))
            }
            K::SumOverTime => {
                let mut sum = kahan::Kahan::default();
                f.v.iter().for_each(|&v| sum.add(v));
                float(sum.value())
            }
            K::AvgOverTime => float(kahan::mean(f.v)),
            K::CountOverTime => float((f.t.len() + h.len()) as f64),
            K::PresentOverTime => float(1.0),
            K::FirstOverTime => Ok(first(f, h)),
            K::LastOverTime => Ok(last(f, h)),
            K::TsOfFirstOverTime => {
                let t = f.t.first().into_iter().chain(h.first().map(|h| &h.t)).min();
                Ok(t.map(|&t| Cell::Float(t as f64 / 1000.0)))
            }
            K::TsOfLastOverTime => {
                let t = f.t.last().into_iter().chain(h.last().map(|h| &h.t)).max();
                Ok(t.map(|&t| Cell::Float(t as f64 / 1000.0)))
            }
            K::MinOverTime | K::MaxOverTime | K::TsOfMinOverTime | K::TsOfMaxOverTime => {
                if !floats_only(1) {
                    return Ok(None);
                }
                float(ordered::extreme(op.kind, f))
            }
            K::StddevOverTime | K::StdvarOverTime => {
                if !floats_only(1) {
                    return Ok(None);
                }
                let variance = kahan::variance(f.v);
                float(if op.kind == K::StddevOverTime { variance.sqrt() } else { variance })
            }
            K::MadOverTime => {
                if !floats_only(1) {
                    return Ok(None);
                }
                float(ordered::mad(f.v))
            }
            K::QuantileOverTime => {
                if f.t.is_empty() {
                    return Ok(None);
                }
                let q = self.arg(0, at.step);
                if !(0.0..=1.0).contains(&q) {
                    notes.invalid_quantile(q, op.pos);
                }
                floats_only(1);
                float(crate::quantile::quantile(q, &mut f.v.to_vec()))
            }
            K::Deriv => {
                if !floats_only(2) {
                    return Ok(None);
                }
                float(regression::linear(f, f.t[0]).slope)
            }
            K::PredictLinear => {
                if !floats_only(2) {
                    return Ok(None);
                }
                float(regression::linear(f, at.ts).at(self.arg(0, at.step)))
            }
            K::DoubleExponentialSmoothing => {
                let (sf, tf) = (self.arg(0, at.step), self.arg(1, at.step));
                regression::check_factors(sf, tf)?;
                if !floats_only(2) {
                    return Ok(None);
                }
                float(regression::double_exponential(f.v, sf, tf))
            }
        }
    }
}

fn without_stale(f: Floats<'_>, t: &mut Vec<i64>, v: &mut Vec<f64>, st: &mut Vec<i64>) {
    t.clear();
    v.clear();
    st.clear();
    for i in (0..f.t.len()).filter(|&i| !is_stale_nan(f.v[i])) {
        t.push(f.t[i]);
        v.push(f.v[i]);
        if !f.st.is_empty() {
            st.push(f.st[i]);
        }
    }
}

fn first(f: Floats<'_>, h: &Histograms<'_>) -> Option<Cell> {
    match (f.t.first(), h.first()) {
        (Some(&t), Some(h)) if t >= h.t => Some(histogram_cell(h)),
        (Some(_), _) => Some(Cell::Float(f.v[0])),
        (None, h) => h.map(|h| histogram_cell(h)),
    }
}

fn last(f: Floats<'_>, h: &Histograms<'_>) -> Option<Cell> {
    match (f.t.last(), h.last()) {
        (Some(&t), Some(h)) if t <= h.t => Some(histogram_cell(h)),
        (Some(_), _) => f.v.last().map(|&v| Cell::Float(v)),
        (None, h) => h.map(|h| histogram_cell(h)),
    }
}

fn histogram_cell(h: &HistogramSample) -> Cell {
    Cell::Histogram(std::sync::Arc::new(h.h.clone()))
}
