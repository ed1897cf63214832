//! A row group of the series table in memory: labels as dictionary columns, heads as numbers.

use std::{ops::Range, sync::Arc};

use arrow_array::{
    Array, ArrayRef, DictionaryArray, Float64Array, Int32Array, Int64Array, ListArray, MapArray, RecordBatch,
    StringArray, types::Int32Type,
};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use parquet::{arrow::parquet_to_arrow_schema, file::metadata::ParquetMetaData};
use sextant_model::{Labels, METRIC_NAME, Matcher, MetricMetadata, MetricType};

use super::{
    cache::CacheKey,
    fetch::Objects,
    opened::{Opened, decode_group, row_group_range},
    scale::Scale,
    stats::ReadStats,
    tables::{LABEL_PREFIX, names},
};
use crate::Result;

/// See the module's documentation.
pub struct SeriesGroup {
    /// The columns of the metric name and of frequent labels, in order of label name.
    labels: Vec<(String, DictionaryArray<Int32Type>)>,
    rest: MapArray,
    rest_keys: StringArray,
    rest_values: StringArray,
    min_ts: Int64Array,
    max_ts: Int64Array,
    target: Int32Array,
    n: Int32Array,
    g0: Int32Array,
    enc: Int32Array,
    off: Int64Array,
    ord: Int32Array,
    first: Int64Array,
    base: Int64Array,
    mult: Int64Array,
    div: Int64Array,
    idx: (ListArray, Int32Array),
    xi: (ListArray, Int32Array),
    xv: (ListArray, Float64Array),
    ri: (ListArray, Int32Array),
    rv: (ListArray, Int64Array),
    si: (ListArray, Int32Array),
    sv: (ListArray, Int64Array),
    hn: Int32Array,
    hoff: Int64Array,
    metric_type: DictionaryArray<Int32Type>,
    help: DictionaryArray<Int32Type>,
    unit: DictionaryArray<Int32Type>,
}

impl SeriesGroup {
    /// From the cache, or read.
    pub async fn load(
        objects: &Objects,
        opened: &Opened,
        group: usize,
        stats: &ReadStats,
    ) -> Result<Arc<Self>> {
        let key = CacheKey::Series(objects.meta().id, group as u32);
        if let Some(known) = objects.cache().parsed::<Self>(&key) {
            return Ok(known);
        }
        let range = row_group_range(&opened.series, group);
        // The parsed form is what is worth keeping.
        let object = objects.ranges(names::SERIES, &opened.sums, &[range], false, stats).await?;
        let bad = |e: String| objects.nonsense(names::SERIES, e);
        let schema = dictionary_schema(&opened.series).map_err(bad)?;
        let batch = decode_group(object, &opened.series, Some(schema), group, None, None).map_err(bad)?;
        let bytes = batch.get_array_memory_size();
        let parsed = Arc::new(Self::of(&batch).ok_or_else(|| bad("unexpected columns".into()))?);
        objects.cache().put_parsed(key, parsed.clone(), bytes);
        Ok(parsed)
    }

