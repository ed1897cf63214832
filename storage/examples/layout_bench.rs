//! Size and CPU of block layouts on Kubernetes-like series: the figures of ADR 0003.
//!
//! `cargo run --release -p sextant-storage --example layout_bench [-- SERIES SAMPLES PART]`; one thread, everything in
//! memory, CPU time of the thread, best of three.

use std::sync::Arc;

use arrow_array::{Array, ArrayRef, Int32Array, RecordBatch};
use arrow_schema::{DataType, Field, Schema};
use bytes::Bytes;
use object_store::ObjectStore;
use parquet::{
    arrow::{ArrowWriter, ProjectionMask, arrow_reader::ParquetRecordBatchReaderBuilder},
    basic::{Compression, Encoding, ZstdLevel},
    file::properties::{EnabledStatistics, WriterProperties},
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use sextant_model::{Exemplar, Labels, Matcher, MetricMetadata, MetricType, SeriesBuf, TenantId, stale_nan};
use sextant_storage::{
    BlockCache, BlockFiles, BlockOptions, BlockReader, BlockSelect, MergeOptions, ReadStats, SeriesSource,
    StoreOptions, merge_blocks, open_store, series_order, upload_block, write_block,
};

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let mut numbers = args.iter().filter_map(|a| a.parse::<usize>().ok());
    let (series, samples) = (numbers.next().unwrap_or(20_000), numbers.next().unwrap_or(480));
    let wanted =
        |part: &str| args.iter().all(|a| a.parse::<usize>().is_ok()) || args.iter().any(|a| a == part);
    let cluster = Cluster::generate(series, samples);
    println!("{} series, {} samples each, {} in all", cluster.rows.len(), samples, cluster.samples);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    if wanted("layouts") {
        layouts(&cluster);
    }
    if wanted("encodings") {
        encodings(&cluster);
    }
    if wanted("reads") {
        runtime.block_on(reads(&cluster));
    }
    if wanted("scan") {
        runtime.block_on(scan(&cluster));
    }
    if wanted("merge") {
        runtime.block_on(merging(samples));
    }
}

/// CPU nanoseconds of this thread.
fn cpu_ns() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0)
}

fn best<T>(mut f: impl FnMut() -> T) -> (f64, T) {
    let mut best = f64::MAX;
    let mut out = None;
    for _ in 0..3 {
        let before = cpu_ns();
        out = Some(f());
        best = best.min((cpu_ns() - before) as f64);
    }
    (best, out.expect("ran"))
}

fn written(c: &Cluster, options: BlockOptions) -> BlockFiles {
    write_block(c, options).expect("written").expect("series")
}

fn layouts(c: &Cluster) {
    println!(
        "\n| page KiB | zstd | values | labels, heads | grid | sidecar | **B/sample** | without sidecar | write ns |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for (kib, zstd) in [(32, 3), (64, 3), (128, 3), (256, 3), (512, 3), (1024, 3), (128, 1), (128, 9)] {
        let options = BlockOptions { page_bytes: kib << 10, zstd_level: zstd, ..BlockOptions::default() };
        let (ns, files) = best(|| written(c, options.clone()));
        let size =
            |name: &str| files.meta.objects.get(name).map_or(0.0, |o| o.size as f64) / c.samples as f64;
        let (values, heads, grid, index) =
            (size("samples.parquet"), size("series.parquet"), size("grid.parquet"), size("index"));
        println!(
            "| {kib} | {zstd} | {values:.3} | {heads:.4} | {grid:.4} | {index:.4} | {:.3} | {:.3} | {:.1} |",
            values + heads + grid + index,
            values + heads + grid,
            ns / c.samples as f64
        );
    }
}

