//! Writes the tables that few blocks have: histograms, exemplars, metadata.

use std::sync::Arc;

use arrow_array::{ArrayRef, BooleanArray, Float64Array, Int32Array, Int64Array, StringArray};
use arrow_schema::DataType;
use bytes::Bytes;
use parquet::basic::Encoding;
use sextant_model::{Exemplar, HistogramSample, Labels, MetadataTable, MetricMetadata};

use crate::{
    BlockOptions, Result,
    block::{
        lists::{Lists, Maps},
        tables::{self, TableWriter},
    },
};

/// Rows of one row group: what a read of one series has to decode.
const HISTOGRAM_GROUP_ROWS: usize = 8 << 10;
const EXEMPLAR_GROUP_ROWS: usize = 64 << 10;

/// Collects histograms in order of series and time.
pub struct HistogramTable {
    table: TableWriter,
    waiting: Vec<(i32, HistogramSample)>,
    rows: u64,
}

impl HistogramTable {
    /// An empty table.
    pub fn new(options: &BlockOptions) -> Result<Self> {
        let mut b = tables::properties(options.zstd_level)?;
        for column in ["ts", "start_ts"] {
            b = tables::encoded(b, &[column], Encoding::DELTA_BINARY_PACKED);
        }
        for column in ["zero_count", "count", "sum"] {
            b = tables::encoded(b, &[column], Encoding::BYTE_STREAM_SPLIT);
        }
        for column in ["positive_buckets", "negative_buckets"] {
            b = tables::encoded(b, &[column, "list", "element"], Encoding::BYTE_STREAM_SPLIT);
        }
        let table = TableWriter::new(tables::histograms_schema(), tables::with_statistics(b, "sid").build())?;
        Ok(Self { table, waiting: Vec::new(), rows: 0 })
    }

    /// Appends a series' histograms and returns its first row.
    pub fn push(&mut self, sid: i32, histograms: &[HistogramSample]) -> Result<u64> {
        let at = self.rows;
        self.rows += histograms.len() as u64;
        self.waiting.extend(histograms.iter().map(|h| (sid, h.clone())));
        while self.waiting.len() >= HISTOGRAM_GROUP_ROWS {
            let group: Vec<_> = self.waiting.drain(..HISTOGRAM_GROUP_ROWS).collect();
            self.table.append_batch(&histogram_arrays(&group))?;
        }
        Ok(at)
    }

    /// The file; `None` without rows.
    pub fn finish(mut self) -> Result<Option<Bytes>> {
        if self.rows == 0 {
            return Ok(None);
        }
        if !self.waiting.is_empty() {
            self.table.append_batch(&histogram_arrays(&self.waiting))?;
        }
        self.table.finish().map(Some)
    }
}

