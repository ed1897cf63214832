//! Expressions from their definitions: per step, per series, per sample.

use std::collections::BTreeMap;

use sextant_model::{
    ClassicBucket, Histogram, Labels, METRIC_NAME, MatchOp, Matcher, ResetHint, bucket_fraction,
    bucket_quantile,
};
use sextant_promql::{
    AggregateExpr, AggregateOp, AtModifier, BinaryExpr, BinaryOp, CallExpr, Cardinality, Expr, SubqueryExpr,
    ValueType, VectorSelector,
};

use super::windows::{Call, Window, is_marker, over_window, quantile};

/// A value: a float or a native histogram.
#[derive(Clone, Debug)]
pub enum V {
    F(f64),
    H(Histogram),
}

/// A sample of a series.
#[derive(Clone, Debug)]
pub struct Sample {
    pub t: i64,
    pub v: V,
}

/// A series and all of its samples.
pub struct Series {
    pub labels: Labels,
    pub samples: Vec<Sample>,
}

/// One element of an instant vector: labels, whether the name goes, value.
pub type Element = (Labels, bool, V);

/// Why there is no value.
#[derive(Debug)]
pub enum Stop {
    /// Prometheus gives an error.
    Error,
    /// The twin does not say, with the reason: the answer hangs on the last bits of a number, or on an order that is
    /// not defined.
    #[allow(dead_code)]
    Unsure(String),
}

pub enum Naive {
    Scalar(f64),
    Vector(Vec<Element>),
}

/// The query's times and the data.
pub struct Env<'a> {
    pub data: &'a [Series],
    pub start: i64,
    pub end: i64,
    pub lookback: i64,
}

fn unsure<X>(why: &str) -> Result<X, Stop> {
    Err(Stop::Unsure(why.to_owned()))
}

/// Numbers that differ by rounding only; equal ones do not.
fn is_near(a: f64, b: f64) -> bool {
    a != b && (a - b).abs() <= 1e-8 * a.abs().max(b.abs()).max(1e-6)
}

fn without_name(labels: &Labels) -> Labels {
    labels.filter(|n| n != METRIC_NAME && n != "__type__" && n != "__unit__")
}

