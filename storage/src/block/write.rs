//! Writes a block, series by series, in one pass.
//!
//! Memory: compressed pages, one batch of numbers per class, and per series its head (some 250 bytes) and label ids;
//! never the samples.

mod extras;
mod samples;
mod series;
mod terms;

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use sextant_model::{Exemplar, Labels, MetadataTable, MetricMetadata, NO_START, SeriesBuf};

pub use terms::Terms;

use super::{
    checksums::Checksums,
    index::write_index,
    order,
    scale::Scaler,
    source::{BlockFiles, BlockOptions, SeriesSource},
    tables::names,
    times::TimeTable,
};
use crate::{BlockMeta, ObjectMeta, Result, StorageError};
use extras::HistogramTable;
use samples::SampleTable;
use series::SeriesRow;

/// The most series of one block: series ids are `int32` in the tables.
const SERIES_MAX: usize = i32::MAX as usize;

/// Writes one block.
pub struct BlockWriter {
    options: BlockOptions,
    scaler: Scaler,
    times: TimeTable,
    terms: Terms,
    rows: Vec<SeriesRow>,
    samples: SampleTable,
    histograms: HistogramTable,
    exemplars: Vec<(i32, Exemplar)>,
    families: MetadataTable,
    metadata: Vec<MetricMetadata>,
    metadata_ids: HashMap<MetricMetadata, u32>,
    last: Option<Labels>,
    sample_count: u64,
}

impl BlockWriter {
    /// An empty block.
    pub fn new(options: BlockOptions) -> Result<Self> {
        Ok(Self {
            samples: SampleTable::new(&options)?,
            histograms: HistogramTable::new(&options)?,
            options,
            scaler: Scaler::default(),
            times: TimeTable::default(),
            terms: Terms::default(),
            rows: Vec::new(),
            exemplars: Vec::new(),
            families: MetadataTable::default(),
            metadata: Vec::new(),
            metadata_ids: HashMap::new(),
            last: None,
            sample_count: 0,
        })
    }

    /// Appends a series, which comes after the one before it in [`crate::series_order`]. Samples are in order of
    /// time, each timestamp once. A series without samples is left out, its exemplars with it; its metadata stays.
    /// `time_key` is as in [`SeriesSource::time_key`].
    pub fn push(
        &mut self,
        labels: &Labels,
        time_key: Option<u64>,
        buf: &SeriesBuf,
        exemplars: Vec<Exemplar>,
        metadata: Option<&MetricMetadata>,
    ) -> Result<()> {
        if let Some(m) = metadata {
            self.families.add_older(&extras::family_of(labels, m), m);
        }
        if buf.is_empty() {
            return Ok(());
        }
        self.check(labels, buf)?;
        let sid = self.rows.len() as i32;
        let (class, scale, stored) = self.scaler.scale(&buf.v);
        let off = self.samples.push(sid, class, stored, &buf.v)?;
        let first = buf.t.first().copied().into_iter().chain(buf.h.first().map(|h| h.t)).min();
        let last = buf.t.last().copied().into_iter().chain(buf.h.last().map(|h| h.t)).max();
        let metadata = metadata.map(|m| self.metadata_id(m));
        self.rows.push(SeriesRow {
            min_ts: first.unwrap_or_default(),
            max_ts: last.unwrap_or_default(),
            time: (!buf.t.is_empty()).then(|| self.times.add(time_key, &buf.t)),
            n: buf.t.len() as u32,
            class,
            off,
            scale,
            starts: start_runs(&buf.start),
            hn: buf.h.len() as u32,
            hoff: if buf.h.is_empty() { 0 } else { self.histograms.push(sid, &buf.h)? },
            metadata,
        });
        self.terms.push(labels);
        self.exemplars.extend(exemplars.into_iter().map(|e| (sid, e)));
        self.sample_count += buf.len() as u64;
        self.last = Some(labels.clone());
        Ok(())
    }

    /// Appends what is known of a metric family, whether it has series here or not. The newest description comes first;
    /// beyond [`sextant_model::DESCRIPTIONS_MAX`] of a family, those of series included, they are left out.
    pub fn push_family(&mut self, name: &str, metadata: &MetricMetadata) {
        self.families.add_older(name, metadata);
    }

    /// Series written so far.
    pub fn series(&self) -> usize {
        self.rows.len()
    }

    /// Samples written so far, of both kinds.
    pub fn samples(&self) -> u64 {
        self.sample_count
    }

