//! Functions over one window, from their definitions: a loop over the samples for every window.

use sextant_model::{Histogram, HistogramError, is_stale_nan};

use super::naive::{Sample, Stop, V};

/// One window: `(start, end]`, with the samples around it where the selector is extended.
pub struct Window {
    pub start: i64,
    pub end: i64,
    /// Every sample of the series that may matter, in order.
    pub all: Vec<Sample>,
}

impl Window {
    fn inside(&self) -> Vec<Sample> {
        self.all.iter().filter(|s| s.t > self.start && s.t <= self.end).cloned().collect()
    }
}

/// A function with its scalar arguments.
pub struct Call<'a> {
    pub name: &'a str,
    pub args: Vec<f64>,
    /// The evaluation time.
    pub t: i64,
    pub anchored: bool,
    pub smoothed: bool,
}

fn seconds(ms: i64) -> f64 {
    ms as f64 / 1000.0
}

pub fn over_window(call: &Call<'_>, w: &Window) -> Result<Option<V>, Stop> {
    if call.anchored || call.smoothed {
        return Ok(extended(call, w));
    }
    let samples = w.inside();
    let floats: Vec<(i64, f64)> =
        samples.iter().filter_map(|s| if let V::F(v) = s.v { Some((s.t, v)) } else { None }).collect();
    let histograms: Vec<(i64, &Histogram)> =
        samples.iter().filter_map(|s| if let V::H(h) = &s.v { Some((s.t, h)) } else { None }).collect();
    if samples.is_empty() {
        return Ok(None);
    }
    let mixed = !floats.is_empty() && !histograms.is_empty();
    let float = |v: f64| Ok(Some(V::F(v)));
    match call.name {
        "count_over_time" => return float(samples.len() as f64),
        "present_over_time" | "absent_over_time" => return float(1.0),
        "first_over_time" => return Ok(samples.first().map(|s| s.v.clone())),
        "last_over_time" => return Ok(samples.last().map(|s| s.v.clone())),
        "ts_of_first_over_time" => return float(seconds(samples[0].t)),
        "ts_of_last_over_time" => return float(seconds(samples[samples.len() - 1].t)),
        "resets" | "changes" => return float(hits(call.name, &samples)),
        "irate" | "idelta" => return instant(call.name, &samples),
        "rate" | "increase" | "delta" | "sum_over_time" | "avg_over_time" if mixed => return Ok(None),
        "sum_over_time" | "avg_over_time" if floats.is_empty() => {
            let mut sum = histograms[0].1.clone();
            for (_, h) in &histograms[1..] {
                if sum.add(h).is_err() {
                    return Ok(None);
                }
            }
            if call.name == "avg_over_time" {
                sum.div(histograms.len() as f64);
            }
            return Ok(Some(V::H(sum)));
        }
        "rate" | "increase" | "delta" if floats.is_empty() => {
            return Ok(histogram_rate(call.name, &histograms, w));
        }
        _ => {}
    }
    let values: Vec<f64> = floats.iter().map(|(_, v)| *v).collect();
    let n = values.len() as f64;
    if values.is_empty() {
        return Ok(None);
    }
    let mean = values.iter().sum::<f64>() / n;
    let variance = || values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / n;
    let extreme = |better: fn(f64, f64) -> bool| {
        floats.iter().copied().reduce(|best, x| if better(x.1, best.1) || best.1.is_nan() { x } else { best })
    };
    let not_less = |a: f64, b: f64| a >= b;
    let not_more = |a: f64, b: f64| a <= b;
    float(match call.name {
        "sum_over_time" => values.iter().sum(),
        "avg_over_time" => mean,
        "min_over_time" => extreme(not_more).map_or(f64::NAN, |x| x.1),
        "max_over_time" => extreme(not_less).map_or(f64::NAN, |x| x.1),
        "ts_of_min_over_time" => extreme(not_more).map_or(f64::NAN, |x| seconds(x.0)),
        "ts_of_max_over_time" => extreme(not_less).map_or(f64::NAN, |x| seconds(x.0)),
        "stdvar_over_time" => variance(),
        "stddev_over_time" => variance().sqrt(),
        "quantile_over_time" => quantile(call.args[0], values),
        "mad_over_time" => {
            if values.iter().any(|v| v.is_nan()) {
                return float(f64::NAN);
            }
            let median = quantile(0.5, values.clone());
            quantile(0.5, values.iter().map(|v| (v - median).abs()).collect())
        }
        _ if floats.len() < 2 => return Ok(None),
        "deriv" | "predict_linear" if values.iter().any(|v| !v.is_finite()) => {
            return Err(Stop::Unsure("a line through infinity".to_owned()));
        }
        "deriv" => line(&floats, floats[0].0).0,
        "predict_linear" if !call.args[0].is_finite() => {
            return Err(Stop::Unsure("a slope near zero, infinitely far".to_owned()));
        }
        "predict_linear" => {
            let (slope, intercept) = line(&floats, call.t);
            slope * call.args[0] + intercept
        }
        "double_exponential_smoothing" => {
            let (sf, tf) = (call.args[0], call.args[1]);
            let (mut level, mut trend) = (values[0], values[1] - values[0]);
            for (i, x) in values.iter().enumerate().skip(1) {
                let before = level;
                level = sf * x + (1.0 - sf) * (level + trend);
                if i + 1 < values.len() {
                    trend = tf * (level - before) + (1.0 - tf) * trend;
                }
            }
            level
        }
        "rate" | "increase" | "delta" => {
            let mut increase = values[values.len() - 1] - values[0];
            if call.name != "delta" {
                increase += values.windows(2).filter(|p| p[1] < p[0]).map(|p| p[0]).sum::<f64>();
            }
            let first = (call.name != "delta" && increase > 0.0 && values[0] >= 0.0).then_some(values[0]);
            increase * extrapolation(&floats.iter().map(|f| f.0).collect::<Vec<_>>(), w, first, increase)
                / if call.name == "rate" { seconds(w.end - w.start) } else { 1.0 }
        }
        other => return Err(Stop::Unsure(format!("no window function {other}"))),
    })
}

