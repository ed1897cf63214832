//! The compactor's loop, and one pass of it on demand.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use sextant_model::TenantId;
use sextant_proto::LimitsHandle;
use sextant_storage::{
    Compaction, CompactionJob, CompactionOptions, Manifest, Manifests, ObjectStore, Result, StorageError,
    apply_job, clean_tenant, plan, plan_deletions,
};
use tokio::sync::{Mutex, watch};

use crate::{config::CompactorConfig, metrics::CompactorMetrics};

/// Jobs that may be overtaken by other changes in one go.
const STALE_MAX: usize = 4;

/// Merges and cleans up.
pub struct Compactor {
    config: CompactorConfig,
    limits: LimitsHandle,
    manifests: Arc<Manifests>,
    compaction: Compaction,
    metrics: CompactorMetrics,
    /// One pass at a time: a second would plan the same merges.
    pass: Mutex<()>,
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64)
}

impl Compactor {
    /// A compactor over a store and its manifests.
    pub fn new(
        config: CompactorConfig,
        limits: LimitsHandle,
        store: Arc<dyn ObjectStore>,
        manifests: Arc<Manifests>,
    ) -> Self {
        let compaction = Compaction::new(store, manifests.clone());
        Self {
            config,
            limits,
            manifests,
            compaction,
            metrics: CompactorMetrics::default(),
            pass: Mutex::new(()),
        }
    }

    /// The compactor's own metrics.
    pub fn metrics(&self) -> &CompactorMetrics {
        &self.metrics
    }

    fn options(&self, tenant: &TenantId) -> CompactionOptions {
        CompactionOptions {
            retention_ms: self.limits.of(tenant).retention.get_ms(),
            delete_delay_ms: self.config.delete_delay.as_millis() as i64,
            ..CompactionOptions::default()
        }
    }

    /// Merges a tenant's blocks until there is nothing left to merge.
    pub async fn compact(&self, tenant: &TenantId) -> Result<()> {
        let _pass = self.pass.lock().await;
        self.merge(tenant, &CompactionOptions { force: true, ..self.options(tenant) }).await
    }

    /// Writes every block of a tenant again that has deleted rows, without them.
    pub async fn clean_tombstones(&self, tenant: &TenantId) -> Result<()> {
        let _pass = self.pass.lock().await;
        let options = self.options(tenant);
        self.work(tenant, &options, plan_deletions).await?;
        self.manifests.commit(tenant, |m| Ok(m.without_done_tombstones(now_ms()))).await?;
        Ok(())
    }

    async fn merge(&self, tenant: &TenantId, options: &CompactionOptions) -> Result<()> {
        self.work(tenant, options, plan).await
    }

    /// Does jobs until there are none.
    async fn work(
        &self,
        tenant: &TenantId,
        options: &CompactionOptions,
        plan: impl Fn(&Manifest, i64, &CompactionOptions) -> Vec<CompactionJob>,
    ) -> Result<()> {
        let mut stale = 0;
        loop {
            let manifest = self.manifests.refresh(tenant).await?;
            let jobs = plan(&manifest, now_ms(), options);
            if jobs.is_empty() {
                return Ok(());
            }
            for job in &jobs {
                match apply_job(&self.compaction, tenant, job, options).await {
                    Ok(_) => self.metrics.jobs.fetch_add(1, Ordering::Relaxed),
                    // A deletion came in between, or another compactor was faster: the next plan knows.
                    Err(StorageError::Stale { .. }) if stale < STALE_MAX => {
                        stale += 1;
                        break;
                    }
                    Err(e) => return Err(e),
                };
            }
        }
    }

    async fn pass(&self) -> Result<()> {
        let _pass = self.pass.lock().await;
        self.metrics.passes.fetch_add(1, Ordering::Relaxed);
        for tenant in self.manifests.tenants().await? {
            let options = self.options(&tenant);
            let result = async {
                self.merge(&tenant, &options).await?;
                clean_tenant(&self.compaction, &tenant, now_ms(), &options).await
            };
            if let Err(e) = result.await {
                self.metrics.failures.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(%tenant, error = %e, "compaction failed; it is tried again");
            }
        }
        Ok(())
    }

    /// Runs until `stop` becomes true; a merge that has begun is left where it is, which loses nothing.
    pub async fn run(&self, mut stop: watch::Receiver<bool>) {
        loop {
            tokio::select! {
                _ = stop.wait_for(|s| *s) => return,
                () = tokio::time::sleep(self.config.interval) => {}
            }
            tokio::select! {
                _ = stop.wait_for(|s| *s) => return,
                result = self.pass() => {
                    if let Err(e) = result {
                        self.metrics.failures.fetch_add(1, Ordering::Relaxed);
                        tracing::warn!(error = %e, "looking for blocks to merge failed; it is tried again");
                    }
                }
            }
        }
    }
}