    fn of(batch: &RecordBatch) -> Option<Self> {
        fn get<T: Clone + 'static>(batch: &RecordBatch, name: &str) -> Option<T> {
            batch.column_by_name(name)?.as_any().downcast_ref::<T>().cloned()
        }
        fn list<T: Clone + 'static>(batch: &RecordBatch, name: &str) -> Option<(ListArray, T)> {
            let lists: ListArray = get(batch, name)?;
            let values = lists.values().as_any().downcast_ref::<T>()?.clone();
            Some((lists, values))
        }
        let mut labels = Vec::new();
        for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
            let label = if field.name() == "name" {
                METRIC_NAME
            } else if let Some(label) = field.name().strip_prefix(LABEL_PREFIX) {
                label
            } else {
                continue;
            };
            let column = column.as_any().downcast_ref::<DictionaryArray<Int32Type>>()?.clone();
            column.values().as_any().downcast_ref::<StringArray>()?;
            labels.push((label.to_owned(), column));
        }
        labels.sort_by(|a, b| a.0.cmp(&b.0));
        let rest: MapArray = get(batch, "labels")?;
        let text = |a: &ArrayRef| a.as_any().downcast_ref::<StringArray>().cloned();
        Some(Self {
            labels,
            rest_keys: text(rest.keys())?,
            rest_values: text(rest.values())?,
            rest,
            min_ts: get(batch, "min_ts")?,
            max_ts: get(batch, "max_ts")?,
            target: get(batch, "target")?,
            n: get(batch, "n")?,
            g0: get(batch, "g0")?,
            enc: get(batch, "enc")?,
            off: get(batch, "off")?,
            ord: get(batch, "ord")?,
            first: get(batch, "first")?,
            base: get(batch, "base")?,
            mult: get(batch, "mult")?,
            div: get(batch, "div")?,
            idx: list(batch, "idx")?,
            xi: list(batch, "xi")?,
            xv: list(batch, "xv")?,
            ri: list(batch, "ri")?,
            rv: list(batch, "rv")?,
            si: list(batch, "si")?,
            sv: list(batch, "sv")?,
            hn: get(batch, "hn")?,
            hoff: get(batch, "hoff")?,
            metric_type: get(batch, "metric_type")?,
            help: get(batch, "help")?,
            unit: get(batch, "unit")?,
        })
    }

    /// Rows.
    pub fn len(&self) -> usize {
        self.n.len()
    }

    /// Times of the first and the last sample, of both kinds.
    pub fn bounds(&self, row: usize) -> (i64, i64) {
        (self.min_ts.value(row), self.max_ts.value(row))
    }

    /// The target of the timestamps; `None` without float samples.
    pub fn target(&self, row: usize) -> Option<u32> {
        if self.target.is_null(row) { None } else { u32::try_from(self.target.value(row)).ok() }
    }

    /// Float samples.
    pub fn samples(&self, row: usize) -> usize {
        usize::try_from(self.n.value(row)).unwrap_or(0)
    }

    /// The position of the first timestamp.
    pub fn first_position(&self, row: usize) -> usize {
        usize::try_from(self.g0.value(row)).unwrap_or(0)
    }

    /// Positions where they are not a run.
    pub fn positions(&self, row: usize) -> Option<&[i32]> {
        (!self.idx.0.is_null(row)).then(|| &self.idx.1.values()[range(&self.idx.0, row)])
    }

    /// The `enc` column.
    pub fn enc(&self, row: usize) -> i32 {
        self.enc.value(row)
    }

    /// First row in the sample table.
    pub fn offset(&self, row: usize) -> u64 {
        u64::try_from(self.off.value(row)).unwrap_or(0)
    }

    /// Histograms: first row and number.
    pub fn histograms(&self, row: usize) -> (u64, u64) {
        (u64::try_from(self.hoff.value(row)).unwrap_or(0), u64::try_from(self.hn.value(row)).unwrap_or(0))
    }

    /// How values are rebuilt.
    pub fn scale(&self, row: usize) -> Scale {
        Scale {
            order: self.ord.value(row),
            first: self.first.value(row),
            base: self.base.value(row),
            mult: self.mult.value(row),
            div: self.div.value(row),
            odd_at: self.xi.1.values()[range(&self.xi.0, row)].to_vec(),
            odd: self.xv.1.values()[range(&self.xv.0, row)].to_vec(),
            drop_at: self.ri.1.values()[range(&self.ri.0, row)].to_vec(),
            drop: self.rv.1.values()[range(&self.rv.0, row)].to_vec(),
        }
    }

    /// From which position on which start timestamp holds.
    pub fn starts(&self, row: usize) -> impl Iterator<Item = (usize, i64)> + '_ {
        let at = &self.si.1.values()[range(&self.si.0, row)];
        let start = &self.sv.1.values()[range(&self.sv.0, row)];
        at.iter().zip(start).map(|(&at, &s)| (usize::try_from(at).unwrap_or(0), s))
    }

    /// The labels of a row; `scratch` is reused.
    pub fn labels(&self, row: usize, scratch: &mut Vec<u8>) -> Labels {
        scratch.clear();
        let mut rest = range(&self.rest, row).peekable();
        for (name, column) in &self.labels {
            while let Some(i) = rest.next_if(|&i| self.rest_keys.value(i) < name.as_str()) {
                put(scratch, self.rest_keys.value(i), self.rest_values.value(i));
            }
            if let Some(value) = text(column, row) {
                put(scratch, name, value);
            }
        }
        for i in rest {
            put(scratch, self.rest_keys.value(i), self.rest_values.value(i));
        }
        Labels::from_trusted_bytes(scratch)
    }

    /// What is known of the series' family.
    pub fn metadata(&self, row: usize) -> Option<MetricMetadata> {
        let metric_type = MetricType::from_name(text(&self.metric_type, row)?)?;
        let of = |column| text(column, row).unwrap_or("").to_owned();
        Some(MetricMetadata { metric_type, help: of(&self.help), unit: of(&self.unit) })
    }

    /// The rows that a matcher accepts: the way without a sidecar.
    pub fn matching(&self, matcher: &Matcher) -> Vec<bool> {
        if let Some((_, column)) = self.labels.iter().find(|(name, _)| *name == matcher.name) {
            let values = column.values().as_any().downcast_ref::<StringArray>();
            let verdicts: Vec<bool> = values
                .map(|v| v.iter().map(|v| matcher.matches(v.unwrap_or(""))).collect())
                .unwrap_or_default();
            let empty = matcher.matches_empty();
            return column
                .keys()
                .iter()
                .map(|key| key.map_or(empty, |k| verdicts.get(k as usize).copied().unwrap_or(false)))
                .collect();
        }
        let value = |row| range(&self.rest, row).find(|&i| self.rest_keys.value(i) == matcher.name);
        (0..self.len())
            .map(|row| matcher.matches(value(row).map_or("", |i| self.rest_values.value(i))))
            .collect()
    }
}

