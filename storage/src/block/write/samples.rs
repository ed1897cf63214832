//! Writes the sample table: one row group under construction per class, appended class by class at the end.

use std::sync::Arc;

use arrow_array::{ArrayRef, Float64Array, Int32Array, Int64Array};
use bytes::Bytes;
use parquet::basic::Encoding;

use crate::{
    BlockOptions, Result,
    block::{
        scale::Class,
        tables::{self, FinishedRowGroup, RowGroup, TableWriter},
    },
};

/// Numbers are handed to Parquet in batches of this many rows.
const BATCH_ROWS: usize = 32 << 10;

/// Collects the numbers of all series.
pub struct SampleTable {
    table: TableWriter,
    row_group_rows: usize,
    classes: Vec<ClassRows>,
}

#[derive(Default)]
struct ClassRows {
    finished: Vec<FinishedRowGroup>,
    group: Option<RowGroup>,
    rows: u64,
    sid: Vec<i32>,
    narrow: Vec<i32>,
    wide: Vec<i64>,
    double: Vec<f64>,
}

impl SampleTable {
    /// An empty table.
    pub fn new(options: &BlockOptions) -> Result<Self> {
        let mut b = tables::properties(options.zstd_level)?.set_data_page_size_limit(options.page_bytes);
        for column in ["r", "w", "v"] {
            b = tables::encoded(b, &[column], Encoding::BYTE_STREAM_SPLIT);
        }
        let b = tables::with_statistics(b, "sid");
        Ok(Self {
            table: TableWriter::new(tables::samples_schema(), b.build())?,
            row_group_rows: options.row_group_rows.max(BATCH_ROWS),
            classes: Class::STORED.iter().map(|_| ClassRows::default()).collect(),
        })
    }

    /// Appends a series' numbers and returns its first row within its class. `scaled` for the classes of integers,
    /// `values` for [`Class::V`].
    pub fn push(&mut self, sid: i32, class: Class, scaled: &[i64], values: &[f64]) -> Result<u64> {
        let Some(rows) = self.classes.get_mut((class as usize).wrapping_sub(1)) else { return Ok(0) };
        let at = rows.rows;
        let n = match class {
            Class::None => 0,
            Class::R1 | Class::R2 | Class::R4 => {
                rows.narrow.extend(scaled.iter().map(|&r| r as i32));
                scaled.len()
            }
            Class::W => {
                rows.wide.extend_from_slice(scaled);
                scaled.len()
            }
            Class::V => {
                rows.double.extend_from_slice(values);
                values.len()
            }
        };
        rows.rows += n as u64;
        rows.sid.resize(rows.sid.len() + n, sid);
        while rows.sid.len() >= BATCH_ROWS {
            rows.write(&self.table, BATCH_ROWS, self.row_group_rows)?;
        }
        Ok(at)
    }

    /// The file, and the first row of each class (indexed by the class' number).
    pub fn finish(mut self) -> Result<(Bytes, [u64; 6])> {
        let mut first = [0u64; 6];
        let mut at = 0;
        for (class, mut rows) in Class::STORED.into_iter().zip(self.classes) {
            first[class as usize] = at;
            at += rows.rows;
            while !rows.sid.is_empty() {
                let n = rows.sid.len().min(BATCH_ROWS);
                rows.write(&self.table, n, self.row_group_rows)?;
            }
            rows.end_group()?;
            for group in rows.finished {
                self.table.append(group)?;
            }
        }
        Ok((self.table.finish()?, first))
    }
}

impl ClassRows {
    /// Writes the first `n` waiting rows.
    fn write(&mut self, table: &TableWriter, n: usize, row_group_rows: usize) -> Result<()> {
        fn take<T>(from: &mut Vec<T>, n: usize) -> Option<Vec<T>> {
            (!from.is_empty()).then(|| from.drain(..n).collect())
        }
        let nulls = |n| (Int32Array::new_null(n), Int64Array::new_null(n));
        let sid = Int32Array::from(take(&mut self.sid, n).unwrap_or_default());
        let narrow = take(&mut self.narrow, n).map_or_else(|| nulls(n).0, Int32Array::from);
        let wide = take(&mut self.wide, n).map_or_else(|| nulls(n).1, Int64Array::from);
        let double = take(&mut self.double, n).map_or_else(|| Float64Array::new_null(n), Float64Array::from);
        let columns: [ArrayRef; 4] = [Arc::new(sid), Arc::new(narrow), Arc::new(wide), Arc::new(double)];
        let group = match &mut self.group {
            Some(group) => group,
            none => none.insert(table.row_group()?),
        };
        group.write(&columns)?;
        if group.rows >= row_group_rows {
            self.end_group()?;
        }
        Ok(())
    }

    fn end_group(&mut self) -> Result<()> {
        if let Some(group) = self.group.take() {
            self.finished.push(group.finish()?);
        }
        Ok(())
    }
}
