//! What every read of a block needs first: its checksums, the footers of its tables, the sidecar's footer.

use std::{ops::Range, sync::Arc};

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use parquet::{
    DecodeResult,
    arrow::{
        ProjectionMask,
        arrow_reader::{
            ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder, RowSelection,
        },
    },
    file::{
        metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataPushDecoder},
        statistics::Statistics,
    },
};

use super::{
    cache::CacheKey,
    checksums::Checksums,
    fetch::{Objects, SparseObject},
    grid::GridGroup,
    index::{IndexFooter, TRAILER_BYTES},
    pages::SamplePages,
    stats::ReadStats,
    tables::names,
};
use crate::{CHUNK_BYTES, Result, StorageError};

/// See the module's documentation.
pub struct Opened {
    /// Checksums of all objects.
    pub sums: Checksums,
    /// `series.parquet`.
    pub series: Arc<ParquetMetaData>,
    /// `grid.parquet`.
    pub grid: Arc<ParquetMetaData>,
    /// The first target of each of its row groups.
    pub grid_targets: Vec<u32>,
    /// `histograms.parquet`, where there is one.
    pub histograms: Option<Arc<ParquetMetaData>>,
    /// `exemplars.parquet`, where there is one.
    pub exemplars: Option<Arc<ParquetMetaData>>,
    /// Pages of `samples.parquet`.
    pub pages: SamplePages,
    /// The sidecar's footer; `None` without a sidecar.
    pub index: Option<IndexFooter>,
}

impl Opened {
    /// From the cache, or read.
    pub async fn load(objects: &Objects, stats: &ReadStats) -> Result<Arc<Self>> {
        let key = CacheKey::Opened(objects.meta().id);
        if let Some(opened) = objects.cache().parsed::<Self>(&key) {
            return Ok(opened);
        }
        let sums = objects.checksums(stats).await?;
        let optional = async |name| {
            if objects.has(name) { footer(objects, &sums, name, stats).await.map(Some) } else { Ok(None) }
        };
        let (series, grid, samples, histograms, exemplars, index) = futures::try_join!(
            footer(objects, &sums, names::SERIES, stats),
            footer(objects, &sums, names::GRID, stats),
            footer(objects, &sums, names::SAMPLES, stats),
            optional(names::HISTOGRAMS),
            optional(names::EXEMPLARS),
            index_footer(objects, &sums, stats),
        )?;
        let grid_targets = GridGroup::first_targets(&grid)
            .filter(|t| t.is_sorted())
            .ok_or_else(|| objects.nonsense(names::GRID, "no statistics of targets"))?;
        let pages =
            SamplePages::new(&samples).ok_or_else(|| objects.nonsense(names::SAMPLES, "no page index"))?;
        let bytes = [Some(&series), Some(&grid), histograms.as_ref(), exemplars.as_ref()]
            .into_iter()
            .flatten()
            .map(|m| m.memory_size())
            .sum::<usize>()
            + pages.memory_size()
            + sums.objects.values().map(|o| o.chunks.len() * 4).sum::<usize>();
        let opened = Arc::new(Self { sums, series, grid, grid_targets, histograms, exemplars, pages, index });
        objects.cache().put_parsed(key, opened.clone(), bytes);
        Ok(opened)
    }
}

async fn footer(
    objects: &Objects,
    sums: &Checksums,
    name: &'static str,
    stats: &ReadStats,
) -> Result<Arc<ParquetMetaData>> {
    let bad = |e: parquet::errors::ParquetError| objects.nonsense(name, e.to_string());
    let size = objects.size(name)?;
    let mut decoder = ParquetMetaDataPushDecoder::try_new(size)
        .map_err(bad)?
        .with_column_index_policy(PageIndexPolicy::Skip)
        .with_offset_index_policy(PageIndexPolicy::Optional);
    // The footer of most blocks is in the last chunk; what else is needed the decoder says.
    let last = size.saturating_sub(CHUNK_BYTES as u64)..size;
    let mut ranges: Vec<Range<u64>> = Vec::from_iter([last]);
    loop {
        let read = objects.ranges(name, sums, &ranges, true, stats).await?;
        for r in ranges {
            let bytes = read.get(r.clone()).ok_or_else(|| objects.nonsense(name, "footer was not read"))?;
            decoder.push_range(r, bytes).map_err(bad)?;
        }
        match decoder.try_decode().map_err(bad)? {
            DecodeResult::NeedsData(more) => {
                if more.iter().any(|r| r.start >= r.end || r.end > size) {
                    return Err(objects.nonsense(name, "footer asks for bytes outside of the file"));
                }
                ranges = more;
            }
            DecodeResult::Data(metadata) => return Ok(Arc::new(metadata)),
            DecodeResult::Finished => return Err(objects.nonsense(name, "footer ended")),
        }
    }
}

