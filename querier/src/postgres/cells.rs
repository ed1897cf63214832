//! Arrow's columns read value by value, as what PostgreSQL's types can hold.

use arrow_array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Decimal128Array, Decimal256Array, Float32Array, Float64Array,
    Int32Array, Int64Array, IntervalMonthDayNanoArray, StringArray,
    cast::AsArray,
    types::{Date32Type, Decimal128Type, Decimal256Type, Int32Type, Int64Type, Time64MicrosecondType},
};
use arrow_buffer::NullBuffer;
use arrow_cast::{CastOptions, cast_with_options};
use arrow_schema::{DataType, IntervalUnit, TimeUnit};

use super::{
    encode::float_text,
    error::PgError,
    types::{self, ColumnType},
};

/// A value that is not NULL.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell<'a> {
    /// `boolean`.
    Bool(bool),
    /// Any integer.
    Int(i64),
    /// Any float.
    Float(f64),
    /// Any text.
    Text(&'a str),
    /// `json` or `jsonb`, as its text.
    Json(String),
    /// `bytea`.
    Bytes(&'a [u8]),
    /// `numeric`, in decimal notation.
    Numeric(String),
    /// Days since 1970.
    Date(i32),
    /// Microseconds since midnight.
    Time(i64),
    /// An instant.
    Timestamp {
        /// Microseconds since 1970 in UTC; the extremes are the infinities.
        micros: i64,
        /// Whether it is a `timestamptz`.
        zoned: bool,
    },
    /// A span of time.
    Interval {
        /// Months.
        months: i32,
        /// Days.
        days: i32,
        /// Microseconds.
        micros: i64,
    },
    /// An array of one dimension.
    Array(Vec<Option<Cell<'a>>>),
}

/// A column, ready to be read as one of PostgreSQL's types.
pub struct Column {
    values: Values,
    nulls: Option<NullBuffer>,
}

enum Values {
    Bool(BooleanArray),
    Int(Int64Array),
    Float4(Float32Array),
    Float8(Float64Array),
    Text(StringArray),
    Bytes(BinaryArray),
    Decimal128(Decimal128Array),
    Decimal256(Decimal256Array),
    Date(Int32Array),
    Time(Int64Array),
    Timestamp { values: Int64Array, unit: TimeUnit, zoned: bool },
    Duration { values: Int64Array, unit: TimeUnit },
    Interval(IntervalMonthDayNanoArray),
    Dictionary { keys: Vec<usize>, values: Box<Column> },
    List { offsets: Vec<(usize, usize)>, items: Box<Column> },
    Json(JsonArray),
}

fn cast(array: &dyn Array, to: &DataType) -> Result<ArrayRef, PgError> {
    let options = CastOptions { safe: false, ..CastOptions::default() };
    cast_with_options(array, to, &options).map_err(|e| PgError::new("22003", e.to_string()))
}

/// The values of a primitive array of 64 bits, whatever they mean.
fn integers(array: &dyn Array) -> Result<Int64Array, PgError> {
    Ok(cast(array, &DataType::Int64)?.as_primitive::<Int64Type>().clone())
}

impl Column {
    /// Reads an array as values of a type.
    pub fn new(array: &ArrayRef, kind: ColumnType) -> Result<Self, PgError> {
        let nulls = array.logical_nulls();
        let values = match array.data_type() {
            DataType::Dictionary(..) => {
                let dictionary = array.as_any_dictionary();
                // Without values every row is NULL, and there are no keys to normalise.
                if dictionary.values().is_empty() {
                    let values = Box::new(Self::new(dictionary.values(), kind)?);
                    Values::Dictionary { keys: vec![0; array.len()], values }
                } else {
                    let values = Box::new(Self::new(dictionary.values(), kind)?);
                    Values::Dictionary { keys: dictionary.normalized_keys(), values }
                }
            }
            DataType::RunEndEncoded(_, field) => return Self::new(&cast(array, field.data_type())?, kind),
            _ if kind.array => list(array, kind)?,
            _ => scalar(array, kind)?,
        };
        Ok(Self { values, nulls })
    }

    /// The value of a row; `None` is NULL.
    pub fn cell(&self, row: usize) -> Result<Option<Cell<'_>>, PgError> {
        if self.nulls.as_ref().is_some_and(|n| n.is_null(row)) {
            return Ok(None);
        }
        Ok(Some(match &self.values {
            Values::Bool(a) => Cell::Bool(a.value(row)),
            Values::Int(a) => Cell::Int(a.value(row)),
            // By way of the text, so that 0.1 stays 0.1.
            Values::Float4(a) => {
                let v = a.value(row);
                Cell::Float(v.to_string().parse().unwrap_or(f64::from(v)))
            }
            Values::Float8(a) => Cell::Float(a.value(row)),
            Values::Text(a) => Cell::Text(a.value(row)),
            Values::Bytes(a) => Cell::Bytes(a.value(row)),
            Values::Decimal128(a) => Cell::Numeric(a.value_as_string(row)),
            Values::Decimal256(a) => Cell::Numeric(a.value_as_string(row)),
            Values::Date(a) => Cell::Date(a.value(row)),
            Values::Time(a) => Cell::Time(a.value(row)),
            Values::Timestamp { values, unit, zoned } => {
                Cell::Timestamp { micros: micros(values.value(row), *unit), zoned: *zoned }
            }
            Values::Duration { values, unit } => {
                Cell::Interval { months: 0, days: 0, micros: micros(values.value(row), *unit) }
            }
            Values::Interval(a) => {
                let v = a.value(row);
                Cell::Interval { months: v.months, days: v.days, micros: v.nanoseconds / 1000 }
            }
            Values::Dictionary { keys, values } => return values.cell(keys[row]),
            Values::List { offsets, items } => {
                let (from, to) = offsets[row];
                Cell::Array((from..to).map(|i| items.cell(i)).collect::<Result<_, _>>()?)
            }
            Values::Json(a) => {
                let mut out = String::new();
                a.write(&mut out, row)?;
                Cell::Json(out)
            }
        }))
    }
}

/// Microseconds of a number of units, rounded down; what is beyond reach is infinite.
fn micros(v: i64, unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => v.saturating_mul(1_000_000),
        TimeUnit::Millisecond => v.saturating_mul(1_000),
        TimeUnit::Microsecond => v,
        TimeUnit::Nanosecond => v.div_euclid(1_000),
    }
}

