//! What remote write costs the distributor, stage by stage: CPU nanoseconds per sample on one thread.
//!
//! 105,000 series of 200 targets, about 300 bytes of labels each, one sample a series, 2,000 series a request; scrapes
//! follow each other, so that all but the first find every series known. The shards only hand out refs.
//!
//! `cargo run --release -p sextant-distributor --example rw_bench [shards]`

use std::{sync::LazyLock, time::Instant};

use bytes::Bytes;
use prost::Message;
use sextant_distributor::{Distributor, DistributorConfig, RemoteWriteHeaders, stages::Stages};
use sextant_model::TenantId;
use sextant_proto::{
    LimitsHandle,
    remote_write::{Label, RequestV2, SampleV1, SampleV2, TimeSeriesV1, TimeSeriesV2, WriteRequestV1},
};

#[allow(dead_code)]
#[path = "../tests/it/fake.rs"]
mod fake;

const TARGETS: usize = 200;
const SERIES_PER_TARGET: usize = 525;
const SERIES_PER_REQUEST: usize = 2000;
const SCRAPES: usize = 12;
const ROUNDS: usize = 5;

/// Nanoseconds of a clock that does not jump. Nothing here waits, so the best of several rounds is the processor's time.
fn now_ns() -> u64 {
    static BEGUN: LazyLock<Instant> = LazyLock::new(Instant::now);
    BEGUN.elapsed().as_nanos() as u64
}

fn labels(target: usize, series: usize) -> Vec<(String, String)> {
    let mut out = vec![
        ("__name__".into(), format!("http_server_request_duration_seconds_{:03}_total", series % 175)),
        ("cluster".into(), "eu-central-1-production".into()),
        ("code".into(), ["200", "404", "500"][series / 175].into()),
        ("container".into(), format!("service-{:02}", target % 20)),
        ("endpoint".into(), "http-metrics".into()),
        ("handler".into(), format!("/api/v1/resource/{}", series % 25)),
        ("instance".into(), format!("10.{}.{}.17:9090", target / 16, target % 16)),
        ("job".into(), format!("team-{}/service-{:02}", target % 5, target % 20)),
        ("namespace".into(), format!("team-{}", target % 5)),
        ("node".into(), format!("ip-10-0-{}-{}.internal", target / 16, target % 16)),
        ("pod".into(), format!("service-{:02}-6d4cf56db6-{:05x}", target % 20, target * 7919)),
        ("prometheus".into(), "monitoring/k8s".into()),
    ];
    out.sort();
    out
}

fn value(scrape: usize, n: usize) -> f64 {
    (n * 31 + scrape * 17) as f64
}

fn body_v1(scrape: usize, from: usize, to: usize) -> Bytes {
    let timeseries = (from..to).map(|n| {
        let target = n / SERIES_PER_TARGET;
        let pairs = labels(target, n % SERIES_PER_TARGET);
        let t = 1_700_000_000_000 + scrape as i64 * 15_000 + target as i64 * 61;
        TimeSeriesV1 {
            labels: pairs.into_iter().map(|(name, value)| Label { name, value }).collect(),
            samples: vec![SampleV1 { value: value(scrape, n), timestamp: t }],
            ..TimeSeriesV1::default()
        }
    });
    compressed(&WriteRequestV1 { timeseries: timeseries.collect(), metadata: Vec::new() })
}

fn body_v2(scrape: usize, from: usize, to: usize) -> Bytes {
    let mut symbols = vec![String::new()];
    let mut index = std::collections::HashMap::from([(String::new(), 0u32)]);
    let mut of = |text: String| {
        *index.entry(text.clone()).or_insert_with(|| {
            symbols.push(text);
            symbols.len() as u32 - 1
        })
    };
    let mut timeseries = Vec::new();
    for n in from..to {
        let target = n / SERIES_PER_TARGET;
        let pairs = labels(target, n % SERIES_PER_TARGET);
        let labels_refs = pairs.into_iter().flat_map(|(n, v)| [of(n), of(v)]).collect();
        let timestamp = 1_700_000_000_000 + scrape as i64 * 15_000 + target as i64 * 61;
        let sample = SampleV2 { value: value(scrape, n), timestamp, start_timestamp: 0 };
        timeseries.push(TimeSeriesV2 { labels_refs, samples: vec![sample], ..TimeSeriesV2::default() });
    }
    compressed(&RequestV2 { symbols, timeseries })
}

