//! Writes the series and grid tables once everything about the series is known.

use std::{collections::HashSet, sync::Arc};

use arrow_array::{ArrayRef, Float64Array, Int32Array, Int64Array, StringArray};
use arrow_schema::DataType;
use bytes::Bytes;
use parquet::{basic::Encoding, file::properties::WriterPropertiesBuilder};
use sextant_model::{METRIC_NAME, MetricMetadata};

use super::terms::Terms;
use crate::{
    BlockOptions, Result,
    block::{
        lists::{Lists, Maps},
        scale::{Class, Scale},
        tables::{self, SERIES_GROUP_ROWS, TableWriter},
        times::{Places, TimeRef, Window},
    },
};

/// One row of the series table before positions are known.
pub struct SeriesRow {
    pub min_ts: i64,
    pub max_ts: i64,
    /// Where the timestamps of float samples are; `None` without any.
    pub time: Option<TimeRef>,
    pub n: u32,
    pub class: Class,
    /// First row within the class.
    pub off: u64,
    pub scale: Scale,
    /// From which position on which start timestamp holds.
    pub starts: Vec<(i32, i64)>,
    pub hn: u32,
    pub hoff: u64,
    /// Index of the metadata, if any.
    pub metadata: Option<u32>,
}

/// Timestamps of one row group of the grid table: what a read of one series has to decode.
const GRID_GROUP_TIMES: usize = 256 << 10;

/// Chooses the labels that become columns, in order of name.
pub fn label_columns(terms: &Terms, options: &BlockOptions) -> Vec<(String, u32)> {
    let least = (terms.series() as f64 * options.label_column_share).ceil().max(1.0) as usize;
    let mut frequent: Vec<(usize, &str, u32)> = terms
        .sorted_names()
        .into_iter()
        .filter(|(name, _)| *name != METRIC_NAME)
        .map(|(name, id)| (terms.frequency(id), name, id))
        .filter(|(n, ..)| *n >= least)
        .collect();
    frequent.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(b.1)));
    // Engines that ignore case could not tell two such columns apart.
    let mut taken = HashSet::new();
    frequent.retain(|(_, name, _)| taken.insert(name.to_lowercase()));
    frequent.truncate(options.label_columns_max);
    let mut columns: Vec<_> = frequent.into_iter().map(|(_, name, id)| (name.to_owned(), id)).collect();
    columns.sort();
    columns
}

fn properties(options: &BlockOptions, labels: &[(String, u32)]) -> Result<WriterPropertiesBuilder> {
    let mut b = tables::properties(options.zstd_level)?;
    for column in ["off", "hoff"] {
        b = tables::encoded(b, &[column], Encoding::DELTA_BINARY_PACKED);
    }
    for column in ["first", "base"] {
        b = tables::encoded(b, &[column], Encoding::BYTE_STREAM_SPLIT);
    }
    for column in ["idx", "xi", "ri", "si"] {
        b = tables::encoded(b, &[column, "list", "element"], Encoding::DELTA_BINARY_PACKED);
    }
    for (label, _) in labels {
        b = tables::with_statistics(b, &format!("{}{label}", tables::LABEL_PREFIX));
    }
    for column in ["name", "min_ts", "max_ts", "target"] {
        b = tables::with_statistics(b, column);
    }
    Ok(b)
}

/// Writes `series.parquet`. `class_rows` are the first rows of the classes.
pub fn write_series(
    terms: &Terms,
    rows: &[SeriesRow],
    places: &Places,
    class_rows: &[u64; 6],
    metadata: &[MetricMetadata],
    options: &BlockOptions,
) -> Result<Bytes> {
    let labels = label_columns(terms, options);
    let names: Vec<String> = labels.iter().map(|(name, _)| name.clone()).collect();
    let mut table = TableWriter::new(tables::series_schema(&names), properties(options, &labels)?.build())?;
    for (i, group) in rows.chunks(SERIES_GROUP_ROWS).enumerate() {
        let mut columns = label_arrays(terms, i * SERIES_GROUP_ROWS, group.len(), &labels);
        columns.extend(metadata_arrays(group, metadata));
        columns.extend(head_arrays(group, places, class_rows));
        table.append_batch(&columns)?;
    }
    table.finish()
}

fn label_arrays(terms: &Terms, first: usize, n: usize, labels: &[(String, u32)]) -> Vec<ArrayRef> {
    let mut texts: Vec<Vec<Option<&str>>> = vec![vec![None; n]; labels.len() + 1];
    let mut rest = Maps::default();
    // Which column a label name has; 0 is the metric name's.
    let names = terms.sorted_names();
    let mut column_of = vec![usize::MAX; names.len()];
    for (name, id) in names {
        if name == METRIC_NAME {
            column_of[id as usize] = 0;
        }
    }
    for (i, (_, id)) in labels.iter().enumerate() {
        column_of[*id as usize] = i + 1;
    }
    for sid in first..first + n {
        let mut others = Vec::new();
        for &(name, value) in terms.pairs(sid) {
            match column_of[name as usize] {
                usize::MAX => others.push((terms.name(name), terms.value(name, value))),
                column => texts[column][sid - first] = Some(terms.value(name, value)),
            }
        }
        rest.push(others);
    }
    let mut columns: Vec<ArrayRef> =
        texts.into_iter().map(|t| Arc::new(StringArray::from(t)) as ArrayRef).collect();
    columns.push(rest.finish());
    columns
}

