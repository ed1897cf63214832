//! The form in which values travel between PromQL operators of a plan: Arrow columns over the same buffers.
//!
//! | kind | columns |
//! |---|---|
//! | series | `series` u32, `drop_name` bool, `time` list of i64, `value` list of f64, `start` list of i64, `h_time`, `h_start` lists of i64, `histogram` list of binary |
//! | vector | `series` u32, `drop_name` bool, `value` list of f64 (a value a step), `present` list of u64 (a bit a step), `histogram` list of binary |
//! | scalar | `value` list of f64, one row |
//! | string | `text`, one row |
//!
//! `series` is an id in the query's [`LabelTable`]: label sets are numbers until the answer is written. Histograms are in the
//! model's encoding, an empty one where a cell has none; lists that no row uses are empty.

use std::sync::{Arc, LazyLock};

use arrow_array::{
    Array, ArrayRef, ArrowPrimitiveType, BinaryArray, BooleanArray, Float64Array, Int64Array, ListArray,
    PrimitiveArray, RecordBatch, StringArray, UInt32Array, UInt64Array, builder::BinaryBuilder,
};
use arrow_buffer::{OffsetBuffer, ScalarBuffer};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use parking_lot::RwLock;
use sextant_model::{Histogram, HistogramSample, Labels, SeriesSet};
use sextant_promql_eval::{Node, Operator, RawSeries, Scalars, StepBlock, Steps, Value};

use crate::error::QueryError;

/// The label sets of one query; a label set's id is its place.
#[derive(Debug, Default)]
pub struct LabelTable(RwLock<Vec<Labels>>);

impl LabelTable {
    /// Takes label sets in; they get consecutive ids from the one returned.
    fn extend(&self, labels: Vec<Labels>) -> u32 {
        let mut table = self.0.write();
        let first = table.len() as u32;
        table.extend(labels);
        first
    }

    fn get(&self, ids: &[u32]) -> Result<Vec<Labels>, QueryError> {
        let table = self.0.read();
        ids.iter()
            .map(|&id| table.get(id as usize).cloned().ok_or_else(|| internal("an id without labels")))
            .collect()
    }
}

/// What kind of value a node gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ValueKind {
    /// Raw samples.
    Series,
    /// An instant vector per step.
    Vector,
    /// A number per step.
    Scalar,
    /// A string.
    String,
}

/// What kind of value a node gives.
pub fn kind_of(node: &Node) -> ValueKind {
    match &node.operator {
        _ if node.gives_series() => ValueKind::Series,
        Operator::Text(_) => ValueKind::String,
        Operator::Broadcast => node.children.first().map_or(ValueKind::Vector, |c| kind_of(c)),
        _ if node.gives_scalar() => ValueKind::Scalar,
        _ => ValueKind::Vector,
    }
}

fn list_of(item: DataType) -> DataType {
    DataType::List(Arc::new(Field::new("item", item, false)))
}

fn schema_of(fields: &[(&str, DataType)]) -> SchemaRef {
    Arc::new(Schema::new(fields.iter().map(|(n, t)| Field::new(*n, t.clone(), false)).collect::<Vec<_>>()))
}

static SERIES: LazyLock<SchemaRef> = LazyLock::new(|| {
    schema_of(&[
        ("series", DataType::UInt32),
        ("drop_name", DataType::Boolean),
        ("time", list_of(DataType::Int64)),
        ("value", list_of(DataType::Float64)),
        ("start", list_of(DataType::Int64)),
        ("h_time", list_of(DataType::Int64)),
        ("h_start", list_of(DataType::Int64)),
        ("histogram", list_of(DataType::Binary)),
    ])
});
static VECTOR: LazyLock<SchemaRef> = LazyLock::new(|| {
    schema_of(&[
        ("series", DataType::UInt32),
        ("drop_name", DataType::Boolean),
        ("value", list_of(DataType::Float64)),
        ("present", list_of(DataType::UInt64)),
        ("histogram", list_of(DataType::Binary)),
    ])
});
static SCALAR: LazyLock<SchemaRef> = LazyLock::new(|| schema_of(&[("value", list_of(DataType::Float64))]));
static STRING: LazyLock<SchemaRef> = LazyLock::new(|| schema_of(&[("text", DataType::Utf8)]));

impl ValueKind {
    /// The kind's columns.
    pub fn schema(self) -> SchemaRef {
        match self {
            Self::Series => SERIES.clone(),
            Self::Vector => VECTOR.clone(),
            Self::Scalar => SCALAR.clone(),
            Self::String => STRING.clone(),
        }
    }
}

