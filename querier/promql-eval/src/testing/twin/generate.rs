//! Data and queries from bytes: the same bytes give the same case, and any bytes give one.

use sextant_model::{Histogram, HistogramSample, LabelsBuilder, METRIC_NAME, SeriesBuf, Span, stale_nan};

use super::super::MemorySource;

/// Decisions, read from bytes; once they are used up, always the first choice.
pub struct Choices<'a>(&'a [u8]);

impl<'a> Choices<'a> {
    pub fn new(data: &'a [u8]) -> Self {
        Self(data)
    }

    fn byte(&mut self) -> usize {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        usize::from(first)
    }

    /// A number below `n`, which is at most 256.
    pub fn below(&mut self, n: usize) -> usize {
        self.byte() % n.max(1)
    }

    /// True once in `n`.
    pub fn once_in(&mut self, n: usize) -> bool {
        self.byte() % n == 1
    }

    pub fn one<X: Copy>(&mut self, of: &[X]) -> X {
        of[self.below(of.len())]
    }

    /// Whether the bytes are used up.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Some series over half an hour: floats with gaps, resets and staleness markers; classic and native histograms.
pub fn data(c: &mut Choices<'_>) -> MemorySource {
    let mut source = MemorySource::default();
    for i in 0..2 + c.below(7) {
        let name = c.one(&["m", "n", "c_total", "h_bucket", "nh", "mixed"]);
        let mut labels = LabelsBuilder::default();
        labels.set(METRIC_NAME, name).set("a", c.one(&["0", "1", "2"])).set("b", c.one(&["", "x", "y"]));
        if name == "h_bucket" {
            labels.set("le", c.one(&["0.1", "1", "5", "+Inf"]));
        }
        // Every series is its own, so that no sample is added out of order.
        labels.set("i", &i.to_string());
        if c.once_in(3) {
            labels.remove("i").set("only", &i.to_string());
        }
        source.add(labels.build(), samples(c, name));
    }
    source
}

fn samples(c: &mut Choices<'_>, name: &str) -> SeriesBuf {
    let mut buf = SeriesBuf::default();
    let (mut t, mut v) = (c.below(60) as i64 * 1000, 0.0);
    let mut h = histogram(c);
    for _ in 0..c.below(40) {
        t += c.one(&[15_000, 15_000, 15_000, 30_000, 7001, 200_000]) + c.below(2) as i64;
        v = match c.below(10) {
            0 => 0.0,
            1 => (c.below(256) as f64 - 128.0) / 8.0,
            _ => v + c.below(64) as f64 / 4.0,
        };
        if c.once_in(20) {
            buf.t.push(t);
            buf.v.push(stale_nan());
        } else if name == "nh" || (name == "mixed" && c.once_in(2)) {
            grow(c, &mut h);
            buf.h.push(HistogramSample { t, start: 0, h: h.clone() });
        } else {
            buf.t.push(t);
            buf.v.push(v);
        }
    }
    buf
}

fn histogram(c: &mut Choices<'_>) -> Histogram {
    Histogram {
        schema: c.below(3) as i32,
        zero_threshold: 0.001,
        positive_spans: vec![Span { offset: c.below(4) as i32 - 1, length: 3 }],
        positive_buckets: vec![0.0; 3],
        ..Histogram::default()
    }
}

/// More observations; now and then a reset.
fn grow(c: &mut Choices<'_>, h: &mut Histogram) {
    if c.once_in(8) {
        *h = histogram(c);
    }
    for bucket in &mut h.positive_buckets {
        *bucket += c.below(5) as f64;
    }
    h.zero_count += c.below(3) as f64;
    h.count = h.zero_count + h.positive_buckets.iter().sum::<f64>();
    h.sum += c.below(32) as f64 / 2.0;
}

/// A query of the twin's language.
pub fn query(c: &mut Choices<'_>) -> String {
    if c.once_in(12) { scalar(c, 3) } else { vector(c, 4) }
}

fn selector(c: &mut Choices<'_>) -> &'static str {
    c.one(&[
        "m",
        "n",
        "c_total",
        "nh",
        "mixed",
        "h_bucket",
        "{a=~\"0|1\"}",
        "m{b!=\"\"}",
        "{__name__=~\"m|n|nh\"}",
        "c_total{a=\"0\"}",
        "{b=\"x\",__name__!=\"n\"}",
    ])
}

fn offset(c: &mut Choices<'_>) -> String {
    let offset = c.one(&["", "", "", " offset 30s", " offset -1m"]);
    let at = c.one(&["", "", "", "", " @ 600", " @ start()", " @ end()"]);
    format!("{offset}{at}")
}

const RANGED: &[&str] = &[
    "rate",
    "increase",
    "delta",
    "irate",
    "idelta",
    "resets",
    "changes",
    "avg_over_time",
    "sum_over_time",
    "min_over_time",
    "max_over_time",
    "count_over_time",
    "last_over_time",
    "first_over_time",
    "present_over_time",
    "stddev_over_time",
    "stdvar_over_time",
    "mad_over_time",
    "deriv",
    "ts_of_first_over_time",
    "ts_of_last_over_time",
    "ts_of_min_over_time",
    "ts_of_max_over_time",
    "absent_over_time",
];

fn ranged(c: &mut Choices<'_>, depth: usize) -> String {
    let range = c.one(&["30s", "1m", "5m", "17s"]);
    let matrix = if depth > 1 && c.once_in(4) {
        let step = c.one(&["15s", "30s", "1m", "7s"]);
        format!("({})[{range}:{step}]{}", vector(c, depth - 2), offset(c))
    } else {
        format!("{}[{range}]{}", selector(c), offset(c))
    };
    match c.below(12) {
        0 => format!("quantile_over_time({}, {matrix})", scalar(c, depth.min(1))),
        1 => format!("predict_linear({matrix}, {})", scalar(c, depth.min(1))),
        2 => format!("double_exponential_smoothing({matrix}, 0.3, 0.6)"),
        3 => {
            let function = c.one(&["rate", "increase", "delta"]);
            format!("{function}(c_total[{range}] {})", c.one(&["anchored", "smoothed"]))
        }
        4 => format!("{}(m[{range}] anchored)", c.one(&["changes", "resets"])),
        _ => format!("{}({matrix})", c.one(RANGED)),
    }
}

fn scalar(c: &mut Choices<'_>, depth: usize) -> String {
    if depth == 0 {
        return c.one(&["2.5", "0.5", "0", "-1", "time()", "3", "NaN", "Inf"]).to_owned();
    }
    match c.below(6) {
        0 => format!("scalar({})", vector(c, depth - 1)),
        1 => format!("({} {} {})", scalar(c, depth - 1), c.one(&["+", "-", "*", "/"]), scalar(c, depth - 1)),
        2 => format!("{}({}, {})", c.one(&["max_of", "min_of"]), scalar(c, depth - 1), scalar(c, depth - 1)),
        3 => format!("({} > bool {})", scalar(c, depth - 1), scalar(c, depth - 1)),
        _ => scalar(c, 0),
    }
}

const GROUPINGS: &[&str] =
    &["", " by (a)", " by (a, b)", " without (a)", " by (__name__)", " without (b, i, only)"];
const MATH: &[&str] = &[
    "abs",
    "ceil",
    "floor",
    "sgn",
    "sqrt",
    "exp",
    "ln",
    "log2",
    "sin",
    "deg",
    "atan",
    "hour",
    "minute",
    "day_of_week",
    "histogram_count",
    "histogram_sum",
    "histogram_avg",
    "timestamp",
    "-",
    "sort",
    "absent",
];

fn vector(c: &mut Choices<'_>, depth: usize) -> String {
    if depth == 0 || c.is_empty() {
        return match c.below(8) {
            0 => format!("{} smoothed", c.one(&["m", "n", "c_total"])),
            1 => format!("vector({})", scalar(c, 0)),
            _ => format!("{}{}", selector(c), offset(c)),
        };
    }
    match c.below(16) {
        0..=3 => ranged(c, depth),
        4 | 5 => {
            let function = c.one(&["sum", "avg", "count", "min", "max", "group", "stddev", "stdvar"]);
            format!("{function}{} ({})", c.one(GROUPINGS), vector(c, depth - 1))
        }
        6 => match c.below(4) {
            0 => format!("quantile{} ({}, {})", c.one(GROUPINGS), scalar(c, 0), vector(c, depth - 1)),
            1 => format!("count_values{} (\"v\", floor({}))", c.one(GROUPINGS), vector(c, depth - 1)),
            _ => {
                let function = c.one(&["topk", "bottomk"]);
                format!(
                    "{function}{} ({}, {})",
                    c.one(GROUPINGS),
                    c.one(&["1", "2", "0"]),
                    vector(c, depth - 1)
                )
            }
        },
        7 | 8 => {
            let op = c.one(&["+", "-", "*", "/", ">", "<=", "==", "!=", "> bool", "%", "^", "atan2"]);
            let on = c.one(&["", " on (a)", " on (a, b)", " ignoring (b)", " ignoring (i, only, le)"]);
            let fill = c.one(&["", "", "", " fill (0)", " fill_left (1)", " fill_right (2)"]);
            format!("({}) {op}{on}{fill} ({})", vector(c, depth - 1), vector(c, depth - 1))
        }
        9 => {
            let op = c.one(&["+", "*", "/", ">", "== bool"]);
            let on = c.one(&["on (a)", "on (a, b)", "ignoring (i, only, b)"]);
            let group = c.one(&["group_left ()", "group_left (b)", "group_right ()", "group_right (i)"]);
            let one = format!("sum by (a, b) ({})", vector(c, depth - 1));
            let many = vector(c, depth - 1);
            let (l, r) = if group.starts_with("group_left") { (many, one) } else { (one, many) };
            format!("({l}) {op} {on} {group} ({r})")
        }
        10 => {
            let op = c.one(&["and", "or", "unless"]);
            let on = c.one(&["", " on (a)", " on ()", " ignoring (i, only, le)"]);
            format!("({}) {op}{on} ({})", vector(c, depth - 1), vector(c, depth - 1))
        }
        11 => {
            let op = c.one(&["+", "*", "/", "-", ">", "< bool", "!="]);
            if c.once_in(2) {
                format!("({}) {op} {}", vector(c, depth - 1), scalar(c, depth - 1))
            } else {
                format!("{} {op} ({})", scalar(c, depth - 1), vector(c, depth - 1))
            }
        }
        12 | 13 => match c.below(4) {
            0 => format!("clamp({}, {}, {})", vector(c, depth - 1), scalar(c, 0), scalar(c, 0)),
            1 => format!("round({}, 0.5)", vector(c, depth - 1)),
            _ => format!("{}({})", c.one(MATH), vector(c, depth - 1)),
        },
        14 => {
            let (dst, to) = (c.one(&["b", "z", "__name__"]), c.one(&["$1-x", "k", ""]));
            match c.below(3) {
                0 => format!("label_join({}, \"{dst}\", \"-\", \"a\", \"i\")", vector(c, depth - 1)),
                _ => {
                    format!("label_replace({}, \"{dst}\", \"{to}\", \"a\", \"(0|1)\")", vector(c, depth - 1))
                }
            }
        }
        _ => match c.below(2) {
            0 => format!("histogram_quantile({}, {})", c.one(&["0.5", "0.9", "1"]), vector(c, depth - 1)),
            _ => format!("histogram_fraction(0.5, 3, {})", vector(c, depth - 1)),
        },
    }
}
