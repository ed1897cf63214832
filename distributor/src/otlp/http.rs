//! OTLP over HTTP, free of sockets: headers and body in, status, headers and body out.

use std::io::Read;

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsPartialSuccess, ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use prost::Message;
use sextant_model::TenantId;
use sextant_proto::{ErrorClass, WriteError, WriteSink};

use super::{OtlpOptions, json, translate::translate_within};
use crate::{Distributor, metrics::add};

/// How many times `max_request_bytes` the labels of a request's series may take: a point repeats those of its resource
/// and scope, and a histogram those of its point with every bucket.
const LABEL_GROWTH_MAX: usize = 4;

/// What of a request's headers matters.
#[derive(Clone, Debug, Default)]
pub struct OtlpHeaders {
    /// `Content-Type`.
    pub content_type: Option<String>,
    /// `Content-Encoding`.
    pub content_encoding: Option<String>,
}

/// An answer in the request's own content type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtlpAnswer {
    /// The HTTP status.
    pub status: u16,
    /// The content type of the body.
    pub content_type: &'static str,
    /// `Retry-After`, in seconds.
    pub retry_after_s: Option<u32>,
    /// `ExportMetricsServiceResponse`, or `google.rpc.Status` for errors.
    pub body: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Protobuf,
    Json,
}

