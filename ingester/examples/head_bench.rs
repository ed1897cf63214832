//! Measures the head: CPU per sample of apply, memory per series, CPU per sample read back.
//!
//! `cargo run --release -p sextant-ingester --example head_bench -- [series] [scrapes] [start]`. The load: 200 targets, batches of 2,000
//! samples, 13 labels of some 300 bytes a series, half counters. Times are CPU time of the thread, so a busy machine does
//! not change them much.

use bytes::Bytes;
use sextant_ingester::head::{Applied, Command, Head, TenantFlush};
use sextant_model::{Labels, Matcher, SeriesBuf, TenantId};
use sextant_proto::{BatchHeader, NEW_SERIES_BASE, SelectLimits, SelectRequest, WriteBatchBuilder};

const TARGETS: usize = 200;
const BATCH: usize = 2_000;
const T0: i64 = 1_700_000_000_000;

fn cpu_ns() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0)
}

fn resident_bytes() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    text.split(' ').nth(1).and_then(|n| n.parse::<usize>().ok()).unwrap_or(0) * 4096
}

fn labels(target: usize, k: usize) -> Labels {
    let pairs = [
        ("__name__", format!("container_network_some_metric_{}_total", k % 113)),
        ("job", "kubernetes-nodes-cadvisor".to_owned()),
        ("instance", format!("10.0.{target}.17:10250")),
        ("cluster", "production-eu-west-1".to_owned()),
        ("namespace", format!("team-{}-services", k % 17)),
        ("pod", format!("checkout-api-7d9f8b6c5-{:05x}", target * 31 + k / 40)),
        ("container", format!("app-{}", k % 4)),
        ("image", "registry.example.com/team/checkout-api@sha256:0f1e2d3c4b5a".to_owned()),
        ("node", format!("ip-10-0-{target}-17.eu-west-1.compute.internal")),
        ("id", format!("/kubepods/burstable/pod{:08x}/{k:08x}", target * 7919)),
        ("name", format!("k8s_app_{k}")),
        ("device", format!("eth{}", k % 2)),
        ("le", format!("{}", k % 11)),
    ];
    Labels::from_pairs(pairs).expect("labels are valid")
}

fn value(series: usize, scrape: usize) -> f64 {
    let (s, n) = (series as u64, scrape as u64);
    let noise = (s * 31 + n * 17).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    match series % 20 {
        0..9 => (s * 1000 + n * (s % 97) + noise % 50) as f64,
        9..13 => (noise % 200) as f64,
        13..16 => (noise % 100_000) as f64 / 1000.0,
        16..19 => (n * (s % 7)) as f64,
        _ => s as f64,
    }
}

struct Load {
    series: usize,
    refs: Vec<u32>,
    builder: WriteBatchBuilder,
    writes: u128,
    /// Start timestamp of every sample, 0 for none.
    start: i64,
}

impl Load {
    /// One scrape of all targets: batches of one epoch, and which series each one has.
    fn scrape(&mut self, scrape: usize, epoch: u64) -> Vec<(Bytes, std::ops::Range<usize>)> {
        let per_target = self.series / TARGETS;
        let mut out = Vec::new();
        for first in (0..self.series).step_by(BATCH) {
            let range = first..(first + BATCH).min(self.series);
            for s in range.clone() {
                let target = s / per_target;
                let t = T0 + scrape as i64 * 15_000 + target as i64 * 70 + (scrape * 7 + target) as i64 % 5;
                let mut r = self.refs[s];
                if r == u32::MAX {
                    r = self.builder.new_series(labels(target, s % per_target).as_bytes(), 0);
                }
                self.builder.sample(r, t, value(s, scrape), self.start);
            }
            self.writes += 1;
            let header = BatchHeader {
                tenant: "anonymous",
                write_id: self.writes,
                epoch,
                max_series: 0,
                ooo_window_ms: -1,
                now_ms: T0 + scrape as i64 * 15_000,
            };
            out.push((Command::Write(&self.builder.finish(&header)).encode(), range));
        }
        out
    }
}

