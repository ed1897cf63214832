//! What one target exposes: its series' labels and how their values move.

use super::Shape;
use crate::metrics::wire::{self, NativeHistogram};

/// Series of one target.
pub(super) const SERIES_PER_TARGET: usize = 500;
/// Of them, those before this place are counters; then integer gauges, float gauges, classic histograms, constants.
const COUNTERS_END: usize = 225;
const INTEGER_GAUGES_END: usize = 325;
const FLOAT_GAUGES_END: usize = 400;
const HISTOGRAMS_END: usize = FLOAT_GAUGES_END + HISTOGRAMS * (BOUNDS.len() + 2);
/// Counters of each target that are the first of [`COUNTERS`]: 200 targets have 10,000 of them.
const REQUESTS: usize = 50;
/// Classic histograms of each target: ten buckets, a sum and a count.
const HISTOGRAMS: usize = 6;

const APPS: &[&str] =
    &["checkout", "cart", "payments", "search", "catalog", "users", "gateway", "mail", "ledger", "images"];
const NAMESPACES: &[&str] = &["shop", "payments", "platform", "data", "edge"];
const COUNTERS: &[&str] = &[
    "http_requests_total",
    "container_network_receive_bytes_total",
    "container_cpu_cfs_periods_total",
    "rpc_calls_total",
    "db_queries_total",
    "cache_hits_total",
    "queue_messages_total",
    "errors_total",
    "gc_cycles_total",
    "log_lines_total",
];
const INTEGER_GAUGES: &[&str] = &[
    "process_open_fds",
    "go_goroutines",
    "queue_depth",
    "db_connections_open",
    "container_memory_working_set_bytes",
];
const FLOAT_GAUGES: &[&str] =
    &["cpu_utilization_ratio", "request_latency_average_seconds", "cache_hit_ratio", "load_average"];
const HISTOGRAM: &str = "http_request_duration_seconds";
const NATIVE_HISTOGRAM: &str = "http_native_request_duration_seconds";
const BOUNDS: &[&str] = &["0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "+Inf"];
const METHODS: &[&str] = &["GET", "POST", "PUT", "DELETE"];
const CODES: &[&str] = &["200", "201", "400", "404", "500"];

/// Buckets of a native histogram: those of schema 3 with upper bounds from 0.074 to 2.4 seconds.
const NATIVE_BUCKETS: usize = 41;
const NATIVE_FIRST: i64 = -30;

/// SplitMix64: small, seeded, the same everywhere.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }

    /// A bucket of a native histogram: few at both ends, most in the middle.
    fn bell(&mut self) -> usize {
        (0..4).map(|_| self.below((NATIVE_BUCKETS as u64 - 1) / 4 + 1) as usize).sum()
    }
}

enum Kind {
    Counter {
        rate: u32,
    },
    IntegerGauge {
        span: u32,
    },
    FloatGauge {
        base: f64,
    },
    /// A cumulative bucket: it takes what the one below took at this scrape and observations of its own.
    Bucket {
        first: bool,
    },
    /// Of the histogram whose last bucket comes before it.
    Sum,
    /// As the last bucket.
    Count,
    Constant,
    Native(Box<NativeHistogram>),
}

/// One series.
pub(super) struct Series {
    /// Its label fields as a remote-write message has them.
    pub labels: Vec<u8>,
    kind: Kind,
    v: f64,
    /// The connection that sends it.
    pub connection: usize,
}

/// What the series holds now.
pub(super) enum Value<'a> {
    Float(f64),
    Native(&'a NativeHistogram),
}

/// A pod: its series are scraped together.
pub(super) struct Target {
    pub series: Vec<Series>,
    /// Its place within the scrape interval, milliseconds.
    pub offset_ms: i64,
}

