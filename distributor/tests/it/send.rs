//! Remote-write requests, and the distributor that they are sent to.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use prost::Message;
use sextant_distributor::{Distributor, DistributorConfig, RemoteWriteAnswer, RemoteWriteHeaders};
use sextant_model::TenantId;
use sextant_proto::{
    Limits, LimitsHandle, TenantLimits,
    remote_write::{
        ExemplarV1, ExemplarV2, Histogram, Label, MetadataV2, RequestV2, SampleV1, SampleV2, TimeSeriesV1,
        TimeSeriesV2, WriteRequestV1,
    },
};

use crate::fake::Fake;

pub const V2: &str = "application/x-protobuf;proto=io.prometheus.write.v2.Request";
/// The clock of all tests, milliseconds.
pub const NOW_MS: i64 = 1_700_000_000_000;

/// A distributor over shards in memory.
pub struct Bench {
    pub fake: Arc<Fake>,
    pub distributor: Arc<Distributor>,
}

impl Bench {
    pub fn new(shards: usize) -> Self {
        Self::with(shards, DistributorConfig::default(), TenantLimits::default())
    }

    pub fn with_limits(limits: TenantLimits) -> Self {
        Self::with(2, DistributorConfig::default(), limits)
    }

    pub fn with(shards: usize, config: DistributorConfig, limits: TenantLimits) -> Self {
        let fake = Fake::new(shards);
        let handle = LimitsHandle::new(Limits::new(limits));
        let distributor = Distributor::new(config, handle, fake.clone()).with_clock(Arc::new(|| NOW_MS));
        Self { fake, distributor: Arc::new(distributor) }
    }

    pub async fn send(&self, message: &Wire) -> RemoteWriteAnswer {
        self.send_body(message.is_v2, snappy(&message.bytes)).await
    }

    pub async fn send_body(&self, is_v2: bool, body: Bytes) -> RemoteWriteAnswer {
        let headers = RemoteWriteHeaders {
            content_type: is_v2.then(|| V2.to_owned()),
            ..RemoteWriteHeaders::default()
        };
        self.distributor.remote_write(&TenantId::anonymous(), &headers, body).await
    }
}

pub fn snappy(raw: &[u8]) -> Bytes {
    snap::raw::Encoder::new().compress_vec(raw).unwrap().into()
}

/// The value of an answer's header.
pub fn header<'a>(answer: &'a RemoteWriteAnswer, name: &str) -> Option<&'a str> {
    answer.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
}

/// Samples, histograms and exemplars that the answer says were written.
pub fn written(answer: &RemoteWriteAnswer) -> [Option<u64>; 3] {
    ["Samples", "Histograms", "Exemplars"].map(|kind| {
        header(answer, &format!("X-Prometheus-Remote-Write-{kind}-Written")).and_then(|v| v.parse().ok())
    })
}

/// A series in a form that both versions can carry.
#[derive(Clone, Debug, Default)]
pub struct Series {
    pub labels: Vec<(String, String)>,
    /// Time, value, start time.
    pub samples: Vec<(i64, f64, i64)>,
    pub histograms: Vec<Histogram>,
    /// Time, value, labels.
    pub exemplars: Vec<(i64, f64, Vec<(String, String)>)>,
    /// Type, help, unit.
    pub metadata: Option<(i32, String, String)>,
}

pub fn labels(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect()
}

impl Series {
    pub fn new(pairs: &[(&str, &str)], t: i64, v: f64) -> Self {
        Self { labels: labels(pairs), samples: vec![(t, v, 0)], ..Self::default() }
    }
}

/// An encoded message.
#[derive(Clone, Debug)]
pub struct Wire {
    pub bytes: Vec<u8>,
    pub is_v2: bool,
}

pub fn v1(series: &[Series]) -> Wire {
    let pairs = |of: &[(String, String)]| {
        of.iter().map(|(n, v)| Label { name: n.clone(), value: v.clone() }).collect::<Vec<_>>()
    };
    let timeseries = series.iter().map(|s| TimeSeriesV1 {
        labels: pairs(&s.labels),
        samples: s.samples.iter().map(|&(timestamp, value, _)| SampleV1 { value, timestamp }).collect(),
        exemplars: s
            .exemplars
            .iter()
            .map(|(t, v, l)| ExemplarV1 { labels: pairs(l), value: *v, timestamp: *t })
            .collect(),
        histograms: s.histograms.clone(),
    });
    let request = WriteRequestV1 { timeseries: timeseries.collect(), metadata: Vec::new() };
    Wire { bytes: request.encode_to_vec(), is_v2: false }
}

/// The table of a request's symbols.
#[derive(Default)]
pub struct Symbols {
    pub texts: Vec<String>,
    index: HashMap<String, u32>,
}

impl Symbols {
    pub fn new() -> Self {
        let mut out = Self::default();
        out.of("");
        out
    }

    pub fn of(&mut self, text: &str) -> u32 {
        *self.index.entry(text.to_owned()).or_insert_with(|| {
            self.texts.push(text.to_owned());
            self.texts.len() as u32 - 1
        })
    }

    pub fn pairs(&mut self, pairs: &[(String, String)]) -> Vec<u32> {
        pairs.iter().flat_map(|(n, v)| [self.of(n), self.of(v)]).collect()
    }
}

pub fn v2(series: &[Series]) -> Wire {
    let mut symbols = Symbols::new();
    let timeseries = series.iter().map(|s| TimeSeriesV2 {
        labels_refs: symbols.pairs(&s.labels),
        samples: s
            .samples
            .iter()
            .map(|&(timestamp, value, start_timestamp)| SampleV2 { value, timestamp, start_timestamp })
            .collect(),
        histograms: s.histograms.clone(),
        exemplars: s
            .exemplars
            .iter()
            .map(|(t, v, l)| ExemplarV2 { labels_refs: symbols.pairs(l), value: *v, timestamp: *t })
            .collect(),
        metadata: s.metadata.as_ref().map(|(r#type, help, unit)| MetadataV2 {
            r#type: *r#type,
            help_ref: symbols.of(help),
            unit_ref: symbols.of(unit),
        }),
        created_timestamp: 0,
    });
    let timeseries = timeseries.collect();
    Wire { bytes: RequestV2 { symbols: symbols.texts, timeseries }.encode_to_vec(), is_v2: true }
}