fn internal(what: &str) -> QueryError {
    QueryError::Internal(format!("batch between operators: {what}"))
}

fn list(offsets: Vec<i32>, items: ArrayRef) -> ArrayRef {
    let field = Arc::new(Field::new("item", items.data_type().clone(), false));
    Arc::new(ListArray::new(field, OffsetBuffer::new(offsets.into()), items, None))
}

fn even_offsets(rows: usize, width: usize) -> Vec<i32> {
    (0..=rows).map(|i| (i * width) as i32).collect()
}

fn offsets_of(offsets: &[u32]) -> Vec<i32> {
    offsets.iter().map(|&o| o as i32).collect()
}

/// A value as a batch.
pub fn to_batch(value: Value, table: &LabelTable) -> Result<RecordBatch, QueryError> {
    let (schema, columns): (SchemaRef, Vec<ArrayRef>) = match value {
        Value::Series(raw) => {
            let (set, drop_name) = whole(raw);
            let n = set.len();
            if set.t.len() > i32::MAX as usize {
                return Err(QueryError::limit("samples", "max_query_samples", i32::MAX as usize));
            }
            let first = table.extend(set.labels);
            let no_offsets = || vec![0i32; n + 1];
            let float_offsets = if set.offsets.is_empty() { no_offsets() } else { offsets_of(&set.offsets) };
            let start_offsets = if set.start.is_empty() { no_offsets() } else { float_offsets.clone() };
            let h_offsets = if set.h_offsets.is_empty() { no_offsets() } else { offsets_of(&set.h_offsets) };
            let mut encoded = BinaryBuilder::new();
            let mut buf = Vec::new();
            for h in &set.h {
                buf.clear();
                h.h.encode(&mut buf);
                encoded.append_value(&buf);
            }
            let h_time = Int64Array::from_iter_values(set.h.iter().map(|h| h.t));
            let h_start = Int64Array::from_iter_values(set.h.iter().map(|h| h.start));
            let drop: BooleanArray =
                (0..n).map(|i| Some(drop_name.get(i).copied().unwrap_or(false))).collect();
            (
                SERIES.clone(),
                vec![
                    Arc::new(UInt32Array::from_iter_values(first..first + n as u32)),
                    Arc::new(drop),
                    list(float_offsets.clone(), Arc::new(Int64Array::from(set.t))),
                    list(float_offsets, Arc::new(Float64Array::from(set.v))),
                    list(start_offsets, Arc::new(Int64Array::from(set.start))),
                    list(h_offsets.clone(), Arc::new(h_time)),
                    list(h_offsets.clone(), Arc::new(h_start)),
                    list(h_offsets, Arc::new(encoded.finish())),
                ],
            )
        }
        Value::Vector(block) => {
            let (n, steps) = (block.len(), block.steps);
            let first = table.extend(block.labels);
            let (h_offsets, histograms) = match block.histograms {
                None => (vec![0; n + 1], BinaryArray::from_iter_values(std::iter::empty::<&[u8]>())),
                Some(cells) => {
                    let mut encoded = BinaryBuilder::new();
                    let mut buf = Vec::new();
                    for h in &cells {
                        buf.clear();
                        if let Some(h) = h {
                            h.encode(&mut buf);
                        }
                        encoded.append_value(&buf);
                    }
                    (even_offsets(n, steps.count), encoded.finish())
                }
            };
            (
                VECTOR.clone(),
                vec![
                    Arc::new(UInt32Array::from_iter_values(first..first + n as u32)),
                    Arc::new(BooleanArray::from(block.drop_name)),
                    list(even_offsets(n, steps.count), Arc::new(Float64Array::from(block.values))),
                    list(even_offsets(n, steps.words()), Arc::new(UInt64Array::from(block.present))),
                    list(h_offsets, Arc::new(histograms)),
                ],
            )
        }
        Value::Scalar(s) => (
            SCALAR.clone(),
            vec![list(even_offsets(1, s.values.len()), Arc::new(Float64Array::from(s.values)))],
        ),
        Value::String(s) => (STRING.clone(), vec![Arc::new(StringArray::from(vec![s.as_ref()]))]),
    };
    RecordBatch::try_new(schema, columns).map_err(|e| internal(&e.to_string()))
}

/// Offsets of a list column's rows, from 0, and the list's items that they mean.
struct Items<T> {
    offsets: Vec<u32>,
    from: usize,
    to: usize,
    values: T,
}