impl Env<'_> {
    fn time(&self, at: Option<AtModifier>, offset: i64, t: i64) -> i64 {
        let at = match at {
            None => t,
            Some(AtModifier::Timestamp(at)) => at,
            Some(AtModifier::Start) => self.start,
            Some(AtModifier::End) => self.end,
        };
        at - offset
    }

    fn matching<'a>(&'a self, matchers: &'a [Matcher]) -> impl Iterator<Item = &'a Series> {
        self.data.iter().filter(|s| matchers.iter().all(|m| m.matches(s.labels.get(&m.name).unwrap_or(""))))
    }

    fn newest<'a>(&self, s: &'a Series, t: i64) -> Option<&'a Sample> {
        let newest = s.samples.iter().rfind(|x| x.t <= t)?;
        (newest.t > t - self.lookback && !is_marker(&newest.v)).then_some(newest)
    }

    pub fn eval(&self, expr: &Expr, t: i64) -> Result<Naive, Stop> {
        Ok(match expr {
            Expr::Paren(p) => self.eval(&p.expr, t)?,
            Expr::NumberLiteral(n) => Naive::Scalar(n.val),
            Expr::VectorSelector(v) => Naive::Vector(self.selector(v, t)?),
            Expr::Unary(u) => match self.eval(&u.expr, t)? {
                x if !u.negative => x,
                Naive::Scalar(v) => Naive::Scalar(-v),
                Naive::Vector(all) => Naive::Vector(
                    all.into_iter()
                        .map(|(l, _, v)| {
                            (
                                l,
                                true,
                                match v {
                                    V::F(v) => V::F(-v),
                                    V::H(mut h) => {
                                        h.mul(-1.0);
                                        V::H(h)
                                    }
                                },
                            )
                        })
                        .collect(),
                ),
            },
            Expr::Aggregate(a) => Naive::Vector(self.aggregate(a, t)?),
            Expr::Binary(b) => self.binary(b, t)?,
            Expr::Call(c) => self.call(c, t)?,
            Expr::StringLiteral(_) | Expr::MatrixSelector(_) | Expr::Subquery(_) => return unsure("a type"),
        })
    }

    fn vector(&self, expr: &Expr, t: i64) -> Result<Vec<Element>, Stop> {
        match self.eval(expr, t)? {
            Naive::Vector(v) => Ok(v),
            Naive::Scalar(_) => unsure("a scalar"),
        }
    }

    fn scalar(&self, expr: &Expr, t: i64) -> Result<f64, Stop> {
        match self.eval(expr, t)? {
            Naive::Scalar(v) => Ok(v),
            Naive::Vector(_) => unsure("a vector"),
        }
    }

    fn selector(&self, v: &VectorSelector, t: i64) -> Result<Vec<Element>, Stop> {
        let at = self.time(v.at, v.offset_ms, t);
        let mut out = Vec::new();
        for s in self.matching(&v.matchers) {
            if !v.smoothed {
                out.extend(self.newest(s, at).map(|x| (s.labels.clone(), false, x.v.clone())));
                continue;
            }
            let near =
                |x: &&Sample| x.t > at - self.lookback && x.t <= at + self.lookback && !is_marker(&x.v);
            let before = s.samples.iter().filter(near).rfind(|x| x.t <= at);
            let after = s.samples.iter().filter(near).find(|x| x.t >= at);
            let value = match (before, after) {
                (Some(Sample { t: a, v: V::F(x) }), Some(Sample { t: b, v: V::F(y) })) if a != b => {
                    x + (y - x) * (at - a) as f64 / (b - a) as f64
                }
                (Some(Sample { v: V::F(x), .. }), _) => *x,
                (None, _) => continue,
                _ => return unsure("smoothed histograms"),
            };
            out.push((s.labels.clone(), false, V::F(value)));
        }
        Ok(out)
    }

    /// The window of each series of a range vector.
    fn windows(&self, expr: &Expr, t: i64) -> Result<Vec<(Labels, bool, Window, bool, bool)>, Stop> {
        match expr {
            Expr::Paren(p) => self.windows(&p.expr, t),
            Expr::MatrixSelector(m) => {
                let s = &m.selector;
                let end = self.time(s.at, s.offset_ms, t);
                let start = end - m.range_ms;
                let from = if s.anchored || s.smoothed { start - self.lookback } else { start };
                let to = if s.smoothed { end + self.lookback } else { end };
                let window = |all| Window { start, end, all };
                Ok(self
                    .matching(&s.matchers)
                    .map(|x| {
                        let inside = |x: &&Sample| x.t > from && x.t <= to && !is_marker(&x.v);
                        let all = x.samples.iter().filter(inside).cloned().collect();
                        (x.labels.clone(), false, window(all), s.anchored, s.smoothed)
                    })
                    .collect())
            }
            Expr::Subquery(s) => self.subquery(s, t),
            _ => unsure("a range"),
        }
    }

    fn subquery(&self, s: &SubqueryExpr, t: i64) -> Result<Vec<(Labels, bool, Window, bool, bool)>, Stop> {
        let end = self.time(s.at, s.offset_ms, t);
        let start = end - s.range_ms;
        let step = s.step_ms.unwrap_or(60_000);
        let mut at = start.div_euclid(step) * step;
        let mut series: BTreeMap<Labels, (bool, Vec<Sample>)> = BTreeMap::new();
        while at <= end {
            if at > start {
                for (labels, drop, v) in self.vector(&s.expr, at)? {
                    let of = series.entry(labels).or_default();
                    of.0 |= drop;
                    of.1.push(Sample { t: at, v: v.without_hint() });
                }
            }
            at += step;
        }
        let window = |all| Window { start, end, all };
        Ok(series.into_iter().map(|(l, (drop, all))| (l, drop, window(all), false, false)).collect())
    }

    fn call(&self, c: &CallExpr, t: i64) -> Result<Naive, Stop> {
        let name = c.func.name;
        if let Some(range) = c.args.iter().find(|a| a.value_type() == ValueType::Matrix) {
            return self.range_call(c, range, t).map(Naive::Vector);
        }
        let scalar = |i: usize| self.scalar(&c.args[i], t);
        let text = |i: usize| match c.args.get(i) {
            Some(Expr::StringLiteral(s)) => Ok(s.val.as_str()),
            _ => unsure("a text"),
        };
        match name {
            "time" => return Ok(Naive::Scalar(t as f64 / 1000.0)),
            "vector" => return Ok(Naive::Vector(vec![(Labels::empty(), false, V::F(scalar(0)?))])),
            "scalar" => {
                let floats: Vec<f64> =
                    self.vector(&c.args[0], t)?.into_iter().filter_map(|e| e.2.float()).collect();
                return Ok(Naive::Scalar(if floats.len() == 1 { floats[0] } else { f64::NAN }));
            }
            "max_of" | "min_of" => {
                let (a, b) = (scalar(0)?, scalar(1)?);
                let max = name == "max_of";
                let wins = if max { f64::INFINITY } else { f64::NEG_INFINITY };
                return Ok(Naive::Scalar(match (a, b) {
                    _ if a == wins || b == wins => wins,
                    _ if a.is_nan() || b.is_nan() => f64::NAN,
                    _ if max => a.max(b),
                    _ => a.min(b),
                }));
            }
            "histogram_quantile" => return self.quantiles(scalar(0)?, None, &c.args[1], t),
            "histogram_fraction" => return self.quantiles(scalar(0)?, Some(scalar(1)?), &c.args[2], t),
            "absent" => {
                let present = !self.vector(&c.args[0], t)?.is_empty();
                return Ok(Naive::Vector(absent(&c.args[0], present)));
            }
            "timestamp" => {
                if let Expr::VectorSelector(v) = c.args[0].unwrap_parens() {
                    let at = self.time(v.at, v.offset_ms, t);
                    let newest = |s: &Series| self.newest(s, at).map(|x| V::F(x.t as f64 / 1000.0));
                    let found = self.matching(&v.matchers);
                    let found = found.filter_map(|s| newest(s).map(|v| (s.labels.clone(), true, v)));
                    return Ok(Naive::Vector(found.collect()));
                }
            }
            _ => {}
        }
        let input = self.vector(&c.args[0], t)?;
        if name == "sort" {
            return Ok(Naive::Vector(input.into_iter().filter(|e| matches!(e.2, V::F(_))).collect()));
        }
        if name == "label_replace" || name == "label_join" {
            let mut out: Vec<Element> = Vec::new();
            for (labels, drop, v) in input {
                let dst = text(1)?;
                let value = if name == "label_join" {
                    Some([3, 4].map(|i| text(i).map(|n| labels.get(n).unwrap_or(""))))
                        .map(|[a, b]| Ok::<_, Stop>(format!("{}{}{}", a?, text(2)?, b?)))
                        .transpose()?
                } else {
                    let regex = sextant_model::anchored_regex(text(4)?).map_err(|_| Stop::Error)?;
                    let source = labels.get(text(3)?).unwrap_or("");
                    let to = text(2)?;
                    regex.captures(source).map(|groups| {
                        let mut value = String::new();
                        groups.expand(to, &mut value);
                        value
                    })
                };
                let (labels, drop) = match value {
                    None => (labels, drop),
                    Some(v) => (labels.to_builder().set(dst, &v).build(), drop && dst != METRIC_NAME),
                };
                if out.iter().any(|o| o.0 == labels) {
                    return Err(Stop::Error);
                }
                out.push((labels, drop, v));
            }
            return Ok(Naive::Vector(out));
        }
        let args = (1..c.args.len()).map(scalar).collect::<Result<Vec<f64>, _>>()?;
        let mut out = Vec::new();
        for (labels, _, v) in input {
            out.extend(elementwise(name, &v, &args, t)?.map(|v| (labels, true, V::F(v))));
        }
        Ok(Naive::Vector(out))
    }

    fn range_call(&self, c: &CallExpr, range: &Expr, t: i64) -> Result<Vec<Element>, Stop> {
        let name = c.func.name;
        let scalars = c.args.iter().filter(|a| a.value_type() == ValueType::Scalar);
        let args = scalars.map(|a| self.scalar(a, t)).collect::<Result<Vec<f64>, _>>()?;
        let mut out = Vec::new();
        for (labels, drop, window, anchored, smoothed) in self.windows(range, t)? {
            let call = Call { name, args: args.clone(), t, anchored, smoothed };
            let keeps = matches!(name, "last_over_time" | "first_over_time");
            out.extend(over_window(&call, &window)?.map(|v| (labels, drop || !keeps, v)));
        }
        if name == "absent_over_time" {
            return Ok(absent(range, !out.is_empty()));
        }
        Ok(out)
    }

    fn quantiles(&self, a: f64, b: Option<f64>, input: &Expr, t: i64) -> Result<Naive, Stop> {
        let input = self.vector(input, t)?;
        let mut classic: BTreeMap<Labels, Vec<ClassicBucket>> = BTreeMap::new();
        for (labels, _, v) in &input {
            if let (V::F(count), Ok(upper_bound)) = (v, labels.get("le").unwrap_or("").parse()) {
                let of = classic.entry(labels.filter(|n| n != "le")).or_default();
                of.push(ClassicBucket { upper_bound, count: *count });
            }
        }
        let mut out = Vec::new();
        for (labels, _, v) in &input {
            let V::H(h) = v else { continue };
            if classic.remove(labels).is_none() {
                let v = match b {
                    None => h.quantile_with_info(a).0,
                    Some(b) => h.fraction_with_info(a, b).0,
                };
                out.push((labels.clone(), true, V::F(v)));
            }
        }
        for (labels, mut buckets) in classic {
            let v = match b {
                None => bucket_quantile(a, &mut buckets).value,
                Some(b) => bucket_fraction(a, b, &mut buckets),
            };
            out.push((labels, true, V::F(v)));
        }
        Ok(Naive::Vector(out))
    }

    fn aggregate(&self, a: &AggregateExpr, t: i64) -> Result<Vec<Element>, Stop> {
        let input = self.vector(&a.expr, t)?;
        let listed = |n: &str| a.grouping.iter().any(|g| g == n);
        let key =
            |l: &Labels| l.filter(|n| if a.without { !listed(n) && n != METRIC_NAME } else { listed(n) });
        if a.op == AggregateOp::CountValues {
            let Some(Expr::StringLiteral(label)) = &a.param else { return unsure("a label") };
            let mut counts: BTreeMap<Labels, f64> = BTreeMap::new();
            for (labels, _, v) in &input {
                let V::F(v) = v else { return unsure("histograms as text") };
                if v.fract() != 0.0 && (v * 1024.0).fract() != 0.0 {
                    return unsure("digits as text");
                }
                let group = key(labels).to_builder().set(&label.val, &crate::format::plain_float(*v)).build();
                *counts.entry(group).or_default() += 1.0;
            }
            return Ok(counts.into_iter().map(|(l, n)| (l, false, V::F(n))).collect());
        }
        let param = match &a.param {
            Some(p) => self.scalar(p, t)?,
            None => f64::NAN,
        };
        let mut groups: BTreeMap<Labels, Vec<&Element>> = BTreeMap::new();
        for e in &input {
            groups.entry(key(&e.0)).or_default().push(e);
        }
        let mut out = Vec::new();
        for (labels, members) in groups {
            let drop = members.iter().any(|m| m.1);
            let floats: Vec<f64> = members.iter().filter_map(|m| m.2.float()).collect();
            if matches!(a.op, AggregateOp::Topk | AggregateOp::Bottomk) {
                out.extend(best(a.op == AggregateOp::Topk, param, &members)?);
                continue;
            }
            out.extend(group_value(a.op, param, &floats, &members)?.map(|v| (labels, drop, v)));
        }
        Ok(out)
    }

    fn binary(&self, b: &BinaryExpr, t: i64) -> Result<Naive, Stop> {
        let meaning = !b.op.is_comparison() && !b.op.is_set();
        let drops = |drop: bool| drop || meaning || b.return_bool;
        Ok(match (self.eval(&b.lhs, t)?, self.eval(&b.rhs, t)?) {
            (Naive::Scalar(l), Naive::Scalar(r)) => Naive::Scalar(float(b.op, l, r)?),
            (Naive::Vector(l), Naive::Scalar(r)) => {
                let mut out = Vec::new();
                for (labels, drop, v) in l {
                    let result = element(b, &v, &V::F(r))?;
                    out.extend(result.and_then(|(r, keep)| keep.then_some((labels, drops(drop), r))));
                }
                Naive::Vector(out)
            }
            (Naive::Scalar(l), Naive::Vector(r)) => {
                let mut out = Vec::new();
                for (labels, drop, v) in r {
                    let result = element(b, &V::F(l), &v)?;
                    let Some((value, keep)) = result else { continue };
                    if keep {
                        let value = if meaning || b.return_bool { value } else { v };
                        out.push((labels, drops(drop), value));
                    }
                }
                Naive::Vector(out)
            }
            (Naive::Vector(l), Naive::Vector(r)) if b.op.is_set() => Naive::Vector(set(b, l, r)),
            (Naive::Vector(l), Naive::Vector(r)) => Naive::Vector(matched(b, &l, &r)?),
        })
    }
}

