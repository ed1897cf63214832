//! Bad OTLP bodies: the right status, a reason that names what is wrong, and nothing stored; and any bytes at all.

use bytes::Bytes;
use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    metrics::v1::{
        ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Histogram, HistogramDataPoint, Metric,
        NumberDataPoint, Summary, SummaryDataPoint, exponential_histogram_data_point::Buckets, metric::Data,
        summary_data_point::ValueAtQuantile,
    },
};
use prost::Message;
use serde_json::{Value, json};
use sextant_distributor::otlp::{
    OtlpAnswer, OtlpHeaders, OtlpOptions, export_metrics, parts::metrics_request, translate,
};
use sextant_model::TenantId;
use sextant_proto::TenantLimits;

use crate::{
    otlp_input::{attribute, request},
    rng::Rng,
    send::Bench,
};

async fn export(bench: &Bench, content_type: &str, encoding: &str, body: &[u8]) -> OtlpAnswer {
    let headers = OtlpHeaders {
        content_type: Some(content_type.to_owned()),
        content_encoding: Some(encoding.to_owned()),
    };
    let (tenant, body, options) =
        (TenantId::anonymous(), Bytes::copy_from_slice(body), OtlpOptions::default());
    export_metrics(&bench.distributor, &tenant, &headers, body, &options).await
}

/// A distributor that takes requests of up to one MiB.
fn small() -> Bench {
    Bench::with_limits(TenantLimits { max_request_bytes: 1 << 20, ..TenantLimits::default() })
}

fn metric(data: &Value) -> Value {
    json!({ "resourceMetrics": [{ "scopeMetrics": [{ "metrics": [data] }] }] })
}

fn point(p: &Value) -> Value {
    metric(&json!({ "name": "m", "gauge": { "dataPoints": [p] } }))
}

fn nested(depth: usize) -> Value {
    (0..depth).fold(json!({ "intValue": 1 }), |v, _| json!({ "arrayValue": { "values": [v] } }))
}

#[tokio::test]
async fn json_fields_of_the_wrong_kind_are_named() {
    let table: Vec<(Value, &str)> = vec![
        (json!([]), "request: expected an object"),
        (json!({ "resourceMetrics": {} }), "resourceMetrics: expected an array"),
        (json!({ "resourceMetrics": [1] }), "resourceMetrics: expected an object"),
        (metric(&json!({ "name": 5 })), "name: expected a string"),
        (metric(&json!({ "gauge": [] })), "gauge: expected an object"),
        (point(&json!({ "timeUnixNano": "-1" })), "timeUnixNano: expected an unsigned integer"),
        (point(&json!({ "timeUnixNano": 1.5 })), "timeUnixNano: expected an unsigned integer"),
        (
            point(&json!({ "timeUnixNano": "18446744073709551616" })),
            "timeUnixNano: expected an unsigned integer",
        ),
        (point(&json!({ "asInt": "x" })), "asInt: expected an integer"),
        (point(&json!({ "asInt": 1e300 })), "asInt: expected an integer"),
        (point(&json!({ "asDouble": true })), "asDouble: expected a number"),
        (point(&json!({ "asDouble": "nan?" })), "asDouble: expected a number"),
        (point(&json!({ "flags": 4_294_967_296u64 })), "flags: out of range"),
        (point(&json!({ "exemplars": [{ "traceId": "xyz" }] })), "traceId: expected hexadecimal digits"),
        (
            point(&json!({ "attributes": [{ "key": "a", "value": { "boolValue": 1 } }] })),
            "boolValue: expected true or false",
        ),
        (
            point(&json!({ "attributes": [{ "key": "a", "value": { "bytesValue": "?" } }] })),
            "bytesValue: expected base64",
        ),
        (point(&json!({ "attributes": [{ "key": "a", "value": nested(35) }] })), "value: nested too deeply"),
        (
            metric(&json!({ "sum": { "aggregationTemporality": "SOMETIMES" } })),
            "aggregationTemporality: unknown name",
        ),
        (metric(&json!({ "sum": { "isMonotonic": "yes" } })), "isMonotonic: expected true or false"),
    ];
    for (sent, reason) in table {
        let bench = Bench::new(1);
        let answer = export(&bench, "application/json", "", sent.to_string().as_bytes()).await;
        let body: Value = serde_json::from_slice(&answer.body).unwrap();
        let message = body["message"].as_str().unwrap();
        assert_eq!((answer.status, body["code"].as_i64()), (400, Some(3)), "{sent}");
        assert_eq!(message, format!("malformed OTLP metrics request: {reason}"), "{sent}");
        assert_eq!(bench.fake.lock().appends, 0);
    }
}

