//! How members of a group reach each other. The trait knows nothing of gRPC; who opens a group brings the transport.

use std::sync::Arc;

use async_trait::async_trait;
use openraft::{
    error::{InstallSnapshotError, RPCError, RaftError, Unreachable},
    network::{RPCOption, RaftNetwork, RaftNetworkFactory},
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse,
        VoteRequest, VoteResponse,
    },
};

use crate::{GroupId, Member, NodeId, types::TypeConfig};

/// Raft's log request, from the leader.
pub type AppendRequest = AppendEntriesRequest<TypeConfig>;
/// Its answer.
pub type AppendReply = AppendEntriesResponse<NodeId>;
/// Raft's request for a vote.
pub type BallotRequest = VoteRequest<NodeId>;
/// Its answer.
pub type BallotReply = VoteResponse<NodeId>;

/// The other side gave no answer; whether it acted is unknown.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NoAnswer(pub String);

/// Carries Raft's requests to other members, where [`crate::Group::on_append`] and [`crate::Group::on_vote`] take them.
///
/// Requests may be lost, doubled or reordered: Raft allows for it. Cancelling the future gives up the request.
#[async_trait]
pub trait Network: Send + Sync + 'static {
    /// Sends entries or a heartbeat.
    async fn append(
        &self,
        group: GroupId,
        to: NodeId,
        member: &Member,
        request: AppendRequest,
    ) -> Result<AppendReply, NoAnswer>;

    /// Asks for a vote.
    async fn vote(
        &self,
        group: GroupId,
        to: NodeId,
        member: &Member,
        request: BallotRequest,
    ) -> Result<BallotReply, NoAnswer>;
}

/// Reaches nobody: for groups of one member.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoNetwork;

#[async_trait]
impl Network for NoNetwork {
    async fn append(
        &self,
        _: GroupId,
        to: NodeId,
        _: &Member,
        _: AppendRequest,
    ) -> Result<AppendReply, NoAnswer> {
        Err(NoAnswer(format!("no network to node {to}")))
    }

    async fn vote(
        &self,
        _: GroupId,
        to: NodeId,
        _: &Member,
        _: BallotRequest,
    ) -> Result<BallotReply, NoAnswer> {
        Err(NoAnswer(format!("no network to node {to}")))
    }
}

/// A group's view of the network, as openraft wants it.
pub(crate) struct GroupNetwork {
    pub(crate) group: GroupId,
    pub(crate) network: Arc<dyn Network>,
}

/// The connection to one member.
pub(crate) struct Peer {
    group: GroupId,
    to: NodeId,
    member: Member,
    network: Arc<dyn Network>,
}

type Failed<E> = RPCError<NodeId, Member, RaftError<NodeId, E>>;

impl RaftNetworkFactory<TypeConfig> for GroupNetwork {
    type Network = Peer;

    async fn new_client(&mut self, target: NodeId, node: &Member) -> Peer {
        Peer { group: self.group, to: target, member: node.clone(), network: Arc::clone(&self.network) }
    }
}

impl RaftNetwork<TypeConfig> for Peer {
    async fn append_entries(
        &mut self,
        rpc: AppendRequest,
        _: RPCOption,
    ) -> Result<AppendReply, RPCError<NodeId, Member, RaftError<NodeId>>> {
        let sent = self.network.append(self.group, self.to, &self.member, rpc).await;
        sent.map_err(|e| RPCError::Unreachable(Unreachable::new(&e)))
    }

    /// A member that lags behind the purged log cannot catch up yet: checkpoints are not sent.
    async fn install_snapshot(
        &mut self,
        _: InstallSnapshotRequest<TypeConfig>,
        _: RPCOption,
    ) -> Result<InstallSnapshotResponse<NodeId>, Failed<InstallSnapshotError>> {
        Err(RPCError::Unreachable(Unreachable::new(&NoAnswer(
            "checkpoints are not sent to members".to_owned(),
        ))))
    }

    async fn vote(
        &mut self,
        rpc: BallotRequest,
        _: RPCOption,
    ) -> Result<BallotReply, RPCError<NodeId, Member, RaftError<NodeId>>> {
        let sent = self.network.vote(self.group, self.to, &self.member, rpc).await;
        sent.map_err(|e| RPCError::Unreachable(Unreachable::new(&e)))
    }
}
