//! Builds list and map columns from rows.

use std::sync::Arc;

use arrow_array::{Array, ArrayRef, ListArray, MapArray, StringArray, StructArray};
use arrow_buffer::{NullBuffer, OffsetBuffer};
use arrow_schema::{DataType, Field};

use super::tables;

/// A list column under construction.
pub struct Lists<T> {
    values: Vec<T>,
    lengths: Vec<usize>,
    valid: Vec<bool>,
}

impl<T> Default for Lists<T> {
    fn default() -> Self {
        Self { values: Vec::new(), lengths: Vec::new(), valid: Vec::new() }
    }
}

impl<T> Lists<T> {
    /// Appends a list.
    pub fn push(&mut self, items: impl IntoIterator<Item = T>) {
        let before = self.values.len();
        self.values.extend(items);
        self.lengths.push(self.values.len() - before);
        self.valid.push(true);
    }

    /// Appends a list, or NULL where it is empty.
    pub fn push_or_null(&mut self, items: impl IntoIterator<Item = T>) {
        self.push(items);
        if self.lengths.last() == Some(&0)
            && let Some(valid) = self.valid.last_mut()
        {
            *valid = false;
        }
    }

    /// The column; `nullable` as in the schema.
    pub fn finish<A: Array + From<Vec<T>> + 'static>(self, item: DataType, nullable: bool) -> ArrayRef {
        let field = Arc::new(Field::new("element", item, false));
        let nulls = nullable.then(|| NullBuffer::from(self.valid));
        Arc::new(ListArray::new(
            field,
            OffsetBuffer::from_lengths(self.lengths),
            Arc::new(A::from(self.values)),
            nulls,
        ))
    }
}

/// A string map column under construction.
#[derive(Default)]
pub struct Maps {
    keys: Vec<String>,
    values: Vec<String>,
    lengths: Vec<usize>,
}

impl Maps {
    /// Appends a map.
    pub fn push<'a>(&mut self, entries: impl IntoIterator<Item = (&'a str, &'a str)>) {
        let before = self.keys.len();
        for (k, v) in entries {
            self.keys.push(k.to_owned());
            self.values.push(v.to_owned());
        }
        self.lengths.push(self.keys.len() - before);
    }

    /// The column.
    pub fn finish(self) -> ArrayRef {
        let DataType::Map(field, _) = tables::string_map() else { unreachable!("string_map is a map") };
        let DataType::Struct(fields) = field.data_type().clone() else {
            unreachable!("a map's entry is a struct")
        };
        let entries = StructArray::new(
            fields,
            vec![Arc::new(StringArray::from(self.keys)), Arc::new(StringArray::from(self.values))],
            None,
        );
        Arc::new(MapArray::new(field, OffsetBuffer::from_lengths(self.lengths), entries, None, false))
    }
}
