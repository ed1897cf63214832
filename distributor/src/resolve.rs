//! Label bytes that the cache does not hold: parsed, checked and sorted once, and given a place.

use sextant_model::TenantId;
use sextant_proto::{ErrorClass, TenantLimits, WriteRequest};

use crate::{
    canonical::{route, shard_at},
    identity::{Form, KeyedHash},
    rows::{LabelForm, NO_ENTRY, REFUSED},
    service::{Distributor, TenantState},
    workspace::Workspace,
};

/// What was found out about a row.
struct Placed {
    row: u32,
    /// Hash and length of the spelling; none for a decoded request's series, whose labels are canonical.
    spelling: Option<(u128, usize)>,
    identity: u128,
    route: u32,
}

/// A series of increments and one of running totals are announced apart, even where their labels are equal.
pub(crate) fn identity(canonical_hash: u128, flags: u8) -> u128 {
    canonical_hash ^ u128::from(flags)
}

impl Distributor {
    /// Gives every row that the walk has missed a shard and, where the cache takes it, an entry; or refuses it.
    ///
    /// Labels are checked without holding the cache. If another request has emptied the cache since the walk, these
    /// rows get no entry: they are sent with labels and learned another time.
    pub(crate) fn resolve_misses(
        &self,
        tenant: &TenantId,
        state: &TenantState,
        workspace: &mut Workspace,
        decoded: Option<&WriteRequest>,
        limits: &TenantLimits,
    ) {
        let misses = std::mem::take(&mut workspace.rows.misses);
        if misses.is_empty() {
            return;
        }
        let hash = KeyedHash::of(Form::Canonical);
        let mut canonical = Vec::new();
        let mut placed = Vec::with_capacity(misses.len());
        for miss in &misses {
            canonical.clear();
            let checked = workspace.canonical_labels(miss.row, decoded, limits, &mut canonical);
            let row = &mut workspace.rows.series[miss.row as usize];
            if let Err((series, reason)) = checked {
                row.sent = REFUSED;
                workspace.rows.refused.push(ErrorClass::BadRequest, || (series, reason));
                continue;
            }
            placed.push(Placed {
                row: miss.row,
                spelling: (row.form != LabelForm::Model).then_some((miss.hash, row.labels.1 as usize)),
                identity: identity(hash.hash(&canonical), row.flags),
                route: route(tenant.as_str(), &canonical, self.config().target_split),
            });
            // From here on the labels need not be parsed again.
            row.labels = (workspace.rows.spill.len() as u32, canonical.len() as u32);
            row.form = LabelForm::Canonical;
            workspace.rows.spill.extend_from_slice(&canonical);
        }
        let shard_count = workspace.epochs.len() as u32;
        let rows = &mut workspace.rows;
        rows.misses = misses;
        let Some(mut cache) = state.cache.write(rows.generation) else {
            for p in &placed {
                rows.series[p.row as usize].shard = shard_at(p.route, shard_count);
            }
            rows.is_void = true;
            return;
        };
        for p in &placed {
            let raw = cache.insert(p.spelling, p.identity, p.route);
            let place = cache.place(raw, &workspace.epochs);
            let row = &mut rows.series[p.row as usize];
            (row.raw, row.entry, row.sent, row.shard) = (raw, place.entry, place.sent, place.shard);
            if let Some(before) = p.row.checked_sub(1) {
                cache.link(rows.series[before as usize].raw, raw);
            }
            if let Some(after) = rows.series.get(p.row as usize + 1).filter(|r| r.raw != NO_ENTRY) {
                cache.link(raw, after.raw);
            }
        }
    }
}