    /// Ends the block; `None` where it has neither a sample nor metadata.
    pub fn finish(self) -> Result<Option<BlockFiles>> {
        if self.rows.is_empty() && self.families.is_empty() {
            return Ok(None);
        }
        let options = &self.options;
        let (samples, class_rows) = self.samples.finish()?;
        let (windows, places) = self.times.finish();
        let series =
            series::write_series(&self.terms, &self.rows, &places, &class_rows, &self.metadata, options)?;
        let mut objects: Vec<(&str, Bytes)> = vec![
            (names::SERIES, series),
            (names::SAMPLES, samples),
            (names::GRID, series::write_grid(&windows, options)?),
        ];
        let extras = [
            (names::HISTOGRAMS, self.histograms.finish()?),
            (names::EXEMPLARS, extras::write_exemplars(&self.exemplars, options)?),
            (names::METADATA, extras::write_metadata(&self.families, options)?),
            (names::INDEX, options.sidecar.then(|| write_index(&self.terms))),
        ];
        objects.extend(extras.into_iter().filter_map(|(name, bytes)| Some((name, bytes?))));
        let mut checksums = Checksums::default();
        for (name, bytes) in &objects {
            checksums.add(name, bytes);
        }
        objects.push((names::CHECKSUMS, Bytes::from(checksums.encode())));
        let meta = BlockMeta {
            id: options.id,
            level: options.level,
            // Metadata alone belongs to the time when it came.
            min_t: self.rows.iter().map(|r| r.min_ts).min().unwrap_or(options.id.created_ms()),
            max_t: self.rows.iter().map(|r| r.max_ts).max().unwrap_or(options.id.created_ms()),
            series: self.rows.len() as u64,
            samples: self.sample_count,
            objects: objects
                .iter()
                .map(|(name, b)| {
                    ((*name).to_owned(), ObjectMeta { size: b.len() as u64, crc32c: crc32c::crc32c(b) })
                })
                .collect::<BTreeMap<_, _>>(),
            log: Vec::new(),
            seq: 0,
            seq_min: 0,
            applied: Vec::new(),
        };
        let objects = objects.into_iter().map(|(name, b)| (name.to_owned(), b)).collect();
        Ok(Some(BlockFiles { objects, meta }))
    }

    fn check(&self, labels: &Labels, buf: &SeriesBuf) -> Result<()> {
        let bad =
            |what: &str| Err(StorageError::Invalid(format!("writing a block: {what} of series {labels}")));
        if let Some(last) = &self.last
            && order::block_order(last.as_bytes(), labels.as_bytes()).is_ge()
        {
            return bad(&format!("wrong order after {last}"));
        }
        let ascending = |t: &[i64]| t.windows(2).all(|p| p[0] < p[1]);
        if !ascending(&buf.t) || !buf.h.windows(2).all(|p| p[0].t < p[1].t) {
            return bad("timestamps are not ascending");
        }
        if buf.v.len() != buf.t.len() || !(buf.start.is_empty() || buf.start.len() == buf.t.len()) {
            return bad("columns of different lengths");
        }
        if buf.len() > i32::MAX as usize || self.rows.len() >= SERIES_MAX {
            return bad("too many samples or series");
        }
        Ok(())
    }

    fn metadata_id(&mut self, m: &MetricMetadata) -> u32 {
        if let Some(&id) = self.metadata_ids.get(m) {
            return id;
        }
        let id = self.metadata.len() as u32;
        self.metadata.push(m.clone());
        self.metadata_ids.insert(m.clone(), id);
        id
    }
}

/// Writes a block of all series of a source; `None` where there is neither a sample nor metadata.
pub fn write_block(source: &dyn SeriesSource, options: BlockOptions) -> Result<Option<BlockFiles>> {
    let mut writer = BlockWriter::new(options)?;
    for (name, metadata) in source.families() {
        writer.push_family(&name, &metadata);
    }
    let mut buf = SeriesBuf::default();
    for i in 0..source.len() {
        buf.clear();
        source.read(i, &mut buf);
        let metadata = source.metadata(i);
        writer.push(&source.labels(i), source.time_key(i), &buf, source.exemplars(i), metadata.as_ref())?;
    }
    writer.finish()
}

/// Start timestamps as positions where they change; before the first there is none.
fn start_runs(start: &[i64]) -> Vec<(i32, i64)> {
    let mut runs = Vec::new();
    let mut current = NO_START;
    for (k, &s) in start.iter().enumerate() {
        if s != current {
            runs.push((k as i32, s));
            current = s;
        }
    }
    runs
}
