//! Leaders that change, nodes that are gone, connections that break, callers that go away.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use sextant_proto::{
    ShardClient as _, ShardError, ShardId,
    rpc::{FixedPlacement, PlacementView, RemoteOptions, RemoteShards, Replica, ShardPlacement},
};

use crate::{nodes::*, proxy::Proxy};

const SHARD: ShardId = ShardId(0);

/// An address where nobody listens.
async fn nowhere() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().to_string()
}

fn impatient() -> RemoteOptions {
    let mut options = RemoteOptions::new(CLUSTER);
    options.write_timeout = Duration::from_millis(300);
    options.read_timeout = Duration::from_millis(300);
    options
}

#[tokio::test]
async fn a_follower_names_the_leader() {
    let cluster = Cluster::start().await;
    cluster.lead(Some(3));
    let client = cluster.client(Some(1));
    client.append(SHARD, batch(1)).await.unwrap();
    client.append(SHARD, batch(2)).await.unwrap();
    client.tenants(SHARD).await.unwrap();
    let m = client.metrics();
    // It is remembered.
    assert_eq!((m.requests(), m.redirects(), m.retries(), m.errors()), (3, 1, 0, 0));
}

#[tokio::test]
async fn without_a_hint_the_replicas_are_asked_in_turn() {
    let cluster = Cluster::start().await;
    cluster.state.lock().hints = false;
    for leader in 1..=3 {
        cluster.lead(Some(leader));
        let client = cluster.client(None);
        client.append(SHARD, batch(leader.into())).await.unwrap();
        client.stats(SHARD, tenant(), 0).await.unwrap();
        assert!(client.metrics().retries() <= 2);
        assert_eq!((client.metrics().redirects(), client.metrics().errors()), (0, 0));
    }
}

#[tokio::test]
async fn a_leader_that_is_gone_or_holds_the_shard_no_more_is_passed_over() {
    let cluster = Cluster::start().await;
    cluster.lead(Some(2));
    let mut view = cluster.view(Some(1));
    view.shards[0].replicas[0].address = nowhere().await;
    let client = RemoteShards::new(&FixedPlacement::new(view), RemoteOptions::new(CLUSTER));
    client.append(SHARD, batch(1)).await.unwrap();
    client.series(SHARD, everything()).await.unwrap();

    let client = cluster.client(Some(1));
    cluster.mood(1, Mood::NotHere);
    client.append(SHARD, batch(2)).await.unwrap();
    assert!(client.metrics().retries() >= 1);
    // What a leader cannot do now, its successor can.
    cluster.mood(2, Mood::Says(ShardError::Unavailable("the disk is full".to_owned())));
    let later = cluster.clone();
    let lead = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(50)).await;
        later.lead(Some(3));
    });
    client.append(SHARD, batch(3)).await.unwrap();
    lead.await.unwrap();
}

#[tokio::test]
async fn a_node_that_hangs_does_not_take_the_whole_time() {
    let cluster = Cluster::start().await;
    cluster.mood(1, Mood::Hangs);
    let mut options = RemoteOptions::new(CLUSTER);
    options.attempt_timeout = Duration::from_millis(100);
    let client = RemoteShards::new(&FixedPlacement::new(cluster.view(Some(1))), options);
    let later = cluster.clone();
    let lead = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(200)).await;
        later.lead(Some(2));
    });
    // Followers name the one that hangs until another is elected.
    let (appended, read) = tokio::join!(client.append(SHARD, batch(1)), client.tenants(SHARD));
    appended.unwrap();
    read.unwrap();
    lead.await.unwrap();
    // The hanging work was dropped when its attempt was over.
    let begun = cluster.begun.load(Ordering::SeqCst);
    assert!(begun >= 2);
    Cluster::until(&cluster.dropped, begun).await;
}

#[tokio::test]
async fn a_leader_that_gave_no_answer_is_not_asked_again_because_a_follower_names_it() {
    let cluster = Cluster::start().await;
    cluster.mood(1, Mood::Hangs);
    let mut options = RemoteOptions::new(CLUSTER);
    options.attempt_timeout = Duration::from_millis(50);
    options.write_timeout = Duration::from_secs(1);
    let client = RemoteShards::new(&FixedPlacement::new(cluster.view(Some(1))), options);
    let text = client.append(SHARD, batch(1)).await.unwrap_err().to_string();
    assert!(text.contains("shard 0"), "{text}");
    assert!(client.metrics().retries() >= 2);
    assert_eq!(client.metrics().redirects(), 0);
}