impl V {
    /// What a subquery gives: samples in between may be missing or seen twice, so that nothing is known of resets.
    fn without_hint(mut self) -> Self {
        if let Self::H(h) = &mut self
            && h.reset_hint != ResetHint::Gauge
        {
            h.reset_hint = ResetHint::Unknown;
        }
        self
    }

    pub fn float(&self) -> Option<f64> {
        match self {
            V::F(v) => Some(*v),
            V::H(_) => None,
        }
    }
}

fn absent(expr: &Expr, present: bool) -> Vec<Element> {
    if present {
        return Vec::new();
    }
    let matchers = match expr.unwrap_parens() {
        Expr::VectorSelector(v) => &v.matchers[..],
        Expr::MatrixSelector(m) => &m.selector.matchers[..],
        _ => &[],
    };
    let of = |name: &str| matchers.iter().filter(|m| m.name == name).count();
    let pairs =
        matchers.iter().filter(|m| m.op == MatchOp::Equal && m.name != METRIC_NAME && of(&m.name) == 1);
    let labels = Labels::from_pairs(pairs.map(|m| (&m.name, &m.value))).unwrap_or_else(|_| Labels::empty());
    vec![(labels, false, V::F(1.0))]
}

fn elementwise(name: &str, v: &V, args: &[f64], t: i64) -> Result<Option<f64>, Stop> {
    if name == "timestamp" {
        return Ok(Some(t as f64 / 1000.0));
    }
    let x = match (name, v) {
        ("histogram_count", V::H(h)) => return Ok(Some(h.count)),
        ("histogram_sum", V::H(h)) => return Ok(Some(h.sum)),
        ("histogram_avg", V::H(h)) => return Ok(Some(h.sum / h.count)),
        ("histogram_count" | "histogram_sum" | "histogram_avg", _) | (_, V::H(_)) => return Ok(None),
        (_, V::F(x)) => *x,
    };
    let is_step = matches!(name, "ceil" | "floor" | "round" | "sgn" | "hour" | "minute" | "day_of_week");
    let scaled = if name == "round" { x * 2.0 + 0.5 } else { x };
    if is_step && (is_near(scaled, scaled.round()) || (name == "sgn" && x != 0.0 && x.abs() < 1e-6)) {
        return unsure("a step function beside a step");
    }
    let go = |a: f64, b: f64, max: bool| {
        if a.is_nan() || b.is_nan() {
            f64::NAN
        } else if max {
            a.max(b)
        } else {
            a.min(b)
        }
    };
    Ok(Some(match name {
        "abs" => x.abs(),
        "ceil" => x.ceil(),
        "floor" => x.floor(),
        "sgn" if x == 0.0 || x.is_nan() => x,
        "sgn" => x.signum(),
        "sqrt" => x.sqrt(),
        "exp" => x.exp(),
        "ln" => x.ln(),
        "log2" => x.log2(),
        "sin" if x.abs() > 1e6 => return unsure("the sine of a large number"),
        "sin" => x.sin(),
        "deg" => x * 180.0 / std::f64::consts::PI,
        "atan" => x.atan(),
        "hour" | "minute" | "day_of_week" if !x.is_finite() || x.abs() > 1e11 => return unsure("a date"),
        "hour" => (x.trunc() as i64).rem_euclid(86_400).div_euclid(3600) as f64,
        "minute" => (x.trunc() as i64).rem_euclid(3600).div_euclid(60) as f64,
        "day_of_week" => ((x.trunc() as i64).div_euclid(86_400) + 4).rem_euclid(7) as f64,
        "round" => (x * 2.0 + 0.5).floor() / 2.0,
        "clamp" if args[1] < args[0] => return Ok(None),
        "clamp" if args.iter().any(|a| !a.is_finite()) || !x.is_finite() => {
            return unsure("clamped infinities");
        }
        "clamp" => go(args[0], go(args[1], x, false), true),
        _ => return unsure(name),
    }))
}

