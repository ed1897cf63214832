//! Three nodes over gRPC on loopback: failover, hand-over, checkpoints for those who lag, replacement, partition, restart.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use rand::{Rng as _, SeedableRng as _};
use sextant_replication::{
    Bootstrap, CatchUp, CheckpointError, ClusterId, FaultHook, GroupId, Member, MembershipError,
    Network as _, NoAnswer, NodeId, ProposeError, ReadError, Request, TransferError,
};

use crate::{nodes::*, support::copy_dir};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_loss_of_a_leader_loses_and_doubles_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(dir.path(), 3).await;
    for n in 0..30 {
        cluster.propose(n).await;
    }
    let old = cluster.leader().await;
    cluster.stop(old).await;
    for n in 30..60 {
        cluster.propose(n).await;
    }
    assert_ne!(cluster.leader().await, old);
    cluster.reopen(old).await;
    for n in 60..70 {
        cluster.propose(n).await;
    }
    cluster.check().await;

    // All at once.
    cluster.stop_all().await;
    for id in 1..=3 {
        cluster.reopen(id).await;
    }
    cluster.propose(70).await;
    cluster.check().await;
    let leader = cluster.leader().await;
    let metrics = cluster.group(leader).metrics();
    assert_eq!((metrics.followers.len(), metrics.stalled_ms), (2, 0));
    assert!(metrics.quorum_ack_ms.is_some());
    eventually("followers have all", || {
        cluster.group(leader).metrics().followers.iter().all(|f| f.lag == 0 && f.is_voter)
    })
    .await;
    assert!(cluster.nodes[&leader].store.stats().sync_us_max > 0);
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_is_handed_over_and_reads_are_linearizable_everywhere() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(dir.path(), 3).await;
    cluster.propose(0).await;
    let mut handed_over = 0;
    for n in 1..7 {
        let (from, to) = (cluster.leader().await, cluster.follower().await);
        match cluster.group(from).transfer_leadership(NodeId(to), LONG).await {
            Ok(()) => handed_over += 1,
            // A busy machine may hold an election at the same moment.
            Err(TransferError::NotLeader { .. } | TransferError::Failed { .. }) => {}
            Err(other) => panic!("{other}"),
        }
        cluster.propose(n).await;
        for id in 1..=3 {
            let read = async {
                while let Err(e) = cluster.group(id).read_index().await {
                    assert!(!matches!(e, ReadError::Stopped(_)), "{e}");
                    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                }
            };
            tokio::time::timeout(LONG, read).await.unwrap();
            assert!(cluster.group(id).state_machine().numbers().contains(&n), "node {id} reads the past");
        }
    }
    assert!(handed_over > 2, "{handed_over} of 6");
    let follower = cluster.follower().await;
    let refused = cluster.group(follower).read_barrier().await;
    assert!(matches!(refused, Err(ReadError::NotLeader { .. })), "{refused:?}");
    let refused = cluster.group(follower).transfer_leadership(NodeId(follower), LONG).await;
    assert!(matches!(refused, Err(TransferError::NotLeader { .. })), "{refused:?}");
    let leader = cluster.leader().await;
    let unknown = cluster.group(leader).transfer_leadership(NodeId(9), LONG).await;
    assert_eq!(unknown, Err(TransferError::NotVoter(NodeId(9))));
    let barriers = (0..200).map(|_| {
        let group = cluster.group(leader).clone();
        tokio::spawn(async move { group.read_barrier().await.is_ok() })
    });
    let confirmed = futures::future::join_all(barriers).await.into_iter().filter(|r| *r.as_ref().unwrap());
    assert!(confirmed.count() > 0);
    cluster.check().await;
    cluster.stop_all().await;
}

/// Makes a checkpoint on every node that runs, and waits until the log before it is gone.
async fn checkpoint_and_purge(cluster: &Cluster) {
    for (node, index) in checkpoint_all(cluster).await {
        let group = cluster.group(node);
        eventually("the log is purged", || group.metrics().purged >= Some(index)).await;
    }
}