#[tokio::test]
async fn a_leader_that_failed_is_forgotten() {
    let cluster = Cluster::start().await;
    cluster.state.lock().hints = false;
    let client = cluster.client(Some(1));
    client.append(SHARD, batch(1)).await.unwrap();
    cluster.mood(1, Mood::NotHere);
    cluster.lead(Some(3));
    client.append(SHARD, batch(2)).await.unwrap();
    // Each of the others at most once.
    assert!(client.metrics().retries() <= 2);
}

#[tokio::test]
async fn when_the_time_has_passed_the_shard_and_the_reason_are_named() {
    let cluster = Cluster::start().await;
    cluster.lead(None);
    let client = RemoteShards::new(&FixedPlacement::new(cluster.view(None)), impatient());
    for e in [
        client.append(SHARD, batch(1)).await.unwrap_err(),
        client.select(SHARD, everything()).await.map(drop).unwrap_err(),
    ] {
        assert!(matches!(e, ShardError::Unavailable(_)));
        let text = e.to_string();
        assert!(text.contains("shard 0") && text.contains("within 300ms"), "{text}");
        assert!(text.contains("does not lead it"), "{text}");
    }
    assert_eq!(client.metrics().errors(), 2);

    let gone = Replica { node: 1, address: nowhere().await };
    let shards = vec![ShardPlacement { replicas: vec![gone.clone()], leader: None }];
    let view = PlacementView { shard_count: 3, shards };
    let client = RemoteShards::new(&FixedPlacement::new(view), impatient());
    let text = client.append(SHARD, batch(1)).await.unwrap_err().to_string();
    assert!(text.contains(&gone.address) && text.to_lowercase().contains("refused"), "{text}");
    let text = client.append(ShardId(2), batch(1)).await.unwrap_err().to_string();
    assert!(text.contains("shard 2") && text.contains("no ingester holds it"), "{text}");
    let text = client.append(ShardId(3), batch(1)).await.unwrap_err().to_string();
    assert!(text.contains("the cluster has no shard 3"), "{text}");
}

