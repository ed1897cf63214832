//! From rows to batches to shards: labels for what a shard does not know, then refs remembered.
//!
//! What fails and what then happens: a shard that has begun a new epoch refuses the batch whole; its rows are sent again with labels,
//! under the same write id. A shard that cannot be reached fails the request; parts may be durable in other shards, and
//! the sender's repetition carries the same write id, so nothing is stored twice.

use bytes::Bytes;
use hashbrown::HashMap;
use sextant_model::TenantId;
use sextant_proto::{
    AppendOutcome, BatchHeader, ErrorClass, NEW_SERIES_BASE, RefusalKind, ShardError, ShardId, TenantLimits, WriteError,
    WriteRequest, WriteSummary,
};

use crate::{
    canonical::{Pairs, canonicalise, route, shard_at, show_pairs},
    identity::{Form, KeyedHash},
    metrics::DistributorMetrics,
    remote_write::pairs_of_row,
    rows::{LabelForm, NEEDS_LABELS, NO_ENTRY, REFUSED, Rows, slice},
    service::{Distributor, TenantState, Workspace},
};

fn now_ms() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64)
}

impl Distributor {
    /// Sends the workspace's rows; returns when all shards have them on disk.
    pub(crate) async fn send(
        &self,
        tenant: &TenantId,
        workspace: &mut Workspace,
        decoded: Option<&WriteRequest>,
        write_id: u128,
    ) -> Result<WriteSummary, WriteError> {
        let limits = self.limits_of(tenant);
        let state = self.tenant(tenant);
        self.resolve_misses(tenant, &state, workspace, decoded, &limits);
        let shard_count = workspace.epochs.len();
        let mut open: Vec<u32> = (0..shard_count as u32).collect();
        for attempt in 0..=self.config().stale_epoch_retries {
            let batches = self.batches(tenant, workspace, decoded, &limits, write_id, &open);
            let asked = batches.iter().map(|b| self.shards().append(ShardId(b.shard), b.bytes.clone()));
            let answers = futures::future::join_all(asked).await;
            let mut again = Vec::new();
            let mut failure = None;
            for (batch, answer) in batches.iter().zip(answers) {
                match answer {
                    Ok(outcome) => self.applied(&state, workspace, decoded, &limits, batch, &outcome),
                    Err(ShardError::StaleEpoch { current }) => {
                        DistributorMetrics::add(&self.metrics().stale_epochs, 1);
                        workspace.epochs[batch.shard as usize] = current;
                        again.push(batch.shard);
                    }
                    Err(e) => failure = Some(e),
                }
            }
            if let Some(e) = failure {
                return Err(WriteError::new(e.class(), e.to_string()));
            }
            if again.is_empty() {
                return Ok(self.summary(workspace));
            }
            workspace.forget_refs(&again);
            open = again;
            tracing::debug!(attempt, "a shard has begun a new epoch; sending labels again");
        }
        Err(WriteError::new(ErrorClass::Unavailable, "a shard began new epochs too often while it was written to; repeat the request"))
    }

    /// Gives rows whose label bytes were never seen a place: parses, checks and sorts their labels, once.
    fn resolve_misses(
        &self,
        tenant: &TenantId,
        state: &TenantState,
        workspace: &mut Workspace,
        decoded: Option<&WriteRequest>,
        limits: &TenantLimits,
    ) {
        if workspace.rows.misses.is_empty() {
            return;
        }
        let misses = std::mem::take(&mut workspace.rows.misses);
        let keyed = KeyedHash::of(Form::Canonical);
        let mut canonical = Vec::new();
        let mut placed = Vec::with_capacity(misses.len());
        for miss in &misses {
            canonical.clear();
            match workspace.canonical_labels(miss.row, decoded, limits, &mut canonical) {
                Ok(()) => {
                    let place = route(tenant.as_str(), &canonical, self.config().target_split);
                    let raw = decoded.is_none().then_some((miss.hash, workspace.rows.series[miss.row as usize].labels.1 as usize));
                    placed.push((miss.row, raw, keyed.hash(&canonical), place));
                }
                Err((series, reason)) => {
                    let class = ErrorClass::BadRequest;
                    workspace.rows.refused.push(class, || (series, reason));
                    workspace.rows.series[miss.row as usize].sent = REFUSED;
                }
            }
        }
        let shard_count = workspace.epochs.len() as u32;
        let mut cache = state.cache.write(workspace.rows.generation);
        let mut previous = NO_ENTRY;
        for (row, raw, hash, place) in placed {
            let at = &mut workspace.rows.series[row as usize];
            at.shard = shard_at(place, shard_count);
            if let Some(cache) = &mut cache {
                let entry = cache.insert(raw, hash, place);
                cache.link(previous, entry);
                previous = entry;
                let known = cache.place(entry, &workspace.epochs);
                (at.raw, at.entry, at.sent) = (entry, known.entry, known.sent);
            }
        }
        drop(cache);
        workspace.rows.misses = misses;
        let rows = &mut workspace.rows;
        rows.needs_labels.clear();
        rows.needs_labels.extend((0..rows.series.len() as u32).filter(|&r| rows.series[r as usize].sent == NEEDS_LABELS));
    }

