//! Failing writes, failing syncs, full disks, relaxed syncs.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use sextant_replication::{
    CheckpointError, Group, GroupOptions, LogStore, OpenError, ProposeError, StoreError, StoreOptions,
    SyncMode,
};

use crate::support::*;

fn failing(at: &'static str, armed: &Arc<AtomicBool>) -> sextant_replication::FaultHook {
    let armed = Arc::clone(armed);
    hook(move |point| match point == at && armed.load(Ordering::SeqCst) {
        true => Err(io::Error::other("injected")),
        false => Ok(()),
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_failed_write_or_sync_nothing_is_taken_until_reopened() {
    for point in ["log.write", "log.sync", "log.after_sync"] {
        let dir = tempfile::tempdir().unwrap();
        let armed = Arc::new(AtomicBool::new(false));
        let with_fault = StoreOptions { fault_hook: failing(point, &armed), ..options(dir.path()) };
        let store = LogStore::open(with_fault).unwrap();
        let group = open_group(&store, GROUP).await;
        for n in 0..5 {
            group.propose(numbered(n, 100)).await.unwrap();
        }
        armed.store(true, Ordering::SeqCst);
        let failed = group.propose(numbered(5, 100)).await;
        assert!(matches!(&failed, Err(ProposeError::Unknown(why)) if why.contains("injected")), "{failed:?}");
        armed.store(false, Ordering::SeqCst);
        // The fault is over, but the kernel may have forgotten the pages: no more writes.
        let later = group.propose(numbered(6, 100)).await;
        assert!(matches!(later, Err(ProposeError::Stopped(_))), "{later:?}");
        assert!(store.stats().poisoned.is_some_and(|why| why.contains("injected")));
        assert!(matches!(store.sync().await, Err(StoreError::Poisoned(_))));
        group.shutdown().await;
        let refused =
            Group::<Recorder>::open(&store, GROUP, NODE, Arc::default(), GroupOptions::default()).await;
        assert!(matches!(refused.err(), None | Some(OpenError::Raft { .. } | OpenError::Store(_))));
        assert!(store.close().is_err());

        let (store, group) = open(dir.path()).await;
        let numbers = group.state_machine().numbers();
        // The sixth was never acknowledged: it may be there or not, the five must be.
        assert!(
            numbers == (0..5).collect::<Vec<_>>() || numbers == (0..6).collect::<Vec<_>>(),
            "{numbers:?}"
        );
        group.propose(numbered(6, 100)).await.unwrap();
        close(store, group).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_between_two_segments_is_recovered_from() {
    let dir = tempfile::tempdir().unwrap();
    let armed = Arc::new(AtomicBool::new(true));
    let with_fault = StoreOptions { fault_hook: failing("log.recycle", &armed), ..options(dir.path()) };
    let store = LogStore::open(with_fault).unwrap();
    let group = open_group(&store, GROUP).await;
    let mut n = 0;
    while group.propose(numbered(n, 1000)).await.is_ok() {
        n += 1;
    }
    assert!(n > 10 && store.stats().poisoned.is_some());
    group.shutdown().await;
    assert!(store.close().is_err());
    // The segment has its end record, its successor does not exist.
    let (store, group) = open(dir.path()).await;
    assert_eq!(group.state_machine().numbers(), (0..n).collect::<Vec<_>>());
    for more in n..2 * n {
        group.propose(numbered(more, 1000)).await.unwrap();
    }
    close(store, group).await;
    let (store, group) = open(dir.path()).await;
    assert_eq!(group.state_machine().numbers(), (0..2 * n).collect::<Vec<_>>());
    close(store, group).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_proposals_and_leaves_the_group_alive() {
    let dir = tempfile::tempdir().unwrap();
    let full = Arc::new(AtomicBool::new(false));
    let with_fault = StoreOptions { fault_hook: failing("log.allocate", &full), ..options(dir.path()) };
    let store = LogStore::open(with_fault).unwrap();
    let group = open_group(&store, GROUP).await;
    fill_up(&store, &group, &full).await;
    store.close().unwrap();
}

/// Fills the disk, finds the log readable and the group alive, makes room, goes on.
async fn fill_up(store: &LogStore, group: &Group<Recorder>, full: &Arc<AtomicBool>) {
    group.propose(numbered(0, 1000)).await.unwrap();
    full.store(true, Ordering::SeqCst);
    let mut n = 1;
    let refused = loop {
        match group.propose(numbered(n, 1000)).await {
            Ok(_) => n += 1,
            Err(e) => break e,
        }
        assert!(n < 10_000, "the disk is not full: {:?}", store.stats());
    };
    assert!(matches!(refused, ProposeError::DiskFull(_)), "{refused}");
    assert!(group.is_running() && store.stats().poisoned.is_none());
    assert_eq!(group.state_machine().numbers(), (0..n).collect::<Vec<_>>());
    // A small seal still fits, and the checkpoint behind it frees a segment: no other space is needed.
    let (index, _) = group.propose_alone(numbered(n, 10)).await.unwrap();
    group.checkpoint(index, "sealed".into()).await.unwrap();
    for attempt in 0..100 {
        match group.propose(numbered(n + 1, 1000)).await {
            Ok(_) => break,
            Err(e) => assert!(matches!(e, ProposeError::DiskFull(_)) && attempt < 99, "{e}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    full.store(false, Ordering::SeqCst);
    for extra in 2..100 {
        group.propose(numbered(n + extra, 1000)).await.unwrap();
    }
    group.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_is_really_full() {
    let mount = tempfile::tempdir().unwrap();
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=256k", "tmpfs"])
        .arg(mount.path())
        .output();
    if !mounted.as_ref().is_ok_and(|o| o.status.success()) {
        eprintln!("skipped: a small tmpfs cannot be mounted here (needs root): {mounted:?}");
        return;
    }
    let trial = async {
        let dir = mount.path().join("log");
        let store = LogStore::open(options(&dir)).unwrap();
        let group = open_group(&store, GROUP).await;
        let mut n = 0;
        let refused = loop {
            match group.propose(numbered(n, 1000)).await {
                Ok(_) => n += 1,
                Err(e) => break e,
            }
            assert!(n < 10_000, "the disk is not full");
        };
        assert!(matches!(refused, ProposeError::DiskFull(_)), "{refused}");
        let (index, _) = group.propose_alone(numbered(n, 10)).await.unwrap();
        // The last page may be gone as well: then the log stays as it is.
        match group.checkpoint(index, "sealed".into()).await {
            Ok(()) => {
                while group.propose(numbered(n + 1, 1000)).await.is_err() {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
            Err(e) => assert!(matches!(e, CheckpointError::Io { .. }), "{e}"),
        }
        let applied = group.state_machine().numbers();
        close(store, group).await;
        let (store, group) = open(&dir).await;
        assert!(applied.ends_with(&group.state_machine().numbers()));
        close(store, group).await;
    };
    let result = futures::FutureExt::catch_unwind(std::panic::AssertUnwindSafe(trial)).await;
    let unmounted = std::process::Command::new("umount").arg(mount.path()).status();
    result.unwrap();
    assert!(unmounted.unwrap().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_space_at_the_start_is_an_error_of_opening() {
    let dir = tempfile::tempdir().unwrap();
    let full = Arc::new(AtomicBool::new(true));
    let with_fault = StoreOptions { fault_hook: failing("log.allocate", &full), ..options(dir.path()) };
    let error = LogStore::open(with_fault.clone()).err().unwrap();
    assert!(matches!(error, StoreError::DiskFull { .. }), "{error}");
    full.store(false, Ordering::SeqCst);
    let store = LogStore::open(with_fault).unwrap();
    let group = open_group(&store, GROUP).await;
    close(store, group).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_checkpoint_leaves_the_previous_one() {
    for (point, survives) in [("checkpoint.before_rename", "first"), ("checkpoint.after_rename", "second")] {
        let dir = tempfile::tempdir().unwrap();
        let armed = Arc::new(AtomicBool::new(false));
        let store =
            LogStore::open(StoreOptions { fault_hook: failing(point, &armed), ..options(dir.path()) });
        let store = store.unwrap();
        let group = open_group(&store, GROUP).await;
        let (first, _) = group.propose(numbered(0, 100)).await.unwrap();
        group.checkpoint(first, "first".into()).await.unwrap();
        let (second, _) = group.propose(numbered(1, 100)).await.unwrap();
        armed.store(true, Ordering::SeqCst);
        let failed = group.checkpoint(second, "second".into()).await;
        assert!(matches!(failed, Err(CheckpointError::Io { .. })), "{failed:?}");
        close(store, group).await;
        let (store, group) = open(dir.path()).await;
        let restored = group.state_machine().restored.lock().clone().unwrap();
        assert_eq!(restored.1, survives.as_bytes());
        let rest: &[u64] = if survives == "first" { &[1] } else { &[] };
        assert_eq!(group.state_machine().numbers(), rest);
        close(store, group).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relaxed_mode_acknowledges_before_the_sync_and_syncs_in_time() {
    let dir = tempfile::tempdir().unwrap();
    let sync = SyncMode::Relaxed { interval_ms: 200 };
    let relaxed = StoreOptions { sync, segment_bytes: 8 << 20, ..options(dir.path()) };
    let store = LogStore::open(relaxed.clone()).unwrap();
    let group = open_group(&store, GROUP).await;
    let before = store.stats();
    for n in 0..200 {
        group.propose(numbered(n, 100)).await.unwrap();
    }
    let after = store.stats();
    assert!(after.writes - before.writes >= 100);
    assert!(after.syncs - before.syncs < 40, "{} syncs", after.syncs - before.syncs);
    let image = tempfile::tempdir().unwrap();
    copy_dir(dir.path(), image.path());
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert!(store.stats().syncs > before.syncs, "no sync by the interval");
    close(store, group).await;

    // A crash of the process loses nothing, since the page cache has it all; the term is a new one.
    let store = LogStore::open(StoreOptions { dir: image.path().to_owned(), ..relaxed }).unwrap();
    let group = open_group(&store, GROUP).await;
    assert_eq!(group.state_machine().numbers(), (0..200).collect::<Vec<_>>());
    assert_eq!(group.metrics().term, 2);
    close(store, group).await;
}