/// The `r` column alone in other encodings, decoded by the Arrow reader.
fn encodings(c: &Cluster) {
    let files = written(c, BlockOptions::default());
    let samples = files.objects.iter().find(|(n, _)| n == "samples.parquet").expect("samples").1.clone();
    let builder = ParquetRecordBatchReaderBuilder::try_new(samples).expect("parquet");
    let mask = ProjectionMask::columns(builder.parquet_schema(), ["r"]);
    let mut r: Vec<i32> = Vec::new();
    for batch in builder.with_projection(mask).with_batch_size(1 << 16).build().expect("reader") {
        let batch = batch.expect("batch");
        let column = batch.column(0).as_any().downcast_ref::<Int32Array>().expect("int32");
        if column.null_count() == 0 {
            r.extend(column.values());
        }
    }
    println!("\n`r` alone, {} numbers, required column:\n", r.len());
    println!("| encoding | page KiB | B/number | write ns | Arrow read ns |\n|---|---|---|---|---|");
    let zstd = Compression::ZSTD(ZstdLevel::try_new(3).expect("level"));
    for (name, encoding, compression) in [
        ("BYTE_STREAM_SPLIT zstd 3", Encoding::BYTE_STREAM_SPLIT, zstd),
        ("DELTA_BINARY_PACKED zstd 3", Encoding::DELTA_BINARY_PACKED, zstd),
        ("DELTA_BINARY_PACKED", Encoding::DELTA_BINARY_PACKED, Compression::UNCOMPRESSED),
        ("PLAIN zstd 3", Encoding::PLAIN, zstd),
    ] {
        for kib in [64, 128, 512] {
            let (write, file) = best(|| one_column(&r, encoding, compression, kib << 10));
            let (read, n) = best(|| {
                let b = ParquetRecordBatchReaderBuilder::try_new(file.clone()).expect("parquet");
                b.with_batch_size(1 << 16)
                    .build()
                    .expect("reader")
                    .map(|b| b.expect("batch").num_rows())
                    .sum::<usize>()
            });
            let per = |x: f64| x / n as f64;
            println!(
                "| {name} | {kib} | {:.3} | {:.1} | {:.2} |",
                per(file.len() as f64),
                per(write),
                per(read)
            );
        }
    }
}

fn one_column(r: &[i32], encoding: Encoding, compression: Compression, page: usize) -> Bytes {
    let schema = Arc::new(Schema::new(vec![Field::new("r", DataType::Int32, false)]));
    let properties = WriterProperties::builder()
        .set_dictionary_enabled(false)
        .set_encoding(encoding)
        .set_compression(compression)
        .set_data_page_size_limit(page)
        .set_data_page_row_count_limit(usize::MAX)
        .set_statistics_enabled(EnabledStatistics::None)
        .build();
    let mut out = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut out, schema.clone(), Some(properties)).expect("writer");
    for chunk in r.chunks(1 << 16) {
        let column: ArrayRef = Arc::new(Int32Array::from(chunk.to_vec()));
        writer.write(&RecordBatch::try_new(schema.clone(), vec![column]).expect("batch")).expect("written");
    }
    writer.close().expect("closed");
    Bytes::from(out)
}

