//! How members of a group reach each other. The trait knows nothing of gRPC; who opens a group brings the transport.
//!
//! openraft 0.9 keeps one log request in flight per follower and gives it a heartbeat interval. A large request over a slow
//! link would be given up and begun again for ever, so [`Peer`] lets it go on: the next attempt, which begins at the same entry,
//! takes up the answer of the one under way.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use openraft::{
    AnyError, Snapshot,
    error::{Fatal, NetworkError, RPCError, RaftError, ReplicationClosed, StreamingError, Unreachable},
    network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory},
    raft::{AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse},
};
use tokio::task::JoinHandle;

use crate::{
    GroupId, Member, NodeId,
    types::{LogId, TypeConfig, Vote},
};

/// Raft's log request, from the leader.
pub type AppendRequest = AppendEntriesRequest<TypeConfig>;
/// Its answer.
pub type AppendReply = AppendEntriesResponse<NodeId>;
/// The answer to a [`BallotRequest`].
pub type BallotReply = VoteResponse<NodeId>;

/// Raft's request for a vote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BallotRequest {
    /// What the candidate asks for.
    pub request: VoteRequest<NodeId>,
    /// Whether the leader asked the candidate to take over, so that the voter need not wait for the leader's lease to end.
    pub hand_over: bool,
}

/// The leader's checkpoint, for a member that needs entries which are purged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointRequest {
    /// The leader's vote.
    pub vote: Vote,
    /// The content of a checkpoint file.
    pub file: Bytes,
}

/// The leader asks a follower to stand for election now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandOverRequest {
    /// The leader's vote.
    pub vote: Vote,
    /// The leader's last entry, which the follower must have.
    pub last: Option<LogId>,
}

/// What one member sends to another.
#[derive(Debug, Clone)]
pub enum Request {
    /// Entries, or a heartbeat.
    Append(AppendRequest),
    /// A candidate asks for a vote.
    Ballot(BallotRequest),
    /// A checkpoint to be taken up.
    Checkpoint(CheckpointRequest),
    /// A request to become the leader.
    HandOver(HandOverRequest),
    /// A member asks the leader up to where it has to apply for a linearizable read.
    ReadIndex,
}

/// The answer to the [`Request`] of the same name.
#[derive(Debug, PartialEq, Eq)]
pub enum Reply {
    /// Whether the entries fit.
    Append(AppendReply),
    /// Whether the vote was granted.
    Ballot(BallotReply),
    /// The member's vote; the checkpoint is durable and taken up when it is the sender's.
    Checkpoint(Vote),
    /// The follower stands for election. Whether it wins is seen by its requests.
    HandOver,
    /// A Raft index.
    ReadIndex(u64),
}

/// There is no answer to a request; unless it was refused, it is unknown whether the other side acted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoAnswer {
    /// Not sent, lost, or not answered in time.
    #[error("no answer: {0}")]
    Unreachable(String),
    /// The node is there but does not hold the group (not yet, or no more).
    #[error("group {0} is not open on that node")]
    NoGroup(GroupId),
    /// The address belongs to a node of another cluster.
    #[error("that address belongs to cluster {theirs}, this is cluster {ours}")]
    OtherCluster {
        /// The sender's.
        ours: ClusterId,
        /// The receiver's.
        theirs: ClusterId,
    },
    /// The address belongs to another node of the cluster.
    #[error("node {asked} was asked for, that address belongs to node {found}")]
    OtherNode {
        /// Whom the sender wanted.
        asked: NodeId,
        /// Who got it.
        found: NodeId,
    },
    /// The node does not lead the group.
    #[error("that node does not lead the group; the leader is {0:?}")]
    NotLeader(Option<NodeId>),
    /// The node can not act on it: its group has stopped, its disk is full, the request is malformed.
    #[error("refused: {0}")]
    Refused(String),
}

/// Identity of a deployment. Nodes of different clusters never talk, whatever their addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct ClusterId(pub u128);

impl std::fmt::Display for ClusterId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl serde::Serialize for ClusterId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for ClusterId {
    /// From the hexadecimal form that [`std::fmt::Display`] gives.
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        u128::from_str_radix(&text, 16).map(Self).map_err(serde::de::Error::custom)
    }
}

/// Carries requests to other members, whose [`Handler`] takes them.
///
/// Requests may be lost, doubled or reordered: Raft allows for it. Cancelling the future gives up the request.
#[async_trait]
pub trait Network: Send + Sync + 'static {
    /// Sends one request and waits for its answer.
    async fn send(
        &self,
        group: GroupId,
        to: NodeId,
        member: &Member,
        request: Request,
    ) -> Result<Reply, NoAnswer>;
}

/// Takes the requests of other members: a [`crate::Group`].
#[async_trait]
pub trait Handler: Send + Sync + 'static {
    /// Acts on one request.
    async fn handle(&self, request: Request) -> Result<Reply, NoAnswer>;
}

/// Reaches nobody: for groups of one member.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoNetwork;

#[async_trait]
impl Network for NoNetwork {
    async fn send(&self, _: GroupId, to: NodeId, _: &Member, _: Request) -> Result<Reply, NoAnswer> {
        Err(NoAnswer::Unreachable(format!("no network to node {to}")))
    }
}

