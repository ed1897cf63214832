//! Native histograms over both versions of remote write.

use prost::Message;
use sextant_model::STALE_NAN_BITS;
use sextant_proto::remote_write::{
    BucketSpan, Histogram, HistogramCount, HistogramZeroCount, Label, RequestV2, TimeSeriesV1, TimeSeriesV2,
    WriteRequestV1,
};

use super::shards::{Shards, send, written};

fn integer() -> Histogram {
    Histogram {
        count: Some(HistogramCount::CountInt(7)),
        sum: 5.5,
        schema: 2,
        zero_threshold: 0.001,
        zero_count: Some(HistogramZeroCount::ZeroCountInt(1)),
        positive_spans: vec![BucketSpan { offset: -2, length: 1 }, BucketSpan { offset: 3, length: 1 }],
        positive_deltas: vec![1, 1],
        negative_spans: vec![BucketSpan { offset: 0, length: 1 }],
        negative_deltas: vec![3],
        reset_hint: 2,
        timestamp: 1000,
        ..Histogram::default()
    }
}

fn float() -> Histogram {
    Histogram {
        count: Some(HistogramCount::CountFloat(2.5)),
        zero_count: Some(HistogramZeroCount::ZeroCountFloat(0.5)),
        positive_deltas: vec![],
        positive_counts: vec![0.5, 0.5],
        negative_deltas: vec![],
        negative_counts: vec![1.0],
        ..integer()
    }
}

fn custom() -> Histogram {
    Histogram {
        count: Some(HistogramCount::CountInt(16)),
        schema: -53,
        positive_spans: vec![BucketSpan { offset: 1, length: 2 }],
        positive_deltas: vec![10, -4],
        custom_values: vec![0.1, 1.0],
        ..Histogram::default()
    }
}

fn v1(h: Histogram) -> Vec<u8> {
    let labels = vec![Label { name: "__name__".into(), value: "h".into() }];
    let series = TimeSeriesV1 { labels, histograms: vec![h], ..TimeSeriesV1::default() };
    WriteRequestV1 { timeseries: vec![series], metadata: vec![] }.encode_to_vec()
}

fn v2(histograms: Vec<Histogram>) -> Vec<u8> {
    let symbols = ["", "__name__", "h"].map(str::to_owned).to_vec();
    let series = TimeSeriesV2 { labels_refs: vec![1, 2], histograms, ..TimeSeriesV2::default() };
    RequestV2 { symbols, timeseries: vec![series] }.encode_to_vec()
}

#[tokio::test]
async fn they_arrive_as_they_are() {
    let shards = Shards::new(1);
    let d = shards.plain();
    assert_eq!(send(&d, 1, &v1(integer())).await.status, 204);
    let more = vec![
        Histogram { timestamp: 2000, start_timestamp: 500, ..float() },
        Histogram { timestamp: 3000, ..custom() },
        Histogram { timestamp: 4000, sum: f64::from_bits(STALE_NAN_BITS), ..integer() },
        Histogram { timestamp: 5000, schema: 9, ..integer() },
    ];
    let answer = send(&d, 2, &v2(more)).await;
    assert_eq!((answer.status, written(&answer)), (204, vec!["0".into(), "4".into(), "0".into()]));
    let state = shards.0.lock();
    let got = state.of("h").histograms;
    let (t, start, h) = &got[0];
    assert_eq!((*t, *start, h.integer, h.schema, h.count, h.sum), (1000, 0, true, 2, 7.0, 5.5));
    assert_eq!(
        (h.zero_count, &h.positive_buckets[..], &h.negative_buckets[..]),
        (1.0, &[1.0, 2.0][..], &[3.0][..])
    );
    assert_eq!((h.positive_spans[0].offset, h.positive_spans[1].offset), (-2, 3));
    let (t, start, h) = &got[1];
    assert_eq!((*t, *start, h.integer, h.count, h.zero_count), (2000, 500, false, 2.5, 0.5));
    assert_eq!(got[2].2.custom_values, [0.1, 1.0]);
    assert_eq!(got[2].2.positive_buckets, [10.0, 6.0]);
    assert_eq!(got[3].2.sum.to_bits(), STALE_NAN_BITS);
    assert_eq!((got[4].2.schema, got[4].2.count), (8, 7.0));
}

#[tokio::test]
async fn wrong_ones_are_refused_and_named() {
    let shards = Shards::new(1);
    let d = shards.plain();
    let table: Vec<(Histogram, &str)> = vec![
        (Histogram { count: Some(HistogramCount::CountInt(8)), ..integer() }, "Count field is 8"),
        (Histogram { positive_deltas: vec![1], ..integer() }, "spans"),
        (Histogram { positive_deltas: vec![1, -2], ..integer() }, "negative"),
        (Histogram { schema: -5, ..integer() }, "schema"),
        (Histogram { schema: 60, ..integer() }, "schema"),
        (Histogram { positive_counts: vec![-0.5, 0.5], ..float() }, "negative"),
        (Histogram { custom_values: vec![1.0, 0.5], ..custom() }, "increasing"),
        (Histogram { custom_values: vec![0.5], ..custom() }, "bounds"),
        (
            Histogram { positive_spans: vec![BucketSpan { offset: 0, length: u32::MAX }], ..integer() },
            "spans",
        ),
    ];
    for (i, (bad, reason)) in table.into_iter().enumerate() {
        let answer = send(&d, 1, &v1(bad.clone())).await;
        assert_eq!(answer.status, 400, "{i}: {answer:?}");
        assert!(
            answer.body.starts_with("invalid histogram for series {__name__=\"h\"}: "),
            "{}",
            answer.body
        );
        assert!(answer.body.contains(reason), "{i}: {}", answer.body);
        let good = Histogram { timestamp: i as i64, ..integer() };
        let answer = send(&d, 2, &v2(vec![bad, good])).await;
        assert_eq!((answer.status, written(&answer)), (400, vec!["0".into(), "1".into(), "0".into()]), "{i}");
    }
    let state = shards.0.lock();
    assert_eq!(state.of("h").histograms.len(), 9);
}
