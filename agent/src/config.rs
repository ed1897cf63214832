//! Settings of the agent.

use std::time::Duration;

use sextant_model::TenantId;

use crate::host::HostPaths;

/// Settings; the binary fills them from its keys `agent.*`.
#[derive(Clone, Debug)]
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
            tenant: TenantId::anonymous(),
        }
    }
}
