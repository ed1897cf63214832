//! What an operator may set.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

/// Options of the distributor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DistributorConfig {
    /// Into how many parts the series of one target (`job`, `instance`) are split before they go to shards. Every
    /// distributor must have the same value, since the shard is computed from it. 1 keeps a target in one shard.
    pub target_split: u32,
    /// Series identities kept per tenant, about 80 bytes each. A tenant with more pays the full path again and again.
    pub cached_series_max: usize,
    /// Tenants whose identities are kept; beyond it those that are idle for longest are forgotten.
    pub cached_tenants_max: usize,
    /// How often a batch is sent again with labels because the shard began a new epoch in between.
    pub stale_epoch_retries: u32,
    /// Add the labels `__type__` and `__unit__` from remote write 2.0 metadata.
    pub type_and_unit_labels: bool,
    /// The limits file; without one every tenant has the built-in defaults.
    pub limits_file: Option<PathBuf>,
    /// How often the limits file is looked at, in seconds.
    pub limits_poll_s: u64,
}

impl Default for DistributorConfig {
    fn default() -> Self {
        Self {
            target_split: 1,
            cached_series_max: 4_000_000,
            cached_tenants_max: 10_000,
            stale_epoch_retries: 4,
            type_and_unit_labels: false,
            limits_file: None,
            limits_poll_s: 5,
        }
    }
}

impl DistributorConfig {
    /// How often the limits file is looked at.
    pub fn limits_poll(&self) -> Duration {
        Duration::from_secs(self.limits_poll_s.max(1))
    }
}