async fn index_footer(objects: &Objects, sums: &Checksums, stats: &ReadStats) -> Result<Option<IndexFooter>> {
    if !objects.has(names::INDEX) {
        return Ok(None);
    }
    let bad = || objects.nonsense(names::INDEX, "malformed footer");
    let size = objects.size(names::INDEX)?;
    let tail = size.checked_sub(TRAILER_BYTES as u64).ok_or_else(bad)?;
    let trailer = match objects.range(names::INDEX, sums, tail..size, true, stats).await {
        Ok(trailer) => trailer,
        Err(StorageError::Missing { object }) => {
            // The tables hold everything the sidecar does.
            tracing::error!(
                object,
                "the sidecar of a block is gone; reads of the block are slow until it is compacted"
            );
            return Ok(None);
        }
        Err(e) => return Err(e),
    };
    let (at, len, crc) = IndexFooter::locate(&trailer).ok_or_else(bad)?;
    if at.checked_add(u64::from(len)) != Some(tail) {
        return Err(bad());
    }
    let footer = objects.range(names::INDEX, sums, at..tail, true, stats).await?;
    if crc32c::crc32c(&footer) != crc {
        return Err(bad());
    }
    IndexFooter::parse(&footer, at).map(Some).ok_or_else(bad)
}

/// Bytes of a row group's columns.
pub fn row_group_range(metadata: &ParquetMetaData, group: usize) -> Range<u64> {
    let columns = metadata.row_group(group).columns().iter().map(|c| c.byte_range());
    let (start, end) =
        columns.fold((u64::MAX, 0), |(s, e), (at, len)| (s.min(at), e.max(at.saturating_add(len))));
    start.min(end)..end
}

/// Smallest and largest value of an `int32` column in a row group, where its statistics say.
pub fn int_bounds(metadata: &ParquetMetaData, group: usize, column: usize) -> Option<(i32, i32)> {
    match metadata.row_group(group).columns().get(column)?.statistics()? {
        Statistics::Int32(s) => Some((*s.min_opt()?, *s.max_opt()?)),
        _ => None,
    }
}

/// First row of each row group, and the number of rows.
pub fn group_starts(metadata: &ParquetMetaData) -> Vec<u64> {
    let mut at = 0u64;
    let mut starts = vec![0];
    for group in metadata.row_groups() {
        at += u64::try_from(group.num_rows()).unwrap_or(0);
        starts.push(at);
    }
    starts
}

/// Decodes a row group as one batch; `schema` may ask for dictionaries in place of strings.
pub fn decode_group(
    object: SparseObject,
    metadata: &Arc<ParquetMetaData>,
    schema: Option<SchemaRef>,
    group: usize,
    columns: Option<&[&str]>,
    rows: Option<RowSelection>,
) -> Result<RecordBatch, String> {
    let mut options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    if let Some(schema) = schema {
        options = options.with_schema(schema);
    }
    let arrow = ArrowReaderMetadata::try_new(metadata.clone(), options).map_err(|e| e.to_string())?;
    let n = usize::try_from(metadata.row_group(group).num_rows()).map_err(|e| e.to_string())?;
    let mut builder = ParquetRecordBatchReaderBuilder::new_with_metadata(object, arrow)
        .with_row_groups(vec![group])
        .with_batch_size(n.max(1));
    if let Some(columns) = columns {
        let mask = ProjectionMask::columns(builder.parquet_schema(), columns.iter().copied());
        builder = builder.with_projection(mask);
    }
    if let Some(rows) = rows {
        builder = builder.with_row_selection(rows);
    }
    let mut reader = builder.build().map_err(|e| e.to_string())?;
    match reader.next() {
        Some(batch) => batch.map_err(|e| e.to_string()),
        None => Ok(RecordBatch::new_empty(arrow_array::RecordBatchReader::schema(&reader))),
    }
}