impl Target {
    /// The target at a place; a later generation is another pod of the same workload.
    pub fn new(shape: &Shape, index: usize, generation: usize) -> Self {
        let mut random = Random(shape.seed ^ (index as u64) << 20 ^ (generation as u64) << 52);
        let app = APPS[index % APPS.len()];
        let namespace = NAMESPACES[index / APPS.len() % NAMESPACES.len()];
        let pod = format!("{app}-{:08x}-{:05x}", random.next() as u32, random.next() as u32 & 0xf_ffff);
        let mut base: Vec<(String, String)> = [
            ("cluster", "prod-1".to_owned()),
            ("namespace", namespace.to_owned()),
            ("job", format!("{namespace}/{app}")),
            ("instance", format!("10.{}.{}.{}:8080", index >> 8 & 255, index & 255, 1 + random.below(250))),
            ("pod", pod),
            ("container", app.to_owned()),
            ("node", format!("ip-10-0-{}-{}.ec2.internal", index % 16, index % 50)),
            ("workload", app.to_owned()),
        ]
        .into_iter()
        .map(|(n, v)| (n.to_owned(), v))
        .collect();
        // Some workloads carry labels of their owners.
        for (name, every) in [("team", 2), ("tier", 3), ("release", 5)] {
            if index.is_multiple_of(every) {
                base.push((name.to_owned(), format!("{name}-{}", index / every % 4)));
            }
        }
        let count = SERIES_PER_TARGET.min(shape.series);
        let series = (0..count).map(|i| Series::new(shape, &base, i, &mut random)).collect();
        Self { series, offset_ms: random.below(super::INTERVAL_MS as u64) as i64 }
    }

    /// Moves every series on by one scrape.
    pub fn step(&mut self, random: &mut Random) {
        let mut observed = 0.0;
        for s in &mut self.series {
            s.step(&mut observed, random);
        }
    }
}

impl Series {
    fn new(shape: &Shape, base: &[(String, String)], i: usize, random: &mut Random) -> Self {
        let mut pairs = base.to_vec();
        let (name, kind, start) = describe(shape, i, &mut pairs, random);
        pairs.push(("__name__".to_owned(), name));
        Self {
            labels: wire::labels(&pairs),
            kind,
            v: start,
            connection: random.below(shape.connections as u64) as usize,
        }
    }

    /// Whether it is a native histogram.
    pub fn is_native(&self) -> bool {
        matches!(self.kind, Kind::Native(_))
    }

    /// What it holds now.
    pub fn value(&self) -> Value<'_> {
        match &self.kind {
            Kind::Native(h) => Value::Native(h),
            _ => Value::Float(self.v),
        }
    }

    /// `observed`: what the histogram's buckets so far took at this scrape.
    fn step(&mut self, observed: &mut f64, random: &mut Random) {
        match &mut self.kind {
            Kind::Counter { rate: 0 } | Kind::Constant => {}
            Kind::Counter { rate } => {
                self.v += (u64::from(*rate) + random.below(u64::from(*rate) / 4 + 2)) as f64;
            }
            Kind::IntegerGauge { span } => {
                let move_by = random.below(u64::from(*span) / 8 + 2) as i64 - i64::from(*span / 16);
                self.v = (self.v as i64 + move_by).clamp(0, i64::from(*span)) as f64;
            }
            Kind::FloatGauge { base } => {
                let noise = random.below(2001) as f64 - 1000.0;
                // Six significant digits, as most exporters print.
                self.v = ((*base * (1.0 + noise / 20_000.0)) * 10_000.0).round() / 10_000.0;
            }
            Kind::Bucket { first } => {
                if *first {
                    *observed = 0.0;
                }
                *observed += random.below(5) as f64;
                self.v += *observed;
            }
            Kind::Sum => self.v += *observed * (200.0 + random.below(200) as f64) / 1000.0,
            Kind::Count => self.v += *observed,
            Kind::Native(h) => {
                for _ in 0..1 + random.below(8) {
                    let at = random.bell();
                    h.counts[at] += 1;
                    h.sum += (at + 1) as f64 * 0.07;
                }
            }
        }
    }
}