fn text(column: &DictionaryArray<Int32Type>, row: usize) -> Option<&str> {
    let values = column.values().as_any().downcast_ref::<StringArray>()?;
    Some(values.value(column.key(row)?))
}

/// Lists and maps have offsets alike.
trait Offsets {
    fn offsets(&self) -> &[i32];
}

impl Offsets for ListArray {
    fn offsets(&self) -> &[i32] {
        self.value_offsets()
    }
}

impl Offsets for MapArray {
    fn offsets(&self) -> &[i32] {
        self.value_offsets()
    }
}

fn range(lists: &impl Offsets, row: usize) -> Range<usize> {
    let offsets = lists.offsets();
    offsets[row] as usize..offsets[row + 1] as usize
}

/// The table's schema with dictionaries for the text columns.
fn dictionary_schema(metadata: &ParquetMetaData) -> Result<SchemaRef, String> {
    let plain =
        parquet_to_arrow_schema(metadata.file_metadata().schema_descr(), None).map_err(|e| e.to_string())?;
    let dictionary = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    let fields: Vec<_> = plain
        .fields()
        .iter()
        .map(|f| match f.data_type() {
            DataType::Utf8 => Arc::new(Field::new(f.name(), dictionary.clone(), f.is_nullable())),
            _ => f.clone(),
        })
        .collect();
    Ok(Arc::new(Schema::new(fields)))
}

/// Appends a label in the canonical encoding.
fn put(out: &mut Vec<u8>, name: &str, value: &str) {
    for s in [name, value] {
        let mut n = s.len();
        while n >= 0x80 {
            out.push(n as u8 | 0x80);
            n >>= 7;
        }
        out.push(n as u8);
        out.extend_from_slice(s.as_bytes());
    }
}
