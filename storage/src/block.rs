//! A block: Parquet tables, a sidecar index and a table of checksums. The layout is in `docs/block-format.md`.

mod checksums;
mod index;
mod lists;
pub(crate) mod order;
mod scale;
mod source;
mod stats;
mod tables;
mod times;
mod write;

pub use source::{BlockFiles, BlockOptions, SeriesSource, series_order};
pub use checksums::Checksums;
pub use stats::{BlockSelect, ReadStats, ReadStatsSnapshot, SelectHints};
pub use tables::names;
pub use write::{BlockWriter, write_block};
