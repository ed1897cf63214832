//! `cluster.json`: what runs where.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// The whole file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClusterFile {
    /// Of the file's form.
    pub version: u32,
    /// `cluster.name`.
    pub name: String,
    /// Replicas of a shard.
    pub replication: u32,
    /// Shards.
    pub shards: u32,
    /// All processes were ready once.
    pub ready: bool,
    /// Where blocks are.
    pub object_store: ObjectStore,
    /// Every process.
    pub processes: Vec<Process>,
}

/// Where blocks are, and how to get at them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ObjectStore {
    /// As in `object_store`.
    pub url: String,
    /// What the processes talk to: the proxy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The S3 server behind it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direct: Option<String>,
    /// Where the proxy takes orders: `POST /mode`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control: Option<String>,
    /// Credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_key_id: Option<String>,
    /// Credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_access_key: Option<String>,
}

impl ObjectStore {
    /// The bucket; `None` for a folder.
    pub fn bucket(&self) -> Option<String> {
        Some(self.url.strip_prefix("s3://")?.split('/').next()?.to_owned())
    }
}

/// What a process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Every role in one.
    All,
    /// Takes writes.
    Distributor,
    /// Holds recent data.
    Ingester,
    /// Answers queries.
    Querier,
    /// Merges blocks.
    Compactor,
    /// The S3 server.
    ObjectStore,
    /// The proxy in front of it.
    ObjectStoreProxy,
}

impl Role {
    /// As a sub-command of the binary; none for what is not of the binary, or is all of it.
    pub fn command(self) -> Option<&'static str> {
        match self {
            Self::Distributor => Some("distributor"),
            Self::Ingester => Some("ingester"),
            Self::Querier => Some("querier"),
            Self::Compactor => Some("compactor"),
            Self::All | Self::ObjectStore | Self::ObjectStoreProxy => None,
        }
    }

    /// A process of sextant.
    pub fn is_sextant(self) -> bool {
        !matches!(self, Self::ObjectStore | Self::ObjectStoreProxy)
    }

    /// When it is ended: those that need others before them.
    pub fn stage(self) -> u8 {
        match self {
            Self::Distributor | Self::Querier | Self::Compactor => 1,
            Self::Ingester | Self::All => 2,
            Self::ObjectStore | Self::ObjectStoreProxy => 3,
        }
    }
}

/// A process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Process {
    /// Unique.
    pub name: String,
    /// What it does.
    pub role: Role,
    /// Null while it does not run.
    pub pid: Option<u32>,
    /// `data`, `log.txt`, and `stopped` to keep it from being started again.
    pub folder: PathBuf,
    /// `host:port` by name: http, cluster, otlp_grpc, otlp_http, flight, postgres.
    pub listeners: BTreeMap<String, String>,
    /// Its network namespace.
    pub netns: Option<String>,
    /// Its zone.
    pub zone: String,
    /// A mounted file system of its own, which may be filled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<PathBuf>,
    /// Holds by how many seconds its clock is off, as in `+300`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_file: Option<PathBuf>,
}

impl Process {
    /// Whether the process of this id is alive and is the one that was started for this folder.
    pub fn runs_in_its_folder(&self) -> bool {
        let Some(pid) = self.pid else { return false };
        let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let folder = self.folder.display().to_string();
        self.role.is_sextant() && String::from_utf8_lossy(&arguments).contains(&folder)
    }
}

impl ClusterFile {
    /// Reads one.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        serde_json::from_str(&text).with_context(|| path.display().to_string())
    }

    /// Replaces the file in one step: a reader sees the whole of one or the other.
    pub fn write(&self, path: &Path) -> Result<()> {
        let new = path.with_extension("json.new");
        std::fs::write(&new, serde_json::to_vec_pretty(self)?).with_context(|| new.display().to_string())?;
        std::fs::rename(&new, path).with_context(|| path.display().to_string())
    }
}
