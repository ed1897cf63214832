//! Remote write 2.0: label names and values are numbers in a table of symbols.
//!
//! A series' spelling is its names and values in the order sent, each with its length; its hash is looked up like 1.0's.

use prost::Message;
use sextant_model::{METRIC_NAME, MetricMetadata, MetricType};
use sextant_proto::{
    ErrorClass,
    remote_write::{RequestV2, TimeSeriesV2},
};

use super::{no_identities, v1::{push_exemplar, push_histogram}};
use crate::{
    RequestError,
    canonical::{Pairs, put_text, show_pairs},
    identity::{Epochs, Form, Identities, KeyedHash},
    rows::{LabelForm, Miss, NEEDS_LABELS, NO_ENTRY, REFUSED, Row, RowMetadata, RowSample, Rows},
};

/// Takes a request apart into rows; every row's labels are in the spill.
pub(crate) fn walk(
    input: &[u8],
    identities: &Identities,
    epochs: &Epochs,
    rows: &mut Rows,
    type_and_unit_labels: bool,
) -> Result<(), RequestError> {
    let malformed = |reason: &'static str| RequestError::Protobuf { message: "io.prometheus.write.v2.Request", reason, at: 0 };
    let request = RequestV2::decode(input).map_err(|_| malformed("not a valid message"))?;
    if request.symbols.first().is_some_and(|s| !s.is_empty()) {
        return Err(malformed("the first symbol must be empty"));
    }
    let hash = KeyedHash::of(Form::V2);
    for series in &request.timeseries {
        let row = rows.series.len() as u32;
        rows.series.push(Row {
            raw: NO_ENTRY,
            entry: NO_ENTRY,
            sent: REFUSED,
            shard: 0,
            labels: (0, 0),
            form: LabelForm::Spill,
            has_data: true,
            flags: 0,
        });
        if let Err((shown, reason)) = one(&request.symbols, series, row, rows, type_and_unit_labels) {
            rows.refused.push(ErrorClass::BadRequest, || (shown, reason));
            continue;
        }
        let labels = rows.series[row as usize].labels;
        let bytes = crate::rows::slice(&rows.spill, labels);
        let of_labels = hash.hash(bytes);
        let at = &mut rows.series[row as usize];
        match identities.find_raw(of_labels, bytes.len()) {
            Some(raw) => {
                let place = identities.place(raw, epochs);
                (at.raw, at.entry, at.sent, at.shard) = (raw, place.entry, place.sent, place.shard);
            }
            None => {
                at.sent = NEEDS_LABELS;
                rows.misses.push(Miss { row, hash: of_labels });
            }
        }
        if rows.series[row as usize].sent == NEEDS_LABELS {
            rows.needs_labels.push(row);
        }
    }
    Ok(())
}

/// Adds a series' labels and data; the error is the series as text and the reason.
fn one(
    symbols: &[String],
    series: &TimeSeriesV2,
    row: u32,
    rows: &mut Rows,
    type_and_unit_labels: bool,
) -> Result<(), (String, String)> {
    let by_refs = || format!("{:?}", series.labels_refs).replace(',', "");
    let mut pairs = resolve(symbols, &series.labels_refs)
        .map_err(|e| (by_refs(), format!("parsing labels for series {}: {e}", by_refs())))?;
    let metadata = metadata(symbols, series)
        .map_err(|e| (by_refs(), format!("parsing metadata for series {}: {e}", by_refs())))?;
    if series.samples.is_empty() && series.histograms.is_empty() {
        let shown = show_pairs(&pairs);
        let reason = format!("TimeSeries must contain at least one sample or histogram for series {shown}");
        return Err((shown, reason));
    }
    if !series.samples.is_empty() && !series.histograms.is_empty() {
        let shown = show_pairs(&pairs);
        let reason = format!("TimeSeries must not contain both samples and histograms for series {shown}");
        return Err((shown, reason));
    }
    let name = pairs.iter().find(|(n, _)| *n == METRIC_NAME.as_bytes()).map(|(_, v)| *v).unwrap_or_default();
    let unit_text;
    if let (true, Some(m)) = (type_and_unit_labels, &metadata) {
        unit_text = m.unit.clone();
        if m.metric_type != MetricType::Unknown {
            pairs.retain(|(n, _)| *n != b"__type__");
            pairs.push((b"__type__", m.metric_type.as_str().as_bytes()));
        }
        if !unit_text.is_empty() {
            pairs.retain(|(n, _)| *n != b"__unit__");
            pairs.push((b"__unit__", unit_text.as_bytes()));
        }
    }
    let start = rows.spill.len();
    for (name, value) in &pairs {
        put_text(&mut rows.spill, name);
        put_text(&mut rows.spill, value);
    }
    rows.series[row as usize].labels = (start as u32, (rows.spill.len() - start) as u32);
    if let (Some(metadata), Ok(family)) = (metadata, std::str::from_utf8(name))
        && !family.is_empty()
        && metadata != MetricMetadata::default()
    {
        rows.metadata.push(RowMetadata { family: family.to_owned(), metadata, shard: 0 });
    }
    for s in &series.samples {
        let start = if s.start_timestamp != 0 { s.start_timestamp } else { series.created_timestamp };
        rows.samples.push(RowSample { row, t: s.timestamp, v: s.value, start });
    }
    for h in &series.histograms {
        push_histogram(h, row, rows);
    }
    for e in &series.exemplars {
        match resolve(symbols, &e.labels_refs) {
            Ok(mut pairs) => push_exemplar(row, e.timestamp, e.value, &mut pairs, rows),
            Err(_) => rows.exemplars_dropped += 1,
        }
    }
    Ok(())
}

