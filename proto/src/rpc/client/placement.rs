//! Where shards are, as a client is told.

use std::sync::Arc;

use tokio::sync::watch;

/// One ingester that holds a shard.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Replica {
    /// Its node id.
    pub node: u64,
    /// `host:port` of its `sextant.v1.Shards`.
    pub address: String,
}

/// Who holds one shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShardPlacement {
    /// All that hold it, in any order.
    pub replicas: Vec<Replica>,
    /// The node that leads it, as far as is known. It may be wrong: nodes say who leads.
    pub leader: Option<u64>,
}

/// Where all shards are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlacementView {
    /// How many shards there are; fixed for a cluster, 0 before it is known.
    pub shard_count: u32,
    /// By shard id. Shards that are missing have no ingesters yet.
    pub shards: Vec<ShardPlacement>,
}

/// Tells where shards are, and goes on telling.
pub trait Placement: Send + Sync {
    /// The placement now, and its changes.
    fn shards(&self) -> watch::Receiver<Arc<PlacementView>>;
}

/// A placement that is set from outside: for tests, and for clusters whose ingesters never move.
#[derive(Debug)]
pub struct FixedPlacement {
    sender: watch::Sender<Arc<PlacementView>>,
}

impl FixedPlacement {
    /// A placement that stays as it is until [`Self::set`].
    pub fn new(view: PlacementView) -> Self {
        Self { sender: watch::Sender::new(Arc::new(view)) }
    }

    /// Replaces the placement.
    pub fn set(&self, view: PlacementView) {
        self.sender.send_replace(Arc::new(view));
    }
}

impl Placement for FixedPlacement {
    fn shards(&self) -> watch::Receiver<Arc<PlacementView>> {
        self.sender.subscribe()
    }
}
