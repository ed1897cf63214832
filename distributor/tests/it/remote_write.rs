//! Remote write against the published receiver cases of both versions.

use prost::Message;
use serde_json::Value;
use sextant_distributor::{DistributorConfig, RemoteWriteAnswer, RemoteWriteHeaders};
use sextant_model::{CUSTOM_BUCKETS_SCHEMA, TenantId};
use sextant_proto::{
    ShardError, TenantLimits,
    remote_write::{
        BucketSpan, ExemplarV2, Histogram, HistogramCount, HistogramZeroCount, MetadataV2, RequestV2,
        SampleV2, TimeSeriesV2,
    },
};

use crate::{
    cases::{Outcome, cases_of, document, run, run_cases, same, text},
    send::{Bench, NOW_MS, Series, V2, Wire, labels, snappy, v1, v2, written},
};

fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn items(v: &Value) -> impl Iterator<Item = &Value> {
    v.as_array().into_iter().flatten()
}

fn pairs(v: &Value) -> Vec<(String, String)> {
    let object = v.as_object();
    object.into_iter().flatten().map(|(n, v)| (n.clone(), v.as_str().unwrap_or("").to_owned())).collect()
}

fn number(v: &Value) -> f64 {
    match v.as_str() {
        Some("NormalNaN") => f64::NAN,
        Some(s) => s.parse().unwrap(),
        None => v.as_f64().unwrap_or(0.0),
    }
}

fn metric_type(name: &str) -> i32 {
    let names =
        ["UNSPECIFIED", "COUNTER", "GAUGE", "HISTOGRAM", "GAUGEHISTOGRAM", "SUMMARY", "INFO", "STATESET"];
    let name = name.trim_start_matches("Metadata_METRIC_TYPE_");
    names.iter().position(|n| *n == name).unwrap_or(0) as i32
}

fn spans(v: &Value) -> Vec<BucketSpan> {
    let of = |s: &Value, at: usize, field: &str| s[at].as_i64().or(s[field].as_i64()).unwrap_or(0);
    items(v)
        .map(|s| BucketSpan { offset: of(s, 0, "Offset") as i32, length: of(s, 1, "Length") as u32 })
        .collect()
}

fn deltas(v: &Value) -> Vec<i64> {
    items(v).filter_map(Value::as_i64).collect()
}

fn compliance_histogram(h: &Value) -> Histogram {
    Histogram {
        count: Some(HistogramCount::CountInt(h["count_int"].as_u64().unwrap_or(0))),
        sum: number(&h["sum"]),
        schema: h["schema"].as_i64().unwrap_or(0) as i32,
        zero_threshold: number(&h["zero_threshold"]),
        zero_count: Some(HistogramZeroCount::ZeroCountInt(h["zero_count_int"].as_u64().unwrap_or(0))),
        negative_spans: spans(&h["negative_spans"]),
        negative_deltas: deltas(&h["negative_deltas"]),
        positive_spans: spans(&h["positive_spans"]),
        positive_deltas: deltas(&h["positive_deltas"]),
        timestamp: NOW_MS,
        custom_values: items(&h["custom_values"]).map(number).collect(),
        ..Histogram::default()
    }
}

/// The series of a compliance request, each with everything that the request has for its labels.
fn compliance_series(request: &Value) -> Vec<Series> {
    let mut out: Vec<Series> = Vec::new();
    let mut of = |item: &Value| {
        let labels = pairs(&item["Labels"]);
        out.iter().position(|s| s.labels == labels).unwrap_or_else(|| {
            out.push(Series { labels, ..Series::default() });
            out.len() - 1
        })
    };
    let samples: Vec<_> = items(&request["Samples"]).map(|s| (of(s), s)).collect();
    let histograms: Vec<_> = items(&request["Histograms"]).map(|h| (of(h), h)).collect();
    let exemplars: Vec<_> = items(&request["Exemplars"]).map(|e| (of(e), e)).collect();
    let has_series = !samples.is_empty() || !histograms.is_empty();
    let metadata: Vec<_> = items(&request["Metadata"]).map(|m| ((!has_series).then(|| of(m)), m)).collect();
    for (i, s) in samples {
        let start = if s.get("CreatedTimestamp").is_some() { NOW_MS - 3_600_000 } else { 0 };
        out[i].samples.push((NOW_MS, number(&s["Value"]), start));
    }
    for (i, h) in histograms {
        out[i].histograms.push(compliance_histogram(&h["Histogram"]));
    }
    for (i, e) in exemplars {
        out[i].exemplars.push((NOW_MS, number(&e["Value"]), pairs(&e["ExemplarLabels"])));
    }
    for (only, m) in metadata {
        let wanted = pairs(&m["Labels"]);
        let (help, unit) = (text(m, "Help").to_owned(), text(m, "Unit").to_owned());
        for (i, s) in out.iter_mut().enumerate() {
            if only == Some(i) || wanted.iter().all(|p| s.labels.contains(p)) {
                s.metadata = Some((metric_type(text(m, "Type")), help.clone(), unit.clone()));
            }
        }
    }
    out
}

