//! Carries the plan out: a task on the leader of the metadata.
//!
//! It keeps nothing. A leader that takes over reads the state and finds the same plan; every action may be repeated, and a
//! shard's record is changed after its group, so what the record says of a shard is behind by one step at most.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::future::join_all;
use parking_lot::Mutex;

use crate::{
    CatchUp, NodeId,
    metadata::{
        Command, MemberState, MetadataError, MetadataGroup, Move, PlanOptions, State, placement::plan,
    },
};

/// What a shard's group is like now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ShardStatus {
    /// Its leader.
    pub leader: Option<NodeId>,
    /// Its voters.
    pub voters: BTreeSet<NodeId>,
    /// Its members without a vote.
    pub learners: BTreeSet<NodeId>,
}

/// An action on a shard did not succeed. It is tried again in a later round.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AdminError {
    /// The group could not be asked, or refused.
    #[error("{0}")]
    Failed(String),
    /// A learner has not caught up yet.
    #[error("node {node} lacks {lag} entries")]
    Lagging {
        /// The learner.
        node: NodeId,
        /// Entries that it lacks.
        lag: u64,
    },
    /// The metadata did not take the result.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
}

/// Acts on the groups of shards, wherever their leaders are. Every method may be repeated and does nothing the second time.
#[async_trait]
pub trait ShardAdmin: Send + Sync + 'static {
    /// The group as its leader sees it.
    async fn status(&self, shard: u32) -> Result<ShardStatus, AdminError>;

    /// Has a node open the group with [`crate::Bootstrap::Join`], so that it can be added.
    async fn open(&self, shard: u32, node: NodeId) -> Result<(), AdminError>;

    /// Adds a member without a vote and waits for a bounded time until it has caught up.
    async fn add_learner(&self, shard: u32, node: NodeId) -> Result<CatchUp, AdminError>;

    /// Makes exactly these members the voters.
    async fn change_voters(&self, shard: u32, voters: BTreeSet<NodeId>) -> Result<(), AdminError>;

    /// Takes a member out of the group, whether it has a vote or not.
    async fn remove(&self, shard: u32, node: NodeId) -> Result<(), AdminError>;

    /// Makes a voter the leader.
    async fn transfer_leadership(&self, shard: u32, to: NodeId) -> Result<(), AdminError>;

    /// Has a node that is no member any more close the group and forget it.
    async fn close(&self, shard: u32, node: NodeId) -> Result<(), AdminError>;
}

/// Settings of the driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DriverOptions {
    /// Bounds of a plan.
    pub plan: PlanOptions,
    /// Pause between two rounds when nothing changes, or when steps fail. Default 2 s.
    pub pause: Duration,
    /// Time between two sweeps, each of which asks every group. Default 60 s.
    pub sweep_interval: Duration,
}

impl Default for DriverOptions {
    fn default() -> Self {
        Self {
            plan: PlanOptions::default(),
            pause: Duration::from_secs(2),
            sweep_interval: Duration::from_secs(60),
        }
    }
}

/// A step under way or tried last, for `sextant status`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moving {
    /// The step.
    pub step: Move,
    /// Why it did not succeed the last time.
    pub error: Option<String>,
}

/// The task that carries plans out.
pub struct Driver<A: ShardAdmin> {
    metadata: MetadataGroup,
    admin: Arc<A>,
    options: DriverOptions,
    moving: Mutex<Vec<Moving>>,
}

impl<A: ShardAdmin> Driver<A> {
    /// A driver that does nothing until it is run.
    pub fn new(metadata: MetadataGroup, admin: Arc<A>, options: DriverOptions) -> Self {
        Self { metadata, admin, options, moving: Mutex::default() }
    }

    /// What moves at the moment.
    pub fn moving(&self) -> Vec<Moving> {
        self.moving.lock().clone()
    }

    /// Acts whenever this node leads the metadata, until its group stops or the future is dropped. Dropping it in the middle of a
    /// step is safe.
    pub async fn run(&self) {
        let mut watch = self.metadata.watch();
        let mut sweep_at = tokio::time::Instant::now() + self.options.sweep_interval;
        while self.metadata.group().is_running() {
            let acted = self.round().await;
            if acted.is_empty() {
                if tokio::time::Instant::now() >= sweep_at {
                    for (shard, error) in self.sweep().await {
                        tracing::warn!(shard, %error, "a shard's group is not what is recorded of it");
                    }
                    sweep_at = tokio::time::Instant::now() + self.options.sweep_interval;
                }
                let _ = tokio::time::timeout(self.options.pause, watch.changed()).await;
            } else if acted.iter().any(|(_, result)| result.is_err()) {
                // The whole pause, so that a shard that cannot move is not asked all the time.
                tokio::time::sleep(self.options.pause).await;
            }
        }
    }

    /// Finds the next steps and carries them out at the same time. Nothing on a node that does not lead the metadata.
    pub async fn round(&self) -> Vec<(Move, Result<(), AdminError>)> {
        // Only a leader that was confirmed may act: another one may have gone on meanwhile.
        if !self.metadata.group().is_leader() || self.metadata.group().read_barrier().await.is_err() {
            self.moving.lock().clear();
            return Vec::new();
        }
        let state = self.metadata.state();
        if let Err(error) = self.finish_drains(&state).await {
            tracing::warn!(%error, "a drained member was not marked as left");
        }
        let steps = plan(&state, &self.options.plan);
        *self.moving.lock() = steps.iter().map(|step| Moving { step: step.clone(), error: None }).collect();
        let results = join_all(steps.iter().map(|step| self.make(&state, step))).await;
        let results: Vec<_> = steps.into_iter().zip(results).collect();
        let failed = results.iter().filter_map(|(step, result)| {
            let error = result.as_ref().err()?;
            tracing::warn!(?step, %error, "a shard did not move; it is tried again");
            Some(Moving { step: step.clone(), error: Some(error.to_string()) })
        });
        *self.moving.lock() = failed.collect();
        results
    }