fn scalar(array: &ArrayRef, kind: ColumnType) -> Result<Values, PgError> {
    let scalar = kind.scalar;
    Ok(match scalar {
        types::BOOL => Values::Bool(cast(array, &DataType::Boolean)?.as_boolean().clone()),
        types::INT2 | types::INT4 | types::INT8 | types::OID | types::REGPROC => {
            Values::Int(integers(array)?)
        }
        types::FLOAT4 => Values::Float4(cast(array, &DataType::Float32)?.as_primitive().clone()),
        types::FLOAT8 => Values::Float8(cast(array, &DataType::Float64)?.as_primitive().clone()),
        types::BYTEA => Values::Bytes(cast(array, &DataType::Binary)?.as_binary().clone()),
        types::NUMERIC => match array.data_type() {
            DataType::Decimal256(..) => Values::Decimal256(array.as_primitive::<Decimal256Type>().clone()),
            DataType::Decimal128(..) => Values::Decimal128(array.as_primitive::<Decimal128Type>().clone()),
            DataType::Decimal32(_, s) | DataType::Decimal64(_, s) => Values::Decimal128(
                cast(array, &DataType::Decimal128(38, *s))?.as_primitive::<Decimal128Type>().clone(),
            ),
            _ => Values::Decimal128(
                cast(array, &DataType::Decimal128(38, 10))?.as_primitive::<Decimal128Type>().clone(),
            ),
        },
        types::DATE => {
            let dates = cast(array, &DataType::Date32)?;
            Values::Date(dates.as_primitive::<Date32Type>().reinterpret_cast::<Int32Type>())
        }
        types::TIME => {
            let times = cast(array, &DataType::Time64(TimeUnit::Microsecond))?;
            Values::Time(times.as_primitive::<Time64MicrosecondType>().reinterpret_cast::<Int64Type>())
        }
        types::TIMESTAMP | types::TIMESTAMPTZ => {
            let zoned = scalar == types::TIMESTAMPTZ;
            match array.data_type() {
                DataType::Timestamp(unit, _) => {
                    Values::Timestamp { values: integers(array)?, unit: *unit, zoned }
                }
                _ => {
                    let times = cast(array, &DataType::Timestamp(TimeUnit::Microsecond, None))?;
                    Values::Timestamp { values: integers(&times)?, unit: TimeUnit::Microsecond, zoned }
                }
            }
        }
        types::INTERVAL => match array.data_type() {
            DataType::Duration(unit) => Values::Duration { values: integers(array)?, unit: *unit },
            _ => Values::Interval(
                cast(array, &DataType::Interval(IntervalUnit::MonthDayNano))?.as_primitive().clone(),
            ),
        },
        types::JSON | types::JSONB => Values::Json(JsonArray::new(array)?),
        _ => Values::Text(cast(array, &DataType::Utf8)?.as_string::<i32>().clone()),
    })
}

fn list(array: &ArrayRef, kind: ColumnType) -> Result<Values, PgError> {
    let (offsets, items) = list_parts(array)?;
    let items = Box::new(Column::new(&items, ColumnType { array: false, ..kind })?);
    Ok(Values::List { offsets, items })
}

