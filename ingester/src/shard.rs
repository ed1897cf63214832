//! One shard on this node: its group, its head, and what its flush needs.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::RwLock;
use sextant_proto::ShardId;
use sextant_replication::{Group, GroupId, GroupOptions, LogStore, NodeId};
use sextant_storage::Manifests;
use tokio::sync::{Mutex, Notify, watch};

use crate::{
    OpenError, ShardStateMachine,
    head::{Command, Head},
};

/// See the module's documentation.
pub(crate) struct Shard {
    pub(crate) id: ShardId,
    pub(crate) group: Group<ShardStateMachine>,
    /// One flush at a time, and none while a deletion is written: see [`crate::delete_series`].
    pub(crate) flushing: Mutex<()>,
    /// Wakes the flush task before its time.
    pub(crate) wake: Notify,
    /// Position of the last checkpoint that this process made.
    checkpointed: AtomicU64,
    /// Ends the shard's flush task.
    pub(crate) stop: watch::Sender<bool>,
}

impl Shard {
    /// Opens the group and replays its log.
    pub(crate) async fn open(
        log: &LogStore,
        id: ShardId,
        node: NodeId,
        options: GroupOptions,
    ) -> Result<Arc<Self>, OpenError> {
        let machine = Arc::new(ShardStateMachine::default());
        let group = Group::open(log, GroupId(u64::from(id.0)), node, machine, options).await?;
        let checkpointed = AtomicU64::new(group.state_machine().head().first_position());
        let (flushing, wake, stop) = (Mutex::default(), Notify::new(), watch::Sender::new(false));
        Ok(Arc::new(Self { id, group, flushing, wake, checkpointed, stop }))
    }

    pub(crate) fn head(&self) -> &Head {
        self.group.state_machine().head()
    }

    /// Whether the log's positions are set: before that nothing may be written.
    pub(crate) fn is_begun(&self) -> bool {
        self.head().position() > 0
    }

    pub(crate) fn checkpointed(&self) -> u64 {
        self.checkpointed.load(Ordering::Acquire)
    }

    pub(crate) fn set_checkpointed(&self, position: u64) {
        self.checkpointed.fetch_max(position, Ordering::AcqRel);
    }
}

/// The shards that this node holds at the moment.
#[derive(Default)]
pub(crate) struct Shards {
    by_id: RwLock<BTreeMap<ShardId, Arc<Shard>>>,
}

impl Shards {
    pub(crate) fn get(&self, id: ShardId) -> Option<Arc<Shard>> {
        self.by_id.read().get(&id).cloned()
    }

    /// In order of their ids.
    pub(crate) fn all(&self) -> Vec<Arc<Shard>> {
        self.by_id.read().values().cloned().collect()
    }

    pub(crate) fn insert(&self, shard: Arc<Shard>) {
        self.by_id.write().insert(shard.id, shard);
    }

    pub(crate) fn remove(&self, id: ShardId) -> Option<Arc<Shard>> {
        self.by_id.write().remove(&id)
    }

    /// Bytes of memory over all shards.
    pub(crate) fn memory(&self) -> usize {
        self.by_id.read().values().map(|s| s.head().memory()).sum()
    }
}

/// Gives a new log positions behind everything that the manifests cover: its predecessor's disk may be gone, and a row at a
/// covered position would be taken for one that is in a block.
pub(crate) async fn begin_positions(shard: &Shard, manifests: &Manifests) -> Result<(), OpenError> {
    if shard.is_begun() || !shard.group.is_leader() {
        return Ok(());
    }
    let mut covered = 0;
    for tenant in manifests.tenants().await? {
        covered = manifests.refresh(&tenant).await?.known_position(shard.id).max(covered);
    }
    shard.group.propose_alone(Command::Begin(covered).encode()).await?;
    Ok(())
}

/// Checks that the data folder was made for this number of shards, and notes the number where the folder is new.
pub(crate) fn check_shard_count(data_dir: &Path, shards: u32) -> Result<(), OpenError> {
    let file = data_dir.join("ingester.shards");
    let io = |source| OpenError::Io { file: file.clone(), source };
    match std::fs::read_to_string(&file) {
        Ok(text) if text.trim() == shards.to_string() => Ok(()),
        Ok(text) => {
            let found = text.trim().to_owned();
            Err(OpenError::ShardsChanged { file, found, configured: shards })
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            std::fs::create_dir_all(data_dir).map_err(io)?;
            // Written aside and renamed: a crash leaves the number or nothing.
            let aside = data_dir.join("ingester.shards.new");
            std::fs::write(&aside, format!("{shards}\n")).map_err(io)?;
            std::fs::File::open(&aside).and_then(|f| f.sync_all()).map_err(io)?;
            std::fs::rename(&aside, &file).map_err(io)?;
            std::fs::File::open(data_dir).and_then(|d| d.sync_all()).map_err(io)
        }
        Err(e) => Err(io(e)),
    }
}