#[tokio::test]
async fn bodies_that_cannot_be_read() {
    let deep = [b"[".repeat(200_000), b"]".repeat(200_000)].concat();
    let table: &[(&str, &str, &[u8], u16, &str)] = &[
        ("application/json", "", b"{", 400, "EOF while parsing"),
        ("application/json", "", b"", 400, "EOF while parsing"),
        ("application/json", "", b"\xff\xfe", 400, "malformed OTLP metrics request"),
        ("application/json", "", &deep, 400, "recursion limit exceeded"),
        ("application/x-protobuf", "", b"\x0a\xff", 400, "malformed OTLP metrics request"),
        ("application/x-protobuf", "", b"{}", 400, "malformed OTLP metrics request"),
        ("application/x-protobuf", "gzip", b"not gzip", 400, "body cannot be decompressed"),
        ("application/x-protobuf", "gzip", b"\x1f\x8b\x08", 400, "body cannot be decompressed"),
        ("application/x-protobuf", "zstd", b"not zstd", 400, "body cannot be decompressed"),
        ("application/x-protobuf", "snappy", b"", 415, "content encoding \"snappy\" is not accepted"),
        ("text/plain", "", b"", 415, "content type \"text/plain\" is not accepted"),
        ("", "", b"", 415, "content type \"\" is not accepted"),
        (
            "application/x-protobuf",
            "",
            &vec![0; (1 << 20) + 1],
            413,
            "limit max_request_bytes (1048576) exceeded",
        ),
    ];
    for (content_type, encoding, body, status, reason) in table {
        let bench = small();
        let answer = export(&bench, content_type, encoding, body).await;
        let message = String::from_utf8_lossy(&answer.body).replace("\\\"", "\"");
        assert_eq!(answer.status, *status, "{content_type} {encoding}: {message}");
        assert!(message.contains(reason), "{content_type} {encoding}: {message}");
        assert_eq!(bench.fake.lock().appends, 0);
    }
    // Nothing is a valid request of nothing.
    for content_type in ["application/x-protobuf", "application/json"] {
        let body: &[u8] = if content_type.contains("json") { b"{}" } else { b"" };
        assert_eq!(export(&Bench::new(1), content_type, "", body).await.status, 200);
    }
}

fn exponential(scale: i32, offset: i32, bucket_counts: Vec<u64>) -> Data {
    let count = bucket_counts.iter().fold(0, |a: u64, b| a.wrapping_add(*b));
    let point = ExponentialHistogramDataPoint {
        scale,
        count,
        positive: Some(Buckets { offset, bucket_counts }),
        ..ExponentialHistogramDataPoint::default()
    };
    Data::ExponentialHistogram(ExponentialHistogram { data_points: vec![point], aggregation_temporality: 2 })
}

/// Values at the ends of their types: a histogram is stored, or its point is rejected and counted.
#[tokio::test]
async fn extreme_histograms_neither_panic_nor_vanish() {
    let explicit = |bucket_counts, explicit_bounds: Vec<f64>| {
        let point = HistogramDataPoint { bucket_counts, explicit_bounds, ..HistogramDataPoint::default() };
        Data::Histogram(Histogram { data_points: vec![point], aggregation_temporality: 2 })
    };
    let table = [
        exponential(i32::MAX, 0, vec![1, 2, 3]),
        exponential(20, i32::MAX, vec![1, 2, 3]),
        exponential(0, i32::MAX, vec![1, 2, 3]),
        exponential(0, i32::MIN, vec![1, 0, 0, 0, 3]),
        exponential(i32::MIN, 0, vec![1]),
        exponential(9, 0, vec![u64::MAX, u64::MAX]),
        exponential(0, 0, vec![1; 200_000]),
        explicit(vec![u64::MAX, u64::MAX, 1], vec![1.0, 2.0]),
        explicit(vec![1, 1], vec![1.0, 2.0, 3.0]),
        explicit(vec![1, 1, 1, 1, 1], vec![f64::NAN, 1.0, 0.0]),
    ];
    for data in table {
        for convert_histograms_to_nhcb in [false, true] {
            let metric = Metric { name: "m".into(), data: Some(data.clone()), ..Metric::default() };
            let options = OtlpOptions { convert_histograms_to_nhcb, ..OtlpOptions::default() };
            let message = request(vec![], &Value::Null, vec![metric]).encode_to_vec();
            let bench = Bench::new(2);
            let headers =
                OtlpHeaders { content_type: Some("application/x-protobuf".into()), content_encoding: None };
            let (d, tenant) = (bench.distributor.as_ref(), TenantId::anonymous());
            let answer = export_metrics(d, &tenant, &headers, message.into(), &options).await;
            assert_eq!(answer.status, 200);
            let response =
                opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceResponse::decode(
                    &*answer.body,
                );
            let rejected = response.unwrap().partial_success.map_or(0, |p| p.rejected_data_points);
            assert!(rejected > 0 || !bench.fake.series().is_empty(), "{data:?}");
        }
    }
}

