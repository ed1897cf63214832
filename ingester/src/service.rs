//! The ingester of one process: its shards behind [`ShardClient`], and their flushes.

use std::{
    ops::Range,
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use sextant_model::{Labels, SeriesSet, TenantId};
use sextant_proto::{
    AppendOutcome, DeleteOutcome, DeleteRequest, ExemplarSeries, HeadSelection, MetadataEntry, SelectRequest,
    ShardClient, ShardError, ShardId, ShardStats,
};
use sextant_replication::{LogStore, NodeId, StoreOptions};
use sextant_storage::{Manifests, ObjectStore};
use tokio::{
    sync::{Semaphore, watch},
    task::JoinHandle,
};

use crate::{
    FlushError, IngesterConfig, IngesterMetrics, OpenError,
    error::refused,
    flush::Flusher,
    head::{Applied, Command, Head, encode_delete},
    metrics::add,
    shard::{Shard, begin_positions, check_shard_count},
};

/// The only node of a process that runs alone.
const NODE: NodeId = NodeId(1);

/// See the module's documentation. Made by [`Ingester::open`].
pub struct Ingester {
    log: LogStore,
    flusher: Arc<Flusher>,
    metrics: Arc<IngesterMetrics>,
    memory_max: usize,
    stop: watch::Sender<bool>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl Ingester {
    /// Opens the log, replays every shard, and begins to flush. `store` is the object store of `manifests`.
    ///
    /// The object store is asked only where the log is new. What a manifest covers already is found out by the first flush.
    pub async fn open(
        config: IngesterConfig,
        store: Arc<dyn ObjectStore>,
        manifests: Arc<Manifests>,
    ) -> Result<Arc<Self>, OpenError> {
        debug_assert!(std::ptr::addr_eq(Arc::as_ptr(&store), Arc::as_ptr(manifests.store())));
        let begin = Instant::now();
        if config.shards == 0 {
            return Err(OpenError::NoShards);
        }
        check_shard_count(&config.data_dir, config.shards)?;
        let options = StoreOptions {
            sync: config.log_sync,
            segment_bytes: config.log_segment_bytes,
            log_bytes_max: config.log_bytes_max,
            ..StoreOptions::new(config.data_dir.join("log"))
        };
        let log = tokio::task::spawn_blocking(move || LogStore::open(options)).await??;
        let mut shards = Vec::new();
        for id in 0..config.shards {
            let shard = Shard::open(&log, ShardId(id), NODE, config.group.clone()).await?;
            begin_positions(&shard, &manifests).await?;
            shards.push(shard);
        }
        let metrics = Arc::new(IngesterMetrics::default());
        metrics.open_ms.store(begin.elapsed().as_millis() as u64, Ordering::Relaxed);
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let memory_max = config.head_memory_max;
        let flusher = Arc::new(Flusher {
            config,
            manifests,
            metrics: metrics.clone(),
            shards: shards.clone(),
            // Half of the cores are left to writers and readers.
            writers: Semaphore::new((cores / 2).max(1)),
        });
        let (stop, stopped) = watch::channel(false);
        let start = |shard: Arc<Shard>| {
            let (flusher, stopped) = (flusher.clone(), stopped.clone());
            shard.wake.notify_one();
            tokio::spawn(async move { flusher.run(&shard, stopped).await })
        };
        let tasks = shards.into_iter().map(start).collect();
        tracing::info!(shards = flusher.shards.len(), took = ?begin.elapsed(), "the log is replayed");
        Ok(Arc::new(Self { log, flusher, metrics, memory_max, stop, tasks: Mutex::new(tasks) }))
    }

    /// Flushes everything that was acknowledged before the call: afterwards it is in blocks that manifests name.
    /// An error leaves all rows where they are, and the flush is repeated in the background.
    pub async fn flush_now(&self) -> Result<(), FlushError> {
        let flushes = self.flusher.shards.iter().map(|s| self.flusher.flush(s, true));
        futures::future::join_all(flushes).await.into_iter().collect()
    }

    /// Ends the flush tasks and closes the log. Rows that are not flushed are replayed at the next start.
    pub async fn shutdown(&self) {
        let _ = self.stop.send(true);
        let tasks = std::mem::take(&mut *self.tasks.lock());
        for task in tasks {
            if let Err(error) = task.await {
                tracing::error!(%error, "a flush task failed");
            }
        }
        for shard in &self.flusher.shards {
            let _flushed = shard.flushing.lock().await;
            shard.group.shutdown().await;
        }
        let log = self.log.clone();
        match tokio::task::spawn_blocking(move || log.close()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "the log did not close in order"),
            Err(error) => tracing::error!(%error, "the log did not close in order"),
        }
    }

    /// The shards that answer every write with `Unavailable`, and why: their group has stopped, or the log's disk is full.
    /// A shard that is only over a bound of memory or log is not among them: it takes writes after its next flush.
    pub fn refusing(&self) -> Vec<(ShardId, String)> {
        let log = self.log.refuses();
        let why = |shard: &Arc<Shard>| {
            let stopped = || {
                let reason = shard.group.metrics().stopped;
                reason.unwrap_or_else(|| "the shard's group has stopped".to_owned())
            };
            let reason = log.clone().or_else(|| (!shard.group.is_running()).then(stopped))?;
            Some((shard.id, reason))
        };
        self.flusher.shards.iter().filter_map(why).collect()
    }

    /// The counters.
    pub fn metrics(&self) -> &IngesterMetrics {
        &self.metrics
    }

    /// Appends all metrics in Prometheus' text format.
    pub fn render_metrics(&self, out: &mut String) {
        let m = &self.metrics;
        let shards = &self.flusher.shards;
        let active: u64 = shards.iter().map(|s| s.head().active().samples()).sum();
        let sealed: Vec<_> = shards.iter().flat_map(|s| s.head().sealed()).collect();
        let log = self.log.stats();
        m.head_memory.store(self.flusher.memory() as u64, Ordering::Relaxed);
        m.head_memory_max.store(self.memory_max as u64, Ordering::Relaxed);
        m.head_samples.store(active + sealed.iter().map(|g| g.samples()).sum::<u64>(), Ordering::Relaxed);
        m.sealed_generations.store(sealed.len() as u64, Ordering::Relaxed);
        m.log_bytes.store(log.log_bytes, Ordering::Relaxed);
        m.log_syncs.store(log.syncs, Ordering::Relaxed);
        m.render(out);
        let refusing: Vec<ShardId> = self.refusing().into_iter().map(|(id, _)| id).collect();
        let taking = shards.iter().map(|s| (s.id, !refusing.contains(&s.id)));
        IngesterMetrics::render_shards(taking, out);
    }

    fn shard(&self, id: ShardId) -> Result<&Arc<Shard>, ShardError> {
        let shard = self.flusher.shards.get(id.0 as usize);
        shard.ok_or_else(|| ShardError::Unavailable(format!("there is no shard {}", id.0)))
    }

    /// Bounds memory before the log: what is refused here was never proposed.
    fn check_memory(&self) -> Result<(), ShardError> {
        let memory = self.flusher.memory();
        if memory <= self.memory_max {
            return Ok(());
        }
        self.flusher.shards.iter().for_each(|s| s.wake.notify_one());
        Err(ShardError::Overloaded(format!(
            "recent data takes {memory} bytes of memory, the limit is {} (ingester.head_memory_max); wait for a flush",
            self.memory_max
        )))
    }

    async fn try_append(&self, shard: ShardId, batch: &Bytes) -> Result<AppendOutcome, ShardError> {
        let shard = self.shard(shard)?;
        self.check_memory()?;
        add(&self.metrics.batch_bytes, batch.len() as u64);
        match shard.group.propose(Command::Write(batch).encode()).await.map_err(refused)? {
            Applied::Written(outcome) => outcome,
            other => Err(ShardError::Unavailable(format!("the log answered {other:?}"))),
        }
    }

    /// Reads off the async threads: a read may decode millions of samples.
    async fn read<T: Send + 'static>(
        &self,
        shard: ShardId,
        read: impl FnOnce(&Head) -> Result<T, ShardError> + Send + 'static,
    ) -> Result<T, ShardError> {
        let shard = self.shard(shard)?.clone();
        let done = tokio::task::spawn_blocking(move || read(shard.head())).await;
        done.map_err(|e| ShardError::Unavailable(format!("a read ended early: {e}")))?
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
impl ShardClient for Ingester {
    fn shard_count(&self) -> u32 {
        self.flusher.shards.len() as u32
    }

    fn epoch(&self, shard: ShardId) -> u64 {
        self.shard(shard).map_or(0, |s| s.head().epoch())
    }

    async fn append(&self, shard: ShardId, batch: Bytes) -> Result<AppendOutcome, ShardError> {
        let done = self.try_append(shard, &batch).await;
        match &done {
            Ok(outcome) => self.metrics.applied(outcome),
            Err(e) => self.metrics.failed(e),
        }
        done
    }

    async fn delete(&self, shard: ShardId, request: DeleteRequest) -> Result<DeleteOutcome, ShardError> {
        let shard = self.shard(shard)?;
        let _no_flush = shard.flushing.lock().await;
        let entry = Command::Delete(&encode_delete(&request)).encode();
        match shard.group.propose_alone(entry).await.map_err(refused)? {
            Applied::Deleted(outcome) => {
                // The manifest will name the position: in relaxed mode too, other rows must not get it after a crash.
                self.log.sync().await.map_err(|e| ShardError::Unavailable(e.to_string()))?;
                outcome
            }
            other => Err(ShardError::Unavailable(format!("the log answered {other:?}"))),
        }
    }

    async fn select(&self, shard: ShardId, request: SelectRequest) -> Result<SeriesSet, ShardError> {
        add(&self.metrics.selects, 1);
        let set = self.read(shard, move |head| head.select(&request)).await?;
        add(&self.metrics.select_samples, set.sample_count() as u64);
        Ok(set)
    }

    async fn find(
        &self,
        shard: ShardId,
        request: SelectRequest,
    ) -> Result<Vec<Arc<dyn HeadSelection>>, ShardError> {
        add(&self.metrics.selects, 1);
        let found = self.read(shard, move |head| head.find(&request)).await?;
        let counted = |selection| -> Arc<dyn HeadSelection> {
            Arc::new(Counted { selection, metrics: self.metrics.clone() })
        };
        Ok(found.into_iter().map(counted).collect())
    }

    async fn series(&self, shard: ShardId, request: SelectRequest) -> Result<Vec<Labels>, ShardError> {
        self.read(shard, move |head| head.series(&request)).await
    }

    async fn label_values(
        &self,
        shard: ShardId,
        request: SelectRequest,
        label: Option<String>,
    ) -> Result<Vec<String>, ShardError> {
        self.read(shard, move |head| head.label_values(&request, label.as_deref())).await
    }

    async fn exemplars(
        &self,
        shard: ShardId,
        request: SelectRequest,
    ) -> Result<Vec<ExemplarSeries>, ShardError> {
        self.read(shard, move |head| head.exemplars(&request)).await
    }

    async fn metadata(
        &self,
        shard: ShardId,
        tenant: TenantId,
        after: u64,
    ) -> Result<Vec<MetadataEntry>, ShardError> {
        self.read(shard, move |head| head.metadata(&tenant, after)).await
    }

    async fn stats(&self, shard: ShardId, tenant: TenantId, after: u64) -> Result<ShardStats, ShardError> {
        self.read(shard, move |head| head.stats(&tenant, after)).await
    }

    async fn tenants(&self, shard: ShardId) -> Result<Vec<TenantId>, ShardError> {
        self.read(shard, |head| Ok(head.tenants())).await
    }
}