/// The ranges of a list's rows, and its items.
fn list_parts(array: &ArrayRef) -> Result<(Vec<(usize, usize)>, ArrayRef), PgError> {
    Ok(match array.data_type() {
        DataType::List(_) => {
            let a = array.as_list::<i32>();
            let ranges = a.value_offsets().windows(2).map(|w| (w[0] as usize, w[1] as usize)).collect();
            (ranges, a.values().clone())
        }
        DataType::LargeList(_) => {
            let a = array.as_list::<i64>();
            let ranges = a.value_offsets().windows(2).map(|w| (w[0] as usize, w[1] as usize)).collect();
            (ranges, a.values().clone())
        }
        DataType::FixedSizeList(_, n) => {
            let (a, n) = (array.as_fixed_size_list(), *n as usize);
            ((0..a.len()).map(|i| (i * n, (i + 1) * n)).collect(), a.values().clone())
        }
        other => return Err(PgError::new("0A000", format!("{other} is not a list"))),
    })
}

/// A column read as JSON.
struct JsonArray {
    values: JsonValues,
    nulls: Option<NullBuffer>,
}

enum JsonValues {
    List { offsets: Vec<(usize, usize)>, items: Box<JsonArray> },
    Map { offsets: Vec<(usize, usize)>, keys: Box<Column>, items: Box<JsonArray> },
    Struct(Vec<(String, JsonArray)>),
    Scalar(Box<Column>),
}

impl JsonArray {
    fn new(array: &ArrayRef) -> Result<Self, PgError> {
        let text = ColumnType { scalar: types::TEXT, array: false };
        let values = match array.data_type() {
            DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..) => {
                let (offsets, items) = list_parts(array)?;
                JsonValues::List { offsets, items: Box::new(Self::new(&items)?) }
            }
            DataType::Map(..) => {
                let map = array.as_map();
                let offsets =
                    map.value_offsets().windows(2).map(|w| (w[0] as usize, w[1] as usize)).collect();
                let keys = Box::new(Column::new(map.keys(), text)?);
                JsonValues::Map { offsets, keys, items: Box::new(Self::new(map.values())?) }
            }
            DataType::Struct(fields) => {
                let columns = array.as_struct().columns();
                let members = fields.iter().zip(columns);
                JsonValues::Struct(
                    members
                        .map(|(f, c)| Ok((f.name().clone(), Self::new(c)?)))
                        .collect::<Result<_, PgError>>()?,
                )
            }
            other => JsonValues::Scalar(Box::new(Column::new(array, ColumnType::of_data_type(other))?)),
        };
        Ok(Self { values, nulls: array.logical_nulls() })
    }

    fn write(&self, out: &mut String, row: usize) -> Result<(), PgError> {
        if self.nulls.as_ref().is_some_and(|n| n.is_null(row)) {
            out.push_str("null");
            return Ok(());
        }
        match &self.values {
            JsonValues::List { offsets, items } => {
                let (from, to) = offsets[row];
                out.push('[');
                for i in from..to {
                    if i > from {
                        out.push_str(", ");
                    }
                    items.write(out, i)?;
                }
                out.push(']');
            }
            JsonValues::Map { offsets, keys, items } => {
                let (from, to) = offsets[row];
                out.push('{');
                for i in from..to {
                    if i > from {
                        out.push_str(", ");
                    }
                    match keys.cell(i)? {
                        Some(Cell::Text(key)) => crate::http::push_string(out, key),
                        _ => out.push_str("\"\""),
                    }
                    out.push_str(": ");
                    items.write(out, i)?;
                }
                out.push('}');
            }
            JsonValues::Struct(members) => {
                out.push('{');
                for (i, (name, member)) in members.iter().enumerate() {
                    if i > 0 {
                        out.push_str(", ");
                    }
                    crate::http::push_string(out, name);
                    out.push_str(": ");
                    member.write(out, row)?;
                }
                out.push('}');
            }
            JsonValues::Scalar(column) => match column.cell(row)? {
                None => out.push_str("null"),
                Some(Cell::Bool(v)) => out.push_str(if v { "true" } else { "false" }),
                Some(Cell::Int(v)) => out.push_str(&v.to_string()),
                Some(Cell::Numeric(v)) => out.push_str(&v),
                Some(Cell::Float(v)) if v.is_finite() => out.push_str(&float_text(v)),
                // JSON has no such numbers: they are texts.
                Some(Cell::Float(v)) => crate::http::push_string(out, &float_text(v)),
                Some(Cell::Text(v)) => crate::http::push_string(out, v),
                Some(other) => crate::http::push_string(out, &super::encode::plain_text(&other)),
            },
        }
        Ok(())
    }
}
