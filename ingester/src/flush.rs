//! Moves a shard's rows from memory into blocks.
//!
//! Constraints
//! - `covered[shard]` of a tenant's manifest is the end of the last flushed generation **that had rows of the tenant**. A
//!   generation is in the tenant's blocks if its end is at or before that, because generations are flushed in order.
//!   A tenant without rows in a generation needs nothing from its flush.
//! - The block and `covered` enter the manifest in one commit. So a reader of any version finds each row once.
//! - The log is purged only behind a generation that every tenant's manifest covers, and only to the seal that began the
//!   oldest one that is not.
//!
//! Steps, each with its fault point, and what a crash after it leaves:
//! ```text
//! before_seal       nothing happened
//! after_seal        the seal is in the log: replay ends the generation at the same entry, and the flush begins again
//! after_upload      objects that no manifest names; the compactor removes them, the flush writes others
//! after_manifest    this tenant is covered: the repeated flush skips it and goes on with the next tenant
//! after_flushed     every replica releases the generation; replay does it again
//! after_checkpoint  the log is purged up to the seal
//! ```
//! Errors leave the generation as it is and are repeated with growing pauses; writes go on until the memory bound.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use sextant_proto::{
    ErrorClass,
    fault::{self, InjectedFault},
};
use sextant_replication::CheckpointError;
use sextant_storage::{
    BlockFiles, BlockOptions, LogRange, Manifests, StorageError, TombstoneId, upload_block, write_block,
};
use tokio::sync::Semaphore;

use crate::{
    FlushError, IngesterConfig, IngesterMetrics,
    head::{Applied, Command, Generation, TenantFlush, TenantHead},
    metrics::add,
    shard::{Shard, Shards, begin_positions},
};

/// Under memory pressure flushed rows stay readable for this long only, and beyond the bound for the second.
const PRESSED_GRACE: Duration = Duration::from_secs(10);
const FULL_GRACE: Duration = Duration::from_secs(1);

/// A generation smaller than this share of the memory bound is not flushed for memory: it would not help.
const FLUSH_SHARE_MIN: usize = 64;

/// Flushes shards; shared by the shards' tasks.
pub(crate) struct Flusher {
    pub(crate) config: IngesterConfig,
    pub(crate) manifests: Arc<Manifests>,
    pub(crate) metrics: Arc<IngesterMetrics>,
    /// All shards of the node.
    pub(crate) shards: Shards,
    /// Blocks written at a time: each takes a core.
    pub(crate) writers: Semaphore,
}

/// Passes a fault point off the async threads, because it may sleep.
async fn hit(name: &'static str) -> Result<(), FlushError> {
    let passed: Result<(), InjectedFault> = tokio::task::spawn_blocking(move || fault::hit(name)).await?;
    Ok(passed?)
}

impl Flusher {
    /// Whether flushes should begin for the sake of memory.
    fn is_pressed(&self) -> bool {
        self.shards.memory() > self.config.head_memory_max / 2
    }

    /// Watches a shard until it is told to stop.
    pub(crate) async fn run(&self, shard: &Shard) {
        let mut stop = shard.stop.subscribe();
        let mut pause = Duration::ZERO;
        loop {
            let wait = self.config.flush_check_interval.max(pause);
            tokio::select! {
                _ = tokio::time::sleep(wait) => {}
                () = shard.wake.notified(), if pause.is_zero() => {}
                _ = stop.wait_for(|s| *s) => return,
            }
            self.reap(shard);
            if !shard.group.is_leader() {
                if let Err(error) = self.checkpoint_released(shard).await {
                    tracing::warn!(shard = shard.id.0, %error, "no checkpoint was made");
                }
                continue;
            }
            if !shard.is_begun()
                && let Err(error) = begin_positions(shard, &self.manifests).await
            {
                tracing::warn!(shard = shard.id.0, %error, "a new shard does not take writes yet");
                continue;
            }
            let seal = self.is_due(shard);
            if !seal && !self.is_unfinished(shard) {
                pause = Duration::ZERO;
                continue;
            }
            pause = match self.flush(shard, seal).await {
                Ok(()) => Duration::ZERO,
                Err(error) => {
                    let pause = (pause * 2).clamp(self.config.flush_retry_min, self.config.flush_retry_max);
                    match error.class() {
                        ErrorClass::Internal => {
                            tracing::error!(shard = shard.id.0, %error, "a flush cannot be done; rows stay in the log");
                        }
                        _ => {
                            tracing::warn!(shard = shard.id.0, %error, ?pause, "a flush failed and will be repeated")
                        }
                    }
                    pause
                }
            };
        }
    }