/// Takes a list column apart; nothing else holds it then, unless the batch was cloned.
fn items<T: Clone + 'static>(column: ArrayRef) -> Result<Items<T>, QueryError> {
    let list: ListArray = owned(column)?;
    let (_, offsets, values, _) = list.into_parts();
    let (from, to) = (offsets[0] as usize, offsets[offsets.len() - 1] as usize);
    let offsets = offsets.iter().map(|&o| o as u32 - from as u32).collect();
    Ok(Items { offsets, from, to, values: owned(values)? })
}

fn owned<T: Clone + 'static>(column: ArrayRef) -> Result<T, QueryError> {
    column.as_any().downcast_ref::<T>().cloned().ok_or_else(|| internal("a column of another type"))
}

impl<P: ArrowPrimitiveType> Items<PrimitiveArray<P>> {
    /// The items' memory itself where nothing else holds it and it is whole, else a copy of the part.
    fn take(self) -> Vec<P::Native> {
        let (_, buffer, _) = self.values.into_parts();
        if self.from > 0 || self.to < buffer.len() {
            return buffer[self.from..self.to].to_vec();
        }
        buffer.into_inner().into_vec().unwrap_or_else(|b| ScalarBuffer::<P::Native>::from(b).to_vec())
    }
}

/// A batch as a value; `steps` is the grid of the node that made it.
pub fn from_batch(
    batch: RecordBatch,
    kind: ValueKind,
    steps: Steps,
    table: &LabelTable,
) -> Result<Value, QueryError> {
    let (_, columns, _) = batch.into_parts();
    let mut columns = columns.into_iter();
    let mut next = || columns.next().ok_or_else(|| internal("a column is missing"));
    Ok(match kind {
        ValueKind::Series => {
            let ids: UInt32Array = owned(next()?)?;
            let drop: BooleanArray = owned(next()?)?;
            let t = items::<Int64Array>(next()?)?;
            let v = items::<Float64Array>(next()?)?;
            let start = items::<Int64Array>(next()?)?;
            let h_time = items::<Int64Array>(next()?)?;
            let h_start = items::<Int64Array>(next()?)?;
            let encoded = items::<BinaryArray>(next()?)?;
            let h = (h_time.from..h_time.to)
                .map(|i| {
                    Ok(HistogramSample {
                        t: h_time.values.value(i),
                        start: h_start.values.value(i),
                        h: decode(encoded.values.value(i))?,
                    })
                })
                .collect::<Result<Vec<_>, QueryError>>()?;
            let set = SeriesSet {
                labels: table.get(ids.values())?,
                offsets: t.offsets.clone(),
                t: t.take(),
                v: v.take(),
                start: start.take(),
                h_offsets: if h.is_empty() { Vec::new() } else { h_time.offsets },
                h,
            };
            let drop_name: Arc<[bool]> =
                if drop.true_count() == 0 { Arc::default() } else { drop.values().iter().collect() };
            Value::Series(RawSeries::with_dropped_names(set, drop_name))
        }
        ValueKind::Vector => {
            let ids: UInt32Array = owned(next()?)?;
            let drop: BooleanArray = owned(next()?)?;
            let values = items::<Float64Array>(next()?)?;
            let present = items::<UInt64Array>(next()?)?;
            let encoded = items::<BinaryArray>(next()?)?;
            let histograms = if encoded.from == encoded.to {
                None
            } else {
                let cell = |i| {
                    let bytes: &[u8] = encoded.values.value(i);
                    if bytes.is_empty() { Ok(None) } else { decode(bytes).map(|h| Some(Arc::new(h))) }
                };
                Some((encoded.from..encoded.to).map(cell).collect::<Result<Vec<_>, QueryError>>()?)
            };
            Value::Vector(StepBlock {
                steps,
                labels: table.get(ids.values())?,
                drop_name: drop.values().iter().collect(),
                values: values.take(),
                present: present.take(),
                histograms,
            })
        }
        ValueKind::Scalar => Value::Scalar(Scalars { steps, values: items::<Float64Array>(next()?)?.take() }),
        ValueKind::String => {
            let text: StringArray = owned(next()?)?;
            Value::String(text.iter().next().flatten().unwrap_or("").into())
        }
    })
}

fn decode(mut bytes: &[u8]) -> Result<Histogram, QueryError> {
    Histogram::decode(&mut bytes).map_err(|e| internal(&e.to_string()))
}

