//! A request taken apart: one entry per series message, and flat lists of what the messages hold.
//!
//! Rows live in pooled buffers. Label bytes are not copied out of the request: a row says where they are, so that a
//! shard's batch can be built a second time with labels, after its epoch has ended.

use sextant_model::MetricMetadata;
use sextant_proto::{ErrorClass, RefusedSeries};

/// [`Row::sent`]: the series was refused, nothing of it is sent.
pub(crate) const REFUSED: u32 = u32::MAX;
/// [`Row::sent`]: the shard does not know the series in this epoch.
pub(crate) const NEEDS_LABELS: u32 = u32::MAX - 1;
/// [`Row::raw`] and [`Row::entry`]: not in the cache.
pub(crate) const NO_ENTRY: u32 = u32::MAX;

/// How many refused series are named in an answer.
const REFUSED_NAMED_MAX: usize = 100;

/// Where a series' labels are, and in which form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LabelForm {
    /// The protocol's own form, in the request's body.
    Body,
    /// The protocol's own form, in [`Rows::spill`] (labels that did not lie together).
    Spill,
    /// Canonical bytes, in [`Rows::spill`].
    Canonical,
    /// The series of a decoded request with this number.
    Model,
}

/// One series message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    /// The cache entry of the label bytes as they were sent.
    pub raw: u32,
    /// The cache entry of the series; differs from `raw` where several spellings name one series.
    pub entry: u32,
    /// The shard's ref, the batch's own number, [`NEEDS_LABELS`] or [`REFUSED`].
    pub sent: u32,
    /// The shard.
    pub shard: u32,
    /// Where the labels are.
    pub labels: (u32, u32),
    /// In which form.
    pub form: LabelForm,
    /// Whether the message holds anything to store.
    pub has_data: bool,
    /// [`sextant_proto::SERIES_DELTA`] or 0.
    pub flags: u8,
}

/// A float sample of the row with this number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct RowSample {
    pub row: u32,
    pub t: i64,
    pub v: f64,
    pub start: i64,
}

/// A histogram; `encoded` is a range of [`Rows::blob`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct RowHistogram {
    pub row: u32,
    pub t: i64,
    pub start: i64,
    pub encoded: (u32, u32),
}

/// An exemplar; `labels` is a range of [`Rows::blob`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct RowExemplar {
    pub row: u32,
    pub t: i64,
    pub v: f64,
    pub labels: (u32, u32),
}

/// Metadata of a metric family on its way to a shard.
#[derive(Clone, Debug)]
pub(crate) struct RowMetadata {
    pub family: String,
    pub metadata: MetricMetadata,
    pub shard: u32,
}

/// A row whose label bytes the cache does not hold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Miss {
    pub row: u32,
    pub hash: u128,
}

/// What was refused so far.
#[derive(Debug, Default)]
pub(crate) struct RefusedRows {
    /// The first of them.
    pub named: Vec<RefusedSeries>,
    /// How many series were refused, wholly or in part.
    pub count: u64,
}

impl RefusedRows {
    /// Notes a refusal; the texts are made only for those that will be named.
    pub(crate) fn push(&mut self, class: ErrorClass, text: impl FnOnce() -> (String, String)) {
        self.count += 1;
        if self.named.len() < REFUSED_NAMED_MAX {
            let (series, reason) = text();
            self.named.push(RefusedSeries { series, reason, class });
        }
    }
}

/// A request's rows.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    pub series: Vec<Row>,
    pub samples: Vec<RowSample>,
    pub histograms: Vec<RowHistogram>,
    pub exemplars: Vec<RowExemplar>,
    pub metadata: Vec<RowMetadata>,
    /// Encoded histograms and exemplar labels.
    pub blob: Vec<u8>,
    /// Label bytes that are not one piece of the body.
    pub spill: Vec<u8>,
    /// Rows to be sent with labels, in order.
    pub needs_labels: Vec<u32>,
    pub misses: Vec<Miss>,
    pub refused: RefusedRows,
    /// Exemplars left out because their labels are too long.
    pub exemplars_dropped: u64,
    /// The state of the series cache that `raw` and `entry` refer to.
    pub generation: u64,
}

impl Rows {
    /// Empties the rows and keeps their memory.
    pub(crate) fn clear(&mut self) {
        self.series.clear();
        self.samples.clear();
        self.histograms.clear();
        self.exemplars.clear();
        self.metadata.clear();
        self.blob.clear();
        self.spill.clear();
        self.needs_labels.clear();
        self.misses.clear();
        self.refused.named.clear();
        self.refused.count = 0;
        self.exemplars_dropped = 0;
    }

    /// Bytes of memory held.
    pub(crate) fn capacity_bytes(&self) -> usize {
        self.series.capacity() * size_of::<Row>()
            + self.samples.capacity() * size_of::<RowSample>()
            + self.histograms.capacity() * size_of::<RowHistogram>()
            + self.exemplars.capacity() * size_of::<RowExemplar>()
            + self.blob.capacity()
            + self.spill.capacity()
    }

    /// How many samples, histograms and exemplars there are, refused ones included.
    pub(crate) fn item_count(&self) -> u64 {
        (self.samples.len() + self.histograms.len() + self.exemplars.len()) as u64
    }

    /// Samples, histograms and exemplars of the rows that `which` selects.
    pub(crate) fn count_items(&self, mut which: impl FnMut(&Row) -> bool) -> [u64; 3] {
        let mut of = |row: u32| u64::from(which(&self.series[row as usize]));
        let samples = self.samples.iter().map(|s| of(s.row)).sum();
        let histograms = self.histograms.iter().map(|h| of(h.row)).sum();
        [samples, histograms, self.exemplars.iter().map(|e| of(e.row)).sum()]
    }

    /// Appends to the blob; returns the range written.
    pub(crate) fn put_blob(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> (u32, u32) {
        let start = self.blob.len();
        write(&mut self.blob);
        (start as u32, (self.blob.len() - start) as u32)
    }
}

/// The bytes of a range.
pub(crate) fn slice(bytes: &[u8], (start, len): (u32, u32)) -> &[u8] {
    &bytes[start as usize..start as usize + len as usize]
}
