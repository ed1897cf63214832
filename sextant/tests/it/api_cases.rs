//! Prometheus' own cases of its HTTP API, asked of the binary: answers, errors, and how times, durations and `Accept` are read.

use std::collections::BTreeMap;

use prost::Message;
use serde_json::{Value, json};
use sextant_promql_eval::testing::{Command, parse_script};
use sextant_proto::remote_write::{
    ExemplarV1, Label, MetricMetadataV1, SampleV1, TimeSeriesV1, WriteRequestV1,
};

use crate::{
    binary::{Sextant, encode},
    stack::conformance,
};

/// Cases that are not asked, with the reason; `docs/conformance.md` lists them.
const LEFT_OUT: [(&str, &str); 16] = [
    ("testEndpoints/53", "there are no Alertmanagers to discover"),
    ("testEndpoints/67", RULES),
    ("testEndpoints/68", RULES),
    ("testEndpoints/69", RULES),
    ("testEndpoints/70", RULES),
    ("testEndpoints/71", RULES),
    ("testEndpoints/72", RULES),
    ("testEndpoints/73", RULES),
    ("testEndpoints/74", RULES),
    ("testEndpoints/76", RULES),
    ("testEndpoints/77", RULES),
    ("testEndpoints/78", RULES),
    ("testEndpoints/79", RULES),
    ("TestParseTime/0", "an empty time is now"),
    ("TestRespondSuccess/1", CODECS),
    ("TestRespondSuccess/4", CODECS),
];
const RULES: &str = "there are no rules yet";
const CODECS: &str = "the content types are the original unit test's own";

struct Suite {
    sextant: Sextant,
    _folder: tempfile::TempDir,
}

impl Suite {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let sextant = Sextant::start(folder.path(), &["--agent.host-metrics=false", "--multi-tenancy"], None);
        Self { sextant, _folder: folder }
    }

    fn write(&self, tenant: &str, request: &WriteRequestV1) {
        let body = snap::raw::Encoder::new().compress_vec(&request.encode_to_vec()).unwrap();
        let url = format!("{}/api/v1/push", self.sextant.url);
        let request = self.sextant.client.post(url).header("X-Scope-OrgID", tenant);
        let response = request.header("Content-Type", "application/x-protobuf").body(body).send().unwrap();
        assert_eq!(response.status().as_u16(), 204, "{}", response.text().unwrap_or_default());
    }

    /// Status, content type and body.
    fn get(&self, tenant: &str, path: &str, accept: Option<&str>) -> (u16, String, Value) {
        let mut request = self.sextant.client.get(format!("{}{path}", self.sextant.url));
        if let Some(accept) = accept {
            request = request.header("Accept", accept);
        }
        let response = request.header("X-Scope-OrgID", tenant).send().unwrap();
        let status = response.status().as_u16();
        let kind =
            response.headers().get("content-type").and_then(|v| v.to_str().ok()).unwrap_or("").to_owned();
        (status, kind, serde_json::from_str(&response.text().unwrap()).unwrap_or_default())
    }
}

fn cases(file: &str) -> Option<Value> {
    let path = conformance("prometheus-api")?.join(file);
    Some(serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap())
}

fn labels(pairs: &[(&str, &str)]) -> Vec<Label> {
    pairs.iter().map(|(n, v)| Label { name: (*n).to_owned(), value: (*v).to_owned() }).collect()
}

/// The data of the original test: its script, and its exemplars.
fn load(suite: &Suite, tenant: &str, script: &str) {
    let mut request = WriteRequestV1::default();
    for command in parse_script(script).unwrap() {
        let Command::Load(load) = command else { continue };
        for (series, buf) in &load.series {
            let samples = buf.t.iter().zip(&buf.v);
            request.timeseries.push(TimeSeriesV1 {
                labels: series
                    .iter()
                    .map(|(n, v)| Label { name: n.to_owned(), value: v.to_owned() })
                    .collect(),
                samples: samples.map(|(&timestamp, &value)| SampleV1 { value, timestamp }).collect(),
                ..TimeSeriesV1::default()
            });
        }
    }
    suite.write(tenant, &request);
    let exemplar = |id: &str, timestamp| ExemplarV1 { labels: labels(&[("id", id)]), value: 10.0, timestamp };
    let series = |name: &str, value: &str, exemplars: Vec<ExemplarV1>| TimeSeriesV1 {
        labels: labels(&[("__name__", name), ("dup", "1"), ("foo", value)]),
        samples: vec![SampleV1 { value: 1.0, timestamp: 6_000_000 }],
        exemplars,
        ..TimeSeriesV1::default()
    };
    let timeseries = vec![
        series("test_metric3", "boo", vec![exemplar("abc", 2000), exemplar("abc2", 4053)]),
        series("test_metric4", "bar", vec![exemplar("lul", 4000)]),
    ];
    suite.write(tenant, &WriteRequestV1 { timeseries, metadata: Vec::new() });
}

