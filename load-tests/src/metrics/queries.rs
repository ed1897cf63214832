//! The queries: median, slowest and CPU of each, and a digest of the answer to compare servers by.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::Value;

use super::{
    generator::{Natives, Shape},
    peers::Peer,
};
use crate::client::{Client, percent_encoded};

/// One query's figures at one server.
#[derive(Clone, Copy, Debug)]
pub struct QueryFigures {
    /// Median milliseconds.
    pub median_ms: f64,
    /// 99th percentile milliseconds (the slowest of few).
    pub p99_ms: f64,
    /// CPU milliseconds of the server per execution; NaN where its process is not known.
    pub cpu_ms: f64,
    /// Series in the answer, and the sum of its finite values.
    pub digest: (usize, f64),
}

/// What became of a query at a server.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// It was answered.
    Answered(QueryFigures),
    /// It reads what the server does not hold.
    NotHeld,
    /// It was refused: the status and the body's beginning.
    Failed(String),
}

impl Outcome {
    /// The figures of an answer.
    pub fn figures(&self) -> Option<&QueryFigures> {
        match self {
            Self::Answered(f) => Some(f),
            Self::NotHeld | Self::Failed(_) => None,
        }
    }
}

/// A query.
pub struct Query {
    /// Its name in the table.
    pub name: &'static str,
    /// PromQL.
    pub expr: &'static str,
    /// From so many seconds before the end of the data to its end, and the step in seconds; `None` is an instant query at
    /// the end.
    pub range: Option<(i64, i64)>,
    /// It reads native histograms.
    pub native: bool,
}

const fn range(name: &'static str, expr: &'static str, seconds: i64, step: i64) -> Query {
    Query { name, expr, range: Some((seconds, step)), native: false }
}

const fn instant(name: &'static str, expr: &'static str) -> Query {
    Query { name, expr, range: None, native: false }
}

/// All of them.
pub const QUERIES: &[Query] = &[
    instant("few series, instant", "go_goroutines{pod=~\"checkout-.*\",shard=\"1\",handler=\"/api/v1/23\"}"),
    instant("sum of rates, instant", "sum by (job) (rate(http_requests_total[5m]))"),
    instant("count of all series", "count({__name__=~\".+\",__name__!~\"http_native_.+\"})"),
    range("one namespace, gauge", "queue_depth{namespace=\"shop\"}", 3600, 15),
    range(
        "rate of one metric, 1 h",
        "rate(http_requests_total{namespace=\"shop\",code=\"500\"}[5m])",
        3600,
        15,
    ),
    // 10,000 series at the default size, 239 steps.
    range("sum of rates, 1 h, 239 steps", "sum(rate(http_requests_total[5m]))", 3570, 15),
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
    Query {
        name: "p99 latency by job, native",
        expr: "histogram_quantile(0.99, sum by (job) (rate(http_native_request_duration_seconds[5m])))",
        range: Some((3600, 15)),
        native: true,
    },
    range("top 5 pods by memory", "topk(5, sum by (pod) (container_memory_working_set_bytes))", 3600, 60),
    range("average over time", "avg_over_time(cpu_utilization_ratio{namespace=\"data\"}[10m])", 3600, 60),
    range("max of gauges by node", "max by (node) (process_open_fds)", 3600, 15),
    range("quantile over series", "quantile(0.9, request_latency_average_seconds)", 3600, 60),
    range("increase, 30 m window", "sum(increase(errors_total[30m]))", 3600, 60),
    range("regex on pod", "sum by (pod) (rate(rpc_calls_total{pod=~\"(cart|users)-.*\"}[5m]))", 3600, 15),
    range("subquery", "max_over_time(sum(rate(db_queries_total[5m]))[30m:1m])", 1800, 60),
];

/// How long a query is asked again after it was asked as often as was wished, and how often at most.
const TIME_PER_QUERY: Duration = Duration::from_millis(500);
const TIMES_AT_MOST: usize = 100;

