//! Kernels for series without histograms: each sample is looked at once, each step costs what its function must.
//!
//! Functions of an order or a regression (`quantile_over_time`, `deriv` …) look at every sample of a window; what a
//! running form can give exactly (counts, extremes, resets, long sums) does not.

use sextant_model::{Labels, METRIC_NAME};

use super::{
    RangeKind,
    mixed::{Buffers, Floats, Run},
    ordered, rate,
};
use crate::{bits, block::Cell, block::StepBlock, error::EvalError, kahan};

/// Buffers of the kernels.
#[derive(Default)]
pub struct Scratch {
    pub rate: rate::Resets,
    queue: std::collections::VecDeque<u32>,
    halves: kahan::Halves,
    counts: Vec<u32>,
    sorted: ordered::Sorted,
}

/// Windows longer than this, on average, are put together from halves; shorter ones are summed four at a time.
const LONG_WINDOW: usize = 8;

/// Fills row `row` of `out`.
pub fn series(
    run: &Run<'_>,
    f: Floats<'_>,
    b: &mut Buffers,
    labels: &Labels,
    row: usize,
    out: &mut StepBlock,
) -> Result<(), EvalError> {
    use RangeKind as K;
    let (n, w) = (out.steps.count, out.steps.words());
    let values = &mut out.values[row * n..(row + 1) * n];
    let present = &mut out.present[row * w..(row + 1) * w];
    let Buffers { bounds, edges, kernel, .. } = b;
    match run.op.kind {
        kind if kind.is_extrapolated() && !run.op.window.is_extended() => {
            let name = || labels.get(METRIC_NAME).unwrap_or("").to_owned();
            rate::series(run, f, bounds, edges, &mut kernel.rate, name, values, present);
        }
        K::CountOverTime => each(bounds, values, present, |_, lo, hi| (hi - lo) as f64),
        K::PresentOverTime => each(bounds, values, present, |_, _, _| 1.0),
        K::FirstOverTime => each(bounds, values, present, |_, lo, _| f.v[lo]),
        K::LastOverTime => each(bounds, values, present, |_, _, hi| f.v[hi - 1]),
        K::TsOfFirstOverTime => each(bounds, values, present, |_, lo, _| f.t[lo] as f64 / 1000.0),
        K::TsOfLastOverTime => each(bounds, values, present, |_, _, hi| f.t[hi - 1] as f64 / 1000.0),
        K::SumOverTime | K::AvgOverTime => {
            let avg = run.op.kind == K::AvgOverTime;
            let mut finish = |step: usize, sum: kahan::Kahan| {
                let (lo, hi) = (bounds[step].0 as usize, bounds[step].1 as usize);
                if lo == hi {
                    return;
                }
                let count = (hi - lo) as f64;
                values[step] = match (avg, sum.sum.is_finite()) {
                    (false, _) => sum.value(),
                    (true, true) => sum.sum / count + sum.c / count,
                    // The sum overflows, or there is an infinity or a NaN: the order of operations matters.
                    (true, false) => kahan::mean(&f.v[lo..hi]),
                };
                bits::set(present, step);
            };
            if is_long(bounds) {
                let longest = bounds.iter().map(|(lo, hi)| hi - lo).max().unwrap_or(0);
                kernel.halves.prepare(f.v, longest as usize);
                for (step, &(lo, hi)) in bounds.iter().enumerate().filter(|(_, (lo, hi))| lo < hi) {
                    finish(step, kernel.halves.sum(f.v, lo as usize, hi as usize));
                }
            } else {
                for (chunk, windows) in bounds.chunks(4).enumerate() {
                    let mut four = [(0, 0); 4];
                    four[..windows.len()].copy_from_slice(windows);
                    let sums = kahan::four_sums(f.v, four);
                    for (k, &sum) in sums[..windows.len()].iter().enumerate() {
                        finish(chunk * 4 + k, sum);
                    }
                }
            }
        }
        K::MinOverTime | K::MaxOverTime | K::TsOfMinOverTime | K::TsOfMaxOverTime => {
            let mut extremes = ordered::Extremes::new(run.op.kind, f, &mut kernel.queue);
            each(bounds, values, present, |_, lo, hi| extremes.window(lo, hi));
        }
        K::Resets | K::Changes if !run.op.window.is_extended() => {
            count_pairs(run.op.kind, f, &mut kernel.counts);
            each(bounds, values, present, |_, lo, hi| f64::from(kernel.counts[hi - 1] - kernel.counts[lo]));
        }
        K::QuantileOverTime => {
            let mut bad = None;
            let mut stopped = Ok(());
            kernel.sorted.clear();
            each(bounds, values, present, |step, lo, hi| {
                if stopped.is_ok() {
                    stopped = run.pace.spend(4 * (hi - lo));
                }
                if stopped.is_err() {
                    return 0.0;
                }
                let q = run.arg(0, step);
                if !(0.0..=1.0).contains(&q) {
                    bad = Some(q);
                }
                kernel.sorted.window(f.v, lo, hi);
                kernel.sorted.quantile(q)
            });
            stopped?;
            if let Some(q) = bad {
                run.ctx.annotations.invalid_quantile(q, run.op.pos);
            }
        }
        K::StddevOverTime | K::StdvarOverTime => {
            let deviation = run.op.kind == K::StddevOverTime;
            for (chunk, windows) in bounds.chunks(4).enumerate() {
                let mut four = [(0, 0); 4];
                four[..windows.len()].copy_from_slice(windows);
                run.pace.spend(windows.iter().map(|(lo, hi)| 4 * (hi - lo) as usize).sum())?;
                let variances = kahan::four_variances(f.v, four);
                for (k, (&(lo, hi), v)) in windows.iter().zip(variances).enumerate() {
                    if lo < hi {
                        values[chunk * 4 + k] = if deviation { v.sqrt() } else { v };
                        bits::set(present, chunk * 4 + k);
                    }
                }
            }
        }
        _ => {
            let name = labels.get(METRIC_NAME).unwrap_or("");
            for (step, &(lo, hi)) in bounds.iter().enumerate() {
                if lo == hi {
                    continue;
                }
                run.pace.spend(4 * (hi - lo) as usize)?;
                let window = f.slice(lo as usize, hi as usize);
                if let Some(Cell::Float(v)) =
                    run.window(window, &[], Default::default(), run.at(step), name)?
                {
                    values[step] = v;
                    bits::set(present, step);
                }
            }
        }
    }
    Ok(())
}