async fn reads(c: &Cluster) {
    println!("\nReads, footers and series table cached, samples not:\n");
    println!("| page KiB | selection | series | CPU µs | ns/sample | pages | bytes read | of the samples |");
    println!("|---|---|---|---|---|---|---|---|");
    let tenant = TenantId::anonymous();
    for kib in [64, 128, 256, 512] {
        let store: Arc<dyn ObjectStore> = open_store("memory://", &StoreOptions::default()).expect("store");
        let options = BlockOptions { page_bytes: kib << 10, ..BlockOptions::default() };
        let files = written(c, options);
        upload_block(&store, &tenant, &files).await.expect("uploaded");
        let total = files.meta.objects["samples.parquet"].size;
        let meta = Arc::new(files.meta);
        let reader =
            BlockReader::open(store, &tenant, meta, &[], BlockCache::new(256 << 20)).await.expect("opened");
        let re = |name: &str, value: String| {
            vec![Matcher::new(name, sextant_model::MatchOp::Regex, value).expect("expression")]
        };
        let mut rng = StdRng::seed_from_u64(7);
        let random: Vec<String> =
            (0..c.rows.len() / 100).map(|_| rng.random_range(0..c.rows.len()).to_string()).collect();
        let selections = [
            ("everything", vec![]),
            ("one metric", vec![Matcher::equal("__name__", c.rows[c.rows.len() / 2].labels.metric_name())]),
            ("two targets", re("instance", "10.0.0.7:9100|10.0.0.42:9100".into())),
            ("1 % at random", re("series", random.join("|"))),
            ("one series", vec![Matcher::equal("series", "4711")]),
        ];
        for (name, matchers) in selections {
            let mut select = BlockSelect::new(matchers, i64::MIN, i64::MAX);
            select.hints.fill_cache = true;
            // Fills the tables; the samples are left out.
            select.hints.samples = false;
            reader.select(&select, &ReadStats::default()).await.expect("read");
            select.hints.samples = true;
            select.hints.fill_cache = false;
            let mut best = (u64::MAX, 0, 0, ReadStats::default());
            // The clock ticks coarsely: short reads are repeated.
            let repeat = if name == "everything" { 1 } else { 50 };
            for _ in 0..5 {
                let mut stats = ReadStats::default();
                let mut size = (0, 0);
                let before = cpu_ns();
                for _ in 0..repeat {
                    stats = ReadStats::default();
                    let set = reader.select(&select, &stats).await.expect("read");
                    size = (set.len(), set.sample_count());
                }
                let ns = (cpu_ns() - before) / repeat;
                if ns < best.0 {
                    best = (ns, size.0, size.1, stats);
                }
            }
            let (ns, series, samples, stats) = best;
            let stats = stats.snapshot();
            println!(
                "| {kib} | {name} | {series} | {:.0} | {:.2} | {} | {} | {:.1} % |",
                ns as f64 / 1e3,
                ns as f64 / samples.max(1) as f64,
                stats.pages_decoded,
                stats.bytes_fetched,
                stats.bytes_fetched as f64 * 100.0 / total as f64
            );
        }
    }
}

/// Every series, by all series at once and metric by metric: the difference is what fresh memory for the result costs.
async fn scan(c: &Cluster) {
    println!(
        "\nScan of the whole block, ns/sample:\n\n| page KiB | zstd | at once | metric by metric | labels only, ns/series |\n|---|---|---|---|---|"
    );
    let tenant = TenantId::anonymous();
    let mut names: Vec<&str> = c.rows.iter().map(|r| r.labels.metric_name()).collect();
    names.dedup();
    for (kib, zstd) in [(64, 3), (128, 3), (256, 3), (512, 3), (128, 1), (128, 9)] {
        let store: Arc<dyn ObjectStore> = open_store("memory://", &StoreOptions::default()).expect("store");
        let files =
            written(c, BlockOptions { page_bytes: kib << 10, zstd_level: zstd, ..BlockOptions::default() });
        upload_block(&store, &tenant, &files).await.expect("uploaded");
        let cache = BlockCache::new(256 << 20);
        let reader =
            BlockReader::open(store, &tenant, Arc::new(files.meta), &[], cache).await.expect("opened");
        let mut best = [f64::MAX; 3];
        let mut all = BlockSelect::new(vec![], i64::MIN, i64::MAX);
        all.hints.fill_cache = false;
        let by_metric: Vec<BlockSelect> = names
            .iter()
            .map(|n| BlockSelect { matchers: vec![Matcher::equal("__name__", *n)], ..all.clone() })
            .collect();
        let mut labels = all.clone();
        labels.hints.samples = false;
        // The clock ticks coarsely: each is done several times in a row.
        const REPEAT: usize = 10;
        for _ in 0..3 {
            for (i, selects) in
                [std::slice::from_ref(&all), &by_metric, std::slice::from_ref(&labels)].iter().enumerate()
            {
                let before = cpu_ns();
                for select in selects.iter().cycle().take(selects.len() * REPEAT) {
                    drop(reader.select(select, &ReadStats::default()).await.expect("read"));
                }
                best[i] = best[i].min((cpu_ns() - before) as f64 / REPEAT as f64);
            }
        }
        let samples = c.samples as f64;
        println!(
            "| {kib} | {zstd} | {:.2} | {:.2} | {:.0} |",
            best[0] / samples,
            best[1] / samples,
            best[2] / c.rows.len() as f64
        );
    }
}