/// A tenant with the metadata that a case expects, or with that of three metrics.
fn load_metadata(suite: &Suite, tenant: &str, expected: Option<&Value>) {
    let three = json!({
        "go_threads": [{"Help": "Number of OS threads created"}, {"Help": "Number of OS threads that were created."}],
        "go_info": [{"Help": "Information about the Go environment."}],
        "other": [{"Help": "Other."}],
    });
    for (name, entries) in expected.unwrap_or(&three).as_object().unwrap() {
        for (i, entry) in entries.as_array().unwrap().iter().enumerate() {
            let kind = if entry["Type"] == "MetricTypeSummary" { 5 } else { 2 };
            let metadata = vec![MetricMetadataV1 {
                r#type: kind,
                metric_family_name: name.clone(),
                help: entry["Help"].as_str().unwrap_or("").to_owned(),
                unit: String::new(),
            }];
            let timeseries = vec![TimeSeriesV1 {
                labels: labels(&[("__name__", name), ("target", &i.to_string())]),
                samples: vec![SampleV1 { value: 1.0, timestamp: 1000 }],
                ..TimeSeriesV1::default()
            }];
            suite.write(tenant, &WriteRequestV1 { timeseries, metadata });
        }
    }
}

fn path_of(case: &Value) -> String {
    let mut path = case["endpoint"].as_str().unwrap().trim_start_matches("GET ").to_owned();
    let name = &case["params"]["name"];
    let name = match (name.as_str(), name["$hex"].as_str()) {
        (Some(text), _) => encode(text),
        (_, Some(hex)) => (0..hex.len()).step_by(2).map(|i| format!("%{}", &hex[i..i + 2])).collect(),
        _ => String::new(),
    };
    path = path.replace(":name", &name);
    let mut pairs = Vec::new();
    for (name, values) in case["query"].as_object().into_iter().flatten() {
        for value in values.as_array().unwrap() {
            pairs.push(format!("{}={}", encode(name), encode(value.as_str().unwrap())));
        }
    }
    format!("{path}?{}", pairs.join("&"))
}

/// An expected structure of the original test as the JSON that stands for it.
fn as_json(response: &Value) -> Value {
    let seconds = |t: &Value| t.as_f64().unwrap() / 1000.0;
    let point = |p: &Value| json!([seconds(&p["T"]), p["F"].as_f64().unwrap().to_string()]);
    match response["ResultType"].as_str() {
        Some("scalar") => {
            let (t, v) = (&response["Result"]["T"], &response["Result"]["V"]);
            json!({"resultType": "scalar", "result": [seconds(t), v.as_f64().unwrap().to_string()]})
        }
        Some("matrix") => {
            let series = response["Result"].as_array().unwrap().iter().map(|s| {
                let values: Vec<Value> = s["Floats"].as_array().unwrap().iter().map(point).collect();
                json!({"metric": s["Metric"], "values": values})
            });
            json!({"resultType": "matrix", "result": series.collect::<Vec<_>>()})
        }
        _ => match response.as_array() {
            Some(list) if list.iter().any(|s| s.get("SeriesLabels").is_some()) => list
                .iter()
                .map(|s| {
                    let exemplars = s["Exemplars"].as_array().unwrap().iter().map(|e| {
                        let value = e["Value"].as_f64().unwrap().to_string();
                        json!({"labels": e["Labels"], "value": value, "timestamp": seconds(&e["Ts"])})
                    });
                    json!({"seriesLabels": s["SeriesLabels"], "exemplars": exemplars.collect::<Vec<_>>()})
                })
                .collect(),
            _ => response.clone(),
        },
    }
}

/// Numbers as floats, so that 2 and 2.0 are the same.
fn plain(value: &Value) -> Value {
    match value {
        Value::Number(n) => json!(n.as_f64()),
        Value::Array(items) => items.iter().map(plain).collect(),
        Value::Object(fields) => fields.iter().map(|(k, v)| (k.clone(), plain(v))).collect(),
        other => other.clone(),
    }
}

fn length(value: &Value) -> Option<usize> {
    value.as_array().map(Vec::len).or(value.as_object().map(serde_json::Map::len))
}

