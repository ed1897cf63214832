//! Settings of the agent.

use std::{path::PathBuf, sync::Arc, time::Duration};

use sextant_model::TenantId;

use crate::host::{ClockStatus, HostPaths, kernel_clock};

/// Settings; the binary fills them from its keys `agent.*`.
#[derive(Clone)]
pub struct AgentConfig {
    /// Collect this host's metrics.
    pub host_metrics: bool,
    /// How often.
    pub host_interval: Duration,
    /// The label `job` of this host's metrics.
    pub host_job: String,
    /// The label `instance`; the host's name where absent.
    pub host_instance: Option<String>,
    /// Where the host's files are.
    pub paths: HostPaths,
    /// Reads the kernel's clock discipline; without it there is no `node_timex_*`.
    pub clock_status: Option<Arc<dyn ClockStatus>>,
    /// Prometheus' YAML with `global` and `scrape_configs`; nothing is scraped where absent.
    pub scrape_config_file: Option<PathBuf>,
    /// How often that file is looked at; what it says is taken when it changes.
    pub scrape_config_poll: Duration,
    /// At most this many answers of targets are read and parsed at once, over all jobs: each is in memory.
    pub concurrent_scrapes_max: usize,
    /// At most this many samples wait for a sink that takes none; beyond it the oldest are dropped.
    pub queue_samples_max: usize,
    /// Whose data it is.
    pub tenant: TenantId,
}

impl Default for AgentConfig {
    fn default() -> Self {
        Self {
            host_metrics: true,
            host_interval: Duration::from_secs(15),
            host_job: "node".into(),
            host_instance: None,
            paths: HostPaths::default(),
            clock_status: kernel_clock(),
            scrape_config_file: None,
            scrape_config_poll: Duration::from_secs(5),
            concurrent_scrapes_max: 32,
            queue_samples_max: 1_000_000,
            tenant: TenantId::anonymous(),
        }
    }
}