async fn merging(samples: usize) {
    let store: Arc<dyn ObjectStore> = open_store("memory://", &StoreOptions::default()).expect("store");
    let tenant = TenantId::anonymous();
    let mut readers = Vec::new();
    let mut total = 0;
    for part in 0..4 {
        let c = Cluster::generate_part(5_000, samples / 2, part);
        total += c.samples;
        let files = written(&c, BlockOptions::default());
        upload_block(&store, &tenant, &files).await.expect("uploaded");
        let cache = BlockCache::new(64 << 20);
        readers.push(
            BlockReader::open(store.clone(), &tenant, Arc::new(files.meta), &[], cache)
                .await
                .expect("opened"),
        );
    }
    let options = MergeOptions {
        level: 1,
        window_ms: None,
        cutoff_ms: None,
        series_max: usize::MAX,
        samples_max: u64::MAX,
        block: BlockOptions::default(),
    };
    let before = cpu_ns();
    let out = merge_blocks(&readers, &options).await.expect("merged");
    let ns = (cpu_ns() - before) as f64 / total as f64;
    println!("\nMerge of 4 blocks of 5,000 series into {}: {ns:.1} ns/sample", out.len());
}

struct Row {
    labels: Labels,
    target: usize,
    kind: Kind,
    seed: u64,
    born: usize,
}

#[derive(Clone, Copy)]
enum Kind {
    Counter { rate: f64 },
    Idle,
    CpuSeconds,
    CpuNanoseconds,
    IntGauge { spread: u64 },
    Bytes,
    FloatGauge { digits: i32 },
    FullMantissa,
    Bucket { rate: f64 },
    Constant,
}

/// 45 % integer counters, 20 % integer gauges, 15 % float gauges, 15 % histogram buckets, 5 % constants; a hundred
/// series of each target share its scrape times (15 s with up to 5 ms of jitter).
struct Cluster {
    rows: Vec<Row>,
    grids: Vec<Vec<i64>>,
    samples: u64,
}

impl Cluster {
    fn generate(series: usize, samples: usize) -> Self {
        Self::generate_part(series, samples, 0)
    }

    fn generate_part(series: usize, samples: usize, part: usize) -> Self {
        let mut rng = StdRng::seed_from_u64(42);
        let targets = (series / 100).max(1);
        let base = 1_700_000_000_000i64 + (part * samples * 15_000) as i64;
        let mut jitter = StdRng::seed_from_u64(part as u64);
        let grids = (0..targets)
            .map(|t| {
                let offset = (t as i64 * 7_919) % 15_000;
                (0..samples as i64).map(|i| base + offset + i * 15_000 + jitter.random_range(0..6)).collect()
            })
            .collect();
        let mut rows = Vec::with_capacity(series);
        for i in 0..series {
            let (target, metric) = (i / 100, i % 100);
            let kind = kind(metric, &mut rng);
            let name =
                format!("{}_{metric}_{}", ["container", "node", "kube", "http"][metric % 4], unit(kind));
            let mut pairs = vec![
                ("__name__", name),
                ("cluster", "prod-eu-1".to_owned()),
                ("job", ["kubelet", "node-exporter", "app"][target % 3].to_owned()),
                ("instance", format!("10.0.{}.{}:9100", target / 250, target % 250)),
                ("node", format!("ip-10-0-{}-{}.eu.internal", target / 250, target % 250)),
                ("namespace", format!("team-{}", target % 12)),
                ("pod", format!("app-{}-{:05x}-{:x}", target % 40, target * 7919, target)),
                ("container", ["main", "sidecar"][metric % 2].to_owned()),
                ("series", i.to_string()),
            ];
            if metric % 3 == 0 {
                pairs.push(("image", format!("registry.local/app-{}:v1.{}", target % 40, target % 7)));
                pairs.push(("id", format!("/kubepods/burstable/pod{:032x}", target as u128 * 0x9e37_79b9)));
            }
            if let Kind::Bucket { .. } = kind {
                pairs.push(("le", format!("{}", 2f64.powi((metric % 12) as i32) / 100.0)));
            }
            let born = if rng.random_bool(0.05) { rng.random_range(0..samples) } else { 0 };
            rows.push(Row {
                labels: Labels::from_pairs(pairs).expect("labels"),
                target,
                kind,
                seed: rng.random(),
                born,
            });
        }
        rows.sort_by(|a, b| series_order(&a.labels, &b.labels));
        let samples = rows.iter().map(|r| (samples - r.born) as u64).sum();
        Self { rows, grids, samples }
    }
}

