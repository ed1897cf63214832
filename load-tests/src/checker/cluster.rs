//! The cluster as `cluster.json` describes it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::client::Client;

/// The whole file.
#[derive(Clone, Debug, Deserialize)]
pub struct Cluster {
    /// Replicas of a shard.
    pub replication: u32,
    /// Shards.
    pub shards: u32,
    /// Where blocks are.
    pub object_store: ObjectStore,
    /// Every process.
    pub processes: Vec<Process>,
}

/// Where blocks are.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct ObjectStore {
    /// `s3://bucket/prefix` or `file:///folder`.
    pub url: String,
    /// What the processes talk to.
    #[serde(default)]
    pub endpoint: Option<String>,
    /// The server behind the proxy, where there is one.
    #[serde(default)]
    pub direct: Option<String>,
    /// Where the proxy takes orders.
    #[serde(default)]
    pub control: Option<String>,
    /// Credentials.
    #[serde(default)]
    pub access_key_id: Option<String>,
    /// Credentials.
    #[serde(default)]
    pub secret_access_key: Option<String>,
}

/// A process.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Process {
    /// Unique.
    pub name: String,
    /// `all`, `ingester`, `distributor`, `querier`, `compactor`, `object_store` and others.
    pub role: String,
    /// Null while it does not run.
    pub pid: Option<u32>,
    /// A file `stopped` in it keeps the process from being started again.
    pub folder: PathBuf,
    /// `host:port` by name.
    pub listeners: BTreeMap<String, String>,
    /// Its network namespace.
    #[serde(default)]
    pub netns: Option<String>,
    /// A file system of its own, which may be filled.
    #[serde(default)]
    pub disk: Option<PathBuf>,
    /// Holds by how many seconds its clock is off.
    #[serde(default)]
    pub clock_file: Option<PathBuf>,
}

impl Process {
    /// `host:port` of HTTP.
    pub fn http(&self) -> &str {
        self.listeners.get("http").map_or("", String::as_str)
    }

    /// Its address in the cluster's network.
    pub fn host(&self) -> &str {
        self.http().rsplit_once(':').map_or("", |(host, _)| host)
    }

    /// A process of sextant.
    pub fn is_sextant(&self) -> bool {
        ["all", "ingester", "distributor", "querier", "compactor"].contains(&self.role.as_str())
    }

    /// Whether it does what a role does.
    pub fn plays(&self, role: &str) -> bool {
        self.role == role || self.role == "all"
    }
}

impl Cluster {
    /// Reads the file.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        serde_json::from_str(&text).with_context(|| path.display().to_string())
    }

    /// Addresses of HTTP of the processes that play a role.
    pub fn http_of(&self, role: &str) -> Vec<String> {
        self.processes.iter().filter(|p| p.plays(role)).map(|p| p.http().to_owned()).collect()
    }

    /// Waits until every process of sextant says that it is ready.
    pub fn wait_ready(&self, timeout: Duration) -> Result<()> {
        let until = Instant::now() + timeout;
        for p in self.processes.iter().filter(|p| p.is_sextant()) {
            loop {
                let asked =
                    Client::with_timeout(p.http(), Duration::from_secs(5)).request("GET", "/ready", &[], b"");
                let why = match asked {
                    Ok(answer) if answer.status == 200 => break,
                    Ok(answer) => String::from_utf8_lossy(&answer.body).trim().to_owned(),
                    Err(e) => format!("{e:#}"),
                };
                if Instant::now() > until {
                    bail!("{} is not ready: {why}", p.name);
                }
                std::thread::sleep(Duration::from_millis(200));
            }
        }
        Ok(())
    }
}

/// A cluster of three, two, two and one in namespaces, none of which runs.
#[cfg(test)]
pub fn example(folder: &Path) -> Cluster {
    let roles = [("object_store", 1), ("ingester", 3), ("distributor", 2), ("querier", 2), ("compactor", 1)];
    let mut processes = Vec::new();
    for (role, count) in roles {
        for i in 1..=count {
            let name = format!("{role}-{i}");
            let host = format!("10.1.1.{}", processes.len() + 2);
            processes.push(Process {
                role: role.to_owned(),
                pid: None,
                folder: folder.join(&name),
                listeners: BTreeMap::from([("http".to_owned(), format!("{host}:9009"))]),
                netns: Some(format!("ns-{name}")),
                disk: (role == "ingester").then(|| folder.join(&name).join("data")),
                clock_file: (role != "object_store").then(|| folder.join(&name).join("clock")),
                name,
            });
        }
    }
    Cluster {
        replication: 3,
        shards: 4,
        object_store: ObjectStore { control: Some("http://10.1.1.2:1".to_owned()), ..ObjectStore::default() },
        processes,
    }
}
