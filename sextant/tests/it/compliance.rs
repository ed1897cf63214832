//! The compliance tester's queries: the same data in a real Prometheus and here, the same answers.

use std::{
    collections::BTreeMap,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    binary::{Sextant, encode, remote_write},
    stack::conformance,
};

/// Samples of each series, every five seconds.
const SAMPLES: i64 = 360;
const INTERVAL_MS: i64 = 5_000;
const TOLERANCE: f64 = 1e-5;

type Series = (Vec<(&'static str, String)>, Vec<(i64, f64)>);

/// A demo service as the tester's queries expect it: counters with a reset, gauges, a classic histogram, a gap.
fn demo(end_ms: i64) -> Vec<Series> {
    let mut out: Vec<Series> = Vec::new();
    for (n, instance) in ["demo-a:10000", "demo-b:10001", "demo-c:10002"].into_iter().enumerate() {
        let n = n as f64 + 1.0;
        let mut add = |name: &str, more: &[(&'static str, &str)], value: &dyn Fn(f64) -> Option<f64>| {
            let mut labels = vec![("__name__", name.to_owned())];
            labels.extend(more.iter().map(|(k, v)| (*k, (*v).to_owned())));
            labels.extend([("instance", instance.to_owned()), ("job", "demo".to_owned())]);
            labels.sort();
            let at = |i: i64| end_ms - (SAMPLES - 1 - i) * INTERVAL_MS;
            let samples = (0..SAMPLES).filter_map(|i| Some((at(i), value(i as f64)?))).collect();
            out.push((labels, samples));
        };
        add("demo_num_cpus", &[], &|_| Some(4.0));
        add("demo_disk_usage_bytes", &[], &|i| Some(1e9 * n + i * 1000.0));
        add("demo_disk_total_bytes", &[], &|_| Some(2.6e11));
        add("demo_batch_last_success_timestamp_seconds", &[], &|i| Some((i / 12.0).floor() * 60.0 + n));
        add("demo_intermittent_metric", &[], &|i| (i as i64 / 30 % 2 == 0).then_some(i * n));
        for (k, kind) in ["used", "buffers", "cached", "free"].into_iter().enumerate() {
            let base = 1e8 * (k as f64 + n);
            add("demo_memory_usage_bytes", &[("type", kind)], &|i| {
                Some(base + ((i * 0.1).sin() * 1e6).round())
            });
        }
        for (k, mode) in ["user", "system", "idle"].into_iter().enumerate() {
            let rate = (k as f64 + 1.0) * 0.31 * n;
            // One restart on the way.
            add("demo_cpu_usage_seconds_total", &[("mode", mode)], &|i| {
                Some(rate * if i < 200.0 { i } else { i - 200.0 })
            });
        }
        for status in ["200", "500"] {
            let labels = [("method", "GET"), ("path", "/api/foo"), ("status", status)];
            let rate = if status == "200" { 7.0 * n } else { 0.3 * n };
            add("demo_api_request_duration_seconds_count", &labels, &|i| Some((rate * i).floor()));
            add("demo_api_request_duration_seconds_sum", &labels, &|i| Some(rate * i * 0.013));
            for (le, share) in [("0.0001", 0.0), ("0.01", 0.4), ("0.1", 0.9), ("1.0", 0.99), ("+Inf", 1.0)] {
                let labels = [("le", le), labels[0], labels[1], labels[2]];
                add("demo_api_request_duration_seconds_bucket", &labels, &|i| {
                    Some((rate * i * share).floor())
                });
            }
        }
    }
    out
}

struct Peer {
    process: Child,
    url: String,
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Peer {
    fn start(folder: &std::path::Path, client: &reqwest::blocking::Client) -> Option<Self> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let Some(program) = std::env::split_paths(&path).map(|p| p.join("prometheus")).find(|p| p.is_file())
        else {
            println!("skipped: there is no prometheus on the PATH");
            return None;
        };
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let file = folder.join("prometheus.yml");
        std::fs::write(&file, "global: {}\n").unwrap();
        let process = Command::new(program)
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("tsdb").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg("--web.enable-remote-write-receiver")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let peer = Self { process, url: format!("http://127.0.0.1:{port}") };
        let until = Instant::now() + Duration::from_secs(60);
        let is_ready = || client.get(format!("{}/-/ready", peer.url)).send().is_ok_and(|r| r.status() == 200);
        while !is_ready() {
            assert!(Instant::now() < until, "Prometheus is not ready within a minute");
            std::thread::sleep(Duration::from_millis(50));
        }
        Some(peer)
    }
}

/// An answer's series by label set, or the error.
fn answer(body: &str) -> Result<BTreeMap<String, Vec<(i64, f64)>>, String> {
    let answer: Value = serde_json::from_str(body).map_err(|e| format!("{e}: {body}"))?;
    if answer["status"] != "success" {
        return Err(answer["error"].to_string());
    }
    let series = answer["data"]["result"].as_array().ok_or("no result")?;
    let points = |s: &Value| {
        let of = |p: &Value| {
            let t = (p[0].as_f64().unwrap_or(f64::NAN) * 1000.0).round() as i64;
            (t, p[1].as_str().and_then(|v| v.parse().ok()).unwrap_or(f64::NAN))
        };
        s["values"].as_array().into_iter().flatten().map(of).collect()
    };
    Ok(series.iter().map(|s| (s["metric"].to_string(), points(s))).collect())
}

fn is_close(a: f64, b: f64) -> bool {
    a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= TOLERANCE * a.abs().max(b.abs())
}

fn same(ours: &BTreeMap<String, Vec<(i64, f64)>>, theirs: &BTreeMap<String, Vec<(i64, f64)>>) -> bool {
    ours.len() == theirs.len()
        && ours.iter().zip(theirs).all(|((a, x), (b, y))| {
            a == b && x.len() == y.len() && x.iter().zip(y).all(|(p, q)| p.0 == q.0 && is_close(p.1, q.1))
        })
}

#[test]
fn answers_are_those_of_prometheus() {
    let Some(folder) = conformance("promql-compliance") else { return };
    let data = tempfile::tempdir().unwrap();
    let sextant = Sextant::start(data.path(), &["--agent.host-metrics=false"], None);
    let Some(peer) = Peer::start(data.path(), &sextant.client) else { return };
    // A Prometheus takes new series near its own time only.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as i64;
    let end = now / 60 * 60;
    let body = remote_write(&demo(end * 1000));
    for (url, path) in [(&sextant.url, "/api/v1/push"), (&peer.url, "/api/v1/write")] {
        let request = sextant
            .client
            .post(format!("{url}{path}"))
            .header("Content-Type", "application/x-protobuf")
            .header("Content-Encoding", "snappy")
            .header("X-Prometheus-Remote-Write-Version", "0.1.0");
        let response = request.body(body.clone()).send().unwrap();
        assert!(response.status().is_success(), "{url}: {}", response.text().unwrap());
    }
    let suite = std::fs::read_to_string(folder.join("queries.json")).unwrap();
    let suite: Value = serde_json::from_str(&suite).unwrap();
    let (mut asked, mut selected, mut failures) = (0, 0, Vec::new());
    for case in suite["cases"].as_array().unwrap() {
        for query in case["queries"].as_array().unwrap().iter().filter_map(Value::as_str) {
            let form = format!("query={}&start={}&end={end}&step=10", encode(query), end - 900);
            let ask = |url: &str| {
                let request = sextant.client.post(format!("{url}/api/v1/query_range"));
                let request = request.header("Content-Type", "application/x-www-form-urlencoded");
                answer(&request.body(form.clone()).send().unwrap().text().unwrap())
            };
            asked += 1;
            match (ask(&sextant.url), ask(&peer.url)) {
                (Ok(ours), Ok(theirs)) if same(&ours, &theirs) => selected += usize::from(!ours.is_empty()),
                (Err(_), Err(_)) => {}
                (ours, theirs) => {
                    let brief = |a: Result<BTreeMap<String, Vec<(i64, f64)>>, String>| {
                        format!("{:?}", a.map(|a| a.into_iter().next())).chars().take(200).collect::<String>()
                    };
                    failures.push(format!("{} {query}\n  {}\n  {}", case["id"], brief(ours), brief(theirs)));
                }
            }
        }
    }
    println!("compliance: {} of {asked} equal, {selected} of them not empty", asked - failures.len());
    assert!(failures.is_empty(), "{} of {asked}:\n{}", failures.len(), failures.join("\n"));
    assert!(selected > asked / 2, "{selected} of {asked} select something");
}