/// What is wrong with the answer to a case.
fn complaint(case: &Value, status: u16, body: &Value) -> Option<String> {
    let differs = |what: &str, expected: &Value, got: &Value| {
        (plain(expected) != plain(got)).then(|| format!("{what}: expected {expected}, got {got}"))
    };
    if let Some(kind) = case["errType"].as_str() {
        let right = status >= 400 && body["status"] == "error" && body["errorType"] == kind;
        return (!right).then(|| format!("expected {kind}, got {status} {body}"));
    }
    if status != 200 || body["status"] != "success" {
        return Some(format!("{status} {body}"));
    }
    if let Some(text) = case["responseAsJSON"].as_str() {
        let expected = serde_json::from_str(text).unwrap();
        if let Some(difference) = differs("data", &expected, &body["data"]) {
            return Some(difference);
        }
    } else if let Some(response) = case.get("response")
        && let Some(difference) = differs("data", &as_json(response), &body["data"])
    {
        return Some(difference);
    }
    if let Some(count) = case["warningsCount"].as_u64() {
        let got = body["warnings"].as_array().map_or(0, Vec::len) as u64;
        if got != count {
            return Some(format!("{got} warnings, not {count}"));
        }
    }
    if let Some(count) = case["responseLen"].as_u64()
        && length(&body["data"]) != Some(count as usize)
    {
        return Some(format!("not {count} items: {body}"));
    }
    if let Some(total) = case["responseMetadataTotal"].as_u64() {
        let got: usize = body["data"].as_object().unwrap().values().filter_map(length).sum();
        return (got as u64 != total).then(|| format!("{got} entries of metadata, not {total}"));
    }
    None
}

#[test]
fn prometheus_api_cases() {
    let (Some(endpoints), Some(times), Some(durations), Some(bodies)) = (
        cases("endpoints.json"),
        cases("parse_time.json"),
        cases("parse_duration.json"),
        cases("success_bodies.json"),
    ) else {
        return;
    };
    let suite = Suite::start();
    load(&suite, "data", endpoints["source"]["load"].as_str().unwrap());
    let left_out: BTreeMap<&str, &str> = LEFT_OUT.into_iter().collect();
    let (mut passed, mut skipped, mut failures) = (0, 0, Vec::new());
    let mut judge = |case: &Value, judgement: &mut dyn FnMut(&Value) -> Option<String>| {
        let id = case["id"].as_str().unwrap();
        if left_out.contains_key(id) {
            skipped += 1;
            return;
        }
        match judgement(case) {
            None => passed += 1,
            Some(reason) => failures.push(format!("{id}: {reason}")),
        }
    };
    let list = |suite: &Value| suite["cases"].as_array().unwrap().clone();
    for (i, case) in list(&endpoints).iter().enumerate() {
        judge(case, &mut |case| {
            let mut tenant = "data".to_owned();
            if case["endpoint"] == "GET /api/v1/metadata" {
                tenant = format!("metadata{i}");
                load_metadata(&suite, &tenant, case.get("response"));
            }
            let (status, _, body) = suite.get(&tenant, &path_of(case), None);
            complaint(case, status, &body)
        });
    }
    for case in list(&times) {
        judge(&case, &mut |case| {
            let input = encode(case["input"].as_str().unwrap());
            let (status, _, body) = suite.get("data", &format!("/api/v1/query?query=1&time={input}"), None);
            let right = match case["result"]["unix_ns"].as_f64() {
                Some(ns) => body["data"]["result"][0].as_f64() == Some((ns / 1e6).round() / 1e3),
                None => status == 400,
            };
            (!right).then(|| format!("{status} {body}"))
        });
    }
    for case in list(&durations) {
        judge(&case, &mut |case| {
            let input = encode(case["input"].as_str().unwrap());
            let path = format!("/api/v1/query_range?query=time()&start=0&end=1000&step={input}");
            let (status, _, body) = suite.get("data", &path, None);
            let right = match case["result"].as_f64() {
                Some(ns) => body["data"]["result"][0]["values"][1][0].as_f64() == Some(ns / 1e9),
                None => status == 400,
            };
            (!right).then(|| format!("{status} {body}"))
        });
    }
    for case in list(&bodies) {
        judge(&case, &mut |case| {
            let accept = case["acceptHeader"].as_str();
            let (status, kind, body) = suite.get("data", "/api/v1/query?query=1", accept);
            let right = status == 200 && kind == "application/json" && body["status"] == "success";
            (!right).then(|| format!("{status} {kind} {body}"))
        });
    }
    println!("prometheus-api: {passed} passed, {} failed, {skipped} left out", failures.len());
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
