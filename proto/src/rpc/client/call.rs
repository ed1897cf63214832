//! One call: attempts at the shard's leader until one is answered or the time has passed.

use std::{error::Error as _, sync::atomic::Ordering, time::Duration};

use bytes::Bytes;
use http::uri::PathAndQuery;
use rand::Rng as _;
use tokio::time::Instant;
use tonic::{Code, Status, client::Grpc, transport::Channel};

use super::{PlacementView, RemoteShards, ShardState, answers::Answer, channels::Line};
use crate::{
    ShardError, ShardId,
    rpc::{
        Leader, LocalError, MESSAGE_BYTES_MAX, Method,
        frame::{Frame, FrameCodec},
        metrics::add,
        wire::{
            self, Malformed,
            refusal::{Refused, decode_refused},
            series::NotTaken,
        },
    },
};

/// How many redirects in a row are followed without a pause: nodes that have not heard of each other may send us round.
const REDIRECTS_MAX: u32 = 2;

/// Why an attempt gave nothing.
enum Failed {
    /// Final: the caller's to act on.
    Final(ShardError),
    /// The node named the leader, or did not.
    NotLeader(Option<Leader>, u64),
    /// No answer, or one that another attempt may better.
    Again(String),
    /// No answer in what was left of the call's time.
    Late(Duration),
}

impl From<LocalError> for Failed {
    fn from(e: LocalError) -> Self {
        match e {
            LocalError::NotLeader { leader, term } => Self::NotLeader(leader, term),
            LocalError::NotHere | LocalError::Shard(ShardError::Unavailable(_)) => Self::Again(e.to_string()),
            LocalError::Shard(e) => Self::Final(e),
        }
    }
}

impl From<Malformed> for Failed {
    fn from(e: Malformed) -> Self {
        Self::Again(format!("the answer cannot be read: {e}"))
    }
}

/// The status with its causes: tonic hides "connection refused" three levels down.
fn describe(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut source = status.source();
    while let Some(error) = source {
        let next = error.to_string();
        if !text.contains(&next) {
            text = if text.is_empty() { next } else { format!("{text}: {next}") };
        }
        source = error.source();
    }
    if text.is_empty() { status.code().to_string() } else { text }
}

/// What a status means, and whether the connection is at fault.
fn failed(status: &Status) -> (Failed, bool) {
    match decode_refused(status.details()) {
        Ok(Refused::Local(e)) => return (e.into(), false),
        Ok(Refused::Protocol(text)) => return (Failed::Again(text), false),
        Err(_) => {}
    }
    match status.code() {
        // tonic's own word for a message over its limit, on either side.
        Code::OutOfRange => (Failed::Final(ShardError::Limit(describe(status))), false),
        // The certificate has no such role: another attempt has no other.
        Code::PermissionDenied | Code::Unauthenticated => {
            (Failed::Final(ShardError::Unavailable(describe(status))), false)
        }
        Code::Unavailable | Code::Unknown | Code::Internal => (Failed::Again(describe(status)), true),
        _ => (Failed::Again(describe(status)), false),
    }
}

/// The leader as it is known, or the next replica in turn other than `but`.
fn candidate(
    view: &PlacementView,
    shard: ShardId,
    state: &ShardState,
    but: Option<&Leader>,
) -> Option<Leader> {
    let is_other = |l: &Leader| but.is_none_or(|but| but != l);
    if let Some((leader, _)) = state.leader.lock().clone().filter(|(l, _)| is_other(l)) {
        return Some(leader);
    }
    let placed = view.shards.get(shard.0 as usize)?;
    let leader = |r: &super::Replica| Leader { node: r.node, address: r.address.clone() };
    if but.is_none()
        && let Some(known) = placed.replicas.iter().find(|r| Some(r.node) == placed.leader)
    {
        return Some(leader(known));
    }
    let n = placed.replicas.len();
    let turn = state.turn.fetch_add(1, Ordering::Relaxed);
    let mut in_turn = (0..n).map(|i| leader(&placed.replicas[turn.wrapping_add(i) % n]));
    in_turn.clone().find(is_other).or_else(|| in_turn.next())
}

/// What one call has seen so far.
struct Attempts<'a> {
    shards: &'a RemoteShards,
    method: Method,
    shard: ShardId,
    deadline: Instant,
    timeout: Duration,
    failures: u32,
    redirects: u32,
    /// Who gave no answer last. A follower that still names it leads nowhere; it gets its turn like the others.
    silent: Option<Leader>,
    last: String,
}