/// Makes a checkpoint on every node that runs; gives the nodes and the indexes.
async fn checkpoint_all(cluster: &Cluster) -> Vec<(u64, u64)> {
    let mut made = Vec::new();
    for (id, node) in &cluster.nodes {
        let (index, app) = node.group.state_machine().checkpoint();
        match node.group.checkpoint(index, app).await {
            // It got its leader's meanwhile.
            Ok(()) | Err(CheckpointError::Backwards { .. }) => {}
            Err(other) => panic!("{other}"),
        }
        made.push((*id, index));
    }
    made
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_lags_behind_the_purged_log_gets_a_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(dir.path(), 3).await;
    for n in 0..10 {
        cluster.propose(n).await;
    }
    cluster.check().await;
    let away = cluster.follower().await;
    cluster.stop(away).await;
    for n in 10..40 {
        cluster.propose(n).await;
    }
    cluster.check().await;
    checkpoint_and_purge(&cluster).await;
    for n in 40..50 {
        cluster.propose(n).await;
    }
    cluster.reopen(away).await;
    cluster.check().await;
    assert_eq!(cluster.group(away).state_machine().restored.lock().len(), 1);
    // What it took up is its own now.
    cluster.stop(away).await;
    cluster.reopen(away).await;
    cluster.check().await;
    assert_eq!(cluster.group(away).state_machine().restored.lock().len(), 1);

    // A new member, for one that is gone for good.
    checkpoint_and_purge(&cluster).await;
    let gone = cluster.follower().await;
    cluster.stop(gone).await;
    cluster.propose(50).await;
    cluster.open(4, Bootstrap::Join, None).await;
    let leader = cluster.leader().await;
    let group = cluster.group(leader).clone();
    assert_eq!(group.add_learner(NodeId(4), member(4), LONG).await, Ok(CatchUp::Done));
    assert_eq!(group.metrics().learners, [NodeId(4)]);
    let voters: std::collections::BTreeSet<_> =
        [1, 2, 3, 4].into_iter().filter(|id| *id != gone).map(NodeId).collect();
    group.change_voters(voters.clone(), LONG).await.unwrap();
    group.change_voters(voters.clone(), LONG).await.unwrap();
    assert_eq!(group.metrics().voters, voters.iter().copied().collect::<Vec<_>>());
    group.remove(NodeId(gone), LONG).await.unwrap();
    assert_eq!(group.members().len(), 3);
    let refused = cluster.group(4).change_voters([NodeId(4)].into(), LONG).await;
    assert!(matches!(refused, Err(MembershipError::NotLeader { .. })), "{refused:?}");
    // It counts: with it, another may be lost.
    let second = *cluster.nodes.keys().find(|id| **id != 4 && **id != leader).unwrap();
    cluster.stop(second).await;
    cluster.propose(51).await;
    cluster.check().await;
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_at_any_step_of_taking_up_a_checkpoint_recovers() {
    let points = [
        "checkpoint.before_rename",
        "checkpoint.after_rename",
        "checkpoint.before_install",
        "checkpoint.after_restore",
    ];
    for point in points {
        let dir = tempfile::tempdir().unwrap();
        let mut cluster = Cluster::start(dir.path(), 3).await;
        for n in 0..5 {
            cluster.propose(n).await;
        }
        cluster.check().await;
        let away = cluster.follower().await;
        cluster.stop(away).await;
        for n in 5..20 {
            cluster.propose(n).await;
        }
        cluster.check().await;
        checkpoint_and_purge(&cluster).await;
        cluster.propose(20).await;
        // What a crash at that point would leave is copied, and the step fails besides.
        let image = tempfile::tempdir().unwrap();
        let hit = Arc::new(AtomicBool::new(false));
        let hook: FaultHook = {
            let (from, to, hit) = (cluster.folder(away), image.path().to_owned(), Arc::clone(&hit));
            Arc::new(move |at| {
                if at != point {
                    return Ok(());
                }
                if !hit.swap(true, Ordering::SeqCst) {
                    copy_dir(&from, &to);
                }
                Err(std::io::Error::other("asked to fail"))
            })
        };
        cluster.open(away, Bootstrap::Join, Some(hook)).await;
        eventually(point, || hit.load(Ordering::SeqCst)).await;
        cluster.stop(away).await;
        std::fs::remove_dir_all(cluster.folder(away)).unwrap();
        copy_dir(image.path(), &cluster.folder(away));
        cluster.reopen(away).await;
        cluster.propose(21).await;
        cluster.check().await;
        cluster.stop_all().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_cut_off_gives_up_and_its_entries_make_way() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(dir.path(), 3).await;
    for n in 0..10 {
        cluster.propose(n).await;
    }
    let old = cluster.leader().await;
    cluster.isolate(old);
    let orphan = cluster.group(old).propose(payload(900, 300)).await;
    assert!(
        matches!(orphan, Err(ProposeError::Unknown(_) | ProposeError::NotLeader { .. })),
        "acknowledged without a majority: {orphan:?}"
    );
    cluster.is_uncertain(900);
    // Later ones are not even tried.
    eventually("it notices", || cluster.group(old).metrics().quorum_ack_ms.is_none_or(|ms| ms > 1300)).await;
    let refused = cluster.group(old).propose(payload(901, 300)).await;
    assert!(matches!(refused, Err(ProposeError::NotLeader { .. })), "{refused:?}");
    let read = cluster.group(old).read_barrier().await;
    assert!(matches!(read, Err(ReadError::Unconfirmed(_) | ReadError::NotLeader { .. })), "{read:?}");
    let majority_leads = || {
        let nodes = cluster.nodes.iter().filter(|(id, _)| **id != old);
        nodes.filter(|(_, n)| n.group.is_leader()).count() == 1
    };
    eventually("the others elect a leader", majority_leads).await;
    for n in 10..30 {
        cluster.propose(n).await;
    }
    cluster.heal();
    eventually("the old leader follows", || !cluster.group(old).is_leader()).await;
    cluster.propose(30).await;
    cluster.check().await;
    for node in cluster.nodes.values() {
        assert!(!node.group.state_machine().numbers().contains(&901));
    }
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_that_were_never_committed_go_with_a_checkpoint_in_their_midst() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(dir.path(), 3).await;
    for n in 0..5 {
        cluster.propose(n).await;
    }
    cluster.check().await;
    let old = cluster.leader().await;
    let base = cluster.group(old).metrics().last_log.unwrap();
    cluster.isolate(old);
    let orphans: Vec<_> = (900..904)
        .map(|n| {
            cluster.is_uncertain(n);
            let group = cluster.group(old).clone();
            tokio::spawn(async move { group.propose_alone(payload(n, 300 << 10)).await })
        })
        .collect();
    eventually("the orphans are in its log", || cluster.group(old).metrics().last_log >= Some(base + 4))
        .await;
    for orphan in orphans {
        let outcome = orphan.await.unwrap();
        assert!(matches!(outcome, Err(ProposeError::Unknown(_))), "{outcome:?}");
    }
    cluster.propose(5).await;
    cluster.stop(old).await;
    cluster.check().await;
    checkpoint_and_purge(&cluster).await;
    let purged = cluster.nodes.values().next().unwrap().group.metrics().purged.unwrap();
    assert!(purged < base + 4, "the checkpoint at {purged} is beyond the orphans at {base}");

    let image = tempfile::tempdir().unwrap();
    let (hit, copied) = (Arc::new(AtomicBool::new(false)), image.path().to_owned());
    let hook: FaultHook = {
        let (from, hit) = (cluster.folder(old), Arc::clone(&hit));
        Arc::new(move |at| {
            if at == "checkpoint.before_install" && !hit.load(Ordering::SeqCst) {
                copy_dir(&from, &copied);
                hit.store(true, Ordering::SeqCst);
            }
            Ok(())
        })
    };
    cluster.open(old, Bootstrap::Join, Some(hook)).await;
    cluster.heal();
    eventually("it gets the checkpoint", || hit.load(Ordering::SeqCst)).await;
    cluster.propose(6).await;
    cluster.check().await;
    // The same from what a crash in the middle leaves.
    cluster.stop(old).await;
    std::fs::remove_dir_all(cluster.folder(old)).unwrap();
    copy_dir(image.path(), &cluster.folder(old));
    cluster.reopen(old).await;
    cluster.propose(7).await;
    cluster.check().await;
    for node in cluster.nodes.values() {
        assert!(node.group.state_machine().numbers().iter().all(|n| *n < 900));
    }
    cluster.stop_all().await;
}

/// One thing after the other goes wrong, as drawn from a seed.
async fn misfortunes(seed: u64) {
    let dir = tempfile::tempdir().unwrap();
    let mut random = rand::rngs::StdRng::seed_from_u64(seed);
    let mut cluster = Cluster::start(dir.path(), 3).await;
    cluster.stop_all().await;
    cluster.segment_bytes = 64 << 10;
    let mut switches: BTreeMap<u64, Switch> = BTreeMap::new();
    for id in 1..=3 {
        let switch = switches.entry(id).or_default().clone();
        cluster.open(id, Bootstrap::Join, Some(switch.hook())).await;
    }
    let mut n = 0;
    for _ in 0..30 {
        for _ in 0..random.random_range(1..4) {
            n += 1;
            cluster.propose_bytes(n, random.random_range(8..4000)).await;
        }
        let id = random.random_range(1..=3);
        match random.random_range(0..6) {
            0 => {
                cluster.crash(id, &switches[&id]).await;
                for _ in 0..random.random_range(0..8) {
                    n += 1;
                    cluster.propose(n).await;
                }
                if random.random_bool(0.5) {
                    checkpoint_all(&cluster).await;
                }
                let switch = Switch::default();
                cluster.open(id, Bootstrap::Join, Some(switch.hook())).await;
                switches.insert(id, switch);
            }
            1 => {
                cluster.isolate(id);
                for _ in 0..random.random_range(1..6) {
                    n += 1;
                    cluster.propose(n).await;
                }
                cluster.heal();
            }
            2 => {
                let group = cluster.group(id);
                let (index, app) = group.state_machine().checkpoint();
                match group.checkpoint(index, app).await {
                    Ok(()) | Err(CheckpointError::Backwards { .. }) => {}
                    Err(other) => panic!("{other}"),
                }
            }
            3 => {
                let leader = cluster.leader().await;
                let _ = cluster.group(leader).transfer_leadership(NodeId(id), LONG / 20).await;
            }
            4 => {
                cluster.stop_all().await;
                for id in 1..=3 {
                    let switch = Switch::default();
                    cluster.open(id, Bootstrap::Join, Some(switch.hook())).await;
                    switches.insert(id, switch);
                }
            }
            _ => {}
        }
    }
    cluster.check().await;
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_order_of_misfortunes_loses_and_doubles_nothing() {
    let seeds = std::env::var("SEXTANT_RAFT_SEEDS").ok().and_then(|s| s.parse().ok()).unwrap_or(2);
    let first = std::env::var("SEXTANT_RAFT_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(1);
    for seed in first..first + seeds {
        eprintln!("seed {seed}");
        misfortunes(seed).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_takes_longer_than_a_heartbeat_is_not_sent_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(dir.path(), 3).await;
    cluster.propose(0).await;
    // Four heartbeat intervals, with heartbeats going on.
    cluster.wires.delay_ms.store(600, Ordering::SeqCst);
    let (leader, term) = {
        let leader = cluster.leader().await;
        (leader, cluster.group(leader).metrics().term)
    };
    cluster.propose_bytes(1, 256 << 10).await;
    cluster.check().await;
    let metrics = cluster.group(leader).metrics();
    if metrics.term == term {
        assert_eq!(cluster.wires.large_requests.load(Ordering::SeqCst), 2, "one for each follower");
    }
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_moves_is_found_at_its_new_address() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(dir.path(), 3).await;
    cluster.propose(0).await;
    let (leader, moved) = (cluster.leader().await, cluster.follower().await);
    let port = cluster.wires.ports.lock().remove(&member(moved).address).unwrap();
    let new = Member { address: "elsewhere".to_owned() };
    cluster.wires.ports.lock().insert(new.address.clone(), port);
    let group = cluster.group(leader).clone();
    group.update_address(NodeId(moved), new.clone(), LONG).await.unwrap();
    group.update_address(NodeId(moved), new.clone(), LONG).await.unwrap();
    let stranger = group.update_address(NodeId(9), new.clone(), LONG).await;
    assert!(matches!(stranger, Err(MembershipError::Invalid(_))), "{stranger:?}");
    assert!(group.members().contains(&(NodeId(moved), new)));
    for n in 1..5 {
        cluster.propose(n).await;
    }
    cluster.check().await;
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_addresses_get_distinct_answers_and_large_entries_pass() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(dir.path(), 1).await;
    cluster.stop(1).await;
    std::fs::remove_dir_all(cluster.folder(1)).unwrap();
    cluster.segment_bytes = 20 << 20;
    let members = Bootstrap::Members([1, 2].map(|id| (NodeId(id), member(id))).into());
    for id in 1..=2 {
        cluster.open(id, members.clone(), None).await;
    }
    // Larger than what tonic takes by default.
    cluster.propose_bytes(0, 9 << 20).await;
    cluster.check().await;

    let ours = cluster.network(NodeId(1), CLUSTER);
    let ask = |network, group, to, address| {
        let network: sextant_replication::transport::GrpcNetwork = network;
        async move { network.send(group, NodeId(to), &member(address), Request::ReadIndex).await.err() }
    };
    assert_eq!(ask(ours.clone(), GroupId(99), 2, 2).await, Some(NoAnswer::NoGroup(GroupId(99))));
    let other_node = NoAnswer::OtherNode { asked: NodeId(5), found: NodeId(2) };
    assert_eq!(ask(ours.clone(), SHARD, 5, 2).await, Some(other_node));
    let stranger = cluster.network(NodeId(1), ClusterId(2));
    let other_cluster = NoAnswer::OtherCluster { ours: ClusterId(2), theirs: CLUSTER };
    assert_eq!(ask(stranger, SHARD, 2, 2).await, Some(other_cluster));
    assert!(matches!(ask(ours.clone(), SHARD, 7, 7).await, Some(NoAnswer::Unreachable(_))));
    assert_eq!(cluster.nodes[&2].service.groups(), [SHARD]);
    cluster.nodes[&2].service.remove(SHARD);
    assert_eq!(ask(ours.clone(), SHARD, 2, 2).await, Some(NoAnswer::NoGroup(SHARD)));
    cluster.stop_all().await;
}