fn success(answer: &RemoteWriteAnswer) -> bool {
    answer.status / 100 == 2
}

fn check_compliance(case: &Value) -> Outcome {
    let request = case.get("request").cloned().unwrap_or_else(|| request_of_code(text(case, "id")));
    let bench = Bench::new(2);
    let answer = wait(async {
        let headers = |content_type: &str, encoding: &str| RemoteWriteHeaders {
            content_type: Some(content_type.to_owned()),
            content_encoding: Some(encoding.to_owned()),
            version: None,
        };
        let message = v2(&compliance_series(&request));
        let (body, corrupt) = (snappy(&message.bytes), snappy(b"\x0a\xff\xff\xff\xff\x0f"));
        let (d, tenant) = (&bench.distributor, TenantId::anonymous());
        match text(case, "id") {
            "TestBadContentTypes" => {
                d.remote_write(&tenant, &headers("application/json", "snappy"), body).await
            }
            "TestBadContentEncodings" => d.remote_write(&tenant, &headers(V2, "gzip"), body).await,
            "TestCorruptRequestBody" => bench.send_body(true, corrupt).await,
            "TestRW1BasicCompatibility" => bench.send(&v1(&compliance_series(&request))).await,
            "TestRW1ErrorHandling" => bench.send_body(false, corrupt).await,
            _ => bench.send(&message).await,
        }
    });
    let expected = &case["expected"];
    let wanted = case["expect_success"].as_bool().or(expected["success"].as_bool()).unwrap_or(true);
    same(&format!("success ({} {})", answer.status, answer.body), &success(&answer), &wanted)?;
    if let Some(code) = expected["exactReponseCode"].as_u64() {
        same("status", &u64::from(answer.status), &code)?;
    }
    if !success(&answer) {
        return same("class", &(answer.status / 100), &4);
    }
    let counts = case["expected_counts"].as_object().or(expected.as_object());
    let is_v1 = text(case, "id").starts_with("TestRW1");
    for (i, kind) in ["samples", "histograms", "exemplars"].into_iter().enumerate().filter(|_| !is_v1) {
        if let Some(n) = counts.and_then(|c| c.get(kind)).and_then(Value::as_u64) {
            same(kind, &written(&answer)[i], &Some(n))?;
        }
    }
    Ok(())
}

/// The requests that the original makes in code, by case.
fn request_of_code(id: &str) -> Value {
    let sample = |labels: Value| serde_json::json!({ "Labels": labels, "Value": 1.0 });
    let one = |labels: Value| serde_json::json!({ "Samples": [sample(labels)] });
    let exemplar = |labels: Value| serde_json::json!({ "Labels": labels, "ExemplarLabels": { "trace_id": "x" }, "Value": 1.0 });
    let (_, name) = id.split_once('/').unwrap_or((id, ""));
    let named = serde_json::json!({ "__name__": "m", "job": "test" });
    match name {
        "metadata_without_data" => serde_json::json!({ "Metadata": [{ "Labels": named, "Help": "h" }] }),
        "exemplars_without_data" => serde_json::json!({ "Exemplars": [exemplar(named)] }),
        "mixed_timestamp_data" => serde_json::json!({
            "Samples": [sample(named.clone()), sample(serde_json::json!({ "__name__": "n" }))],
            "Exemplars": [exemplar(named)],
        }),
        "exemplar_without_name_label" => {
            let unnamed = serde_json::json!({ "job": "test" });
            serde_json::json!({ "Samples": [sample(unnamed.clone())], "Exemplars": [exemplar(unnamed)] })
        }
        "metadata_without_name_label" | "simple metric without name label" => {
            one(serde_json::json!({ "job": "test" }))
        }
        "simple metric with newlines" => one(serde_json::json!({ "__name__": "m\nn", "l": "a\nb" })),
        "simple metric with dots" => one(serde_json::json!({ "__name__": "m.n", "l.k": "a.b" })),
        "simple metric with spaces" => one(serde_json::json!({ "__name__": "m n", "l k": "a b" })),
        "empty metric" => one(serde_json::json!({})),
        "multiple metrics, without name label" => serde_json::json!({
            "Samples": [sample(serde_json::json!({ "a": "1" })), sample(serde_json::json!({ "a": "2" }))],
        }),
        "multiple metrics, 1 without name label" => serde_json::json!({ "Samples": [
            sample(serde_json::json!({ "__name__": "a" })), sample(serde_json::json!({ "__name__": "b" })),
            sample(serde_json::json!({ "__name__": "c" })), sample(serde_json::json!({ "b": "2" })),
        ]}),
        _ => one(named),
    }
}

