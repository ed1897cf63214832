//! The Parquet tables of a block: names, columns, encodings.

use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::{DataType, Field, Fields, Schema, SchemaRef};
use bytes::Bytes;
use parquet::{
    arrow::{
        ArrowSchemaConverter,
        arrow_writer::{ArrowColumnChunk, ArrowColumnWriter, ArrowRowGroupWriterFactory, compute_leaves},
    },
    basic::{Compression, Encoding, ZstdLevel},
    errors::ParquetError,
    file::{
        metadata::KeyValue,
        properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder},
        writer::SerializedFileWriter,
    },
    schema::types::ColumnPath,
};

use crate::{Result, StorageError};

/// Names of a block's objects.
pub mod names {
    /// One row per series.
    pub const SERIES: &str = "series.parquet";
    /// One row per stored number.
    pub const SAMPLES: &str = "samples.parquet";
    /// Timestamps.
    pub const GRID: &str = "grid.parquet";
    /// One row per native histogram.
    pub const HISTOGRAMS: &str = "histograms.parquet";
    /// One row per exemplar.
    pub const EXEMPLARS: &str = "exemplars.parquet";
    /// One row per metric family and description of it.
    pub const METADATA: &str = "metadata.parquet";
    /// The sidecar.
    pub const INDEX: &str = "index";
    /// Checksums of the chunks of all other objects.
    pub const CHECKSUMS: &str = "checksums";

    /// Every object a block may have.
    pub const ALL: [&str; 8] = [SERIES, SAMPLES, GRID, HISTOGRAMS, EXEMPLARS, METADATA, INDEX, CHECKSUMS];
}

/// Version of the layout, in every table's key-value metadata.
pub const FORMAT_VERSION: &str = "1";
/// The key of [`FORMAT_VERSION`].
pub const FORMAT_KEY: &str = "sextant.metrics.format";

/// The prefix of a label's own column.
pub const LABEL_PREFIX: &str = "l_";

/// Rows of one row group of the series table: what a read of one series has to decode.
pub const SERIES_GROUP_ROWS: usize = 32 << 10;

/// A list column's type; the names of its parts are Parquet's own.
pub fn list(item: DataType) -> DataType {
    DataType::List(Arc::new(Field::new("element", item, false)))
}

/// A string to string map, not null.
pub fn string_map() -> DataType {
    let entry = Fields::from(vec![
        Field::new("key", DataType::Utf8, false),
        Field::new("value", DataType::Utf8, false),
    ]);
    DataType::Map(Arc::new(Field::new("key_value", DataType::Struct(entry), false)), false)
}

/// The series table with columns for `labels`.
pub fn series_schema(labels: &[String]) -> SchemaRef {
    use DataType::{Float64, Int32, Int64, Utf8};
    let mut fields = vec![Field::new("name", Utf8, true)];
    fields.extend(labels.iter().map(|l| Field::new(format!("{LABEL_PREFIX}{l}"), Utf8, true)));
    fields.push(Field::new("labels", string_map(), false));
    for name in ["metric_type", "help", "unit"] {
        fields.push(Field::new(name, Utf8, true));
    }
    let columns: [(&str, DataType, bool); 21] = [
        ("min_ts", Int64, false),
        ("max_ts", Int64, false),
        ("target", Int32, true),
        ("n", Int32, false),
        ("g0", Int32, false),
        ("enc", Int32, false),
        ("off", Int64, false),
        ("ord", Int32, false),
        ("first", Int64, false),
        ("base", Int64, false),
        ("mult", Int64, false),
        ("div", Int64, false),
        ("idx", list(Int32), true),
        ("xi", list(Int32), true),
        ("xv", list(Float64), true),
        ("ri", list(Int32), true),
        ("rv", list(Int64), true),
        ("si", list(Int32), true),
        ("sv", list(Int64), true),
        ("hn", Int32, false),
        ("hoff", Int64, false),
    ];
    fields.extend(columns.into_iter().map(|(name, t, null)| Field::new(name, t, null)));
    Arc::new(Schema::new(fields))
}

/// The sample table.
pub fn samples_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("sid", DataType::Int32, false),
        Field::new("r", DataType::Int32, true),
        Field::new("w", DataType::Int64, true),
        Field::new("v", DataType::Float64, true),
    ]))
}

/// The grid table.
pub fn grid_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("target", DataType::Int32, false),
        Field::new("p0", DataType::Int32, false),
        Field::new("t0", DataType::Int64, false),
        Field::new("dt", DataType::Int64, false),
        Field::new("jitter", list(DataType::Int32), false),
    ]))
}

/// The histogram table.
pub fn histograms_schema() -> SchemaRef {
    use DataType::{Boolean, Float64, Int32, Int64};
    let columns: [(&str, DataType); 17] = [
        ("sid", Int32),
        ("ts", Int64),
        ("start_ts", Int64),
        ("schema", Int32),
        ("is_integer", Boolean),
        ("reset_hint", Int32),
        ("zero_threshold", Float64),
        ("zero_count", Float64),
        ("count", Float64),
        ("sum", Float64),
        ("positive_offsets", list(Int32)),
        ("positive_lengths", list(Int64)),
        ("positive_buckets", list(Float64)),
        ("negative_offsets", list(Int32)),
        ("negative_lengths", list(Int64)),
        ("negative_buckets", list(Float64)),
        ("custom_values", list(Float64)),
    ];
    Arc::new(Schema::new(columns.into_iter().map(|(n, t)| Field::new(n, t, false)).collect::<Vec<_>>()))
}

