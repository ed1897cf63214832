//! The driver's hands: actions on shards' groups, at whichever node leads them.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use async_trait::async_trait;
use sextant_replication::{
    CatchUp, NodeId,
    metadata::{AdminError, ShardAdmin, ShardStatus},
};

use crate::{
    client::{CallError, ClusterClient},
    discovery::Discovery,
    message::{Action, Refusal, Reply, Request},
};

/// Longest time for an action; the nodes give theirs up before.
const PATIENCE: Duration = Duration::from_secs(15);

/// See the module's documentation.
pub struct RemoteAdmin {
    pub(crate) discovery: Arc<Discovery>,
    pub(crate) client: ClusterClient,
}

fn failed(error: impl ToString) -> AdminError {
    AdminError::Failed(error.to_string())
}

impl RemoteAdmin {
    fn address(&self, node: NodeId) -> Result<String, AdminError> {
        let state = self.discovery.state();
        let member = state.members.get(&node);
        member.map(|m| m.info.address.clone()).ok_or_else(|| failed(format!("node {node} is not a member")))
    }

    /// Asks the nodes that may hold the shard, the recorded ones first, until its leader acts.
    async fn at_leader(&self, shard: u32, action: Action) -> Result<Reply, AdminError> {
        let state = self.discovery.state();
        let recorded = state.shards.get(&shard).into_iter().flat_map(|s| &s.replicas);
        let mut asked: Vec<String> =
            recorded.filter_map(|n| Some(state.members.get(n)?.info.address.clone())).collect();
        asked.extend(self.discovery.addresses());
        let mut error = failed("no ingester is known");
        let mut tried = BTreeSet::new();
        asked.reverse();
        while let Some(address) = asked.pop() {
            if !tried.insert(address.clone()) {
                continue;
            }
            let request = Request::Shard { shard, action: action.clone() };
            match self.client.call(&address, request, PATIENCE).await {
                Ok(reply) => return Ok(reply),
                Err(CallError::Refused { refusal: Refusal::NotLeader(Some(leader)), .. }) => {
                    asked.push(leader);
                }
                Err(e @ CallError::Refused { refusal: Refusal::Failed(_) | Refusal::Unknown(_), .. }) => {
                    return Err(failed(e));
                }
                Err(e) => error = failed(e),
            }
        }
        Err(error)
    }

    async fn at(&self, node: NodeId, shard: u32, action: Action) -> Result<Reply, AdminError> {
        let address = self.address(node)?;
        self.client.call(&address, Request::Shard { shard, action }, PATIENCE).await.map_err(failed)
    }

    /// Writes everything acknowledged before into blocks.
    pub async fn flush(&self, shard: u32) -> Result<(), AdminError> {
        self.at_leader(shard, Action::Flush).await.map(|_| ())
    }

    /// An admin of a cluster that is discovered.
    pub fn new(discovery: Arc<Discovery>, client: ClusterClient) -> Self {
        Self { discovery, client }
    }
}

#[async_trait]
impl ShardAdmin for RemoteAdmin {
    async fn status(&self, shard: u32) -> Result<ShardStatus, AdminError> {
        match self.at_leader(shard, Action::Status).await? {
            Reply::Shard { leader, voters, learners } => Ok(ShardStatus { leader, voters, learners }),
            other => Err(failed(format!("not an answer: {other:?}"))),
        }
    }

    async fn open(&self, shard: u32, node: NodeId) -> Result<(), AdminError> {
        self.at(node, shard, Action::Open).await.map(|_| ())
    }

    async fn add_learner(&self, shard: u32, node: NodeId) -> Result<CatchUp, AdminError> {
        let address = self.address(node)?;
        match self.at_leader(shard, Action::AddLearner { node, address }).await? {
            Reply::Learner { lag: 0 } => Ok(CatchUp::Done),
            Reply::Learner { lag } => Ok(CatchUp::Lagging(lag)),
            other => Err(failed(format!("not an answer: {other:?}"))),
        }
    }

    async fn change_voters(&self, shard: u32, voters: BTreeSet<NodeId>) -> Result<(), AdminError> {
        self.at_leader(shard, Action::ChangeVoters(voters)).await.map(|_| ())
    }

    async fn remove(&self, shard: u32, node: NodeId) -> Result<(), AdminError> {
        self.at_leader(shard, Action::Remove(node)).await.map(|_| ())
    }

    async fn transfer_leadership(&self, shard: u32, to: NodeId) -> Result<(), AdminError> {
        self.at_leader(shard, Action::Transfer(to)).await.map(|_| ())
    }

    async fn close(&self, shard: u32, node: NodeId) -> Result<(), AdminError> {
        self.at(node, shard, Action::Close).await.map(|_| ())
    }
}