/// How much more than between the samples there would be in the whole window.
fn extrapolation(times: &[i64], w: &Window, first: Option<f64>, increase: f64) -> f64 {
    let (a, b) = (times[0], times[times.len() - 1]);
    let sampled = seconds(b - a);
    let mean = sampled / (times.len() - 1) as f64;
    let near = |d: f64| if d < mean * 1.1 { d } else { mean / 2.0 };
    let mut to_start = near(seconds(a - w.start));
    if let Some(first) = first {
        to_start = to_start.min(sampled * (first / increase));
    }
    (sampled + to_start + near(seconds(w.end - b))) / sampled
}

fn histogram_rate(name: &str, h: &[(i64, &Histogram)], w: &Window) -> Option<V> {
    let is_counter = name != "delta";
    if h.len() < 2 {
        return None;
    }
    let run = || -> Result<Histogram, HistogramError> {
        let mut result = h[h.len() - 1].1.clone();
        let resets = |i: usize| is_counter && h[i].1.detect_reset(h[i - 1].1);
        if !resets(1) {
            result.sub(h[0].1)?;
        }
        for i in 2..h.len() {
            if resets(i) {
                result.add(h[i - 1].1)?;
            }
        }
        // Histograms in between decide on the layout too.
        if is_counter {
            let schema = h[1..].iter().map(|h| h.1.schema).min().unwrap_or(0).min(result.schema);
            result = result.copy_to_schema(schema)?;
        }
        Ok(result)
    };
    let mut result = run().ok()?;
    let times: Vec<i64> = h.iter().map(|h| h.0).collect();
    let first = (is_counter && result.count > 0.0 && h[0].1.count >= 0.0).then_some(h[0].1.count);
    let factor = extrapolation(&times, w, first, result.count);
    result.mul(if name == "rate" { factor / seconds(w.end - w.start) } else { factor });
    Some(V::H(result))
}

fn hits(name: &str, samples: &[Sample]) -> f64 {
    let hit = |a: &V, b: &V| match (a, b, name) {
        (V::F(a), V::F(b), "resets") => b < a,
        (V::F(a), V::F(b), _) => a != b && !(a.is_nan() && b.is_nan()),
        (V::H(a), V::H(b), "resets") => b.detect_reset(a),
        (V::H(a), V::H(b), _) => !b.equals(a),
        _ => true,
    };
    samples.windows(2).filter(|p| hit(&p[0].v, &p[1].v)).count() as f64
}

fn instant(name: &str, samples: &[Sample]) -> Result<Option<V>, Stop> {
    let [.., a, b] = samples else { return Ok(None) };
    let rate = name == "irate";
    let apart = seconds(b.t - a.t);
    Ok(match (&a.v, &b.v) {
        (V::F(p), V::F(v)) => {
            let change = if rate && v < p { *v } else { v - p };
            Some(V::F(if rate { change / apart } else { change }))
        }
        (V::H(p), V::H(h)) => {
            let mut result = h.clone();
            if !(rate && h.detect_reset(p)) && result.sub(p).is_err() {
                return Ok(None);
            }
            if rate {
                result.div(apart);
            }
            Some(V::H(result))
        }
        _ => None,
    })
}

