//! What is kept in memory of blocks that were read: verified chunks and parsed tables, bounded by bytes.

use std::{any::Any, sync::Arc};

use bytes::Bytes;
use quick_cache::{Weighter, sync::Cache};

use crate::{BlockId, TombstoneId};

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CacheKey {
    /// A verified chunk of an object (index in [`super::tables::names::ALL`], chunk).
    Chunk(BlockId, u8, u32),
    /// Checksums and footers.
    Opened(BlockId),
    /// A row group of the series table.
    Series(BlockId, u32),
    /// A row group of the grid table.
    Grid(BlockId, u32),
    /// The series that a tombstone selects.
    Deleted(BlockId, TombstoneId),
}

#[derive(Clone)]
enum Entry {
    Chunk(Bytes),
    Parsed { value: Arc<dyn Any + Send + Sync>, bytes: usize },
}

#[derive(Clone)]
struct Weigh;

impl Weighter<CacheKey, Entry> for Weigh {
    fn weight(&self, _: &CacheKey, entry: &Entry) -> u64 {
        // What an entry costs beyond its content.
        const OVERHEAD: u64 = 128;
        OVERHEAD
            + match entry {
                Entry::Chunk(b) => b.len() as u64,
                Entry::Parsed { bytes, .. } => *bytes as u64,
            }
    }
}

/// The cache; shared by the readers of one process.
pub struct BlockCache {
    cache: Cache<CacheKey, Entry, Weigh>,
}

impl BlockCache {
    /// A cache of at most so many bytes.
    pub fn new(bytes_max: usize) -> Arc<Self> {
        // An entry larger than a shard of the cache is never kept, so small caches get few shards.
        let items = (bytes_max / (64 << 10)).max(64);
        let options = quick_cache::OptionsBuilder::new()
            .estimated_items_capacity(items)
            .weight_capacity(bytes_max as u64)
            .shards((bytes_max >> 26).clamp(1, 64).next_power_of_two())
            .build();
        let options = match options {
            Ok(o) => o,
            Err(_) => return Arc::new(Self { cache: Cache::with_weighter(items, bytes_max as u64, Weigh) }),
        };
        Arc::new(Self { cache: Cache::with_options(options, Weigh, Default::default(), Default::default()) })
    }

    /// Bytes in use.
    pub fn bytes(&self) -> u64 {
        self.cache.weight()
    }

    /// Forgets everything: tests read the store again.
    pub fn clear(&self) {
        self.cache.clear();
    }

    pub(crate) fn chunk(&self, key: &CacheKey) -> Option<Bytes> {
        match self.cache.get(key)? {
            Entry::Chunk(b) => Some(b),
            Entry::Parsed { .. } => None,
        }
    }

    pub(crate) fn put_chunk(&self, key: CacheKey, bytes: Bytes) {
        self.cache.insert(key, Entry::Chunk(bytes));
    }

    pub(crate) fn parsed<T: Send + Sync + 'static>(&self, key: &CacheKey) -> Option<Arc<T>> {
        match self.cache.get(key)? {
            Entry::Parsed { value, .. } => value.downcast().ok(),
            Entry::Chunk(_) => None,
        }
    }

    pub(crate) fn put_parsed<T: Send + Sync + 'static>(&self, key: CacheKey, value: Arc<T>, bytes: usize) {
        self.cache.insert(key, Entry::Parsed { value, bytes });
    }
}