    fn batches(
        &self,
        tenant: &TenantId,
        workspace: &mut Workspace,
        decoded: Option<&WriteRequest>,
        limits: &TenantLimits,
        write_id: u128,
        open: &[u32],
    ) -> Vec<Batch> {
        let shard_count = workspace.epochs.len();
        workspace.builders.resize_with(shard_count, Default::default);
        let is_open: Vec<bool> = (0..shard_count as u32).map(|s| open.contains(&s)).collect();
        let mut new_rows: Vec<Vec<u32>> = vec![Vec::new(); shard_count];
        let mut by_entry = HashMap::<u32, u32, foldhash::fast::RandomState>::default();
        let mut canonical = Vec::new();
        for row in std::mem::take(&mut workspace.rows.needs_labels) {
            let at = workspace.rows.series[row as usize];
            if at.sent == REFUSED || !is_open[at.shard as usize] {
                continue;
            }
            if at.entry != NO_ENTRY
                && let Some(&sent) = by_entry.get(&at.entry)
            {
                workspace.rows.series[row as usize].sent = sent;
                continue;
            }
            canonical.clear();
            if let Err((series, reason)) = workspace.canonical_labels(row, decoded, limits, &mut canonical) {
                workspace.rows.refused.push(ErrorClass::BadRequest, || (series, reason));
                workspace.rows.series[row as usize].sent = REFUSED;
                continue;
            }
            let sent = workspace.builders[at.shard as usize].new_series(&canonical, at.flags);
            DistributorMetrics::add(&self.metrics().labels_sent, 1);
            workspace.rows.series[row as usize].sent = sent;
            new_rows[at.shard as usize].push(row);
            if at.entry != NO_ENTRY {
                by_entry.insert(at.entry, sent);
            }
        }
        workspace.fill_builders(&is_open);
        let per_shard = |limit: u64| if limit == 0 { 0 } else { limit.div_ceil(shard_count as u64) };
        let mut out = Vec::with_capacity(shard_count);
        for (shard, new_rows) in (0..shard_count as u32).zip(new_rows) {
            let builder = &mut workspace.builders[shard as usize];
            if !is_open[shard as usize] || builder.is_empty() {
                continue;
            }
            let header = BatchHeader {
                tenant: tenant.as_str(),
                write_id,
                epoch: workspace.epochs[shard as usize],
                max_series: per_shard(limits.max_active_series),
                ooo_window_ms: limits.out_of_order_window.get_ms().unwrap_or(-1),
                now_ms: now_ms(),
            };
            out.push(Batch { shard, bytes: builder.finish(&header), new_rows });
        }
        out
    }

    fn applied(
        &self,
        state: &TenantState,
        workspace: &mut Workspace,
        decoded: Option<&WriteRequest>,
        limits: &TenantLimits,
        batch: &Batch,
        outcome: &AppendOutcome,
    ) {
        let rows = &workspace.rows;
        let given = batch.new_rows.iter().zip(&outcome.new_refs);
        let refs = given.filter(|(_, r)| **r != u32::MAX).map(|(row, r)| (rows.series[*row as usize].entry, *r));
        state.cache.record(rows.generation, outcome.epoch, refs);
        for refusal in &outcome.refused {
            workspace.refused_items += u64::from(refusal.samples);
            let row = if refusal.series >= NEW_SERIES_BASE {
                batch.new_rows.get((refusal.series - NEW_SERIES_BASE) as usize).copied()
            } else {
                workspace.rows.series.iter().position(|r| r.shard == batch.shard && r.sent == refusal.series).map(|i| i as u32)
            };
            let Some(row) = row else { continue };
            let shown = workspace.show(row, decoded);
            let (class, reason) = match refusal.kind {
                RefusalKind::SeriesLimit => (
                    ErrorClass::TooManyRequests,
                    format!(
                        "limit max_active_series ({}) exceeded by series {shown}; raise it with limits key max_active_series",
                        limits.max_active_series
                    ),
                ),
                RefusalKind::OutsideWindow => (
                    ErrorClass::BadRequest,
                    format!(
                        "limit out_of_order_window ({}) exceeded by a sample of series {shown}; raise it with limits key out_of_order_window",
                        limits.out_of_order_window
                    ),
                ),
            };
            workspace.rows.refused.push(class, || (shown, reason));
        }
    }