fn resolve<'a>(symbols: &'a [String], refs: &[u32]) -> Result<Pairs<'a>, String> {
    if !refs.len().is_multiple_of(2) {
        return Err(format!("invalid labelRefs length {}", refs.len()));
    }
    refs.chunks_exact(2)
        .map(|pair| {
            let of = |r: u32| symbols.get(r as usize).map(|s| s.as_bytes());
            of(pair[0]).zip(of(pair[1])).ok_or_else(|| {
                format!(
                    "labelRefs {} (name) = {} (value) outside of symbols table (size {})",
                    pair[0],
                    pair[1],
                    symbols.len()
                )
            })
        })
        .collect()
}

fn metadata(symbols: &[String], series: &TimeSeriesV2) -> Result<Option<MetricMetadata>, String> {
    let Some(m) = &series.metadata else { return Ok(None) };
    let of = |what: &str, r: u32| {
        let outside = || format!("metadata {what} {r} outside of symbols table (size {})", symbols.len());
        if r == 0 { Ok(String::new()) } else { symbols.get(r as usize).cloned().ok_or_else(outside) }
    };
    let (help, unit) = (of("help_ref", m.help_ref)?, of("unit_ref", m.unit_ref)?);
    // 2.0 numbers the types as 1.0 does, but has gauge histogram and summary in its own order.
    let metric_type = match m.r#type {
        1 => MetricType::Counter,
        2 => MetricType::Gauge,
        3 => MetricType::Histogram,
        4 => MetricType::GaugeHistogram,
        5 => MetricType::Summary,
        6 => MetricType::Info,
        7 => MetricType::StateSet,
        _ => MetricType::Unknown,
    };
    Ok(Some(MetricMetadata { metric_type, help, unit }))
}

/// The pairs of a spelling: names and values in turn, each with its length.
pub(crate) fn pairs(labels: &[u8]) -> Pairs<'_> {
    let mut out: Vec<(&[u8], &[u8])> = Vec::with_capacity(16);
    let mut rest = labels;
    let mut take = || -> Option<&[u8]> {
        let (n, len) = crate::wire::varint(rest).ok()?;
        let (text, tail) = rest.get(len..)?.split_at_checked(n as usize)?;
        rest = tail;
        Some(text)
    };
    while let (Some(name), Some(value)) = (take(), take()) {
        out.push((name, value));
    }
    out
}

/// Walks any bytes.
#[doc(hidden)]
pub fn fuzz_v2(input: &[u8]) {
    let (identities, epochs, mut rows) = no_identities();
    if walk(input, &identities, &epochs, &mut rows, true).is_ok() {
        for row in rows.series.iter().filter(|r| r.sent != REFUSED) {
            let _ = pairs(crate::rows::slice(&rows.spill, row.labels));
        }
    }
}