impl Attempts<'_> {
    fn give_up(&self) -> ShardError {
        ShardError::Unavailable(format!(
            "shard {} gave no answer to {} within {:?}; the last reason: {}",
            self.shard.0,
            self.method.label(),
            self.timeout,
            self.last
        ))
    }

    /// Waits before the next attempt, or until the placement changes. An error where no time is left.
    async fn pause(&mut self) -> Result<(), ShardError> {
        let (min, max) = self.shards.inner.options.pause;
        let pause = min.saturating_mul(1 << self.failures.min(16)).min(max);
        let pause = pause.mul_f64(rand::rng().random_range(0.5..1.5));
        self.failures += 1;
        self.redirects = 0;
        if Instant::now() + pause >= self.deadline {
            return Err(self.give_up());
        }
        let mut placement = self.shards.inner.placement.clone();
        placement.mark_unchanged();
        let changed = async {
            if placement.changed().await.is_err() {
                // Nobody tells of changes any more.
                std::future::pending().await
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = changed => {}
        }
        Ok(())
    }

    /// The leader did not do it: whom to ask next at once, if not whoever is next in turn.
    async fn after(
        &mut self,
        state: &ShardState,
        asked: &Leader,
        why: Failed,
    ) -> Result<Option<Leader>, ShardError> {
        let counters = self.shards.inner.metrics.of(self.method);
        let forget = || {
            let mut known = state.leader.lock();
            if known.as_ref().is_some_and(|(l, _)| l == asked) {
                *known = None;
            }
        };
        match why {
            Failed::Final(e) => return Err(e),
            Failed::NotLeader(Some(leader), term)
                if leader != *asked && self.silent.as_ref() != Some(&leader) =>
            {
                self.last = format!(
                    "node {} at {} does not lead it, it says that node {} does",
                    asked.node, asked.address, leader.node
                );
                let mut known = state.leader.lock();
                if known.as_ref().is_none_or(|(l, t)| l == asked || *t <= term) {
                    *known = Some((leader.clone(), term));
                }
                drop(known);
                if self.redirects < REDIRECTS_MAX {
                    self.redirects += 1;
                    add(&counters.redirects);
                    return Ok(Some(leader));
                }
            }
            Failed::NotLeader(..) => {
                forget();
                self.last = format!(
                    "node {} at {} does not lead it and knows no other that answers",
                    asked.node, asked.address
                );
            }
            Failed::Again(reason) => {
                forget();
                self.silent = Some(asked.clone());
                self.last = format!("node {} at {}: {reason}", asked.node, asked.address);
            }
            Failed::Late(time) => {
                forget();
                self.silent = Some(asked.clone());
                // That the end of the call's time cut an attempt short says less than what went wrong before.
                if self.last.is_empty() {
                    self.last =
                        format!("node {} at {}: no answer within {time:?}", asked.node, asked.address);
                }
            }
        }
        tracing::debug!(shard = self.shard.0, method = self.method.label(), reason = %self.last, "will try again");
        self.pause().await?;
        add(&counters.retries);
        Ok(None)
    }
}

/// What one attempt does at one node.
trait Attempt: Sync {
    type Done: Send;

    fn attempt(
        &self,
        leader: &Leader,
        deadline: Instant,
    ) -> impl Future<Output = Result<Self::Done, Failed>> + Send;
}

/// A call whose answer is one message.
struct Write<'a, T> {
    shards: &'a RemoteShards,
    method: Method,
    shard: ShardId,
    body: Bytes,
    decode: fn(&[u8]) -> Result<T, Malformed>,
}

impl<T: Send> Attempt for Write<'_, T> {
    type Done = T;

    async fn attempt(&self, leader: &Leader, deadline: Instant) -> Result<T, Failed> {
        let left = deadline.saturating_duration_since(Instant::now());
        let time = left.min(self.shards.inner.options.attempt_timeout);
        let request = self.shards.request(self.shard, &self.body, time);
        let line = self.shards.line(leader)?;
        let mut grpc = client(&line);
        let answer = async {
            grpc.ready().await.map_err(|e| Status::from_error(e.into()))?;
            grpc.unary(request, PathAndQuery::from_static(self.method.path()), FrameCodec).await
        };
        let answer = tokio::time::timeout(time, answer).await;
        let answer = self.shards.settle(leader, &line, time, answer)?;
        Ok((self.decode)(answer.get_ref())?)
    }
}

/// A call whose answer is a stream of parts.
struct Read<'a, B> {
    shards: &'a RemoteShards,
    method: Method,
    shard: ShardId,
    body: Bytes,
    begin: B,
}

impl<A: Answer, B: Fn() -> A + Sync> Attempt for Read<'_, B> {
    type Done = A::Done;

    async fn attempt(&self, leader: &Leader, deadline: Instant) -> Result<A::Done, Failed> {
        let left = deadline.saturating_duration_since(Instant::now());
        let time = left.min(self.shards.inner.options.attempt_timeout);
        let request = self.shards.request(self.shard, &self.body, left);
        let line = self.shards.line(leader)?;
        let mut grpc = client(&line);
        // The answer begins when the barrier is passed.
        let stream = async {
            grpc.ready().await.map_err(|e| Status::from_error(e.into()))?;
            grpc.server_streaming(request, PathAndQuery::from_static(self.method.path()), FrameCodec).await
        };
        let stream = tokio::time::timeout(time, stream).await;
        let mut stream = self.shards.settle(leader, &line, time, stream)?.into_inner();
        let mut answer = (self.begin)();
        loop {
            let next = tokio::time::timeout_at(deadline, stream.message()).await;
            let late = |_| Failed::Again("the answer did not end in time".to_owned());
            match next.map_err(late)?.map_err(|status| failed(&status).0)? {
                Some(part) => answer.take(part).map_err(not_taken)?,
                None => return answer.done().map_err(not_taken),
            }
        }
    }
}

