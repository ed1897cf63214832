//! An ingester as a member of the cluster: how it joins, and how it keeps its shards in line with the metadata.
//!
//! At a start a node that has a replica of the metadata opens it. One that has none asks all peers: if any knows of a cluster
//! it joins that one; if all say that there is none, the first peer makes it, with all of them as members. A replica that was
//! drawn up but never heard of the cluster (its leader died first) says that there is none, so that the making can be repeated.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures::future::join_all;
use parking_lot::Mutex;
use sextant_ingester::{Ingester, ShardStateMachine};
use sextant_proto::ShardId;
use sextant_replication::{
    Bootstrap, CatchUp, Group, GroupId, GroupMetrics, GroupOptions, Member, MembershipError, NodeId,
    StateMachine, TransferError,
    metadata::{
        Command, Driver, DriverOptions, INGESTER, METADATA_GROUP, MemberInfo, MemberState, MetadataError,
        MetadataGroup, MetadataOptions, State,
    },
    transport::RaftService,
};
use tokio::{sync::watch, task::JoinSet, time::Instant};

use crate::{
    ClusterService, Identity,
    admin::RemoteAdmin,
    client::ClusterClient,
    discovery::Discovery,
    message::{Action, Answer, Refusal, Reply, Request},
    metrics::{self, Obstacle},
    status::{NodeStatus, ReplicaStatus},
};

/// Pause between two attempts to find the cluster.
const LOOK_PAUSE: Duration = Duration::from_millis(300);
/// How long a peer may take to say who it is.
const HELLO_PATIENCE: Duration = Duration::from_secs(2);
/// How often the node looks after its groups when nothing changes.
const TEND_INTERVAL: Duration = Duration::from_secs(2);
/// How long a change of members may take before its caller hears of it; less than the caller waits.
const CHANGE_PATIENCE: Duration = Duration::from_secs(10);
/// A shard is handed to its preferred leader when it was led elsewhere for this long.
const PREFER_AFTER: Duration = Duration::from_secs(15);
/// How long a stop may spend on handing shards over.
const LEAVE_PATIENCE: Duration = Duration::from_secs(5);
/// Replicas of the metadata.
const METADATA_REPLICAS: usize = 3;

/// Settings of an ingester's node.
#[derive(Clone)]
pub struct NodeOptions {
    /// Addresses of the first ingesters, the same list in every process.
    pub peers: Vec<String>,
    /// What the node says of itself; its address is where peers reach it.
    pub info: MemberInfo,
    /// The number of shards, where the cluster is yet to be made.
    pub shards: u32,
    /// Replicas of each shard, where the cluster is yet to be made.
    pub replication: u32,
    /// Of every group; its network reaches the other nodes.
    pub group: GroupOptions,
    /// Of the task that moves shards.
    pub driver: DriverOptions,
    /// The program's version, for people.
    pub version: String,
}

/// See the module's documentation.
pub struct IngesterNode {
    options: NodeOptions,
    identity: Identity,
    ingester: Arc<Ingester>,
    raft: RaftService,
    client: ClusterClient,
    discovery: Arc<Discovery>,
    metadata: watch::Sender<Option<MetadataGroup>>,
    driver: Mutex<Option<Arc<Driver<RemoteAdmin>>>>,
    /// Groups are opened and closed one at a time.
    opening: tokio::sync::Mutex<()>,
    tasks: Mutex<JoinSet<()>>,
    /// Since when this node leads a shard that prefers another.
    unpreferred: Mutex<BTreeMap<u32, Instant>>,
}

/// What the peers know.
enum Found {
    /// A cluster; whether this node is among its metadata's members.
    Cluster { is_member: bool },
    /// None, and these are all peers.
    Nothing(BTreeMap<NodeId, Member>),
    /// Some did not answer.
    Unclear(String),
}

impl IngesterNode {
    /// A node that does nothing but answer until it is run. Must be called within a tokio runtime.
    pub fn new(
        options: NodeOptions,
        identity: Identity,
        ingester: Arc<Ingester>,
        raft: RaftService,
        client: ClusterClient,
    ) -> Arc<Self> {
        // Its own replica first: what is known here need not come over the network.
        let mut peers = vec![options.info.address.clone()];
        peers.extend(options.peers.iter().filter(|p| **p != options.info.address).cloned());
        let discovery = Discovery::start(peers, client.clone());
        Arc::new(Self {
            options,
            identity,
            ingester,
            raft,
            client,
            discovery,
            metadata: watch::Sender::new(None),
            driver: Mutex::default(),
            opening: tokio::sync::Mutex::default(),
            tasks: Mutex::default(),
            unpreferred: Mutex::default(),
        })
    }

