//! What the page and `/metrics` show: every role's own view, put together.

use std::{fmt::Write, sync::Arc};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use sextant_agent::Agent;
use sextant_compactor::Compactor;
use sextant_distributor::Distributor;
use sextant_model::TenantId;
use sextant_proto::ShardId;
use sextant_querier::Querier;
use sextant_security::SecurityMetrics;
use sextant_storage::{Manifests, StoreMetrics, StoreMetricsSnapshot};

use crate::{
    cli,
    readiness::{Readiness, obstacles},
    shards::Shards,
};

/// Everything that can be looked at.
pub struct Overview {
    /// Listeners: what and where.
    pub listeners: Vec<(String, String)>,
    /// The metrics signal's manifests.
    pub manifests: Arc<Manifests>,
    /// Requests to the object store.
    pub store_metrics: Arc<StoreMetrics>,
    /// Where recent data is.
    pub shards: Shards,
    /// Takes writes.
    pub distributor: Option<Arc<Distributor>>,
    /// Answers.
    pub querier: Option<Querier>,
    /// Merges.
    pub compactor: Arc<Compactor>,
    /// Collects.
    pub agent: Option<Arc<Agent>>,
    /// Handshakes, credentials and what is read again.
    pub security: Arc<SecurityMetrics>,
    /// When the process started, Unix seconds.
    pub started_s: f64,
}

impl Overview {
    /// What the page shows.
    pub async fn json(&self, ready: &Readiness, multi_tenancy: bool) -> Result<Value> {
        let mut names: Vec<TenantId> = self.manifests.tenants().await.context("list tenants")?;
        let shards = self.shards.client();
        for shard in 0..shards.shard_count() {
            names.extend(shards.tenants(ShardId(shard)).await?);
        }
        names.sort();
        names.dedup();
        let mut tenants = Vec::new();
        for tenant in names {
            // One tenant's damage does not take the others from the page.
            tenants.push(match self.tenant(&tenant).await {
                Ok(value) => value,
                Err(e) => json!({"tenant": tenant.as_str(), "error": format!("{e:#}")}),
            });
        }
        let obstacles = obstacles(ready, &self.shards);
        Ok(json!({
            "version": cli::version(),
            "ready": obstacles.is_empty(),
            "not_ready": obstacles,
            "multi_tenancy": multi_tenancy,
            "listeners": self.listeners.iter().map(|(n, a)| json!({"name": n, "address": a})).collect::<Vec<_>>(),
            "tenants": tenants,
        }))
    }

    async fn tenant(&self, tenant: &TenantId) -> Result<Value> {
        let manifest = self.manifests.load(tenant).await?;
        let (mut series, mut samples) = (0, 0);
        let shards = self.shards.client();
        for shard in 0..shards.shard_count() {
            let after = manifest.covered.get(&shard).copied().unwrap_or(0);
            let stats = shards.stats(ShardId(shard), tenant.clone(), after).await?;
            series += stats.series;
            samples += stats.samples;
        }
        Ok(json!({
            "tenant": tenant.as_str(),
            "head_series": series,
            "head_samples": samples,
            "blocks": manifest.blocks.len(),
            "block_samples": manifest.blocks.iter().map(|b| b.samples).sum::<u64>(),
            "block_bytes": manifest.blocks.iter().map(|b| b.bytes()).sum::<u64>(),
        }))
    }

    /// Merges a tenant's blocks until there is nothing left to merge.
    pub async fn compact(&self, tenant: &TenantId) -> Result<()> {
        self.compactor.compact(tenant).await.context("compact")
    }

    /// Every role's metrics, Prometheus text.
    pub fn metrics(&self) -> String {
        let mut out = String::new();
        build_info(&mut out);
        process_metrics(&mut out, self.started_s);
        if let Some(distributor) = &self.distributor {
            distributor.metrics().render(&mut out);
        }
        self.shards.render_metrics(&mut out);
        if let Some(querier) = &self.querier {
            querier.metrics().render(&mut out);
        }
        self.compactor.metrics().render(&mut out);
        if let Some(agent) = &self.agent {
            agent.render_metrics(&mut out);
        }
        store_metrics(&mut out, &self.store_metrics.snapshot());
        self.security.render(&mut out);
        out
    }
}

/// Which version this is.
pub fn build_info(out: &mut String) {
    let _ = writeln!(
        out,
        "# HELP sextant_build_info Version of this process.\n# TYPE sextant_build_info gauge\nsextant_build_info{{version=\"{}\"}} 1",
        cli::version()
    );
}

/// Requests to the object store.
pub fn store_metrics(out: &mut String, s: &StoreMetricsSnapshot) {
    for (name, help, value) in [
        ("sextant_object_store_puts_total", "Put requests, parts of uploads included.", s.puts),
        ("sextant_object_store_gets_total", "Get requests.", s.gets),
        ("sextant_object_store_lists_total", "List requests.", s.lists),
        ("sextant_object_store_deletes_total", "Objects deleted.", s.deletes),
        ("sextant_object_store_errors_total", "Calls that failed.", s.errors),
        ("sextant_object_store_written_bytes_total", "Bytes put.", s.bytes_written),
        ("sextant_object_store_read_bytes_total", "Bytes read.", s.bytes_read),
    ] {
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} counter\n{name} {value}");
    }
}

/// The process' own figures under their usual names, from `/proc/self`.
pub fn process_metrics(out: &mut String, started_s: f64) {
    let mut gauge = |name: &str, kind: &str, help: &str, value: f64| {
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
    };
    let ticks = rustix::param::clock_ticks_per_second() as f64;
    let page = rustix::param::page_size() as f64;
    if let Ok(stat) = std::fs::read_to_string("/proc/self/stat")
        && let Some((_, rest)) = stat.rsplit_once(')')
    {
        let fields: Vec<f64> = rest.split_whitespace().skip(1).filter_map(|f| f.parse().ok()).collect();
        if let [_, _, _, _, _, _, _, _, _, _, user, system, ..] = fields.as_slice() {
            gauge(
                "process_cpu_seconds_total",
                "counter",
                "User and system CPU time.",
                (user + system) / ticks,
            );
        }
        if let (Some(virt), Some(rss)) = (fields.get(19), fields.get(20)) {
            gauge("process_virtual_memory_bytes", "gauge", "Virtual memory.", *virt);
            gauge("process_resident_memory_bytes", "gauge", "Resident memory.", rss * page);
        }
    }
    if let Ok(fds) = std::fs::read_dir("/proc/self/fd") {
        gauge("process_open_fds", "gauge", "Open file descriptors.", fds.count() as f64);
    }
    gauge("process_start_time_seconds", "gauge", "When the process started, Unix seconds.", started_s);
}
