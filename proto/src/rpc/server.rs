//! The server's side: the tonic service before a node's shards.

use std::{
    collections::VecDeque,
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures::{Stream, StreamExt as _, TryStreamExt as _, stream};
use tokio::time::Instant;
use tonic::{
    Code, Status,
    body::Body,
    codegen::{Body as HttpBody, Service, StdError},
    server::{Grpc, NamedService, ServerStreamingService, UnaryService},
};

use super::{
    LocalError, LocalShards, MESSAGE_BYTES_MAX, Method, PART_BYTES, RpcMetrics, STATUS_TEXT_MAX, VERSION,
    frame::{Frame, FrameCodec},
    metrics::add,
    wire::{
        self, BadHead, Malformed, Opened,
        list::{Item, ListParts},
        refusal::{Refused, cut, encode_refused},
        series::{PartEncoder, SetParts},
    },
};
use crate::{HeadSelection, SelectRequest, ShardError, ShardId};

/// About how many samples the server reads at once of a selection that it sends.
const READ_SAMPLES: usize = 1 << 16;

/// The gRPC service `sextant.v1.Shards` of one node: add it to a tonic router. Clones share their shards and counters.
///
/// A request of another cluster or of a newer protocol is refused. A request whose caller went away, or whose `grpc-timeout` has
/// passed, is dropped, with all that it was doing.
#[derive(Clone)]
pub struct ShardServer {
    inner: Arc<Inner>,
}

struct Inner {
    cluster: u128,
    local: Arc<dyn LocalShards>,
    metrics: RpcMetrics,
}

impl ShardServer {
    /// A service over a node's shards; `cluster` is the deployment's id.
    pub fn new(cluster: u128, local: Arc<dyn LocalShards>) -> Self {
        Self { inner: Arc::new(Inner { cluster, local, metrics: RpcMetrics::default() }) }
    }

    /// The server's counters.
    pub fn metrics(&self) -> &RpcMetrics {
        &self.inner.metrics
    }
}

impl NamedService for ShardServer {
    const NAME: &'static str = "sextant.v1.Shards";
}

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;
type Answers = Pin<Box<dyn Stream<Item = Result<Frame, Status>> + Send>>;

impl<B> Service<http::Request<B>> for ShardServer
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
        let inner = self.inner.clone();
        Box::pin(async move {
            let Some(method) = Method::of_path(request.uri().path()) else {
                return Ok(Status::unimplemented("no such method").into_http());
            };
            add(&inner.metrics.of(method).requests);
            let timeout = request.headers().get("grpc-timeout").and_then(|v| parse_timeout(v.to_str().ok()?));
            let deadline = timeout.and_then(|t| Instant::now().checked_add(t));
            let call = Call { inner, method, deadline };
            let max =
                if matches!(method, Method::Append) { MESSAGE_BYTES_MAX } else { wire::REQUEST_BYTES_MAX };
            let mut grpc =
                Grpc::new(FrameCodec).apply_max_message_size_config(Some(max), Some(MESSAGE_BYTES_MAX));
            Ok(if method.is_unary() {
                grpc.unary(call, request).await
            } else {
                grpc.server_streaming(call, request).await
            })
        })
    }
}

/// The time of a `grpc-timeout` header: up to 8 digits and a unit.
fn parse_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let n: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(n * 3600),
        "M" => Duration::from_secs(n * 60),
        "S" => Duration::from_secs(n),
        "m" => Duration::from_millis(n),
        "u" => Duration::from_micros(n),
        "n" => Duration::from_nanos(n),
        _ => return None,
    })
}

fn status(refused: &Refused) -> Status {
    let text = refused.text();
    Status::with_details(
        Code::from(refused.class().grpc()),
        cut(&text, STATUS_TEXT_MAX),
        encode_refused(refused).into(),
    )
}

fn local_error(e: LocalError) -> Status {
    status(&Refused::Local(e))
}

fn malformed(e: Malformed) -> Status {
    local_error(ShardError::Malformed(format!("the request cannot be read: {e}")).into())
}

fn too_late() -> Status {
    Status::deadline_exceeded("the request's time has passed")
}

/// One request.
#[derive(Clone)]
struct Call {
    inner: Arc<Inner>,
    method: Method,
    deadline: Option<Instant>,
}