/// A small request whose points repeat a large resource, or whose buckets repeat a large point.
#[tokio::test]
async fn labels_that_grow_out_of_proportion_are_refused() {
    let text = "x".repeat(100_000);
    let numbers = vec![NumberDataPoint { time_unix_nano: 5, ..NumberDataPoint::default() }; 100];
    let gauge = Data::Gauge(Gauge { data_points: numbers });
    let summary = Data::Summary(Summary {
        data_points: vec![SummaryDataPoint {
            attributes: vec![attribute("k", &text)],
            quantile_values: vec![ValueAtQuantile::default(); 100],
            ..SummaryDataPoint::default()
        }],
    });
    let histogram = Data::Histogram(Histogram {
        data_points: vec![HistogramDataPoint {
            attributes: vec![attribute("k", &text)],
            bucket_counts: vec![0; 101],
            explicit_bounds: (0..100).map(f64::from).collect(),
            ..HistogramDataPoint::default()
        }],
        aggregation_temporality: 2,
    });
    let Data::ExponentialHistogram(mut native) = exponential(0, 0, vec![1]) else { unreachable!() };
    native.data_points = vec![native.data_points[0].clone(); 100];
    for data in [gauge, summary, histogram, Data::ExponentialHistogram(native)] {
        let metric = Metric { name: "m".into(), data: Some(data), ..Metric::default() };
        let resource = vec![attribute("service.name", &text)];
        let message = request(resource, &Value::Null, vec![metric]).encode_to_vec();
        assert!(message.len() < 1 << 18);
        let bench = small();
        let answer = export(&bench, "application/x-protobuf", "", &message).await;
        let reason = String::from_utf8_lossy(&answer.body).into_owned();
        assert_eq!(answer.status, 413, "{reason}");
        assert!(reason.contains("limit max_request_bytes (1048576) exceeded more than 4 times"), "{reason}");
        assert_eq!(bench.fake.lock().appends, 0);
    }
}

/// Two points years apart have one `target_info`; many resources of that kind have no more samples together.
#[test]
fn target_info_does_not_grow_with_time() {
    let point = |time_unix_nano| NumberDataPoint { time_unix_nano, ..NumberDataPoint::default() };
    let data = Some(Data::Gauge(Gauge { data_points: vec![point(0), point(u64::MAX)] }));
    let metric = Metric { name: "m".into(), data, ..Metric::default() };
    let resource = vec![attribute("service.name", "x"), attribute("a", "b")];
    let mut message = request(resource, &Value::Null, vec![metric]);
    message.resource_metrics = vec![message.resource_metrics[0].clone(); 100];
    let translated = translate(&message, &OtlpOptions::default());
    let info = translated.request.series.iter().filter(|s| s.labels.metric_name() == "target_info");
    let counts: Vec<usize> = info.map(|s| s.samples.len()).collect();
    assert_eq!(counts.len(), 100);
    assert!(counts.iter().all(|n| *n >= 2), "the first and the last are always there");
    assert!(counts.iter().sum::<usize>() <= 100_000 + 200);
}

/// Changes a few bytes at random, thousands of times.
fn mutate(seed: u64, rounds: usize, body: &[u8], mut take: impl FnMut(&[u8])) {
    let mut rng = Rng::new(seed);
    for _ in 0..rounds {
        let mut changed = body.to_vec();
        for _ in 0..=rng.below(4) {
            let at = rng.below(changed.len() as u64) as usize;
            match rng.below(3) {
                0 => drop(changed.remove(at)),
                1 => changed.insert(at, rng.next() as u8),
                _ => changed[at] = rng.next() as u8,
            }
        }
        take(&changed);
    }
    (0..body.len()).for_each(|n| take(&body[..n]));
}

#[test]
fn any_bytes_are_read_without_a_panic() {
    let numbers = vec![NumberDataPoint { time_unix_nano: 5, ..NumberDataPoint::default() }; 2];
    let metrics = vec![
        Metric {
            name: "m".into(),
            unit: "By/s".into(),
            data: Some(exponential(9, -4, vec![1, 0, 2])),
            ..Metric::default()
        },
        Metric {
            name: "g".into(),
            data: Some(Data::Gauge(Gauge { data_points: numbers })),
            ..Metric::default()
        },
    ];
    let scope = json!({ "name": "s", "attributes": { "a": "b" } });
    let resource = vec![attribute("service.name", "x"), attribute("a.b", "c")];
    let message = request(resource, &scope, metrics).encode_to_vec();
    let options = OtlpOptions { promote_scope: true, ..OtlpOptions::default() };
    mutate(1, 5_000, &message, |body| {
        if let Ok(request) = ExportMetricsServiceRequest::decode(body) {
            translate(&request, &options);
        }
    });
    let text = point(&json!({
        "timeUnixNano": "1544712660300000000", "asDouble": "NaN", "flags": 1,
        "attributes": [{ "key": "k", "value": { "arrayValue": { "values": [{ "intValue": "1" }] } } }],
        "exemplars": [{ "traceId": "5b8efff798038103d269b633813fc60c", "asInt": 3 }],
    }));
    mutate(2, 5_000, text.to_string().as_bytes(), |body| {
        if let Ok(request) = metrics_request(body) {
            translate(&request, &options);
        }
    });
}
