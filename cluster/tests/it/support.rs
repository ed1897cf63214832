//! Nodes that can be started, stopped and looked at.

use std::{path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use sextant_cluster::{ClusterClient, Discovery, Identity, IngesterNode, NodeOptions, cluster_id};
use sextant_ingester::{Ingester, IngesterConfig};
use sextant_model::{Labels, TenantId};
use sextant_proto::{
    BatchHeader, SelectLimits, SelectRequest, ShardClient, ShardId, WriteBatchBuilder,
    rpc::{RemoteOptions, RemoteShards, ShardServer, plain_connect},
};
use sextant_replication::{
    GroupOptions, NodeId,
    metadata::{DriverOptions, INGESTER, MemberInfo},
    transport::{GrpcNetwork, GrpcNetworkOptions, RaftService},
};
use sextant_storage::{METRICS, ManifestOptions, Manifests, StoreOptions, open_store};
use tokio::{net::TcpListener, runtime::Runtime};
use tokio_stream::wrappers::TcpListenerStream;

const CLUSTER: &str = "test";

pub struct Node {
    pub node: Arc<IngesterNode>,
    pub ingester: Arc<Ingester>,
    /// Its own, so that its connections end with it.
    runtime: Runtime,
}

impl Node {
    /// Opens a node on a folder and a bound socket.
    pub async fn start(
        dir: &Path,
        objects: &Path,
        socket: TcpListener,
        peers: &[String],
        zone: &str,
    ) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (dir, objects, peers, zone) =
            (dir.to_owned(), objects.to_owned(), peers.to_vec(), zone.to_owned());
        let socket = socket.into_std().unwrap();
        let made = runtime.spawn(async move {
            let socket = TcpListener::from_std(socket).unwrap();
            open(&dir, &objects, socket, &peers, &zone).await
        });
        let (node, ingester) = made.await.unwrap();
        Self { node, ingester, runtime }
    }

    pub fn id(&self) -> NodeId {
        self.node.identity().node
    }

    /// Ends the node without telling anyone.
    pub async fn stop(self) {
        let (node, ingester) = (self.node, self.ingester);
        let ended = self.runtime.spawn(async move {
            node.shutdown().await;
            ingester.shutdown().await;
        });
        ended.await.unwrap();
        self.runtime.shutdown_background();
    }
}

async fn open(
    dir: &Path,
    objects: &Path,
    socket: TcpListener,
    peers: &[String],
    zone: &str,
) -> (Arc<IngesterNode>, Arc<Ingester>) {
    let address = socket.local_addr().unwrap().to_string();
    let identity = Identity::open(dir, CLUSTER).unwrap();
    let store = open_store(&format!("file://{}", objects.display()), &StoreOptions::default()).unwrap();
    let manifests = Arc::new(Manifests::new(store, METRICS, ManifestOptions::default()));
    let config = IngesterConfig {
        data_dir: dir.to_owned(),
        log_segment_bytes: 1 << 20,
        flush_check_interval: Duration::from_millis(50),
        ..IngesterConfig::default()
    };
    let ingester = Ingester::open_node(config, identity.node, manifests).await.unwrap();
    let network = GrpcNetwork::new(GrpcNetworkOptions::new(identity.cluster, identity.node));
    let group =
        GroupOptions { network: Arc::new(network), heartbeat_interval_ms: 100, ..GroupOptions::default() };
    let info = MemberInfo {
        name: format!("node-{address}"),
        address,
        zone: zone.to_owned(),
        role: INGESTER.to_owned(),
        ..MemberInfo::default()
    };
    let options = NodeOptions {
        peers: peers.to_vec(),
        info,
        shards: 2,
        replication: 3.min(peers.len() as u32),
        group,
        driver: DriverOptions { pause: Duration::from_millis(200), ..DriverOptions::default() },
        version: "test".to_owned(),
    };
    let raft = RaftService::new(identity.cluster, identity.node);
    let client = ClusterClient::new(identity.cluster, plain_connect());
    let node = IngesterNode::new(options, identity, ingester.clone(), raft.clone(), client);
    let server = tonic::transport::Server::builder()
        .add_service(raft)
        .add_service(ShardServer::new(identity.cluster.0, ingester.clone()))
        .add_service(node.service())
        .serve_with_incoming(TcpListenerStream::new(socket));
    tokio::spawn(async move { server.await.unwrap() });
    let runner = node.clone();
    tokio::spawn(async move { runner.run().await });
    (node, ingester)
}

/// Sockets on free ports, and their addresses.
pub async fn sockets(n: usize) -> (Vec<TcpListener>, Vec<String>) {
    let mut sockets = Vec::new();
    for _ in 0..n {
        sockets.push(TcpListener::bind("127.0.0.1:0").await.unwrap());
    }
    let addresses = sockets.iter().map(|s| s.local_addr().unwrap().to_string()).collect();
    (sockets, addresses)
}

/// A writer and reader of the cluster.
pub struct Outside {
    pub discovery: Arc<Discovery>,
    pub client: ClusterClient,
    pub shards: RemoteShards,
}

impl Outside {
    pub fn start(peers: &[String]) -> Self {
        let cluster = cluster_id(CLUSTER);
        let client = ClusterClient::new(cluster, plain_connect());
        let discovery = Discovery::start(peers.to_vec(), client.clone());
        let shards = RemoteShards::new(&*discovery, RemoteOptions::new(cluster.0));
        Self { discovery, client, shards }
    }

    pub async fn ready(&self) {
        eventually("shards", || self.discovery.obstacle().is_none()).await;
    }

    /// One sample of series `m{i=…}` at `t`.
    pub async fn write(&self, shard: u32, id: u128, t: i64, i: usize) {
        let outcome = self.shards.append(ShardId(shard), batch(id, t, i)).await.unwrap();
        assert!(outcome.refused.is_empty());
    }

    /// Timestamps in a shard behind a position.
    pub async fn read(&self, shard: u32, after: u64) -> Vec<i64> {
        let request = SelectRequest {
            tenant: TenantId::new("t").unwrap(),
            matchers: Vec::new(),
            start: i64::MIN,
            end: i64::MAX,
            after,
            limits: SelectLimits::default(),
        };
        let set = self.shards.select(ShardId(shard), request).await.unwrap();
        (0..set.len()).flat_map(|i| set.floats(i).0.to_vec()).collect()
    }
}

pub fn batch(id: u128, t: i64, i: usize) -> Bytes {
    let mut b = WriteBatchBuilder::default();
    let labels = Labels::from_pairs([("__name__", "m".to_owned()), ("i", format!("{i:05}"))]).unwrap();
    let r = b.new_series(labels.as_bytes(), 0);
    b.sample(r, t, t as f64, 0);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    b.finish(&BatchHeader {
        tenant: "t",
        write_id: id,
        epoch: 0,
        max_series: 0,
        ooo_window_ms: -1,
        now_ms: now.as_millis() as i64,
    })
}

pub async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..1200 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("waited in vain for: {what}");
}
