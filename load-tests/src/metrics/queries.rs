//! The queries: median, slowest and CPU of each, and a digest of the answer to compare servers by.

use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::{generator::Shape, peers::Peer};
use crate::client::Client;

/// One query's figures.
#[derive(Clone, Debug)]
pub struct QueryFigures {
    /// Its name.
    pub name: &'static str,
    /// Median milliseconds.
    pub median_ms: f64,
    /// 99th percentile milliseconds (the slowest of few).
    pub p99_ms: f64,
    /// CPU milliseconds of the server per execution.
    pub cpu_ms: f64,
    /// Series in the answer, and the sum of its finite values.
    pub digest: (usize, f64),
}

struct Query {
    name: &'static str,
    expr: &'static str,
    /// Range in seconds before the end of the data and step in seconds; `None` is an instant query at the end.
    range: Option<(i64, i64)>,
}

const fn range(name: &'static str, expr: &'static str, seconds: i64, step: i64) -> Query {
    Query { name, expr, range: Some((seconds, step)) }
}

const fn instant(name: &'static str, expr: &'static str) -> Query {
    Query { name, expr, range: None }
}

const QUERIES: &[Query] = &[
    instant("one series, instant", "go_goroutines{pod=~\"checkout-.*\",shard=\"1\",handler=\"/api/v1/23\"}"),
    instant("sum of rates, instant", "sum by (job) (rate(http_requests_total[5m]))"),
    instant("count of all series", "count({__name__=~\".+\"})"),
    range("one namespace, gauge", "queue_depth{namespace=\"shop\"}", 3600, 15),
    range(
        "rate of one metric, 1 h",
        "rate(http_requests_total{namespace=\"shop\",code=\"500\"}[5m])",
        3600,
        15,
    ),
    range("sum of rates by job, 1 h", "sum by (job) (rate(http_requests_total[5m]))", 3600, 15),
    range("sum of rates, 10 metrics", "sum by (namespace) (rate({__name__=~\".+_total\"}[5m]))", 3600, 60),
    range(
        "error ratio",
        "sum by (job) (rate(http_requests_total{code=~\"5..\"}[5m])) / sum by (job) (rate(http_requests_total[5m]))",
        3600,
        15,
    ),
    range(
        "p99 latency by job",
        "histogram_quantile(0.99, sum by (job, le) (rate(http_request_duration_seconds_bucket[5m])))",
        3600,
        15,
    ),
    range("top 5 pods by memory", "topk(5, sum by (pod) (container_memory_working_set_bytes))", 3600, 60),
    range("average over time", "avg_over_time(cpu_utilization_ratio{namespace=\"data\"}[10m])", 3600, 60),
    range("max of gauges by node", "max by (node) (process_open_fds)", 3600, 15),
    range("quantile over series", "quantile(0.9, request_latency_average_seconds)", 3600, 60),
    range("increase, 30 m window", "sum(increase(errors_total[30m]))", 3600, 60),
    range("regex on pod", "sum by (pod) (rate(rpc_calls_total{pod=~\"(cart|users)-.*\"}[5m]))", 3600, 15),
    range("subquery", "max_over_time(sum(rate(db_queries_total[5m]))[30m:1m])", 1800, 60),
];

/// Asks every query `repeat` times.
pub fn run(shape: &Shape, peer: &mut Peer, repeat: usize) -> Result<Vec<QueryFigures>> {
    let end = shape.start_ms / 1000 + (shape.scrapes as i64 - 1) * 15;
    let mut client = Client::new(&peer.address);
    QUERIES
        .iter()
        .map(|q| {
            let path = path(q, peer, end);
            let cpu = peer.cpu_seconds();
            let mut times = Vec::with_capacity(repeat);
            let mut digest = (0, 0.0);
            for _ in 0..repeat.max(1) {
                let begin = Instant::now();
                let answer = client.request("GET", &path, &[], b"").with_context(|| q.name.to_owned())?;
                times.push(begin.elapsed().as_secs_f64() * 1e3);
                if answer.status != 200 {
                    bail!(
                        "{}: {} answered {}: {}",
                        q.name,
                        peer.name,
                        answer.status,
                        String::from_utf8_lossy(&answer.body)
                    );
                }
                digest = digest_of(&answer.body)?;
            }
            let cpu_ms = (peer.cpu_seconds() - cpu) * 1e3 / times.len() as f64;
            times.sort_by(f64::total_cmp);
            let p99 = times[(times.len() * 99).div_ceil(100) - 1];
            Ok(QueryFigures { name: q.name, median_ms: times[times.len() / 2], p99_ms: p99, cpu_ms, digest })
        })
        .collect()
}

fn path(q: &Query, peer: &Peer, end: i64) -> String {
    let expr: String = q
        .expr
        .bytes()
        .map(|b| if b.is_ascii_alphanumeric() { (b as char).to_string() } else { format!("%{b:02X}") })
        .collect();
    let prefix = &peer.api_prefix;
    let suffix = peer.query_suffix;
    match q.range {
        None => format!("{prefix}/api/v1/query?query={expr}&time={end}{suffix}"),
        Some((seconds, step)) => {
            format!(
                "{prefix}/api/v1/query_range?query={expr}&start={}&end={end}&step={step}{suffix}",
                end - seconds
            )
        }
    }
}

fn digest_of(body: &[u8]) -> Result<(usize, f64)> {
    let answer: Value = serde_json::from_slice(body)?;
    let result = answer["data"]["result"].as_array().context("data.result")?;
    let number = |point: &Value| {
        point[1].as_str().and_then(|s| s.parse::<f64>().ok()).filter(|v| v.is_finite()).unwrap_or(0.0)
    };
    let sum = result
        .iter()
        .map(|s| match s["values"].as_array() {
            Some(points) => points.iter().map(number).sum(),
            None => number(&s["value"]),
        })
        .sum::<f64>();
    Ok((result.len(), sum))
}
