//! Distributors over shards in memory, and requests to them as bytes.

use std::sync::Arc;

use sextant_distributor::{Distributor, DistributorConfig, RemoteWriteAnswer, RemoteWriteHeaders};
use sextant_model::TenantId;
use sextant_proto::{Limits, LimitsHandle, TenantLimits};

use crate::fake::Fake;

/// The shards; clones share their state.
#[derive(Clone)]
pub struct Shards(pub Arc<Fake>);

impl Shards {
    pub fn new(n: usize) -> Self {
        Self(Fake::new(n))
    }

    pub fn distributor(&self, limits: TenantLimits, config: DistributorConfig) -> Distributor {
        Distributor::new(config, LimitsHandle::new(Limits::new(limits)), self.0.clone())
    }

    pub fn plain(&self) -> Distributor {
        self.distributor(TenantLimits::default(), DistributorConfig::default())
    }
}

pub const V2_TYPE: &str = "application/x-protobuf;proto=io.prometheus.write.v2.Request";

/// The usual headers of a version.
pub fn headers(version: u32) -> RemoteWriteHeaders {
    let content_type = if version == 2 { V2_TYPE } else { "application/x-protobuf" };
    RemoteWriteHeaders {
        content_type: Some(content_type.into()),
        content_encoding: Some("snappy".into()),
        version: None,
    }
}

/// Sends a message as the anonymous tenant.
pub async fn send(d: &Distributor, version: u32, message: &[u8]) -> RemoteWriteAnswer {
    let body = snap::raw::Encoder::new().compress_vec(message).unwrap();
    d.remote_write(&TenantId::anonymous(), &headers(version), body.into()).await
}

/// The value of a header.
pub fn header(answer: &RemoteWriteAnswer, name: &str) -> Option<String> {
    answer.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.clone())
}

/// The three counters of 2.0.
pub fn written(answer: &RemoteWriteAnswer) -> Vec<String> {
    ["Samples", "Histograms", "Exemplars"]
        .iter()
        .filter_map(|k| header(answer, &format!("X-Prometheus-Remote-Write-{k}-Written")))
        .collect()
}