fn best(largest: bool, k: f64, members: &[&Element]) -> Result<Vec<Element>, Stop> {
    if k.is_nan() {
        return Err(Stop::Error);
    }
    let k = k.max(0.0) as usize;
    let mut floats: Vec<(f64, &Element)> =
        members.iter().filter_map(|m| m.2.float().map(|v| (v, *m))).collect();
    if floats.iter().any(|f| f.0.is_nan()) {
        return unsure("NaN in topk");
    }
    floats.sort_by(|a, b| if largest { b.0.total_cmp(&a.0) } else { a.0.total_cmp(&b.0) });
    if k > 0 && floats.len() > k && (floats[k - 1].0 == floats[k].0 || is_near(floats[k - 1].0, floats[k].0))
    {
        return unsure("a tie in topk");
    }
    Ok(floats.into_iter().take(k).map(|f| f.1.clone()).collect())
}

fn group_value(op: AggregateOp, q: f64, floats: &[f64], members: &[&Element]) -> Result<Option<V>, Stop> {
    let n = floats.len() as f64;
    let sum = floats.iter().sum::<f64>();
    let float = |v: f64| Ok((!floats.is_empty()).then_some(V::F(v)));
    let variance = || floats.iter().map(|x| (x - sum / n) * (x - sum / n)).sum::<f64>() / n;
    match op {
        AggregateOp::Count => Ok(Some(V::F(members.len() as f64))),
        AggregateOp::Group => Ok(Some(V::F(1.0))),
        AggregateOp::Min => float(floats.iter().copied().fold(f64::NAN, f64::min)),
        AggregateOp::Max => float(floats.iter().copied().fold(f64::NAN, f64::max)),
        AggregateOp::Stdvar => float(variance()),
        AggregateOp::Stddev => float(variance().sqrt()),
        AggregateOp::Quantile => float(quantile(q, floats.to_vec())),
        AggregateOp::Sum | AggregateOp::Avg => {
            let mut histograms =
                members.iter().filter_map(|m| if let V::H(h) = &m.2 { Some(h) } else { None });
            let Some(first) = histograms.next() else {
                return float(if op == AggregateOp::Sum { sum } else { sum / n });
            };
            if !floats.is_empty() {
                return Ok(None);
            }
            let mut total = first.clone();
            for h in histograms {
                total.add(h).map_err(|_| Stop::Unsure("histograms that do not add".to_owned()))?;
            }
            if op == AggregateOp::Avg {
                total.div(members.len() as f64);
            }
            Ok(Some(V::H(total)))
        }
        _ => unsure("an aggregation"),
    }
}