    fn reap(&self, shard: &Shard) {
        let most = match self.shards.memory() {
            m if m > self.config.head_memory_max => FULL_GRACE,
            m if m > self.config.head_memory_max / 2 => PRESSED_GRACE,
            _ => Duration::MAX,
        };
        shard.head().reap(shard.checkpointed(), self.config.drop_grace.min(most));
    }

    /// Whether the active generation should be sealed.
    fn is_due(&self, shard: &Shard) -> bool {
        let active = shard.head().active();
        let Some(age) = active.age() else { return false };
        age >= self.config.flush_age
            || active.samples() >= self.config.flush_samples
            || (active.memory() > self.config.head_memory_max / FLUSH_SHARE_MIN && self.is_pressed())
    }

    fn is_unfinished(&self, shard: &Shard) -> bool {
        let covered = shard.checkpointed();
        shard.head().sealed().iter().any(|g| g.end() > Some(covered))
    }

    /// Seals the active generation, unless it is empty or `seal` is false, and flushes everything sealed.
    pub(crate) async fn flush(&self, shard: &Shard, seal: bool) -> Result<(), FlushError> {
        let _one = shard.flushing.lock().await;
        let begin = Instant::now();
        let done = self.flush_locked(shard, seal).await;
        add(&self.metrics.flush_ms, begin.elapsed().as_millis() as u64);
        if done.is_err() {
            add(&self.metrics.flush_failures, 1);
        }
        done
    }

    async fn flush_locked(&self, shard: &Shard, seal: bool) -> Result<(), FlushError> {
        if !shard.group.is_leader() {
            return Err(FlushError::NotLeader { shard: shard.id.0 });
        }
        // A new leader may not have applied yet what the one before has flushed.
        shard
            .group
            .read_barrier()
            .await
            .map_err(|source| FlushError::Barrier { shard: shard.id.0, source })?;
        if seal && !shard.head().active().is_empty() {
            hit("flush.before_seal").await?;
            self.propose(shard, Command::Seal).await?;
            add(&self.metrics.seals, 1);
            hit("flush.after_seal").await?;
        }
        for generation in shard.head().sealed() {
            if generation.released().is_none() {
                self.flush_generation(shard, &generation).await?;
            }
        }
        self.checkpoint_released(shard).await
    }

    async fn propose(&self, shard: &Shard, command: Command<'_>) -> Result<Applied, FlushError> {
        let applied = shard.group.propose_alone(command.encode()).await;
        applied.map_err(|source| FlushError::Log { shard: shard.id.0, source })
    }

    async fn flush_generation(&self, shard: &Shard, generation: &Arc<Generation>) -> Result<(), FlushError> {
        let Some(end) = generation.end() else { return Ok(()) };
        let mut failed = None;
        for tenant in generation.tenants() {
            match self.flush_tenant(shard, end, &tenant).await.map_err(|e| e.of(shard, &tenant)) {
                Ok(()) => {}
                // What is wrong with one tenant's objects holds up no other; the generation is kept for the next try.
                Err(error @ FlushError::Storage { .. }) => {
                    tracing::debug!(shard = shard.id.0, tenant = %tenant.id(), %error, "a tenant's flush failed");
                    failed = failed.or(Some(error));
                }
                Err(error) => return Err(error),
            }
        }
        if let Some(error) = failed {
            return Err(error);
        }
        self.propose(shard, Command::Flushed(end)).await?;
        hit("flush.after_flushed").await?;
        add(&self.metrics.flushes, 1);
        Ok(())
    }

