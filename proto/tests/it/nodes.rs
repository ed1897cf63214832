//! Three nodes of a fake cluster.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use sextant_model::{Exemplar, Labels, MetricMetadata, MetricType, SeriesBuf, SeriesSet, TenantId};
use sextant_proto::{
    AppendOutcome, BatchHeader, DeleteOutcome, DeleteRequest, ExemplarSeries, HeadSelection, MetadataEntry,
    SelectLimits, SelectRequest, ShardError, ShardId, ShardStats, WriteBatchBuilder, WriteBatchView,
    rpc::{
        FixedPlacement, Leader, LocalError, LocalShards, PlacementView, RemoteOptions, RemoteShards, Replica,
        ShardPlacement, ShardServer,
    },
};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;

pub const CLUSTER: u128 = 0xc1u128 << 64 | 7;

/// What a node does with a request before anything else.
#[derive(Clone)]
pub enum Mood {
    /// What its role demands.
    Well,
    /// Says that it does not hold the shard.
    NotHere,
    /// Never answers.
    Hangs,
    /// Refuses with this.
    Says(ShardError),
}

/// A hook that is run once, after an append was applied and before it is answered; `true` is: never answer.
type Hook = Box<dyn FnOnce() -> bool + Send>;

#[derive(Default)]
pub struct State {
    pub leader: Option<u64>,
    pub term: u64,
    /// Whether followers name the leader.
    pub hints: bool,
    pub epoch: u64,
    /// Write ids and how often each was applied.
    pub applied: HashMap<u128, u32>,
    /// How often batches came, applied or not.
    pub appends: u64,
    pub deleted: Vec<DeleteRequest>,
    pub set: SeriesSet,
    pub seen: Vec<SelectRequest>,
    pub after_apply: Option<Hook>,
    pub addresses: Vec<String>,
    pub moods: HashMap<u64, Mood>,
    /// Reads never end once they have passed the barrier.
    pub reads_hang: bool,
}

/// Three nodes, 1 to 3, with one shared state.
#[derive(Clone)]
pub struct Cluster {
    pub state: Arc<Mutex<State>>,
    /// Work of requests that was dropped before it was done.
    pub dropped: Arc<AtomicU64>,
    /// Work of requests that hangs.
    pub begun: Arc<AtomicU64>,
}

struct Node {
    id: u64,
    cluster: Cluster,
}

