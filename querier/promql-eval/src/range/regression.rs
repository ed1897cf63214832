//! `deriv`, `predict_linear` and `double_exponential_smoothing`.

use super::mixed::Floats;
use crate::{error::EvalError, kahan::Kahan};

/// A straight line: its slope per second and its value at the time it was asked for.
pub struct Line {
    pub slope: f64,
    pub intercept: f64,
}

impl Line {
    /// The value some seconds after the intercept.
    pub fn at(&self, seconds: f64) -> f64 {
        self.slope * seconds + self.intercept
    }
}

/// Least squares through the samples, compensated; the intercept is the value at `intercept_ms`.
pub fn linear(f: Floats<'_>, intercept_ms: i64) -> Line {
    let first = f.v[0];
    if f.v.iter().all(|&v| v == first) {
        if first.is_infinite() {
            return Line { slope: f64::NAN, intercept: f64::NAN };
        }
        return Line { slope: 0.0, intercept: first };
    }
    let [mut x, mut y, mut xy, mut xx] = [Kahan::default(); 4];
    for (&t, &v) in f.t.iter().zip(f.v) {
        let dx = (t - intercept_ms) as f64 / 1e3;
        x.add(dx);
        y.add(v);
        xy.add(dx * v);
        xx.add(dx * dx);
    }
    let n = f.v.len() as f64;
    let [x, y, xy, xx] = [x, y, xy, xx].map(|k| k.sum + k.c);
    let slope = (xy - x * y / n) / (xx - x * x / n);
    Line { slope, intercept: y / n - slope * x / n }
}

/// Both factors lie between 0 and 1, exclusively.
pub fn check_factors(smoothing: f64, trend: f64) -> Result<(), EvalError> {
    for (name, short, v) in [("smoothing", "sf", smoothing), ("trend", "tf", trend)] {
        if v <= 0.0 || v >= 1.0 {
            return Err(EvalError::execution(format!(
                "invalid {name} factor. Expected: 0 < {short} < 1, got: {v:.6}"
            )));
        }
    }
    Ok(())
}

/// Holt's linear smoothing of at least two values.
pub fn double_exponential(v: &[f64], sf: f64, tf: f64) -> f64 {
    let (mut before, mut level) = (0.0, v[0]);
    let mut trend = v[1] - v[0];
    for (i, &x) in v.iter().enumerate().skip(1) {
        if i > 1 {
            trend = tf * (level - before) + (1.0 - tf) * trend;
        }
        (before, level) = (level, sf * x + (1.0 - sf) * (level + trend));
    }
    level
}