/// A group's view of the network, as openraft wants it.
#[derive(Clone)]
pub(crate) struct GroupNetwork {
    pub(crate) group: GroupId,
    pub(crate) network: Arc<dyn Network>,
    /// The term for which this node was asked to stand for election; 0 when it was not.
    pub(crate) hand_over_term: Arc<AtomicU64>,
    pub(crate) retry_pause_max: Duration,
}

/// The connection to one member.
pub(crate) struct Peer {
    to: NodeId,
    member: Member,
    network: GroupNetwork,
    under_way: Option<UnderWay>,
}

/// A log request whose answer was not waited for to the end.
struct UnderWay {
    vote: Vote,
    prev: Option<LogId>,
    last: Option<LogId>,
    answer: JoinHandle<Result<Reply, NoAnswer>>,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.answer.abort();
    }
}

type Failed = RPCError<NodeId, Member, RaftError<NodeId>>;

/// The first pause after a member could not be reached.
const RETRY_PAUSE_MIN: Duration = Duration::from_millis(20);

impl RaftNetworkFactory<TypeConfig> for GroupNetwork {
    type Network = Peer;

    async fn new_client(&mut self, target: NodeId, node: &Member) -> Peer {
        Peer { to: target, member: node.clone(), network: self.clone(), under_way: None }
    }
}

fn failed(error: &NoAnswer) -> Failed {
    RPCError::Unreachable(Unreachable::new(error))
}

fn unexpected() -> Failed {
    RPCError::Network(NetworkError::new(&AnyError::error("the answer is of another kind than the request")))
}

impl Peer {
    async fn send(&self, request: Request) -> Result<Reply, NoAnswer> {
        let network = &self.network;
        network.network.send(network.group, self.to, &self.member, request).await
    }

    fn spawn(&self, request: AppendRequest) -> JoinHandle<Result<Reply, NoAnswer>> {
        let GroupNetwork { group, network, .. } = self.network.clone();
        let (to, member) = (self.to, self.member.clone());
        tokio::spawn(async move { network.send(group, to, &member, Request::Append(request)).await })
    }
}

impl RaftNetwork<TypeConfig> for Peer {
    async fn append_entries(&mut self, rpc: AppendRequest, _: RPCOption) -> Result<AppendReply, Failed> {
        let last = rpc.entries.last().map(|e| e.log_id);
        if last.is_none() {
            return match self.send(Request::Append(rpc)).await.map_err(|e| failed(&e))? {
                Reply::Append(reply) => Ok(reply),
                _ => Err(unexpected()),
            };
        }
        // A request that goes further would be sent again from the beginning.
        let taken_up = self
            .under_way
            .as_ref()
            .is_some_and(|u| u.vote == rpc.vote && u.prev == rpc.prev_log_id && u.last <= last);
        if taken_up {
            // While it is on its way, the follower must not take the leader for dead.
            let heartbeat = AppendRequest {
                vote: rpc.vote,
                prev_log_id: rpc.prev_log_id,
                entries: Vec::new(),
                leader_commit: rpc.leader_commit,
            };
            drop(self.spawn(heartbeat));
        } else {
            let (vote, prev) = (rpc.vote, rpc.prev_log_id);
            self.under_way = Some(UnderWay { vote, prev, last, answer: self.spawn(rpc) });
        }
        let Some(under_way) = &mut self.under_way else { return Err(unexpected()) };
        let answer = (&mut under_way.answer).await;
        let sent_up_to = under_way.last;
        self.under_way = None;
        let answer = answer.unwrap_or_else(|e| Err(NoAnswer::Unreachable(e.to_string())));
        match answer.map_err(|e| failed(&e))? {
            Reply::Append(AppendReply::Success) if sent_up_to < last => {
                Ok(AppendReply::PartialSuccess(sent_up_to))
            }
            Reply::Append(reply) => Ok(reply),
            _ => Err(unexpected()),
        }
    }

    async fn vote(
        &mut self,
        request: VoteRequest<NodeId>,
        _: RPCOption,
    ) -> Result<VoteResponse<NodeId>, Failed> {
        let hand_over = self.network.hand_over_term.load(Ordering::Acquire) == request.vote.leader_id.term;
        let ballot = BallotRequest { request, hand_over };
        match self.send(Request::Ballot(ballot)).await.map_err(|e| failed(&e))? {
            Reply::Ballot(reply) => Ok(reply),
            _ => Err(unexpected()),
        }
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot<TypeConfig>,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<NodeId>, StreamingError<TypeConfig, Fatal<NodeId>>> {
        let request = Request::Checkpoint(CheckpointRequest { vote, file: *snapshot.snapshot });
        let unreachable = |e: &NoAnswer| StreamingError::Unreachable(Unreachable::new(e));
        tokio::select! {
            closed = cancel => Err(StreamingError::Closed(closed)),
            answer = self.send(request) => match answer.map_err(|e| unreachable(&e))? {
                Reply::Checkpoint(vote) => Ok(SnapshotResponse::new(vote)),
                _ => Err(unreachable(&NoAnswer::Refused("not the answer to a checkpoint".to_owned()))),
            },
        }
    }

    /// The pause stays below a heartbeat interval, so that a member that returns hears of its leader before it calls an
    /// election.
    fn backoff(&self) -> Backoff {
        let max = self.network.retry_pause_max;
        Backoff::new(std::iter::successors(Some(RETRY_PAUSE_MIN.min(max)), move |p| Some((*p * 2).min(max))))
    }
}
