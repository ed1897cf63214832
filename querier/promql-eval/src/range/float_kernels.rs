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
    blocks: kahan::Blocks,
    counts: Vec<u32>,
    sorted: Vec<f64>,
}

/// Windows longer than this, on average, are summed by blocks.
const LONG_WINDOW: usize = 128;

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
    let mut each = |f: &mut dyn FnMut(usize, usize, usize) -> Option<f64>| {
        for (step, &(lo, hi)) in bounds.iter().enumerate() {
            if lo < hi
                && let Some(v) = f(step, lo as usize, hi as usize)
            {
                values[step] = v;
                bits::set(present, step);
            }
        }
    };
    match run.op.kind {
        kind if kind.is_extrapolated() && !run.op.window.is_extended() => {
            let name = || labels.get(METRIC_NAME).unwrap_or("").to_owned();
            rate::series(run, f, bounds, edges, &mut kernel.rate, name, values, present);
        }
        K::CountOverTime => each(&mut |_, lo, hi| Some((hi - lo) as f64)),
        K::PresentOverTime => each(&mut |_, _, _| Some(1.0)),
        K::FirstOverTime => each(&mut |_, lo, _| Some(f.v[lo])),
        K::LastOverTime => each(&mut |_, _, hi| Some(f.v[hi - 1])),
        K::TsOfFirstOverTime => each(&mut |_, lo, _| Some(f.t[lo] as f64 / 1000.0)),
        K::TsOfLastOverTime => each(&mut |_, _, hi| Some(f.t[hi - 1] as f64 / 1000.0)),
        K::SumOverTime if is_long(bounds) => {
            kernel.blocks.prepare(f.v);
            each(&mut |_, lo, hi| Some(kernel.blocks.sum(f.v, lo, hi).value()));
        }
        K::AvgOverTime if is_long(bounds) => {
            kernel.blocks.prepare(f.v);
            each(&mut |_, lo, hi| {
                let (sum, count) = (kernel.blocks.sum(f.v, lo, hi), (hi - lo) as f64);
                if sum.sum.is_infinite() {
                    return Some(kahan::mean(&f.v[lo..hi]));
                }
                Some(sum.sum / count + sum.c / count)
            });
        }
        K::AvgOverTime => each(&mut |_, lo, hi| Some(kahan::mean(&f.v[lo..hi]))),
        K::MinOverTime | K::MaxOverTime | K::TsOfMinOverTime | K::TsOfMaxOverTime => {
            let mut extremes = ordered::Extremes::new(run.op.kind, f, &mut kernel.queue);
            each(&mut |_, lo, hi| Some(extremes.window(lo, hi)));
        }
        K::Resets | K::Changes if !run.op.window.is_extended() => {
            count_pairs(run.op.kind, f, &mut kernel.counts);
            each(&mut |_, lo, hi| Some(f64::from(kernel.counts[hi - 1] - kernel.counts[lo])));
        }
        K::QuantileOverTime => {
            let mut bad = None;
            each(&mut |step, lo, hi| {
                let q = run.arg(0, step);
                if !(0.0..=1.0).contains(&q) {
                    bad = Some(q);
                }
                kernel.sorted.clear();
                kernel.sorted.extend_from_slice(&f.v[lo..hi]);
                Some(crate::quantile::quantile(q, &mut kernel.sorted))
            });
            if let Some(q) = bad {
                run.ctx.annotations.invalid_quantile(q, run.op.pos);
            }
        }
        _ => {
            let name = labels.get(METRIC_NAME).unwrap_or("");
            for (step, &(lo, hi)) in bounds.iter().enumerate() {
                if lo == hi {
                    continue;
                }
                let window = f.slice(lo as usize, hi as usize);
                if let Some(Cell::Float(v)) = run.window(window, &[], run.at(step), name)? {
                    values[step] = v;
                    bits::set(present, step);
                }
            }
        }
    }
    Ok(())
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
