//! Measures the service on a real log: writes, a flush, a restart with replay. CPU time is that of the whole process.
//!
//! `cargo run --release -p sextant-ingester --example service_bench -- FOLDER [series] [scrapes]`

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use sextant_ingester::{Ingester, IngesterConfig};
use sextant_model::Labels;
use sextant_proto::{BatchHeader, ShardClient, ShardId, WriteBatchBuilder};
use sextant_storage::{METRICS, ManifestOptions, Manifests, StoreOptions, open_store};

const BATCH: usize = 2_000;
const T0: i64 = 1_700_000_000_000;

fn cpu_s() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let ticks = text.rsplit(')').next().unwrap_or_default().split_whitespace();
    ticks.skip(11).take(2).filter_map(|n| n.parse::<f64>().ok()).sum::<f64>() / 100.0
}

async fn open(dir: &Path) -> Arc<Ingester> {
    let url = format!("file://{}", dir.join("objects").display());
    let store = open_store(&url, &StoreOptions::default()).expect("a folder");
    let manifests = Arc::new(Manifests::new(store.clone(), METRICS, ManifestOptions::default()));
    let config = IngesterConfig { data_dir: dir.to_owned(), ..IngesterConfig::default() };
    Ingester::open(config, manifests).await.expect("opens")
}

#[tokio::main]
async fn main() {
    let mut args = std::env::args().skip(1);
    let dir = PathBuf::from(args.next().expect("a folder"));
    let series: usize = args.next().map_or(105_000, |a| a.parse().expect("a number"));
    let scrapes: usize = args.next().map_or(240, |a| a.parse().expect("a number"));
    std::fs::create_dir_all(dir.join("objects")).expect("a folder");
    let dir = dir.canonicalize().expect("a folder");
    let ingester = open(&dir).await;
    let (cpu, begin) = (cpu_s(), Instant::now());
    let mut refs = vec![u32::MAX; series];
    let mut b = WriteBatchBuilder::default();
    for scrape in 0..scrapes {
        let mut sent = Vec::new();
        for first in (0..series).step_by(BATCH) {
            let range = first..(first + BATCH).min(series);
            for s in range.clone() {
                let mut r = refs[s];
                if r == u32::MAX {
                    let pairs = [
                        ("__name__", format!("some_metric_{}_total", s % 500)),
                        ("job", "node".to_owned()),
                        ("instance", format!("10.0.{}.17:9100", s / 500)),
                        ("pod", format!("checkout-api-7d9f8b6c5-{:05x}", s / 40)),
                    ];
                    r = b.new_series(Labels::from_pairs(pairs).expect("valid").as_bytes(), 0);
                }
                let t = T0 + scrape as i64 * 15_000 + (s / 500) as i64 * 70;
                b.sample(r, t, (s * 1000 + scrape * (s % 97)) as f64, 0);
            }
            let header = BatchHeader {
                tenant: "anonymous",
                write_id: (scrape * series + first) as u128,
                epoch: ingester.epoch(ShardId(0)),
                max_series: 0,
                ooo_window_ms: -1,
                now_ms: T0 + scrape as i64 * 15_000,
            };
            let (ingester, batch) = (ingester.clone(), b.finish(&header));
            let task = tokio::spawn(async move { ingester.append(ShardId(0), batch).await });
            sent.push((range, task));
        }
        for (range, task) in sent {
            let outcome = task.await.expect("no panic").expect("applied");
            if scrape == 0 {
                refs[range].copy_from_slice(&outcome.new_refs);
            }
        }
    }
    let samples = (series * scrapes) as f64;
    let report = |what: &str, cpu: f64, begin: Instant| {
        let (cpu, wall) = ((cpu_s() - cpu) * 1e9 / samples, begin.elapsed().as_secs_f64());
        println!("{what:<28} {cpu:7.1} ns CPU/sample, {wall:6.2} s");
    };
    report("write (with making batches)", cpu, begin);
    ingester.shutdown().await;
    drop(ingester);
    let (cpu, begin) = (cpu_s(), Instant::now());
    let ingester = open(&dir).await;
    report("open (replay)", cpu, begin);
    let (cpu, begin) = (cpu_s(), Instant::now());
    ingester.flush_now().await.expect("flushes");
    report("flush", cpu, begin);
    let mut text = String::new();
    ingester.render_metrics(&mut text);
    for line in
        text.lines().filter(|l| l.contains("block_") || l.contains("head_")).filter(|l| !l.starts_with('#'))
    {
        println!("{line}");
    }
    ingester.shutdown().await;
}
