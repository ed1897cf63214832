//! The distributor itself: its parts, and the general way in for decoded requests.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering::Relaxed},
    },
};

use async_trait::async_trait;
use hashbrown::HashMap;
use parking_lot::{Mutex, RwLock};
use sextant_model::TenantId;
use sextant_proto::{
    LimitsHandle, ShardClient, TenantLimits, WriteError, WriteRequest, WriteSink, WriteSummary,
};

use crate::{
    config::DistributorConfig,
    decoded::{take_apart, write_id},
    identity::SeriesCache,
    metadata::MetadataMemory,
    metrics::{DistributorMetrics, add},
    rate::TokenBucket,
    workspace::Workspace,
};

/// Buffers larger than this are not kept for the next request.
const KEPT_BYTES_MAX: usize = 32 << 20;
/// How many workspaces are kept: about as many requests as are decoded at once. More would hold memory for peaks.
const KEPT_WORKSPACES_MAX: usize = 16;

/// Between two logs of joined attributes: a sender that has some has them in every request.
const JOINED_LOG_EVERY_MS: i64 = 60_000;

/// What is remembered of a tenant.
#[derive(Debug, Default)]
pub(crate) struct TenantState {
    pub cache: SeriesCache,
    pub metadata: MetadataMemory,
    pub rate: Mutex<TokenBucket>,
    used_ms: AtomicI64,
}

/// Milliseconds since the Unix epoch.
pub type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// Takes writes and routes them to shards.
pub struct Distributor {
    config: DistributorConfig,
    limits: LimitsHandle,
    shards: Arc<dyn ShardClient>,
    tenants: RwLock<HashMap<TenantId, Arc<TenantState>>>,
    workspaces: Mutex<Vec<Workspace>>,
    metrics: DistributorMetrics,
    clock: Clock,
    joined_logged_ms: AtomicI64,
}

impl fmt::Debug for Distributor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Distributor").field("config", &self.config).finish_non_exhaustive()
    }
}

fn system_clock() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX))
}

impl Distributor {
    /// A distributor over shards.
    pub fn new(config: DistributorConfig, limits: LimitsHandle, shards: Arc<dyn ShardClient>) -> Self {
        Self {
            config,
            limits,
            shards,
            tenants: RwLock::default(),
            workspaces: Mutex::default(),
            metrics: DistributorMetrics::default(),
            clock: Arc::new(system_clock),
            joined_logged_ms: AtomicI64::new(i64::MIN),
        }
    }

    /// The same with a clock of the caller's, for tests.
    #[must_use]
    pub fn with_clock(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    /// The distributor's own metrics.
    pub fn metrics(&self) -> &DistributorMetrics {
        &self.metrics
    }

    /// How many series identities are remembered.
    pub fn cached_series(&self) -> usize {
        self.tenants.read().values().map(|t| t.cache.len()).sum()
    }

    /// The largest request that a tenant may send, in bytes after decompression.
    pub fn max_request_bytes(&self, tenant: &TenantId) -> usize {
        match self.limits_of(tenant).max_request_bytes {
            0 => crate::snappy::BODY_BYTES_MAX as usize,
            n => usize::try_from(n).unwrap_or(usize::MAX),
        }
    }

    pub(crate) fn config(&self) -> &DistributorConfig {
        &self.config
    }

    pub(crate) fn shards(&self) -> &Arc<dyn ShardClient> {
        &self.shards
    }

    pub(crate) fn now_ms(&self) -> i64 {
        (self.clock)()
    }

    pub(crate) fn limits_of(&self, tenant: &TenantId) -> Arc<TenantLimits> {
        self.limits.of(tenant)
    }

    /// Whether attributes that were joined are to be logged now.
    pub(crate) fn may_log_joined(&self) -> bool {
        let (now_ms, last_ms) = (self.now_ms(), self.joined_logged_ms.load(Relaxed));
        now_ms.saturating_sub(last_ms) >= JOINED_LOG_EVERY_MS
            && self.joined_logged_ms.compare_exchange(last_ms, now_ms, Relaxed, Relaxed).is_ok()
    }

    /// What is remembered of a tenant, made where there is nothing.
    pub(crate) fn tenant(&self, tenant: &TenantId) -> Arc<TenantState> {
        let now_ms = self.now_ms();
        if let Some(state) = self.tenants.read().get(tenant) {
            state.used_ms.store(now_ms, Relaxed);
            return state.clone();
        }
        let mut tenants = self.tenants.write();
        if tenants.len() >= self.config.cached_tenants_max.max(1) && !tenants.contains_key(tenant) {
            forget_idle(&mut tenants);
        }
        let state = tenants.entry(tenant.clone()).or_default().clone();
        state.used_ms.store(now_ms, Relaxed);
        state
    }

    pub(crate) fn take_workspace(&self) -> Workspace {
        self.workspaces.lock().pop().unwrap_or_default()
    }

    pub(crate) fn give_workspace(&self, workspace: Workspace) {
        let mut kept = self.workspaces.lock();
        if kept.len() < KEPT_WORKSPACES_MAX && workspace.capacity_bytes() <= KEPT_BYTES_MAX {
            kept.push(workspace);
        }
    }
}

/// Forgets the quarter of the tenants that has been idle for longest; at least one. Nothing that matters is lost:
/// identities are learned again, and a bucket is full again.
fn forget_idle(tenants: &mut HashMap<TenantId, Arc<TenantState>>) {
    let mut used: Vec<i64> = tenants.values().map(|t| t.used_ms.load(Relaxed)).collect();
    used.sort_unstable();
    let until = used[used.len() / 4];
    tenants.retain(|_, t| t.used_ms.load(Relaxed) > until);
}

#[async_trait]
impl WriteSink for Distributor {
    async fn write(&self, tenant: &TenantId, request: WriteRequest) -> Result<WriteSummary, WriteError> {
        add(&self.metrics.requests, 1);
        let (state, limits) = (self.tenant(tenant), self.limits_of(tenant));
        let mut workspace = self.take_workspace();
        let taken = workspace.begin(&self.shards).and_then(|()| {
            take_apart(tenant, &request, &state, self.config.cached_series_max, &mut workspace);
            state.rate.lock().take(workspace.rows.item_count(), &limits, self.now_ms())
        });
        let result = match taken {
            Ok(()) => {
                let id = request.write_id.unwrap_or_else(|| write_id(tenant, &request));
                self.send(tenant, &state, &limits, &mut workspace, Some(&request), id).await
            }
            Err(e) => Err(e.into()),
        };
        self.give_workspace(workspace);
        if result.is_err() {
            add(&self.metrics.failed_requests, 1);
        }
        result
    }
}
