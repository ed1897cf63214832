//! The shards as a process reaches them: its own, or those of its cluster.

use std::sync::Arc;

use anyhow::{Result, anyhow};
use sextant_ingester::Ingester;
use sextant_proto::ShardClient;

use crate::cluster::Cluster;

/// See the module's documentation.
#[derive(Clone)]
pub enum Shards {
    /// All of them are in this process.
    Here(Arc<Ingester>),
    /// They are on the cluster's ingesters, of which this process may be one.
    Cluster(Arc<Cluster>),
}

impl Shards {
    /// Through which roles read and write.
    pub fn client(&self) -> Arc<dyn ShardClient> {
        match self {
            Self::Here(ingester) => ingester.clone(),
            Self::Cluster(cluster) => Arc::new(cluster.shards.clone()),
        }
    }

    /// The cluster that the process is of.
    pub fn cluster(&self) -> Option<&Arc<Cluster>> {
        match self {
            Self::Here(_) => None,
            Self::Cluster(cluster) => Some(cluster),
        }
    }

    /// The shards that this process holds.
    pub fn ingester(&self) -> Option<&Arc<Ingester>> {
        match self {
            Self::Here(ingester) => Some(ingester),
            Self::Cluster(cluster) => cluster.ingester.as_ref(),
        }
    }

    /// Writes everything that was acknowledged before the call into blocks, wherever it is.
    pub async fn flush(&self) -> Result<()> {
        match self {
            Self::Here(ingester) => ingester.flush_now().await.map_err(|e| anyhow!("flush: {e}")),
            Self::Cluster(cluster) => cluster.flush().await,
        }
    }

    /// Why writes or reads are not possible at the moment, as a person reads it.
    pub fn obstacles(&self) -> Vec<String> {
        let mut all = match self {
            Self::Here(_) => Vec::new(),
            Self::Cluster(cluster) => cluster.obstacles(),
        };
        let refusing = self.ingester().map(|i| i.refusing()).unwrap_or_default();
        all.extend(
            refusing.into_iter().map(|(shard, why)| format!("shard {} does not take writes: {why}", shard.0)),
        );
        all
    }

    /// Appends the metrics of the shards and of their calls.
    pub fn render_metrics(&self, out: &mut String) {
        if let Some(ingester) = self.ingester() {
            ingester.render_metrics(out);
        }
        if let Self::Cluster(cluster) = self {
            cluster.render_metrics(out);
        }
    }
}
