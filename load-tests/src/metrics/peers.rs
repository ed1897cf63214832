//! The servers that are measured: how each is started, written to, asked, and made to settle.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, Result, bail};

use crate::{
    client::Client,
    process::{Server, cpu_seconds, folder_bytes, peak_mib},
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
    settle: Vec<(&'static str, &'static str)>,
    data: Option<PathBuf>,
    pid: Option<u32>,
    _server: Option<Server>,
}

/// What settling took.
#[derive(Clone, Copy, Debug)]
pub struct Settled {
    /// CPU seconds of flushing and compacting.
    pub cpu_s: f64,
    /// Bytes of its data afterwards.
    pub bytes: u64,
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Starts a server of a known kind on a new folder.
pub fn start(kind: &str, program: &Path, folder: &Path) -> Result<Peer> {
    let port = free_port()?;
    let address = format!("127.0.0.1:{port}");
    let dir = folder.display();
    let (args, ready, write_path, suffix, settle, data): (Vec<String>, _, _, _, Vec<_>, _) = match kind {
        "sextant" => (
            vec![
                format!("--data-dir={dir}"),
                format!("--http.listen={address}"),
                "--grpc.listen=off".into(),
                "--otlp.grpc.listen=off".into(),
                "--otlp.http.listen=off".into(),
                "--postgres.listen=off".into(),
                "--agent.host-metrics=false".into(),
            ],
            "/ready",
            "/api/v1/push",
            "",
            vec![("POST", "/api/v1/admin/flush?compact=true")],
            folder.join("objects"),
        ),
        "victoria-metrics" => (
            vec![
                format!("-storageDataPath={dir}"),
                format!("-httpListenAddr={address}"),
                "-retentionPeriod=10y".into(),
            ],
            "/health",
            "/api/v1/write",
            "&nocache=1",
            vec![("GET", "/internal/force_flush"), ("GET", "/internal/force_merge")],
            folder.to_owned(),
        ),
        "prometheus" => {
            std::fs::create_dir_all(folder)?;
            let config = folder.join("prometheus.yml");
            std::fs::write(&config, "storage:\n  tsdb:\n    out_of_order_time_window: 30m\n")?;
            (
                vec![
                    format!("--config.file={}", config.display()),
                    format!("--storage.tsdb.path={dir}/data"),
                    format!("--web.listen-address={address}"),
                    "--web.enable-remote-write-receiver".into(),
                    "--web.enable-admin-api".into(),
                    "--storage.tsdb.retention.time=10y".into(),
                ],
                "/-/ready",
                "/api/v1/write",
                "",
                Vec::new(),
                folder.join("data"),
            )
        }
        other => bail!("unknown kind of server {other:?}: sextant, victoria-metrics or prometheus"),
    };
    let mut server = Server::start(program, &args, folder)?;
    server.wait_ready(&address, ready)?;
    Ok(Peer {
        name: kind.to_owned(),
        address,
        write_path: write_path.to_owned(),
        api_prefix: String::new(),
        query_suffix: suffix,
        settle,
        data: Some(data),
        pid: Some(server.pid()),
        _server: Some(server),
    })
}

/// A server that runs already.
pub fn running(spec: &str) -> Result<Peer> {
    let (name, rest) = spec.split_once('=').context("--peer NAME=URL[,PID]")?;
    let (url, pid) = match rest.split_once(',') {
        Some((url, pid)) => (url, Some(pid.parse()?)),
        None => (rest, None),
    };
    let rest = url.strip_prefix("http://").context("only http:// peers")?;
    let (address, path) = rest.split_once('/').context("a URL with the path of remote write")?;
    Ok(Peer {
        name: name.to_owned(),
        address: address.to_owned(),
        write_path: format!("/{path}"),
        api_prefix: String::new(),
        query_suffix: "",
        settle: Vec::new(),
        data: None,
        pid,
        _server: None,
    })
}

impl Peer {
    /// CPU seconds so far; NaN where the process is not known.
    pub fn cpu_seconds(&self) -> f64 {
        self.pid.and_then(|p| cpu_seconds(p).ok()).unwrap_or(f64::NAN)
    }

    /// Peak memory so far; NaN where the process is not known.
    pub fn peak_mib(&self) -> f64 {
        self.pid.and_then(|p| peak_mib(p).ok()).unwrap_or(f64::NAN)
    }

    /// Makes the server write everything out and merge it.
    pub fn settle(&mut self) -> Result<Settled> {
        let (cpu, begin) = (self.cpu_seconds(), Instant::now());
        let mut client = Client::new(&self.address);
        for (method, path) in &self.settle {
            let answer = client.request(method, path, &[], b"")?;
            if answer.status >= 300 {
                bail!("{path} answered {}: {}", answer.status, String::from_utf8_lossy(&answer.body));
            }
        }
        // Force-merging peers do it in the background: wait until a second passes without work.
        loop {
            let before = self.cpu_seconds();
            std::thread::sleep(std::time::Duration::from_secs(1));
            if before.is_nan() || self.cpu_seconds() - before < 0.1 || begin.elapsed().as_secs() > 120 {
                break;
            }
        }
        let bytes = self.data.as_deref().map_or(0, folder_bytes);
        Ok(Settled { cpu_s: self.cpu_seconds() - cpu, bytes })
    }
}
