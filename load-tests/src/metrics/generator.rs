//! Kubernetes-like series, deterministic by seed: pods of workloads, scraped as targets.
//!
//! Of a hundred series 45 are integer counters, 20 integer gauges, 15 float gauges, 15 buckets of classic histograms and 5
//! constants. Series have 10 to 14 labels. A target's series share its scrape times: every 15 s with 0 to 5 ms of jitter.
//! Half way a part of the targets is replaced by new pods.

use std::{fs::File, io::Write, path::Path};

use anyhow::{Context, Result};

use super::wire;

/// What is generated.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Series alive at a time.
    pub series: usize,
    /// Scrapes.
    pub scrapes: usize,
    /// Samples per request.
    pub batch: usize,
    /// Connections of the sender.
    pub connections: usize,
    /// Percent of targets replaced half way.
    pub churn_percent: usize,
    /// Native histogram series per thousand.
    pub native_per_thousand: usize,
    /// Seed.
    pub seed: u64,
    /// Time of the first scrape, milliseconds.
    pub start_ms: i64,
}

/// What was generated.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    /// Samples, histograms included.
    pub samples: u64,
    /// Distinct series.
    pub series: u64,
    /// Requests.
    pub requests: u64,
    /// Bytes on the wire.
    pub bytes: u64,
}

const SERIES_PER_TARGET: usize = 500;
const INTERVAL_MS: i64 = 15_000;

#[derive(Clone, Copy)]
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
    /// Bucket `of` of a histogram: its share of the observations grows with its bound.
    Bucket {
        share: u32,
    },
    Constant {
        v: f64,
    },
    Native,
}

struct Series {
    labels: Vec<u8>,
    kind: Kind,
    v: f64,
    connection: usize,
    native: Vec<u64>,
}

struct Target {
    series: Vec<Series>,
    offset_ms: i64,
}