/// Asks every query at least `repeat` times.
pub fn run(shape: &Shape, peer: &Peer, repeat: usize) -> Result<Vec<Outcome>> {
    let mut client = Client::new(&peer.address);
    let held = |q: &Query| !q.native || (peer.natives == Natives::Sent && shape.native_per_thousand > 0);
    QUERIES
        .iter()
        .map(|q| if held(q) { ask(q, shape, peer, &mut client, repeat.max(1)) } else { Ok(Outcome::NotHeld) })
        .collect()
}

fn ask(q: &Query, shape: &Shape, peer: &Peer, client: &mut Client, repeat: usize) -> Result<Outcome> {
    let path = path(q, peer, shape.end_s());
    let mark = peer.cpu_mark();
    let mut times = Vec::with_capacity(TIMES_AT_MOST);
    let mut body = Vec::new();
    let began = Instant::now();
    while times.len() < repeat || (times.len() < TIMES_AT_MOST && began.elapsed() < TIME_PER_QUERY) {
        let begin = Instant::now();
        let answer = client.request("GET", &path, &[], b"").with_context(|| q.name.to_owned())?;
        times.push(begin.elapsed().as_secs_f64() * 1e3);
        if answer.status != 200 {
            let text: String = String::from_utf8_lossy(&answer.body).trim().chars().take(200).collect();
            eprintln!("{}: {} answered {}: {text}", q.name, peer.name, answer.status);
            return Ok(Outcome::Failed(format!("{} {text}", answer.status)));
        }
        body = answer.body;
    }
    let cpu_ms = peer.cpu_since(&mark) * 1e3 / times.len() as f64;
    times.sort_by(f64::total_cmp);
    Ok(Outcome::Answered(QueryFigures {
        median_ms: times[times.len() / 2],
        p99_ms: times[(times.len() * 99).div_ceil(100) - 1],
        cpu_ms,
        digest: digest_of(&body)?,
    }))
}

fn path(q: &Query, peer: &Peer, end: i64) -> String {
    let expr = percent_encoded(q.expr);
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

#[cfg(test)]
mod tests {
    use super::{
        super::generator::{Catalogue, Shape},
        *,
    };

    fn shape() -> Shape {
        Shape {
            // Every workload in every namespace once.
            series: 25_000,
            scrapes: 240,
            batch: 2000,
            connections: 2,
            churn_percent: 0,
            native_per_thousand: 10,
            seed: 1,
            start_ms: 1_700_000_000_000,
        }
    }

    #[test]
    fn every_selector_selects_series_and_none_but_one_selects_all() {
        let catalogue = Catalogue::new(&shape());
        for q in QUERIES {
            let selected = catalogue.selected_by(q.expr);
            assert!(!selected.is_empty(), "{}: no selector found", q.name);
            for (selector, n) in selected {
                assert!(n >= 5, "{}: {selector} selects {n} series", q.name);
                assert!(n < 20_000 || q.name == "count of all series", "{}: {selector} selects {n}", q.name);
            }
        }
    }

    #[test]
    fn the_sum_of_rates_reads_ten_thousand_series_at_the_default_size() {
        let q = QUERIES.iter().find(|q| q.name.contains("239")).unwrap();
        let catalogue = Catalogue::new(&shape());
        // A quarter of the default size.
        assert_eq!(catalogue.selected_by(q.expr)[0].1 * 4, 10_000);
        let (seconds, step) = q.range.unwrap();
        assert_eq!((seconds / step + 1, step), (239, 15));
    }

    #[test]
    fn digests_count_series_and_add_finite_values() {
        let range =
            br#"{"data":{"result":[{"values":[[1,"1"],[2,"2.5"]]},{"values":[[1,"NaN"],[2,"+Inf"]]}]}}"#;
        assert_eq!(digest_of(range).unwrap(), (2, 3.5));
        assert_eq!(digest_of(br#"{"data":{"result":[{"value":[1,"4"]}]}}"#).unwrap(), (1, 4.0));
        assert!(digest_of(b"{}").is_err());
    }
}
