//! The servers that are measured: how each is started, written to, asked, and made to settle.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use super::generator::Natives;
use crate::{
    client::Client,
    process::{CpuMark, Server, folder_bytes, memory},
};

/// A server.
pub struct Peer {
    /// Its name in the table.
    pub name: String,
    /// `host:port`.
    pub address: String,
    /// Where it takes remote write.
    pub write_path: String,
    /// In front of `/api/v1/…`.
    pub api_prefix: String,
    /// Added to each query, to turn a result cache off.
    pub query_suffix: &'static str,
    /// Whether it stores native histograms.
    pub natives: Natives,
    settling: Settling,
    pid: Option<u32>,
    /// Peak memory of a process of it that has ended, bytes.
    earlier_peak: u64,
    server: Option<Server>,
}

/// How a server writes everything out.
enum Settling {
    /// Not known: a server that was started by others.
    Unknown,
    /// By calls; its bytes are then those of a folder.
    Calls { searchable: Option<Call>, calls: Vec<Call>, data: PathBuf },
    /// By a snapshot, which holds the head as a block; then it is started again on that alone.
    Snapshot { program: PathBuf, folder: PathBuf },
}

type Call = (&'static str, &'static str);

/// What settling took.
#[derive(Clone, Copy, Debug)]
pub struct Settled {
    /// CPU seconds of flushing and compacting, and of what went on after the last request; NaN where the process is not known.
    pub cpu_s: f64,
    /// Bytes of its data afterwards; NaN where its folder is not known.
    pub bytes: f64,
}

fn free_address() -> Result<String> {
    Ok(format!("127.0.0.1:{}", TcpListener::bind("127.0.0.1:0")?.local_addr()?.port()))
}

/// Flags of a sextant that does nothing but take remote write and answer queries.
pub fn sextant_flags(folder: &Path, address: &str) -> Vec<String> {
    let mut flags = vec![format!("--data-dir={}", folder.display()), format!("--http.listen={address}")];
    flags.extend(["grpc", "otlp.grpc", "otlp.http", "postgres"].map(|l| format!("--{l}.listen=off")));
    flags.push("--agent.host-metrics=false".to_owned());
    flags
}

fn prometheus_flags(folder: &Path, data: &Path, address: &str) -> Result<Vec<String>> {
    std::fs::create_dir_all(folder)?;
    let config = folder.join("prometheus.yml");
    std::fs::write(&config, "storage:\n  tsdb:\n    out_of_order_time_window: 30m\n")?;
    Ok(vec![
        format!("--config.file={}", config.display()),
        format!("--storage.tsdb.path={}", data.display()),
        format!("--web.listen-address={address}"),
        "--web.enable-remote-write-receiver".into(),
        "--web.enable-admin-api".into(),
        "--enable-feature=native-histograms".into(),
        "--storage.tsdb.retention.time=10y".into(),
    ])
}

/// Starts a server of a known kind on a new folder, with flags added to those of its kind.
pub fn start(kind: &str, program: &Path, folder: &Path, more: &[String]) -> Result<Peer> {
    let address = free_address()?;
    let mut peer = Peer {
        name: kind.to_owned(),
        address: address.clone(),
        write_path: "/api/v1/write".to_owned(),
        api_prefix: String::new(),
        query_suffix: "",
        natives: Natives::Sent,
        settling: Settling::Unknown,
        pid: None,
        earlier_peak: 0,
        server: None,
    };
    let (mut args, ready) = match kind {
        "sextant" => {
            peer.write_path = "/api/v1/push".to_owned();
            peer.settling = Settling::Calls {
                searchable: None,
                calls: vec![("POST", "/api/v1/admin/flush?compact=true")],
                data: folder.join("objects"),
            };
            (sextant_flags(folder, &address), "/ready")
        }
        "victoria-metrics" => {
            peer.query_suffix = NO_CACHE;
            // It makes of each a float series per bucket, 14 for one here, and loses the histogram.
            peer.natives = Natives::LeftOut;
            peer.settling = Settling::Calls {
                searchable: Some(("GET", "/internal/force_flush")),
                calls: vec![("GET", "/internal/force_flush"), ("GET", "/internal/force_merge")],
                data: folder.to_owned(),
            };
            let flags = vec![
                format!("-storageDataPath={}", folder.display()),
                format!("-httpListenAddr={address}"),
                "-retentionPeriod=10y".into(),
            ];
            (flags, "/health")
        }
        "prometheus" => {
            peer.settling = Settling::Snapshot { program: program.to_owned(), folder: folder.to_owned() };
            (prometheus_flags(folder, &folder.join("data"), &address)?, "/-/ready")
        }
        other => bail!("unknown kind of server {other:?}: sextant, victoria-metrics or prometheus"),
    };
    args.extend_from_slice(more);
    peer.run(program, &args, folder, ready)?;
    Ok(peer)
}

const NO_CACHE: &str = "&nocache=1";

/// A server that runs already.
///
/// `NAME=http://HOST:PORT/WRITE/PATH` and, after commas in any order: its process id, the path in front of `/api/v1`, and
/// `floats-only` if it does not store native histograms.
pub fn running(spec: &str) -> Result<Peer> {
    let (name, rest) = spec.split_once('=').context("--peer NAME=URL")?;
    let mut parts = rest.split(',');
    let url = parts.next().unwrap_or("").strip_prefix("http://").context("only http:// peers")?;
    let (address, path) = url.split_once('/').context("a URL with the path of remote write")?;
    let mut peer = Peer {
        name: name.to_owned(),
        address: address.to_owned(),
        write_path: format!("/{path}"),
        api_prefix: String::new(),
        // Servers without such a cache ignore it.
        query_suffix: NO_CACHE,
        natives: Natives::Sent,
        settling: Settling::Unknown,
        pid: None,
        earlier_peak: 0,
        server: None,
    };
    for part in parts {
        if part == "floats-only" {
            peer.natives = Natives::LeftOut;
        } else if part.starts_with('/') {
            peer.api_prefix = part.trim_end_matches('/').to_owned();
        } else {
            let pid = part.parse().with_context(|| {
                format!("{part:?} of --peer {name} is neither a process id, a /path nor floats-only")
            })?;
            peer.pid = Some(pid);
        }
    }
    Ok(peer)
}

