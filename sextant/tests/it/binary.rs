//! The binary as a process: started on free ports and a temporary folder, ended with the value.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use prost::Message;
use sextant_proto::remote_write::{Label, SampleV1, TimeSeriesV1, WriteRequestV1};

/// A running process.
pub struct Sextant {
    pub child: Child,
    /// `http://host:port`.
    pub url: String,
    /// `host:port` of gRPC.
    pub grpc: String,
    /// `host:port` of OTLP over gRPC.
    pub otlp_grpc: String,
    /// `host:port` of OTLP over HTTP.
    pub otlp_http: String,
    /// `host:port` of PostgreSQL's protocol.
    pub postgres: String,
    pub client: reqwest::blocking::Client,
}

pub fn binary() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_sextant"))
}

impl Sextant {
    /// Starts a process on a folder and waits until it is ready.
    pub fn start(folder: &Path, args: &[&str], fault: Option<&str>) -> Self {
        Self::try_start(folder, args, fault).expect("the process starts")
    }

    /// As `start`; `None` where the process ends before it is ready (a fault at the start).
    pub fn try_start(folder: &Path, args: &[&str], fault: Option<&str>) -> Option<Self> {
        let mut process = Self::spawn(folder, args, fault)?;
        let until = Instant::now() + Duration::from_secs(60);
        while process.client.get(format!("{}/ready", process.url)).send().map(|r| r.status().as_u16()).ok()
            != Some(200)
        {
            if process.child.try_wait().unwrap().is_some() {
                return None;
            }
            assert!(Instant::now() < until, "not ready within a minute");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(process)
    }

    /// Starts a process and waits until it listens; `None` where it ends before.
    pub fn spawn(folder: &Path, args: &[&str], fault: Option<&str>) -> Option<Self> {
        let mut command = Command::new(binary());
        command.arg("--data-dir").arg(folder.join("data"));
        for listener in ["http", "grpc", "otlp.grpc", "otlp.http", "postgres"] {
            command.arg(format!("--{listener}.listen=127.0.0.1:0"));
        }
        // A variable, so that a flag of the test may say otherwise.
        command.env("SEXTANT_LOG_LEVEL", "warn").args(args);
        if let Some(fault) = fault {
            command.env("SEXTANT_FAULT", fault);
        }
        let log = std::fs::OpenOptions::new().create(true).append(true).open(folder.join("log.txt")).unwrap();
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut addresses = Vec::new();
        for line in lines.by_ref().map_while(Result::ok) {
            if line == "Try:" {
                break;
            }
            if let Some(address) = line.split_whitespace().last().filter(|_| line.starts_with("  ")) {
                addresses.push(address.to_owned());
            }
        }
        // The rest of the output is read away, so that the process never waits for it.
        std::thread::spawn(move || lines.for_each(drop));
        if addresses.len() < 5 {
            let _ = child.wait();
            return None;
        }
        let client = reqwest::blocking::Client::builder().timeout(Duration::from_secs(60)).build().unwrap();
        Some(Self {
            child,
            url: format!("http://{}", addresses[0]),
            grpc: addresses[1].clone(),
            otlp_grpc: addresses[2].clone(),
            otlp_http: addresses[3].clone(),
            postgres: addresses[4].clone(),
            client,
        })
    }

    /// GET; status and body.
    pub fn get(&self, path: &str) -> (u16, String) {
        let response = self.client.get(format!("{}{path}", self.url)).send().unwrap();
        (response.status().as_u16(), response.text().unwrap())
    }

    /// POST; status and body, or the transport's error (the process died).
    pub fn post(
        &self,
        path: &str,
        content_type: &str,
        body: Vec<u8>,
    ) -> Result<(u16, String), reqwest::Error> {
        let request =
            self.client.post(format!("{}{path}", self.url)).header("Content-Type", content_type).body(body);
        let response = request.send()?;
        Ok((response.status().as_u16(), response.text()?))
    }

    /// JSON of a PromQL instant query's `data.result`.
    pub fn query(&self, query: &str, at_s: i64) -> serde_json::Value {
        let form = format!("query={}&time={at_s}", encode(query));
        let (status, body) =
            self.post("/api/v1/query", "application/x-www-form-urlencoded", form.into()).unwrap();
        assert_eq!(status, 200, "{query}: {body}");
        serde_json::from_str::<serde_json::Value>(&body).unwrap()["data"]["result"].clone()
    }

    /// Ends the process at once.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Sextant {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Percent-encodes a form value.
pub fn encode(text: &str) -> String {
    text.bytes()
        .map(|b| if b.is_ascii_alphanumeric() { (b as char).to_string() } else { format!("%{b:02X}") })
        .collect()
}

/// A remote-write 1.0 body: series of (labels, samples).
pub fn remote_write(series: &[(Vec<(&str, String)>, Vec<(i64, f64)>)]) -> Vec<u8> {
    let timeseries = series
        .iter()
        .map(|(labels, samples)| TimeSeriesV1 {
            labels: labels.iter().map(|(n, v)| Label { name: (*n).into(), value: v.clone() }).collect(),
            samples: samples.iter().map(|&(timestamp, value)| SampleV1 { value, timestamp }).collect(),
            ..TimeSeriesV1::default()
        })
        .collect();
    let raw = WriteRequestV1 { timeseries, metadata: Vec::new() }.encode_to_vec();
    snap::raw::Encoder::new().compress_vec(&raw).unwrap()
}

#[test]
fn a_new_user_sees_this_host_within_seconds() {
    let folder = tempfile::tempdir().unwrap();
    let sextant = Sextant::start(folder.path(), &["--agent.host-interval=1s"], None);
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        let (status, body) = sextant.get("/api/v1/query?query=node_load1");
        assert_eq!(status, 200, "{body}");
        let answer: serde_json::Value = serde_json::from_str(&body).unwrap();
        if let Some(value) = answer["data"]["result"][0]["value"][1].as_str() {
            value.parse::<f64>().unwrap();
            break;
        }
        assert!(Instant::now() < until, "{body}");
        std::thread::sleep(Duration::from_millis(100));
    }
    let (status, page) = sextant.get("/");
    assert!(status == 200 && page.contains("Sextant"));
    let (status, metrics) = sextant.get("/metrics");
    assert_eq!(status, 200);
    for name in [
        "sextant_build_info",
        "sextant_distributor_samples_total",
        "sextant_ingester_",
        "sextant_querier_queries_total",
        "sextant_compactor_passes_total",
        "process_open_fds",
    ] {
        assert!(metrics.contains(name), "{name}");
    }
    let documented = include_str!("../../../docs/metrics.md");
    for name in metrics.lines().filter_map(|l| l.strip_prefix("# TYPE ")?.split(' ').next()) {
        assert!(documented.contains(&format!("| `{name}` |")), "{name} is not in docs/metrics.md");
    }
    assert_eq!(sextant.get("/healthz").0, 200);
    assert_eq!(sextant.get("/nothing").0, 404);
}

#[test]
fn a_second_process_on_the_folder_is_refused_and_a_stop_is_orderly() {
    let folder = tempfile::tempdir().unwrap();
    let mut sextant = Sextant::start(folder.path(), &["--agent.host-metrics=false"], None);
    let second = Command::new(binary())
        .arg("--data-dir")
        .arg(folder.path().join("data"))
        .args([
            "--http.listen=127.0.0.1:0",
            "--grpc.listen=off",
            "--otlp.grpc.listen=off",
            "--otlp.http.listen=off",
            "--postgres.listen=off",
        ])
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(!second.status.success() && error.contains("data"), "{error}");
    let taken = Command::new(binary())
        .arg("--data-dir")
        .arg(folder.path().join("other"))
        .arg(format!("--http.listen={}", sextant.url.trim_start_matches("http://")))
        .args(["--grpc.listen=off", "--otlp.grpc.listen=off", "--otlp.http.listen=off"])
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&taken.stderr).into_owned();
    assert!(!taken.status.success() && error.contains("http.listen"), "{error}");
    let body = remote_write(&[(vec![("__name__", "m".to_owned())], vec![(1000, 5.0)])]);
    assert_eq!(sextant.post("/api/v1/push", "application/x-protobuf", body).unwrap().0, 204);
    let pid = sextant.child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    let until = Instant::now() + Duration::from_secs(40);
    let status = loop {
        if let Some(status) = sextant.child.try_wait().unwrap() {
            break status;
        }
        assert!(Instant::now() < until, "did not stop");
        std::thread::sleep(Duration::from_millis(50));
    };
    assert!(status.success(), "{status}");
    let again = Sextant::start(folder.path(), &["--agent.host-metrics=false"], None);
    assert_eq!(again.query("m", 1)[0]["value"][1], "5");
}