    async fn flush_tenant(
        &self,
        shard: &Shard,
        end: u64,
        tenant: &Arc<TenantHead>,
    ) -> Result<(), TenantError> {
        let newest = self.manifests.refresh(tenant.id()).await?;
        let (known, position) = (newest.known_position(shard.id), shard.head().position());
        let covered = newest.covered(shard.id);
        if known > position {
            let covered = known;
            let (shard, tenant) = (shard.id.0, tenant.id().to_string());
            return Err(FlushError::LogSetBack { shard, tenant, covered, position }.into());
        }
        if covered >= end {
            return Ok(());
        }
        let applied = tenant.deletions().into_iter().map(|id| TombstoneId(id.into())).collect();
        let Some(mut files) = self.write(tenant).await? else {
            // All was refused or deleted. Readers must still know that nothing is missing.
            self.manifests.commit(tenant.id(), |m| m.with_flush(shard.id, end, &[])).await?;
            return Ok(());
        };
        files.meta.log = vec![LogRange { shard: shard.id.0, from: tenant.first(), to: end }];
        files.meta.applied = applied;
        upload_block(self.manifests.store(), tenant.id(), &files).await?;
        hit("flush.after_upload").await?;
        let meta = [files.meta.clone()];
        let committed = self.manifests.commit(tenant.id(), |m| m.with_flush(shard.id, end, &meta)).await;
        match committed {
            Ok(_) => {}
            // Another leader flushed the same entries first; its block has these rows, ours is an orphan.
            Err(StorageError::Stale { .. })
                if self.manifests.refresh(tenant.id()).await?.covered(shard.id) >= end =>
            {
                return Ok(());
            }
            Err(e) => return Err(e.into()),
        }
        hit("flush.after_manifest").await?;
        add(&self.metrics.blocks, 1);
        add(&self.metrics.block_samples, files.meta.samples);
        add(&self.metrics.block_bytes, files.meta.bytes());
        Ok(())
    }

    /// Writes a tenant's block; `None` where there is nothing to write.
    async fn write(&self, tenant: &Arc<TenantHead>) -> Result<Option<BlockFiles>, TenantError> {
        // The semaphore is never closed.
        let _permit = self.writers.acquire().await.ok();
        let tenant = tenant.clone();
        let write = move || write_block(&TenantFlush::new(tenant), BlockOptions::default());
        Ok(tokio::task::spawn_blocking(write).await.map_err(FlushError::from)??)
    }

    /// Makes a checkpoint at the newest generation that is in blocks with all before it. Every member does, whoever
    /// flushed.
    async fn checkpoint_released(&self, shard: &Shard) -> Result<(), FlushError> {
        let sealed = shard.head().sealed();
        let released = sealed.iter().take_while(|g| g.released().is_some()).last();
        let Some((end, (index, bytes))) = released.and_then(|g| Some((g.end()?, g.checkpoint()?))) else {
            return Ok(());
        };
        if end <= shard.checkpointed() {
            return Ok(());
        }
        let made = match shard.group.checkpoint(index, bytes).await {
            // This member was given its leader's, which is newer.
            Err(CheckpointError::Backwards { .. }) => Ok(()),
            made => made,
        };
        made.map_err(|source| FlushError::Checkpoint { shard: shard.id.0, source })?;
        shard.set_checkpointed(end);
        hit("flush.after_checkpoint").await
    }
}

/// An error of one tenant's part, before it is said whose.
enum TenantError {
    Storage(StorageError),
    Other(FlushError),
}

impl From<StorageError> for TenantError {
    fn from(e: StorageError) -> Self {
        Self::Storage(e)
    }
}

impl From<FlushError> for TenantError {
    fn from(e: FlushError) -> Self {
        Self::Other(e)
    }
}

impl TenantError {
    fn of(self, shard: &Shard, tenant: &TenantHead) -> FlushError {
        match self {
            Self::Storage(source) => {
                FlushError::Storage { shard: shard.id.0, tenant: tenant.id().to_string(), source }
            }
            Self::Other(e) => e,
        }
    }
}
