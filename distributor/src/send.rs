//! From rows to batches to shards: labels for what a shard does not know, then refs remembered.
//!
//! What fails and what then happens: a shard that has begun a new epoch refuses the batch whole; its rows are sent
//! again with labels, under the same write id. A shard that cannot be reached fails the request; parts may be durable
//! in other shards, and the sender's repetition carries the same write id, so nothing is stored twice.

use bytes::Bytes;
use hashbrown::HashMap;
use sextant_model::TenantId;
use sextant_proto::{
    BatchHeader, ErrorClass, ShardError, ShardId, TenantLimits, WriteError, WriteRequest, WriteSummary,
};

use crate::{
    identity::{Form, KeyedHash},
    metrics::add,
    resolve::identity,
    rows::{NEEDS_LABELS, REFUSED},
    service::{Distributor, TenantState},
    workspace::Workspace,
};

/// One shard's part of a request.
pub(crate) struct Batch {
    pub shard: u32,
    bytes: Bytes,
    /// The rows of its new series, in order.
    pub new_rows: Vec<u32>,
}

/// What is the same for all batches of a request.
struct Common<'a> {
    tenant: &'a TenantId,
    limits: &'a TenantLimits,
    decoded: Option<&'a WriteRequest>,
    write_id: u128,
}

impl Distributor {
    /// Sends the workspace's rows; returns when all shards have them on disk.
    pub(crate) async fn send(
        &self,
        tenant: &TenantId,
        state: &TenantState,
        limits: &TenantLimits,
        workspace: &mut Workspace,
        decoded: Option<&WriteRequest>,
        write_id: u128,
    ) -> Result<WriteSummary, WriteError> {
        self.resolve_misses(tenant, state, workspace, decoded, limits);
        let common = Common { tenant, limits, decoded, write_id };
        let mut open: Vec<u32> = (0..workspace.epochs.len() as u32).collect();
        for _ in 0..=self.config().stale_epoch_retries {
            let batches = self.batches(&common, workspace, &open);
            let mut again = Vec::new();
            let mut failure: Option<ShardError> = None;
            for (batch, answer) in batches.iter().zip(self.append_all(&batches).await) {
                match answer {
                    Ok(outcome) => self.applied(state, workspace, decoded, limits, batch, &outcome),
                    Err(ShardError::StaleEpoch { current }) => {
                        add(&self.metrics().stale_epochs, 1);
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
        }
        let reason = "a shard began new epochs too often while it was written to; repeat the request";
        Err(WriteError::new(ErrorClass::Unavailable, reason))
    }

    async fn append_all(&self, batches: &[Batch]) -> Vec<Result<sextant_proto::AppendOutcome, ShardError>> {
        let append = |b: &Batch| self.shards().append(ShardId(b.shard), b.bytes.clone());
        match batches {
            [one] => vec![append(one).await],
            all => futures::future::join_all(all.iter().map(append)).await,
        }
    }

    /// The batches of the open shards.
    fn batches(&self, common: &Common<'_>, workspace: &mut Workspace, open: &[u32]) -> Vec<Batch> {
        let shard_count = workspace.epochs.len();
        workspace.builders.resize_with(shard_count, Default::default);
        let mut is_open = vec![false; shard_count];
        for &shard in open {
            is_open[shard as usize] = true;
        }
        let mut new_rows = self.announce(common, workspace, &is_open);
        workspace.fill_builders(&is_open);
        let now_ms = self.now_ms();
        let mut out = Vec::with_capacity(open.len());
        for &shard in open {
            let builder = &mut workspace.builders[shard as usize];
            if builder.is_empty() {
                continue;
            }
            let header = BatchHeader {
                tenant: common.tenant.as_str(),
                write_id: common.write_id,
                epoch: workspace.epochs[shard as usize],
                max_series: common.limits.max_active_series.div_ceil(shard_count as u64),
                ooo_window_ms: common.limits.out_of_order_window.get_ms().unwrap_or(-1),
                now_ms,
            };
            let new_rows = new_rows.get_mut(shard as usize).map(std::mem::take).unwrap_or_default();
            out.push(Batch { shard, bytes: builder.finish(&header), new_rows });
        }
        out
    }

    /// Adds the labels of rows that need them; returns the rows of each shard's new series in order, or nothing where
    /// no row needs labels.
    fn announce(&self, common: &Common<'_>, workspace: &mut Workspace, is_open: &[bool]) -> Vec<Vec<u32>> {
        let needs_labels = std::mem::take(&mut workspace.rows.needs_labels);
        if needs_labels.is_empty() {
            return Vec::new();
        }
        let mut new_rows = vec![Vec::new(); is_open.len()];
        let hash = KeyedHash::of(Form::Canonical);
        let mut announced = HashMap::<u128, u32, foldhash::fast::RandomState>::default();
        let mut canonical = Vec::new();
        for &row in &needs_labels {
            let at = workspace.rows.series[row as usize];
            if at.sent != NEEDS_LABELS || !at.has_data || !is_open[at.shard as usize] {
                continue;
            }
            canonical.clear();
            let labels = workspace.canonical_labels(row, common.decoded, common.limits, &mut canonical);
            if let Err((series, reason)) = labels {
                // Only limits that were lowered since the series was learned.
                workspace.rows.refused.push(ErrorClass::BadRequest, || (series, reason));
                workspace.rows.series[row as usize].sent = REFUSED;
                continue;
            }
            // A batch brings each series once. Rows of one entry are one series, unless entries have become void.
            let key = if workspace.rows.is_void {
                identity(hash.hash(&canonical), at.flags)
            } else {
                u128::from(at.entry)
            };
            let sent = *announced.entry(key).or_insert_with(|| {
                new_rows[at.shard as usize].push(row);
                workspace.builders[at.shard as usize].new_series(&canonical, at.flags)
            });
            workspace.rows.series[row as usize].sent = sent;
        }
        let count = announced.len() as u64;
        add(&self.metrics().labels_sent, count);
        workspace.rows.needs_labels = needs_labels;
        new_rows
    }

    /// Builds the batches of a request whose series are all known, for measuring; returns their bytes.
    pub(crate) fn build_only(&self, tenant: &TenantId, workspace: &mut Workspace) -> usize {
        let limits = self.limits_of(tenant);
        let common = Common { tenant, limits: &limits, decoded: None, write_id: 0 };
        let open: Vec<u32> = (0..workspace.epochs.len() as u32).collect();
        self.batches(&common, workspace, &open).iter().map(|b| b.bytes.len()).sum()
    }
}
