//! CPU and syncs per proposal, for a closed loop of proposers.
//!
//! `log_bench <dir> [payload bytes] [proposers per group] [proposals] [groups]`
//!
//! CPU is that of the process while it runs, split into the writer thread (write and sync) and the rest (proposers,
//! batching, Raft, apply). On a tmpfs a sync costs nothing, which gives the figure without it. The folder is filled once before
//! measuring, so that segments are recycled ones.

use std::{collections::BTreeMap, fs, sync::Arc, time::Instant};

use bytes::Bytes;
use futures::future::join_all;
use sextant_replication::{
    Group, GroupId, GroupOptions, LogStore, NodeId, RestoreError, StateMachine, StoreOptions,
};

/// Does nothing with a payload.
struct Null;

impl StateMachine for Null {
    type Output = u64;

    fn apply(&self, index: u64, _: &Bytes) -> u64 {
        index
    }

    fn restore(&self, _: u64, _: &[u8]) -> Result<(), RestoreError> {
        Ok(())
    }
}

/// CPU nanoseconds of this process by thread name.
fn cpu_ns() -> BTreeMap<String, u64> {
    let mut by_name = BTreeMap::new();
    for task in fs::read_dir("/proc/self/task").expect("/proc is mounted").flatten() {
        let read = |file: &str| fs::read_to_string(task.path().join(file)).unwrap_or_default();
        let ns: u64 = read("schedstat").split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0);
        *by_name.entry(read("comm").trim().to_owned()).or_insert(0) += ns;
    }
    by_name
}

async fn run(groups: &[Group<Null>], payload: &Bytes, depth: usize, count: usize) {
    let per_proposer = count / groups.len() / depth;
    let checkpoint_every = (32 << 20) / payload.len().max(1) / depth;
    let proposers = groups.iter().flat_map(|group| (0..depth).map(move |i| (group.clone(), i)));
    let proposers = proposers.map(|(group, i)| {
        let payload = payload.clone();
        tokio::spawn(async move {
            for n in 1..=per_proposer {
                let index = group.propose(payload.clone()).await.expect("proposing");
                if i == 0 && n % checkpoint_every.max(1) == 0 {
                    group.checkpoint(index, Bytes::new()).await.expect("a checkpoint");
                }
            }
        })
    });
    join_all(proposers).await.into_iter().for_each(|p| p.expect("a proposer"));
    for group in groups {
        group.checkpoint(group.last_applied(), Bytes::new()).await.expect("a checkpoint");
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let args: Vec<String> = std::env::args().collect();
    let number = |at: usize, default: usize| args.get(at).map_or(default, |a| a.parse().expect("a number"));
    let dir = args.get(1).expect("usage: log_bench <dir> [payload bytes] [proposers] [proposals] [groups]");
    let (bytes, depth, count, groups) = (number(2, 16 << 10), number(3, 8), number(4, 40_000), number(5, 1));
    let payload = Bytes::from(vec![7u8; bytes]);
    let opening = Instant::now();
    let store = LogStore::open(StoreOptions::new(dir)).expect("opening the log");
    let open =
        |id| Group::open(&store, GroupId(id as u64), NodeId(1), Arc::new(Null), GroupOptions::default());
    let groups: Vec<_> =
        join_all((0..groups).map(open)).await.into_iter().map(|g| g.expect("opening a group")).collect();
    let opened = opening.elapsed();
    // Every segment is written once, so that none of those measured is a new file.
    run(&groups, &payload, depth, (400 << 20) / bytes.max(1)).await;

    let (before, cpu_before, started) = (store.stats(), cpu_ns(), Instant::now());
    run(&groups, &payload, depth, count).await;
    let (elapsed, cpu_after, after) = (started.elapsed(), cpu_ns(), store.stats());

    let count = count as f64;
    let cpu = |name: &str| {
        // A thread may have ended meanwhile.
        let ns = cpu_after.get(name).unwrap_or(&0).saturating_sub(*cpu_before.get(name).unwrap_or(&0));
        ns as f64 / 1000.0 / count
    };
    let total: f64 = cpu_after.keys().map(|name| cpu(name)).sum();
    let writer = cpu("log-writer");
    let syncs = after.syncs - before.syncs;
    println!(
        "opened in {opened:?}; {count} proposals of {bytes} B, {depth} proposers, {} groups",
        groups.len()
    );
    println!("{:.0} proposals/s, {:.1} MB/s", count / elapsed.as_secs_f64(), {
        count * bytes as f64 / 1e6 / elapsed.as_secs_f64()
    });
    println!(
        "CPU per proposal: {total:.2} us; writer thread {writer:.2} us, the rest {:.2} us",
        total - writer
    );
    println!(
        "{syncs} syncs, {:.2} proposals each; {} writes",
        count / syncs as f64,
        after.writes - before.writes
    );
    println!(
        "{} segments recycled, {} allocated; {} entries read from disk",
        after.recycled - before.recycled,
        after.allocated - before.allocated,
        after.disk_reads - before.disk_reads
    );
    for group in &groups {
        group.shutdown().await;
    }
    store.close().expect("closing the log");
}
