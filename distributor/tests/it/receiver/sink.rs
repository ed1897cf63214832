//! Decoded requests: the way in for the agent and OTLP.

use sextant_model::{
    Exemplar, Histogram, HistogramSample, Labels, MetricMetadata, MetricType, Sample, Span, TenantId,
};
use sextant_proto::{ErrorClass, SeriesWrite, Temporality, WriteRequest, WriteSink};

use super::{
    encode::series,
    shards::{Shards, send},
};

fn labels(pairs: &[(&str, &str)]) -> Labels {
    Labels::from_pairs(pairs.iter().copied()).unwrap()
}

fn write(of: Labels, t: i64, temporality: Temporality) -> SeriesWrite {
    let samples = vec![Sample { t, v: 1.5, start: t - 1 }];
    SeriesWrite { labels: of, samples, temporality, ..SeriesWrite::default() }
}

#[tokio::test]
async fn everything_arrives() {
    let shards = Shards::new(3);
    let d = shards.plain();
    let h = Histogram {
        schema: 1,
        integer: true,
        count: 3.0,
        sum: 4.0,
        positive_spans: vec![Span { offset: 0, length: 2 }],
        positive_buckets: vec![1.0, 2.0],
        ..Histogram::default()
    };
    let bad = Histogram { count: 9.0, ..h.clone() };
    let metadata = MetricMetadata { metric_type: MetricType::Histogram, help: "h".into(), unit: "s".into() };
    let request = WriteRequest {
        series: vec![
            write(labels(&[("__name__", "a"), ("x", "1")]), 10, Temporality::Cumulative),
            SeriesWrite {
                labels: labels(&[("__name__", "h")]),
                histograms: vec![
                    HistogramSample { t: 5, start: 2, h: h.clone() },
                    HistogramSample { t: 6, start: 2, h: bad },
                ],
                exemplars: vec![Exemplar { t: 5, v: 0.5, labels: labels(&[("trace_id", "x")]) }],
                metadata: Some(metadata.clone()),
                ..SeriesWrite::default()
            },
            write(labels(&[("no_name", "a")]), 10, Temporality::Cumulative),
        ],
        metadata: vec![("other".into(), metadata.clone())],
        write_id: None,
    };
    let tenant = TenantId::anonymous();
    let summary = d.write(&tenant, request.clone()).await.unwrap();
    assert_eq!(
        (summary.samples, summary.histograms, summary.exemplars, summary.refused_samples),
        (1, 1, 1, 2)
    );
    assert!(summary.refused.iter().all(|r| r.class == ErrorClass::BadRequest));
    assert!(summary.refused[0].reason.contains("invalid histogram for series h: "), "{:?}", summary.refused);
    assert!(summary.refused[1].reason.contains("no metric name"), "{:?}", summary.refused);
    // The same content is the same write.
    assert_eq!(d.write(&tenant, request).await.unwrap().samples, 1);
    let state = shards.0.lock();
    assert_eq!(state.of(r#"a{x="1"}"#).samples, [(10, 1.5f64.to_bits(), 9)]);
    assert_eq!(state.of("h").histograms, [(5, 2, h)]);
    assert_eq!(state.of("h").exemplars.len(), 1);
    let mut families: Vec<&str> = state.metadata.iter().map(|m| m.1.as_str()).collect();
    families.sort_unstable();
    assert_eq!(families, ["h", "other"]);
}

#[tokio::test]
async fn increments_are_announced_as_such_also_for_a_known_series() {
    let shards = Shards::new(1);
    let d = shards.plain();
    let tenant = TenantId::anonymous();
    assert_eq!(send(&d, 1, &series(&[("__name__", "a")], &[(1, 1.0)])).await.status, 204);
    for t in 2..5 {
        let request = WriteRequest {
            series: vec![write(labels(&[("__name__", "a")]), t, Temporality::Delta)],
            ..WriteRequest::default()
        };
        d.write(&tenant, request).await.unwrap();
    }
    let state = shards.0.lock();
    assert!(state.of("a").is_delta);
    assert_eq!(state.new_series, 2);
    assert_eq!(state.of("a").samples.len(), 4);
}

#[tokio::test]
async fn a_given_write_id_is_kept() {
    let shards = Shards::new(1);
    let d = shards.plain();
    for t in 0..2 {
        let request = WriteRequest {
            series: vec![write(labels(&[("__name__", "a")]), t, Temporality::Cumulative)],
            write_id: Some(7),
            ..WriteRequest::default()
        };
        d.write(&TenantId::anonymous(), request).await.unwrap();
    }
    let state = shards.0.lock();
    assert_eq!(state.write_ids, [7, 7]);
    assert_eq!(state.of("a").samples.len(), 1);
}
