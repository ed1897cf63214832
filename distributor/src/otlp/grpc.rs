//! OTLP over gRPC.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll},
};

use futures::future::BoxFuture;
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
    metrics_service_server::{MetricsService, MetricsServiceServer},
};
use prost::Message;
use sextant_model::TenantId;
use sextant_proto::{ErrorClass, WriteError};
use tonic::{Code, Request, Response, Status, body::Body, codec::CompressionEncoding, server::NamedService};
use tower::Service;

use super::{
    OtlpOptions,
    http::{RpcAny, RpcStatus, write},
};
use crate::Distributor;

/// Tells whose data a call brings, from the value of `x-scope-orgid`.
pub type TenantOf = Arc<dyn Fn(Option<&str>) -> Result<TenantId, String> + Send + Sync>;

/// The metrics service. A message may have as many bytes as its tenant's `max_request_bytes`, as sent and decompressed.
#[derive(Clone)]
pub struct MetricsReceiver {
    service: MetricsServiceServer<Exporter>,
    distributor: Arc<Distributor>,
    tenant: TenantOf,
}

/// The metrics service over a distributor.
pub fn metrics_service(
    distributor: Arc<Distributor>,
    options: OtlpOptions,
    tenant: TenantOf,
) -> MetricsReceiver {
    let exporter = Exporter { distributor: distributor.clone(), options };
    let service = MetricsServiceServer::new(exporter)
        .accept_compressed(CompressionEncoding::Gzip)
        .accept_compressed(CompressionEncoding::Zstd)
        .send_compressed(CompressionEncoding::Gzip);
    MetricsReceiver { service, distributor, tenant }
}

/// What is known of a call before its message is read.
#[derive(Clone)]
struct Call {
    tenant: TenantId,
    /// Set once the message has been decoded: until then an error is tonic's.
    is_decoded: Arc<AtomicBool>,
}

impl MetricsReceiver {
    fn tenant_of(&self, headers: &http::HeaderMap) -> Result<TenantId, Status> {
        let header = headers.get("x-scope-orgid").map(|v| v.to_str());
        let header = header.transpose().map_err(|_| Status::unauthenticated("x-scope-orgid is not text"))?;
        (self.tenant)(header).map_err(Status::unauthenticated)
    }
}

impl Service<http::Request<Body>> for MetricsReceiver {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let tenant = match self.tenant_of(request.headers()) {
            Ok(tenant) => tenant,
            Err(status) => return Box::pin(async move { Ok(status.into_http()) }),
        };
        let bytes_max = self.distributor.max_request_bytes(&tenant);
        let is_decoded = Arc::new(AtomicBool::new(false));
        request.extensions_mut().insert(Call { tenant, is_decoded: is_decoded.clone() });
        let response = self.service.clone().max_decoding_message_size(bytes_max).call(request);
        Box::pin(async move {
            let response = response.await?;
            if is_decoded.load(Relaxed) {
                return Ok(response);
            }
            let status = Status::from_header_map(response.headers());
            Ok(status.and_then(|s| undecoded(&s, bytes_max)).map_or(response, Status::into_http))
        })
    }
}

impl NamedService for MetricsReceiver {
    const NAME: &'static str = MetricsServiceServer::<Exporter>::NAME;
}

/// What OTLP says of messages that cannot be read, instead of tonic's codes: one that is too large must not be sent
/// again (`OUT_OF_RANGE` is), and one that is malformed is the sender's fault. `None` where tonic's answer stands.
fn undecoded(status: &Status, bytes_max: usize) -> Option<Status> {
    match status.code() {
        // As sent, and decompressed.
        Code::OutOfRange | Code::ResourceExhausted => Some(Status::resource_exhausted(format!(
            "limit max_request_bytes ({bytes_max}) exceeded; raise it with limits key max_request_bytes"
        ))),
        Code::Internal => {
            Some(Status::invalid_argument(format!("malformed OTLP metrics request: {}", status.message())))
        }
        _ => None,
    }
}

/// Writes what a call has brought.
struct Exporter {
    distributor: Arc<Distributor>,
    options: OtlpOptions,
}

#[tonic::async_trait]
impl MetricsService for Exporter {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        let call = request.extensions().get::<Call>().cloned();
        let Call { tenant, is_decoded } = call.ok_or_else(|| Status::internal("a call without a tenant"))?;
        is_decoded.store(true, Relaxed);
        let response = write(&self.distributor, &tenant, request.get_ref(), &self.options)
            .await
            .map_err(|e| status(&e))?;
        Ok(Response::new(response))
    }
}

/// `google.rpc.RetryInfo`.
#[derive(Clone, PartialEq, Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<RetryDelay>,
}

/// `google.protobuf.Duration`.
#[derive(Clone, PartialEq, Message)]
struct RetryDelay {
    #[prost(int64, tag = "1")]
    seconds: i64,
}

/// Senders repeat RESOURCE_EXHAUSTED only with `RetryInfo`; a message that is too large never has it.
fn status(e: &WriteError) -> Status {
    let code = match e.class {
        ErrorClass::Internal => Code::Unavailable,
        class => Code::from_i32(class.grpc()),
    };
    let Some(seconds) = e.retry_after_s else { return Status::new(code, e.reason.clone()) };
    let info = RetryInfo { retry_delay: Some(RetryDelay { seconds: i64::from(seconds) }) };
    let details =
        RpcAny { type_url: "type.googleapis.com/google.rpc.RetryInfo".into(), value: info.encode_to_vec() };
    let full = RpcStatus { code: code as i32, message: e.reason.clone(), details: vec![details] };
    Status::with_details(code, e.reason.clone(), full.encode_to_vec().into())
}