#[tokio::test]
async fn a_placement_that_becomes_known_is_used() {
    let cluster = Cluster::start().await;
    let placement = FixedPlacement::new(PlacementView::default());
    let client = RemoteShards::new(&placement, RemoteOptions::new(CLUSTER));
    assert_eq!((client.shard_count(), client.epoch(SHARD)), (0, 0));
    let append = client.append(SHARD, batch(1));
    let set = async {
        tokio::time::sleep(Duration::from_millis(30)).await;
        placement.set(PlacementView { shard_count: 1, shards: vec![] });
        tokio::time::sleep(Duration::from_millis(30)).await;
        placement.set(cluster.view(Some(1)));
    };
    let (appended, ()) = tokio::join!(append, set);
    appended.unwrap();
    assert_eq!((client.shard_count(), client.epoch(SHARD)), (1, 1));
    assert_eq!(client.metrics().requests(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_leaders_change_every_write_is_applied_once() {
    let cluster = Cluster::start().await;
    let client = cluster.client(None);
    let writers: Vec<_> = (0..8u128)
        .map(|w| {
            let client = client.clone();
            tokio::spawn(async move {
                for i in 0..50 {
                    client.append(SHARD, batch(w << 32 | i)).await.unwrap();
                }
            })
        })
        .collect();
    let moving = cluster.clone();
    let mover = tokio::spawn(async move {
        for i in 0..u64::MAX {
            // Sometimes nobody leads, sometimes nobody knows who does.
            moving.lead([Some(1), None, Some(2), Some(3)][i as usize % 4]);
            moving.state.lock().hints = i % 3 != 0;
            tokio::time::sleep(Duration::from_millis(7)).await;
        }
    });
    for w in writers {
        w.await.unwrap();
    }
    mover.abort();
    let state = cluster.state.lock();
    assert_eq!(state.applied.len(), 400);
    assert!(state.applied.values().all(|&n| n == 1));
    assert_eq!(client.metrics().errors(), 0);
}

/// A client for which node 1, the leader, is behind a proxy.
async fn behind_proxy(cluster: &Cluster) -> (RemoteShards, Proxy) {
    let mut view = cluster.view(Some(1));
    let proxy = Proxy::to(view.shards[0].replicas[0].address.clone()).await;
    view.shards[0].replicas[0].address = proxy.address.clone();
    // Followers name that address too.
    cluster.state.lock().addresses[0] = proxy.address.clone();
    (RemoteShards::new(&FixedPlacement::new(view), RemoteOptions::new(CLUSTER)), proxy)
}

#[tokio::test]
async fn a_connection_cut_after_the_write_was_applied_leaves_one_write() {
    for moves in [false, true] {
        let cluster = Cluster::start().await;
        let (client, proxy) = behind_proxy(&cluster).await;
        client.append(SHARD, batch(1)).await.unwrap();
        let (cut, leader) = (proxy.clone(), cluster.clone());
        cluster.state.lock().after_apply = Some(Box::new(move || {
            cut.cut();
            if moves {
                tokio::spawn(async move { leader.lead(Some(2)) });
            }
            true
        }));
        let outcome = client.append(SHARD, batch(2)).await.unwrap();
        assert!(outcome.duplicate, "the first attempt was not applied");
        let state = cluster.state.lock();
        assert_eq!((state.applied.len(), state.applied[&2]), (2, 1));
        assert!(state.appends >= 3 && client.metrics().retries() >= 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_breaks_off_is_read_again_from_the_beginning() {
    let cluster = Cluster::start().await;
    let set = set_of(50_000, 10);
    cluster.state.lock().set = set.clone();
    let (client, proxy) = behind_proxy(&cluster).await;
    for bytes in [3 << 20, 0] {
        proxy.cut_after(bytes);
        let before = client.metrics().retries();
        assert_same(&client.select(SHARD, everything()).await.unwrap(), &set);
        assert!(client.metrics().retries() > before);
    }
    proxy.cut_after(2 << 20);
    let found = client.find(SHARD, everything()).await.unwrap();
    assert_same(&found[1].read(0..50_000).await.unwrap(), &set);
}

#[tokio::test]
async fn a_caller_that_goes_away_stops_the_work() {
    let cluster = Cluster::start().await;
    let client = cluster.client(Some(1));
    // While the barrier, an append, and a read behind the barrier are under way.
    for (hangs, append) in [(true, false), (true, true), (false, false)] {
        cluster.mood(1, if hangs { Mood::Hangs } else { Mood::Well });
        cluster.state.lock().reads_hang = !hangs;
        let n = cluster.begun.load(Ordering::SeqCst) + 1;
        let client = client.clone();
        let call = tokio::spawn(async move {
            match append {
                true => client.append(SHARD, batch(1)).await.map(drop),
                false => client.select(SHARD, everything()).await.map(drop),
            }
        });
        Cluster::until(&cluster.begun, n).await;
        assert_eq!(cluster.dropped.load(Ordering::SeqCst), n - 1);
        call.abort();
        Cluster::until(&cluster.dropped, n).await;
    }
}

#[tokio::test]
async fn a_read_whose_time_has_passed_stops() {
    let cluster = Cluster::start().await;
    cluster.state.lock().reads_hang = true;
    let client = RemoteShards::new(&FixedPlacement::new(cluster.view(Some(1))), impatient());
    let e = client.select(SHARD, everything()).await.map(drop).unwrap_err();
    assert!(matches!(e, ShardError::Unavailable(_)), "{e}");
    Cluster::until(&cluster.dropped, 1).await;
    // The node is well: the next read is answered.
    cluster.state.lock().reads_hang = false;
    cluster.client(Some(1)).select(SHARD, everything()).await.unwrap();
}

#[tokio::test]
async fn channels_can_be_made_by_whoever_knows_how_and_are_made_anew() {
    let cluster = Cluster::start().await;
    let made = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let counter = made.clone();
    let mut options = RemoteOptions::new(CLUSTER);
    options.connect = Arc::new(move |address| {
        counter.fetch_add(1, Ordering::SeqCst);
        Ok(sextant_proto::rpc::endpoint("http", address)?.connect_lazy())
    });
    let client = RemoteShards::new(&FixedPlacement::new(cluster.view(Some(1))), options);
    for i in 0..3 {
        client.append(SHARD, batch(i)).await.unwrap();
    }
    assert_eq!(made.load(Ordering::SeqCst), 1);
    client.reconnect();
    client.append(SHARD, batch(9)).await.unwrap();
    assert_eq!(made.load(Ordering::SeqCst), 2);

    let mut options = impatient();
    options.connect = Arc::new(|_| Err("no certificate".to_owned()));
    let client = RemoteShards::new(&FixedPlacement::new(cluster.view(Some(1))), options);
    let text = client.append(SHARD, batch(1)).await.unwrap_err().to_string();
    assert!(text.contains("no certificate"), "{text}");
}