/// Sets the value of each step whose window is not empty.
#[inline]
fn each(
    bounds: &[(u32, u32)],
    values: &mut [f64],
    present: &mut [u64],
    mut f: impl FnMut(usize, usize, usize) -> f64,
) {
    for (step, &(lo, hi)) in bounds.iter().enumerate() {
        if lo < hi {
            values[step] = f(step, lo as usize, hi as usize);
            bits::set(present, step);
        }
    }
}

fn is_long(bounds: &[(u32, u32)]) -> bool {
    bounds.iter().map(|(lo, hi)| (hi - lo) as usize).sum::<usize>() > bounds.len() * LONG_WINDOW
}

/// Per sample, how many samples up to it differ from (are less than) the one before.
fn count_pairs(kind: RangeKind, f: Floats<'_>, counts: &mut Vec<u32>) {
    counts.clear();
    let mut total = 0;
    for i in 0..f.v.len() {
        if i > 0 {
            let hit = match kind {
                RangeKind::Changes => f.v[i] != f.v[i - 1] && !(f.v[i].is_nan() && f.v[i - 1].is_nan()),
                _ => {
                    f.v[i] < f.v[i - 1]
                        || rate::is_start_reset(f.start(i - 1), f.t[i - 1], f.start(i), f.t[i])
                }
            };
            total += u32::from(hit);
        }
        counts.push(total);
    }
}