impl Encoding {
    fn content_type(self) -> &'static str {
        match self {
            Self::Protobuf => "application/x-protobuf",
            Self::Json => "application/json",
        }
    }
}

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct RpcStatus {
    /// gRPC code.
    #[prost(int32, tag = "1")]
    pub code: i32,
    /// For people.
    #[prost(string, tag = "2")]
    pub message: String,
    /// Details.
    #[prost(message, repeated, tag = "3")]
    pub details: Vec<RpcAny>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct RpcAny {
    /// The type of the value.
    #[prost(string, tag = "1")]
    pub type_url: String,
    /// The encoded value.
    #[prost(bytes = "vec", tag = "2")]
    pub value: Vec<u8>,
}

/// Takes one export; everything that is not rejected in the answer is durable. The body may have as many bytes as the
/// tenant's `max_request_bytes`, as sent and decompressed.
pub async fn export_metrics(
    distributor: &Distributor,
    tenant: &TenantId,
    headers: &OtlpHeaders,
    body: Bytes,
    options: &OtlpOptions,
) -> OtlpAnswer {
    let encoding = match content_type(headers.content_type.as_deref()) {
        Ok(e) => e,
        Err(e) => return error(Encoding::Protobuf, &e),
    };
    let bytes_max = distributor.max_request_bytes(tenant);
    let result = async {
        let raw = decompress(headers.content_encoding.as_deref(), body, bytes_max)?;
        let request = decode(encoding, &raw)?;
        write(distributor, tenant, &request, options).await
    };
    match result.await {
        Ok(response) => success(encoding, &response),
        Err(e) => error(encoding, &e),
    }
}

fn decode(encoding: Encoding, raw: &[u8]) -> Result<ExportMetricsServiceRequest, WriteError> {
    let decoded = match encoding {
        Encoding::Protobuf => ExportMetricsServiceRequest::decode(raw).map_err(|e| e.to_string()),
        Encoding::Json => json::metrics_request(raw),
    };
    decoded.map_err(|reason| {
        WriteError::new(ErrorClass::BadRequest, format!("malformed OTLP metrics request: {reason}"))
    })
}

/// Translates and writes a request; shared by both transports.
pub(super) async fn write(
    distributor: &Distributor,
    tenant: &TenantId,
    request: &ExportMetricsServiceRequest,
    options: &OtlpOptions,
) -> Result<ExportMetricsServiceResponse, WriteError> {
    let bytes_max = distributor.max_request_bytes(tenant);
    let translated = translate_within(request, options, bytes_max.saturating_mul(LABEL_GROWTH_MAX));
    if translated.is_too_long {
        return Err(WriteError::new(
            ErrorClass::TooLarge,
            format!(
                "limit max_request_bytes ({bytes_max}) exceeded more than {LABEL_GROWTH_MAX} times by the labels of a \
                 request's series, each with those of its resource; send smaller requests or raise it with limits key \
                 max_request_bytes"
            ),
        ));
    }
    if let Some(label) = &translated.joined.label {
        add(&distributor.metrics().otlp_joined_attributes, translated.joined.attributes);
        if distributor.may_log_joined() {
            tracing::debug!(%tenant, label, "attributes whose names give the same label were joined with `;`");
        }
    }
    let (mut rejected, mut reasons) = (translated.rejected_points, translated.reasons);
    if !translated.request.series.is_empty() {
        let summary = distributor.write(tenant, translated.request).await?;
        rejected += summary.refused_samples;
        reasons.extend(summary.refused.iter().take(20).map(|r| format!("{}: {}", r.series, r.reason)));
    }
    let partial_success = (rejected > 0).then(|| ExportMetricsPartialSuccess {
        rejected_data_points: rejected as i64,
        error_message: reasons.join("; "),
    });
    Ok(ExportMetricsServiceResponse { partial_success })
}

/// For fuzzing: any bytes as a request in either form, translated with all options off and on.
#[doc(hidden)]
pub fn fuzz_otlp(raw: &[u8], is_json: bool) {
    let encoding = if is_json { Encoding::Json } else { Encoding::Protobuf };
    let Ok(request) = decode(encoding, raw) else { return };
    let all = OtlpOptions {
        label_key_prefix: true,
        keep_underscore_runs: true,
        promote_all_resource_attributes: true,
        promote_scope: true,
        convert_histograms_to_nhcb: true,
        type_and_unit_labels: true,
        ..OtlpOptions::default()
    };
    for options in [OtlpOptions::default(), all] {
        let bytes_max = raw.len().saturating_mul(64).max(1 << 20);
        let translated = translate_within(&request, &options, bytes_max);
        assert!(translated.rejected_points <= translated.points);
    }
}

/// For fuzzing: decompresses any bytes as gzip or zstd.
#[doc(hidden)]
pub fn fuzz_otlp_body(body: &[u8]) {
    for encoding in ["gzip", "zstd"] {
        if let Ok(raw) = decompress(Some(encoding), Bytes::copy_from_slice(body), 1 << 20) {
            assert!(raw.len() <= 1 << 20);
        }
    }
}

fn content_type(header: Option<&str>) -> Result<Encoding, WriteError> {
    match header.unwrap_or("").split(';').next().unwrap_or("").trim() {
        "application/x-protobuf" | "application/protobuf" => Ok(Encoding::Protobuf),
        "application/json" => Ok(Encoding::Json),
        other => Err(WriteError::new(
            ErrorClass::UnsupportedMediaType,
            format!(
                "content type {other:?} is not accepted; expected application/x-protobuf or application/json"
            ),
        )),
    }
}

fn decompress(encoding: Option<&str>, body: Bytes, bytes_max: usize) -> Result<Bytes, WriteError> {
    let too_large = || {
        WriteError::new(
            ErrorClass::TooLarge,
            format!(
                "limit max_request_bytes ({bytes_max}) exceeded; raise it with limits key max_request_bytes"
            ),
        )
    };
    let bad = |e: std::io::Error| {
        WriteError::new(ErrorClass::BadRequest, format!("body cannot be decompressed: {e}"))
    };
    let read = |reader: &mut dyn Read| -> Result<Bytes, WriteError> {
        let mut out = Vec::new();
        reader.take(bytes_max as u64 + 1).read_to_end(&mut out).map_err(bad)?;
        Ok(out.into())
    };
    let raw = match encoding.unwrap_or("").trim().to_ascii_lowercase().as_str() {
        "" | "identity" => body,
        "gzip" => read(&mut flate2::read::MultiGzDecoder::new(body.as_ref()))?,
        "zstd" => read(&mut zstd::stream::read::Decoder::new(body.as_ref()).map_err(bad)?)?,
        other => {
            return Err(WriteError::new(
                ErrorClass::UnsupportedMediaType,
                format!("content encoding {other:?} is not accepted; expected gzip, zstd or none"),
            ));
        }
    };
    if raw.len() > bytes_max { Err(too_large()) } else { Ok(raw) }
}

fn success(encoding: Encoding, response: &ExportMetricsServiceResponse) -> OtlpAnswer {
    let body = match encoding {
        Encoding::Protobuf => response.encode_to_vec(),
        Encoding::Json => match &response.partial_success {
            None => b"{}".to_vec(),
            Some(p) => serde_json::json!({"partialSuccess": {
                "rejectedDataPoints": p.rejected_data_points.to_string(), "errorMessage": p.error_message,
            }})
            .to_string()
            .into_bytes(),
        },
    };
    OtlpAnswer { status: 200, content_type: encoding.content_type(), retry_after_s: None, body }
}

fn error(encoding: Encoding, e: &WriteError) -> OtlpAnswer {
    // Of the 5xx codes OTLP repeats only 502, 503 and 504.
    let status = if e.class == ErrorClass::Internal { 503 } else { e.class.http() };
    let body = match encoding {
        Encoding::Protobuf => {
            RpcStatus { code: e.class.grpc(), message: e.reason.clone(), details: Vec::new() }.encode_to_vec()
        }
        Encoding::Json => {
            serde_json::json!({"code": e.class.grpc(), "message": e.reason}).to_string().into_bytes()
        }
    };
    OtlpAnswer { status, content_type: encoding.content_type(), retry_after_s: e.retry_after_s, body }
}
