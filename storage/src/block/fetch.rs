//! Reads parts of a block's objects; every byte is checked before it is handed out.
//!
//! A read is widened to whole chunks, chunks that are not cached are fetched in runs, and each chunk's checksum is
//! compared with the `checksums` object, which itself is checked against the manifest.

use std::{ops::Range, sync::Arc};

use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt, stream};
use object_store::{ObjectStore, ObjectStoreExt, path::Path};
use parquet::{
    errors::ParquetError,
    file::reader::{ChunkReader, Length},
};
use sextant_model::TenantId;

use super::{
    cache::{BlockCache, CacheKey},
    checksums::Checksums,
    stats::ReadStats,
    tables::names,
};
use crate::{BlockMeta, CHUNK_BYTES, METRICS, Result, StorageError, paths};

/// Two runs of chunks with at most this many unneeded chunks between them are one request: on an object store a
/// request takes as long as reading about a megabyte.
const GAP_CHUNKS: u32 = 4;
/// Chunks of one request: bounds what one retry repeats.
const RUN_CHUNKS: u32 = 128;
/// Requests of one read in flight.
const REQUESTS: usize = 8;

/// One block's objects.
pub struct Objects {
    store: Arc<dyn ObjectStore>,
    dir: Path,
    meta: Arc<BlockMeta>,
    cache: Arc<BlockCache>,
}

impl Objects {
    /// The objects of a block. No request is made.
    pub fn new(
        store: Arc<dyn ObjectStore>,
        tenant: &TenantId,
        meta: Arc<BlockMeta>,
        cache: Arc<BlockCache>,
    ) -> Self {
        let dir = paths::block(tenant, METRICS, meta.id);
        Self { store, dir, meta, cache }
    }

    /// The block.
    pub fn meta(&self) -> &Arc<BlockMeta> {
        &self.meta
    }

    /// The cache.
    pub fn cache(&self) -> &Arc<BlockCache> {
        &self.cache
    }

    /// An object's path.
    pub fn path(&self, name: &str) -> Path {
        self.dir.clone().join(name)
    }

    /// An error for an object whose bytes are as written, but make no sense.
    pub fn nonsense(&self, name: &str, reason: impl Into<String>) -> StorageError {
        StorageError::corrupt(self.path(name).to_string(), reason)
    }

    /// Whether the block has an object.
    pub fn has(&self, name: &str) -> bool {
        self.meta.objects.contains_key(name)
    }

    /// An object's size; [`StorageError::Missing`] where the block has none of that name.
    pub fn size(&self, name: &str) -> Result<u64> {
        let known = self.meta.objects.get(name).map(|o| o.size);
        known.ok_or_else(|| StorageError::Missing { object: self.path(name).to_string() })
    }

    /// A whole object, checked against the manifest.
    pub async fn whole(&self, name: &str, stats: &ReadStats) -> Result<Bytes> {
        let path = self.path(name);
        let expected = self.meta.objects.get(name);
        let expected = expected.ok_or_else(|| StorageError::Missing { object: path.to_string() })?;
        ReadStats::add(&stats.requests, 1);
        let bytes = async { self.store.get(&path).await?.bytes().await }.await;
        let bytes = bytes.map_err(|e| StorageError::store("get", path.as_ref(), e))?;
        ReadStats::add(&stats.bytes_fetched, bytes.len());
        if bytes.len() as u64 != expected.size {
            let reason = format!("has {} bytes, the manifest says {}", bytes.len(), expected.size);
            return Err(StorageError::corrupt(path.to_string(), reason));
        }
        if crc32c::crc32c(&bytes) != expected.crc32c {
            return Err(StorageError::corrupt(path.to_string(), "checksum does not match the manifest"));
        }
        Ok(bytes)
    }

    /// Loads the table of checksums and compares it with the manifest.
    pub async fn checksums(&self, stats: &ReadStats) -> Result<Checksums> {
        let bytes = self.whole(names::CHECKSUMS, stats).await?;
        let sums = Checksums::decode(self.path(names::CHECKSUMS).as_ref(), &bytes)?;
        for (name, object) in self.meta.objects.iter().filter(|(n, _)| *n != names::CHECKSUMS) {
            if sums.objects.get(name).map(|s| s.size) != Some(object.size) {
                return Err(self.nonsense(names::CHECKSUMS, format!("disagrees with the manifest on {name}")));
            }
        }
        Ok(sums)
    }

