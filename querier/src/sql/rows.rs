//! Series as rows: Arrow arrays for the columns of both tables.

use std::sync::Arc;

use arrow_array::{
    ArrayRef, BooleanArray, DictionaryArray, Float64Array, Int32Array, ListArray, MapArray, RecordBatch,
    RecordBatchOptions, StringArray, StructArray, TimestampMillisecondArray, builder::StringBuilder,
};
use arrow_buffer::{NullBuffer, OffsetBuffer};
use arrow_schema::{DataType, Field, SchemaRef};
use sextant_model::{HistogramSample, METRIC_NAME, NO_START, SeriesSet};

use super::tables::{Column, bucket_fields, histogram_fields, map_entry_fields};
use crate::error::QueryError;

/// About how many rows a batch has.
const BATCH_ROWS: usize = 16_384;

/// The samples of a set, a row each, in order of series and time.
pub fn sample_batches(
    set: &SeriesSet,
    columns: &[Column],
    schema: &SchemaRef,
) -> Result<Vec<RecordBatch>, QueryError> {
    let mut batches = Vec::new();
    let mut from = 0;
    while from < set.len() {
        let mut to = from;
        let mut rows = 0;
        while to < set.len() && (rows == 0 || rows + samples_of(set, to) <= BATCH_ROWS) {
            rows += samples_of(set, to);
            to += 1;
        }
        batches.push(sample_batch(set, from..to, rows, columns, schema)?);
        from = to;
    }
    Ok(batches)
}

fn sample_batch(
    set: &SeriesSet,
    series: std::ops::Range<usize>,
    rows: usize,
    columns: &[Column],
    schema: &SchemaRef,
) -> Result<RecordBatch, QueryError> {
    let series: Vec<usize> = series.collect();
    let counts: Vec<usize> = series.iter().map(|&i| samples_of(set, i)).collect();
    let merged: Vec<RowRef<'_>> = series.iter().flat_map(|&i| rows_of(set, i)).collect();
    let start_time = |r: &RowRef<'_>| Some(r.start).filter(|&s| s != NO_START);
    let arrays = columns
        .iter()
        .map(|c| -> Result<ArrayRef, QueryError> {
            Ok(match c {
                Column::Time => time_array(merged.iter().map(|r| r.t)),
                Column::Value => Arc::new(Float64Array::from_iter(merged.iter().map(|r| r.v))),
                Column::StartTime => Arc::new(
                    TimestampMillisecondArray::from_iter(merged.iter().map(start_time)).with_timezone("UTC"),
                ),
                Column::Histogram => histogram_array(&merged),
                other => series_column(set, other, &series, &counts)?,
            })
        })
        .collect::<Result<Vec<_>, _>>()?;
    batch(schema, arrays, rows)
}

/// A batch, also of no column.
pub fn batch(schema: &SchemaRef, arrays: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch, QueryError> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(schema.clone(), arrays, &options)
        .map_err(|e| QueryError::Internal(e.to_string()))
}

struct RowRef<'a> {
    t: i64,
    start: i64,
    v: Option<f64>,
    h: Option<&'a HistogramSample>,
}

fn samples_of(set: &SeriesSet, i: usize) -> usize {
    set.floats(i).0.len() + set.histograms(i).len()
}

/// A series' samples of both kinds in order of time.
fn rows_of(set: &SeriesSet, i: usize) -> Vec<RowRef<'_>> {
    let (t, v) = set.floats(i);
    let starts = set.starts(i);
    let mut rows: Vec<RowRef<'_>> = t
        .iter()
        .zip(v)
        .enumerate()
        .map(|(k, (&t, &v))| RowRef {
            t,
            start: starts.get(k).copied().unwrap_or(NO_START),
            v: Some(v),
            h: None,
        })
        .collect();
    let histograms = set.histograms(i);
    if !histograms.is_empty() {
        rows.extend(histograms.iter().map(|h| RowRef { t: h.t, start: h.start, v: None, h: Some(h) }));
        rows.sort_by_key(|r| r.t);
    }
    rows
}