/// The exemplar table.
pub fn exemplars_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("sid", DataType::Int32, false),
        Field::new("ts", DataType::Int64, false),
        Field::new("value", DataType::Float64, false),
        Field::new("labels", string_map(), false),
    ]))
}

/// The metadata table.
pub fn metadata_schema() -> SchemaRef {
    let text = |name| Field::new(name, DataType::Utf8, false);
    Arc::new(Schema::new(vec![text("name"), text("metric_type"), text("help"), text("unit")]))
}

/// What all tables have in common.
pub fn properties(zstd_level: i32) -> Result<WriterPropertiesBuilder> {
    let level = ZstdLevel::try_new(zstd_level).map_err(|e| StorageError::Invalid(e.to_string()))?;
    let version = KeyValue::new(FORMAT_KEY.to_owned(), FORMAT_VERSION.to_owned());
    Ok(WriterProperties::builder()
        .set_created_by("sextant".to_owned())
        .set_compression(Compression::ZSTD(level))
        .set_key_value_metadata(Some(vec![version]))
        // The default, 20,000 rows, makes pages of flat columns far smaller than the size asked for.
        .set_data_page_row_count_limit(usize::MAX)
        .set_dictionary_page_size_limit(16 << 20)
        .set_statistics_enabled(EnabledStatistics::None))
}

/// Gives a column an encoding in place of a dictionary.
pub fn encoded(b: WriterPropertiesBuilder, column: &[&str], encoding: Encoding) -> WriterPropertiesBuilder {
    let path = ColumnPath::new(column.iter().map(|&s| s.to_owned()).collect());
    b.set_column_dictionary_enabled(path.clone(), false).set_column_encoding(path, encoding)
}

/// Min and max of each row group of a column, so that readers can skip.
pub fn with_statistics(b: WriterPropertiesBuilder, column: &str) -> WriterPropertiesBuilder {
    b.set_column_statistics_enabled(ColumnPath::from(column), EnabledStatistics::Chunk)
}

/// Writes a Parquet file of several row groups that may be under construction at the same time.
pub struct TableWriter {
    file: SerializedFileWriter<Vec<u8>>,
    factory: ArrowRowGroupWriterFactory,
    schema: SchemaRef,
}

/// A row group under construction: it holds compressed pages only.
pub struct RowGroup {
    columns: Vec<ArrowColumnWriter>,
    schema: SchemaRef,
    /// Rows written.
    pub rows: usize,
}

/// A row group's finished pages.
pub struct FinishedRowGroup {
    chunks: Vec<ArrowColumnChunk>,
}

impl TableWriter {
    /// An empty file.
    pub fn new(schema: SchemaRef, properties: WriterProperties) -> Result<Self> {
        let parquet =
            ArrowSchemaConverter::new().with_coerce_types(false).convert(&schema).map_err(write_error)?;
        let file = SerializedFileWriter::new(Vec::new(), parquet.root_schema_ptr(), Arc::new(properties))
            .map_err(write_error)?;
        let factory = ArrowRowGroupWriterFactory::new(&file, schema.clone());
        Ok(Self { file, factory, schema })
    }

    /// Begins a row group.
    pub fn row_group(&self) -> Result<RowGroup> {
        let columns = self.factory.create_column_writers(0).map_err(write_error)?;
        Ok(RowGroup { columns, schema: self.schema.clone(), rows: 0 })
    }

    /// Appends a row group to the file.
    pub fn append(&mut self, group: FinishedRowGroup) -> Result<()> {
        let mut writer = self.file.next_row_group().map_err(write_error)?;
        for chunk in group.chunks {
            chunk.append_to_row_group(&mut writer).map_err(write_error)?;
        }
        writer.close().map_err(write_error)?;
        Ok(())
    }

    /// Appends one batch as a row group.
    pub fn append_batch(&mut self, columns: &[ArrayRef]) -> Result<()> {
        let mut group = self.row_group()?;
        group.write(columns)?;
        self.append(group.finish()?)
    }

    /// The file's bytes.
    pub fn finish(self) -> Result<Bytes> {
        self.file.into_inner().map(Bytes::from).map_err(write_error)
    }
}

impl RowGroup {
    /// Writes rows; the arrays are the schema's columns.
    pub fn write(&mut self, columns: &[ArrayRef]) -> Result<()> {
        // Checks lengths and types; a fault here is one of this crate.
        let batch = RecordBatch::try_new(self.schema.clone(), columns.to_vec())
            .map_err(|e| StorageError::Invalid(format!("writing a table: {e}")))?;
        let mut writers = self.columns.iter_mut();
        for (field, array) in self.schema.fields().iter().zip(batch.columns()) {
            for leaf in compute_leaves(field, array).map_err(write_error)? {
                if let Some(w) = writers.next() {
                    w.write(&leaf).map_err(write_error)?;
                }
            }
        }
        self.rows += batch.num_rows();
        Ok(())
    }

    /// Ends the row group.
    pub fn finish(self) -> Result<FinishedRowGroup> {
        let chunks: std::result::Result<_, _> =
            self.columns.into_iter().map(ArrowColumnWriter::close).collect();
        Ok(FinishedRowGroup { chunks: chunks.map_err(write_error)? })
    }
}

fn write_error(e: ParquetError) -> StorageError {
    StorageError::Invalid(format!("writing a table: {e}"))
}