    fn summary(&self, workspace: &mut Workspace) -> WriteSummary {
        let rows = &mut workspace.rows;
        let [samples, histograms, exemplars] = rows.count_items(|r| r.sent != REFUSED);
        let refused_rows: u64 = rows.count_items(|r| r.sent == REFUSED).iter().sum();
        let mut summary = WriteSummary {
            samples,
            histograms,
            exemplars,
            refused: std::mem::take(&mut rows.refused.named),
            refused_samples: refused_rows.max(rows.refused.count) + workspace.refused_items,
        };
        // What shards refused is of either kind; it is counted off the samples first.
        let mut left = workspace.refused_items;
        for n in [&mut summary.samples, &mut summary.histograms, &mut summary.exemplars] {
            let off = left.min(*n);
            *n -= off;
            left -= off;
        }
        if summary.refused.is_empty() {
            summary.refused_samples = 0;
        }
        let m = self.metrics();
        DistributorMetrics::add(&m.samples, summary.samples);
        DistributorMetrics::add(&m.histograms, summary.histograms);
        DistributorMetrics::add(&m.exemplars, summary.exemplars);
        DistributorMetrics::add(&m.refused_series, rows.refused.count);
        summary
    }
}

/// One shard's part of a request.
pub(crate) struct Batch {
    shard: u32,
    bytes: Bytes,
    /// The rows of its new series, in order.
    new_rows: Vec<u32>,
}

impl Workspace {
    /// Appends a row's canonical labels; the error is the series as text and the reason.
    fn canonical_labels(
        &self,
        row: u32,
        decoded: Option<&WriteRequest>,
        limits: &TenantLimits,
        out: &mut Vec<u8>,
    ) -> Result<(), (String, String)> {
        let mut pairs = self.pairs(row, decoded).map_err(|reason| (String::new(), format!("malformed labels: {reason}")))?;
        canonicalise(&mut pairs, limits, out).map_err(|refusal| {
            let shown = show_pairs(&pairs);
            let reason = refusal.reason(&shown);
            (shown, reason)
        })
    }

    fn pairs<'a>(&'a self, row: u32, decoded: Option<&'a WriteRequest>) -> Result<Pairs<'a>, &'static str> {
        let at = &self.rows.series[row as usize];
        match at.form {
            LabelForm::Body => pairs_of_row(slice(&self.raw, at.labels), at.form, self.v2),
            LabelForm::Spill | LabelForm::Canonical => pairs_of_row(slice(&self.rows.spill, at.labels), at.form, self.v2),
            LabelForm::Model => {
                let series = decoded.and_then(|d| d.series.get(at.labels.0 as usize)).ok_or("a series that is not there")?;
                Ok(series.labels.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())).collect())
            }
        }
    }

    fn show(&self, row: u32, decoded: Option<&WriteRequest>) -> String {
        self.pairs(row, decoded).map(|p| show_pairs(&p)).unwrap_or_default()
    }

    /// Rows of these shards need labels again.
    fn forget_refs(&mut self, shards: &[u32]) {
        let Rows { series, needs_labels, .. } = &mut self.rows;
        needs_labels.clear();
        for (i, row) in series.iter_mut().enumerate() {
            if row.sent != REFUSED && shards.contains(&row.shard) {
                row.sent = NEEDS_LABELS;
                needs_labels.push(i as u32);
            }
        }
    }

    fn fill_builders(&mut self, is_open: &[bool]) {
        let Self { rows, builders, .. } = self;
        let place = |row: u32| {
            let at = &rows.series[row as usize];
            (is_open[at.shard as usize] && at.sent != REFUSED && at.sent != NEEDS_LABELS).then_some((at.shard as usize, at.sent))
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
        for m in &rows.metadata {
            if is_open.get(m.shard as usize).copied().unwrap_or(false) {
                builders[m.shard as usize].metadata(&m.family, &m.metadata);
            }
        }
    }
}
