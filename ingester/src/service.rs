//! The ingester of one process: the shards it holds, and their flushes.
//!
//! A process that runs alone holds all shards and opens them at once ([`Ingester::open`]). In a cluster shards come and go with
//! the placement ([`Ingester::open_node`], [`Ingester::open_shard`], [`Ingester::close_shard`]).

use std::{
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use parking_lot::Mutex;
use sextant_proto::ShardId;
use sextant_replication::{Group, GroupOptions, LogStore, NodeId, StoreOptions};
use sextant_storage::Manifests;
use tokio::{sync::Semaphore, task::JoinHandle};

use crate::{
    FlushError, IngesterConfig, IngesterMetrics, OpenError, ShardStateMachine,
    flush::Flusher,
    shard::{Shard, Shards, begin_positions, check_shard_count},
};

/// The only node of a process that runs alone.
const ALONE: NodeId = NodeId(1);

/// See the module's documentation. Made by [`Ingester::open`] or [`Ingester::open_node`].
pub struct Ingester {
    pub(crate) log: LogStore,
    pub(crate) flusher: Arc<Flusher>,
    pub(crate) metrics: Arc<IngesterMetrics>,
    pub(crate) memory_max: usize,
    node: NodeId,
    /// Flush tasks by shard.
    tasks: Mutex<Vec<(ShardId, JoinHandle<()>)>>,
}

impl Ingester {
    /// Opens the log, replays every shard, and begins to flush.
    ///
    /// The object store is asked only where the log is new. What a manifest covers already is found out by the first flush.
    pub async fn open(config: IngesterConfig, manifests: Arc<Manifests>) -> Result<Arc<Self>, OpenError> {
        let begin = Instant::now();
        if config.shards == 0 {
            return Err(OpenError::NoShards);
        }
        check_shard_count(&config.data_dir, config.shards)?;
        let (shards, options) = (config.shards, config.group.clone());
        let ingester = Self::open_node(config, ALONE, manifests).await?;
        for id in 0..shards {
            let shard = ingester.opened(ShardId(id), options.clone()).await?;
            begin_positions(&shard, &ingester.flusher.manifests).await?;
            ingester.start(shard);
        }
        let took = begin.elapsed();
        ingester.metrics.open_ms.store(took.as_millis() as u64, Ordering::Relaxed);
        tracing::info!(shards, ?took, "the log is replayed");
        Ok(ingester)
    }

    /// Opens the log of a cluster's node, and no shard yet.
    pub async fn open_node(
        config: IngesterConfig,
        node: NodeId,
        manifests: Arc<Manifests>,
    ) -> Result<Arc<Self>, OpenError> {
        let options = StoreOptions {
            sync: config.log_sync,
            segment_bytes: config.log_segment_bytes,
            log_bytes_max: config.log_bytes_max,
            ..StoreOptions::new(config.data_dir.join("log"))
        };
        let log = tokio::task::spawn_blocking(move || LogStore::open(options)).await??;
        let metrics = Arc::new(IngesterMetrics::default());
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let memory_max = config.head_memory_max;
        let flusher = Arc::new(Flusher {
            config,
            manifests,
            metrics: metrics.clone(),
            shards: Shards::default(),
            // Half of the cores are left to writers and readers.
            writers: Semaphore::new((cores / 2).max(1)),
        });
        let tasks = Mutex::default();
        Ok(Arc::new(Self { log, flusher, metrics, memory_max, node, tasks }))
    }

    /// Opens a shard's group, replays its log, and begins to flush it whenever this node leads it. An error where it is open.
    /// The shard is held, and its group answers, when the call returns.
    pub async fn open_shard(
        &self,
        id: ShardId,
        options: GroupOptions,
    ) -> Result<Group<ShardStateMachine>, OpenError> {
        if self.flusher.shards.get(id).is_some() {
            return Err(OpenError::AlreadyOpen(id.0));
        }
        let shard = self.opened(id, options).await?;
        let group = shard.group.clone();
        self.start(shard);
        Ok(group)
    }

    /// Ends a shard's flushes and its group on this node, after those under way. Its log stays. Returns whether it was open.
    pub async fn close_shard(&self, id: ShardId) -> bool {
        let Some(shard) = self.flusher.shards.remove(id) else { return false };
        shard.stop.send_replace(true);
        let tasks: Vec<_> = self.tasks.lock().extract_if(.., |(of, _)| *of == id).collect();
        join(tasks).await;
        let _flushed = shard.flushing.lock().await;
        shard.group.shutdown().await;
        true
    }

    /// The group of a shard that this node holds.
    pub fn group(&self, id: ShardId) -> Option<Group<ShardStateMachine>> {
        self.flusher.shards.get(id).map(|s| s.group.clone())
    }

    /// The shards that this node holds, in order.
    pub fn held(&self) -> Vec<ShardId> {
        self.flusher.shards.all().iter().map(|s| s.id).collect()
    }

    /// The node's log, which other groups may share.
    pub fn log(&self) -> &LogStore {
        &self.log
    }

    /// The node's id.
    pub fn node(&self) -> NodeId {
        self.node
    }

    async fn opened(&self, id: ShardId, options: GroupOptions) -> Result<Arc<Shard>, OpenError> {
        Shard::open(&self.log, id, self.node, options).await
    }

    fn start(&self, shard: Arc<Shard>) {
        self.flusher.shards.insert(shard.clone());
        shard.wake.notify_one();
        let (id, flusher) = (shard.id, self.flusher.clone());
        self.tasks.lock().push((id, tokio::spawn(async move { flusher.run(&shard).await })));
    }

    /// Flushes one shard, which this node must lead, like [`Ingester::flush_now`].
    pub async fn flush_shard(&self, id: ShardId) -> Result<(), FlushError> {
        match self.flusher.shards.get(id) {
            Some(shard) => self.flusher.flush(&shard, true).await,
            None => Err(FlushError::NotLeader { shard: id.0 }),
        }
    }

    /// Flushes everything that was acknowledged before the call: afterwards it is in blocks that manifests name.
    /// An error leaves all rows where they are, and the flush is repeated in the background.
    pub async fn flush_now(&self) -> Result<(), FlushError> {
        let shards = self.flusher.shards.all();
        let flushes = shards.iter().map(|s| self.flusher.flush(s, true));
        futures::future::join_all(flushes).await.into_iter().collect()
    }

    /// Ends the flush tasks and closes the log, of which groups other than shards must be shut down before. Rows that are not flushed are replayed at the next start.
    pub async fn shutdown(&self) {
        let shards = self.flusher.shards.all();
        for shard in &shards {
            shard.stop.send_replace(true);
        }
        let tasks = std::mem::take(&mut *self.tasks.lock());
        join(tasks).await;
        for shard in &shards {
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
        self.flusher.shards.all().iter().filter_map(why).collect()
    }

    /// The counters.
    pub fn metrics(&self) -> &IngesterMetrics {
        &self.metrics
    }

    /// Appends all metrics in Prometheus' text format.
    pub fn render_metrics(&self, out: &mut String) {
        let m = &self.metrics;
        let shards = self.flusher.shards.all();
        let active: u64 = shards.iter().map(|s| s.head().active().samples()).sum();
        let sealed: Vec<_> = shards.iter().flat_map(|s| s.head().sealed()).collect();
        let log = self.log.stats();
        m.head_memory.store(self.flusher.shards.memory() as u64, Ordering::Relaxed);
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
}

async fn join(tasks: Vec<(ShardId, JoinHandle<()>)>) {
    for (shard, task) in tasks {
        if let Err(error) = task.await {
            tracing::error!(shard = shard.0, %error, "a flush task failed");
        }
    }
}