impl Call {
    async fn in_time<T>(&self, work: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
        let done = match self.deadline {
            Some(at) => tokio::time::timeout_at(at, work).await.unwrap_or_else(|_| Err(too_late())),
            None => work.await,
        };
        if done.is_err() {
            add(&self.inner.metrics.of(self.method).errors);
        }
        done
    }

    fn open(&self, message: Bytes) -> Result<(ShardId, Bytes), Status> {
        let refused = |text: String| Err(status(&Refused::Protocol(text)));
        let opened = wire::open_request(&message);
        // The body shares the message's memory.
        drop(message);
        let Opened { cluster, shard, body } = match opened {
            Ok(opened) => opened,
            Err(BadHead::Version(theirs)) => {
                return refused(format!(
                    "protocol version {theirs} is not spoken here: this node reads versions up to {VERSION}"
                ));
            }
            Err(BadHead::Short) => return refused("the request has no head".to_owned()),
        };
        let ours = self.inner.cluster;
        if cluster != ours {
            tracing::warn!(theirs = %format_args!("{cluster:032x}"), "a request of another cluster was refused");
            return refused(format!(
                "the request is of cluster {cluster:032x}, this node belongs to cluster {ours:032x}"
            ));
        }
        Ok((shard, body))
    }

    async fn write(&self, message: Bytes) -> Result<Frame, Status> {
        let (shard, body) = self.open(message)?;
        let local = &self.inner.local;
        let answer = if matches!(self.method, Method::Append) {
            let outcome = local.append(shard, body).await.map_err(local_error)?;
            wire::encode_append_outcome(&outcome)
        } else {
            let request = wire::decode_delete(&body).map_err(malformed)?;
            let outcome = local.delete(shard, request).await.map_err(local_error)?;
            wire::encode_delete_outcome(&outcome)
        };
        Ok(Frame::whole(answer))
    }

    /// Returns when the barrier is passed; the read itself is done while its answer is sent.
    async fn read(&self, message: Bytes) -> Result<Answers, Status> {
        let (shard, body) = self.open(message)?;
        let read = self.prepare(shard, &body).map_err(malformed)?;
        drop(body);
        self.inner.local.ready_to_read(shard).await.map_err(local_error)?;
        Ok(read)
    }

    /// Decodes the request; nothing is done before the stream is polled.
    fn prepare(&self, shard: ShardId, body: &[u8]) -> Result<Answers, Malformed> {
        let local = self.inner.local.clone();
        Ok(match self.method {
            Method::Select => {
                let r = wire::decode_select(body)?;
                let work = async move { local.select(shard, r).await };
                parts(work, |set| SetParts::new(set, PART_BYTES))
            }
            Method::Find => find(local, shard, wire::decode_select(body)?),
            Method::Series => {
                let r = wire::decode_select(body)?;
                list(async move { local.series(shard, r).await })
            }
            Method::LabelValues => {
                let (r, label) = wire::decode_label_values(body)?;
                list(async move { local.label_values(shard, r, label).await })
            }
            Method::Exemplars => {
                let r = wire::decode_select(body)?;
                list(async move { local.exemplars(shard, r).await })
            }
            Method::Metadata => {
                let (tenant, after) = wire::decode_tenant(body)?;
                list(async move { local.metadata(shard, tenant, after).await })
            }
            Method::Stats => {
                let (tenant, after) = wire::decode_tenant(body)?;
                list(async move { Ok(vec![local.stats(shard, tenant, after).await?]) })
            }
            Method::Tenants => list(async move { local.tenants(shard).await }),
            Method::Append | Method::Delete => return Err(Malformed("a write is not a read")),
        })
    }

    /// The stream until the deadline, its errors counted.
    fn guarded(self, answers: Answers) -> Answers {
        let sleep = self.deadline.map(|at| Box::pin(tokio::time::sleep_until(at)));
        let state = (answers, sleep, self);
        Box::pin(stream::unfold(state, |(mut answers, mut sleep, call)| async move {
            let late = async {
                match &mut sleep {
                    Some(sleep) => sleep.await,
                    None => std::future::pending().await,
                }
            };
            let next = tokio::select! {
                biased;
                () = late => Some(Err(too_late())),
                next = answers.next() => next,
            };
            match next? {
                Ok(part) => Some((Ok(part), (answers, sleep, call))),
                Err(e) => {
                    add(&call.inner.metrics.of(call.method).errors);
                    // Whatever was being read is dropped with the stream.
                    let ended: Answers = Box::pin(stream::empty());
                    Some((Err(e), (ended, None, call)))
                }
            }
        }))
    }
}