/// `anchored` and `smoothed`.
fn extended(call: &Call<'_>, w: &Window) -> Option<V> {
    let floats: Vec<(i64, f64)> =
        w.all.iter().filter_map(|s| if let V::F(v) = s.v { Some((s.t, v)) } else { None }).collect();
    let at_or_before = |t: i64| floats.iter().rposition(|f| f.0 <= t);
    let inside: Vec<usize> =
        (0..floats.len()).filter(|&i| floats[i].0 > w.start && floats[i].0 <= w.end).collect();
    let is_counter = matches!(call.name, "rate" | "increase");
    if call.anchored {
        if inside.is_empty() {
            return None;
        }
        let first = at_or_before(w.start).unwrap_or(inside[0]);
        let values: Vec<f64> = floats[first..=inside[inside.len() - 1]].iter().map(|f| f.1).collect();
        return Some(V::F(match call.name {
            "changes" => values.windows(2).filter(|p| p[0] != p[1]).count() as f64,
            "resets" => values.windows(2).filter(|p| p[1] < p[0]).count() as f64,
            _ => finish(call, w, &values, is_counter),
        }));
    }
    // No sample at or before the end after the start, and none around: nothing to draw a line through.
    let last_before_end = at_or_before(w.end);
    let has_after = floats.iter().any(|f| f.0 >= w.end);
    let first_after_start = floats.iter().position(|f| f.0 > w.start)?;
    if last_before_end.is_none() || (inside.is_empty() && !has_after) {
        return None;
    }
    let value_at = |t: i64| -> f64 {
        match (at_or_before(t), floats.iter().position(|f| f.0 > t)) {
            (Some(a), _) if floats[a].0 == t => floats[a].1,
            (Some(a), Some(b)) => {
                let ((t1, v1), (t2, v2)) = (floats[a], floats[b]);
                let v1 = if is_counter && v2 < v1 { 0.0 } else { v1 };
                v1 + (v2 - v1) * (t - t1) as f64 / (t2 - t1) as f64
            }
            (Some(a), None) => floats[a].1,
            (None, _) => floats[first_after_start].1,
        }
    };
    let mut values = vec![value_at(w.start)];
    values.extend(inside.iter().filter(|&&i| floats[i].0 < w.end).map(|&i| floats[i].1));
    values.push(value_at(w.end));
    Some(V::F(finish(call, w, &values, is_counter)))
}

fn finish(call: &Call<'_>, w: &Window, values: &[f64], is_counter: bool) -> f64 {
    let mut result = values[values.len() - 1] - values[0];
    if is_counter {
        result += values.windows(2).filter(|p| p[1] < p[0]).map(|p| p[0]).sum::<f64>();
    }
    if call.name == "rate" { result / seconds(w.end - w.start) } else { result }
}

pub fn quantile(q: f64, mut values: Vec<f64>) -> f64 {
    if values.is_empty() || q.is_nan() {
        return f64::NAN;
    }
    if !(0.0..=1.0).contains(&q) {
        return if q < 0.0 { f64::NEG_INFINITY } else { f64::INFINITY };
    }
    values.sort_by(|a, b| b.is_nan().cmp(&a.is_nan()).then(a.total_cmp(b)));
    let rank = q * (values.len() - 1) as f64;
    let (lower, weight) = (rank.floor() as usize, rank - rank.floor());
    let upper = (lower + 1).min(values.len() - 1);
    values[lower] * (1.0 - weight) + values[upper] * weight
}

/// Least squares: slope per second, and the value at a time.
fn line(points: &[(i64, f64)], at: i64) -> (f64, f64) {
    if points.iter().all(|p| p.1 == points[0].1) {
        return if points[0].1.is_infinite() { (f64::NAN, f64::NAN) } else { (0.0, points[0].1) };
    }
    let n = points.len() as f64;
    let x = |p: &(i64, f64)| seconds(p.0 - at);
    let (mx, my) = (points.iter().map(x).sum::<f64>() / n, points.iter().map(|p| p.1).sum::<f64>() / n);
    let slope = points.iter().map(|p| (x(p) - mx) * (p.1 - my)).sum::<f64>()
        / points.iter().map(|p| (x(p) - mx) * (x(p) - mx)).sum::<f64>();
    (slope, my - slope * mx)
}

/// Whether a sample is a marker.
pub fn is_marker(v: &V) -> bool {
    match v {
        V::F(v) => is_stale_nan(*v),
        V::H(h) => is_stale_nan(h.sum),
    }
}