/// The name, kind and first value of the series at a place of its target; adds the labels that tell it from the others.
fn describe(
    shape: &Shape,
    i: usize,
    pairs: &mut Vec<(String, String)>,
    random: &mut Random,
) -> (String, Kind, f64) {
    let mut add = |n: &str, v: String| pairs.push((n.to_owned(), v));
    let natives = SERIES_PER_TARGET * shape.native_per_thousand / 1000;
    if i + natives >= SERIES_PER_TARGET {
        add("method", METHODS[i % METHODS.len()].to_owned());
        add("handler", format!("/api/v1/{i}"));
        let mut h = NativeHistogram {
            schema: 3,
            first: NATIVE_FIRST,
            counts: vec![0; NATIVE_BUCKETS],
            sum: random.below(1 << 20) as f64,
        };
        for _ in 0..200 {
            h.counts[random.bell()] += random.below(100);
        }
        return (NATIVE_HISTOGRAM.to_owned(), Kind::Native(Box::new(h)), 0.0);
    }
    if i < COUNTERS_END {
        // A counter's place among those of its name decides its labels, so that every name has every method and code.
        let others = COUNTERS.len() - 1;
        let (name, k) =
            if i < REQUESTS { (0, i) } else { (1 + (i - REQUESTS) % others, (i - REQUESTS) / others) };
        add("method", METHODS[k % METHODS.len()].to_owned());
        add("code", CODES[k / METHODS.len() % CODES.len()].to_owned());
        // Handlers differ by name, so that rates of several names at once are told apart without it.
        add("handler", format!("/api/v1/{}", name * 10 + k / (METHODS.len() * CODES.len())));
        // A quarter of the counters stands still, as in real clusters.
        let rate = if random.below(4) == 0 { 0 } else { 1 << random.below(12) };
        return (COUNTERS[name].to_owned(), Kind::Counter { rate }, random.below(1 << 24) as f64);
    }
    if i < INTEGER_GAUGES_END {
        add("shard", (i % 10).to_string());
        add("handler", format!("/api/v1/{}", i / 10));
        let span = 1 << (4 + random.below(12));
        let name = INTEGER_GAUGES[i % INTEGER_GAUGES.len()];
        return (name.to_owned(), Kind::IntegerGauge { span }, random.below(u64::from(span)) as f64);
    }
    if i < FLOAT_GAUGES_END {
        add("zone", format!("eu-{}", i % 3));
        add("handler", format!("/api/v1/{}", i / 4));
        let base = 1.0 + random.below(1000) as f64 / 10.0;
        return (FLOAT_GAUGES[i % FLOAT_GAUGES.len()].to_owned(), Kind::FloatGauge { base }, base);
    }
    if i < HISTOGRAMS_END {
        let each = BOUNDS.len() + 2;
        let (histogram, part) = ((i - FLOAT_GAUGES_END) / each, (i - FLOAT_GAUGES_END) % each);
        add("handler", format!("/api/v1/{histogram}"));
        add("method", METHODS[histogram % METHODS.len()].to_owned());
        let start = (part.min(BOUNDS.len() - 1) + 1) as f64 * 10_000.0;
        return if part < BOUNDS.len() {
            add("le", BOUNDS[part].to_owned());
            (format!("{HISTOGRAM}_bucket"), Kind::Bucket { first: part == 0 }, start)
        } else if part == BOUNDS.len() {
            (format!("{HISTOGRAM}_sum"), Kind::Sum, start * 0.3)
        } else {
            (format!("{HISTOGRAM}_count"), Kind::Count, start)
        };
    }
    add("version", format!("1.{}.0", i % 7));
    add("revision", format!("{i:08x}"));
    (if i.is_multiple_of(2) { "build_info" } else { "kube_pod_labels" }.to_owned(), Kind::Constant, 1.0)
}

#[cfg(test)]
pub(super) mod names {
    //! Every metric's name, for tests.

    /// Names of floats and, last, of the native histograms.
    pub fn all() -> Vec<String> {
        let h = super::HISTOGRAM;
        let mut out: Vec<String> = [super::COUNTERS, super::INTEGER_GAUGES, super::FLOAT_GAUGES]
            .concat()
            .iter()
            .map(|s| (*s).to_owned())
            .collect();
        out.extend(["bucket", "sum", "count"].map(|s| format!("{h}_{s}")));
        out.push(super::NATIVE_HISTOGRAM.to_owned());
        out
    }
}
