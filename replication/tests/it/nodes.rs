//! Nodes of one process that talk over real connections, and a state machine that counts what it is given.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use openraft::EntryPayload;
use parking_lot::Mutex;
use sextant_replication::{
    Bootstrap, ClusterId, FaultHook, Group, GroupId, GroupOptions, LogStore, Member, Network, NoAnswer,
    NodeId, ProposeError, Reply, Request, RestoreError, StateMachine, StoreOptions,
    transport::{Connect, GrpcNetwork, GrpcNetworkOptions, RaftService, endpoint},
};
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};

type Entry = openraft::Entry<sextant_replication::TypeConfig>;

pub const SHARD: GroupId = GroupId(3);
pub const CLUSTER: ClusterId = ClusterId(0xc1);
/// For whatever must happen at some time.
pub const LONG: Duration = Duration::from_secs(120);

/// Keeps the number of every payload, in order and as often as it came. All of it is in its checkpoint.
#[derive(Default)]
pub struct Ledger {
    state: Mutex<(u64, Vec<u64>)>,
    pub restored: Mutex<Vec<u64>>,
}

impl Ledger {
    pub fn numbers(&self) -> Vec<u64> {
        self.state.lock().1.clone()
    }

    /// Index of the last payload, and a checkpoint there. No payload may be on its way.
    pub fn checkpoint(&self) -> (u64, Bytes) {
        let state = self.state.lock();
        (state.0, state.1.iter().flat_map(|n| n.to_le_bytes()).collect())
    }
}

impl StateMachine for Ledger {
    type Output = usize;

    fn apply(&self, index: u64, payload: &Bytes) -> usize {
        let mut state = self.state.lock();
        assert!(index >= state.0, "index {index} after {}", state.0);
        state.0 = index;
        state.1.push(u64::from_le_bytes(payload[..8].try_into().unwrap()));
        state.1.len()
    }

    fn restore(&self, index: u64, app: &[u8]) -> Result<(), RestoreError> {
        let mut state = self.state.lock();
        // A member that had applied no payload yet may have made its checkpoint at the beginning.
        assert!(index > state.0 || index == 0, "restored at {index} after {}", state.0);
        let numbers = app.chunks_exact(8).map(|n| u64::from_le_bytes(n.try_into().unwrap())).collect();
        *state = (index, numbers);
        self.restored.lock().push(index);
        Ok(())
    }
}

/// Makes every write fail from a moment on.
#[derive(Clone, Default)]
pub struct Switch(Arc<AtomicBool>);

impl Switch {
    pub fn hook(&self) -> FaultHook {
        let off = Arc::clone(&self.0);
        Arc::new(move |_| match off.load(Ordering::SeqCst) {
            true => Err(std::io::Error::other("crashed")),
            false => Ok(()),
        })
    }
}

pub fn payload(n: u64, bytes: usize) -> Bytes {
    let mut payload = vec![n as u8; bytes.max(8)];
    payload[..8].copy_from_slice(&n.to_le_bytes());
    payload.into()
}

/// Where nodes listen, and which of them can not reach which.
#[derive(Default)]
pub struct Wires {
    pub ports: Mutex<BTreeMap<String, u16>>,
    cut: Mutex<BTreeSet<(NodeId, NodeId)>>,
    /// Requests with entries take so long, in milliseconds.
    pub delay_ms: AtomicU64,
    /// Requests with entries of at least 64 KiB.
    pub large_requests: AtomicU64,
}

struct Cuttable {
    from: NodeId,
    wires: Arc<Wires>,
    network: GrpcNetwork,
}