impl Peer {
    fn run(&mut self, program: &Path, args: &[String], folder: &Path, ready: &str) -> Result<()> {
        let mut server = Server::start(program, args, folder)?;
        server.wait_ready(&self.address, ready)?;
        self.pid = Some(server.pid());
        self.server = Some(server);
        Ok(())
    }

    /// Its process, where it is known.
    pub fn pid(&self) -> Option<u32> {
        self.pid
    }

    /// CPU time so far, to count from; `None` where the process is not known.
    pub fn cpu_mark(&self) -> Option<CpuMark> {
        self.pid.and_then(|p| CpuMark::now(p).ok())
    }

    /// CPU seconds since a mark; NaN where the process is not known.
    pub fn cpu_since(&self, mark: &Option<CpuMark>) -> f64 {
        mark.as_ref().and_then(|m| m.seconds_since().ok()).unwrap_or(f64::NAN)
    }

    /// Peak memory so far in MiB; NaN where the process is not known.
    pub fn peak_mib(&self) -> f64 {
        let peak = self.pid.and_then(|p| memory(p).ok());
        peak.map_or(f64::NAN, |m| m.peak.max(self.earlier_peak) as f64 / f64::from(1 << 20))
    }

    /// Makes what was written visible to queries and waits until work in the background has ended. Returns its CPU seconds.
    pub fn rest(&mut self) -> Result<f64> {
        let mark = self.cpu_mark();
        if let Settling::Calls { searchable: Some(call), .. } = &self.settling {
            self.call(call)?;
        }
        self.wait_until_idle();
        Ok(self.cpu_since(&mark))
    }

    /// Makes the server write everything out and merge it.
    pub fn settle(&mut self) -> Result<Settled> {
        let mark = self.cpu_mark();
        let data = match &self.settling {
            Settling::Unknown => None,
            Settling::Calls { calls, data, .. } => {
                for call in calls {
                    self.call(call)?;
                }
                Some(data.clone())
            }
            Settling::Snapshot { program, folder } => {
                let (program, folder) = (program.clone(), folder.clone());
                let body = self.call(&("POST", "/api/v1/admin/tsdb/snapshot"))?;
                let answer: serde_json::Value = serde_json::from_slice(&body)?;
                let name = answer["data"]["name"].as_str().context("the snapshot's name")?;
                let snapshot = folder.join("data/snapshots").join(name);
                let settled = Settled { cpu_s: self.cpu_since(&mark), bytes: folder_bytes(&snapshot) as f64 };
                self.restart_on(&program, &folder, &snapshot)?;
                return Ok(settled);
            }
        };
        self.wait_until_idle();
        let bytes = data.map_or(f64::NAN, |d| folder_bytes(&d) as f64);
        Ok(Settled { cpu_s: self.cpu_since(&mark), bytes })
    }

    fn restart_on(&mut self, program: &Path, folder: &Path, data: &Path) -> Result<()> {
        if let Some(m) = self.pid.and_then(|p| memory(p).ok()) {
            self.earlier_peak = self.earlier_peak.max(m.peak);
        }
        self.server = None;
        self.address = free_address()?;
        let args = prometheus_flags(folder, data, &self.address)?;
        self.run(program, &args, &folder.join("again"), "/-/ready")?;
        self.wait_until_idle();
        Ok(())
    }

    fn call(&self, (method, path): &Call) -> Result<Vec<u8>> {
        let answer = Client::new(&self.address).request(method, path, &[], b"")?;
        if answer.status >= 300 {
            bail!("{path} answered {}: {}", answer.status, String::from_utf8_lossy(&answer.body));
        }
        Ok(answer.body)
    }

    /// Force-merging peers do it in the background: waits until a second passes without work.
    fn wait_until_idle(&self) {
        let begin = Instant::now();
        while self.pid.is_some() && begin.elapsed() < Duration::from_secs(120) {
            let mark = self.cpu_mark();
            std::thread::sleep(Duration::from_secs(1));
            if self.cpu_since(&mark) < 0.1 {
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_running_peer_is_described_by_one_argument() {
        let p = running("prometheus=http://127.0.0.1:9090/api/v1/write").unwrap();
        assert_eq!(
            (p.name.as_str(), p.address.as_str(), p.write_path.as_str()),
            ("prometheus", "127.0.0.1:9090", "/api/v1/write")
        );
        assert_eq!((p.pid, p.api_prefix.as_str(), p.natives), (None, "", Natives::Sent));
        assert!(p.peak_mib().is_nan() && p.cpu_since(&p.cpu_mark()).is_nan());
        let p = running("vm=http://h:1/insert/0/prometheus,floats-only,/select/0/prometheus/,77").unwrap();
        assert_eq!((p.pid, p.api_prefix.as_str()), (Some(77), "/select/0/prometheus"));
        assert_eq!((p.natives, p.query_suffix), (Natives::LeftOut, "&nocache=1"));
        for bad in ["x", "x=https://h/w", "x=http://h", "x=http://h/w,seven"] {
            assert!(running(bad).is_err(), "{bad}");
        }
    }
}
