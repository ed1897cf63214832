//! What a read asks for and what it cost.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use sextant_model::Matcher;
use sextant_proto::SelectLimits;

/// A selection from one block.
#[derive(Clone, Debug)]
pub struct BlockSelect {
    /// All must match; none selects every series.
    pub matchers: Vec<Matcher>,
    /// First timestamp, inclusive, milliseconds.
    pub start: i64,
    /// Last timestamp, inclusive, milliseconds.
    pub end: i64,
    /// Bounds; more is [`crate::StorageError::Limit`], never a cut answer.
    pub limits: SelectLimits,
    /// What may be left out.
    pub hints: SelectHints,
}

impl BlockSelect {
    /// Selects with samples and without limits.
    pub fn new(matchers: Vec<Matcher>, start: i64, end: i64) -> Self {
        Self { matchers, start, end, limits: SelectLimits::default(), hints: SelectHints::default() }
    }
}

/// What a reader does not need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SelectHints {
    /// Timestamps, values and histograms; without them series come back with their labels only, among them some
    /// whose samples are all outside of the range though their first and last are around it.
    pub samples: bool,
    /// Start timestamps.
    pub start_timestamps: bool,
    /// Keep chunks that are read in the cache; off for reads of whole blocks, which would drive everything else out.
    /// Footers, series tables and timestamps are kept in any case.
    pub fill_cache: bool,
}

impl Default for SelectHints {
    fn default() -> Self {
        Self { samples: true, start_timestamps: true, fill_cache: true }
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Counters of one read or many; shared between tasks.
        #[derive(Debug, Default)]
        pub struct ReadStats {
            $($(#[$doc])* pub $name: AtomicU64,)*
        }

        /// The counters at one instant.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct ReadStatsSnapshot {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl ReadStats {
            /// Reads the counters.
            pub fn snapshot(&self) -> ReadStatsSnapshot {
                ReadStatsSnapshot { $($name: self.$name.load(Relaxed),)* }
            }
        }
    };
}

counters! {
    /// Requests to the object store.
    requests,
    /// Bytes that came from the object store.
    bytes_fetched,
    /// Chunks that came from the cache.
    chunks_cached,
    /// Chunks whose checksum was computed.
    chunks_verified,
    /// Pages of the sample table that were decompressed.
    pages_decoded,
    /// Series returned.
    series,
    /// Samples returned, of both kinds.
    samples,
}

impl ReadStats {
    pub(crate) fn add(counter: &AtomicU64, n: usize) {
        counter.fetch_add(n as u64, Relaxed);
    }
}
