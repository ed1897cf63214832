//! The node's shards as others see them: over the network as [`LocalShards`], and as [`ShardClient`] in a process that holds
//! all of them.

use std::{ops::Range, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use sextant_model::{Labels, SeriesSet, TenantId};
use sextant_proto::{
    AppendOutcome, DeleteOutcome, DeleteRequest, ExemplarSeries, HeadSelection, MetadataEntry, SelectRequest,
    ShardClient, ShardError, ShardId, ShardStats,
    rpc::{LocalError, LocalShards},
};

use crate::{
    Ingester, IngesterMetrics,
    error::{refused, unready},
    head::{Applied, Command, Head, encode_delete},
    metrics::add,
    shard::Shard,
};

impl Ingester {
    fn shard(&self, id: ShardId) -> Result<Arc<Shard>, LocalError> {
        self.flusher.shards.get(id).ok_or(LocalError::NotHere)
    }

    /// Bounds memory before the log: what is refused here was never proposed.
    fn check_memory(&self) -> Result<(), ShardError> {
        let memory = self.flusher.shards.memory();
        if memory <= self.memory_max {
            return Ok(());
        }
        self.flusher.shards.all().iter().for_each(|s| s.wake.notify_one());
        Err(ShardError::Overloaded(format!(
            "recent data takes {memory} bytes of memory, the limit is {} (ingester.head_memory_max); wait for a flush",
            self.memory_max
        )))
    }

    async fn try_append(&self, shard: ShardId, batch: &Bytes) -> Result<AppendOutcome, LocalError> {
        let shard = self.shard(shard)?;
        self.check_memory()?;
        if !shard.is_begun() {
            return Err(LocalError::Shard(ShardError::Unavailable("the shard is being made".to_owned())));
        }
        add(&self.metrics.batch_bytes, batch.len() as u64);
        match shard.group.propose(Command::Write(batch).encode()).await.map_err(|e| refused(&shard, e))? {
            Applied::Written(outcome) => Ok(outcome?),
            other => Err(unexpected(&other)),
        }
    }

    /// Reads off the async threads: a read may decode millions of samples.
    async fn read<T: Send + 'static>(
        &self,
        shard: ShardId,
        read: impl FnOnce(&Head) -> Result<T, ShardError> + Send + 'static,
    ) -> Result<T, LocalError> {
        let shard = self.shard(shard)?;
        let done = tokio::task::spawn_blocking(move || read(shard.head())).await;
        Ok(done.map_err(|e| ShardError::Unavailable(format!("a read ended early: {e}")))??)
    }
}

fn unexpected(applied: &Applied) -> LocalError {
    LocalError::Shard(ShardError::Unavailable(format!("the log answered {applied:?}")))
}

/// What a process that holds every shard says.
fn alone(error: LocalError) -> ShardError {
    match error {
        LocalError::Shard(e) => e,
        other => ShardError::Unavailable(other.to_string()),
    }
}

/// Counts the samples that are read of a selection.
struct Counted {
    selection: Arc<dyn HeadSelection>,
    metrics: Arc<IngesterMetrics>,
}

#[async_trait]
impl HeadSelection for Counted {
    fn labels(&self) -> &[Labels] {
        self.selection.labels()
    }

    fn estimate(&self, i: usize) -> usize {
        self.selection.estimate(i)
    }

    async fn read(&self, series: Range<usize>) -> Result<SeriesSet, ShardError> {
        let set = self.selection.read(series).await?;
        add(&self.metrics.select_samples, set.sample_count() as u64);
        Ok(set)
    }
}

#[async_trait]
impl LocalShards for Ingester {
    async fn append(&self, shard: ShardId, batch: Bytes) -> Result<AppendOutcome, LocalError> {
        let done = self.try_append(shard, &batch).await;
        match &done {
            Ok(outcome) => self.metrics.applied(outcome),
            Err(LocalError::Shard(e)) => self.metrics.failed(e),
            // The caller goes on to the leader.
            Err(LocalError::NotHere | LocalError::NotLeader { .. }) => {}
        }
        done
    }

    async fn delete(&self, shard: ShardId, request: DeleteRequest) -> Result<DeleteOutcome, LocalError> {
        let shard = self.shard(shard)?;
        let _no_flush = shard.flushing.lock().await;
        let entry = Command::Delete(&encode_delete(&request)).encode();
        if !shard.is_begun() {
            return Err(LocalError::Shard(ShardError::Unavailable("the shard is being made".to_owned())));
        }
        match shard.group.propose_alone(entry).await.map_err(|e| refused(&shard, e))? {
            Applied::Deleted(outcome) => {
                // The manifest will name the position: in relaxed mode too, other rows must not get it after a crash.
                self.log.sync().await.map_err(|e| ShardError::Unavailable(e.to_string()))?;
                Ok(outcome?)
            }
            other => Err(unexpected(&other)),
        }
    }

