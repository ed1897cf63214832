//! Proposing, batching, groups beside each other, checkpoints, and refusals.

use std::{fs, sync::Arc, time::Instant};

use bytes::Bytes;
use futures::future::join_all;
use sextant_replication::{
    CheckpointError, Group, GroupId, GroupOptions, LogStore, OpenError, ProposeError, StoreError,
    StoreOptions,
};

use crate::support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_acknowledged_is_applied_now_and_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (store, group) = open(dir.path()).await;
    assert!(group.is_leader());
    for n in 0..50 {
        let (index, before) = group.propose(numbered(n, 100)).await.unwrap();
        assert_eq!(before, n);
        assert!(group.last_applied() >= index);
    }
    let expected = group.state_machine().payloads();
    close(store, group).await;

    let (store, group) = open(dir.path()).await;
    // Before anything is proposed: `open` itself replays.
    assert_eq!(group.state_machine().payloads(), expected);
    let (_, before) = group.propose("50 more".into()).await.unwrap();
    assert_eq!(before, 50);
    close(store, group).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn opening_is_fast() {
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..3 {
        let started = Instant::now();
        let store = LogStore::open(StoreOptions::new(dir.path())).unwrap();
        let group = open_group(&store, GROUP).await;
        // The promise is 200 ms; the tests' machine may be busy.
        assert!(started.elapsed().as_millis() < 2000, "{:?}", started.elapsed());
        group.propose("0 x".into()).await.unwrap();
        close(store, group).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_proposals_share_entries_and_a_lone_one_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let (store, group) = open(dir.path()).await;
    let before = store.stats();
    let proposals = (0..400).map(|n| {
        let (group, payload) = (group.clone(), numbered(n, 50));
        tokio::spawn(async move {
            match n % 40 {
                0 => group.propose_alone(payload).await.unwrap(),
                _ => group.propose(payload).await.unwrap(),
            }
        })
    });
    let outputs: Vec<_> = join_all(proposals).await.into_iter().map(Result::unwrap).collect();
    let applied = group.state_machine().applied.lock().clone();
    assert_eq!(applied.len(), 400);
    assert!(applied.is_sorted_by_key(|(index, _)| *index));
    for (n, (index, position)) in outputs.into_iter().enumerate() {
        assert_eq!(applied[position as usize], (index, numbered(n as u64, 50)));
        if n % 40 == 0 {
            assert_eq!(applied.iter().filter(|(i, _)| *i == index).count(), 1, "payload {n} is not alone");
        }
    }
    let syncs = store.stats().syncs - before.syncs;
    assert!(syncs < 200, "{syncs} syncs for 400 payloads");
    close(store, group).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_never_outgrows_its_segment() {
    let dir = tempfile::tempdir().unwrap();
    let (store, group) = open(dir.path()).await;
    // Far more bytes at once than the largest record of such small segments, in sizes that leave all kinds of remainders.
    let proposals = (0..500).map(|n| {
        let (group, payload) = (group.clone(), numbered(n, (n * 37 % 3000) as usize));
        tokio::spawn(async move { group.propose(payload).await })
    });
    for result in join_all(proposals).await {
        result.unwrap().unwrap();
    }
    let applied = group.state_machine().payloads();
    assert_eq!(applied.len(), 500);
    close(store, group).await;
    let (store, group) = open(dir.path()).await;
    assert_eq!(group.state_machine().payloads(), applied);
    close(store, group).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_groups_share_one_log() {
    let dir = tempfile::tempdir().unwrap();
    let store = LogStore::open(options(dir.path())).unwrap();
    let groups = join_all((0..20).map(|id| open_group(&store, GroupId(id)))).await;
    let before = store.stats();
    join_all(groups.iter().map(|group| async move {
        for n in 0..30 {
            group.propose(numbered(group.id().0 * 1000 + n, 200)).await.unwrap();
        }
    }))
    .await;
    let (after, proposals) = (store.stats(), 20 * 30);
    assert!(after.syncs - before.syncs < proposals / 2, "{} syncs", after.syncs - before.syncs);
    join_all(groups.iter().map(Group::shutdown)).await;
    store.close().unwrap();

    let store = LogStore::open(options(dir.path())).unwrap();
    assert_eq!(store.groups().len(), 20);
    for id in 0..20 {
        let group = open_group(&store, GroupId(id)).await;
        assert_eq!(group.state_machine().numbers(), (0..30).map(|n| id * 1000 + n).collect::<Vec<_>>());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checkpoint_replaces_the_log_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let (store, group) = open(dir.path()).await;
    let mut indexes = Vec::new();
    for n in 0..20 {
        indexes.push(group.propose(numbered(n, 100)).await.unwrap().0);
    }
    let early = group.checkpoint(indexes[19] + 1, Bytes::new()).await;
    assert!(matches!(early, Err(CheckpointError::NotApplied { .. })), "{early:?}");
    group.checkpoint(indexes[9], "state at 9".into()).await.unwrap();
    assert_eq!(group.metrics().purged, Some(indexes[9]));
    let back = group.checkpoint(indexes[5], Bytes::new()).await;
    assert!(matches!(back, Err(CheckpointError::Backwards { .. })), "{back:?}");
    group.checkpoint(indexes[9], "state at 9, again".into()).await.unwrap();
    close(store, group).await;

    for _ in 0..2 {
        let (store, group) = open(dir.path()).await;
        let restored = group.state_machine().restored.lock().clone();
        assert_eq!(restored, Some((indexes[9], b"state at 9, again".to_vec())));
        assert_eq!(group.state_machine().numbers(), (10..20).collect::<Vec<_>>());
        close(store, group).await;
    }

    // Everything is in the checkpoint: nothing is left to apply, and the group goes on behind it.
    let (store, group) = open(dir.path()).await;
    group.checkpoint(group.last_applied(), "all".into()).await.unwrap();
    close(store, group).await;
    let (store, group) = open(dir.path()).await;
    assert_eq!(group.state_machine().payloads(), Vec::<String>::new());
    group.propose("20 next".into()).await.unwrap();
    close(store, group).await;
    let (store, group) = open(dir.path()).await;
    assert_eq!(group.state_machine().numbers(), [20]);
    close(store, group).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_or_damaged_checkpoint_is_an_error_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let (store, group) = open(dir.path()).await;
    let (index, _) = group.propose("0 x".into()).await.unwrap();
    group.checkpoint(index, "app state".into()).await.unwrap();
    close(store, group).await;
    let path = dir.path().join("checkpoint-7");
    let good = fs::read(&path).unwrap();
    let try_open = async || {
        let store = LogStore::open(options(dir.path())).unwrap();
        let opened =
            Group::<Recorder>::open(&store, GROUP, NODE, Arc::default(), GroupOptions::default()).await;
        opened.err().map(|e| (e.to_string(), e))
    };
    for at in 0..good.len() {
        let mut bytes = good.clone();
        bytes[at] ^= 4;
        fs::write(&path, bytes).unwrap();
        let (text, error) = try_open().await.unwrap_or_else(|| panic!("byte {at} may be anything"));
        assert!(matches!(error, OpenError::Checkpoint { .. }) && text.contains("checkpoint-7"), "{text}");
    }
    fs::write(&path, &good[..good.len() - 1]).unwrap();
    assert!(matches!(try_open().await, Some((_, OpenError::Checkpoint { .. }))));
    fs::remove_file(&path).unwrap();
    let (text, error) = try_open().await.unwrap();
    assert!(matches!(error, OpenError::CheckpointMissing { .. }) && text.contains("checkpoint-7"), "{text}");
    fs::write(&path, good).unwrap();
    assert!(try_open().await.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_served_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (store, group) = open(dir.path()).await;
    let huge = group.propose(Bytes::from(vec![0; SEGMENT_BYTES as usize])).await;
    assert!(matches!(huge, Err(ProposeError::TooLarge { .. })), "{huge:?}");
    // The largest payload that is not refused is also written and read back.
    let Err(ProposeError::TooLarge { max, .. }) = huge else { unreachable!() };
    group.propose(numbered(0, max)).await.unwrap();

    let twice = Group::<Recorder>::open(&store, GROUP, NODE, Arc::default(), GroupOptions::default()).await;
    assert!(matches!(twice.err(), Some(OpenError::AlreadyOpen(GROUP))));
    let second = LogStore::open(options(dir.path())).err().unwrap();
    let (text, pid) = (second.to_string(), std::process::id().to_string());
    assert!(text.contains(dir.path().to_str().unwrap()) && text.contains(&pid), "{text}");
    assert!(matches!(second, StoreError::InUse { .. }));

    group.shutdown().await;
    assert_eq!(group.propose("0 late".into()).await, Err(ProposeError::ShutDown));
    assert!(!group.is_running());
    // Shutting the group down gives it free; the old handle may still exist.
    let again = open_group(&store, GROUP).await;
    assert_eq!(again.state_machine().numbers(), [0]);
    close(store, again).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panicking_state_machine_stops_its_group_only() {
    let dir = tempfile::tempdir().unwrap();
    let (store, group) = open(dir.path()).await;
    let other = open_group(&store, GroupId(8)).await;
    let result = group.propose("panic".into()).await;
    assert!(matches!(result, Err(ProposeError::Unknown(_))), "{result:?}");
    let result = group.propose("0 x".into()).await;
    assert!(matches!(result, Err(ProposeError::Stopped(_))), "{result:?}");
    assert!(!group.is_running());
    other.propose("0 x".into()).await.unwrap();
    group.shutdown().await;
    other.shutdown().await;
    store.close().unwrap();
}
