//! The OpenTelemetry receiver: OTLP's JSON mapping, compression and its bounds, and what the sender is told.

use std::io::Write;

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use opentelemetry_proto::tonic::{
    collector::metrics::v1::{ExportMetricsServiceRequest, ExportMetricsServiceResponse},
    common::v1::any_value::Value as Any,
    metrics::v1::{exemplar, metric::Data, number_data_point::Value as Number},
};
use prost::Message;
use serde_json::{Value, json};
use sextant_distributor::otlp::{
    OtlpAnswer, OtlpHeaders, OtlpOptions, export_metrics, parts::metrics_request,
};
use sextant_model::TenantId;
use sextant_proto::{ShardError, TenantLimits};

use crate::send::Bench;

async fn export(bench: &Bench, content_type: &str, encoding: &str, body: &[u8]) -> OtlpAnswer {
    let some = |s: &str| (!s.is_empty()).then(|| s.to_owned());
    let headers = OtlpHeaders { content_type: some(content_type), content_encoding: some(encoding) };
    let (tenant, body) = (TenantId::anonymous(), Bytes::copy_from_slice(body));
    let options = OtlpOptions::default();
    export_metrics(&bench.distributor, &tenant, &headers, body, &options).await
}

fn gauge(point: &Value) -> Value {
    json!({ "resourceMetrics": [{ "scopeMetrics": [{ "metrics": [
        { "name": "m", "gauge": { "dataPoints": [point] } },
    ] }] }] })
}

fn read(v: &Value) -> Result<ExportMetricsServiceRequest, String> {
    metrics_request(v.to_string().as_bytes())
}

fn data(v: &Value) -> Data {
    read(v).unwrap().resource_metrics[0].scope_metrics[0].metrics[0].data.clone().unwrap()
}