const COUNT_WRONG: &str = "its count is not that of its buckets: Prometheus refuses it, and so does this";
const NO_VALUES: &str = "exemplars without a value are refused, as by Prometheus";

#[test]
fn compliance() {
    let exceptions = [
        ("TestHistograms/basic_histogram", COUNT_WRONG),
        ("TestHistograms/custom_buckets_histogram", COUNT_WRONG),
        ("TestHistograms/positive_only_histogram", COUNT_WRONG),
        ("TestHistograms/negative_only_histogram", COUNT_WRONG),
        ("TestHistograms/minimal_histogram", COUNT_WRONG),
        ("TestEdgeCaseCombinations/exemplars_without_data", NO_VALUES),
    ];
    run("remote-write/compliance_receiver.json", &exceptions, check_compliance);
}

fn check_headers(case: &Value, message: &Wire) -> Outcome {
    let bench = Bench::new(1);
    let of = |name: &str| case["reqHeaders"][name].as_str().map(str::to_owned);
    let headers = RemoteWriteHeaders {
        content_type: of("Content-Type"),
        content_encoding: of("Content-Encoding"),
        version: of("X-Prometheus-Remote-Write-Version"),
    };
    let tenant = TenantId::anonymous();
    let answer = wait(bench.distributor.remote_write(&tenant, &headers, snappy(&message.bytes)));
    same("status", &Some(u64::from(answer.status)), &case["expectedCode"].as_u64())?;
    let wanted = text(case, "expectedError");
    if answer.body.contains(wanted) { Ok(()) } else { same("body", &answer.body.as_str(), &wanted) }
}

#[test]
fn headers() {
    const ONE_VERSION: &str = "about a receiver of one version; without a content type the body is 1.0";
    let series = [Series::new(&[("__name__", "test_metric1"), ("foo", "bar")], 1000, 1.0)];
    run("remote-write/receiver_headers_v1.json", &[], |case| check_headers(case, &v1(&series)));
    let exceptions = [("TestRemoteWriteHandlerHeadersHandling_V2Message/3", ONE_VERSION)];
    run("remote-write/receiver_headers_v2.json", &exceptions, |case| check_headers(case, &v2(&series)));
}

/// In the cases a histogram's fields are shifted: `timestamp` is the start, `histogram` the time, `start_timestamp` the
/// histogram.
fn message_histogram(h: &Value, integer: &Value) -> Histogram {
    let custom = integer["Schema"] == "CustomBucketsSchema";
    let is_float = h["kind"] == "float";
    let (count, zero) = (integer["Count"].as_u64().unwrap_or(0), integer["ZeroCount"].as_u64().unwrap_or(0));
    let mut out = Histogram {
        count: Some(HistogramCount::CountInt(count)),
        sum: number(&integer["Sum"]),
        schema: if custom { CUSTOM_BUCKETS_SCHEMA } else { integer["Schema"].as_i64().unwrap_or(0) as i32 },
        zero_threshold: number(&integer["ZeroThreshold"]),
        zero_count: Some(HistogramZeroCount::ZeroCountInt(zero)),
        negative_spans: spans(&integer["NegativeSpans"]),
        negative_deltas: deltas(&integer["NegativeBuckets"]),
        positive_spans: spans(&integer["PositiveSpans"]),
        positive_deltas: deltas(&integer["PositiveBuckets"]),
        timestamp: h["histogram"].as_i64().unwrap_or(0),
        start_timestamp: h["timestamp"].as_i64().unwrap_or(0),
        custom_values: items(&integer["CustomValues"]).map(number).collect(),
        ..Histogram::default()
    };
    if is_float {
        out.count = Some(HistogramCount::CountFloat(count as f64));
        out.zero_count = Some(HistogramZeroCount::ZeroCountFloat(zero as f64));
        out.positive_counts = sextant_model::deltas_to_counts(&std::mem::take(&mut out.positive_deltas));
        out.negative_counts = sextant_model::deltas_to_counts(&std::mem::take(&mut out.negative_deltas));
    }
    out
}

fn refs(v: &Value) -> Vec<u32> {
    items(v).filter_map(Value::as_u64).map(|n| n as u32).collect()
}