    /// The gRPC service through which other processes ask this one.
    pub fn service(self: &Arc<Self>) -> ClusterService {
        ClusterService::new(self.clone())
    }

    /// Who this node is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The cluster's state and placement.
    pub fn discovery(&self) -> &Arc<Discovery> {
        &self.discovery
    }

    /// Joins the cluster, or makes it, then looks after this node's groups until the future is dropped.
    pub async fn run(self: &Arc<Self>) {
        self.find().await;
        let mut changes = self.discovery.watch();
        let mut is_registered = false;
        loop {
            if !is_registered {
                match self.register().await {
                    Ok(()) => is_registered = true,
                    Err(reason) => tracing::warn!(%reason, "this node is not a member yet"),
                }
            }
            self.tend().await;
            let pause = if is_registered { TEND_INTERVAL } else { LOOK_PAUSE };
            let _ = tokio::time::timeout(pause, changes.changed()).await;
        }
    }

    async fn find(self: &Arc<Self>) {
        if self.ingester.log().groups().contains(&METADATA_GROUP) {
            self.open_metadata_until_open(Bootstrap::Join).await;
            return;
        }
        let mut said = String::new();
        loop {
            match self.look().await {
                Found::Cluster { is_member } => {
                    if is_member {
                        self.open_metadata_until_open(Bootstrap::Join).await;
                    }
                    return;
                }
                Found::Nothing(members) => {
                    let is_first = self.options.peers.first() == Some(&self.options.info.address);
                    if is_first {
                        tracing::info!(members = members.len(), "making the cluster");
                        return self.open_metadata_until_open(Bootstrap::Members(members)).await;
                    }
                    // The first peer makes it; what it sends must find a group here.
                    self.open_metadata_until_open(Bootstrap::Join).await;
                }
                Found::Unclear(reason) if reason != said => {
                    tracing::info!(%reason, "waiting for the other peers");
                    said = reason;
                }
                Found::Unclear(_) => {}
            }
            tokio::time::sleep(LOOK_PAUSE).await;
        }
    }

    async fn look(&self) -> Found {
        let asked = self.options.peers.iter().map(|p| self.client.call(p, Request::Hello, HELLO_PATIENCE));
        let answers = join_all(asked).await;
        let mut members = BTreeMap::new();
        let mut missing = Vec::new();
        for (address, answer) in self.options.peers.iter().zip(answers) {
            match answer {
                // It is being made at this moment.
                Ok(Reply::Hello { is_made: true, members, .. }) if members.is_empty() => {
                    missing.push(format!("{address}: it does not know the members yet"));
                }
                Ok(Reply::Hello { is_made: true, members, .. }) => {
                    return Found::Cluster { is_member: members.contains(&self.identity.node) };
                }
                Ok(Reply::Hello { node, .. }) => {
                    members.insert(node, Member { address: address.clone() });
                }
                Ok(_) => missing.push(format!("{address}: not an answer")),
                Err(e) => missing.push(e.to_string()),
            }
        }
        if !missing.is_empty() {
            return Found::Unclear(missing.join("; "));
        }
        if members.len() < self.options.peers.len() {
            return Found::Unclear("two addresses in cluster.peers are of the same node".to_owned());
        }
        if !members.contains_key(&self.identity.node) {
            let reason =
                format!("{} is not among cluster.peers, and there is no cluster", self.options.info.address);
            return Found::Unclear(reason);
        }
        Found::Nothing(members)
    }

