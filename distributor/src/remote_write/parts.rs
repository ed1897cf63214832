//! What both versions of remote write have: histograms, and exemplars with their limits.

use prost::Message;
use sextant_model::{Histogram, ResetHint, Span, deltas_to_counts, stale_nan};
use sextant_proto::{
    ErrorClass,
    remote_write::{self as wire_format, HistogramCount, HistogramZeroCount},
};

use crate::{
    canonical::{Pairs, put_text},
    rows::{RowExemplar, RowHistogram, Rows},
    wire::{WireError, wire_error},
};

/// Label characters that an exemplar may have, as OpenMetrics says.
const EXEMPLAR_CHARACTERS_MAX: usize = 128;

/// Adds an exemplar, or counts it as dropped where its labels are too long or are none: an exemplar never fails a
/// request, as in Prometheus.
pub(super) fn push_exemplar(row: u32, t: i64, v: f64, pairs: &mut Pairs<'_>, rows: &mut Rows) {
    let characters = |b: &[u8]| std::str::from_utf8(b).map(|s| s.chars().count());
    let size: Result<usize, std::str::Utf8Error> =
        pairs.iter().map(|(n, v)| Ok(characters(n)? + characters(v)?)).sum();
    pairs.sort();
    let twice = pairs.windows(2).any(|p| p[0].0 == p[1].0);
    let unnamed = pairs.first().is_some_and(|p| p.0.is_empty());
    if twice || unnamed || !size.is_ok_and(|s| s <= EXEMPLAR_CHARACTERS_MAX) {
        rows.exemplars_dropped += 1;
        return;
    }
    let labels = rows.put_blob(|out| {
        for (name, value) in pairs.iter().filter(|(_, v)| !v.is_empty()) {
            put_text(out, name);
            put_text(out, value);
        }
    });
    rows.exemplars.push(RowExemplar { row, t, v, labels });
}

/// Adds a histogram, or refuses it and keeps the rest of its series; `show` gives the series as text.
pub(super) fn push_histogram(
    message: &[u8],
    at: usize,
    row: u32,
    rows: &mut Rows,
    show: impl FnOnce() -> String,
) -> Result<(), WireError> {
    let sent = wire_format::Histogram::decode(message).map_err(|_| wire_error("malformed histogram", at))?;
    match to_model(&sent) {
        Ok(h) => {
            let encoded = rows.put_blob(|out| h.encode(out));
            rows.histograms.push(RowHistogram {
                row,
                t: sent.timestamp,
                start: sent.start_timestamp,
                encoded,
            });
        }
        Err(reason) => {
            rows.refused.items += 1;
            rows.refused.push(ErrorClass::BadRequest, || {
                let shown = show();
                let reason = format!("invalid histogram for series {shown}: {reason}");
                (shown, reason)
            });
        }
    }
    Ok(())
}

/// Converts and validates; the error says what is wrong.
fn to_model(h: &wire_format::Histogram) -> Result<Histogram, String> {
    let integer = !matches!(h.count, Some(HistogramCount::CountFloat(_)));
    if sextant_model::is_stale_nan(h.sum) {
        // A marker has no content; whatever came with it is not looked at.
        return Ok(Histogram { sum: stale_nan(), integer, schema: 0, ..Histogram::default() });
    }
    let spans = |of: &[wire_format::BucketSpan]| {
        of.iter().map(|s| Span { offset: s.offset, length: s.length }).collect::<Vec<_>>()
    };
    let counts =
        |deltas: &[i64], floats: &[f64]| if integer { deltas_to_counts(deltas) } else { floats.to_vec() };
    let mut out = Histogram {
        reset_hint: match h.reset_hint {
            1 => ResetHint::Reset,
            2 => ResetHint::NoReset,
            3 => ResetHint::Gauge,
            _ => ResetHint::Unknown,
        },
        schema: h.schema,
        integer,
        zero_threshold: h.zero_threshold,
        zero_count: match h.zero_count {
            None => 0.0,
            Some(HistogramZeroCount::ZeroCountInt(n)) => n as f64,
            Some(HistogramZeroCount::ZeroCountFloat(f)) => f,
        },
        count: match h.count {
            None => 0.0,
            Some(HistogramCount::CountInt(n)) => n as f64,
            Some(HistogramCount::CountFloat(f)) => f,
        },
        sum: h.sum,
        positive_spans: spans(&h.positive_spans),
        positive_buckets: counts(&h.positive_deltas, &h.positive_counts),
        negative_spans: spans(&h.negative_spans),
        negative_buckets: counts(&h.negative_deltas, &h.negative_counts),
        custom_values: h.custom_values.clone(),
    };
    // Finer schemas than ours exist in the protocol; merging their buckets loses no observation.
    let finest = sextant_model::EXPONENTIAL_SCHEMA_MAX;
    if out.schema > finest && out.schema <= PROTOCOL_SCHEMA_MAX {
        out.reduce_resolution(finest).map_err(|e| e.to_string())?;
    }
    out.validate().map_err(|e| e.to_string())?;
    Ok(out)
}

/// The finest schema that the protocol reserves.
const PROTOCOL_SCHEMA_MAX: i32 = 52;
