//! The metadata as a process without a replica of it sees it: asked for again and again, from whichever ingester answers.

use std::{sync::Arc, time::Duration};

use sextant_proto::rpc::{Placement, PlacementView, Replica, ShardPlacement};
use sextant_replication::metadata::{INGESTER, MemberState, State};
use tokio::{sync::watch, task::JoinHandle};

use crate::{
    client::ClusterClient,
    message::{Reply, Request},
};

/// A state without news is asked for again after this time; a node that hangs is left a little later.
const WAIT: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(7);
/// Pause after a node that did not answer.
const PAUSE: Duration = Duration::from_millis(200);

/// The newest state that is known, until it is dropped. A state is never followed by an older one.
pub struct Discovery {
    peers: Vec<String>,
    state: watch::Receiver<Arc<State>>,
    placement: watch::Receiver<Arc<PlacementView>>,
    task: JoinHandle<()>,
}

impl Drop for Discovery {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Discovery {
    /// Begins to ask: `peers` first, then every ingester that the state names.
    pub fn start(peers: Vec<String>, client: ClusterClient) -> Arc<Self> {
        let (states, state) = watch::channel(Arc::new(State::default()));
        let (placements, placement) = watch::channel(Arc::new(PlacementView::default()));
        let task = tokio::spawn(follow(peers.clone(), client, states, placements));
        Arc::new(Self { peers, state, placement, task })
    }

    /// The newest state. Revision 0: none is known yet.
    pub fn state(&self) -> Arc<State> {
        self.state.borrow().clone()
    }

    /// The same, and every later one.
    pub fn watch(&self) -> watch::Receiver<Arc<State>> {
        self.state.clone()
    }

    /// Where ingesters are reached: the peers and the members.
    pub fn addresses(&self) -> Vec<String> {
        addresses(&self.peers, &self.state())
    }

    /// What keeps the shards from being used, as a person reads it; `None` when each has ingesters.
    pub fn obstacle(&self) -> Option<String> {
        let state = self.state();
        if state.cluster.is_none() {
            return Some(format!("no ingester of the cluster answers ({})", self.peers.join(", ")));
        }
        let bare = state.shards.iter().find(|(_, record)| record.replicas.is_empty());
        bare.map(|(shard, _)| format!("shard {shard} has no ingesters yet"))
    }
}

impl Placement for Discovery {
    fn shards(&self) -> watch::Receiver<Arc<PlacementView>> {
        self.placement.clone()
    }
}

pub(crate) fn addresses(peers: &[String], state: &State) -> Vec<String> {
    let mut all = peers.to_vec();
    for member in state.members.values() {
        if member.info.role == INGESTER
            && member.state != MemberState::Left
            && !all.contains(&member.info.address)
        {
            all.push(member.info.address.clone());
        }
    }
    all
}

async fn follow(
    peers: Vec<String>,
    client: ClusterClient,
    states: watch::Sender<Arc<State>>,
    placements: watch::Sender<Arc<PlacementView>>,
) {
    let mut turn = 0;
    loop {
        let known = states.borrow().clone();
        let all = addresses(&peers, &known);
        let Some(address) = all.get(turn % all.len().max(1)) else { return };
        let request = Request::State { after: known.revision, wait_ms: WAIT.as_millis() as u64 };
        match client.call(address, request, PATIENCE).await {
            Ok(Reply::State(state)) if state.revision > known.revision => {
                placements.send_if_modified(|view| {
                    let new = view_of(&state);
                    let is_new = new != **view;
                    if is_new {
                        *view = Arc::new(new);
                    }
                    is_new
                });
                states.send_replace(Arc::new(*state));
            }
            Ok(Reply::State(state)) if state.revision == known.revision => {}
            // This one is behind, or does not answer.
            _ => {
                turn += 1;
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

fn view_of(state: &State) -> PlacementView {
    let replica = |node: &sextant_replication::NodeId| {
        let member = state.members.get(node)?;
        Some(Replica { node: node.0, address: member.info.address.clone() })
    };
    let shard = |record: &sextant_replication::metadata::ShardRecord| ShardPlacement {
        replicas: record.replicas.iter().filter_map(replica).collect(),
        leader: record.replicas.first().map(|n| n.0),
    };
    PlacementView {
        shard_count: state.cluster.map_or(0, |c| c.shards),
        shards: state.shards.values().map(shard).collect(),
    }
}
