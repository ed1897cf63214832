//! The reused buffers of one request, and what they say about its series.

use std::sync::Arc;

use sextant_proto::{ShardClient, ShardId, TenantLimits, WriteBatchBuilder, WriteRequest};

use crate::{
    RequestError,
    canonical::{Pairs, canonicalise, pairs_of, show_pairs},
    remote_write::pairs_of_fields,
    rows::{LabelForm, NEEDS_LABELS, REFUSED, Rows, slice},
    wire::WireError,
};

/// Everything that a request needs memory for.
#[derive(Debug, Default)]
pub(crate) struct Workspace {
    /// The decompressed body is the front of this.
    pub raw: Vec<u8>,
    /// How much of it.
    pub size: usize,
    pub rows: Rows,
    /// The shards' epochs when the request began, and newer ones that shards told since.
    pub epochs: Vec<u64>,
    /// One per shard.
    pub builders: Vec<WriteBatchBuilder>,
    /// Samples, histograms and exemplars that shards refused.
    pub refused: [u64; 3],
}

impl Workspace {
    /// Empties the workspace for a new request.
    pub(crate) fn begin(&mut self, shards: &Arc<dyn ShardClient>) -> Result<(), RequestError> {
        self.rows.clear();
        self.builders.iter_mut().for_each(WriteBatchBuilder::clear);
        self.refused = [0; 3];
        self.epochs.clear();
        self.epochs.extend((0..shards.shard_count()).map(|s| shards.epoch(ShardId(s))));
        // Series cannot be spread over shards whose number is not known.
        if self.epochs.is_empty() { Err(RequestError::NoShards) } else { Ok(()) }
    }

    /// Bytes of memory held.
    pub(crate) fn capacity_bytes(&self) -> usize {
        self.raw.capacity() + self.rows.capacity_bytes()
    }

    /// Appends a row's canonical labels; the error is the series as text and the reason.
    pub(crate) fn canonical_labels(
        &self,
        row: u32,
        decoded: Option<&WriteRequest>,
        limits: &TenantLimits,
        out: &mut Vec<u8>,
    ) -> Result<(), (String, String)> {
        let at = &self.rows.series[row as usize];
        if at.form == LabelForm::Canonical {
            out.extend_from_slice(slice(&self.rows.spill, at.labels));
            return Ok(());
        }
        let mut pairs = self.pairs(row, decoded).map_err(|e| {
            let (reason, at) = (e.reason, e.at);
            (String::new(), format!("malformed labels of series {row} of the request: {reason} at byte {at}"))
        })?;
        canonicalise(&mut pairs, limits, out).map_err(|refusal| {
            let shown = show_pairs(&pairs);
            let reason = refusal.reason(&shown);
            (shown, reason)
        })
    }

    fn pairs<'a>(&'a self, row: u32, decoded: Option<&'a WriteRequest>) -> Result<Pairs<'a>, WireError> {
        let at = &self.rows.series[row as usize];
        match at.form {
            LabelForm::Fields => pairs_of_fields(slice(&self.raw, at.labels)),
            LabelForm::SpilledFields => pairs_of_fields(slice(&self.rows.spill, at.labels)),
            LabelForm::Symbols => {
                let symbol = |r: u32| slice(&self.raw, self.rows.symbols[r as usize]);
                let refs = &self.rows.refs[at.labels.0 as usize..][..at.labels.1 as usize];
                Ok(refs.chunks_exact(2).map(|pair| (symbol(pair[0]), symbol(pair[1]))).collect())
            }
            LabelForm::SpilledPairs | LabelForm::Canonical => {
                Ok(pairs_of(slice(&self.rows.spill, at.labels)).collect())
            }
            LabelForm::Model => {
                let series = decoded.and_then(|d| d.series.get(at.labels.0 as usize));
                Ok(series.map(|s| pairs_of(s.labels.as_bytes()).collect()).unwrap_or_default())
            }
        }
    }

    /// A row's series as text.
    pub(crate) fn show(&self, row: u32, decoded: Option<&WriteRequest>) -> String {
        self.pairs(row, decoded).map(|p| show_pairs(&p)).unwrap_or_default()
    }

    /// Rows of these shards need labels again.
    pub(crate) fn forget_refs(&mut self, shards: &[u32]) {
        let Rows { series, needs_labels, .. } = &mut self.rows;
        needs_labels.clear();
        for (i, row) in series.iter_mut().enumerate() {
            if row.sent != REFUSED && shards.contains(&row.shard) {
                row.sent = NEEDS_LABELS;
                needs_labels.push(i as u32);
            }
        }
    }

    /// Adds the items of the open shards' rows to their builders.
    pub(crate) fn fill_builders(&mut self, is_open: &[bool]) {
        let Self { rows, builders, .. } = self;
        let place = |row: u32| {
            let at = &rows.series[row as usize];
            let is_sent = at.sent < NEEDS_LABELS && is_open[at.shard as usize];
            is_sent.then_some((at.shard as usize, at.sent))
        };
        for s in &rows.samples {
            if let Some((shard, sent)) = place(s.row) {
                builders[shard].sample(sent, s.t, s.v, s.start);
            }
        }
        for h in &rows.histograms {
            if let Some((shard, sent)) = place(h.row) {
                builders[shard].histogram(sent, h.t, h.start, slice(&rows.blob, h.encoded));
            }
        }
        for e in &rows.exemplars {
            if let Some((shard, sent)) = place(e.row) {
                builders[shard].exemplar(sent, e.t, e.v, slice(&rows.blob, e.labels));
            }
        }
        for m in rows.metadata.iter().filter(|m| is_open[m.shard as usize]) {
            builders[m.shard as usize].metadata(&m.family, &m.metadata);
        }
    }
}
