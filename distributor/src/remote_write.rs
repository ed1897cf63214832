//! Prometheus remote write, both versions, free of sockets: headers and body in, status, headers and body out.

mod parts;
mod v1;
mod v2;

use bytes::Bytes;
use sextant_model::TenantId;
use sextant_proto::{ErrorClass, TenantLimits, WriteError, WriteSummary};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128_with_seed};

use crate::{
    RequestError,
    identity::{Epochs, Identities},
    metadata::MetadataMemory,
    metrics::add,
    rows::{ITEMS_MAX, Rows},
    service::{Distributor, TenantState},
    snappy::{BODY_BYTES_MAX, decompress},
    workspace::Workspace,
};

pub(crate) use v1::pairs as pairs_of_fields;

/// After how many seconds a sender may ask again whether its series limit has room.
const SERIES_LIMIT_RETRY_S: u32 = 5;

/// What of a request's headers matters.
#[derive(Clone, Debug, Default)]
pub struct RemoteWriteHeaders {
    /// `Content-Type`; without one the body is taken for 1.0.
    pub content_type: Option<String>,
    /// `Content-Encoding`; without one the body is taken for snappy.
    pub content_encoding: Option<String>,
    /// `X-Prometheus-Remote-Write-Version`; informative only, the content type decides.
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

/// The version of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    V1,
    V2,
}

impl Version {
    fn negotiate(headers: &RemoteWriteHeaders) -> Result<Self, RequestError> {
        let content_type = headers.content_type.as_deref().unwrap_or("").trim();
        let mut parts = content_type.split(';').map(str::trim);
        let media = parts.next().unwrap_or("");
        if !media.is_empty() && !media.eq_ignore_ascii_case("application/x-protobuf") {
            return Err(RequestError::ContentType(content_type.to_owned()));
        }
        let message = parts
            .filter_map(|p| p.split_once('='))
            .find(|(key, _)| key.trim().eq_ignore_ascii_case("proto"))
            .map(|(_, value)| value.trim().trim_matches('"'));
        let version = match message {
            None | Some("prometheus.WriteRequest") => Self::V1,
            Some("io.prometheus.write.v2.Request") => Self::V2,
            Some(other) => {
                let message = other.to_owned();
                return Err(RequestError::Message { content_type: content_type.to_owned(), message });
            }
        };
        let encoding = headers.content_encoding.as_deref().unwrap_or("").trim();
        if !encoding.is_empty() && !encoding.eq_ignore_ascii_case("snappy") {
            return Err(RequestError::ContentEncoding(encoding.to_owned()));
        }
        Ok(version)
    }
}

/// What a walk over a request looks at.
pub(crate) struct Context<'a> {
    pub tenant: &'a str,
    pub identities: &'a Identities,
    pub epochs: &'a Epochs,
    pub memory: &'a MetadataMemory,
    /// How long all spellings of a request may be together.
    pub label_bytes_max: usize,
    pub type_and_unit_labels: bool,
}

impl Context<'_> {
    /// Refuses a request whose content takes far more memory than the request did.
    #[inline]
    pub(crate) fn check_size(&self, rows: &Rows) -> Result<(), RequestError> {
        if rows.is_full() {
            return Err(RequestError::TooManyItems { limit: ITEMS_MAX });
        }
        if rows.is_too_long {
            return Err(RequestError::TooManyLabelBytes { limit: self.label_bytes_max as u64 });
        }
        Ok(())
    }
}

impl Distributor {
    /// Takes one remote-write request. Good series are stored even where others are refused: then the answer is 400
    /// (or 429, where nothing was stored because of a limit) and names what was refused and why.
    pub async fn remote_write(
        &self,
        tenant: &TenantId,
        headers: &RemoteWriteHeaders,
        body: Bytes,
    ) -> RemoteWriteAnswer {
        add(&self.metrics().requests, 1);
        let version = match Version::negotiate(headers) {
            Ok(v) => v,
            Err(e) => return self.failure(None, &e.into()),
        };
        let (state, limits) = (self.tenant(tenant), self.limits_of(tenant));
        let mut workspace = self.take_workspace();
        let result = match self.decode(tenant, version, &body, &state, &limits, &mut workspace) {
            Ok(()) => {
                let id = xxh3_128_with_seed(&body, xxh3_64(tenant.as_str().as_bytes()));
                self.send(tenant, &state, &limits, &mut workspace, None, id).await
            }
            Err(e) => Err(e.into()),
        };
        self.give_workspace(workspace);
        match result {
            Ok(summary) => answer(version, &summary),
            Err(e) => self.failure(Some(version), &e),
        }
    }

    /// Decompresses and walks a request, and asks the tenant's rate limit.
    pub(crate) fn decode(
        &self,
        tenant: &TenantId,
        version: Version,
        body: &[u8],
        state: &TenantState,
        limits: &TenantLimits,
        workspace: &mut Workspace,
    ) -> Result<(), RequestError> {
        workspace.begin(self.shards())?;
        workspace.size = decompress(body, limits.max_request_bytes, &mut workspace.raw)?;
        self.walk(tenant, version, state, limits, workspace)?;
        state.rate.lock().take(workspace.rows.item_count(), limits, self.now_ms())
    }