fn metadata_arrays(rows: &[SeriesRow], metadata: &[MetricMetadata]) -> Vec<ArrayRef> {
    let of = |row: &SeriesRow| row.metadata.and_then(|i| metadata.get(i as usize));
    let column = |f: fn(&MetricMetadata) -> &str| -> ArrayRef {
        Arc::new(StringArray::from(rows.iter().map(|r| of(r).map(f)).collect::<Vec<_>>()))
    };
    vec![column(|m| m.metric_type.as_str()), column(|m| &m.help), column(|m| &m.unit)]
}

fn head_arrays(rows: &[SeriesRow], places: &Places, class_rows: &[u64; 6]) -> Vec<ArrayRef> {
    fn longs<'a>(rows: &'a [SeriesRow], f: impl FnMut(&'a SeriesRow) -> i64) -> ArrayRef {
        Arc::new(Int64Array::from(rows.iter().map(f).collect::<Vec<_>>()))
    }
    fn ints<'a>(rows: &'a [SeriesRow], f: impl FnMut(&'a SeriesRow) -> i32) -> ArrayRef {
        Arc::new(Int32Array::from(rows.iter().map(f).collect::<Vec<_>>()))
    }
    let mut target = Vec::with_capacity(rows.len());
    let mut g0 = Vec::with_capacity(rows.len());
    let mut idx = Lists::<i32>::default();
    for row in rows {
        match row.time.map(|t| places.place(t, row.n as usize)) {
            Some((t, first, positions)) => {
                target.push(Some(t as i32));
                g0.push(first as i32);
                idx.push_or_null(positions.unwrap_or_default().iter().copied());
            }
            None => {
                target.push(None);
                g0.push(0);
                idx.push_or_null([]);
            }
        }
    }
    let list_i = |f: fn(&SeriesRow) -> Vec<i32>| {
        let mut lists = Lists::<i32>::default();
        rows.iter().for_each(|r| lists.push_or_null(f(r)));
        lists.finish::<Int32Array>(DataType::Int32, true)
    };
    let list_l = |f: fn(&SeriesRow) -> Vec<i64>| {
        let mut lists = Lists::<i64>::default();
        rows.iter().for_each(|r| lists.push_or_null(f(r)));
        lists.finish::<Int64Array>(DataType::Int64, true)
    };
    let mut odd = Lists::<f64>::default();
    rows.iter().for_each(|r| odd.push_or_null(r.scale.odd.iter().copied()));
    vec![
        longs(rows, |r| r.min_ts),
        longs(rows, |r| r.max_ts),
        Arc::new(Int32Array::from(target)),
        ints(rows, |r| r.n as i32),
        Arc::new(Int32Array::from(g0)),
        ints(rows, |r| r.class.enc()),
        longs(
            rows,
            |r| if r.class == Class::None { 0 } else { (class_rows[r.class as usize] + r.off) as i64 },
        ),
        ints(rows, |r| r.scale.order),
        longs(rows, |r| r.scale.first),
        longs(rows, |r| r.scale.base),
        longs(rows, |r| r.scale.mult),
        longs(rows, |r| r.scale.div),
        idx.finish::<Int32Array>(DataType::Int32, true),
        list_i(|r| r.scale.odd_at.clone()),
        odd.finish::<Float64Array>(DataType::Float64, true),
        list_i(|r| r.scale.drop_at.clone()),
        list_l(|r| r.scale.drop.clone()),
        list_i(|r| r.starts.iter().map(|s| s.0).collect()),
        list_l(|r| r.starts.iter().map(|s| s.1).collect()),
        ints(rows, |r| r.hn as i32),
        longs(rows, |r| r.hoff as i64),
    ]
}

/// Writes `grid.parquet`. A target's windows are in one row group.
pub fn write_grid(windows: &[Window], options: &BlockOptions) -> Result<Bytes> {
    let b = tables::properties(options.zstd_level)?;
    let b = tables::encoded(b, &["jitter", "list", "element"], Encoding::BYTE_STREAM_SPLIT);
    let b = tables::encoded(b, &["t0"], Encoding::DELTA_BINARY_PACKED);
    let mut table = TableWriter::new(tables::grid_schema(), tables::with_statistics(b, "target").build())?;
    let mut rest = windows;
    while !rest.is_empty() {
        let mut times = 0;
        let mut end = 0;
        while let Some(w) = rest.get(end)
            && (times < GRID_GROUP_TIMES
                || rest.get(end.wrapping_sub(1)).is_some_and(|p| p.target == w.target))
        {
            times += w.jitter.len();
            end += 1;
        }
        let (group, tail) = rest.split_at(end);
        rest = tail;
        let mut jitter = Lists::<i32>::default();
        group.iter().for_each(|w| jitter.push(w.jitter.iter().copied()));
        table.append_batch(&[
            Arc::new(Int32Array::from(group.iter().map(|w| w.target as i32).collect::<Vec<_>>())),
            Arc::new(Int32Array::from(group.iter().map(|w| w.p0 as i32).collect::<Vec<_>>())),
            Arc::new(Int64Array::from(group.iter().map(|w| w.t0).collect::<Vec<_>>())),
            Arc::new(Int64Array::from(group.iter().map(|w| w.dt).collect::<Vec<_>>())),
            jitter.finish::<Int32Array>(DataType::Int32, false),
        ])?;
    }
    table.finish()
}
