//! What a node offers of the shards it holds.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use sextant_model::{Labels, SeriesSet, TenantId};

use crate::{
    AppendOutcome, DeleteOutcome, DeleteRequest, ExemplarSeries, HeadSelection, MetadataEntry, SelectRequest,
    ShardError, ShardId, ShardStats,
};

/// Who leads a shard, and where it is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leader {
    /// Its node id.
    pub node: u64,
    /// `host:port` of its `sextant.v1.Shards`.
    pub address: String,
}

/// Why a node did not do what it was asked. Callers of other nodes see the first two only as delays.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LocalError {
    /// The node does not hold the shard (not yet, or no more).
    #[error("the shard is not on this node")]
    NotHere,
    /// The node holds the shard and does not lead it.
    #[error("this node does not lead the shard (term {term}); the leader is {}", leader_text(.leader))]
    NotLeader {
        /// Who leads it, as far as the node knows.
        leader: Option<Leader>,
        /// The Raft term the node knows it from: of two hints, that of the higher term is right.
        term: u64,
    },
    /// The shard's own refusal.
    #[error(transparent)]
    Shard(#[from] ShardError),
}

fn leader_text(leader: &Option<Leader>) -> String {
    leader.as_ref().map_or("not known".to_owned(), |l| format!("node {} at {}", l.node, l.address))
}

/// The shards that a node holds, as [`super::ShardServer`] offers them to others. The methods are those of [`crate::ShardClient`].
///
/// Each may be called for any shard at any time: shards come and go. A call's future is dropped when its caller went away.
#[async_trait]
pub trait LocalShards: Send + Sync + 'static {
    /// See [`crate::ShardClient::append`]. The batch shares the memory of the message that brought it.
    async fn append(&self, shard: ShardId, batch: Bytes) -> Result<AppendOutcome, LocalError>;

    /// See [`crate::ShardClient::delete`].
    async fn delete(&self, shard: ShardId, request: DeleteRequest) -> Result<DeleteOutcome, LocalError>;

    /// The linearizable read barrier, which the server passes before each read: returns when this node has applied every
    /// write that was acknowledged before the call, by whomever. It must end: a leader that cannot confirm that it still
    /// leads gives an error.
    async fn ready_to_read(&self, shard: ShardId) -> Result<(), LocalError>;

    /// See [`crate::ShardClient::select`].
    async fn select(&self, shard: ShardId, request: SelectRequest) -> Result<SeriesSet, LocalError>;

    /// See [`crate::ShardClient::find`]. The server reads the selections in parts while it sends them.
    async fn find(
        &self,
        shard: ShardId,
        request: SelectRequest,
    ) -> Result<Vec<Arc<dyn HeadSelection>>, LocalError> {
        Ok(vec![Arc::new(self.select(shard, request).await?)])
    }

    /// See [`crate::ShardClient::series`].
    async fn series(&self, shard: ShardId, request: SelectRequest) -> Result<Vec<Labels>, LocalError>;

    /// See [`crate::ShardClient::label_values`].
    async fn label_values(
        &self,
        shard: ShardId,
        request: SelectRequest,
        label: Option<String>,
    ) -> Result<Vec<String>, LocalError>;

    /// See [`crate::ShardClient::exemplars`].
    async fn exemplars(
        &self,
        shard: ShardId,
        request: SelectRequest,
    ) -> Result<Vec<ExemplarSeries>, LocalError>;

    /// See [`crate::ShardClient::metadata`].
    async fn metadata(
        &self,
        shard: ShardId,
        tenant: TenantId,
        after: u64,
    ) -> Result<Vec<MetadataEntry>, LocalError>;

    /// See [`crate::ShardClient::stats`].
    async fn stats(&self, shard: ShardId, tenant: TenantId, after: u64) -> Result<ShardStats, LocalError>;

    /// See [`crate::ShardClient::tenants`].
    async fn tenants(&self, shard: ShardId) -> Result<Vec<TenantId>, LocalError>;
}
