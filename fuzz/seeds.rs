//! Writes well-formed inputs to `corpus/NAME/`: a fuzzer that begins with one is behind the first checks at once.

use std::{fs, io, path::Path};

use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value},
    metrics::v1::{
        ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Metric, NumberDataPoint, ResourceMetrics,
        ScopeMetrics, exponential_histogram_data_point::Buckets, metric::Data, number_data_point,
    },
    resource::v1::Resource,
};
use prost::Message;
use sextant_ingester::head::{Command, Head, encode_delete};
use sextant_model::{
    Exemplar, Histogram, Labels, Matcher, MetricMetadata, MetricType, SeriesBuf, Span, TenantId,
};
use sextant_proto::{
    BatchHeader, DeleteRequest, WriteBatchBuilder,
    remote_write::{
        ExemplarV1, Label, RequestV2, SampleV1, SampleV2, TimeSeriesV1, TimeSeriesV2, WriteRequestV1,
    },
};
use sextant_storage::{BlockOptions, SeriesSource, write_block};

fn main() -> io::Result<()> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let mut put = |name: &str, inputs: Vec<Vec<u8>>| -> io::Result<()> {
        let folder = corpus.join(name);
        fs::create_dir_all(&folder)?;
        inputs
            .iter()
            .enumerate()
            .try_for_each(|(i, input)| fs::write(folder.join(format!("seed-{i}")), input))
    };
    let (v1, v2) = remote_write();
    let snappy = |raw: &[u8]| snap::raw::Encoder::new().compress_vec(raw).expect("a small input");
    put("remote_write_body", vec![snappy(&v1), snappy(&v2)])?;
    put("remote_write_v1", vec![v1])?;
    put("remote_write_v2", vec![v2])?;
    put("otlp_protobuf", vec![otlp().encode_to_vec()])?;
    put("otlp_json", texts(&OTLP_JSON))?;
    put("exposition_text", texts(&TEXT))?;
    put("exposition_openmetrics", texts(&OPENMETRICS))?;
    put("scrape_config", texts(&SCRAPE))?;
    put("limits_file", texts(&LIMITS))?;
    put("storage_manifest", texts(&MANIFEST))?;
    put("promql_parser", texts(&PROMQL))?;
    put("promql_evaluator", texts(&PROMQL))?;
    put("promql_series", texts(&SERIES))?;
    let (batch, histogram) = (batch(), histogram());
    let write = Command::Write(&batch).encode();
    let request = DeleteRequest {
        tenant: TenantId::new("t").expect("a tenant"),
        id: 9,
        now_ms: 0,
        selectors: vec![vec![Matcher::equal("a", "b")]],
        start: 0,
        end: 9,
    };
    let delete = Command::Delete(&encode_delete(&request)).encode();
    let commands =
        [&write[..], &Command::Seal.encode(), &write, &delete, &write, &Command::Flushed(2).encode()];
    let framed = commands.iter().flat_map(|c| [&(c.len() as u16).to_le_bytes()[..], c].concat());
    put("head_apply", vec![framed.collect()])?;
    let head = Head::new();
    let _ = (head.apply(1, &write), head.apply(2, &Command::Seal.encode()));
    let checkpoint = head.sealed().first().and_then(|g| g.checkpoint());
    put("head_checkpoint", checkpoint.into_iter().map(|(_, bytes)| bytes.to_vec()).collect())?;
    put("histogram", vec![histogram])?;
    put("labels", vec![labels().as_bytes().to_vec()])?;
    put("write_batch", vec![batch])?;
    put("storage_sample_page", vec![[&[3, 0, 2, 0, 0, 0, 6, 1, 1, 2, 3][..], &[0; 9]].concat()])?;
    let files = write_block(&Few, BlockOptions::default()).expect("a block").expect("series");
    for (name, bytes) in &files.objects {
        match name.as_str() {
            "index" => put("storage_sidecar", vec![bytes.to_vec()])?,
            "checksums" => put("storage_checksums", vec![bytes.to_vec()])?,
            _ => {}
        }
    }
    Ok(())
}

/// The series of a small block.
struct Few;

impl SeriesSource for Few {
    fn len(&self) -> usize {
        3
    }