    /// Reads ranges of an object. They may overlap and be in any order.
    pub async fn ranges(
        &self,
        name: &'static str,
        sums: &Checksums,
        ranges: &[Range<u64>],
        fill_cache: bool,
        stats: &ReadStats,
    ) -> Result<SparseObject> {
        let size = self.size(name)?;
        let code = names::ALL.iter().position(|n| *n == name).unwrap_or(0) as u8;
        let mut wanted: Vec<u32> = Vec::new();
        for r in ranges.iter().filter(|r| r.start < r.end) {
            if r.end > size {
                return Err(self.nonsense(name, format!("a range ends at {} of {size} bytes", r.end)));
            }
            wanted.extend((r.start / CHUNK_BYTES as u64) as u32..=((r.end - 1) / CHUNK_BYTES as u64) as u32);
        }
        wanted.sort_unstable();
        wanted.dedup();
        let mut parts: Vec<(u64, Bytes)> = Vec::new();
        let mut missing: Vec<Range<u32>> = Vec::new();
        for chunk in wanted {
            match self.cache.chunk(&CacheKey::Chunk(self.meta.id, code, chunk)) {
                Some(bytes) => {
                    ReadStats::add(&stats.chunks_cached, 1);
                    parts.push((u64::from(chunk) * CHUNK_BYTES as u64, bytes));
                }
                None => match missing.last_mut() {
                    Some(run) if chunk - run.end <= GAP_CHUNKS && chunk - run.start < RUN_CHUNKS => {
                        run.end = chunk + 1
                    }
                    _ => missing.push(chunk..chunk + 1),
                },
            }
        }
        let fetched: Vec<(u64, Bytes)> = stream::iter(missing)
            .map(|run| self.run(name, code, sums, size, run, fill_cache, stats))
            .buffer_unordered(REQUESTS)
            .try_collect()
            .await?;
        parts.extend(fetched);
        // Runs may cover cached chunks in their gaps: of two parts with one start the longer is first.
        parts.sort_unstable_by_key(|(at, b)| (*at, usize::MAX - b.len()));
        drop_contained(&mut parts);
        Ok(SparseObject { size, parts: parts.into() })
    }

    /// Reads one range of an object.
    pub async fn range(
        &self,
        name: &'static str,
        sums: &Checksums,
        range: Range<u64>,
        fill_cache: bool,
        stats: &ReadStats,
    ) -> Result<Bytes> {
        let read = self.ranges(name, sums, std::slice::from_ref(&range), fill_cache, stats).await?;
        read.get(range).ok_or_else(|| self.nonsense(name, "a range was not read"))
    }

    async fn run(
        &self,
        name: &'static str,
        code: u8,
        sums: &Checksums,
        size: u64,
        run: Range<u32>,
        fill_cache: bool,
        stats: &ReadStats,
    ) -> Result<(u64, Bytes)> {
        let path = self.path(name);
        let start = u64::from(run.start) * CHUNK_BYTES as u64;
        let end = (u64::from(run.end) * CHUNK_BYTES as u64).min(size);
        ReadStats::add(&stats.requests, 1);
        let bytes = match self.store.get_range(&path, start..end).await {
            Ok(b) => b,
            Err(e) => return Err(self.why_no_range(name, size, e).await),
        };
        ReadStats::add(&stats.bytes_fetched, bytes.len());
        if bytes.len() as u64 != end - start {
            return Err(self.nonsense(name, "is shorter than the manifest says"));
        }
        let expected = sums.objects.get(name).map(|s| s.chunks.as_slice()).unwrap_or_default();
        for (chunk, piece) in run.clone().zip(bytes.chunks(CHUNK_BYTES)) {
            ReadStats::add(&stats.chunks_verified, 1);
            if expected.get(chunk as usize) != Some(&crc32c::crc32c(piece)) {
                return Err(StorageError::Corrupt {
                    object: path.to_string(),
                    chunk: Some(chunk),
                    reason: "checksum does not match".into(),
                });
            }
            if fill_cache {
                // A copy, so that one small chunk does not keep a large run in memory.
                let own = if run.len() == 1 { bytes.clone() } else { Bytes::copy_from_slice(piece) };
                self.cache.put_chunk(CacheKey::Chunk(self.meta.id, code, chunk), own);
            }
        }
        Ok((start, bytes))
    }

