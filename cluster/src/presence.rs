//! Processes without shards make themselves known by a lease, so that those that are gone vanish by themselves.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use sextant_replication::metadata::{Command, MemberInfo, State};

use crate::{client::ClusterClient, discovery::Discovery};

const PREFIX: &str = "process/";
const TTL: Duration = Duration::from_secs(30);
const RENEWAL: Duration = Duration::from_secs(10);

/// Keeps a process's lease while it runs.
pub struct Presence {
    name: String,
    holder: String,
    discovery: Arc<Discovery>,
    client: ClusterClient,
}

pub(crate) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}

impl Presence {
    /// For a process with these listeners. The lease's name has a number drawn by chance: a process that was restarted does not
    /// wait for its old lease to end.
    pub fn new(info: &MemberInfo, discovery: Arc<Discovery>, client: ClusterClient) -> Self {
        let name = format!("{PREFIX}{}/{}/{:08x}", info.role, info.name, rand::random::<u32>());
        let holder = serde_json::to_string(info).unwrap_or_default();
        Self { name, holder, discovery, client }
    }

    /// Renews the lease until dropped. Errors are tried again: nothing depends on it but who is seen.
    pub async fn run(&self) {
        loop {
            let claim = Command::Claim {
                name: self.name.clone(),
                holder: self.holder.clone(),
                ttl_ms: TTL.as_millis() as u64,
                now_ms: now_ms(),
            };
            if let Err(error) = self.client.propose(&self.discovery.addresses(), &claim, RENEWAL).await {
                tracing::debug!(%error, "this process is not known to the cluster at the moment");
            }
            tokio::time::sleep(RENEWAL).await;
        }
    }

    /// Gives the lease back.
    pub async fn end(&self) {
        let release = Command::Release { name: self.name.clone(), holder: self.holder.clone() };
        let _ = self.client.propose(&self.discovery.addresses(), &release, Duration::from_secs(2)).await;
    }

    /// The processes whose leases have not ended, in order of role and name.
    pub fn present(state: &State) -> Vec<MemberInfo> {
        let now_ms = state.now_ms.max(now_ms().min(state.now_ms + TTL.as_millis() as u64));
        let leases =
            state.leases.iter().filter(|(name, l)| name.starts_with(PREFIX) && l.expires_ms > now_ms);
        leases.filter_map(|(_, l)| serde_json::from_str(&l.holder).ok()).collect()
    }
}