    async fn open_metadata_until_open(self: &Arc<Self>, bootstrap: Bootstrap) {
        while let Err(reason) = self.open_metadata(bootstrap.clone()).await {
            tracing::error!(%reason, "the metadata's replica does not open");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    async fn open_metadata(self: &Arc<Self>, bootstrap: Bootstrap) -> Result<(), String> {
        let _one = self.opening.lock().await;
        if self.metadata.borrow().is_some() {
            return Ok(());
        }
        let group = GroupOptions { bootstrap, ..self.options.group.clone() };
        let options = MetadataOptions { group, ..MetadataOptions::default() };
        let opened = MetadataGroup::open(self.ingester.log(), self.identity.node, options).await;
        let metadata = opened.map_err(|e| e.to_string())?;
        self.raft.add(METADATA_GROUP, metadata.group().clone());
        let admin = Arc::new(RemoteAdmin::new(self.discovery.clone(), self.client.clone()));
        let driver = Arc::new(Driver::new(metadata.clone(), admin, self.options.driver));
        *self.driver.lock() = Some(driver.clone());
        self.metadata.send_replace(Some(metadata.clone()));
        let mut tasks = self.tasks.lock();
        tasks.spawn(async move { driver.run().await });
        tasks.spawn(async move { metadata.run_checkpoints().await });
        Ok(())
    }

    fn metadata(&self) -> Option<MetadataGroup> {
        self.metadata.borrow().clone()
    }

    async fn register(&self) -> Result<(), String> {
        let (node, info) = (self.identity.node, self.options.info.clone());
        let init = Command::Init {
            cluster: self.identity.cluster,
            shards: self.options.shards,
            replication: self.options.replication,
        };
        let within = Duration::from_secs(10);
        let propose = async |command: Command| {
            let addresses = self.discovery.addresses();
            self.client.propose(&addresses, &command, within).await.map_err(|e| e.to_string())
        };
        propose(init).await?;
        propose(Command::Register { node, info }).await?;
        // What was proposed here may not be known here yet.
        let is_joining =
            self.discovery.state().members.get(&node).is_none_or(|m| m.state == MemberState::Joining);
        if is_joining {
            propose(Command::SetMemberState { node, state: MemberState::Active }).await?;
        }
        Ok(())
    }

    async fn tend(self: &Arc<Self>) {
        let state = self.discovery.state();
        let me = self.identity.node;
        for (&shard, record) in state.shards.iter() {
            if record.replicas.contains(&me) && self.ingester.group(ShardId(shard)).is_none() {
                let has_log = self.ingester.log().groups().contains(&GroupId(u64::from(shard)));
                let bootstrap = if has_log {
                    Bootstrap::Join
                } else {
                    Bootstrap::Members(members(&state, &record.replicas))
                };
                if let Err(reason) = self.open_shard(shard, bootstrap).await {
                    tracing::error!(shard, %reason, "a shard does not open");
                }
            }
        }
        for shard in self.ingester.held() {
            let Some(group) = self.ingester.group(shard) else { continue };
            if group.is_leader() {
                self.move_addresses(&group, &state).await;
                self.give_back(shard.0, &group, &state).await;
            } else {
                self.unpreferred.lock().remove(&shard.0);
            }
        }
        if let Some(metadata) = self.metadata()
            && metadata.group().is_leader()
        {
            self.move_addresses(metadata.group(), &state).await;
            self.tend_metadata(&metadata).await;
        }
    }

    /// Members that said that they are elsewhere now are reached there.
    async fn move_addresses<S: StateMachine>(&self, group: &Group<S>, state: &State) {
        for (node, member) in group.members() {
            let Some(known) = state.members.get(&node) else { continue };
            if known.info.address != member.address {
                let now = Member { address: known.info.address.clone() };
                if let Err(error) = group.update_address(node, now, CHANGE_PATIENCE).await {
                    tracing::warn!(%node, %error, "a member's new address is not in force");
                }
            }
        }
    }

    /// Hands a shard to its preferred leader when that one is there again and has caught up.
    async fn give_back(&self, shard: u32, group: &Group<ShardStateMachine>, state: &State) {
        let preferred = state.shards.get(&shard).and_then(|s| s.replicas.first().copied());
        let Some(to) = preferred.filter(|to| *to != self.identity.node) else {
            self.unpreferred.lock().remove(&shard);
            return;
        };
        let since = *self.unpreferred.lock().entry(shard).or_insert_with(Instant::now);
        let is_ready =
            || group.metrics().followers.iter().any(|f| f.node == to && f.is_voter && f.lag < 1000);
        if since.elapsed() >= PREFER_AFTER && is_ready() {
            if let Err(error) = group.transfer_leadership(to, CHANGE_PATIENCE).await {
                tracing::info!(shard, %to, %error, "the preferred leader did not take over");
            }
            self.unpreferred.lock().insert(shard, Instant::now());
        }
    }

    /// Keeps the metadata on as many active ingesters as it should have, one step at a time.
    async fn tend_metadata(&self, metadata: &MetadataGroup) {
        let state = metadata.state();
        let group = metadata.group();
        let m = group.metrics();
        let is_active = |node: &NodeId| {
            let member = state.members.get(node);
            member.is_some_and(|m| m.info.role == INGESTER && m.state == MemberState::Active)
        };
        let is_given_up = |node: &NodeId| {
            let state = state.members.get(node).map(|m| m.state);
            matches!(state, Some(MemberState::Draining | MemberState::Left))
        };
        let good = m.voters.iter().filter(|n| !is_given_up(n)).count();
        let candidate = state.members.keys().find(|n| is_active(n) && !m.voters.contains(n));
        // A member whose replica is not open: it lost sight of it while the cluster was made.
        for silent in m.followers.iter().filter(|f| f.matched.is_none()) {
            if let Some(member) = state.members.get(&silent.node) {
                let opened =
                    self.client.call(&member.info.address, Request::OpenMetadata, HELLO_PATIENCE).await;
                tracing::debug!(node = %silent.node, ?opened, "a member of the metadata was asked to open it");
            }
        }
        let done = if let Some(node) = candidate.filter(|_| good < METADATA_REPLICAS) {
            self.add_metadata(group, *node, &state).await
        } else if let Some(node) = m.voters.iter().find(|n| is_given_up(n)).filter(|_| good > 0) {
            self.remove_metadata(group, *node, &m.voters).await
        } else if let Some(node) = m.learners.first() {
            group.remove(*node, CHANGE_PATIENCE).await.map_err(|e| e.to_string())
        } else {
            Ok(())
        };
        if let Err(reason) = done {
            tracing::warn!(%reason, "the metadata's replicas did not change; it is tried again");
        }
    }

    async fn add_metadata<S: StateMachine>(
        &self,
        group: &Group<S>,
        node: NodeId,
        state: &State,
    ) -> Result<(), String> {
        let Some(member) = state.members.get(&node) else { return Ok(()) };
        let address = member.info.address.clone();
        let opened = self.client.call(&address, Request::OpenMetadata, CHANGE_PATIENCE).await;
        opened.map_err(|e| e.to_string())?;
        let caught_up = group.add_learner(node, Member { address }, CHANGE_PATIENCE).await;
        if let CatchUp::Lagging(lag) = caught_up.map_err(|e| e.to_string())? {
            return Err(format!("node {node} lacks {lag} entries"));
        }
        let mut voters: BTreeSet<_> = group.metrics().voters.into_iter().collect();
        voters.insert(node);
        group.change_voters(voters, CHANGE_PATIENCE).await.map_err(|e| e.to_string())
    }

    async fn remove_metadata<S: StateMachine>(
        &self,
        group: &Group<S>,
        node: NodeId,
        voters: &[NodeId],
    ) -> Result<(), String> {
        if node == self.identity.node {
            let Some(to) = voters.iter().find(|v| **v != node) else { return Ok(()) };
            return group.transfer_leadership(*to, CHANGE_PATIENCE).await.map_err(|e| e.to_string());
        }
        group.remove(node, CHANGE_PATIENCE).await.map_err(|e| e.to_string())
    }

    async fn open_shard(&self, shard: u32, bootstrap: Bootstrap) -> Result<(), String> {
        let _one = self.opening.lock().await;
        let id = ShardId(shard);
        if self.ingester.group(id).is_some() {
            return Ok(());
        }
        let options = GroupOptions { bootstrap, ..self.options.group.clone() };
        let group = self.ingester.open_shard(id, options).await.map_err(|e| e.to_string())?;
        self.raft.add(GroupId(u64::from(shard)), group);
        Ok(())
    }

    async fn close_shard(&self, shard: u32) {
        let _one = self.opening.lock().await;
        self.raft.remove(GroupId(u64::from(shard)));
        self.ingester.close_shard(ShardId(shard)).await;
    }

    /// Before a stop: gives the leadership of its groups to members that have caught up, so that nobody waits for an election.
    pub async fn hand_over(&self) {
        let deadline = Instant::now() + LEAVE_PATIENCE;
        let shards = self.ingester.held();
        let groups = shards.iter().filter_map(|s| self.ingester.group(*s));
        let one = async |group: Group<ShardStateMachine>| hand_over(&group, deadline).await;
        join_all(groups.map(one)).await;
        if let Some(metadata) = self.metadata() {
            hand_over(metadata.group(), deadline).await;
        }
    }

    /// Ends the metadata's replica; the ingester's own shutdown ends the shards'.
    pub async fn shutdown(&self) {
        let _one = self.opening.lock().await;
        self.tasks.lock().abort_all();
        for group in self.raft.groups() {
            self.raft.remove(group);
        }
        let metadata = self.metadata.send_replace(None);
        *self.driver.lock() = None;
        if let Some(metadata) = metadata {
            metadata.group().shutdown().await;
        }
    }

    /// What keeps this node from doing its part, with a text for people; empty when nothing does.
    pub fn obstacles(&self) -> Vec<(Obstacle, String)> {
        let mut all = Vec::new();
        let state = self.discovery.state();
        let me = state.members.get(&self.identity.node);
        let mut membership = |text: &str| all.push((Obstacle::Membership, text.to_owned()));
        match me.map(|m| m.state) {
            None => membership("waiting for: membership in the cluster"),
            Some(MemberState::Left) => membership("this node was removed from the cluster"),
            Some(_) => {}
        }
        for (&shard, record) in state.shards.iter() {
            if record.replicas.contains(&self.identity.node) && self.ingester.group(ShardId(shard)).is_none()
            {
                all.push((Obstacle::ShardNotOpen, format!("waiting for: shard {shard}")));
            }
        }
        if let Some(m) = self.metadata_metrics() {
            metrics::of_group("the metadata", &m, &mut all);
        }
        for (shard, m) in self.shard_metrics() {
            metrics::of_group(&format!("shard {}", shard.0), &m, &mut all);
        }
        metrics::of_log(self.ingester.log().stats().sync_us_max, &mut all);
        all
    }

    /// Figures of this node's replica of the metadata.
    pub fn metadata_metrics(&self) -> Option<GroupMetrics> {
        self.metadata().map(|m| m.group().metrics())
    }

    pub(crate) fn shard_metrics(&self) -> Vec<(ShardId, GroupMetrics)> {
        let one = |s: ShardId| Some((s, self.ingester.group(s)?.metrics()));
        self.ingester.held().into_iter().filter_map(one).collect()
    }

    fn status(&self) -> NodeStatus {
        let replica = |s: ShardId| Some((s.0, ReplicaStatus::of(&self.ingester.group(s)?)));
        let moving = self.driver.lock().as_ref().map(|d| d.moving()).unwrap_or_default();
        let line = |m: sextant_replication::metadata::Moving| match m.error {
            Some(error) => format!("{:?}: {error}", m.step),
            None => format!("{:?}", m.step),
        };
        NodeStatus {
            version: self.options.version.clone(),
            metadata: self.metadata().map(|m| ReplicaStatus::of(m.group())),
            shards: self.ingester.held().into_iter().filter_map(replica).collect(),
            moving: moving.into_iter().map(line).collect(),
            log_bytes: self.ingester.log().stats().log_bytes,
            refuses: self.ingester.log().refuses(),
        }
    }

    pub(crate) async fn answer(self: Arc<Self>, request: Request) -> Answer {
        match request {
            Request::Hello => {
                let group = self.metadata().map(|m| m.group().clone());
                let is_made = match &group {
                    Some(g) => g.metrics().last_log.is_some() || g.metrics().checkpoint.is_some(),
                    None => self.ingester.log().groups().contains(&METADATA_GROUP),
                };
                let members = group.iter().flat_map(|g| g.members()).map(|(node, _)| node).collect();
                Ok(Reply::Hello { node: self.identity.node, is_made, members })
            }
            Request::State { after, wait_ms } => {
                let mut states = self.metadata().ok_or(Refusal::NotHere)?.watch();
                let wait = Duration::from_millis(wait_ms.min(60_000));
                let newer = states.wait_for(|s| s.revision > after);
                let _ = tokio::time::timeout(wait, newer).await.map(|r| r.map(drop));
                let state = states.borrow().as_ref().clone();
                Ok(Reply::State(Box::new(state)))
            }
            Request::Propose(command) => {
                let metadata = self.metadata().ok_or(Refusal::NotHere)?;
                match metadata.propose(&command).await {
                    Ok(result) => Ok(Reply::Proposed(result)),
                    Err(MetadataError::NotLeader { leader }) => Err(elsewhere(leader)),
                    Err(MetadataError::Unknown(reason)) => Err(Refusal::Unknown(reason)),
                    Err(MetadataError::Refused(e)) => Err(Refusal::Refused(e.to_string())),
                    Err(MetadataError::Unavailable(reason)) => Err(Refusal::Failed(reason)),
                }
            }
            Request::OpenMetadata => {
                self.open_metadata(Bootstrap::Join).await.map(|()| Reply::Done).map_err(Refusal::Failed)
            }
            Request::Status => Ok(Reply::Status(Box::new(self.status()))),
            // A change of members must not end in the middle because its caller went away.
            Request::Shard { shard, action } => {
                let node = self.clone();
                let acted = tokio::spawn(async move { node.act(shard, action).await });
                acted.await.unwrap_or_else(|e| Err(Refusal::Unknown(e.to_string())))
            }
        }
    }

    async fn act(&self, shard: u32, action: Action) -> Answer {
        if let Action::Open = action {
            return self
                .open_shard(shard, Bootstrap::Join)
                .await
                .map(|()| Reply::Done)
                .map_err(Refusal::Failed);
        }
        let Some(group) = self.ingester.group(ShardId(shard)) else {
            return if matches!(action, Action::Close) { Ok(Reply::Done) } else { Err(Refusal::NotHere) };
        };
        if let Action::Close = action {
            self.close_shard(shard).await;
            return Ok(Reply::Done);
        }
        if !group.is_leader() {
            return Err(elsewhere(group.leader().filter(|(n, _)| *n != self.identity.node)));
        }
        let changed = |r: Result<(), MembershipError>| r.map(|()| Reply::Done).map_err(membership);
        match action {
            Action::Status => {
                group.read_barrier().await.map_err(|e| Refusal::Failed(e.to_string()))?;
                let m = group.metrics();
                let (voters, learners) = (m.voters.into_iter().collect(), m.learners.into_iter().collect());
                Ok(Reply::Shard { leader: m.leader, voters, learners })
            }
            Action::AddLearner { node, address } => {
                let caught_up = group.add_learner(node, Member { address }, CHANGE_PATIENCE).await;
                Ok(Reply::Learner {
                    lag: match caught_up.map_err(membership)? {
                        CatchUp::Done => 0,
                        CatchUp::Lagging(lag) => lag.max(1),
                    },
                })
            }
            Action::ChangeVoters(voters) => changed(group.change_voters(voters, CHANGE_PATIENCE).await),
            Action::Remove(node) => changed(group.remove(node, CHANGE_PATIENCE).await),
            Action::Transfer(to) => match group.transfer_leadership(to, CHANGE_PATIENCE).await {
                Ok(()) => Ok(Reply::Done),
                Err(TransferError::NotLeader { leader }) => Err(elsewhere(leader)),
                Err(other) => Err(Refusal::Failed(other.to_string())),
            },
            Action::Flush => {
                let flushed = self.ingester.flush_shard(ShardId(shard)).await;
                flushed.map(|()| Reply::Done).map_err(|e| Refusal::Failed(e.to_string()))
            }
            Action::Open | Action::Close => Ok(Reply::Done),
        }
    }
}

/// Members of a group to be made, with their addresses.
fn members(state: &State, replicas: &[NodeId]) -> BTreeMap<NodeId, Member> {
    let member = |node: &NodeId| {
        let address = state.members.get(node)?.info.address.clone();
        Some((*node, Member { address }))
    };
    replicas.iter().filter_map(member).collect()
}

fn elsewhere(leader: Option<(NodeId, Member)>) -> Refusal {
    Refusal::NotLeader(leader.map(|(_, member)| member.address).filter(|a| !a.is_empty()))
}

fn membership(error: MembershipError) -> Refusal {
    match error {
        MembershipError::NotLeader { leader } => elsewhere(leader),
        other => Refusal::Failed(other.to_string()),
    }
}

async fn hand_over<S: StateMachine>(group: &Group<S>, deadline: Instant) {
    if !group.is_leader() {
        return;
    }
    let mut others: Vec<_> = group.metrics().followers.into_iter().filter(|f| f.is_voter).collect();
    others.sort_by_key(|f| f.lag);
    for other in others {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || group.transfer_leadership(other.node, left).await.is_ok() {
            return;
        }
    }
}
