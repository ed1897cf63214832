//! Requests that come decoded (the agent's, OTLP's): rows of them, and their write id.

use sextant_model::TenantId;
use sextant_proto::{ErrorClass, SERIES_DELTA, Temporality, WriteRequest};
use xxhash_rust::xxh3::Xxh3;

use crate::{
    identity::{Form, Identities, KeyedHash},
    metadata,
    resolve::identity,
    rows::{LabelForm, RowExemplar, RowHistogram, RowSample, Rows},
    service::TenantState,
    workspace::Workspace,
};

/// Takes a decoded request apart into the workspace's rows.
pub(crate) fn take_apart(
    tenant: &TenantId,
    request: &WriteRequest,
    state: &TenantState,
    cached_series_max: usize,
    workspace: &mut Workspace,
) {
    let Workspace { rows, epochs, .. } = workspace;
    let identities = state.cache.read(epochs, cached_series_max);
    rows.generation = identities.generation();
    let hash = KeyedHash::of(Form::Canonical);
    for (i, series) in request.series.iter().enumerate() {
        let flags = if series.temporality == Temporality::Delta { SERIES_DELTA } else { 0 };
        let id = identity(hash.hash(series.labels.as_bytes()), flags);
        let row = push_row(i as u32, id, &identities, epochs, rows);
        rows.series[row as usize].flags = flags;
        let items_before = rows.item_count();
        rows.samples.extend(series.samples.iter().map(|s| RowSample { row, t: s.t, v: s.v, start: s.start }));
        for h in &series.histograms {
            // A marker has no content that could be wrong.
            if !sextant_model::is_stale_nan(h.h.sum)
                && let Err(e) = h.h.validate()
            {
                rows.refused.items += 1;
                rows.refused.push(ErrorClass::BadRequest, || {
                    let shown = series.labels.to_string();
                    let reason = format!("invalid histogram for series {shown}: {e}");
                    (shown, reason)
                });
                continue;
            }
            let encoded = rows.put_blob(|out| h.h.encode(out));
            rows.histograms.push(RowHistogram { row, t: h.t, start: h.start, encoded });
        }
        for e in &series.exemplars {
            let labels = rows.put_blob(|out| out.extend_from_slice(e.labels.as_bytes()));
            rows.exemplars.push(RowExemplar { row, t: e.t, v: e.v, labels });
        }
        rows.series[row as usize].has_data = rows.item_count() > items_before;
        if let Some(m) = &series.metadata {
            let content = (m.metric_type, m.help.as_bytes(), m.unit.as_bytes());
            let family = series.labels.metric_name().as_bytes();
            metadata::push(&state.metadata, tenant.as_str(), epochs, family, content, rows);
        }
    }
    for (family, m) in &request.metadata {
        let content = (m.metric_type, m.help.as_bytes(), m.unit.as_bytes());
        metadata::push(&state.metadata, tenant.as_str(), epochs, family.as_bytes(), content, rows);
    }
}

fn push_row(series: u32, id: u128, identities: &Identities, epochs: &[u64], rows: &mut Rows) -> u32 {
    match identities.find_canonical(id) {
        Some(entry) => {
            rows.push_placed(entry, identities.place(entry, epochs), (series, 0), LabelForm::Model)
        }
        None => {
            rows.push_miss((series, 0), LabelForm::Model, id);
            rows.series.len() as u32 - 1
        }
    }
}

/// The id of a decoded request: a hash of tenant and content, so that the sender's repetition has the same.
pub(crate) fn write_id(tenant: &TenantId, request: &WriteRequest) -> u128 {
    let mut hash = Xxh3::new();
    let mut buf = Vec::new();
    let text = |hash: &mut Xxh3, text: &[u8]| {
        hash.update(&(text.len() as u64).to_le_bytes());
        hash.update(text);
    };
    text(&mut hash, tenant.as_str().as_bytes());
    for s in &request.series {
        text(&mut hash, s.labels.as_bytes());
        hash.update(&[s.temporality as u8]);
        for x in &s.samples {
            hash.update(&x.t.to_le_bytes());
            hash.update(&x.v.to_bits().to_le_bytes());
            hash.update(&x.start.to_le_bytes());
        }
        for h in &s.histograms {
            buf.clear();
            h.h.encode(&mut buf);
            hash.update(&h.t.to_le_bytes());
            hash.update(&h.start.to_le_bytes());
            text(&mut hash, &buf);
        }
        for e in &s.exemplars {
            hash.update(&e.t.to_le_bytes());
            hash.update(&e.v.to_bits().to_le_bytes());
            text(&mut hash, e.labels.as_bytes());
        }
    }
    for (family, m) in &request.metadata {
        text(&mut hash, family.as_bytes());
        hash.update(&[m.metric_type as u8]);
        text(&mut hash, m.help.as_bytes());
        text(&mut hash, m.unit.as_bytes());
    }
    hash.digest128()
}