/// What the work gives, cut into messages as they are sent.
fn parts<T, I>(
    work: impl Future<Output = Result<T, LocalError>> + Send + 'static,
    cut: impl FnOnce(T) -> I + Send + 'static,
) -> Answers
where
    T: Send + 'static,
    I: Iterator<Item = Bytes> + Send + 'static,
{
    let messages = async move {
        let done = work.await.map_err(local_error)?;
        Ok::<_, Status>(stream::iter(cut(done).map(|m| Ok(Frame::whole(m)))))
    };
    Box::pin(stream::once(messages).try_flatten())
}

fn list<T: Item>(work: impl Future<Output = Result<Vec<T>, LocalError>> + Send + 'static) -> Answers {
    parts(work, |items| ListParts::new(items, PART_BYTES))
}

fn find(local: Arc<dyn LocalShards>, shard: ShardId, request: SelectRequest) -> Answers {
    let found = async move {
        let selections = local.find(shard, request).await.map_err(local_error)?;
        let sending = Sending {
            selections: selections.into(),
            next: 0,
            encoder: PartEncoder::new(PART_BYTES),
            ready: VecDeque::new(),
        };
        Ok::<_, Status>(stream::try_unfold(sending, |mut sending| async move {
            let part = sending.part().await.map_err(|e| local_error(e.into()))?;
            Ok::<_, Status>(part.map(|part| (Frame::whole(part), sending)))
        }))
    };
    Box::pin(stream::once(found).try_flatten())
}

/// Selections that are read while they are sent.
struct Sending {
    selections: VecDeque<Arc<dyn HeadSelection>>,
    /// The first series of the first selection that was not read.
    next: usize,
    encoder: PartEncoder,
    ready: VecDeque<Bytes>,
}

impl Sending {
    async fn part(&mut self) -> Result<Option<Bytes>, ShardError> {
        while self.ready.is_empty() {
            let Some(selection) = self.selections.front() else { return Ok(None) };
            let (from, n) = (self.next, selection.labels().len());
            if from >= n {
                self.encoder.next_selection(&mut self.ready);
                self.selections.pop_front();
                self.next = 0;
                continue;
            }
            let (mut to, mut samples) = (from, 0usize);
            while to < n && samples < READ_SAMPLES {
                samples = samples.saturating_add(selection.estimate(to).max(1));
                to += 1;
            }
            let set = selection.read(from..to).await?;
            (0..set.len()).for_each(|i| self.encoder.push(&set, i, &mut self.ready));
            self.next = to;
        }
        Ok(self.ready.pop_front())
    }
}

impl UnaryService<Bytes> for Call {
    type Response = Frame;
    type Future = BoxFuture<Result<tonic::Response<Frame>, Status>>;

    fn call(&mut self, request: tonic::Request<Bytes>) -> Self::Future {
        let call = self.clone();
        Box::pin(
            async move { call.in_time(call.write(request.into_inner())).await.map(tonic::Response::new) },
        )
    }
}

impl ServerStreamingService<Bytes> for Call {
    type Response = Frame;
    type ResponseStream = Answers;
    type Future = BoxFuture<Result<tonic::Response<Answers>, Status>>;

    fn call(&mut self, request: tonic::Request<Bytes>) -> Self::Future {
        let call = self.clone();
        Box::pin(async move {
            let answers = call.in_time(call.read(request.into_inner())).await?;
            Ok(tonic::Response::new(call.guarded(answers)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read() {
        let table = [
            ("1H", Some(3_600_000_000_000)),
            ("2M", Some(120_000_000_000)),
            ("3S", Some(3_000_000_000)),
            ("99999999m", Some(99_999_999_000_000)),
            ("5u", Some(5000)),
            ("7n", Some(7)),
            ("", None),
            ("S", None),
            ("999999999S", None),
            ("-1S", None),
            ("+1S", None),
            ("1s", None),
            ("1é", None),
        ];
        for (text, nanos) in table {
            assert_eq!(parse_timeout(text), nanos.map(Duration::from_nanos), "{text:?}");
        }
    }
}