    /// A truncated object answers a range with an error of the store's own; ask for its size.
    async fn why_no_range(&self, name: &str, size: u64, e: object_store::Error) -> StorageError {
        let path = self.path(name);
        match self.store.head(&path).await {
            Ok(head) if head.size != size => {
                self.nonsense(name, format!("has {} bytes, the manifest says {size}", head.size))
            }
            _ => StorageError::store("get", path.as_ref(), e),
        }
    }
}

/// Drops parts that lie within an earlier one: a range that begins in such a part and ends behind it would else not be found.
/// The parts are in order of start.
fn drop_contained(parts: &mut Vec<(u64, Bytes)>) {
    let mut covered = 0u64;
    parts.retain(|(at, bytes)| {
        let end = at + bytes.len() as u64;
        let keep = end > covered;
        covered = covered.max(end);
        keep
    });
}

/// The parts of an object that were read. Parquet's readers take it for the whole.
#[derive(Clone, Debug)]
pub struct SparseObject {
    size: u64,
    /// Start and bytes, in order of start.
    parts: Arc<[(u64, Bytes)]>,
}

impl SparseObject {
    /// Bytes of a range; `None` where they were not read.
    pub fn get(&self, range: Range<u64>) -> Option<Bytes> {
        if range.start >= range.end {
            return Some(Bytes::new());
        }
        let from = self.parts.partition_point(|(at, _)| *at <= range.start).checked_sub(1)?;
        // Parts may overlap, so the one that begins last before the range need not be the one that holds it.
        let from = (0..=from).rev().find(|&i| self.end(i) > range.start)?;
        let (at, bytes) = self.parts.get(from)?;
        if self.end(from) >= range.end {
            return Some(bytes.slice((range.start - at) as usize..(range.end - at) as usize));
        }
        let mut out = BytesMut::with_capacity((range.end - range.start) as usize);
        let mut next = range.start;
        for (i, (at, bytes)) in self.parts.iter().enumerate().skip(from) {
            if *at > next {
                return None;
            }
            let end = self.end(i).min(range.end);
            if end > next {
                out.extend_from_slice(&bytes[(next - at) as usize..(end - at) as usize]);
                next = end;
            }
            if next == range.end {
                return Some(out.freeze());
            }
        }
        None
    }

    fn end(&self, i: usize) -> u64 {
        self.parts.get(i).map_or(0, |(at, b)| at + b.len() as u64)
    }
}

impl Length for SparseObject {
    fn len(&self) -> u64 {
        self.size
    }
}

impl ChunkReader for SparseObject {
    type T = bytes::buf::Reader<Bytes>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        let part =
            self.parts.iter().enumerate().rev().find(|(i, (at, _))| *at <= start && self.end(*i) > start);
        let (i, _) = part.ok_or_else(|| ParquetError::EOF(format!("byte {start} was not read")))?;
        let bytes = self.get(start..self.end(i)).unwrap_or_default();
        Ok(bytes::Buf::reader(bytes))
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        self.get(start..start + length as u64)
            .ok_or_else(|| ParquetError::EOF(format!("{length} bytes at {start} were not read")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cached_chunk_within_a_fetched_run_hides_nothing() {
        let bytes: Vec<u8> = (0..100).collect();
        let of = |r: Range<usize>| (r.start as u64, Bytes::copy_from_slice(&bytes[r]));
        let mut parts = vec![of(0..50), of(20..30), of(50..60), of(60..100), of(70..80)];
        drop_contained(&mut parts);
        let object = SparseObject { size: 100, parts: parts.into() };
        for (a, b) in [(25, 40), (20, 60), (75, 99), (0, 100), (55, 65)] {
            assert_eq!(object.get(a..b).as_deref(), Some(&bytes[a as usize..b as usize]), "{a}..{b}");
        }
    }
}