fn main() {
    let mut args = std::env::args().skip(1).map(|a| a.parse::<usize>().expect("a number"));
    let (series, scrapes) = (args.next().unwrap_or(105_000), args.next().unwrap_or(240));
    let start = args.next().unwrap_or(0) as i64;
    let mut load =
        Load { series, refs: vec![u32::MAX; series], builder: Default::default(), writes: 0, start };
    let _ = load.scrape(0, 1);
    load.writes = 0;
    let base = resident_bytes();
    let head = Head::new();
    let (mut first_ns, mut rest_ns) = (0, 0);
    for scrape in 0..scrapes {
        let batches = load.scrape(scrape, head.epoch());
        for (i, (payload, range)) in batches.into_iter().enumerate() {
            let begin = cpu_ns();
            let applied = head.apply((scrape * 1000 + i) as u64 + 1, &payload);
            *(if scrape == 0 { &mut first_ns } else { &mut rest_ns }) += cpu_ns() - begin;
            let Applied::Written(Ok(outcome)) = applied else { panic!("{applied:?}") };
            assert!(outcome.refused.is_empty());
            if scrape == 0 {
                assert!(outcome.new_refs.iter().all(|&r| r < NEW_SERIES_BASE));
                load.refs[range].copy_from_slice(&outcome.new_refs);
            }
        }
    }
    let resident = resident_bytes() - base;
    let samples = (series * scrapes) as f64;
    println!("first scrape     {:8.1} ns/series", first_ns as f64 / series as f64);
    println!("append           {:8.2} ns/sample", rest_ns as f64 / (samples - series as f64));
    println!("memory counted   {:8.0} B/series", head.memory() as f64 / series as f64);
    println!("memory resident  {:8.0} B/series", resident as f64 / series as f64);

    let request = |matchers| SelectRequest {
        tenant: TenantId::anonymous(),
        matchers,
        start: i64::MIN,
        end: i64::MAX,
        after: 0,
        limits: SelectLimits::default(),
    };
    let begin = cpu_ns();
    let all = head.select(&request(vec![])).expect("no limit");
    let ns = (cpu_ns() - begin) as f64;
    assert_eq!(all.sample_count(), series * scrapes);
    println!("select all       {:8.2} ns/sample", ns / samples);
    let begin = cpu_ns();
    let name = "container_network_some_metric_7_total";
    let one = head.select(&request(vec![Matcher::equal("__name__", name)])).expect("no limit");
    let first_ns = cpu_ns() - begin;
    let begin = cpu_ns();
    for _ in 0..10 {
        let again = head.select(&request(vec![Matcher::equal("__name__", name)])).expect("no limit");
        assert_eq!(again.len(), one.len());
    }
    println!(
        "  ten more times {:8.2} ns/sample",
        (cpu_ns() - begin) as f64 / 10.0 / one.sample_count() as f64
    );
    println!(
        "select one name  {:8.2} ns/sample ({} series)",
        first_ns as f64 / one.sample_count() as f64,
        one.len()
    );

    head.apply(1 << 40, &Command::Seal.encode());
    let tenant = head.sealed()[0].tenants().remove(0);
    let begin = cpu_ns();
    let flush = TenantFlush::new(tenant);
    let sort_ns = cpu_ns() - begin;
    let mut buf = SeriesBuf::default();
    let mut keys = std::collections::BTreeSet::new();
    let begin = cpu_ns();
    for i in 0..flush.len() {
        flush.read(i, &mut buf);
        keys.insert(flush.time_key(i));
    }
    println!("flush order      {:8.1} ns/series", sort_ns as f64 / series as f64);
    println!(
        "flush read       {:8.2} ns/sample ({} time keys)",
        (cpu_ns() - begin) as f64 / samples,
        keys.len()
    );
}
