//! OTLP over HTTP, free of sockets: headers and body in, status, headers and body out.

use std::io::Read;

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsPartialSuccess, ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use prost::Message;
use sextant_model::TenantId;
use sextant_proto::{ErrorClass, WriteError, WriteSink};

use super::{OtlpOptions, json, translate};

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

/// Takes one export; everything that is not rejected in the answer is durable.
pub async fn export_metrics(
    sink: &dyn WriteSink,
    tenant: &TenantId,
    headers: &OtlpHeaders,
    body: Bytes,
    bytes_max: usize,
    options: &OtlpOptions,
) -> OtlpAnswer {
    let encoding = match content_type(headers.content_type.as_deref()) {
        Ok(e) => e,
        Err(e) => return error(Encoding::Protobuf, &e),
    };
    let result = async {
        let raw = decompress(headers.content_encoding.as_deref(), body, bytes_max)?;
        let bad = |reason: String| {
            WriteError::new(ErrorClass::BadRequest, format!("malformed OTLP metrics request: {reason}"))
        };
        let request = match encoding {
            Encoding::Protobuf => {
                ExportMetricsServiceRequest::decode(raw.as_ref()).map_err(|e| bad(e.to_string()))?
            }
            Encoding::Json => json::metrics_request(&raw).map_err(bad)?,
        };
        write(sink, tenant, &request, options).await
    };
    match result.await {
        Ok(response) => success(encoding, &response),
        Err(e) => error(encoding, &e),
    }
}

/// Translates and writes a request; shared by both transports.
pub(super) async fn write(
    sink: &dyn WriteSink,
    tenant: &TenantId,
    request: &ExportMetricsServiceRequest,
    options: &OtlpOptions,
) -> Result<ExportMetricsServiceResponse, WriteError> {
    let translated = translate(request, options);
    let (mut rejected, mut reasons) = (translated.rejected_points, translated.reasons);
    if !translated.request.series.is_empty() {
        let summary = sink.write(tenant, translated.request).await?;
        rejected += summary.refused_samples;
        reasons.extend(summary.refused.iter().take(20).map(|r| format!("{}: {}", r.series, r.reason)));
    }
    let partial_success = (rejected > 0).then(|| ExportMetricsPartialSuccess {
        rejected_data_points: rejected as i64,
        error_message: reasons.join("; "),
    });
    Ok(ExportMetricsServiceResponse { partial_success })
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
