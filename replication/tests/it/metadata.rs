//! The metadata: what commands do, what survives, and that the driver brings shards where they should be.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use parking_lot::Mutex;
use sextant_replication::{
    CatchUp, ClusterId, LogStore, NodeId,
    metadata::{
        AdminError, Command, CommandError, Driver, DriverOptions, INGESTER, MemberInfo, MemberState,
        MetadataError, MetadataGroup, MetadataOptions, Move, ShardAdmin, ShardStatus, VALUE_BYTES_MAX,
    },
};

use crate::support::{NODE, options};

async fn open(dir: &Path) -> (LogStore, MetadataGroup) {
    let store = LogStore::open(sextant_replication::StoreOptions { segment_bytes: 8 << 20, ..options(dir) });
    let store = store.unwrap();
    let metadata = MetadataGroup::open(&store, NODE, MetadataOptions::default()).await.unwrap();
    (store, metadata)
}

async fn close(store: LogStore, metadata: MetadataGroup) {
    metadata.group().shutdown().await;
    store.close().unwrap();
}

fn put(key: &str, expected: Option<u64>, value: Option<&str>) -> Command {
    let value = value.map(ToOwned::to_owned);
    Command::Put { namespace: "limits".to_owned(), key: key.to_owned(), expected, value }
}

fn info(node: u64) -> MemberInfo {
    MemberInfo {
        name: format!("ingester-{node}"),
        address: format!("10.0.0.{node}:9010"),
        role: INGESTER.to_owned(),
        ..MemberInfo::default()
    }
}

fn init(shards: u32, replication: u32) -> Command {
    Command::Init { cluster: ClusterId(9), shards, replication }
}