    fn labels(&self, i: usize) -> Labels {
        let n = i.to_string();
        Labels::from_pairs([("__name__", "m"), ("job", "a"), ("n", &n)]).expect("labels")
    }

    fn time_key(&self, _: usize) -> Option<u64> {
        None
    }

    fn read(&self, i: usize, buf: &mut SeriesBuf) {
        buf.t.extend([1, 2, 5 + i as i64]);
        buf.v.extend([0.5, 2.0, -1.0]);
    }

    fn exemplars(&self, _: usize) -> Vec<Exemplar> {
        Vec::new()
    }

    fn metadata(&self, _: usize) -> Option<MetricMetadata> {
        None
    }
}

fn texts(all: &[&str]) -> Vec<Vec<u8>> {
    all.iter().map(|t| t.as_bytes().to_vec()).collect()
}

fn labels() -> Labels {
    Labels::from_pairs([("__name__", "m"), ("job", "a"), ("instance", "b")]).expect("labels")
}

fn histogram() -> Vec<u8> {
    let h = Histogram {
        integer: true,
        count: 3.0,
        sum: 1.5,
        positive_spans: vec![Span { offset: 1, length: 2 }],
        positive_buckets: vec![1.0, 2.0],
        ..Histogram::default()
    };
    let mut out = Vec::new();
    h.encode(&mut out);
    out
}

fn batch() -> Vec<u8> {
    let mut b = WriteBatchBuilder::default();
    let new = b.new_series(labels().as_bytes(), 0);
    b.sample(new, 1000, 1.5, 500);
    b.sample(new, 1001, 2.5, 0);
    b.histogram(new, 1002, 0, &histogram());
    b.exemplar(new, 1003, 0.5, Labels::empty().as_bytes());
    let metadata = MetricMetadata { metric_type: MetricType::Counter, help: "h".into(), unit: "s".into() };
    b.metadata("m", &metadata);
    let (write_id, epoch, now_ms) = (7, 1, 2000);
    b.finish(&BatchHeader { tenant: "t", write_id, epoch, max_series: 9, ooo_window_ms: -1, now_ms }).to_vec()
}

fn remote_write() -> (Vec<u8>, Vec<u8>) {
    let label = |name: &str, value: &str| Label { name: name.into(), value: value.into() };
    let pairs = vec![label("__name__", "m"), label("job", "a")];
    let v1 = WriteRequestV1 {
        timeseries: vec![TimeSeriesV1 {
            labels: pairs.clone(),
            samples: vec![SampleV1 { value: 1.5, timestamp: 1000 }],
            exemplars: vec![ExemplarV1 { labels: pairs, value: 1.0, timestamp: 999 }],
            histograms: Vec::new(),
        }],
        metadata: Vec::new(),
    };
    let v2 = RequestV2 {
        symbols: ["", "__name__", "m", "job", "a"].map(str::to_owned).to_vec(),
        timeseries: vec![TimeSeriesV2 {
            labels_refs: vec![1, 2, 3, 4],
            samples: vec![SampleV2 { value: 1.5, timestamp: 1000, start_timestamp: 500 }],
            ..TimeSeriesV2::default()
        }],
    };
    (v1.encode_to_vec(), v2.encode_to_vec())
}

fn otlp() -> ExportMetricsServiceRequest {
    let attribute = |key: &str, value: &str| KeyValue {
        key: key.into(),
        value: Some(AnyValue { value: Some(Value::StringValue(value.into())) }),
        ..KeyValue::default()
    };
    let point = NumberDataPoint {
        attributes: vec![attribute("a.b", "1"), attribute("a_b", "2")],
        time_unix_nano: 5_000_000,
        value: Some(number_data_point::Value::AsInt(3)),
        ..NumberDataPoint::default()
    };
    let native = ExponentialHistogramDataPoint {
        scale: 3,
        count: 3,
        positive: Some(Buckets { offset: -2, bucket_counts: vec![1, 0, 2] }),
        ..ExponentialHistogramDataPoint::default()
    };
    let data = [
        Data::Gauge(Gauge { data_points: vec![point] }),
        Data::ExponentialHistogram(ExponentialHistogram {
            data_points: vec![native],
            aggregation_temporality: 2,
        }),
    ];
    let metric =
        |data| Metric { name: "m".into(), unit: "By/s".into(), data: Some(data), ..Metric::default() };
    let scope_metrics = vec![ScopeMetrics {
        scope: Some(InstrumentationScope { name: "s".into(), ..InstrumentationScope::default() }),
        metrics: data.map(metric).to_vec(),
        ..ScopeMetrics::default()
    }];
    let resource = Resource { attributes: vec![attribute("service.name", "x")], ..Resource::default() };
    let resource_metrics =
        vec![ResourceMetrics { resource: Some(resource), scope_metrics, ..ResourceMetrics::default() }];
    ExportMetricsServiceRequest { resource_metrics }
}

