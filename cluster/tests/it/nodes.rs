//! From nothing to a cluster, a lost node, a replaced one.

use sextant_cluster::{RemoteAdmin, status};
use sextant_replication::metadata::{Command, MemberState, ShardAdmin};
use tokio::net::TcpListener;

use crate::support::{Node, Outside, eventually, sockets};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_make_one_cluster_and_outlive_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let objects = dir.path().join("objects");
    std::fs::create_dir_all(&objects).unwrap();
    let folder = |i: usize| dir.path().join(format!("node-{i}"));
    let (sockets, peers) = sockets(3).await;
    let outside = Outside::start(&peers);
    let mut nodes = Vec::new();
    for (i, socket) in sockets.into_iter().enumerate() {
        nodes.push(Node::start(&folder(i), &objects, socket, &peers, "").await);
    }
    outside.ready().await;
    for t in 0..20 {
        outside.write(t as u32 % 2, t as u128 + 1, t, t as usize).await;
        // The same again, as a retry would be.
        outside.write(t as u32 % 2, t as u128 + 1, t, t as usize).await;
    }
    assert_eq!(outside.read(0, 0).await, (0..20).step_by(2).collect::<Vec<i64>>());
    let seen = status::collect(&outside.discovery, &outside.client).await;
    assert_eq!((seen.members.len(), seen.shards.len(), seen.replication), (3, 2, 3));
    assert!(seen.members.iter().all(|m| m.reachable && m.state == MemberState::Active && m.holds == 2));
    assert!(seen.metadata_leader.is_some());
    let preferred: std::collections::BTreeSet<_> = seen.shards.iter().map(|s| s.replicas[0]).collect();
    assert_eq!(preferred.len(), 2, "leaders are spread");

    // The leader of shard 0 goes without a word, and comes back at the same address.
    let leader = seen.shards[0].leader.unwrap();
    let gone = nodes.iter().position(|n| n.id() == leader).unwrap();
    nodes.remove(gone).stop().await;
    for t in 20..40 {
        outside.write(t as u32 % 2, t as u128 + 1, t, t as usize).await;
    }
    assert_eq!(outside.read(0, 0).await.len(), 20);
    let admin = RemoteAdmin::new(outside.discovery.clone(), outside.client.clone());
    admin.flush(0).await.unwrap();
    admin.flush(1).await.unwrap();
    let socket = TcpListener::bind(&peers[gone]).await.unwrap();
    nodes.push(Node::start(&folder(gone), &objects, socket, &peers, "").await);
    let back = nodes.last().unwrap();
    assert_eq!(back.id(), leader, "the folder says who it is");
    let shard = sextant_proto::ShardId(0);
    eventually("the node that was away has what it missed", || {
        back.ingester.group(shard).is_some_and(|g| g.state_machine().head().epoch() == 2)
    })
    .await;
    outside.write(0, 1000, 1000, 1).await;
    let mut found = outside.read(1, 0).await;
    found.sort_unstable();
    assert!(found.is_empty() || found == (1..40).step_by(2).collect::<Vec<_>>(), "{found:?}");
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drained_node_gives_its_shards_to_a_new_one() {
    let dir = tempfile::tempdir().unwrap();
    let objects = dir.path().join("objects");
    std::fs::create_dir_all(&objects).unwrap();
    let (mut all, addresses) = sockets(4).await;
    let peers = addresses[..3].to_vec();
    let outside = Outside::start(&peers);
    let late = all.pop().unwrap();
    let mut nodes = Vec::new();
    for (i, socket) in all.into_iter().enumerate() {
        nodes.push(Node::start(&dir.path().join(format!("{i}")), &objects, socket, &peers, "").await);
    }
    outside.ready().await;
    for t in 0..10 {
        outside.write(t as u32 % 2, t as u128 + 1, t, t as usize).await;
    }
    nodes.push(Node::start(&dir.path().join("late"), &objects, late, &peers, "").await);
    let (old, new) = (nodes[0].id(), nodes[3].id());
    eventually("the new node is active", || {
        outside.discovery.state().members.get(&new).is_some_and(|m| m.state == MemberState::Active)
    })
    .await;
    let drain = Command::SetMemberState { node: old, state: MemberState::Draining };
    let within = std::time::Duration::from_secs(10);
    outside.client.propose(&outside.discovery.addresses(), &drain, within).await.unwrap();
    let mut t = 10;
    loop {
        outside.write(t as u32 % 2, t as u128 + 1, t, t as usize).await;
        t += 1;
        let state = outside.discovery.state();
        if state.members.get(&old).is_some_and(|m| m.state == MemberState::Left) {
            break;
        }
        assert!(t < 3000, "the drain does not end: {state:?}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let state = outside.discovery.state();
    assert!(state.shards.values().all(|s| s.replicas.len() == 3 && s.replicas.contains(&new)), "{state:?}");
    let mut found = outside.read(0, 0).await;
    found.extend(outside.read(1, 0).await);
    found.sort_unstable();
    assert_eq!(found, (0..t).collect::<Vec<_>>());
    let metadata = |n: &Node| n.node.metadata_metrics();
    eventually("the metadata is on the new node and not on the old one", || {
        let voters = nodes[1..].iter().find_map(|n| {
            let m = metadata(n)?;
            (m.leader == Some(n.id())).then_some(m.voters)
        });
        voters.is_some_and(|v| v.len() == 3 && v.contains(&new) && !v.contains(&old))
    })
    .await;
    nodes.remove(0).stop().await;
    let admin = RemoteAdmin::new(outside.discovery.clone(), outside.client.clone());
    eventually("the old node's shards are closed", || true).await;
    assert!(!admin.status(0).await.unwrap().voters.contains(&old));
    outside.write(0, 1_000_000, 1_000_000, 1).await;
    for node in nodes {
        node.stop().await;
    }
}
