//! Answers of reads, put together from their parts.

use std::{ops::Range, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use sextant_model::{Labels, SeriesSet};

use crate::{
    HeadSelection, SelectLimits, ShardError,
    rpc::wire::{
        list::{Item, decode_list},
        series::{NotTaken, Part, Parts},
    },
};

/// Takes the parts of one answer. Begun anew for each attempt: what an attempt brought that broke off is dropped.
pub(super) trait Answer: Send {
    type Done: Send;

    /// The next part. [`NotTaken::Malformed`] is as no answer; the others are final.
    fn take(&mut self, message: Bytes) -> Result<(), NotTaken>;

    fn done(self) -> Result<Self::Done, NotTaken>;
}

pub(super) struct ListAnswer<T>(Vec<T>);

impl<T> Default for ListAnswer<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Item> Answer for ListAnswer<T> {
    type Done = Vec<T>;

    fn take(&mut self, message: Bytes) -> Result<(), NotTaken> {
        self.0.append(&mut decode_list(&message)?);
        Ok(())
    }

    fn done(self) -> Result<Vec<T>, NotTaken> {
        Ok(self.0)
    }
}

/// The selections of a find, as they came.
pub(super) struct FoundAnswer {
    limits: SelectLimits,
    /// Samples of the selections before the last.
    samples: usize,
    selections: Vec<(u32, Parts)>,
}

impl FoundAnswer {
    pub(super) fn new(limits: SelectLimits) -> Self {
        Self { limits, samples: 0, selections: Vec::new() }
    }

    fn add(&mut self, part: Part) -> Result<(), NotTaken> {
        let malformed = |reason| NotTaken::Malformed(crate::write_batch::MalformedBatch(reason));
        match self.selections.last() {
            Some((last, parts)) if *last < part.selection => {
                self.samples += parts.samples();
                self.selections.push((part.selection, Parts::default()));
            }
            Some((last, _)) if *last > part.selection => return Err(malformed("selections out of order")),
            Some(_) => {}
            None => self.selections.push((part.selection, Parts::default())),
        }
        let samples_max = self.limits.samples_max.saturating_sub(self.samples);
        match self.selections.last_mut() {
            Some((_, parts)) => parts.push(part, self.limits.series_max, samples_max),
            None => Err(malformed("no selection")),
        }
    }
}

impl Answer for FoundAnswer {
    type Done = Vec<Arc<dyn HeadSelection>>;

    fn take(&mut self, message: Bytes) -> Result<(), NotTaken> {
        self.add(Part::decode(message)?)
    }

    fn done(self) -> Result<Self::Done, NotTaken> {
        let bytes: usize = self.selections.iter().map(|(_, parts)| parts.bytes()).sum();
        tracing::trace!(bytes, selections = self.selections.len(), "found");
        let selection = |(_, parts)| -> Arc<dyn HeadSelection> { Arc::new(RemoteSelection(parts)) };
        Ok(self.selections.into_iter().map(selection).collect())
    }
}

/// One set.
pub(super) struct SetAnswer {
    limits: SelectLimits,
    parts: Parts,
}

impl SetAnswer {
    pub(super) fn new(limits: SelectLimits) -> Self {
        Self { limits, parts: Parts::default() }
    }
}

impl Answer for SetAnswer {
    type Done = SeriesSet;

    fn take(&mut self, message: Bytes) -> Result<(), NotTaken> {
        self.parts.push(Part::decode(message)?, self.limits.series_max, self.limits.samples_max)
    }

    fn done(self) -> Result<SeriesSet, NotTaken> {
        Ok(self.parts.read(0..self.parts.labels.len())?)
    }
}

/// A selection whose samples are here, as they came.
struct RemoteSelection(Parts);

#[async_trait]
impl HeadSelection for RemoteSelection {
    fn labels(&self) -> &[Labels] {
        &self.0.labels
    }

    fn estimate(&self, i: usize) -> usize {
        self.0.estimate(i)
    }

    async fn read(&self, series: Range<usize>) -> Result<SeriesSet, ShardError> {
        let malformed = |e| ShardError::Unavailable(format!("a shard's answer cannot be read: {e}"));
        self.0.read(series).map_err(malformed)
    }
}