    async fn ready_to_read(&self, shard: ShardId) -> Result<(), LocalError> {
        let shard = self.shard(shard)?;
        shard.group.read_barrier().await.map(|_| ()).map_err(|e| unready(&shard, e))
    }

    async fn select(&self, shard: ShardId, request: SelectRequest) -> Result<SeriesSet, LocalError> {
        add(&self.metrics.selects, 1);
        let set = self.read(shard, move |head| head.select(&request)).await?;
        add(&self.metrics.select_samples, set.sample_count() as u64);
        Ok(set)
    }

    async fn find(
        &self,
        shard: ShardId,
        request: SelectRequest,
    ) -> Result<Vec<Arc<dyn HeadSelection>>, LocalError> {
        add(&self.metrics.selects, 1);
        let found = self.read(shard, move |head| head.find(&request)).await?;
        let counted = |selection| -> Arc<dyn HeadSelection> {
            Arc::new(Counted { selection, metrics: self.metrics.clone() })
        };
        Ok(found.into_iter().map(counted).collect())
    }

    async fn series(&self, shard: ShardId, request: SelectRequest) -> Result<Vec<Labels>, LocalError> {
        self.read(shard, move |head| head.series(&request)).await
    }

    async fn label_values(
        &self,
        shard: ShardId,
        request: SelectRequest,
        label: Option<String>,
    ) -> Result<Vec<String>, LocalError> {
        self.read(shard, move |head| head.label_values(&request, label.as_deref())).await
    }

    async fn exemplars(
        &self,
        shard: ShardId,
        request: SelectRequest,
    ) -> Result<Vec<ExemplarSeries>, LocalError> {
        self.read(shard, move |head| head.exemplars(&request)).await
    }

    async fn metadata(
        &self,
        shard: ShardId,
        tenant: TenantId,
        after: u64,
    ) -> Result<Vec<MetadataEntry>, LocalError> {
        self.read(shard, move |head| head.metadata(&tenant, after)).await
    }

    async fn stats(&self, shard: ShardId, tenant: TenantId, after: u64) -> Result<ShardStats, LocalError> {
        self.read(shard, move |head| head.stats(&tenant, after)).await
    }

    async fn tenants(&self, shard: ShardId) -> Result<Vec<TenantId>, LocalError> {
        self.read(shard, |head| Ok(head.tenants())).await
    }
}

#[async_trait]
impl ShardClient for Ingester {
    fn shard_count(&self) -> u32 {
        self.flusher.config.shards
    }

    fn epoch(&self, shard: ShardId) -> u64 {
        self.shard(shard).map_or(0, |s| s.head().epoch())
    }

    async fn append(&self, shard: ShardId, batch: Bytes) -> Result<AppendOutcome, ShardError> {
        LocalShards::append(self, shard, batch).await.map_err(alone)
    }

    async fn delete(&self, shard: ShardId, request: DeleteRequest) -> Result<DeleteOutcome, ShardError> {
        LocalShards::delete(self, shard, request).await.map_err(alone)
    }

    async fn select(&self, shard: ShardId, request: SelectRequest) -> Result<SeriesSet, ShardError> {
        LocalShards::select(self, shard, request).await.map_err(alone)
    }

    async fn find(
        &self,
        shard: ShardId,
        request: SelectRequest,
    ) -> Result<Vec<Arc<dyn HeadSelection>>, ShardError> {
        LocalShards::find(self, shard, request).await.map_err(alone)
    }

    async fn series(&self, shard: ShardId, request: SelectRequest) -> Result<Vec<Labels>, ShardError> {
        LocalShards::series(self, shard, request).await.map_err(alone)
    }

    async fn label_values(
        &self,
        shard: ShardId,
        request: SelectRequest,
        label: Option<String>,
    ) -> Result<Vec<String>, ShardError> {
        LocalShards::label_values(self, shard, request, label).await.map_err(alone)
    }

    async fn exemplars(
        &self,
        shard: ShardId,
        request: SelectRequest,
    ) -> Result<Vec<ExemplarSeries>, ShardError> {
        LocalShards::exemplars(self, shard, request).await.map_err(alone)
    }

    async fn metadata(
        &self,
        shard: ShardId,
        tenant: TenantId,
        after: u64,
    ) -> Result<Vec<MetadataEntry>, ShardError> {
        LocalShards::metadata(self, shard, tenant, after).await.map_err(alone)
    }

    async fn stats(&self, shard: ShardId, tenant: TenantId, after: u64) -> Result<ShardStats, ShardError> {
        LocalShards::stats(self, shard, tenant, after).await.map_err(alone)
    }

    async fn tenants(&self, shard: ShardId) -> Result<Vec<TenantId>, ShardError> {
        LocalShards::tenants(self, shard).await.map_err(alone)
    }
}