#[async_trait]
impl Network for Cuttable {
    async fn send(
        &self,
        group: GroupId,
        to: NodeId,
        member: &Member,
        request: Request,
    ) -> Result<Reply, NoAnswer> {
        let is_cut = || self.wires.cut.lock().contains(&(self.from, to));
        if is_cut() {
            return Err(NoAnswer::Unreachable("cut".to_owned()));
        }
        if let Request::Append(append) = &request
            && !append.entries.is_empty()
        {
            let is_large =
                |e: &Entry| matches!(&e.payload, EntryPayload::Normal(b) if b.payload_bytes() >= 64 << 10);
            self.wires.large_requests.fetch_add(append.entries.iter().any(is_large).into(), Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(self.wires.delay_ms.load(Ordering::SeqCst))).await;
        }
        let reply = self.network.send(group, to, member, request).await;
        if is_cut() { Err(NoAnswer::Unreachable("cut".to_owned())) } else { reply }
    }
}

pub fn member(id: u64) -> Member {
    Member { address: format!("node-{id}") }
}

pub struct Node {
    pub store: LogStore,
    pub group: Group<Ledger>,
    pub service: RaftService,
    stop: oneshot::Sender<()>,
    server: JoinHandle<()>,
}

pub struct Cluster {
    dir: PathBuf,
    pub wires: Arc<Wires>,
    pub nodes: BTreeMap<u64, Node>,
    /// Payloads whose first outcome was unknown: they may be in the log more than once.
    uncertain: BTreeSet<u64>,
    acknowledged: BTreeSet<u64>,
    pub segment_bytes: u32,
}

impl Cluster {
    /// Starts nodes 1 to `n`, all of them with the same list of first members.
    pub async fn start(dir: &Path, n: u64) -> Self {
        let mut cluster = Self {
            dir: dir.to_owned(),
            wires: Arc::default(),
            nodes: BTreeMap::new(),
            uncertain: BTreeSet::new(),
            acknowledged: BTreeSet::new(),
            segment_bytes: 1 << 20,
        };
        let members: BTreeMap<_, _> = (1..=n).map(|id| (NodeId(id), member(id))).collect();
        for id in 1..=n {
            cluster.open(id, Bootstrap::Members(members.clone()), None).await;
        }
        cluster
    }

    pub fn connect(&self) -> Connect {
        let wires = Arc::clone(&self.wires);
        Arc::new(move |member| {
            let port = wires.ports.lock().get(&member.address).copied();
            let port = port.ok_or_else(|| format!("{} is unknown", member.address))?;
            let member = Member { address: format!("127.0.0.1:{port}") };
            Ok(endpoint("http", &member)?.connect_lazy())
        })
    }

    pub fn network(&self, node: NodeId, cluster: ClusterId) -> GrpcNetwork {
        let options =
            GrpcNetworkOptions { connect: self.connect(), ..GrpcNetworkOptions::new(cluster, node) };
        GrpcNetwork::new(options)
    }

    pub fn folder(&self, id: u64) -> PathBuf {
        self.dir.join(id.to_string())
    }

    pub async fn open(&mut self, id: u64, bootstrap: Bootstrap, hook: Option<FaultHook>) {
        let node = NodeId(id);
        let network =
            Cuttable { from: node, wires: Arc::clone(&self.wires), network: self.network(node, CLUSTER) };
        let options = GroupOptions {
            bootstrap,
            network: Arc::new(network),
            heartbeat_interval_ms: 150,
            ..GroupOptions::default()
        };
        let mut store_options =
            StoreOptions { segment_bytes: self.segment_bytes, ..StoreOptions::new(self.folder(id)) };
        if let Some(hook) = hook {
            store_options.fault_hook = hook;
        }
        let store = LogStore::open(store_options).unwrap();
        let service = RaftService::new(CLUSTER, node);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        self.wires.ports.lock().insert(member(id).address, listener.local_addr().unwrap().port());
        let (stop, stopped) = oneshot::channel::<()>();
        let router = tonic::transport::Server::builder().add_service(service.clone());
        let server = tokio::spawn(async move {
            let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
            let stopped = async { drop(stopped.await) };
            router.serve_with_incoming_shutdown(incoming, stopped).await.unwrap();
        });
        let group = Group::open(&store, SHARD, node, Arc::default(), options).await.unwrap();
        service.add(SHARD, group.clone());
        self.nodes.insert(id, Node { store, group, service, stop, server });
    }

