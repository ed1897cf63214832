//! Replaying a long log needs little memory.

use std::{process::Command, sync::Arc, time::Instant};

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use sextant_replication::{
    Group, GroupOptions, LogStore, RestoreError, StateMachine, StoreOptions, SyncMode,
};

use crate::support::{GROUP, NODE};

const ENTRIES: u64 = 100_000;
const PAYLOAD_BYTES: usize = 1024;
const CHILD: &str = "SEXTANT_REPLAY_CHILD";

/// Counts, and sums up the order; keeps nothing. Concurrent proposals have no order of their own, but a replay must have that
/// of the first time.
#[derive(Default)]
struct Counter {
    count_and_order: parking_lot::Mutex<(u64, u32)>,
}

impl StateMachine for Counter {
    type Output = ();

    fn apply(&self, _: u64, payload: &Bytes) {
        let mut state = self.count_and_order.lock();
        *state = (state.0 + 1, crc32c::crc32c_append(state.1, payload));
    }

    fn restore(&self, _: u64, _: &[u8]) -> Result<(), RestoreError> {
        Ok(())
    }
}

async fn open(dir: &std::path::Path) -> (LogStore, Group<Counter>) {
    let store = LogStore::open(StoreOptions {
        segment_bytes: 8 << 20,
        sync: SyncMode::Relaxed { interval_ms: 1000 },
        ..StoreOptions::new(dir)
    });
    let store = store.unwrap();
    let small = GroupOptions { replay_bytes_max: 1 << 20, ..GroupOptions::default() };
    let group = Group::open(&store, GROUP, NODE, Arc::default(), small).await.unwrap();
    (store, group)
}

fn peak_rss_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_entries_are_replayed_in_bounded_memory() {
    let dir = tempfile::tempdir().unwrap();
    let (store, group) = open(dir.path()).await;
    let proposals = stream::iter(0..ENTRIES).map(|n| {
        let mut payload = vec![0; PAYLOAD_BYTES];
        payload[..8].copy_from_slice(&n.to_le_bytes());
        group.propose_alone(payload.into())
    });
    proposals.buffered(64).for_each(|r| async { r.unwrap() }).await;
    let stats = store.stats();
    assert_eq!(stats.disk_reads, 0, "entries come from memory in the steady state");
    assert_eq!(stats.cached_bytes, 0, "applied entries are not kept");
    let (count, order) = *group.state_machine().count_and_order.lock();
    assert_eq!(count, ENTRIES);
    group.shutdown().await;
    store.close().unwrap();
    drop((group, store));

    // Memory is that of a process, and the other tests share this one.
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "replay::child_process", "--nocapture"])
        .env(CHILD, dir.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success(), "{text}{}", String::from_utf8_lossy(&child.stderr));
    let figure = |name: &str| -> u64 {
        text.split(name).nth(1).unwrap().split_whitespace().next().unwrap().parse().unwrap()
    };
    assert_eq!((figure("count="), figure("order=")), (count, u64::from(order)));
    let grown_kib = figure("grown_kib=");
    // One segment while the log is scanned, the index, a replay batch; the log itself is more than 100 MiB.
    assert!(grown_kib < 40 << 10, "{grown_kib} KiB for a replay");
}

/// The replaying process; does nothing when it is run as a test of its own.
#[test]
fn child_process() {
    let Ok(dir) = std::env::var(CHILD) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let before = peak_rss_kib();
    runtime.block_on(async {
        let started = Instant::now();
        let (_store, group) = open(dir.as_ref()).await;
        let (count, order) = *group.state_machine().count_and_order.lock();
        let (ms, grown_kib) = (started.elapsed().as_millis(), peak_rss_kib() - before);
        println!("count={count} order={order} replay_ms={ms} grown_kib={grown_kib} ");
    });
}