fn float(op: BinaryOp, a: f64, b: f64) -> Result<f64, Stop> {
    if op.is_comparison() && is_near(a, b) {
        return unsure("a comparison of nearly equal numbers");
    }
    let truth = |b: bool| f64::from(u8::from(b));
    Ok(match op {
        BinaryOp::Add => a + b,
        BinaryOp::Sub => a - b,
        BinaryOp::Mul => a * b,
        BinaryOp::Div => a / b,
        BinaryOp::Mod if b != 0.0 && is_near(a / b, (a / b).round()) => {
            return unsure("a remainder beside zero");
        }
        BinaryOp::Mod => a % b,
        BinaryOp::Pow => a.powf(b),
        BinaryOp::Atan2 if a.abs() < 1e-6 || b.abs() < 1e-6 => return unsure("an angle beside zero"),
        BinaryOp::Atan2 => a.atan2(b),
        BinaryOp::Gt => truth(a > b),
        BinaryOp::Lt => truth(a < b),
        BinaryOp::Ge => truth(a >= b),
        BinaryOp::Le => truth(a <= b),
        BinaryOp::Eq => truth(a == b),
        BinaryOp::Ne => truth(a != b),
        _ => return unsure("an operator"),
    })
}

/// The value, and whether it is kept; `None` where the operator has no meaning for the two.
fn element(b: &BinaryExpr, l: &V, r: &V) -> Result<Option<(V, bool)>, Stop> {
    use BinaryOp as B;
    let comparison = b.op.is_comparison();
    Ok(match (l, r) {
        (V::F(x), V::F(y)) => {
            let v = float(b.op, *x, *y)?;
            if comparison && !b.return_bool { Some((V::F(*x), v != 0.0)) } else { Some((V::F(v), true)) }
        }
        (V::H(x), V::H(y)) => match b.op {
            B::Add | B::Sub => {
                let mut h = x.clone();
                let done = if b.op == B::Add { h.add(y) } else { h.sub(y) };
                done.map_err(|_| Stop::Unsure("histograms that do not add".to_owned()))?;
                Some((V::H(h), true))
            }
            B::Eq | B::Ne => return unsure("equal histograms"),
            _ => None,
        },
        (V::H(x), V::F(y)) if matches!(b.op, B::Mul | B::Div) => {
            let mut h = x.clone();
            if b.op == B::Mul {
                h.mul(*y)
            } else {
                h.div(*y)
            }
            Some((V::H(h), true))
        }
        (V::F(x), V::H(y)) if b.op == B::Mul => {
            let mut h = y.clone();
            h.mul(*x);
            Some((V::H(h), true))
        }
        _ => None,
    })
}