/// A gauge's point after reading.
fn point(v: Value) -> opentelemetry_proto::tonic::metrics::v1::NumberDataPoint {
    match data(&gauge(&v)) {
        Data::Gauge(g) => g.data_points[0].clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn integers_are_numbers_or_texts() {
    for (sent, expected) in [
        (json!("1544712660300000000"), 1_544_712_660_300_000_000u64),
        (json!(1_544_712_660_300_000_000u64), 1_544_712_660_300_000_000),
        (json!(u64::MAX.to_string()), u64::MAX),
        (json!(1.5e3), 1500),
        (Value::Null, 0),
    ] {
        assert_eq!(point(json!({ "timeUnixNano": sent })).time_unix_nano, expected);
    }
    for (sent, expected) in [(json!("-9007199254740993"), -9_007_199_254_740_993), (json!(7), 7)] {
        assert_eq!(point(json!({ "asInt": sent })).value, Some(Number::AsInt(expected)));
    }
}

#[test]
fn doubles_are_exact_and_have_names() {
    for (sent, expected) in [
        (json!("NaN"), f64::NAN),
        (json!("Infinity"), f64::INFINITY),
        (json!("-Infinity"), f64::NEG_INFINITY),
        (json!("1.25"), 1.25),
        (json!(1e-128), 1e-128),
        (json!(7), 7.0),
        (json!(-0.0), -0.0),
        (json!(123_456_789.123_456_78), 123_456_789.123_456_78),
    ] {
        let Some(Number::AsDouble(got)) = point(json!({ "asDouble": sent })).value else { panic!("{sent}") };
        assert_eq!(got.to_bits(), expected.to_bits(), "{sent}");
    }
    assert_eq!(point(json!({ "asDouble": null })).value, None);
}

#[test]
fn enumerations_are_numbers_or_names() {
    for (sent, expected) in [
        (json!(2), 2),
        (json!("AGGREGATION_TEMPORALITY_DELTA"), 1),
        (json!("AGGREGATION_TEMPORALITY_CUMULATIVE"), 2),
        (json!("AGGREGATION_TEMPORALITY_UNSPECIFIED"), 0),
        (Value::Null, 0),
    ] {
        let sum = json!({ "resourceMetrics": [{ "scopeMetrics": [{ "metrics": [
            { "name": "m", "sum": { "aggregationTemporality": sent, "isMonotonic": true } },
        ] }] }] });
        let Data::Sum(sum) = data(&sum) else { panic!("{sent}") };
        assert_eq!((sum.aggregation_temporality, sum.is_monotonic), (expected, true), "{sent}");
    }
}

#[test]
fn ids_are_hexadecimal_and_attributes_have_every_type() {
    let p = point(json!({
        "attributes": [
            { "key": "s", "value": { "stringValue": "x" } }, { "key": "b", "value": { "boolValue": true } },
            { "key": "i", "value": { "intValue": "-5" } }, { "key": "d", "value": { "doubleValue": 0.5 } },
            { "key": "a", "value": { "arrayValue": { "values": [{ "intValue": 1 }, {}] } } },
            { "key": "k", "value": { "kvlistValue": { "values": [{ "key": "x", "value": { "intValue": 1 } }] } } },
            { "key": "y", "value": { "bytesValue": "AQI=" } }, { "key": "n" },
        ],
        "exemplars": [{ "traceId": "5B8EFFF798038103D269B633813FC60C", "spanId": "eee19b7ec3c1b174", "asInt": "3" }],
        "flags": 1, "startTimeUnixNano": "5", "unknown": { "field": [1, 2] },
    }));
    let exemplar = &p.exemplars[0];
    assert_eq!(hex::encode(&exemplar.trace_id), "5b8efff798038103d269b633813fc60c");
    assert_eq!((exemplar.span_id.len(), exemplar.value), (8, Some(exemplar::Value::AsInt(3))));
    assert_eq!((p.flags, p.start_time_unix_nano, p.attributes.len()), (1, 5, 8));
    let values: Vec<_> =
        p.attributes.iter().map(|a| a.value.as_ref().and_then(|v| v.value.as_ref())).collect();
    assert!(matches!(values[2], Some(Any::IntValue(-5))));
    assert!(matches!(values[6], Some(Any::BytesValue(b)) if b == &[1, 2]));
    assert!(values[7].is_none());
    let texts: Vec<String> =
        p.attributes.iter().map(|a| sextant_distributor::otlp::parts::value_text(a.value.as_ref())).collect();
    assert_eq!(texts, ["x", "true", "-5", "0.5", "[1,null]", "{\"x\":1}", "AQI=", ""]);
}

#[test]
fn histograms_and_summaries() {
    let of = |field: &str, point: Value| {
        data(&json!({ "resourceMetrics": [{ "scopeMetrics": [{ "metrics": [
            { "name": "m", field: { "dataPoints": [point], "aggregationTemporality": 2 } },
        ] }] }] }))
    };
    let h = json!({ "count": "3", "sum": 1.5, "bucketCounts": ["1", 2], "explicitBounds": [0.1], "max": 1 });
    let Data::Histogram(h) = of("histogram", h) else { panic!() };
    let h = &h.data_points[0];
    assert_eq!((h.count, h.sum, h.bucket_counts.as_slice(), h.max), (3, Some(1.5), &[1, 2][..], Some(1.0)));
    let e = json!({ "scale": -2, "zeroCount": "1", "positive": { "offset": -3, "bucketCounts": ["5"] } });
    let Data::ExponentialHistogram(e) = of("exponentialHistogram", e) else { panic!() };
    let e = &e.data_points[0];
    assert_eq!((e.scale, e.zero_count, e.sum, e.positive.as_ref().unwrap().offset), (-2, 1, None, -3));
    let s = json!({ "count": "9", "quantileValues": [{ "quantile": 0.5, "value": "Infinity" }] });
    let Data::Summary(s) = of("summary", s) else { panic!() };
    assert_eq!(s.data_points[0].quantile_values[0].value, f64::INFINITY);
}

fn gzip(raw: &[u8]) -> Vec<u8> {
    let mut out = GzEncoder::new(Vec::new(), Compression::default());
    out.write_all(raw).unwrap();
    out.finish().unwrap()
}

#[tokio::test]
async fn every_form_and_compression_stores_the_same() {
    let request = gauge(&json!({ "timeUnixNano": "1000000000", "asDouble": 0.1 }));
    let (as_json, message) = (request.to_string().into_bytes(), read(&request).unwrap().encode_to_vec());
    for (content_type, raw) in [
        ("application/json; charset=utf-8", &as_json),
        ("application/json", &as_json),
        ("application/x-protobuf", &message),
        ("application/protobuf", &message),
    ] {
        let zstd = zstd::encode_all(raw.as_slice(), 3).unwrap();
        for (encoding, body) in [
            ("", raw.clone()),
            ("identity", raw.clone()),
            ("gzip", gzip(raw)),
            ("zstd", zstd),
            ("GZIP", gzip(raw)),
        ] {
            let bench = Bench::new(2);
            let answer = export(&bench, content_type, encoding, &body).await;
            assert_eq!(answer.status, 200, "{content_type} {encoding}");
            let stored = bench.fake.stored().pop_first().unwrap();
            assert_eq!((stored.0.1.as_str(), stored.1.samples[0]), ("m", (1000, 0.1f64.to_bits(), 0)));
            if content_type.contains("json") {
                assert_eq!((answer.content_type, answer.body.as_slice()), ("application/json", &b"{}"[..]));
            } else {
                assert!(
                    ExportMetricsServiceResponse::decode(&*answer.body).unwrap().partial_success.is_none()
                );
            }
        }
    }
}

#[tokio::test]
async fn what_grows_when_decompressed_is_refused() {
    let zeros = vec![0; 64 << 20];
    for (encoding, body) in [("gzip", gzip(&zeros)), ("zstd", zstd::encode_all(&*zeros, 3).unwrap())] {
        let bench =
            Bench::with_limits(TenantLimits { max_request_bytes: 1 << 20, ..TenantLimits::default() });
        let answer = export(&bench, "application/x-protobuf", encoding, &body).await;
        let reason = String::from_utf8_lossy(&answer.body).into_owned();
        assert_eq!(answer.status, 413, "{encoding}");
        assert!(reason.contains("limit max_request_bytes (1048576) exceeded"), "{reason}");
    }
}

#[tokio::test]
async fn rejected_points_are_counted_and_the_rest_is_stored() {
    let limits = TenantLimits { max_label_value_length: 5, ..TenantLimits::default() };
    let bench = Bench::with_limits(limits);
    let at = |value: &str| {
        json!({ "timeUnixNano": "1000000", "asInt": "1",
                "attributes": [{ "key": "k", "value": { "stringValue": value } }] })
    };
    let request = json!({ "resourceMetrics": [{ "scopeMetrics": [{ "metrics": [
        { "name": "m", "gauge": { "dataPoints": [at("ok"), at("too long")] } },
        { "name": "", "gauge": { "dataPoints": [at("ok")] } },
        { "name": "nothing" },
    ] }] }] });
    let answer = export(&bench, "application/json", "", request.to_string().as_bytes()).await;
    assert_eq!(answer.status, 200);
    let body: Value = serde_json::from_slice(&answer.body).unwrap();
    let partial = &body["partialSuccess"];
    assert_eq!(partial["rejectedDataPoints"], "2", "{body}");
    let message = partial["errorMessage"].as_str().unwrap();
    for expected in ["max_label_value_length (5)", "normalization for metric \"\" resulted in empty name"] {
        assert!(message.contains(expected), "{message}");
    }
    assert_eq!(bench.fake.series(), ["m{k=\"ok\"}"]);
}

#[tokio::test]
async fn what_may_be_repeated_has_a_code_that_senders_repeat() {
    let request = gauge(&json!({ "timeUnixNano": "1000000", "asInt": "1" })).to_string();
    for (e, status, retry) in [
        (ShardError::Unavailable("no majority".into()), 503, true),
        (ShardError::Overloaded("memory bound reached".into()), 429, true),
        (ShardError::Malformed("bad".into()), 503, false),
    ] {
        let bench = Bench::new(1);
        bench.fake.fail_next(0, e, false);
        let answer = export(&bench, "application/json", "", request.as_bytes()).await;
        assert_eq!((answer.status, answer.retry_after_s.is_some()), (status, retry));
        let again = export(&bench, "application/json", "", request.as_bytes()).await;
        assert_eq!(again.status, 200);
    }
}

#[tokio::test]
async fn target_info_says_what_job_and_instance_are() {
    let bench = Bench::new(2);
    let attribute = |key: &str, value: &str| json!({ "key": key, "value": { "stringValue": value } });
    let mut request = gauge(&json!({ "timeUnixNano": "600000000000", "asInt": "1" }));
    request["resourceMetrics"][0]["resource"] = json!({ "attributes": [
        attribute("service.name", "api"), attribute("service.namespace", "shop"),
        attribute("service.instance.id", "i1"), attribute("k8s.pod.name", "p1"),
    ] });
    let answer = export(&bench, "application/json", "", request.to_string().as_bytes()).await;
    assert_eq!(answer.status, 200);
    let expected = [
        r#"m{instance="i1", job="shop/api"}"#,
        r#"target_info{instance="i1", job="shop/api", k8s_pod_name="p1"}"#,
    ];
    assert_eq!(bench.fake.series(), expected);
}

/// The flag "no recorded value" ends a series, in every form.
#[tokio::test]
async fn points_without_a_value_are_staleness_markers() {
    let gone = json!({ "flags": 1, "timeUnixNano": "1000000", "count": "3", "bucketCounts": ["3", "0"],
                       "explicitBounds": [1], "scale": 30, "positive": { "bucketCounts": ["3"] } });
    let request = json!({ "resourceMetrics": [{ "scopeMetrics": [{ "metrics": [
        { "name": "g", "gauge": { "dataPoints": [gone] } },
        { "name": "h", "histogram": { "dataPoints": [gone], "aggregationTemporality": 2 } },
        { "name": "e", "exponentialHistogram": { "dataPoints": [gone], "aggregationTemporality": 2 } },
    ] }] }] });
    let bench = Bench::new(1);
    assert_eq!(export(&bench, "application/json", "", request.to_string().as_bytes()).await.status, 200);
    let stored = bench.fake.stored();
    assert_eq!(stored.len(), 5, "{stored:?}");
    for ((_, series), s) in stored {
        assert!(s.samples.iter().all(|(_, bits, _)| *bits == sextant_model::STALE_NAN_BITS), "{series}");
        assert!(
            s.histograms.iter().all(|(_, _, h)| h.is_stale() && h.positive_buckets.is_empty()),
            "{series}"
        );
        assert_eq!(s.samples.len() + s.histograms.len(), 1, "{series}");
    }
}

#[test]
fn numbers_as_label_values_and_bounds() {
    let text = |d: f64| {
        let value = opentelemetry_proto::tonic::common::v1::AnyValue { value: Some(Any::DoubleValue(d)) };
        sextant_distributor::otlp::parts::value_text(Some(&value))
    };
    for (d, expected) in
        [(0.5, "0.5"), (1.0, "1"), (1e20, "100000000000000000000"), (1e21, "1e+21"), (-2.5e-7, "-2.5e-7")]
    {
        assert_eq!(text(d), expected);
    }
    let h = json!({ "count": "1", "bucketCounts": ["1", "0", "0"], "explicitBounds": [0.00001, 1e6] });
    let request = json!({ "resourceMetrics": [{ "scopeMetrics": [{ "metrics": [
        { "name": "h", "histogram": { "dataPoints": [h], "aggregationTemporality": 2 } },
    ] }] }] });
    let translated = sextant_distributor::otlp::translate(&read(&request).unwrap(), &OtlpOptions::default());
    let bounds: Vec<&str> = translated.request.series.iter().filter_map(|s| s.labels.get("le")).collect();
    assert_eq!(bounds, ["0.00001", "1000000", "+Inf"]);
}

#[test]
fn attributes_that_make_an_exemplar_too_long_are_left_out() {
    for (size, expected) in [(5, 3), (200, 2)] {
        let e = json!({ "traceId": "5b8efff798038103d269b633813fc60c", "spanId": "eee19b7ec3c1b174", "asInt": 3,
            "filteredAttributes": [{ "key": "k", "value": { "stringValue": "x".repeat(size) } }] });
        let request = gauge(&json!({ "exemplars": [e] }));
        let translated =
            sextant_distributor::otlp::translate(&read(&request).unwrap(), &OtlpOptions::default());
        assert_eq!(translated.request.series[0].exemplars[0].labels.len(), expected);
    }
}

/// As Prometheus does, the values of attributes that become one label are joined; here it is counted too.
#[tokio::test]
async fn attributes_that_become_one_label_are_joined_and_counted() {
    let attribute = |key: &str, value: &str| json!({ "key": key, "value": { "stringValue": value } });
    let request = gauge(&json!({ "timeUnixNano": "1000000", "asInt": "1", "attributes": [
        attribute("a_b", "3"), attribute("a.b", "2"), attribute("a-b", "1"), attribute("c", "4"),
    ] }));
    let bench = Bench::new(1);
    for _ in 0..2 {
        let answer = export(&bench, "application/json", "", request.to_string().as_bytes()).await;
        assert_eq!((answer.status, answer.body.as_slice()), (200, &b"{}"[..]));
    }
    assert_eq!(bench.fake.series(), [r#"m{a_b="1;2;3", c="4"}"#]);
    let mut metrics = String::new();
    bench.distributor.metrics().render(&mut metrics);
    assert!(metrics.contains("\nsextant_distributor_otlp_joined_attributes_total 4\n"), "{metrics}");
}