fn client(line: &Line) -> Grpc<Channel> {
    Grpc::new(line.channel.clone())
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX)
}

impl RemoteShards {
    fn request(&self, shard: ShardId, body: &Bytes, time: Duration) -> tonic::Request<Frame> {
        let head = wire::request_head(self.inner.options.cluster, shard);
        let mut request = tonic::Request::new(Frame { head, body: body.clone() });
        request.set_timeout(time);
        request
    }

    fn line(&self, leader: &Leader) -> Result<Line, Failed> {
        self.inner.channels.get(&leader.address).map_err(Failed::Again)
    }

    /// What came of a request. Where the connection is at fault, its channel is dropped.
    fn settle<T>(
        &self,
        leader: &Leader,
        line: &Line,
        time: Duration,
        answer: Result<Result<T, Status>, tokio::time::error::Elapsed>,
    ) -> Result<T, Failed> {
        match answer {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(status)) if matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled) => {
                Err(Failed::Late(time))
            }
            Ok(Err(status)) => {
                let (why, is_connection) = failed(&status);
                if is_connection {
                    self.inner.channels.failed(&leader.address, line);
                }
                Err(why)
            }
            Err(_) if time < self.inner.options.attempt_timeout => Err(Failed::Late(time)),
            Err(_) => Err(Failed::Again(format!("no answer within {time:?}"))),
        }
    }

    /// Makes attempts until one gives something, or the time has passed.
    async fn call<A: Attempt>(
        &self,
        method: Method,
        shard: ShardId,
        timeout: Duration,
        attempt: A,
    ) -> Result<A::Done, ShardError> {
        let counters = self.inner.metrics.of(method);
        add(&counters.requests);
        let done = self.try_until(method, shard, timeout, attempt).await;
        if done.is_err() {
            add(&counters.errors);
        }
        done
    }

    async fn try_until<A: Attempt>(
        &self,
        method: Method,
        shard: ShardId,
        timeout: Duration,
        attempt: A,
    ) -> Result<A::Done, ShardError> {
        let inner = &self.inner;
        let deadline = Instant::now() + timeout;
        let mut attempts = Attempts {
            shards: self,
            method,
            shard,
            deadline,
            timeout,
            failures: 0,
            redirects: 0,
            silent: None,
            last: String::new(),
        };
        let (mut named, mut asked): (Option<Leader>, Option<Leader>) = (None, None);
        loop {
            let view = inner.placement.borrow().clone();
            inner.channels.prune(&view);
            let Some(state) = self.state(shard) else {
                // A client that has not heard of the placement yet knows no shard.
                if view.shard_count > 0 {
                    return Err(ShardError::Unavailable(format!("the cluster has no shard {}", shard.0)));
                }
                "the placement is not known yet".clone_into(&mut attempts.last);
                attempts.pause().await?;
                continue;
            };
            let next = named.take().or_else(|| candidate(&view, shard, &state, asked.as_ref()));
            let Some(leader) = next else {
                "no ingester holds it".clone_into(&mut attempts.last);
                attempts.pause().await?;
                continue;
            };
            match attempt.attempt(&leader, deadline).await {
                Ok(done) => {
                    *state.leader.lock() = Some((leader, 0));
                    return Ok(done);
                }
                Err(why) => named = attempts.after(&state, &leader, why).await?,
            }
            asked = Some(leader);
        }
    }

    /// Sends a write until it is answered.
    pub(super) async fn write<T: Send>(
        &self,
        method: Method,
        shard: ShardId,
        body: Bytes,
        decode: fn(&[u8]) -> Result<T, Malformed>,
    ) -> Result<T, ShardError> {
        // A little room for the head.
        if body.len() > MESSAGE_BYTES_MAX - 64 {
            return Err(ShardError::Limit(format!(
                "a write of {} bytes for one shard is over the limit of {MESSAGE_BYTES_MAX}",
                body.len()
            )));
        }
        let write = Write { shards: self, method, shard, body, decode };
        self.call(method, shard, self.inner.options.write_timeout, write).await
    }

    /// Sends a read until its answer is whole.
    pub(super) async fn read<A: Answer>(
        &self,
        method: Method,
        shard: ShardId,
        body: Bytes,
        begin: impl Fn() -> A + Sync + Send,
    ) -> Result<A::Done, ShardError> {
        let read = Read { shards: self, method, shard, body, begin };
        self.call(method, shard, self.inner.options.read_timeout, read).await
    }
}

fn not_taken(e: NotTaken) -> Failed {
    let limit = |what: &str| {
        Failed::Final(ShardError::Limit(format!("the query selects more {what} of a shard than it may")))
    };
    match e {
        NotTaken::Malformed(e) => e.into(),
        NotTaken::TooManySeries => limit("series (series_max)"),
        NotTaken::TooManySamples => limit("samples (samples_max)"),
    }
}
