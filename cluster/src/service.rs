//! The gRPC service `sextant.v1.Cluster` of an ingester.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use sextant_proto::rpc::{Frame, FrameCodec, MESSAGE_BYTES_MAX};
use tonic::{
    Status,
    body::Body,
    codegen::{Body as HttpBody, Service, StdError},
    server::{Grpc, NamedService, UnaryService},
};

use crate::{
    message::{Answer, Envelope, MESSAGE_VERSION, Refusal},
    node::IngesterNode,
};

/// Add it to a tonic router. Clones are the same.
#[derive(Clone)]
pub struct ClusterService {
    node: Arc<IngesterNode>,
}

impl ClusterService {
    pub(crate) fn new(node: Arc<IngesterNode>) -> Self {
        Self { node }
    }

    async fn answer(&self, body: &[u8]) -> Answer {
        let envelope: Envelope =
            serde_json::from_slice(body).map_err(|e| Refusal::Failed(format!("malformed request: {e}")))?;
        if envelope.version > MESSAGE_VERSION {
            let reason = format!("message version {}, this node reads {MESSAGE_VERSION}", envelope.version);
            return Err(Refusal::Failed(reason));
        }
        if envelope.cluster != self.node.identity().cluster {
            return Err(Refusal::OtherCluster(self.node.identity().cluster));
        }
        self.node.clone().answer(envelope.request).await
    }
}

struct Call(ClusterService);

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

impl UnaryService<Bytes> for Call {
    type Response = Frame;
    type Future = BoxFuture<Result<tonic::Response<Frame>, Status>>;

    fn call(&mut self, request: tonic::Request<Bytes>) -> Self::Future {
        let service = self.0.clone();
        Box::pin(async move {
            let answer = service.answer(&request.into_inner()).await;
            let body = serde_json::to_vec(&answer).map_err(|e| Status::internal(e.to_string()))?;
            Ok(tonic::Response::new(Frame::whole(body.into())))
        })
    }
}

impl<B> Service<http::Request<B>> for ClusterService
where
    B: HttpBody + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move {
            let max = Some(MESSAGE_BYTES_MAX);
            let mut grpc = Grpc::new(FrameCodec).apply_max_message_size_config(max, max);
            Ok(grpc.unary(Call(service), request).await)
        })
    }
}

impl NamedService for ClusterService {
    const NAME: &'static str = "sextant.v1.Cluster";
}