/// SplitMix64: small, seeded, the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }
}

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
const BOUNDS: &[&str] = &["0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "+Inf"];
const METHODS: &[&str] = &["GET", "POST", "PUT", "DELETE"];
const CODES: &[&str] = &["200", "201", "400", "404", "500"];

fn target(shape: &Shape, index: usize, generation: usize) -> Target {
    let mut random = Random(shape.seed ^ (index as u64) << 20 ^ (generation as u64) << 52);
    let app = APPS[index % APPS.len()];
    let pod = format!("{app}-{:08x}-{:05x}", random.next() as u32, random.next() as u32 & 0xf_ffff);
    let base: Vec<(String, String)> = [
        ("cluster", "prod-1".to_owned()),
        ("namespace", NAMESPACES[index / APPS.len() % NAMESPACES.len()].to_owned()),
        ("job", format!("{}/{app}", NAMESPACES[index / APPS.len() % NAMESPACES.len()])),
        ("instance", format!("10.{}.{}.{}:8080", index >> 8 & 255, index & 255, 1 + random.below(250))),
        ("pod", pod),
        ("container", app.to_owned()),
        ("node", format!("ip-10-0-{}-{}.ec2.internal", index % 16, index % 50)),
        ("workload", app.to_owned()),
    ]
    .into_iter()
    .map(|(n, v)| (n.to_owned(), v))
    .collect();
    let count = SERIES_PER_TARGET.min(shape.series);
    let series = (0..count).map(|i| one_series(shape, &base, i, &mut random)).collect();
    Target { series, offset_ms: random.below(INTERVAL_MS as u64) as i64 }
}

fn one_series(shape: &Shape, base: &[(String, String)], i: usize, random: &mut Random) -> Series {
    let mut pairs = base.to_vec();
    let mut add = |n: &str, v: String| pairs.push((n.to_owned(), v));
    let place = i * 100 / SERIES_PER_TARGET.max(1);
    let native = (i * 1000 / SERIES_PER_TARGET) >= 1000 - shape.native_per_thousand;
    let (name, kind) = if native {
        add("handler", format!("/api/v1/{}", i));
        ("http_native_request_duration_seconds".to_owned(), Kind::Native)
    } else if place < 45 {
        add("method", METHODS[i % METHODS.len()].to_owned());
        add("code", CODES[i / METHODS.len() % CODES.len()].to_owned());
        add("handler", format!("/api/v1/{}", i / 20));
        // A quarter of the counters stands still, as in real clusters.
        let rate = if i % 4 == 3 { 0 } else { 1 << random.below(12) };
        (COUNTERS[i % COUNTERS.len()].to_owned(), Kind::Counter { rate })
    } else if place < 65 {
        add("shard", (i % 10).to_string());
        add("handler", format!("/api/v1/{}", i / 10));
        (
            INTEGER_GAUGES[i % INTEGER_GAUGES.len()].to_owned(),
            Kind::IntegerGauge { span: 1 << (4 + random.below(12)) },
        )
    } else if place < 80 {
        add("zone", format!("eu-{}", i % 3));
        add("handler", format!("/api/v1/{}", i / 4));
        (
            FLOAT_GAUGES[i % FLOAT_GAUGES.len()].to_owned(),
            Kind::FloatGauge { base: 1.0 + random.below(1000) as f64 / 10.0 },
        )
    } else if place < 95 {
        let k = i - SERIES_PER_TARGET * 80 / 100;
        add("le", BOUNDS[k % BOUNDS.len()].to_owned());
        add("handler", format!("/api/v1/{}", k / BOUNDS.len()));
        add("method", METHODS[k / BOUNDS.len() % METHODS.len()].to_owned());
        (format!("{HISTOGRAM}_bucket"), Kind::Bucket { share: (k % BOUNDS.len()) as u32 + 1 })
    } else {
        add("version", format!("1.{}.0", i % 7));
        add("revision", format!("{i:08x}"));
        (
            if i.is_multiple_of(2) { "build_info" } else { "kube_pod_labels" }.to_owned(),
            Kind::Constant { v: 1.0 },
        )
    };
    pairs.push(("__name__".to_owned(), name));
    let start = match kind {
        Kind::Counter { .. } | Kind::Bucket { .. } => random.below(1 << 24) as f64,
        Kind::IntegerGauge { span } => random.below(u64::from(span)) as f64,
        Kind::FloatGauge { base } => base,
        Kind::Constant { v } => v,
        Kind::Native => 0.0,
    };
    let native =
        if matches!(kind, Kind::Native) { (0..12).map(|_| random.below(1000)).collect() } else { Vec::new() };
    Series {
        labels: wire::labels(&pairs),
        kind,
        v: start,
        connection: random.below(shape.connections as u64) as usize,
        native,
    }
}

impl Series {
    fn step(&mut self, random: &mut Random) {
        self.v = match self.kind {
            Kind::Counter { rate: 0 } => self.v,
            Kind::Counter { rate } => {
                self.v + (u64::from(rate) + random.below(u64::from(rate) / 4 + 2)) as f64
            }
            Kind::IntegerGauge { span } => {
                let move_by = random.below(u64::from(span) / 8 + 2) as i64 - (span / 16) as i64;
                (self.v as i64 + move_by).clamp(0, i64::from(span)) as f64
            }
            Kind::FloatGauge { base } => {
                let noise = random.below(2001) as f64 - 1000.0;
                // Six significant digits, as most exporters print.
                ((base * (1.0 + noise / 20_000.0)) * 10_000.0).round() / 10_000.0
            }
            Kind::Bucket { share } => self.v + random.below(u64::from(share) * 4 + 1) as f64,
            Kind::Constant { v } => v,
            Kind::Native => {
                let at = random.below(self.native.len() as u64) as usize;
                self.native[at] += random.below(20);
                self.v
            }
        };
    }
}

struct Connection {
    file: std::io::BufWriter<File>,
    raw: Vec<u8>,
    samples: usize,
}

/// Writes `requests-<connection>.bin`: for each request its length (u32, little-endian) and its body.
pub fn write(shape: &Shape, folder: &Path) -> Result<Totals> {
    std::fs::create_dir_all(folder)?;
    let mut connections = (0..shape.connections)
        .map(|c| {
            let path = folder.join(format!("requests-{c}.bin"));
            let file = File::create(&path).with_context(|| path.display().to_string())?;
            Ok(Connection {
                file: std::io::BufWriter::with_capacity(1 << 20, file),
                raw: Vec::new(),
                samples: 0,
            })
        })
        .collect::<Result<Vec<_>>>()?;
    let count = shape.series.div_ceil(SERIES_PER_TARGET);
    let mut targets: Vec<Target> = (0..count).map(|i| target(shape, i, 0)).collect();
    let mut totals =
        Totals { series: targets.iter().map(|t| t.series.len() as u64).sum(), ..Totals::default() };
    let mut random = Random(shape.seed.wrapping_mul(77));
    let mut encoder = snap::raw::Encoder::new();
    let mut scratch = Vec::new();
    for scrape in 0..shape.scrapes {
        if scrape == shape.scrapes / 2 {
            let replaced = count * shape.churn_percent / 100;
            for (i, t) in targets.iter_mut().enumerate().take(replaced) {
                *t = target(shape, i, 1);
                totals.series += t.series.len() as u64;
            }
        }
        for t in &mut targets {
            let at = shape.start_ms + scrape as i64 * INTERVAL_MS + t.offset_ms + random.below(6) as i64;
            for s in &mut t.series {
                s.step(&mut random);
                let c = &mut connections[s.connection];
                if s.native.is_empty() {
                    wire::series(&mut c.raw, &mut scratch, &s.labels, s.v, at);
                } else {
                    wire::native_series(&mut c.raw, &s.labels, &s.native, s.v, at);
                }
                c.samples += 1;
                totals.samples += 1;
                if c.samples == shape.batch {
                    flush(c, &mut encoder, &mut totals)?;
                }
            }
        }
    }
    for c in &mut connections {
        if c.samples > 0 {
            flush(c, &mut encoder, &mut totals)?;
        }
        c.file.flush()?;
    }
    Ok(totals)
}

fn flush(c: &mut Connection, encoder: &mut snap::raw::Encoder, totals: &mut Totals) -> Result<()> {
    let body = encoder.compress_vec(&c.raw)?;
    c.file.write_all(&(body.len() as u32).to_le_bytes())?;
    c.file.write_all(&body)?;
    totals.requests += 1;
    totals.bytes += body.len() as u64;
    c.raw.clear();
    c.samples = 0;
    Ok(())
}