/// Puts values of one kind behind each other.
pub fn concat(values: Vec<Value>, kind: ValueKind, steps: Steps) -> Result<Value, QueryError> {
    let mut values = values.into_iter();
    let first = values.next();
    Ok(match kind {
        ValueKind::Vector => {
            let mut all = StepBlock::new(steps);
            for value in first.into_iter().chain(values) {
                let Value::Vector(block) = value else { return Err(internal("not a vector")) };
                all.append(block);
            }
            Value::Vector(all)
        }
        ValueKind::Series => {
            let rest: Vec<Value> = values.collect();
            match first {
                Some(only) if rest.is_empty() => only,
                first => Value::Series(concat_series(first.into_iter().chain(rest))?),
            }
        }
        ValueKind::Scalar | ValueKind::String => first.ok_or_else(|| internal("no value"))?,
    })
}

fn concat_series(values: impl Iterator<Item = Value>) -> Result<RawSeries, QueryError> {
    let mut set = SeriesSet::new();
    let mut drop_name = Vec::new();
    let mut buf = sextant_model::SeriesBuf::default();
    for value in values {
        let Value::Series(raw) = value else { return Err(internal("not raw samples")) };
        for i in raw.rows.clone() {
            copy_series(&raw.set, i, &mut buf);
            set.push(raw.set.labels[i].clone(), &buf);
            drop_name.push(raw.drops_name(i));
        }
    }
    let drop_name = if drop_name.contains(&true) { drop_name.into() } else { Arc::default() };
    Ok(RawSeries::with_dropped_names(set, drop_name))
}

fn copy_series(set: &SeriesSet, i: usize, buf: &mut sextant_model::SeriesBuf) {
    buf.clear();
    let (t, v) = set.floats(i);
    buf.t.extend_from_slice(t);
    buf.v.extend_from_slice(v);
    buf.start.extend_from_slice(set.starts(i));
    buf.h.extend_from_slice(set.histograms(i));
}

/// The series that are meant, as a set of their own: without a copy where they are all of it and nothing else holds it.
fn whole(raw: RawSeries) -> (SeriesSet, Arc<[bool]>) {
    if raw.len() == raw.set.len() {
        return (Arc::unwrap_or_clone(raw.set), raw.drop_name);
    }
    let mut set = SeriesSet::new();
    let mut buf = sextant_model::SeriesBuf::default();
    for i in raw.rows.clone() {
        copy_series(&raw.set, i, &mut buf);
        set.push(raw.set.labels[i].clone(), &buf);
    }
    let drop_name = if raw.drop_name.is_empty() { raw.drop_name } else { raw.drop_name[raw.rows].into() };
    (set, drop_name)
}

#[cfg(test)]
mod tests {
    use sextant_model::SeriesBuf;

    use super::*;

    #[test]
    fn series_and_vectors_come_back_whole_and_sliced() {
        let table = LabelTable::default();
        let mut set = SeriesSet::new();
        let h = Histogram { count: 3.0, sum: 1.5, schema: 2, ..Default::default() };
        for i in 0..3i64 {
            let labels = Labels::from_pairs([("a", i.to_string())]).unwrap();
            let mut buf = SeriesBuf { t: vec![i, i + 1], v: vec![0.5, f64::NAN], ..Default::default() };
            if i == 1 {
                buf.h.push(HistogramSample { t: 9, start: 1, h: h.clone() });
            }
            set.push(labels, &buf);
        }
        let batch = to_batch(Value::Series(RawSeries::new(set.clone())), &table).unwrap();
        for (from, len) in [(0, 3), (1, 2), (2, 1)] {
            let back =
                from_batch(batch.slice(from, len), ValueKind::Series, Steps::instant(0), &table).unwrap();
            let Value::Series(raw) = back else { panic!() };
            assert_eq!(raw.set.len(), len);
            for i in 0..len {
                assert_eq!(raw.set.labels[i], set.labels[from + i]);
                assert_eq!(raw.set.floats(i).0, set.floats(from + i).0);
                assert_eq!(raw.set.histograms(i), set.histograms(from + i));
            }
        }
        let steps = Steps::range(0, 100, 1);
        let mut block = StepBlock::new(steps);
        block.push_empty(set.labels[0].clone(), true);
        block.push_empty(set.labels[1].clone(), false);
        block.set_float(0, 70, 2.0);
        block.set_histogram(1, 3, Arc::new(h));
        let batch = to_batch(Value::Vector(block.clone()), &table).unwrap();
        let Value::Vector(b) = from_batch(batch.slice(1, 1), ValueKind::Vector, steps, &table).unwrap()
        else {
            panic!()
        };
        assert_eq!(b.labels, [set.labels[1].clone()]);
        assert!(b.row(0).histogram(3).is_some());
    }
}