fn signature(b: &BinaryExpr, l: &Labels) -> Labels {
    let matching = b.matching.clone().unwrap_or_default();
    let listed = |n: &str| matching.labels.iter().any(|l| l == n);
    l.filter(|n| if matching.on { listed(n) } else { !listed(n) && n != METRIC_NAME })
}

fn set(b: &BinaryExpr, l: Vec<Element>, r: Vec<Element>) -> Vec<Element> {
    let has = |all: &[Element], e: &Element| all.iter().any(|o| signature(b, &o.0) == signature(b, &e.0));
    match b.op {
        BinaryOp::And => l.into_iter().filter(|e| has(&r, e)).collect(),
        BinaryOp::Unless => l.into_iter().filter(|e| !has(&r, e)).collect(),
        _ => {
            let more: Vec<Element> = r.into_iter().filter(|e| !has(&l, e)).collect();
            l.into_iter().chain(more).collect()
        }
    }
}

fn matched(b: &BinaryExpr, lhs: &[Element], rhs: &[Element]) -> Result<Vec<Element>, Stop> {
    let matching = b.matching.clone().unwrap_or_default();
    let fills = matching.fill_lhs.is_some() || matching.fill_rhs.is_some();
    if !fills && (lhs.is_empty() || rhs.is_empty()) {
        return Ok(Vec::new());
    }
    if fills && matching.card != Cardinality::OneToOne {
        return unsure("fill with groups");
    }
    let swapped = matching.card == Cardinality::OneToMany;
    let (many, one) = if swapped { (rhs, lhs) } else { (lhs, rhs) };
    for (i, o) in one.iter().enumerate() {
        if one[..i].iter().any(|p| signature(b, &p.0) == signature(b, &o.0)) {
            return Err(Stop::Error);
        }
    }
    let meaning = !b.op.is_comparison();
    let listed = |n: &str| matching.labels.iter().any(|l| l == n);
    let one_to_one = matching.card == Cardinality::OneToOne;
    let mut out: Vec<Element> = Vec::new();
    let mut seen: Vec<(Labels, Labels)> = Vec::new();
    let mut pair = |m: &Element, o: &Element, value: (&V, &V)| -> Result<(), Stop> {
        let (l, r) = if swapped { (value.1, value.0) } else { value };
        let Some((v, keep)) = element(b, l, r)? else {
            return if fills { unsure("fill beside what has no meaning") } else { Ok(()) };
        };
        let base =
            m.0.filter(|n| !(meaning && n == METRIC_NAME) && (!one_to_one || listed(n) == matching.on));
        let mut builder = base.to_builder();
        for name in &matching.include {
            builder.set(name, o.0.get(name).unwrap_or(""));
        }
        let labels = builder.build();
        let key = (signature(b, &m.0), if one_to_one { Labels::empty() } else { labels.clone() });
        if seen.contains(&key) {
            return Err(Stop::Error);
        }
        seen.push(key);
        if keep {
            out.push((labels, b.return_bool || (m.1 && !meaning), v));
        }
        Ok(())
    };
    for m in many {
        let other = one.iter().find(|o| signature(b, &o.0) == signature(b, &m.0));
        match (other, matching.fill_rhs) {
            (Some(o), _) => pair(m, o, (&m.2, &o.2))?,
            (None, Some(fill)) => pair(m, &(signature(b, &m.0), false, V::F(fill)), (&m.2, &V::F(fill)))?,
            (None, None) => {}
        }
    }
    if let Some(fill) = matching.fill_lhs {
        for o in one {
            if !many.iter().any(|m| signature(b, &m.0) == signature(b, &o.0)) {
                let m = (signature(b, &o.0), o.1, V::F(fill));
                pair(&m, o, (&V::F(fill), &o.2))?;
            }
        }
    }
    for (i, e) in out.iter().enumerate() {
        if out[..i].iter().any(|o| o.0 == e.0) {
            return Err(Stop::Error);
        }
    }
    Ok(out)
}

/// The labels of an element once the query ends.
pub fn final_labels(labels: &Labels, drop: bool) -> Labels {
    if drop { without_name(labels) } else { labels.clone() }
}
