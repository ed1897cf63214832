//! The server's side: which groups are open on this node, and the tonic service in front of them.

use std::{
    collections::HashMap,
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use parking_lot::RwLock;
use tonic::{
    Status,
    body::Body,
    codegen::{Body as HttpBody, Service, StdError},
    server::{Grpc, NamedService, UnaryService},
};

use crate::{
    ClusterId, GroupId, Handler, NoAnswer, NodeId, Reply,
    transport::{
        MESSAGE_BYTES_MAX, codec,
        frame::{Frame, FrameCodec},
    },
};

/// The gRPC service `sextant.replication.v1.Raft` of one node: add it to a tonic router. Clones share their groups.
///
/// Groups are added when they are open and removed before they are shut down; a request for another group gets
/// [`NoAnswer::NoGroup`], one for another cluster or node is refused.
#[derive(Clone)]
pub struct RaftService {
    inner: Arc<Inner>,
}

struct Inner {
    cluster: ClusterId,
    node: NodeId,
    message_bytes_max: usize,
    groups: RwLock<HashMap<GroupId, Arc<dyn Handler>>>,
}

impl RaftService {
    /// A service without groups, with the default bound of a message (48 MiB).
    pub fn new(cluster: ClusterId, node: NodeId) -> Self {
        Self::with_limit(cluster, node, MESSAGE_BYTES_MAX)
    }

    /// The same with another bound of one message in bytes.
    pub fn with_limit(cluster: ClusterId, node: NodeId, message_bytes_max: usize) -> Self {
        Self { inner: Arc::new(Inner { cluster, node, message_bytes_max, groups: RwLock::default() }) }
    }

    /// Serves a group from now on; replaces one of the same id. It keeps the handler, and so the group, until it is removed.
    pub fn add(&self, group: GroupId, handler: impl Handler) {
        self.inner.groups.write().insert(group, Arc::new(handler));
    }

    /// Serves the group no more. Returns whether it was there.
    pub fn remove(&self, group: GroupId) -> bool {
        self.inner.groups.write().remove(&group).is_some()
    }

    /// Ids of the groups being served, in order.
    pub fn groups(&self) -> Vec<GroupId> {
        let mut ids: Vec<_> = self.inner.groups.read().keys().copied().collect();
        ids.sort_unstable();
        ids
    }

    async fn take(&self, message: Bytes) -> Result<Frame, Status> {
        let inner = &self.inner;
        let decoded = codec::decode_request(&message);
        // What was decoded shares the message's buffer.
        drop(message);
        let (address, request) = decoded.map_err(|bad| Status::invalid_argument(bad.to_string()))?;
        let reply: Result<Reply, NoAnswer> = if address.cluster != inner.cluster {
            tracing::warn!(theirs = %address.cluster, from = %address.from, "a request of another cluster was refused");
            Err(NoAnswer::OtherCluster { ours: address.cluster, theirs: inner.cluster })
        } else if address.to != inner.node {
            Err(NoAnswer::OtherNode { asked: address.to, found: inner.node })
        } else {
            let handler = inner.groups.read().get(&address.group).cloned();
            match handler {
                Some(handler) => handler.handle(request).await,
                None => Err(NoAnswer::NoGroup(address.group)),
            }
        };
        Ok(codec::encode_reply(&reply))
    }
}

struct Call(RaftService);

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

impl UnaryService<Bytes> for Call {
    type Response = Frame;
    type Future = BoxFuture<Result<tonic::Response<Frame>, Status>>;

    fn call(&mut self, request: tonic::Request<Bytes>) -> Self::Future {
        let service = self.0.clone();
        Box::pin(async move { service.take(request.into_inner()).await.map(tonic::Response::new) })
    }
}

impl<B> Service<http::Request<B>> for RaftService
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

    /// The message says what it is; the method's name is for whoever reads a trace.
    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move {
            let max = Some(service.inner.message_bytes_max);
            let mut grpc = Grpc::new(FrameCodec).apply_max_message_size_config(max, max);
            Ok(grpc.unary(Call(service), request).await)
        })
    }
}

impl NamedService for RaftService {
    const NAME: &'static str = "sextant.replication.v1.Raft";
}
