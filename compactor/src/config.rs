//! Settings of the compactor.

use std::time::Duration;

/// Settings; the binary fills them from its keys `compactor.*`.
#[derive(Clone, Debug)]
pub struct CompactorConfig {
    /// How often it looks for work.
    pub interval: Duration,
    /// How long a replaced block stays for queries that began before, and how old an orphan must be to be removed.
    pub delete_delay: Duration,
}

impl Default for CompactorConfig {
    fn default() -> Self {
        Self { interval: Duration::from_secs(60), delete_delay: Duration::from_secs(15 * 60) }
    }
}
