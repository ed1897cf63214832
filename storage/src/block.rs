//! A block: Parquet tables, a sidecar index and a table of checksums. The layout is in `docs/block-format.md`.

mod cache;
mod checksums;
mod fetch;
mod grid;
mod index;
mod lists;
mod opened;
pub(crate) mod order;
mod pages;
mod postings;
mod read;
mod scale;
mod series_group;
mod source;
mod stats;
mod tables;
mod times;
mod write;

pub use cache::BlockCache;
pub use checksums::Checksums;
pub(crate) use index::walk as walk_index;
pub(crate) use pages::read_page;
pub(crate) use read::SeriesBatch;
pub use read::{BlockReader, BlockSelection};
pub use source::{BlockFiles, BlockOptions, SeriesSource, series_order};
pub use stats::{BlockSelect, ReadStats, ReadStatsSnapshot, SelectHints};
pub use tables::names;
pub use write::{BlockWriter, write_block};
