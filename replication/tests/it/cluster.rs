//! Three members over an in-process network: failover, catching up, and a leader whose entries were not committed.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use parking_lot::Mutex;
use sextant_replication::{
    Bootstrap, Group, GroupId, GroupOptions, Handler as _, LogStore, Member, Network, NoAnswer, NodeId,
    ProposeError, Reply, Request,
};

use crate::support::*;

/// Calls the other groups directly, unless either side is cut off.
#[derive(Default)]
struct Wires {
    groups: Mutex<BTreeMap<NodeId, Group<Recorder>>>,
    cut: Mutex<BTreeSet<NodeId>>,
}

struct Port {
    wires: Arc<Wires>,
    from: NodeId,
}

impl Port {
    fn reach(&self, to: NodeId) -> Result<Group<Recorder>, NoAnswer> {
        let cut = self.wires.cut.lock();
        if cut.contains(&to) || cut.contains(&self.from) {
            return Err(NoAnswer::Unreachable("cut off".to_owned()));
        }
        self.wires.groups.lock().get(&to).cloned().ok_or_else(|| NoAnswer::Unreachable("down".to_owned()))
    }
}

#[async_trait]
impl Network for Port {
    async fn send(&self, _: GroupId, to: NodeId, _: &Member, request: Request) -> Result<Reply, NoAnswer> {
        self.reach(to)?.handle(request).await
    }
}

struct Node {
    store: LogStore,
    group: Group<Recorder>,
}

async fn start(wires: &Arc<Wires>, dir: &Path, id: NodeId) -> Node {
    let member = |n: u64| (NodeId(n), Member { address: format!("node-{n}") });
    let bootstrap = match id {
        NodeId(1) => Bootstrap::Members((1..=3).map(member).collect()),
        _ => Bootstrap::Join,
    };
    let network = Arc::new(Port { wires: Arc::clone(wires), from: id });
    let group_options =
        GroupOptions { bootstrap, network, heartbeat_interval_ms: 50, ..GroupOptions::default() };
    let store = LogStore::open(options(&dir.join(id.to_string()))).unwrap();
    let group = Group::open(&store, GROUP, id, Arc::default(), group_options).await.unwrap();
    wires.groups.lock().insert(id, group.clone());
    Node { store, group }
}

async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("never: {what}");
}

/// Proposes at whoever leads. Only outcomes that exclude an application are tried again.
async fn propose(nodes: &BTreeMap<NodeId, Node>, n: u64) {
    for _ in 0..1000 {
        for node in nodes.values().filter(|node| node.group.is_leader()) {
            let proposal = node.group.propose(numbered(n, 300));
            match tokio::time::timeout(Duration::from_secs(10), proposal).await {
                Ok(Ok(_)) => return,
                Ok(Err(ProposeError::NotLeader { .. })) => {}
                other => panic!("payload {n}: {other:?}"),
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("nobody takes payload {n}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_agree_across_the_loss_of_the_leader() {
    let dir = tempfile::tempdir().unwrap();
    let wires = Arc::new(Wires::default());
    let mut nodes = BTreeMap::new();
    for id in [3, 2, 1].map(NodeId) {
        nodes.insert(id, start(&wires, dir.path(), id).await);
    }
    for n in 0..40 {
        propose(&nodes, n).await;
    }
    let leader = nodes.values().find(|n| n.group.is_leader()).unwrap().group.node();
    let follower = nodes.values().find(|n| !n.group.is_leader()).unwrap();
    eventually("a follower knows the leader", || follower.group.leader().is_some()).await;
    let (known, member) = follower.group.leader().unwrap();
    assert_eq!((known, member.address), (leader, format!("node-{leader}")));
    let refused = follower.group.propose("99 x".into()).await;
    assert!(
        matches!(&refused, Err(ProposeError::NotLeader { leader: Some((l, _)) }) if *l == leader),
        "{refused:?}"
    );

    // The leader is cut off with a payload that it cannot commit.
    wires.cut.lock().insert(leader);
    let orphan = tokio::spawn({
        let group = nodes[&leader].group.clone();
        async move { group.propose(numbered(900, 300)).await }
    });
    let orphan_log = nodes[&leader].group.clone();
    eventually("the orphan is in the old leader's log", || {
        let m = orphan_log.metrics();
        m.last_log.unwrap_or(0) > m.last_applied
    })
    .await;
    let old = nodes.remove(&leader).unwrap();
    for n in 40..80 {
        propose(&nodes, n).await;
    }
    // Back again, it must give up its entry for those of the new leader.
    wires.cut.lock().clear();
    nodes.insert(leader, old);
    let outcome = orphan.await.unwrap();
    assert!(matches!(outcome, Err(ProposeError::NotLeader { .. } | ProposeError::Unknown(_))), "{outcome:?}");
    let expected: Vec<_> = (0..80).collect();
    for node in nodes.values() {
        eventually("all members have all", || node.group.state_machine().numbers() == expected).await;
    }

    // A member is away, the others go on and purge only what it has; then it comes back with its disk.
    let away = nodes.values().find(|n| !n.group.is_leader()).unwrap().group.node();
    wires.groups.lock().remove(&away);
    let node = nodes.remove(&away).unwrap();
    close(node.store, node.group).await;
    for n in 80..120 {
        propose(&nodes, n).await;
    }
    nodes.insert(away, start(&wires, dir.path(), away).await);
    let expected: Vec<_> = (0..120).collect();
    for node in nodes.values() {
        eventually("the returned member has all", || node.group.state_machine().numbers() == expected).await;
    }

    // Each member makes its own checkpoint; everybody restarts.
    for node in nodes.values() {
        node.group.checkpoint(node.group.last_applied(), "120".into()).await.unwrap();
    }
    propose(&nodes, 120).await;
    for node in nodes.values() {
        eventually("all have the last", || node.group.state_machine().numbers().last() == Some(&120)).await;
    }
    wires.groups.lock().clear();
    for node in std::mem::take(&mut nodes).into_values() {
        close(node.store, node.group).await;
    }
    for id in [1, 2, 3].map(NodeId) {
        nodes.insert(id, start(&wires, dir.path(), id).await);
    }
    propose(&nodes, 121).await;
    for node in nodes.values() {
        eventually("restarted members agree", || node.group.state_machine().numbers() == [120, 121]).await;
    }
    wires.groups.lock().clear();
    for node in nodes.into_values() {
        close(node.store, node.group).await;
    }
}
