//! The client's side: one lazily connected channel per address, shared by all groups.

use std::{
    collections::HashMap,
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use http::uri::PathAndQuery;
use parking_lot::Mutex;
use tonic::{
    Code, Status,
    client::Grpc,
    transport::{Channel, Endpoint},
};

use crate::{
    ClusterId, GroupId, Member, Network, NoAnswer, NodeId, Reply, Request,
    transport::{
        CONNECTION_WINDOW_BYTES, MESSAGE_BYTES_MAX, STREAM_WINDOW_BYTES,
        codec::{self, Address},
        frame::FrameCodec,
    },
};

/// Makes the channel to a member. It must connect lazily: it is called under no lock, but on the way of a request. It is
/// called again after the connection failed, so that names are resolved and certificates are read anew.
pub type Connect = Arc<dyn Fn(&Member) -> Result<Channel, String> + Send + Sync>;

/// Settings of [`GrpcNetwork`].
#[derive(Clone)]
pub struct GrpcNetworkOptions {
    /// The deployment. Nodes of another refuse what we send.
    pub cluster: ClusterId,
    /// This node.
    pub node: NodeId,
    /// Makes channels. Default: [`plain_connect`].
    pub connect: Connect,
    /// Longest time for a request without a time of its own. Default 30 s: openraft gives up earlier, but a large
    /// log request goes on meanwhile, and this ends it when the other side hangs.
    pub request_timeout: Duration,
    /// Longest time for sending a checkpoint and its installation. Default 120 s.
    pub checkpoint_timeout: Duration,
    /// Bounds of the pause between two attempts to connect. Default 20 ms to 250 ms: below an election timeout, so that a
    /// member that returns hears of its leader before it calls an election.
    pub reconnect_pause: (Duration, Duration),
    /// Bound of one message in bytes. Default 48 MiB.
    pub message_bytes_max: usize,
}

impl GrpcNetworkOptions {
    /// The defaults.
    pub fn new(cluster: ClusterId, node: NodeId) -> Self {
        Self {
            cluster,
            node,
            connect: plain_connect(),
            request_timeout: Duration::from_secs(30),
            checkpoint_timeout: Duration::from_secs(120),
            reconnect_pause: (Duration::from_millis(20), Duration::from_millis(250)),
            message_bytes_max: MESSAGE_BYTES_MAX,
        }
    }
}

impl fmt::Debug for GrpcNetworkOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GrpcNetworkOptions")
            .field("cluster", &self.cluster)
            .field("node", &self.node)
            .field("request_timeout", &self.request_timeout)
            .field("reconnect_pause", &self.reconnect_pause)
            .finish_non_exhaustive()
    }
}

/// An endpoint with the settings that the transport wants: keepalive (a peer whose network is cut is noticed within 10 s), a connect
/// timeout of 2 s, no Nagle delay, and windows of a whole request. `scheme` is `http` or `https`; add TLS and connect lazily.
pub fn endpoint(scheme: &str, member: &Member) -> Result<Endpoint, String> {
    let uri = format!("{scheme}://{}", member.address);
    let endpoint = Endpoint::from_shared(uri).map_err(|e| format!("address {:?}: {e}", member.address))?;
    Ok(endpoint
        .connect_timeout(Duration::from_secs(2))
        .tcp_nodelay(true)
        .tcp_keepalive(Some(Duration::from_secs(10)))
        .http2_keep_alive_interval(Duration::from_secs(5))
        .keep_alive_timeout(Duration::from_secs(5))
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES))
}

/// Connects without TLS.
pub fn plain_connect() -> Connect {
    Arc::new(|member| Ok(endpoint("http", member)?.connect_lazy()))
}

/// What is known of one address.
#[derive(Default)]
struct Line {
    channel: Option<Channel>,
    /// Since the last answer.
    failures: u32,
    /// No request is tried before.
    not_before: Option<Instant>,
    last_error: String,
}

/// [`Network`] over gRPC. Clones share their connections.
#[derive(Clone)]
pub struct GrpcNetwork {
    inner: Arc<Inner>,
}

struct Inner {
    options: GrpcNetworkOptions,
    /// By address. Bounded by the addresses that members had since the start.
    lines: Mutex<HashMap<String, Line>>,
}

impl GrpcNetwork {
    /// A client without any connection yet.
    pub fn new(options: GrpcNetworkOptions) -> Self {
        Self { inner: Arc::new(Inner { options, lines: Mutex::default() }) }
    }

    /// Drops all channels, so that the next requests connect anew: certificates have changed.
    pub fn reconnect(&self) {
        self.inner.lines.lock().clear();
    }

