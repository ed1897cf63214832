//! Recycled files: the log stays small, and old records stay dead.

use std::fs;

use sextant_replication::{
    Bootstrap, Group, GroupId, GroupOptions, LogStore, ProposeError, StoreOptions, SyncMode,
};

use crate::support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_records_never_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let (store, group) = open(dir.path()).await;
    let trial = tempfile::tempdir().unwrap();
    let mut covered = None;
    for n in 0..600 {
        // Equal sizes: records of different uses of a file begin at the same offsets.
        let (index, _) = group.propose(numbered(n, 1000)).await.unwrap();
        if n % 25 == 24 {
            group.checkpoint(index, n.to_string().into()).await.unwrap();
            covered = Some(n);
        }
        if n % 7 == 0 {
            let image = trial.path().join(n.to_string());
            copy_dir(dir.path(), &image);
            let (store, group) = open(&image).await;
            let restored = group.state_machine().restored.lock().clone();
            assert_eq!(
                restored.map(|(_, app)| String::from_utf8(app).unwrap()),
                covered.map(|c| c.to_string())
            );
            let expected: Vec<_> = (covered.map_or(0, |c| c + 1)..=n).collect();
            assert_eq!(group.state_machine().numbers(), expected, "after payload {n}");
            close(store, group).await;
            fs::remove_dir_all(image).unwrap();
        }
    }
    let stats = store.stats();
    assert!(stats.recycled >= 15, "{stats:?}");
    assert!(stats.allocated <= 4, "files are recycled, not created: {stats:?}");
    assert!(stats.segments <= 3, "{stats:?}");
    close(store, group).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_without_a_checkpoint_pins_the_log_and_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let bounded = StoreOptions { log_bytes_max: 4 * u64::from(SEGMENT_BYTES), ..options(dir.path()) };
    let sync = SyncMode::Relaxed { interval_ms: 1 };
    // Every start in relaxed mode takes a new term.
    for term in 1..4 {
        let store = LogStore::open(StoreOptions { sync, ..bounded.clone() }).unwrap();
        let idle = open_group(&store, GroupId(1)).await;
        assert_eq!(idle.metrics().term, term);
        close(store, idle).await;
    }
    let store = LogStore::open(bounded).unwrap();
    let idle = open_group(&store, GroupId(1)).await;
    let busy = open_group(&store, GroupId(2)).await;
    idle.propose(numbered(0, 10)).await.unwrap();
    let mut n = 0;
    let refused = loop {
        match busy.propose(numbered(n, 1000)).await {
            Ok((index, _)) => busy.checkpoint(index, n.to_string().into()).await.unwrap(),
            Err(e) => break e,
        }
        n += 1;
        assert!(n < 1000, "the bound has no effect: {:?}", store.stats());
    };
    assert!(matches!(refused, ProposeError::LogFull { pinned_by: Some(GroupId(1)), .. }), "{refused}");
    // A seal still goes through, and the checkpoint that follows it gives the space back.
    let (index, _) = idle.propose_alone(numbered(1, 10)).await.unwrap();
    idle.checkpoint(index, "idle".into()).await.unwrap();
    for _ in 0..100 {
        if store.stats().segments <= 2 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert!(store.stats().segments <= 2, "{:?}", store.stats());
    // Meanwhile the others use every file again, also those that the idle group's records were in.
    for n in n..n + 200 {
        let (index, _) = busy.propose(numbered(n, 1000)).await.unwrap();
        if n % 10 == 0 {
            busy.checkpoint(index, n.to_string().into()).await.unwrap();
        }
    }
    assert!(store.stats().recycled > 5, "{:?}", store.stats());
    idle.shutdown().await;
    busy.shutdown().await;
    store.close().unwrap();

    // The idle group's vote and position outlived every segment that they were first written to.
    let store = LogStore::open(options(dir.path())).unwrap();
    let join = GroupOptions { bootstrap: Bootstrap::Join, ..GroupOptions::default() };
    let idle = Group::<Recorder>::open(&store, GroupId(1), NODE, Default::default(), join).await.unwrap();
    assert!(idle.is_leader());
    assert_eq!(idle.metrics().term, 3);
    assert_eq!(idle.state_machine().restored.lock().clone().unwrap().0, index);
    let (next, _) = idle.propose(numbered(2, 10)).await.unwrap();
    assert!(next > index);
    idle.shutdown().await;
    store.close().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_segment_size_may_change_between_runs() {
    let dir = tempfile::tempdir().unwrap();
    let mut expected = Vec::new();
    for (run, segment_bytes) in [64 << 10, 32 << 10, 256 << 10, 32 << 10].into_iter().enumerate() {
        let store = LogStore::open(StoreOptions { segment_bytes, ..options(dir.path()) }).unwrap();
        let group = open_group(&store, GROUP).await;
        assert_eq!(group.state_machine().numbers(), expected);
        for n in 0..30 {
            let n = run as u64 * 100 + n;
            group.propose(numbered(n, segment_bytes as usize / 20)).await.unwrap();
            expected.push(n);
        }
        close(store, group).await;
    }
}