    pub async fn reopen(&mut self, id: u64) {
        self.open(id, Bootstrap::Join, None).await;
    }

    pub async fn stop(&mut self, id: u64) {
        let node = self.nodes.remove(&id).unwrap();
        node.service.remove(SHARD);
        let _ = node.stop.send(());
        node.group.shutdown().await;
        node.store.close().unwrap();
        drop((node.group, node.store));
        node.server.abort();
    }

    /// What a crash does: nothing more reaches the disk. The node must have been opened with [`Switch`]'s hook.
    pub async fn crash(&mut self, id: u64, switch: &Switch) {
        let node = self.nodes.remove(&id).unwrap();
        switch.0.store(true, Ordering::SeqCst);
        node.service.remove(SHARD);
        let _ = node.stop.send(());
        node.group.shutdown().await;
        let _ = node.store.close();
        drop((node.group, node.store));
        node.server.abort();
    }

    pub async fn stop_all(&mut self) {
        for id in self.nodes.keys().copied().collect::<Vec<_>>() {
            self.stop(id).await;
        }
    }

    /// Cuts a node off from all others, in both directions.
    pub fn isolate(&self, id: u64) {
        let mut cut = self.wires.cut.lock();
        for other in (1..10).filter(|other| *other != id) {
            cut.insert((NodeId(id), NodeId(other)));
            cut.insert((NodeId(other), NodeId(id)));
        }
    }

    pub fn heal(&self) {
        self.wires.cut.lock().clear();
    }

    pub fn group(&self, id: u64) -> &Group<Ledger> {
        &self.nodes[&id].group
    }

    /// A node that leads and is followed by a majority of those that run.
    pub async fn leader(&self) -> u64 {
        let mut found = 0;
        eventually("there is a leader", || {
            found = self.nodes.keys().copied().find(|id| self.leads(*id)).unwrap_or(0);
            found > 0
        })
        .await;
        found
    }

    fn leads(&self, id: u64) -> bool {
        let group = self.group(id);
        let followers = self.nodes.values().filter(|n| n.group.metrics().leader == Some(NodeId(id))).count();
        group.is_leader() && followers * 2 > group.metrics().voters.len()
    }

    pub async fn follower(&self) -> u64 {
        let leader = self.leader().await;
        *self.nodes.keys().rev().find(|id| **id != leader).unwrap()
    }

    /// Proposes at whoever leads, and again until it is acknowledged.
    pub async fn propose(&mut self, n: u64) {
        self.propose_bytes(n, 300).await;
    }

    pub async fn propose_bytes(&mut self, n: u64, bytes: usize) {
        let attempts = async {
            loop {
                for node in self.nodes.values().filter(|node| node.group.is_leader()) {
                    match node.group.propose(payload(n, bytes)).await {
                        Ok(_) => return,
                        Err(ProposeError::NotLeader { .. }) => {}
                        Err(ProposeError::Unknown(_)) => drop(self.uncertain.insert(n)),
                        Err(other) => panic!("payload {n}: {other}"),
                    }
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(LONG, attempts).await.expect("nobody takes the payload");
        self.acknowledged.insert(n);
    }

    pub fn is_uncertain(&mut self, n: u64) {
        self.uncertain.insert(n);
    }

    /// All nodes have the same, nothing acknowledged is missing, and nothing is there twice.
    pub async fn check(&self) {
        let all = || self.nodes.values().map(|n| n.group.state_machine().numbers());
        eventually("all members have the same", || {
            let first = all().next().unwrap();
            all().all(|n| n == first) && self.acknowledged.iter().all(|n| first.contains(n))
        })
        .await;
        let numbers = all().next().unwrap();
        let mut counts = BTreeMap::<u64, usize>::new();
        numbers.iter().for_each(|n| *counts.entry(*n).or_default() += 1);
        counts.retain(|n, count| *count > 1 && !self.uncertain.contains(n));
        assert!(counts.is_empty(), "applied more than once: {counts:?}");
    }
}

pub async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(tokio::time::timeout(LONG, waiting).await.is_ok(), "never: {what}");
}