fn compressed(message: &impl Message) -> Bytes {
    let raw = message.encode_to_vec();
    snap::raw::Encoder::new().compress_vec(&raw).map_or_else(|_| Bytes::new(), Bytes::from)
}

fn measure(shards: usize, is_v2: bool) {
    let total = TARGETS * SERIES_PER_TARGET;
    let starts: Vec<usize> = (0..total).step_by(SERIES_PER_REQUEST).collect();
    let body = if is_v2 { body_v2 } else { body_v1 };
    let scrapes: Vec<Vec<Bytes>> = (0..SCRAPES)
        .map(|s| starts.iter().map(|&n| body(s, n, (n + SERIES_PER_REQUEST).min(total))).collect())
        .collect();
    let bytes: usize = scrapes.iter().flatten().map(Bytes::len).sum();
    let samples = (total * SCRAPES) as f64;
    let text = |n| labels(n / SERIES_PER_TARGET, n % SERIES_PER_TARGET);
    let label_bytes: usize = (0..total).flat_map(text).map(|(n, v)| n.len() + v.len() + 6).sum();
    println!(
        "remote write {}: {total} series of {} bytes of labels, {:.1} bytes/sample sent",
        if is_v2 { "2.0" } else { "1.0" },
        label_bytes / total,
        bytes as f64 / samples
    );

    let client = fake::Fake::forgetful(shards);
    let d = Distributor::new(DistributorConfig::default(), LimitsHandle::default(), client);
    let tenant = TenantId::anonymous();
    let content_type = "application/x-protobuf;proto=io.prometheus.write.v2.Request";
    let headers = RemoteWriteHeaders {
        content_type: is_v2.then(|| content_type.to_owned()),
        ..RemoteWriteHeaders::default()
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let send = |scrape: &[Bytes]| {
        let begun = now_ns();
        for body in scrape {
            let answer = runtime.block_on(d.remote_write(&tenant, &headers, body.clone()));
            assert_eq!(answer.status, 204, "{}", answer.body);
        }
        now_ns() - begun
    };
    println!("  first scrape, every series new: {:.0} ns/series", send(&scrapes[0]) as f64 / total as f64);
    let whole = (0..ROUNDS).map(|_| scrapes[1..].iter().map(|s| send(s)).sum::<u64>()).min().unwrap_or(0);
    println!(
        "  whole (with a shard that parses the batch): {:.0} ns/sample",
        whole as f64 / (total * (SCRAPES - 1)) as f64
    );

    let mut best = [u64::MAX; 3];
    for _ in 0..ROUNDS {
        let mut ns = [0; 3];
        let mut stages = Stages::new(is_v2);
        for body in scrapes[1..].iter().flatten() {
            let t0 = now_ns();
            stages.decompress(body).expect("a block");
            let t1 = now_ns();
            let (_, unknown) = stages.walk(&d, &tenant).expect("a request");
            let t2 = now_ns();
            assert_eq!(unknown, 0, "every series is known");
            stages.build(&d, &tenant);
            let t3 = now_ns();
            ns = [ns[0] + t1 - t0, ns[1] + t2 - t1, ns[2] + t3 - t2];
        }
        best = std::array::from_fn(|i| best[i].min(ns[i]));
    }
    let per = |ns: u64| ns as f64 / (total * (SCRAPES - 1)) as f64;
    println!(
        "  decompress {:.0} + walk and identity {:.0} + batches {:.0} = {:.0} ns/sample ({shards} shards)",
        per(best[0]),
        per(best[1]),
        per(best[2]),
        per(best.iter().sum())
    );
}

fn main() {
    let shards = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(4);
    measure(shards, false);
    measure(shards, true);
}
