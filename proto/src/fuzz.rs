//! Entry points for fuzzing: each takes any bytes and must neither panic nor take memory out of proportion to them.

use prost::Message;

use crate::{Limits, TenantLimits, WriteBatchBuilder, WriteBatchView};

/// A remote read request; what is encoded again decodes to the same.
pub fn fuzz_remote_read(bytes: &[u8]) {
    let Ok(request) = crate::remote_read::ReadRequest::decode(bytes) else { return };
    let again = crate::remote_read::ReadRequest::decode(request.encode_to_vec().as_slice());
    assert!(again.is_ok_and(|again| again == request), "a request that came back as another");
}

/// A write batch; what parses and is built again parses to the same.
pub fn fuzz_write_batch(bytes: &[u8]) {
    let Ok(view) = WriteBatchView::parse(bytes) else { return };
    // A few bytes may name billions of values only if they hold them.
    assert!(view.value_count() * 8 <= bytes.len());
    let again = rebuilt(&view);
    let again = WriteBatchView::parse(&again);
    assert!(again.is_ok_and(|again| is_same(&view, &again)), "a batch that came back as another");
}

fn rebuilt(view: &WriteBatchView<'_>) -> bytes::Bytes {
    let mut builder = WriteBatchBuilder::default();
    for new in &view.new_series {
        builder.new_series(new.labels, new.flags);
    }
    let mut start_of = vec![0; view.value_count()];
    for &(first, count, start) in &view.starts {
        start_of[first as usize..(first + count) as usize].fill(start);
    }
    let series = view.runs.iter().flat_map(|r| (r.first..r.first + r.count).map(|s| (s, r.t)));
    for ((series, t), (v, start)) in series.zip(view.values().zip(start_of)) {
        builder.sample(series, t, v, start);
    }
    for h in &view.histograms {
        builder.histogram(h.series, h.t, h.start, h.encoded);
    }
    for e in &view.exemplars {
        builder.exemplar(e.series, e.t, e.v, e.labels);
    }
    for (family, metadata) in &view.metadata {
        builder.metadata(family, metadata);
    }
    builder.finish(&view.header)
}

/// A message of the shards' protocol: the first byte says of which kind, as a request or an answer. What is read says the same
/// when it is encoded again.
pub fn fuzz_rpc_message(bytes: &[u8]) {
    crate::rpc::wire::fuzz_message(bytes);
}

/// Runs and start runs may be split otherwise; all else is as it was.
fn is_same(a: &WriteBatchView<'_>, b: &WriteBatchView<'_>) -> bool {
    let bits = |view: &WriteBatchView<'_>| view.values().map(f64::to_bits).collect::<Vec<_>>();
    let exemplars = |view: &WriteBatchView<'_>| {
        view.exemplars.iter().map(|e| (e.series, e.t, e.v.to_bits(), e.labels.to_vec())).collect::<Vec<_>>()
    };
    a.header == b.header
        && a.new_series == b.new_series
        && bits(a) == bits(b)
        && a.histograms == b.histograms
        && exemplars(a) == exemplars(b)
        && a.metadata == b.metadata
}

/// A limits file; what is read has only values that can be used.
pub fn fuzz_limits(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(limits) = Limits::from_yaml(text, &TenantLimits::default()) {
        assert!(limits.defaults().ingestion_rate >= 0.0);
    }
}