    fn channel(&self, member: &Member) -> Result<Channel, NoAnswer> {
        let unreachable = |reason: String| NoAnswer::Unreachable(reason);
        if member.address.is_empty() {
            return Err(unreachable("the member has no address".to_owned()));
        }
        {
            let mut lines = self.inner.lines.lock();
            let line = lines.entry(member.address.clone()).or_default();
            if line.not_before.is_some_and(|at| Instant::now() < at) {
                let Line { failures, last_error, .. } = line;
                return Err(unreachable(format!("{last_error} ({failures} times, waiting to try again)")));
            }
            if let Some(channel) = &line.channel {
                return Ok(channel.clone());
            }
        }
        let made = (self.inner.options.connect)(member);
        if let Err(reason) = &made {
            self.failed(&member.address, reason);
        }
        let channel = made.map_err(unreachable)?;
        let mut lines = self.inner.lines.lock();
        let line = lines.entry(member.address.clone()).or_default();
        Ok(line.channel.get_or_insert(channel).clone())
    }

    fn failed(&self, address: &str, reason: &str) {
        let (min, max) = self.inner.options.reconnect_pause;
        let mut lines = self.inner.lines.lock();
        let line = lines.entry(address.to_owned()).or_default();
        // The requests that were on the same connection fail together: they count as one failure.
        if line.not_before.is_some_and(|at| Instant::now() < at) {
            return;
        }
        line.channel = None;
        line.failures = line.failures.saturating_add(1);
        let pause = min.saturating_mul(1 << (line.failures - 1).min(16)).min(max);
        line.not_before = Some(Instant::now() + pause);
        reason.clone_into(&mut line.last_error);
    }

    fn answered(&self, address: &str) {
        if let Some(line) = self.inner.lines.lock().get_mut(address) {
            line.failures = 0;
            line.not_before = None;
        }
    }
}

fn path(request: &Request) -> PathAndQuery {
    PathAndQuery::from_static(match request {
        Request::Append(_) => "/sextant.replication.v1.Raft/Append",
        Request::Ballot(_) => "/sextant.replication.v1.Raft/Ballot",
        Request::Checkpoint(_) => "/sextant.replication.v1.Raft/Checkpoint",
        Request::HandOver(_) => "/sextant.replication.v1.Raft/HandOver",
        Request::ReadIndex => "/sextant.replication.v1.Raft/ReadIndex",
    })
}

/// The status with its causes: tonic hides "connection refused" three levels down.
fn describe(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        source = error.source();
    }
    text
}

#[async_trait]
impl Network for GrpcNetwork {
    async fn send(
        &self,
        group: GroupId,
        to: NodeId,
        member: &Member,
        request: Request,
    ) -> Result<Reply, NoAnswer> {
        let options = &self.inner.options;
        let channel = self.channel(member)?;
        let address = Address { cluster: options.cluster, from: options.node, to, group };
        let frame = codec::encode_request(&address, &request);
        let (bytes, max) = (frame.bytes(), options.message_bytes_max);
        if bytes > max {
            return Err(NoAnswer::Refused(format!("a message of {bytes} bytes is over the limit of {max}")));
        }
        let timeout = match request {
            Request::Checkpoint(_) => options.checkpoint_timeout,
            _ => options.request_timeout,
        };
        let path = path(&request);
        // The payloads are in the frame; the request's own handles of them are not needed while it is on its way.
        drop(request);
        let call = async {
            let mut grpc = Grpc::new(channel).max_decoding_message_size(max).max_encoding_message_size(max);
            grpc.ready().await.map_err(|e| Status::unavailable(e.to_string()))?;
            grpc.unary(tonic::Request::new(frame), path, FrameCodec).await
        };
        let answer = tokio::time::timeout(timeout, call).await;
        let answer = answer.map_err(|_| NoAnswer::Unreachable(format!("no answer within {timeout:?}")))?;
        match answer {
            Ok(response) => {
                self.answered(&member.address);
                let reply = codec::decode_reply(&response.into_inner());
                reply.map_err(|bad| NoAnswer::Unreachable(format!("bad reply: {bad}")))?
            }
            Err(status) if matches!(status.code(), Code::InvalidArgument | Code::Unimplemented) => {
                self.answered(&member.address);
                Err(NoAnswer::Refused(status.message().to_owned()))
            }
            Err(status) => {
                let reason = describe(&status);
                if matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Internal) {
                    self.failed(&member.address, &reason);
                }
                Err(NoAnswer::Unreachable(format!("{}: {reason}", member.address)))
            }
        }
    }
}
