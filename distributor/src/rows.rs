//! A request taken apart: one entry per series message, and flat lists of what the messages hold.
//!
//! Rows live in pooled buffers. Label bytes are not copied out of the request: a row says where they are, so that a
//! shard's batch can be built a second time with labels, after its epoch has ended.

use hashbrown::HashSet;
use sextant_model::MetricMetadata;
use sextant_proto::{ErrorClass, RefusedSeries};

use crate::identity::Place;

/// [`Row::sent`]: the series was refused, nothing of it is sent.
pub(crate) const REFUSED: u32 = u32::MAX;
/// [`Row::sent`]: the shard does not know the series in this epoch.
pub(crate) const NEEDS_LABELS: u32 = u32::MAX - 1;
/// [`Row::raw`] and [`Row::entry`]: not in the cache.
pub(crate) const NO_ENTRY: u32 = u32::MAX;

/// How many refused series are named in an answer.
const REFUSED_NAMED_MAX: usize = 100;

/// Series, samples, histograms and exemplars of one request. A sample takes 32 bytes of memory and may take two in the
/// request: without a bound a small request would take sixteen times its size.
pub(crate) const ITEMS_MAX: usize = 4_000_000;

/// Where a series' labels are, and in which form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LabelForm {
    /// Label fields of remote write 1.0, in the request's body.
    Fields,
    /// The same in [`Rows::spill`]: fields that did not lie together.
    SpilledFields,
    /// Names and values as references to [`Rows::symbols`], in [`Rows::refs`].
    Symbols,
    /// Names and values, each with its length, in [`Rows::spill`].
    SpilledPairs,
    /// Canonical bytes in [`Rows::spill`].
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

impl Row {
    /// A row whose labels the cache does not hold.
    pub(crate) fn unplaced(labels: (u32, u32), form: LabelForm) -> Self {
        let (raw, entry, sent) = (NO_ENTRY, NO_ENTRY, NEEDS_LABELS);
        Self { raw, entry, sent, shard: 0, labels, form, has_data: false, flags: 0 }
    }
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
    /// Hash of family and metadata.
    pub key: u128,
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
    /// Samples, histograms and exemplars that were refused and are not among the rows.
    pub items: u64,
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
    /// Keys of `metadata`.
    pub metadata_seen: HashSet<u128>,
    /// Encoded histograms and exemplar labels.
    pub blob: Vec<u8>,
    /// Label bytes that are not one piece of the body.
    pub spill: Vec<u8>,
    /// Rows to be sent with labels, in order.
    pub needs_labels: Vec<u32>,
    pub misses: Vec<Miss>,
    /// Remote write 2.0: where in the body each symbol is.
    pub symbols: Vec<(u32, u32)>,
    /// Remote write 2.0: the series' references to them.
    pub refs: Vec<u32>,
    pub refused: RefusedRows,
    /// Exemplars left out because their labels are too long or not labels.
    pub exemplars_dropped: u64,
    /// Whether the spellings of 2.0 series are longer than a request may be.
    pub is_too_long: bool,
    /// Whether that state is void: `entry` no longer tells which rows are one series.
    pub is_void: bool,
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
        self.metadata_seen.clear();
        self.blob.clear();
        self.spill.clear();
        self.refs.clear();
        self.needs_labels.clear();
        self.misses.clear();
        self.refused.named.clear();
        self.refused.count = 0;
        self.refused.items = 0;
        self.exemplars_dropped = 0;
        self.is_too_long = false;
        self.is_void = false;
    }

    /// Bytes of memory held.
    pub(crate) fn capacity_bytes(&self) -> usize {
        self.series.capacity() * size_of::<Row>()
            + self.samples.capacity() * size_of::<RowSample>()
            + self.histograms.capacity() * size_of::<RowHistogram>()
            + self.exemplars.capacity() * size_of::<RowExemplar>()
            + self.blob.capacity()
            + self.spill.capacity()
            + self.symbols.capacity() * size_of::<(u32, u32)>()
            + self.refs.capacity() * size_of::<u32>()
    }

    /// How many samples, histograms and exemplars there are, refused ones included.
    pub(crate) fn item_count(&self) -> u64 {
        (self.samples.len() + self.histograms.len() + self.exemplars.len()) as u64
    }

    /// Whether a request holds more than it may.
    #[inline]
    pub(crate) fn is_full(&self) -> bool {
        self.series.len() + self.samples.len() + self.histograms.len() + self.exemplars.len() > ITEMS_MAX
    }

    /// Samples, histograms and exemplars of the rows that `which` selects.
    pub(crate) fn count_items(&self, mut which: impl FnMut(&Row) -> bool) -> [u64; 3] {
        let mut of = |row: u32| u64::from(which(&self.series[row as usize]));
        let samples = self.samples.iter().map(|s| of(s.row)).sum();
        let histograms = self.histograms.iter().map(|h| of(h.row)).sum();
        [samples, histograms, self.exemplars.iter().map(|e| of(e.row)).sum()]
    }

    /// Adds a row of a cached spelling and returns its number.
    #[inline]
    pub(crate) fn push_placed(&mut self, raw: u32, place: Place, labels: (u32, u32), form: LabelForm) -> u32 {
        let row = self.series.len() as u32;
        if place.sent == NEEDS_LABELS {
            self.needs_labels.push(row);
        }
        let (entry, sent, shard) = (place.entry, place.sent, place.shard);
        self.series.push(Row { raw, entry, sent, shard, labels, form, has_data: false, flags: 0 });
        row
    }

    /// Adds a row without a place: its label bytes are not in the cache.
    pub(crate) fn push_miss(&mut self, labels: (u32, u32), form: LabelForm, hash: u128) {
        let row = self.series.len() as u32;
        self.misses.push(Miss { row, hash });
        self.needs_labels.push(row);
        self.series.push(Row::unplaced(labels, form));
    }

    /// Takes back the last row, and what was noted about it.
    pub(crate) fn pop_row(&mut self) {
        self.series.pop();
        let row = self.series.len() as u32;
        if self.needs_labels.last() == Some(&row) {
            self.needs_labels.pop();
        }
        if self.misses.last().is_some_and(|m| m.row == row) {
            self.misses.pop();
        }
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
