//! A block: Parquet tables, a sidecar index and a table of checksums. The layout is in `docs/block-format.md`.

pub(crate) mod order;
mod source;
mod stats;

pub use source::{BlockFiles, BlockOptions, SeriesSource, series_order};
pub use stats::{BlockSelect, ReadStats, ReadStatsSnapshot, SelectHints};
