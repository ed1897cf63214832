//! Settings of the querier.

use std::time::Duration;

/// Settings; the binary fills them from its keys `querier.*`.
#[derive(Clone, Debug)]
pub struct QuerierConfig {
    /// Longest time for one query.
    pub timeout: Duration,
    /// Queries that run at once; others wait.
    pub max_concurrent: usize,
    /// How old the newest sample of a series may be.
    pub lookback: Duration,
    /// Samples that one query may hold in memory.
    pub max_samples: usize,
    /// Steps that one query may have: Prometheus' limit of points per series.
    pub max_steps: usize,
    /// Threads for evaluation, and partitions of a plan.
    pub threads: usize,
    /// Questions that take longer are logged with their plan; zero: none is.
    pub slow_query: Duration,
    /// Memory for SQL's own operators (sorts, joins, aggregations).
    pub sql_memory_bytes: usize,
}

impl Default for QuerierConfig {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(120),
            max_concurrent: 20,
            lookback: Duration::from_secs(300),
            max_samples: 50_000_000,
            max_steps: 11_000,
            threads: std::thread::available_parallelism().map_or(2, std::num::NonZero::get),
            slow_query: Duration::from_secs(10),
            sql_memory_bytes: 1 << 30,
        }
    }
}
