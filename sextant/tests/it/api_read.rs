//! Remote read in both forms, federation, cardinality, compressed answers and refused methods, against the binary.

use std::io::Read;

use prost::Message;
use sextant_proto::{
    remote_read::{
        ChunkEncoding, ChunkedReadResponse, LabelMatcher, LabelMatcherType, ReadQuery, ReadRequest,
        ReadResponse, ResponseType,
    },
    remote_write::Label,
};

use crate::binary::{Sextant, remote_write};

const STEPS: i64 = 300;

/// Two series `m` of 300 samples, 15 s apart, that end at `end_s`.
fn filled(folder: &std::path::Path, end_s: i64) -> Sextant {
    let sextant = Sextant::start(folder, &["--agent.host-metrics=false"], None);
    let series: Vec<_> = ["a", "b"]
        .iter()
        .map(|pod| {
            let labels = vec![("__name__", "m".to_owned()), ("pod", (*pod).to_owned())];
            let samples = (0..STEPS).map(|i| ((end_s - (STEPS - 1 - i) * 15) * 1000, i as f64 * 0.5));
            (labels, samples.collect())
        })
        .collect();
    let (status, text) =
        sextant.post("/api/v1/push", "application/x-protobuf", remote_write(&series)).unwrap();
    assert_eq!(status, 204, "{text}");
    sextant
}

fn read(sextant: &Sextant, kinds: &[ResponseType]) -> (u16, String, Vec<u8>) {
    let matcher = |r#type: LabelMatcherType, name: &str, value: &str| LabelMatcher {
        r#type: r#type as i32,
        name: name.to_owned(),
        value: value.to_owned(),
    };
    let request = ReadRequest {
        queries: vec![ReadQuery {
            start_timestamp_ms: 0,
            end_timestamp_ms: i64::MAX,
            matchers: vec![
                matcher(LabelMatcherType::Equal, "__name__", "m"),
                matcher(LabelMatcherType::Regex, "pod", "a|b"),
            ],
        }],
        accepted_response_types: kinds.iter().map(|&k| k as i32).collect(),
    };
    let body = snap::raw::Encoder::new().compress_vec(&request.encode_to_vec()).unwrap();
    let request = sextant.client.post(format!("{}/api/v1/read", sextant.url)).body(body);
    let response = request.send().unwrap();
    let kind = response.headers()["content-type"].to_str().unwrap().to_owned();
    (response.status().as_u16(), kind, response.bytes().unwrap().to_vec())
}

fn pod(labels: &[Label]) -> &str {
    &labels.iter().find(|l| l.name == "pod").unwrap().value
}