fn refusal(result: Result<u64, MetadataError>) -> CommandError {
    match result {
        Err(MetadataError::Refused(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_compare_and_swap_and_survive() {
    let dir = tempfile::tempdir().unwrap();
    let (store, metadata) = open(dir.path()).await;
    let mut watch = metadata.watch();
    let early = Command::SetReplication { replication: 2 };
    assert_eq!(refusal(metadata.propose(&early).await), CommandError::NotMade);
    let made = metadata.propose(&init(4, 3)).await.unwrap();
    // Every node that starts says it again.
    assert_eq!(metadata.propose(&init(4, 1)).await, Ok(made));
    assert_eq!(metadata.state().cluster.unwrap().replication, 3);
    let other = refusal(metadata.propose(&init(5, 3)).await);
    assert_eq!(other, CommandError::AlreadyMade { id: ClusterId(9), shards: 4 });
    watch.changed().await.unwrap();
    assert_eq!(watch.borrow_and_update().shards.len(), 4);

    let first = metadata.propose(&put("a", Some(0), Some("1"))).await.unwrap();
    assert_eq!(
        refusal(metadata.propose(&put("a", Some(0), Some("2"))).await),
        CommandError::Conflict { found: first }
    );
    let second = metadata.propose(&put("a", Some(first), Some("2"))).await.unwrap();
    assert!(second > first);
    let large = "x".repeat(VALUE_BYTES_MAX + 1);
    assert!(matches!(
        refusal(metadata.propose(&put("b", None, Some(&large))).await),
        CommandError::TooLarge { .. }
    ));
    let mut stored = 0;
    let full = loop {
        let value = &large[1..];
        match metadata.propose(&put(&format!("large-{stored}"), None, Some(value))).await {
            Ok(_) => stored += 1,
            full => break refusal(full),
        }
    };
    assert!(matches!(full, CommandError::TooLarge { .. }) && stored == 15, "{stored}: {full}");
    for n in 0..stored {
        metadata.propose(&put(&format!("large-{n}"), None, None)).await.unwrap();
    }
    assert_eq!(metadata.state().values_bytes, 2);

    metadata.propose(&Command::Register { node: NodeId(1), info: info(1) }).await.unwrap();
    let same_name = Command::Register { node: NodeId(2), info: info(1) };
    assert!(matches!(refusal(metadata.propose(&same_name).await), CommandError::Invalid(_)));
    let unknown = Command::SetMemberState { node: NodeId(7), state: MemberState::Active };
    assert_eq!(refusal(metadata.propose(&unknown).await), CommandError::NotFound);

    // A checkpoint holds all of it; what comes after it is in the log.
    metadata.checkpoint().await.unwrap();
    metadata.checkpoint().await.unwrap();
    metadata.propose(&put("after", None, Some("3"))).await.unwrap();
    let state = metadata.read().await.unwrap();
    close(store, metadata).await;
    let (store, metadata) = open(dir.path()).await;
    assert_eq!(*metadata.state(), *state);
    assert_eq!(&*metadata.state().value("limits", "a").unwrap().text, "2");
    close(store, metadata).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_has_one_holder_and_a_token_that_grows() {
    let dir = tempfile::tempdir().unwrap();
    let (store, metadata) = open(dir.path()).await;
    let claim = |holder: &str, now_ms| Command::Claim {
        name: "compaction/t1/0".to_owned(),
        holder: holder.to_owned(),
        ttl_ms: 1000,
        now_ms,
    };
    let first = metadata.propose(&claim("a", 10_000)).await.unwrap();
    let held = CommandError::Held { holder: "a".to_owned(), expires_ms: 11_000 };
    assert_eq!(refusal(metadata.propose(&claim("b", 10_500)).await), held);
    // Prolonging keeps the token.
    assert_eq!(metadata.propose(&claim("a", 10_900)).await, Ok(first));
    // A clock that steps back takes nothing away and gives nothing.
    let still = CommandError::Held { holder: "a".to_owned(), expires_ms: 11_900 };
    assert_eq!(refusal(metadata.propose(&claim("b", 5)).await), still);
    let second = metadata.propose(&claim("b", 11_900)).await.unwrap();
    assert!(second > first);
    let release =
        |holder: &str| Command::Release { name: "compaction/t1/0".to_owned(), holder: holder.to_owned() };
    metadata.propose(&release("a")).await.unwrap();
    assert_eq!(metadata.state().leases.len(), 1, "only the holder gives it back");
    metadata.propose(&release("b")).await.unwrap();
    assert!(metadata.state().leases.is_empty());
    close(store, metadata).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_of_a_newer_program_stops_this_member_instead_of_parting_it_from_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let (store, metadata) = open(dir.path()).await;
    metadata.propose(&init(1, 1)).await.unwrap();
    metadata.checkpoint().await.unwrap();
    let newer = r#"{"version":2,"command":{"merge_shards":{}}}"#;
    let unsupported = Err(CommandError::Unsupported(2));
    assert_eq!(metadata.group().propose_alone(newer.into()).await.unwrap(), unsupported);
    let before = metadata.state();
    assert_eq!(refusal(metadata.propose(&put("a", None, Some("1"))).await), CommandError::Unsupported(2));
    assert_eq!(metadata.state(), before);
    metadata.checkpoint().await.unwrap();
    close(store, metadata).await;
    // Its log still has the command, for when it is upgraded.
    let (store, metadata) = open(dir.path()).await;
    assert_eq!(metadata.group().state_machine().stopped_at(), Some(2));
    assert_eq!(metadata.state(), before);
    let invalid = metadata.group().propose_alone("not json".into()).await.unwrap();
    assert!(invalid.is_err());
    close(store, metadata).await;
}

/// Shards' groups as sets, some of whose actions fail.
#[derive(Default)]
struct Fake {
    shards: Mutex<BTreeMap<u32, ShardStatus>>,
    open: Mutex<BTreeSet<(u32, NodeId)>>,
    calls: AtomicU64,
    /// One of so many calls fails, before or after it took effect; 0: none.
    fails: u64,
    /// The fewest voters that a shard had after it was made.
    fewest: Mutex<usize>,
}

impl Fake {
    fn act<T>(
        &self,
        shard: u32,
        f: impl FnOnce(&mut ShardStatus) -> Result<T, AdminError>,
    ) -> Result<T, AdminError> {
        let call = self.calls.fetch_add(1, Ordering::Relaxed) + 1;
        // The same in every run, but without a pattern that a round could fall in with.
        let chance = call.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
        let fails = self.fails > 0 && chance.is_multiple_of(self.fails);
        let error = || AdminError::Failed(format!("call {call} was asked to fail"));
        if fails && (chance / 64).is_multiple_of(2) {
            return Err(error());
        }
        let mut shards = self.shards.lock();
        let status = shards.get_mut(&shard).ok_or_else(|| AdminError::Failed("no such group".to_owned()))?;
        let result = f(status);
        let mut fewest = self.fewest.lock();
        *fewest = status.voters.len().min(*fewest);
        if fails { Err(error()) } else { result }
    }
}

#[async_trait]
impl ShardAdmin for Fake {
    async fn status(&self, shard: u32) -> Result<ShardStatus, AdminError> {
        self.act(shard, |s| Ok(s.clone()))
    }

    async fn open(&self, shard: u32, node: NodeId) -> Result<(), AdminError> {
        self.open.lock().insert((shard, node));
        self.act(shard, |_| Ok(()))
    }

    async fn add_learner(&self, shard: u32, node: NodeId) -> Result<CatchUp, AdminError> {
        assert!(self.open.lock().contains(&(shard, node)), "added before it is open");
        self.act(shard, |s| {
            if !s.voters.contains(&node) {
                s.learners.insert(node);
            }
            Ok(CatchUp::Done)
        })
    }

    async fn change_voters(&self, shard: u32, voters: BTreeSet<NodeId>) -> Result<(), AdminError> {
        self.act(shard, |s| {
            assert!(s.voters.symmetric_difference(&voters).count() <= 1, "more than one at once");
            assert!(voters.iter().all(|v| s.voters.contains(v) || s.learners.contains(v)), "not caught up");
            s.learners.retain(|l| !voters.contains(l));
            s.voters = voters;
            Ok(())
        })
    }

    async fn remove(&self, shard: u32, node: NodeId) -> Result<(), AdminError> {
        self.act(shard, |s| {
            assert_ne!(s.leader, Some(node), "removed while it leads");
            s.voters.remove(&node);
            s.learners.remove(&node);
            Ok(())
        })
    }

    async fn transfer_leadership(&self, shard: u32, to: NodeId) -> Result<(), AdminError> {
        self.act(shard, |s| {
            assert!(s.voters.contains(&to), "only a voter can lead");
            s.leader = Some(to);
            Ok(())
        })
    }

    async fn close(&self, shard: u32, node: NodeId) -> Result<(), AdminError> {
        self.act(shard, |s| {
            assert!(!s.voters.contains(&node) && s.leader != Some(node), "closed while it is a member");
            Ok(())
        })
    }
}

/// Runs rounds until there is nothing left to do. Each round has a driver of its own: the leader may change at any time.
async fn settle(metadata: &MetadataGroup, fake: &Arc<Fake>) -> Vec<Move> {
    let mut made = Vec::new();
    for _ in 0..2000 {
        let driver = Driver::new(metadata.clone(), Arc::clone(fake), DriverOptions::default());
        let results = driver.round().await;
        if results.is_empty() {
            return made;
        }
        for (step, result) in results {
            assert_eq!(driver.moving().iter().any(|m| m.step == step), result.is_err());
            let Ok(()) = result else { continue };
            if let Move::Create { shard, replicas } = &step {
                // What the nodes do when they see it.
                let voters = replicas.iter().copied().collect();
                let status = ShardStatus { leader: replicas.first().copied(), voters, ..Default::default() };
                fake.shards.lock().insert(*shard, status);
            }
            made.push(step);
        }
    }
    panic!("no end: {:?} of {:?}", made.iter().rev().take(6).collect::<Vec<_>>(), metadata.state().shards);
}

async fn join(metadata: &MetadataGroup, node: u64) {
    metadata.propose(&Command::Register { node: NodeId(node), info: info(node) }).await.unwrap();
    let active = Command::SetMemberState { node: NodeId(node), state: MemberState::Active };
    metadata.propose(&active).await.unwrap();
}

fn check(metadata: &MetadataGroup, fake: &Fake) {
    for (shard, record) in &*metadata.state().shards {
        let status = fake.shards.lock()[shard].clone();
        assert_eq!(status.voters, record.replicas.iter().copied().collect(), "shard {shard}");
        assert_eq!(status.leader, record.replicas.first().copied(), "shard {shard}");
        assert_eq!(record.replicas.len(), 3);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_driver_moves_shards_whatever_fails_on_the_way() {
    for fails in [0, 3, 5, 7] {
        let dir = tempfile::tempdir().unwrap();
        let (store, metadata) = open(dir.path()).await;
        let fake = Arc::new(Fake { fails, fewest: Mutex::new(usize::MAX), ..Fake::default() });
        metadata.propose(&init(6, 3)).await.unwrap();
        for node in 1..=3 {
            join(&metadata, node).await;
        }
        settle(&metadata, &fake).await;
        check(&metadata, &fake);
        join(&metadata, 4).await;
        assert!(!settle(&metadata, &fake).await.is_empty());
        check(&metadata, &fake);
        let drain = Command::SetMemberState { node: NodeId(1), state: MemberState::Draining };
        metadata.propose(&drain).await.unwrap();
        settle(&metadata, &fake).await;
        check(&metadata, &fake);
        // The round that found nothing to do marked it.
        assert_eq!(metadata.state().members[&NodeId(1)].state, MemberState::Left);
        assert_eq!(*fake.fewest.lock(), 3, "a shard had fewer voters than replicas");

        // What steps under another state may have left behind.
        {
            let mut shards = fake.shards.lock();
            shards.get_mut(&0).unwrap().learners.insert(NodeId(8));
            let stray = shards.get_mut(&1).unwrap();
            stray.voters.insert(NodeId(9));
            stray.leader = Some(NodeId(9));
            let lost = shards.get_mut(&2).unwrap();
            lost.voters.retain(|v| Some(*v) == lost.leader);
        }
        let driver = Driver::new(metadata.clone(), Arc::clone(&fake), DriverOptions::default());
        for _ in 0..100 {
            driver.sweep().await;
        }
        settle(&metadata, &fake).await;
        for (shard, record) in &*metadata.state().shards {
            let status = fake.shards.lock()[shard].clone();
            assert_eq!(status.voters, record.replicas.iter().copied().collect(), "shard {shard}");
            assert!(status.learners.is_empty() && status.voters.contains(&status.leader.unwrap()));
        }
        close(store, metadata).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_driver_s_task_follows_the_metadata() {
    let dir = tempfile::tempdir().unwrap();
    let (store, metadata) = open(dir.path()).await;
    let fake = Arc::new(Fake::default());
    let options = DriverOptions { pause: Duration::from_millis(20), ..DriverOptions::default() };
    let driver = Arc::new(Driver::new(metadata.clone(), Arc::clone(&fake), options));
    let task = tokio::spawn({
        let driver = Arc::clone(&driver);
        async move { driver.run().await }
    });
    metadata.propose(&init(2, 1)).await.unwrap();
    join(&metadata, 1).await;
    let mut watch = metadata.watch();
    let made =
        watch.wait_for(|s| !s.shards.is_empty() && s.shards.values().all(|s| s.replicas == [NodeId(1)]));
    tokio::time::timeout(crate::nodes::LONG, made).await.unwrap().unwrap();
    metadata.group().shutdown().await;
    tokio::time::timeout(crate::nodes::LONG, task).await.unwrap().unwrap();
    drop(driver);
    store.close().unwrap();
}