fn message_series(item: &Value) -> TimeSeriesV2 {
    let int = |v: &Value, field: &str| v[field].as_i64().unwrap_or(0);
    let mut integer = &Value::Null;
    let mut histograms = Vec::new();
    for h in items(&item["Histograms"]) {
        // A float histogram is said to be the integer one before it.
        integer = if h["start_timestamp"].is_object() { &h["start_timestamp"] } else { integer };
        histograms.push(message_histogram(h, integer));
    }
    let metadata = &item["Metadata"];
    TimeSeriesV2 {
        labels_refs: refs(&item["LabelsRefs"]),
        samples: items(&item["Samples"])
            .map(|s| SampleV2 {
                value: number(&s["Value"]),
                timestamp: int(s, "Timestamp"),
                start_timestamp: int(s, "StartTimestamp"),
            })
            .collect(),
        histograms,
        exemplars: items(&item["Exemplars"])
            .map(|e| ExemplarV2 {
                labels_refs: refs(&e["LabelsRefs"]),
                value: number(&e["Value"]),
                timestamp: int(e, "Timestamp"),
            })
            .collect(),
        metadata: metadata.is_object().then(|| MetadataV2 {
            r#type: metric_type(text(metadata, "Type")),
            help_ref: int(metadata, "HelpRef") as u32,
            unit_ref: int(metadata, "UnitRef") as u32,
        }),
        created_timestamp: 0,
    }
}

fn type_unit_bench(is_on: bool) -> Bench {
    let config = DistributorConfig { type_and_unit_labels: is_on, ..DistributorConfig::default() };
    Bench::with(2, config, TenantLimits::default())
}

fn expect_only_series(bench: &Bench, wanted: &Value) -> Outcome {
    let wanted = sextant_model::Labels::from_pairs(pairs(wanted)).map_err(|e| e.to_string())?;
    same("series", &bench.fake.series(), &vec![wanted.to_string()])
}

fn check_message(case: &Value, default_symbols: &Value) -> Outcome {
    let symbols = case.get("symbols").unwrap_or(default_symbols);
    let request = RequestV2 {
        symbols: items(symbols).map(|s| s.as_str().unwrap_or("").to_owned()).collect(),
        timeseries: items(&case["input"]).map(message_series).collect(),
    };
    let bench = type_unit_bench(case["enableTypeAndUnitLabels"].as_bool().unwrap_or(false));
    let expected = case["expectedCode"].as_u64().unwrap_or(0);
    if expected == 500 {
        (0..2).for_each(|s| bench.fake.fail_next(s, ShardError::Malformed("append failed".into()), false));
    }
    let answer = wait(bench.send(&Wire { bytes: request.encode_to_vec(), is_v2: true }));
    same(&format!("status ({})", answer.body.trim()), &u64::from(answer.status), &expected)?;
    let wanted = text(case, "expectedRespBody").trim();
    if expected == 400 && !answer.body.contains(wanted) {
        return same("body", &answer.body.as_str(), &wanted);
    }
    if let Some(wanted) = case.get("expectedLabels") {
        return expect_only_series(&bench, wanted);
    }
    if expected == 500 {
        return same("stored", &bench.fake.series(), &vec![]);
    }
    let stored = bench.fake.stored();
    let total = |of: fn(&crate::fake::Stored) -> usize| Some(stored.values().map(of).sum::<usize>() as u64);
    let [samples, histograms, exemplars] = written(&answer);
    same("samples", &samples, &total(|s| s.samples.len()))?;
    same("histograms", &histograms, &total(|s| s.histograms.len()))?;
    same("exemplars", &exemplars, &total(|s| s.exemplars.len()))
}

#[test]
fn messages() {
    const FILE: &str = "remote-write/receiver_v2_messages.json";
    let Some(document) = document(FILE) else { return };
    let symbols = &document["source"]["default_symbols"];
    run_cases(FILE, cases_of(&document), &[], |case| check_message(case, symbols));
}

#[test]
fn type_and_unit_labels() {
    run("remote-write/receiver_v2_type_unit.json", &[], |case| {
        let metadata = &case["metadataToSend"];
        let series = Series {
            labels: pairs(&case["labelsToSend"]),
            samples: vec![(1000, 1.0, 0)],
            metadata: Some((
                metric_type(text(metadata, "Type")),
                String::new(),
                text(metadata, "Unit").into(),
            )),
            ..Series::default()
        };
        let bench = type_unit_bench(true);
        let answer = wait(bench.send(&v2(&[series])));
        same("status", &answer.status, &204)?;
        expect_only_series(&bench, &case["expectedLabels"])
    });
}

#[test]
fn a_family_is_stored_with_its_metadata() {
    let series = Series {
        labels: labels(&[("__name__", "h_bucket"), ("le", "1")]),
        samples: vec![(1000, 1.0, 0)],
        metadata: Some((3, "help".into(), "seconds".into())),
        ..Series::default()
    };
    let bench = Bench::new(2);
    assert_eq!(wait(bench.send(&v2(&[series]))).status, 204);
    let ((_, family), m) = bench.fake.metadata().pop_first().unwrap();
    assert_eq!((family.as_str(), m.help.as_str(), m.unit.as_str()), ("h", "help", "seconds"));
}