/// A column of times.
pub fn time_array(times: impl Iterator<Item = i64>) -> ArrayRef {
    Arc::new(TimestampMillisecondArray::from_iter_values(times).with_timezone("UTC"))
}

/// A column that has one value per series, repeated `counts` times.
pub fn series_column(
    set: &SeriesSet,
    column: &Column,
    series: &[usize],
    counts: &[usize],
) -> Result<ArrayRef, QueryError> {
    match column {
        Column::Name => Ok(label_array(set, METRIC_NAME, series, counts)),
        Column::Label(name) => Ok(label_array(set, name, series, counts)),
        Column::Labels => labels_map(set, series, counts),
        other => Err(QueryError::Internal(format!("column {other:?} is not of this table"))),
    }
}

fn label_array(set: &SeriesSet, name: &str, series: &[usize], counts: &[usize]) -> ArrayRef {
    let mut index = std::collections::HashMap::<&str, i32>::new();
    let mut values: Vec<&str> = Vec::new();
    let mut keys = Vec::with_capacity(counts.iter().sum());
    for (&i, &n) in series.iter().zip(counts) {
        let key = set.labels[i].get(name).map(|v| {
            *index.entry(v).or_insert_with(|| {
                values.push(v);
                values.len() as i32 - 1
            })
        });
        keys.extend(std::iter::repeat_n(key, n));
    }
    Arc::new(DictionaryArray::new(Int32Array::from(keys), Arc::new(StringArray::from(values))))
}

fn labels_map(set: &SeriesSet, series: &[usize], counts: &[usize]) -> Result<ArrayRef, QueryError> {
    let (mut names, mut values) = (StringBuilder::new(), StringBuilder::new());
    let mut offsets = vec![0i32];
    let mut total = 0i32;
    for (&i, &n) in series.iter().zip(counts) {
        for _ in 0..n {
            for (name, value) in set.labels[i].iter().filter(|(n, _)| *n != METRIC_NAME) {
                names.append_value(name);
                values.append_value(value);
                total += 1;
            }
            offsets.push(total);
        }
    }
    let entries =
        StructArray::new(map_entry_fields(), vec![Arc::new(names.finish()), Arc::new(values.finish())], None);
    let field = Arc::new(Field::new("entries", DataType::Struct(map_entry_fields()), false));
    let map = MapArray::try_new(field, OffsetBuffer::new(offsets.into()), entries, None, false)
        .map_err(|e| QueryError::Internal(e.to_string()))?;
    Ok(Arc::new(map))
}

fn histogram_array(rows: &[RowRef<'_>]) -> ArrayRef {
    let of = |f: fn(&HistogramSample) -> f64| -> ArrayRef {
        Arc::new(Float64Array::from_iter_values(rows.iter().map(|r| r.h.map_or(0.0, f))))
    };
    let (mut lower, mut upper, mut count, mut offsets) = (Vec::new(), Vec::new(), Vec::new(), vec![0i32]);
    for row in rows {
        if let Some(h) = row.h {
            for b in h.h.all_buckets() {
                lower.push(b.lower);
                upper.push(b.upper);
                count.push(b.count);
            }
        }
        offsets.push(lower.len() as i32);
    }
    let buckets = StructArray::new(
        bucket_fields(),
        vec![
            Arc::new(Float64Array::from(lower)),
            Arc::new(Float64Array::from(upper)),
            Arc::new(Float64Array::from(count)),
        ],
        None,
    );
    let bucket = Arc::new(Field::new("item", DataType::Struct(bucket_fields()), false));
    let buckets = ListArray::new(bucket, OffsetBuffer::new(offsets.into()), Arc::new(buckets), None);
    let schema = Int32Array::from_iter_values(rows.iter().map(|r| r.h.map_or(0, |h| h.h.schema)));
    let present = BooleanArray::from_iter(rows.iter().map(|r| Some(r.h.is_some())));
    Arc::new(StructArray::new(
        histogram_fields(),
        vec![
            of(|h| h.h.count),
            of(|h| h.h.sum),
            Arc::new(schema),
            of(|h| h.h.zero_threshold),
            of(|h| h.h.zero_count),
            Arc::new(buckets),
        ],
        Some(NullBuffer::new(present.values().clone())),
    ))
}