fn histogram_arrays(rows: &[(i32, HistogramSample)]) -> Vec<ArrayRef> {
    type Row = (i32, HistogramSample);
    fn ints(rows: &[Row], f: fn(&Row) -> i32) -> ArrayRef {
        Arc::new(Int32Array::from(rows.iter().map(f).collect::<Vec<_>>()))
    }
    fn longs(rows: &[Row], f: fn(&Row) -> i64) -> ArrayRef {
        Arc::new(Int64Array::from(rows.iter().map(f).collect::<Vec<_>>()))
    }
    fn doubles(rows: &[Row], f: fn(&Row) -> f64) -> ArrayRef {
        Arc::new(Float64Array::from(rows.iter().map(f).collect::<Vec<_>>()))
    }
    fn double_lists(rows: &[Row], f: fn(&Row) -> &Vec<f64>) -> ArrayRef {
        let mut lists = Lists::<f64>::default();
        rows.iter().for_each(|r| lists.push(f(r).iter().copied()));
        lists.finish::<Float64Array>(DataType::Float64, false)
    }
    fn offsets(rows: &[Row], f: fn(&Row) -> &Vec<sextant_model::Span>) -> ArrayRef {
        let mut lists = Lists::<i32>::default();
        rows.iter().for_each(|r| lists.push(f(r).iter().map(|s| s.offset)));
        lists.finish::<Int32Array>(DataType::Int32, false)
    }
    fn lengths(rows: &[Row], f: fn(&Row) -> &Vec<sextant_model::Span>) -> ArrayRef {
        let mut lists = Lists::<i64>::default();
        rows.iter().for_each(|r| lists.push(f(r).iter().map(|s| i64::from(s.length))));
        lists.finish::<Int64Array>(DataType::Int64, false)
    }
    vec![
        ints(rows, |r| r.0),
        longs(rows, |r| r.1.t),
        longs(rows, |r| r.1.start),
        ints(rows, |r| r.1.h.schema),
        Arc::new(BooleanArray::from(rows.iter().map(|r| r.1.h.integer).collect::<Vec<_>>())),
        ints(rows, |r| r.1.h.reset_hint as i32),
        doubles(rows, |r| r.1.h.zero_threshold),
        doubles(rows, |r| r.1.h.zero_count),
        doubles(rows, |r| r.1.h.count),
        doubles(rows, |r| r.1.h.sum),
        offsets(rows, |r| &r.1.h.positive_spans),
        lengths(rows, |r| &r.1.h.positive_spans),
        double_lists(rows, |r| &r.1.h.positive_buckets),
        offsets(rows, |r| &r.1.h.negative_spans),
        lengths(rows, |r| &r.1.h.negative_spans),
        double_lists(rows, |r| &r.1.h.negative_buckets),
        double_lists(rows, |r| &r.1.h.custom_values),
    ]
}

/// Writes `exemplars.parquet` of (series, exemplar) in order of series; `None` without rows.
pub fn write_exemplars(rows: &[(i32, Exemplar)], options: &BlockOptions) -> Result<Option<Bytes>> {
    if rows.is_empty() {
        return Ok(None);
    }
    let b = tables::properties(options.zstd_level)?;
    let b = tables::encoded(b, &["ts"], Encoding::DELTA_BINARY_PACKED);
    let mut table = TableWriter::new(tables::exemplars_schema(), tables::with_statistics(b, "sid").build())?;
    for group in rows.chunks(EXEMPLAR_GROUP_ROWS) {
        let mut labels = Maps::default();
        group.iter().for_each(|(_, e)| labels.push(&e.labels));
        table.append_batch(&[
            Arc::new(Int32Array::from(group.iter().map(|r| r.0).collect::<Vec<_>>())),
            Arc::new(Int64Array::from(group.iter().map(|r| r.1.t).collect::<Vec<_>>())),
            Arc::new(Float64Array::from(group.iter().map(|r| r.1.v).collect::<Vec<_>>())),
            labels.finish(),
        ])?;
    }
    table.finish().map(Some)
}

/// Writes `metadata.parquet`; `None` without rows.
pub fn write_metadata(families: &MetadataTable, options: &BlockOptions) -> Result<Option<Bytes>> {
    if families.is_empty() {
        return Ok(None);
    }
    let mut table =
        TableWriter::new(tables::metadata_schema(), tables::properties(options.zstd_level)?.build())?;
    let (names, rows): (Vec<&str>, Vec<&MetricMetadata>) = families.iter().unzip();
    let column = |texts: Vec<&str>| -> ArrayRef { Arc::new(StringArray::from(texts)) };
    table.append_batch(&[
        column(names),
        column(rows.iter().map(|m| m.metric_type.as_str()).collect()),
        column(rows.iter().map(|m| m.help.as_str()).collect()),
        column(rows.iter().map(|m| m.unit.as_str()).collect()),
    ])?;
    table.finish().map(Some)
}

/// The family that a series' metric belongs to, where the sender did not say: classic histograms and summaries have
/// several names.
pub fn family_of(labels: &Labels, metadata: &MetricMetadata) -> String {
    use sextant_model::MetricType::{GaugeHistogram, Histogram, Summary};
    let name = labels.metric_name();
    let base = match metadata.metric_type {
        Histogram | GaugeHistogram | Summary => {
            ["_bucket", "_count", "_sum", "_created"].iter().find_map(|s| name.strip_suffix(s))
        }
        _ => None,
    };
    base.unwrap_or(name).to_owned()
}
