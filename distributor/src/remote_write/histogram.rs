//! Native histograms of both protocol versions in the model's form.

use sextant_model::{Histogram, ResetHint, Span, deltas_to_counts};
use sextant_proto::remote_write::{self as wire, HistogramCount, HistogramZeroCount};

fn spans(of: &[wire::BucketSpan]) -> Vec<Span> {
    of.iter().map(|s| Span { offset: s.offset, length: s.length }).collect()
}

/// Converts and validates; the error says what is wrong.
pub(crate) fn model(h: &wire::Histogram) -> Result<Histogram, String> {
    let integer = matches!(h.count, None | Some(HistogramCount::CountInt(_)));
    let counts = |deltas: &[i64], floats: &[f64]| if integer { deltas_to_counts(deltas) } else { floats.to_vec() };
    let out = Histogram {
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
    if !sextant_model::is_stale_nan(out.sum) {
        out.validate().map_err(|e| e.to_string())?;
    }
    Ok(out)
}