#[test]
fn remote_read_as_samples_and_as_chunks() {
    let folder = tempfile::tempdir().unwrap();
    let sextant = filled(folder.path(), 10_000);
    for blocks in [false, true] {
        if blocks {
            assert_eq!(sextant.post("/api/v1/admin/flush", "text/plain", Vec::new()).unwrap().0, 204);
        }
        let (status, kind, body) = read(&sextant, &[]);
        assert_eq!((status, kind.as_str()), (200, "application/x-protobuf"));
        let raw = snap::raw::Decoder::new().decompress_vec(&body).unwrap();
        let series = &ReadResponse::decode(raw.as_slice()).unwrap().results[0].timeseries;
        assert_eq!(series.iter().map(|s| pod(&s.labels)).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(series[1].samples.len(), STEPS as usize);
        let last = series[1].samples.last().unwrap();
        assert_eq!((last.timestamp, last.value), (10_000_000, 149.5));

        let (status, kind, body) = read(&sextant, &[ResponseType::StreamedXorChunks, ResponseType::Samples]);
        assert_eq!(status, 200);
        assert_eq!(kind, "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse");
        let mut rest = body.as_slice();
        let mut pods = Vec::new();
        while !rest.is_empty() {
            let length = prost::decode_length_delimiter(&mut rest).unwrap();
            let (_checksum, tail) = rest.split_at(4);
            let (message, tail) = tail.split_at(length);
            rest = tail;
            let frame = ChunkedReadResponse::decode(message).unwrap();
            assert_eq!(frame.query_index, 0);
            for series in frame.chunked_series {
                pods.push(pod(&series.labels).to_owned());
                let counts: Vec<u16> =
                    series.chunks.iter().map(|c| u16::from_be_bytes([c.data[0], c.data[1]])).collect();
                assert_eq!(counts, [120, 120, 60]);
                assert!(series.chunks.iter().all(|c| c.r#type == ChunkEncoding::Xor as i32));
                assert_eq!(series.chunks[2].max_time_ms, 10_000_000);
            }
        }
        assert_eq!(pods, ["a", "b"]);
    }
    let (status, text) = sextant.post("/api/v1/read", "application/x-protobuf", b"xx".to_vec()).unwrap();
    assert_eq!((status, text.as_str()), (400, "snappy: corrupt input\n"));
}

#[test]
fn federation_and_cardinality_of_recent_series() {
    let folder = tempfile::tempdir().unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as i64;
    let sextant = filled(folder.path(), now);
    for path in ["/federate", "/prometheus/federate"] {
        let (status, text) = sextant.get(&format!("{path}?match[]=m&match[]={{pod=%22b%22}}"));
        let line = |pod: &str| format!("m{{pod=\"{pod}\",instance=\"\"}} 149.5 {now}000\n");
        assert_eq!((status, text), (200, format!("# TYPE m untyped\n{}{}", line("a"), line("b"))));
    }
    assert_eq!(sextant.get("/federate?match[]={").0, 400);
    let json = |path: &str| -> serde_json::Value {
        let (status, body) = sextant.get(&format!("/prometheus/api/v1{path}"));
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).unwrap()
    };
    for blocks in [false, true] {
        let tsdb = &json("/status/tsdb?limit=1")["data"];
        assert_eq!(tsdb["headStats"]["numSeries"], 2);
        assert_eq!(tsdb["headStats"]["numLabelPairs"], 3);
        assert_eq!(tsdb["headStats"]["maxTime"], now * 1000);
        assert_eq!(tsdb["seriesCountByMetricName"], serde_json::json!([{"name": "m", "value": 2}]));
        assert_eq!(tsdb["labelValueCountByLabelName"], serde_json::json!([{"name": "pod", "value": 2}]));
        // Two series with a name of 8 bytes, a value of one and two lengths.
        assert_eq!(tsdb["memoryInBytesByLabelName"], serde_json::json!([{"name": "__name__", "value": 22}]));
        assert_eq!(
            tsdb["seriesCountByLabelValuePair"],
            serde_json::json!([{"name": "__name__=m", "value": 2}])
        );
        let active = json("/cardinality/active_series?selector={pod=%22a%22}");
        assert_eq!(active, serde_json::json!({"data": [{"__name__": "m", "pod": "a"}]}));
        let method = if blocks { "active" } else { "inmemory" };
        let names = json(&format!("/cardinality/label_names?count_method={method}"));
        assert_eq!((&names["label_names_count"], &names["label_values_count_total"]), (&2.into(), &3.into()));
        assert_eq!(
            names["cardinality"][0],
            serde_json::json!({"label_name": "pod", "label_values_count": 2})
        );
        let values =
            json(&format!("/cardinality/label_values?label_names[]=pod&limit=1&count_method={method}"));
        assert_eq!(values["series_count_total"], 2);
        assert_eq!(
            values["labels"][0]["cardinality"],
            serde_json::json!([{"label_value": "a", "series_count": 1}])
        );
        if !blocks {
            assert_eq!(sextant.post("/api/v1/admin/flush", "text/plain", Vec::new()).unwrap().0, 204);
        }
    }
}

#[test]
fn compressed_answers_and_refused_methods() {
    let folder = tempfile::tempdir().unwrap();
    let sextant = filled(folder.path(), 10_000);
    let url = format!("{}/api/v1/query_range?query=m&start=0&end=10000&step=1", sextant.url);
    let get = |encoding: &str| {
        let response = sextant.client.get(&url).header("Accept-Encoding", encoding).send().unwrap();
        let given = response.headers().get("content-encoding").map(|v| v.to_str().unwrap().to_owned());
        (given, response.bytes().unwrap().to_vec())
    };
    let (none, plain) = get("identity");
    assert!(none.is_none() && plain.len() > 64 * 1024, "several pieces: {}", plain.len());
    for encoding in ["gzip", "zstd"] {
        let (given, body) = get(encoding);
        assert_eq!(given.as_deref(), Some(encoding));
        assert!(body.len() < plain.len() / 2);
        let magic: &[u8] = if encoding == "gzip" { &[0x1f, 0x8b] } else { &[0x28, 0xb5, 0x2f, 0xfd] };
        let mut start = vec![0; magic.len()];
        body.as_slice().read_exact(&mut start).unwrap();
        assert_eq!(start, magic);
    }
    let ask = |method: reqwest::Method, path: &str| {
        let request = sextant.client.request(method, format!("{}{path}", sextant.url));
        let response = request.header("Origin", "http://pages.example").send().unwrap();
        let header = |name: &str| response.headers().get(name).map(|v| v.to_str().unwrap().to_owned());
        (response.status().as_u16(), header("allow"), header("access-control-allow-origin"))
    };
    use reqwest::Method;
    let refused = |allow: &str| (405, Some(allow.to_owned()), None);
    assert_eq!(ask(Method::PUT, "/api/v1/query?query=1"), refused("GET, OPTIONS, POST"));
    assert_eq!(ask(Method::HEAD, "/prometheus/api/v1/query?query=1"), refused("GET, OPTIONS, POST"));
    assert_eq!(ask(Method::POST, "/api/v1/rules"), refused("GET, OPTIONS"));
    assert_eq!(ask(Method::POST, "/federate"), refused("GET, OPTIONS"));
    let origin = Some("http://pages.example".to_owned());
    assert_eq!(ask(Method::OPTIONS, "/api/v1/query"), (204, None, origin.clone()));
    assert_eq!(ask(Method::GET, "/api/v1/query?query=1"), (200, None, origin));
    assert_eq!(ask(Method::GET, "/federate"), (200, None, None));
    assert_eq!(ask(Method::POST, "/api/v1/admin/tsdb/delete_series?match[]=m").0, 503);
    assert_eq!(sextant.get("/api/v1/nothing"), (404, "404 page not found\n".to_owned()));
}