const OTLP_JSON: [&str; 1] = [
    r#"{"resourceMetrics":[{"resource":{"attributes":[{"key":"service.name","value":
{"stringValue":"x"}}]},"scopeMetrics":[{"scope":{"name":"s"},"metrics":[{"name":"h","histogram":{"aggregationTemporality":2,
"dataPoints":[{"timeUnixNano":"5000000","count":"3","sum":1.5,"bucketCounts":["1","2"],"explicitBounds":[0.1],"exemplars":
[{"traceId":"5b8efff798038103d269b633813fc60c","asInt":3}]}]}},{"name":"s","summary":{"dataPoints":[{"count":"9",
"quantileValues":[{"quantile":0.5,"value":"Infinity"}]}]}}]}]}]}"#,
];
const TEXT: [&str; 1] = [
    "# HELP a h\n# TYPE a histogram\na_bucket{le=\"1\",x=\"\\\"y\\\\\"} 1 12\n{\"b.c\",\"d e\"=\"\u{e9}\"} NaN\na_sum 1e3\n",
];
const OPENMETRICS: [&str; 1] = [
    "# TYPE a_s counter\n# UNIT a_s s\na_s_total{b=\"c\"} 1 1.5 # {t=\"i\"} 2 3\na_s_created{b=\"c\"} 1\n# EOF\n",
];
const SCRAPE: [&str; 1] = [
    "global: {scrape_interval: 15s}\nscrape_configs:\n- job_name: a\n  static_configs:\n  - targets: \
['b:1']\n    labels: {c: d}\n  relabel_configs:\n  - source_labels: [__address__]\n    regex: '(.*):1'\n    target_label: e\n",
];
const LIMITS: [&str; 1] =
    ["defaults: {max_active_series: 10, retention: 1h30m}\noverrides:\n  a: {ingestion_rate: 1.5}\n  7:\n"];
const MANIFEST: [&str; 2] = [
    r#"{"tenant":"a","signal":"metrics","version":2,"commit":"x","blocks":[],"covered":{},"retired":[],"tombstones":[{"id":"01ARZ3NDEKTSV4RRFFQ69G5FAV","selectors":[[{"name":"a","op":"=~","value":"b.*"}]],"start":0,"end":9,"shards":{"0":{"position":5,"pending":4}},"version":2}]}"#,
    r#"{"tenant":"a","signal":"metrics","version":1,"commit":"x","blocks":[],"covered":{"0":5},"retired":[]}"#,
];
const SERIES: [&str; 3] =
    ["m{a=\"b\"} 1 2 _ stale 1+2x3 {{schema:1 sum:2 count:3 buckets:[1 2]}}x2", "{a=~\"b\"}", "1h30m"];
const PROMQL: [&str; 8] = [
    "sum by (a) (rate(m[5m])) / on (a) group_left (le) n > bool 2",
    "histogram_quantile(0.9, sum without (a) (m{le!=\"\"} offset 1m @ end()))",
    "topk(2, m) or n unless ignoring (le) m",
    "label_replace(m, \"b\", \"$1x\", \"a\", \"(.*)\") ^ -2",
    "avg_over_time((m * 2)[5m:1m]) and absent(x)",
    "quantile_over_time(0.5, m[2m]) + time() % 7",
    "count_values(\"v\", m) atan2 vector(1)",
    "predict_linear(m[5m], 60) != deriv(n[5m]) # comment",
];
