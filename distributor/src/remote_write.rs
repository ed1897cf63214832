//! Prometheus remote write, both versions, free of sockets: headers and body in, status, headers and body out.

mod histogram;
mod v1;
mod v2;

use bytes::Bytes;
use sextant_model::TenantId;
use sextant_proto::{ErrorClass, WriteError, WriteSummary};

use crate::{
    RequestError,
    canonical::Pairs,
    identity::Identities,
    metrics::DistributorMetrics,
    rows::{LabelForm, Rows},
    service::{Distributor, Workspace},
    snappy::decompress,
};

pub use v1::fuzz_v1;
pub use v2::fuzz_v2;

/// What of a request's headers matters.
#[derive(Clone, Debug, Default)]
pub struct RemoteWriteHeaders {
    /// `Content-Type`.
    pub content_type: Option<String>,
    /// `Content-Encoding`.
    pub content_encoding: Option<String>,
    /// `X-Prometheus-Remote-Write-Version`; informative only.
    pub version: Option<String>,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteWriteAnswer {
    /// The HTTP status.
    pub status: u16,
    /// Headers.
    pub headers: Vec<(&'static str, String)>,
    /// Text for people; empty on success.
    pub body: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    V1,
    V2,
}

fn version(headers: &RemoteWriteHeaders) -> Result<Version, RequestError> {
    let encoding = headers.content_encoding.as_deref().unwrap_or("").trim();
    let header = headers.content_type.as_deref().unwrap_or("").trim();
    let mut parts = header.split(';').map(str::trim);
    let kind = parts.next().unwrap_or("");
    if !kind.is_empty() && !kind.eq_ignore_ascii_case("application/x-protobuf") {
        return Err(RequestError::ContentType(header.to_owned()));
    }
    let proto = parts.find_map(|p| p.strip_prefix("proto=")).map(|p| p.trim_matches('"'));
    let version = match proto {
        None | Some("prometheus.WriteRequest") => Version::V1,
        Some("io.prometheus.write.v2.Request") => Version::V2,
        Some(other) => {
            return Err(RequestError::Message { content_type: header.to_owned(), message: other.to_owned() });
        }
    };
    if !encoding.is_empty() && !encoding.eq_ignore_ascii_case("snappy") {
        return Err(RequestError::ContentEncoding(encoding.to_owned()));
    }
    Ok(version)
}

impl Distributor {
    /// Takes one remote-write request. Good series are stored even where others are refused.
    pub async fn remote_write(
        &self,
        tenant: &TenantId,
        headers: &RemoteWriteHeaders,
        body: Bytes,
    ) -> RemoteWriteAnswer {
        DistributorMetrics::add(&self.metrics().requests, 1);
        let version = match version(headers) {
            Ok(v) => v,
            Err(e) => return self.failure(&e.into()),
        };
        let mut workspace = self.take_workspace();
        let result = match self.decode(tenant, version, &body, &mut workspace) {
            Ok(()) => self.send(tenant, &mut workspace, None, write_id(tenant, &body)).await,
            Err(e) => Err(e.into()),
        };
        self.give_workspace(workspace);
        match result {
            Ok(summary) => answer(&summary),
            Err(e) => self.failure(&e),
        }
    }

    fn decode(
        &self,
        tenant: &TenantId,
        version: Version,
        body: &[u8],
        workspace: &mut Workspace,
    ) -> Result<(), RequestError> {
        let limits = self.limits_of(tenant);
        workspace.rows.clear();
        workspace.refused_items = 0;
        workspace.v2 = version == Version::V2;
        workspace.size = decompress(body, limits.max_request_bytes, &mut workspace.raw)?;
        let raw = std::mem::take(&mut workspace.raw);
        let result = {
            let state = self.tenant(tenant);
            workspace.read_epochs(self.shards());
            let identities = state.cache.read(&workspace.epochs, self.config().cached_series_max);
            let input = &raw[..workspace.size];
            workspace.rows.generation = identities.generation();
            match version {
                Version::V1 => v1::walk(input, &identities, &workspace.epochs, &mut workspace.rows),
                Version::V2 => {
                    v2::walk(input, &identities, &workspace.epochs, &mut workspace.rows, self.config().type_and_unit_labels)
                }
            }
        };
        workspace.raw = raw;
        result?;
        self.tenant(tenant).rate.lock().take(workspace.rows.item_count(), &limits, std::time::Instant::now())
    }

    fn failure(&self, e: &WriteError) -> RemoteWriteAnswer {
        DistributorMetrics::add(&self.metrics().failed_requests, 1);
        let mut headers = vec![("Content-Type", "text/plain; charset=utf-8".to_owned())];
        if let Some(s) = e.retry_after_s {
            headers.push(("Retry-After", s.to_string()));
        }
        headers.extend(written(0, 0, 0));
        RemoteWriteAnswer { status: e.class.http(), headers, body: format!("{}\n", e.reason) }
    }
}

fn write_id(tenant: &TenantId, body: &[u8]) -> u128 {
    let seed = xxhash_rust::xxh3::xxh3_64(tenant.as_str().as_bytes());
    xxhash_rust::xxh3::xxh3_128_with_seed(body, seed)
}

fn written(samples: u64, histograms: u64, exemplars: u64) -> [(&'static str, String); 3] {
    [
        ("X-Prometheus-Remote-Write-Samples-Written", samples.to_string()),
        ("X-Prometheus-Remote-Write-Histograms-Written", histograms.to_string()),
        ("X-Prometheus-Remote-Write-Exemplars-Written", exemplars.to_string()),
    ]
}

fn answer(summary: &WriteSummary) -> RemoteWriteAnswer {
    let mut headers: Vec<_> = written(summary.samples, summary.histograms, summary.exemplars).into();
    if summary.refused.is_empty() {
        return RemoteWriteAnswer { status: 204, headers, body: String::new() };
    }
    // Repeating would be refused again, also where a limit was the reason and the rest is stored.
    let only_limits = summary.refused.iter().all(|r| r.class == ErrorClass::TooManyRequests);
    let nothing_stored = summary.samples + summary.histograms + summary.exemplars == 0;
    let status = if only_limits && nothing_stored { 429 } else { 400 };
    if status == 429 {
        headers.push(("Retry-After", "5".to_owned()));
    }
    headers.push(("Content-Type", "text/plain; charset=utf-8".to_owned()));
    let mut body = String::new();
    for refused in &summary.refused {
        body.push_str(&refused.reason);
        body.push('\n');
    }
    if summary.refused_samples > summary.refused.len() as u64 {
        body.push_str(&format!("{} samples, histograms and exemplars were refused in all\n", summary.refused_samples));
    }
    RemoteWriteAnswer { status, headers, body }
}

/// The pairs of a row's spelling.
pub(crate) fn pairs_of_row(bytes: &[u8], form: LabelForm, version_2: bool) -> Result<Pairs<'_>, &'static str> {
    match form {
        LabelForm::Canonical => Ok(crate::canonical::pairs_of(bytes).collect()),
        _ if version_2 => Ok(v2::pairs(bytes)),
        _ => v1::pairs(bytes),
    }
}

/// A table of identities that knows nothing, for fuzzing.
fn no_identities() -> (Identities, [u64; 1], Rows) {
    (Identities::default(), [0], Rows::default())
}
