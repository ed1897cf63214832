//! What shards answered: refs to remember, refusals to name, and the summary for the sender.

use hashbrown::HashMap;
use sextant_proto::{
    AppendOutcome, ErrorClass, Refusal, RefusalKind, TenantLimits, WriteRequest, WriteSummary,
};

use crate::{
    metrics::add,
    rows::REFUSED,
    send::Batch,
    service::{Distributor, TenantState},
    workspace::Workspace,
};

impl Distributor {
    /// Takes note of what a shard answered.
    pub(crate) fn applied(
        &self,
        state: &TenantState,
        workspace: &mut Workspace,
        decoded: Option<&WriteRequest>,
        limits: &TenantLimits,
        batch: &Batch,
        outcome: &AppendOutcome,
    ) {
        let rows = &workspace.rows;
        if !batch.new_rows.is_empty() {
            let given = batch.new_rows.iter().zip(&outcome.new_refs).filter(|(_, given)| **given != u32::MAX);
            let refs = given.map(|(row, given)| (rows.series[*row as usize].entry, *given));
            state.cache.record(rows.generation, outcome.epoch, refs);
        }
        if !rows.metadata.is_empty() {
            let keys = rows.metadata.iter().filter(|m| m.shard == batch.shard).map(|m| m.key);
            state.metadata.record(keys, batch.shard, outcome.epoch);
        }
        if !outcome.refused.is_empty() {
            workspace.refuse(batch.shard, &outcome.refused, decoded, limits);
        }
    }

    /// What became of the request, once all shards have answered.
    pub(crate) fn summary(&self, workspace: &mut Workspace) -> WriteSummary {
        let rows = &mut workspace.rows;
        let mut stored =
            [rows.samples.len() as u64, rows.histograms.len() as u64, rows.exemplars.len() as u64];
        let mut refused_samples = rows.refused.items;
        if rows.refused.count > 0 {
            let refused_rows = rows.count_items(|r| r.sent == REFUSED);
            for ((n, here), by_shards) in stored.iter_mut().zip(refused_rows).zip(workspace.refused) {
                *n = n.saturating_sub(here + by_shards);
                refused_samples += here + by_shards;
            }
        }
        let m = self.metrics();
        add(&m.samples, stored[0]);
        add(&m.histograms, stored[1]);
        add(&m.exemplars, stored[2]);
        add(&m.refused_series, rows.refused.count);
        add(&m.refused_items, refused_samples);
        add(&m.exemplars_dropped, rows.exemplars_dropped);
        let [samples, histograms, exemplars] = stored;
        let refused = std::mem::take(&mut rows.refused.named);
        WriteSummary { samples, histograms, exemplars, refused, refused_samples }
    }
}

impl Workspace {
    /// Counts and names what a shard refused. A refusal says how many items of a series, not which: they are counted
    /// as samples first, then as histograms, then as exemplars, as far as the series has them.
    fn refuse(
        &mut self,
        shard: u32,
        refusals: &[Refusal],
        decoded: Option<&WriteRequest>,
        limits: &TenantLimits,
    ) {
        struct Items {
            row: u32,
            left: [u64; 3],
        }
        let rows = &self.rows;
        let mut of_series: HashMap<u32, Items> = HashMap::with_capacity(refusals.len());
        for refusal in refusals {
            of_series.insert(refusal.series, Items { row: u32::MAX, left: [0; 3] });
        }
        for (i, row) in rows.series.iter().enumerate().filter(|(_, r)| r.shard == shard) {
            if let Some(items) = of_series.get_mut(&row.sent) {
                items.row = items.row.min(i as u32);
            }
        }
        let rows_of_items = rows.samples.iter().map(|s| (0, s.row));
        let rows_of_items = rows_of_items.chain(rows.histograms.iter().map(|h| (1, h.row)));
        for (kind, row) in rows_of_items.chain(rows.exemplars.iter().map(|e| (2, e.row))) {
            let row = &rows.series[row as usize];
            if row.shard == shard
                && let Some(items) = of_series.get_mut(&row.sent)
            {
                items.left[kind] += 1;
            }
        }
        for refusal in refusals {
            let Some(items) = of_series.get_mut(&refusal.series).filter(|i| i.row != u32::MAX) else {
                continue;
            };
            let mut count = u64::from(refusal.samples);
            for (left, total) in items.left.iter_mut().zip(&mut self.refused) {
                let off = count.min(*left);
                (*left, *total, count) = (*left - off, *total + off, count - off);
            }
            let shown = self.show(items.row, decoded);
            let (class, reason) = reason(refusal.kind, &shown, limits);
            self.rows.refused.push(class, || (shown, reason));
        }
    }
}

fn reason(kind: RefusalKind, series: &str, limits: &TenantLimits) -> (ErrorClass, String) {
    let (class, key, value, by) = match kind {
        RefusalKind::SeriesLimit => {
            (ErrorClass::TooManyRequests, "max_active_series", limits.max_active_series.to_string(), "new")
        }
        RefusalKind::OutsideWindow => {
            let value = limits.out_of_order_window.to_string();
            (ErrorClass::BadRequest, "out_of_order_window", value, "a sample of")
        }
    };
    (class, format!("limit {key} ({value}) exceeded by {by} series {series}; raise it with limits key {key}"))
}