fn kind(metric: usize, rng: &mut StdRng) -> Kind {
    match metric {
        0..10 => Kind::Idle,
        10..38 => Kind::Counter { rate: 10f64.powf(rng.random_range(-1.0..3.5)) },
        38..42 => Kind::CpuSeconds,
        42..45 => Kind::CpuNanoseconds,
        45..58 => Kind::IntGauge { spread: 1 << rng.random_range(0..8) },
        58..65 => Kind::Bytes,
        65..78 => Kind::FloatGauge { digits: rng.random_range(1..7) },
        78..80 => Kind::FullMantissa,
        80..95 => Kind::Bucket { rate: 10f64.powf(rng.random_range(-2.0..1.5)) },
        _ => Kind::Constant,
    }
}

fn unit(kind: Kind) -> &'static str {
    match kind {
        Kind::Counter { .. } | Kind::Idle => "total",
        Kind::CpuSeconds | Kind::CpuNanoseconds => "cpu_seconds_total",
        Kind::IntGauge { .. } | Kind::Constant => "count",
        Kind::Bytes => "bytes",
        Kind::FloatGauge { .. } | Kind::FullMantissa => "ratio",
        Kind::Bucket { .. } => "seconds_bucket",
    }
}

impl SeriesSource for Cluster {
    fn len(&self) -> usize {
        self.rows.len()
    }

    fn labels(&self, i: usize) -> Labels {
        self.rows[i].labels.clone()
    }

    fn time_key(&self, i: usize) -> Option<u64> {
        Some(self.rows[i].target as u64)
    }

    fn read(&self, i: usize, buf: &mut SeriesBuf) {
        let row = &self.rows[i];
        let t = &self.grids[row.target][row.born..];
        buf.t.extend_from_slice(t);
        let mut x = row.seed | 1;
        // xorshift: the generator must cost little beside what is measured.
        let mut random = move || {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            x
        };
        let mut sum = (random() % 1_000_000) as f64;
        let resets = row.seed.is_multiple_of(100);
        for k in 0..t.len() {
            let u = random();
            let unit = (u >> 11) as f64 / (1u64 << 53) as f64;
            if resets && k == t.len() / 2 {
                sum = 0.0;
            }
            let v = match row.kind {
                Kind::Idle => sum,
                Kind::Counter { rate } | Kind::Bucket { rate } => {
                    sum += (rate * (0.5 + unit) + unit).floor();
                    sum
                }
                Kind::CpuSeconds => {
                    sum += (unit * 1500.0).floor();
                    sum / 100.0
                }
                Kind::CpuNanoseconds => {
                    sum += (unit * 15e9).floor();
                    sum / 1e9
                }
                Kind::IntGauge { spread } => 100.0 + (u % (spread + 1)) as f64,
                Kind::Bytes => {
                    sum += ((u % 64) as f64 - 32.0) * 4096.0;
                    1e9 + sum * 4096.0
                }
                Kind::FloatGauge { digits } => (unit * 10f64.powi(digits)).round() / 10f64.powi(digits),
                Kind::FullMantissa => unit,
                Kind::Constant => 1.0,
            };
            buf.v.push(v);
        }
        if row.seed % 200 == 1 {
            buf.v.pop();
            buf.v.push(stale_nan());
        }
    }

    fn exemplars(&self, _: usize) -> Vec<Exemplar> {
        Vec::new()
    }

    fn metadata(&self, i: usize) -> Option<MetricMetadata> {
        let metric_type = match self.rows[i].kind {
            Kind::Counter { .. } | Kind::Idle | Kind::CpuSeconds | Kind::CpuNanoseconds => {
                MetricType::Counter
            }
            Kind::Bucket { .. } => MetricType::Histogram,
            _ => MetricType::Gauge,
        };
        Some(MetricMetadata { metric_type, help: "What the metric says.".into(), unit: String::new() })
    }
}
