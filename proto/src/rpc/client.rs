//! The client's side: shards on other nodes as if they were here.

mod answers;
mod call;
mod channels;
mod placement;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use sextant_model::{Labels, SeriesSet, TenantId};
use tokio::sync::watch;

pub use channels::{CONNECTION_WINDOW_BYTES, Connect, STREAM_WINDOW_BYTES, endpoint, plain_connect};
pub use placement::{FixedPlacement, Placement, PlacementView, Replica, ShardPlacement};

use self::{
    answers::{FoundAnswer, ListAnswer, SetAnswer},
    channels::Channels,
};
use super::{
    Leader, Method, RpcMetrics,
    wire::{self, list::Item},
};
use crate::{
    AppendOutcome, DeleteOutcome, DeleteRequest, ExemplarSeries, HeadSelection, MetadataEntry, SelectRequest,
    ShardClient, ShardError, ShardId, ShardStats,
};

/// Settings of [`RemoteShards`].
#[derive(Clone)]
pub struct RemoteOptions {
    /// The deployment's id; nodes of another refuse what we send.
    pub cluster: u128,
    /// Makes channels. Default: [`plain_connect`].
    pub connect: Connect,
    /// How long an append or a deletion is tried. Default 10 s.
    pub write_timeout: Duration,
    /// How long a read is tried, until its last byte. Default 30 s.
    pub read_timeout: Duration,
    /// How long one attempt may wait: a write for its answer, a read for the leader's barrier. Default 3 s, more than an
    /// election and a slow sync take, and less than half of `write_timeout`.
    pub attempt_timeout: Duration,
    /// Bounds of the pause between two attempts; it doubles with each, and is jittered by half. Default 10 ms to 250 ms.
    pub pause: (Duration, Duration),
}

impl RemoteOptions {
    /// The defaults.
    pub fn new(cluster: u128) -> Self {
        Self {
            cluster,
            connect: plain_connect(),
            write_timeout: Duration::from_secs(10),
            read_timeout: Duration::from_secs(30),
            attempt_timeout: Duration::from_secs(3),
            pause: (Duration::from_millis(10), Duration::from_millis(250)),
        }
    }
}

impl fmt::Debug for RemoteOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteOptions")
            .field("cluster", &self.cluster)
            .field("write_timeout", &self.write_timeout)
            .field("read_timeout", &self.read_timeout)
            .field("attempt_timeout", &self.attempt_timeout)
            .field("pause", &self.pause)
            .finish_non_exhaustive()
    }
}

/// [`ShardClient`] over gRPC. Clones share connections, what is known of leaders, and counters.
///
/// A call is tried until its time has passed at the shard's leader, whoever that is meanwhile. What is not known to have failed is repeated
/// with the same bytes, so an append is applied once. What a shard itself says (an old epoch, an overload, a limit) is the
/// caller's to act on and returned at once; [`ShardError::Unavailable`] from a node is repeated like no answer.
#[derive(Clone)]
pub struct RemoteShards {
    inner: Arc<Inner>,
}

struct Inner {
    options: RemoteOptions,
    placement: watch::Receiver<Arc<PlacementView>>,
    channels: Channels,
    /// By shard; grows to the placement's count.
    shards: RwLock<Vec<Arc<ShardState>>>,
    metrics: RpcMetrics,
}

/// What is known of one shard.
#[derive(Default)]
struct ShardState {
    epoch: AtomicU64,
    /// Who answered last, or was named last, and the term it was named for (0 where it answered).
    leader: Mutex<Option<(Leader, u64)>>,
    /// Where the next round over the replicas begins.
    turn: AtomicUsize,
}

impl RemoteShards {
    /// A client without any connection yet.
    pub fn new(placement: &dyn Placement, options: RemoteOptions) -> Self {
        let channels = Channels::new(options.connect.clone());
        let placement = placement.shards();
        let (shards, metrics) = (RwLock::default(), RpcMetrics::default());
        Self { inner: Arc::new(Inner { options, placement, channels, shards, metrics }) }
    }

    /// Drops all channels, so that the next calls connect anew: certificates have changed.
    pub fn reconnect(&self) {
        self.inner.channels.clear();
    }

    /// The client's counters.
    pub fn metrics(&self) -> &RpcMetrics {
        &self.inner.metrics
    }