    /// Walks the decompressed request in the workspace.
    pub(crate) fn walk(
        &self,
        tenant: &TenantId,
        version: Version,
        state: &TenantState,
        limits: &TenantLimits,
        workspace: &mut Workspace,
    ) -> Result<(), RequestError> {
        let Workspace { raw, size, rows, epochs, .. } = workspace;
        let identities = state.cache.read(epochs, self.config().cached_series_max);
        rows.generation = identities.generation();
        let context = Context {
            tenant: tenant.as_str(),
            identities: &identities,
            epochs,
            memory: &state.metadata,
            label_bytes_max: match limits.max_request_bytes {
                0 => BODY_BYTES_MAX,
                n => n.min(BODY_BYTES_MAX),
            } as usize,
            type_and_unit_labels: self.config().type_and_unit_labels,
        };
        match version {
            Version::V1 => v1::walk(&raw[..*size], &context, rows),
            Version::V2 => v2::walk(&raw[..*size], &context, rows),
        }
    }

    fn failure(&self, version: Option<Version>, e: &WriteError) -> RemoteWriteAnswer {
        add(&self.metrics().failed_requests, 1);
        let mut headers = vec![("Content-Type", "text/plain; charset=utf-8".to_owned())];
        if let Some(s) = e.retry_after_s {
            headers.push(("Retry-After", s.to_string()));
        }
        if version == Some(Version::V2) {
            headers.extend(written(&WriteSummary::default()));
        }
        RemoteWriteAnswer { status: e.class.http(), headers, body: format!("{}\n", e.reason) }
    }
}

/// The counters that a 2.0 sender wants to see; a 1.0 sender knows none.
fn written(summary: &WriteSummary) -> [(&'static str, String); 3] {
    [
        ("X-Prometheus-Remote-Write-Samples-Written", summary.samples.to_string()),
        ("X-Prometheus-Remote-Write-Histograms-Written", summary.histograms.to_string()),
        ("X-Prometheus-Remote-Write-Exemplars-Written", summary.exemplars.to_string()),
    ]
}

fn answer(version: Version, summary: &WriteSummary) -> RemoteWriteAnswer {
    let mut headers = Vec::with_capacity(5);
    if version == Version::V2 {
        headers.extend(written(summary));
    }
    if summary.refused.is_empty() {
        return RemoteWriteAnswer { status: 204, headers, body: String::new() };
    }
    // What is stored must not be sent again, so a request that was stored in part is not to be repeated.
    let only_limits = summary.refused.iter().all(|r| r.class == ErrorClass::TooManyRequests);
    let nothing_stored = summary.samples + summary.histograms + summary.exemplars == 0;
    let class =
        if only_limits && nothing_stored { ErrorClass::TooManyRequests } else { ErrorClass::BadRequest };
    if class == ErrorClass::TooManyRequests {
        headers.push(("Retry-After", SERIES_LIMIT_RETRY_S.to_string()));
    }
    headers.push(("Content-Type", "text/plain; charset=utf-8".to_owned()));
    let mut body = String::new();
    for refused in &summary.refused {
        body.push_str(&refused.reason);
        body.push('\n');
    }
    if summary.refused.len() > 1 {
        let (n, stored) = (summary.refused_samples, summary.samples + summary.histograms + summary.exemplars);
        body.push_str(&format!("{n} samples, histograms and exemplars refused in all, {stored} stored\n"));
    }
    RemoteWriteAnswer { status: class.http(), headers, body }
}

/// For fuzzing: walks any bytes as a decompressed request of 1.0 or 2.0, and reads the labels of every series.
#[doc(hidden)]
pub fn fuzz_walk(input: &[u8], is_v2: bool) {
    for type_and_unit_labels in [false, true] {
        let (memory, identities, mut workspace) =
            (MetadataMemory::default(), Identities::default(), Workspace::default());
        workspace.raw.extend_from_slice(input);
        let context = Context {
            tenant: "t",
            identities: &identities,
            epochs: &[0],
            memory: &memory,
            label_bytes_max: 1 << 24,
            type_and_unit_labels,
        };
        let walk = if is_v2 { v2::walk } else { v1::walk };
        if walk(input, &context, &mut workspace.rows).is_err() {
            continue;
        }
        let limits = TenantLimits::default();
        for row in 0..workspace.rows.series.len() as u32 {
            let _ = workspace.canonical_labels(row, None, &limits, &mut Vec::new());
        }
    }
}

/// For fuzzing: decompresses any bytes, and walks what comes out.
#[doc(hidden)]
pub fn fuzz_body(block: &[u8]) {
    let mut out = Vec::new();
    if let Ok(n) = decompress(block, 1 << 24, &mut out) {
        fuzz_walk(&out[..n], false);
        fuzz_walk(&out[..n], true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_types() {
        let of = |content_type: &str, encoding: &str| {
            let some = |s: &str| (!s.is_empty()).then(|| s.to_owned());
            let headers = RemoteWriteHeaders {
                content_type: some(content_type),
                content_encoding: some(encoding),
                version: None,
            };
            Version::negotiate(&headers).map_err(|e| e.class().http())
        };
        let v2 = "application/x-protobuf;proto=io.prometheus.write.v2.Request";
        for (content_type, encoding, expected) in [
            ("", "", Ok(Version::V1)),
            ("application/x-protobuf", "snappy", Ok(Version::V1)),
            ("application/x-protobuf; proto=prometheus.WriteRequest", "Snappy", Ok(Version::V1)),
            ("application/x-protobuf; charset=utf-8", "", Ok(Version::V1)),
            (v2, "snappy", Ok(Version::V2)),
            ("Application/X-Protobuf; proto=\"io.prometheus.write.v2.Request\"", "", Ok(Version::V2)),
            (v2, "zstd", Err(415)),
            (v2, "gzip", Err(415)),
            ("application/x-protobuf;proto=yolo", "snappy", Err(415)),
            ("application/json", "snappy", Err(415)),
            ("yolo", "", Err(415)),
        ] {
            assert_eq!(of(content_type, encoding), expected, "{content_type} {encoding}");
        }
    }
}