/// Counts itself when it is dropped.
struct Guard(Arc<AtomicU64>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Cluster {
    pub async fn start() -> Self {
        let state = State { leader: Some(1), term: 1, hints: true, epoch: 1, ..State::default() };
        let cluster =
            Self { state: Arc::new(Mutex::new(state)), dropped: Arc::default(), begun: Arc::default() };
        for id in 1..=3 {
            let node = Arc::new(Node { id, cluster: cluster.clone() });
            let address = serve(ShardServer::new(CLUSTER, node)).await;
            cluster.state.lock().addresses.push(address);
        }
        cluster
    }

    /// A placement of one shard on the three nodes.
    pub fn view(&self, leader: Option<u64>) -> PlacementView {
        let state = self.state.lock();
        let replica = |(i, a): (usize, &String)| Replica { node: i as u64 + 1, address: a.clone() };
        let replicas = state.addresses.iter().enumerate().map(replica).collect();
        PlacementView { shard_count: 1, shards: vec![ShardPlacement { replicas, leader }] }
    }

    pub fn client(&self, leader: Option<u64>) -> RemoteShards {
        RemoteShards::new(&FixedPlacement::new(self.view(leader)), RemoteOptions::new(CLUSTER))
    }

    pub fn lead(&self, node: Option<u64>) {
        let mut state = self.state.lock();
        state.leader = node;
        state.term += 1;
    }

    pub fn mood(&self, node: u64, mood: Mood) {
        self.state.lock().moods.insert(node, mood);
    }

    /// Work that never ends, and counts when it begins and when it is dropped.
    async fn hang(&self) {
        let _guard = Guard(self.dropped.clone());
        self.begun.fetch_add(1, Ordering::SeqCst);
        std::future::pending().await
    }

    /// Returns when a counter has reached a value.
    pub async fn until(counter: &AtomicU64, n: u64) {
        while counter.load(Ordering::SeqCst) < n {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Serves on a free port; returns the address.
pub async fn serve(server: ShardServer) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let incoming = TcpListenerStream::new(listener);
    tokio::spawn(Server::builder().add_service(server).serve_with_incoming(incoming));
    address
}

impl Node {
    async fn lead(&self) -> Result<(), LocalError> {
        let (mood, leader, term, hints, addresses) = {
            let s = self.cluster.state.lock();
            let mood = s.moods.get(&self.id).cloned().unwrap_or(Mood::Well);
            (mood, s.leader, s.term, s.hints, s.addresses.clone())
        };
        match mood {
            Mood::Well => {}
            Mood::NotHere => return Err(LocalError::NotHere),
            Mood::Hangs => self.cluster.hang().await,
            Mood::Says(e) => return Err(e.into()),
        }
        if leader == Some(self.id) {
            return Ok(());
        }
        let named = leader.filter(|_| hints);
        let leader = named.map(|node| Leader { node, address: addresses[node as usize - 1].clone() });
        Err(LocalError::NotLeader { leader, term })
    }

    async fn read(&self) {
        if self.cluster.state.lock().reads_hang {
            self.cluster.hang().await;
        }
    }
}

#[async_trait]
impl LocalShards for Node {
    async fn append(&self, shard: ShardId, batch: Bytes) -> Result<AppendOutcome, LocalError> {
        self.cluster.state.lock().appends += 1;
        self.lead().await?;
        assert_eq!(shard, ShardId(0));
        let view = WriteBatchView::parse(&batch).map_err(|e| ShardError::Malformed(e.to_string()))?;
        let (outcome, hook) = {
            let mut s = self.cluster.state.lock();
            if view.runs.iter().any(|r| r.first < sextant_proto::NEW_SERIES_BASE)
                && view.header.epoch != s.epoch
            {
                return Err(ShardError::StaleEpoch { current: s.epoch }.into());
            }
            let duplicate = s.applied.contains_key(&view.header.write_id);
            if !duplicate {
                s.applied.insert(view.header.write_id, 1);
            }
            let new_refs = (0..view.new_series.len() as u32).collect();
            let outcome = AppendOutcome { epoch: s.epoch, new_refs, duplicate, refused: vec![] };
            (outcome, s.after_apply.take())
        };
        if hook.is_some_and(|hook| hook()) {
            self.cluster.hang().await;
        }
        Ok(outcome)
    }

    async fn delete(&self, _: ShardId, request: DeleteRequest) -> Result<DeleteOutcome, LocalError> {
        self.lead().await?;
        self.cluster.state.lock().deleted.push(request);
        Ok(DeleteOutcome { position: 9, pending: 3 })
    }

    async fn ready_to_read(&self, _: ShardId) -> Result<(), LocalError> {
        self.lead().await
    }

    async fn select(&self, _: ShardId, request: SelectRequest) -> Result<SeriesSet, LocalError> {
        self.read().await;
        let mut s = self.cluster.state.lock();
        s.seen.push(request);
        Ok(s.set.clone())
    }

    async fn find(
        &self,
        shard: ShardId,
        request: SelectRequest,
    ) -> Result<Vec<Arc<dyn HeadSelection>>, LocalError> {
        let set = self.select(shard, request).await?;
        // An older generation with every other series, and the whole.
        let mut older = SeriesSet::new();
        for i in (0..set.len()).step_by(2) {
            let one = set.slice(i..i + 1);
            let buf = SeriesBuf { t: one.t, v: one.v, start: one.start, h: one.h };
            older.push(one.labels[0].clone(), &buf);
        }
        Ok(vec![Arc::new(older), Arc::new(SeriesSet::new()), Arc::new(set)])
    }

    async fn series(&self, _: ShardId, request: SelectRequest) -> Result<Vec<Labels>, LocalError> {
        self.read().await;
        let mut s = self.cluster.state.lock();
        s.seen.push(request);
        Ok(s.set.labels.clone())
    }

    async fn label_values(
        &self,
        _: ShardId,
        _: SelectRequest,
        label: Option<String>,
    ) -> Result<Vec<String>, LocalError> {
        Ok(vec![format!("{label:?}"), "b".repeat(2 << 20), String::new()])
    }

    async fn exemplars(&self, _: ShardId, _: SelectRequest) -> Result<Vec<ExemplarSeries>, LocalError> {
        Ok(exemplars())
    }

    async fn metadata(
        &self,
        _: ShardId,
        tenant: TenantId,
        after: u64,
    ) -> Result<Vec<MetadataEntry>, LocalError> {
        let metadata = MetricMetadata {
            metric_type: MetricType::Counter,
            help: after.to_string(),
            unit: tenant.to_string(),
        };
        Ok(vec![MetadataEntry { name: "up".to_owned(), metadata }])
    }

    async fn stats(&self, _: ShardId, _: TenantId, after: u64) -> Result<ShardStats, LocalError> {
        Ok(ShardStats { series: after, samples: 2, min_t: i64::MAX, max_t: i64::MIN })
    }

    async fn tenants(&self, _: ShardId) -> Result<Vec<TenantId>, LocalError> {
        Ok(vec![TenantId::anonymous(), tenant()])
    }
}

pub fn tenant() -> TenantId {
    TenantId::new("team-1").unwrap()
}

pub fn labels(i: usize) -> Labels {
    Labels::from_pairs([("__name__", "m"), ("i", &format!("{i:06}"))]).unwrap()
}

pub fn exemplars() -> Vec<ExemplarSeries> {
    let exemplars = vec![Exemplar { t: 1, v: 2.5, labels: labels(7) }];
    vec![ExemplarSeries { labels: labels(1), exemplars }]
}

/// So many series of so many samples.
pub fn set_of(series: usize, samples: i64) -> SeriesSet {
    let mut set = SeriesSet::new();
    for i in 0..series {
        let t: Vec<i64> = (0..samples).map(|k| 1_700_000_000_000 + k * 15_000).collect();
        let v = t.iter().map(|t| (*t + i as i64) as f64 / 7.0).collect();
        set.push(labels(i), &SeriesBuf { t, v, ..SeriesBuf::default() });
    }
    set
}

pub fn assert_same(a: &SeriesSet, b: &SeriesSet) {
    assert_eq!((a.labels.len(), a.t.len()), (b.labels.len(), b.t.len()));
    assert!(a.labels == b.labels && a.offsets == b.offsets && a.t == b.t && a.v == b.v && a.h == b.h);
}

/// A batch with one sample of a new series.
pub fn batch(write_id: u128) -> Bytes {
    let mut b = WriteBatchBuilder::default();
    let series = b.new_series(labels(0).as_bytes(), 0);
    b.sample(series, 1, 1.0, 0);
    b.finish(&header(write_id, 0))
}

pub fn header(write_id: u128, epoch: u64) -> BatchHeader<'static> {
    BatchHeader { tenant: "team-1", write_id, epoch, max_series: 0, ooo_window_ms: -1, now_ms: 0 }
}

pub fn everything() -> SelectRequest {
    SelectRequest {
        tenant: tenant(),
        matchers: vec![],
        start: 0,
        end: i64::MAX,
        after: 5,
        limits: SelectLimits::default(),
    }
}
