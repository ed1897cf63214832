//! OTLP over gRPC.

use std::sync::Arc;

use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
    metrics_service_server::{MetricsService, MetricsServiceServer},
};
use prost::Message;
use sextant_model::TenantId;
use sextant_proto::{ErrorClass, WriteError, WriteSink};
use tonic::{Request, Response, Status, codec::CompressionEncoding};

use super::{
    OtlpOptions,
    http::{RpcAny, RpcStatus, write},
};

/// Tells whose data a call brings, from the value of `x-scope-orgid`.
pub type TenantOf = Arc<dyn Fn(Option<&str>) -> Result<TenantId, String> + Send + Sync>;

/// The metrics service.
pub struct MetricsReceiver {
    sink: Arc<dyn WriteSink>,
    options: OtlpOptions,
    tenant: TenantOf,
}

/// The service over a sink; messages may have `bytes_max` bytes after decompression.
pub fn metrics_service(
    sink: Arc<dyn WriteSink>,
    options: OtlpOptions,
    tenant: TenantOf,
    bytes_max: usize,
) -> MetricsServiceServer<MetricsReceiver> {
    MetricsServiceServer::new(MetricsReceiver { sink, options, tenant })
        .max_decoding_message_size(bytes_max)
        .accept_compressed(CompressionEncoding::Gzip)
        .accept_compressed(CompressionEncoding::Zstd)
        .send_compressed(CompressionEncoding::Gzip)
}

#[tonic::async_trait]
impl MetricsService for MetricsReceiver {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        let header = request.metadata().get("x-scope-orgid").map(|v| v.to_str());
        let header = header.transpose().map_err(|_| Status::unauthenticated("x-scope-orgid is not text"))?;
        let tenant = (self.tenant)(header).map_err(Status::unauthenticated)?;
        let response = write(self.sink.as_ref(), &tenant, request.get_ref(), &self.options)
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
        ErrorClass::Internal => tonic::Code::Unavailable,
        class => tonic::Code::from_i32(class.grpc()),
    };
    let Some(seconds) = e.retry_after_s else { return Status::new(code, e.reason.clone()) };
    let info = RetryInfo { retry_delay: Some(RetryDelay { seconds: i64::from(seconds) }) };
    let details =
        RpcAny { type_url: "type.googleapis.com/google.rpc.RetryInfo".into(), value: info.encode_to_vec() };
    let full = RpcStatus { code: code as i32, message: e.reason.clone(), details: vec![details] };
    Status::with_details(code, e.reason.clone(), full.encode_to_vec().into())
}