    async fn make(&self, state: &State, step: &Move) -> Result<(), AdminError> {
        let recorded = state.shards.get(&step.shard()).map(|s| s.replicas.clone()).unwrap_or_default();
        match step {
            // The nodes see it in the metadata and make the group.
            Move::Create { shard, replicas } => self.record(*shard, recorded, replicas.clone()).await,
            Move::Add { shard, node } => self.add(*shard, *node, recorded).await,
            Move::Remove { shard, node } => self.remove(*shard, *node, recorded).await,
            Move::Prefer { shard, node } => {
                let mut replicas: Vec<_> = recorded.iter().copied().filter(|r| r != node).collect();
                replicas.insert(0, *node);
                if self.admin.status(*shard).await?.leader != Some(*node) {
                    self.admin.transfer_leadership(*shard, *node).await?;
                }
                self.record(*shard, recorded, replicas).await
            }
        }
    }

    async fn add(&self, shard: u32, node: NodeId, recorded: Vec<NodeId>) -> Result<(), AdminError> {
        self.promote(shard, node).await?;
        let replicas = recorded.iter().copied().chain([node]).collect();
        self.record(shard, recorded, replicas).await
    }

    /// Makes a node a voter, by way of a learner that has caught up.
    async fn promote(&self, shard: u32, node: NodeId) -> Result<(), AdminError> {
        let mut status = self.admin.status(shard).await?;
        if status.voters.contains(&node) {
            return Ok(());
        }
        self.admin.open(shard, node).await?;
        if let CatchUp::Lagging(lag) = self.admin.add_learner(shard, node).await? {
            return Err(AdminError::Lagging { node, lag });
        }
        status.voters.insert(node);
        self.admin.change_voters(shard, status.voters).await
    }

    async fn remove(&self, shard: u32, node: NodeId, recorded: Vec<NodeId>) -> Result<(), AdminError> {
        let replicas: Vec<_> = recorded.iter().copied().filter(|r| *r != node).collect();
        let status = self.admin.status(shard).await?;
        self.expel(shard, node, &status, &replicas).await?;
        self.record(shard, recorded, replicas).await?;
        self.close(shard, node).await;
        Ok(())
    }

    /// Takes a node out of a group; when it leads, one of the others leads first.
    async fn expel(
        &self,
        shard: u32,
        node: NodeId,
        status: &ShardStatus,
        others: &[NodeId],
    ) -> Result<(), AdminError> {
        if status.leader == Some(node)
            && let Some(to) = others.iter().find(|r| status.voters.contains(r))
        {
            self.admin.transfer_leadership(shard, *to).await?;
        }
        if status.voters.contains(&node) || status.learners.contains(&node) {
            self.admin.remove(shard, node).await?;
        }
        Ok(())
    }

    /// A member that is gone can not be asked; it closes the group when it comes back and reads the metadata.
    async fn close(&self, shard: u32, node: NodeId) {
        if let Err(error) = self.admin.close(shard, node).await {
            tracing::info!(shard, %node, %error, "a removed replica was not closed");
        }
    }

    /// Brings groups in line with what is recorded of them: a step that was begun under another state of the members may have
    /// left a learner or a voter behind, or (by a leader of the metadata that was not one any more) taken one away. Shards
    /// that the plan is about to change are left alone. Gives what did not succeed.
    pub async fn sweep(&self) -> Vec<(u32, AdminError)> {
        if !self.metadata.group().is_leader() || self.metadata.group().read_barrier().await.is_err() {
            return Vec::new();
        }
        let state = self.metadata.state();
        let unbounded = PlanOptions { moving_max: usize::MAX, leaders_max: usize::MAX };
        let moving: BTreeSet<u32> = plan(&state, &unbounded).iter().map(Move::shard).collect();
        let mut failed = Vec::new();
        for (shard, record) in state.shards.iter().filter(|(s, _)| !moving.contains(s)) {
            if !record.replicas.is_empty()
                && let Err(error) = self.sweep_shard(*shard, &record.replicas).await
            {
                failed.push((*shard, error));
            }
        }
        failed
    }

    async fn sweep_shard(&self, shard: u32, recorded: &[NodeId]) -> Result<(), AdminError> {
        let status = self.admin.status(shard).await?;
        for missing in recorded.iter().filter(|r| !status.voters.contains(r)) {
            self.promote(shard, *missing).await?;
        }
        for stray in status.voters.union(&status.learners).filter(|n| !recorded.contains(n)) {
            tracing::info!(shard, node = %stray, "a member that is not recorded is taken out of the group");
            self.expel(shard, *stray, &status, recorded).await?;
            self.close(shard, *stray).await;
        }
        Ok(())
    }

    async fn record(
        &self,
        shard: u32,
        expected: Vec<NodeId>,
        replicas: Vec<NodeId>,
    ) -> Result<(), AdminError> {
        self.metadata.propose(&Command::SetReplicas { shard, expected, replicas }).await?;
        Ok(())
    }

    /// A member that drains and holds nothing has left.
    async fn finish_drains(&self, state: &State) -> Result<(), MetadataError> {
        for (node, member) in &*state.members {
            let holds = || state.shards.values().any(|s| s.replicas.contains(node));
            if member.state == MemberState::Draining && !holds() {
                let left = Command::SetMemberState { node: *node, state: MemberState::Left };
                self.metadata.propose(&left).await?;
            }
        }
        Ok(())
    }
}
