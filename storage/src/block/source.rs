//! What goes into a block and what comes out of writing one.

use bytes::Bytes;
use sextant_model::{Exemplar, Labels, MetricMetadata, SeriesBuf};

use crate::{BlockId, BlockMeta};

/// Series to be written, in strictly ascending [`series_order`].
///
/// Every method may be called more than once for a series and gives the same answer each time.
pub trait SeriesSource: Sync {
    /// How many series there are.
    fn len(&self) -> usize;

    /// Whether there is no series.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The labels of a series.
    fn labels(&self, i: usize) -> Labels;

    /// Series with equal `Some(key)` were scraped together: their timestamps are the same, or some of the same (a
    /// target's scrape, a series of it that came later). A wrong key costs bytes, never correctness. `None` where
    /// nothing is known; equal timestamps are then still stored once.
    fn time_key(&self, i: usize) -> Option<u64>;

    /// Fills `buf`, which the caller has cleared, with the samples of a series in order of time, each timestamp once.
    /// A series without samples is left out of the block.
    fn read(&self, i: usize, buf: &mut SeriesBuf);

    /// The exemplars of a series, in order of time.
    fn exemplars(&self, i: usize) -> Vec<Exemplar>;

    /// What is known of the series' metric family.
    fn metadata(&self, i: usize) -> Option<MetricMetadata>;

    /// Metadata of metric families, whether they have series here or not. The newest description of a family comes first.
    fn families(&self) -> Vec<(String, MetricMetadata)> {
        Vec::new()
    }
}

/// How a block is written.
#[derive(Clone, Debug)]
pub struct BlockOptions {
    /// The block's id; made when the options are.
    pub id: BlockId,
    /// Compaction level; 0 for a flush.
    pub level: u8,
    /// Rows of one row group of the sample table.
    pub row_group_rows: usize,
    /// Bytes of one page of the sample table before compression: smaller pages make reads of few series cheaper,
    /// larger ones the block smaller.
    pub page_bytes: usize,
    /// zstd level of every column.
    pub zstd_level: i32,
    /// A label becomes a column when at least this share of the series has it.
    pub label_column_share: f64,
    /// At most so many labels become columns.
    pub label_columns_max: usize,
    /// Whether the sidecar `index` is written. Without it the block answers all the same, only slower.
    pub sidecar: bool,
}

impl Default for BlockOptions {
    fn default() -> Self {
        Self {
            id: BlockId::generate(),
            level: 0,
            row_group_rows: 1 << 20,
            page_bytes: 64 << 10,
            zstd_level: 3,
            label_column_share: 0.05,
            label_columns_max: 24,
            sidecar: true,
        }
    }
}

/// A written block, not yet uploaded.
#[derive(Clone, Debug)]
pub struct BlockFiles {
    /// Objects by name.
    pub objects: Vec<(String, Bytes)>,
    /// What the manifest will say of it. `log` is empty and `seq` is 0: the flush fills in the first, the commit the
    /// second.
    pub meta: BlockMeta,
}

/// The order of series in a block: metric name, then labels.
pub fn series_order(a: &Labels, b: &Labels) -> std::cmp::Ordering {
    super::order::block_order(a.as_bytes(), b.as_bytes())
}