    fn state(&self, shard: ShardId) -> Option<Arc<ShardState>> {
        let inner = &self.inner;
        let i = shard.0 as usize;
        if let Some(state) = inner.shards.read().get(i) {
            return Some(state.clone());
        }
        let n = inner.placement.borrow().shard_count as usize;
        if i >= n {
            return None;
        }
        let mut shards = inner.shards.write();
        let n = n.max(shards.len());
        shards.resize_with(n, Arc::default);
        shards.get(i).cloned()
    }

    async fn list<T: Item>(&self, method: Method, shard: ShardId, body: Bytes) -> Result<Vec<T>, ShardError> {
        self.read(method, shard, body, ListAnswer::default).await
    }
}

#[async_trait]
impl ShardClient for RemoteShards {
    fn shard_count(&self) -> u32 {
        self.inner.placement.borrow().shard_count
    }

    /// The epoch that the shard named last; 0 before it was written to. A batch of another is refused with the right one.
    fn epoch(&self, shard: ShardId) -> u64 {
        self.state(shard).map_or(0, |s| s.epoch.load(Ordering::Relaxed))
    }

    async fn append(&self, shard: ShardId, batch: Bytes) -> Result<AppendOutcome, ShardError> {
        let done = self.write(Method::Append, shard, batch, wire::decode_append_outcome).await;
        if let Some(state) = self.state(shard) {
            match &done {
                // Answers may overtake each other.
                Ok(outcome) => {
                    state.epoch.fetch_max(outcome.epoch, Ordering::Relaxed);
                }
                Err(ShardError::StaleEpoch { current }) => state.epoch.store(*current, Ordering::Relaxed),
                Err(_) => {}
            }
        }
        done
    }

    async fn delete(&self, shard: ShardId, request: DeleteRequest) -> Result<DeleteOutcome, ShardError> {
        self.write(Method::Delete, shard, wire::encode_delete(&request), wire::decode_delete_outcome).await
    }

    async fn select(&self, shard: ShardId, request: SelectRequest) -> Result<SeriesSet, ShardError> {
        let limits = request.limits;
        let body = wire::encode_select(&request);
        self.read(Method::Select, shard, body, || SetAnswer::new(limits)).await
    }

    /// All parts are fetched before it returns, and kept as they came (about 10 bytes a sample); reading decodes some of them. The
    /// limit of samples holds for all selections together.
    async fn find(
        &self,
        shard: ShardId,
        request: SelectRequest,
    ) -> Result<Vec<Arc<dyn HeadSelection>>, ShardError> {
        let limits = request.limits;
        let body = wire::encode_select(&request);
        self.read(Method::Find, shard, body, || FoundAnswer::new(limits)).await
    }

    async fn series(&self, shard: ShardId, request: SelectRequest) -> Result<Vec<Labels>, ShardError> {
        self.list(Method::Series, shard, wire::encode_select(&request)).await
    }

    async fn label_values(
        &self,
        shard: ShardId,
        request: SelectRequest,
        label: Option<String>,
    ) -> Result<Vec<String>, ShardError> {
        self.list(Method::LabelValues, shard, wire::encode_label_values(&request, label.as_deref())).await
    }

    async fn exemplars(
        &self,
        shard: ShardId,
        request: SelectRequest,
    ) -> Result<Vec<ExemplarSeries>, ShardError> {
        self.list(Method::Exemplars, shard, wire::encode_select(&request)).await
    }

    async fn metadata(
        &self,
        shard: ShardId,
        tenant: TenantId,
        after: u64,
    ) -> Result<Vec<MetadataEntry>, ShardError> {
        self.list(Method::Metadata, shard, wire::encode_tenant(&tenant, after)).await
    }

    async fn stats(&self, shard: ShardId, tenant: TenantId, after: u64) -> Result<ShardStats, ShardError> {
        let found = self.list(Method::Stats, shard, wire::encode_tenant(&tenant, after)).await?;
        let none = || ShardError::Unavailable(format!("shard {} answered without counts", shard.0));
        found.into_iter().next().ok_or_else(none)
    }

    async fn tenants(&self, shard: ShardId) -> Result<Vec<TenantId>, ShardError> {
        self.list(Method::Tenants, shard, Bytes::new()).await
    }
}
