//! A replicated group: one Raft instance over the node's log store.
//!
//! # Constraints
//!
//! * A proposal is acknowledged when its entry is on the disks of a majority and applied here, never earlier.
//! * `open` returns a state that includes every committed entry of the log; replay holds a bounded number of bytes.
//! * Checkpoints take the place of Raft's snapshots. The owner makes them when the state before an index is safe elsewhere, and
//!   the log is purged behind them. A member that needs purged entries gets the leader's checkpoint.
//! * A received checkpoint is durable before Raft hears of it. It covers committed entries only, so it is true whatever
//!   becomes of the sender; but openraft purges the log at once and installs afterwards.
//!
//! # Recovery
//!
//! Checkpoint, purge of what it covers (or of everything, when it goes beyond the log), then the entries behind it. In a group whose only voter is this node every entry on disk is committed, since
//! no other node can have a different one; otherwise entries beyond the last known commit position wait for a leader.

mod members;
mod metrics;
mod opening;
mod reading;
mod requests;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use openraft::{Raft, ServerState};
use parking_lot::Mutex;
use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    task::JoinHandle,
};

use crate::{
    CheckpointError, GroupId, GroupOptions, LogStore, Member, NodeId, OpenError, ProposeError, StateMachine,
    StoreError,
    applier::{Applier, Progress},
    checkpoint::{self, Position},
    group::{
        opening::{blocking, lead_if_alone, raft_config, replay, restore},
        reading::Rounds,
    },
    network::GroupNetwork,
    proposer::{Desk, Proposal, Proposer, known_leader},
    raft_log::RaftLog,
    store::GroupLog,
    types::{Batch, LogId, TypeConfig},
};

/// How long a checkpoint waits for the log to be purged behind it.
const PURGE_WAIT: Duration = Duration::from_secs(10);

pub use members::CatchUp;
pub use metrics::{FollowerMetrics, GroupMetrics};

/// A handle of an open group. Clones are handles of the same group, which is shut down with the last of them.
pub struct Group<S: StateMachine> {
    inner: Arc<Inner<S>>,
}

impl<S: StateMachine> Clone for Group<S> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

struct Inner<S: StateMachine> {
    id: GroupId,
    node: NodeId,
    store: LogStore,
    log: Arc<GroupLog>,
    machine: Arc<S>,
    progress: Arc<Progress>,
    raft: Raft<TypeConfig>,
    payload_bytes_max: usize,
    tx: mpsc::UnboundedSender<Proposal<S::Output>>,
    /// One permit per KiB of `queue_bytes_max`.
    queue_room: Arc<Semaphore>,
    queue_permits: u32,
    desk: Arc<Desk>,
    network: GroupNetwork,
    rounds: Arc<Rounds>,
    proposer: Mutex<Option<JoinHandle<()>>>,
    /// Checkpoints are written one after the other.
    checkpointing: tokio::sync::Mutex<()>,
}

/// Marks the group as open until Raft has stopped.
struct Lease(Arc<GroupLog>);

impl Lease {
    fn take(log: &Arc<GroupLog>) -> Result<Self, OpenError> {
        let was_open = log.in_use.swap(true, Ordering::AcqRel);
        if was_open { Err(OpenError::AlreadyOpen(log.id)) } else { Ok(Self(Arc::clone(log))) }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.in_use.store(false, Ordering::Release);
    }
}

impl<S: StateMachine> Group<S> {
    /// Opens a group and returns when every committed entry of its log is applied to `machine`. A group with this node as its
    /// only voter is its leader by then. Must be called within a tokio runtime.
    pub async fn open(
        store: &LogStore,
        id: GroupId,
        node: NodeId,
        machine: Arc<S>,
        options: GroupOptions,
    ) -> Result<Self, OpenError> {
        let log = store.group(id);
        let lease = Lease::take(&log)?;
        let raft_error = |reason: String| OpenError::Raft { group: id, reason };

        let restored = {
            let (store, machine) = (store.clone(), Arc::clone(&machine));
            blocking(move || restore(&store, id, &*machine)).await.map_err(raft_error)??
        };
        // A crash may have come between the last checkpoint and the purge behind it. A checkpoint of the leader's may even lie
        // beyond the log, or in place of entries that were never committed.
        if let Some(upto) = restored.as_ref().map(|position| position.log_id)
            && log.state.lock().purged < Some(upto)
        {
            store.purge(&log, upto).await?;
        }
        let progress = Arc::new(Progress::new(restored));
        let applier = Applier {
            store: store.clone(),
            group: Arc::clone(&log),
            machine: Arc::clone(&machine) as _,
            progress: Arc::clone(&progress),
        };
        {
            let (applier, bytes_max) = (applier.clone(), options.replay_bytes_max);
            blocking(move || replay(&applier, node, bytes_max)).await.map_err(raft_error)??;
        }

        let raft_log = RaftLog { store: store.clone(), group: Arc::clone(&log) };
        let heartbeat_interval = Duration::from_millis(options.heartbeat_interval_ms);
        let network = GroupNetwork {
            group: id,
            network: Arc::clone(&options.network),
            hand_over_term: Arc::new(AtomicU64::new(0)),
            retry_pause_max: heartbeat_interval,
        };
        let config = Arc::new(raft_config(id, options.heartbeat_interval_ms).map_err(raft_error)?);
        let raft = Raft::new(node, config, network.clone(), raft_log, applier).await;
        let raft = raft.map_err(|e| raft_error(e.to_string()))?;
        if let Err(reason) = lead_if_alone(&raft, &log, node, &options.bootstrap, store.options().sync).await
        {
            let _ = raft.shutdown().await;
            return Err(raft_error(store.poisoned().unwrap_or(reason)));
        }

        let (tx, rx) = mpsc::unbounded_channel();
        let desk = Arc::new(Desk::default());
        let queue_permits = (options.queue_bytes_max / 1024).clamp(1, 1 << 30) as u32;
        let payload_bytes_max = store.options().batch_bytes_max() - Batch::LENGTH_BYTES;
        let (desk_of_task, progress_of_task) = (Arc::clone(&desk), Arc::clone(&progress));
        let proposer =
            Proposer::<S>::new(raft.clone(), store.clone(), options, rx, desk_of_task, progress_of_task);
        let proposer = tokio::spawn(async move {
            proposer.run().await;
            drop(lease);
        });
        let inner = Inner {
            id,
            node,
            store: store.clone(),
            log,
            machine,
            progress,
            raft,
            payload_bytes_max,
            tx,
            queue_room: Arc::new(Semaphore::new(queue_permits as usize)),
            queue_permits,
            desk,
            network,
            rounds: Arc::default(),
            proposer: Mutex::new(Some(proposer)),
            checkpointing: tokio::sync::Mutex::new(()),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Resolves with the state machine's output when the payload is committed (synced by a majority) and applied here. It may
    /// share its Raft entry, and so its index, with other payloads. Waits while the group's queue is full. Proposals that are
    /// under way at the same time have no order among each other.
    ///
    /// Dropping the future does not take the payload back.
    pub async fn propose(&self, payload: Bytes) -> Result<S::Output, ProposeError> {
        self.send(payload, false).await
    }

    /// Like [`Group::propose`], but the payload is the only one of its Raft entry, so that the entry's index stands for it
    /// alone; and the bound of the log's size does not apply to it.
    pub async fn propose_alone(&self, payload: Bytes) -> Result<S::Output, ProposeError> {
        self.send(payload, true).await
    }

    async fn send(&self, payload: Bytes, alone: bool) -> Result<S::Output, ProposeError> {
        let inner = &self.inner;
        let (bytes, max) = (payload.len(), inner.payload_bytes_max);
        if bytes > max {
            return Err(ProposeError::TooLarge { bytes, max });
        }
        // At least one permit each also bounds the number of waiting payloads.
        let permits = ((bytes / 1024 + 1) as u32).min(inner.queue_permits);
        let room = Arc::clone(&inner.queue_room).acquire_many_owned(permits).await;
        let Ok(_room) = room else { return Err(ProposeError::ShutDown) };
        let (done, result) = oneshot::channel();
        if inner.tx.send(Proposal { payload, alone, done, _room }).is_err() {
            return Err(ProposeError::ShutDown);
        }
        result.await.unwrap_or(Err(ProposeError::ShutDown))
    }

    /// Replaces the group's checkpoint by `app` at `index`, durably and as a whole, then purges the log up to `index`
    /// (inclusive). After a restart the state machine gets `app`, then the payloads behind `index`.
    ///
    /// Every member makes its own checkpoints, and may get its leader's instead; an index before that is refused with
    /// [`CheckpointError::Backwards`]. A checkpoint at the index of the last one replaces its bytes.
    pub async fn checkpoint(&self, index: u64, app: Bytes) -> Result<(), CheckpointError> {
        let inner = &self.inner;
        let _one_at_a_time = inner.checkpointing.lock().await;
        let applied = inner.progress.last_applied();
        if index > applied {
            return Err(CheckpointError::NotApplied { index, applied });
        }
        let last = inner.progress.checkpoint();
        let log_id = match last {
            Some(last) if index < last.index => {
                return Err(CheckpointError::Backwards { index, last: last.index });
            }
            Some(last) if index == last.index => last,
            _ => self.log_id(index)?,
        };
        let position = Position { log_id, membership: inner.progress.membership_at(index) };
        let (store, id, written) = (inner.store.clone(), inner.id, position.clone());
        let file = checkpoint::path(store.dir(), id);
        let write =
            blocking(move || checkpoint::write(store.dir(), id, &written, &app, &store.options().fault_hook));
        let io_error = |source| CheckpointError::Io { file, source };
        write.await.map_err(std::io::Error::other).and_then(|r| r).map_err(io_error)?;
        inner.progress.set_checkpoint(position);
        if last == Some(log_id) {
            return Ok(());
        }
        self.purge_behind(log_id).await
    }

    fn log_id(&self, index: u64) -> Result<LogId, CheckpointError> {
        let found = self.inner.log.state.lock().slot(index).map(|s| s.log_id);
        found.ok_or_else(|| {
            let e = std::io::Error::other(format!("entry {index} is not in the log"));
            StoreError::io("making a checkpoint", e).into()
        })
    }

    /// Reports the checkpoint as a snapshot, upon which openraft purges the log.
    async fn purge_behind(&self, log_id: LogId) -> Result<(), CheckpointError> {
        let stopped = |e: String| CheckpointError::Stopped(e);
        self.inner.raft.trigger().snapshot().await.map_err(|e| stopped(e.to_string()))?;
        let mut metrics = self.inner.raft.metrics();
        let purged = metrics.wait_for(|m| m.purged >= Some(log_id) || m.running_state.is_err());
        match tokio::time::timeout(PURGE_WAIT, purged).await {
            Ok(Ok(m)) => m.running_state.as_ref().map(|_| ()).map_err(|e| stopped(e.to_string())),
            Ok(Err(_)) => Err(stopped("raft has ended".to_owned())),
            // A follower still reads those entries. openraft purges them when it is done with them; a leader that is deposed
            // before that does not come back to it until the next checkpoint.
            Err(_) => Ok(()),
        }
    }

    /// The state machine.
    pub fn state_machine(&self) -> &Arc<S> {
        &self.inner.machine
    }

    /// The group's id.
    pub fn id(&self) -> GroupId {
        self.inner.id
    }

    /// Whether this node leads the group, as far as it knows. Proposals go to the leader.
    pub fn is_leader(&self) -> bool {
        self.inner.raft.metrics().borrow().state == ServerState::Leader
    }

    /// The leader, as far as this node knows, with its address.
    pub fn leader(&self) -> Option<(NodeId, Member)> {
        known_leader(&self.inner.raft)
    }

    /// Raft index of the last applied entry. Not every index holds payloads; index 0 never does.
    pub fn last_applied(&self) -> u64 {
        self.inner.progress.last_applied()
    }

    /// Whether the group still takes proposals. When it does not and was not shut down, its log failed.
    pub fn is_running(&self) -> bool {
        !self.inner.tx.is_closed() && self.inner.raft.metrics().borrow().running_state.is_ok()
    }

    /// Waits until this node becomes the leader or stops being it.
    pub async fn leadership_changed(&self) {
        let was = self.is_leader();
        let mut metrics = self.inner.raft.metrics();
        // An error means that Raft has ended, which ends leadership too.
        let _ = metrics.wait_for(|m| (m.state == ServerState::Leader) != was).await;
    }

    /// Stops the group: entries on their way are finished, waiting proposals fail. The store stays open.
    pub async fn shutdown(&self) {
        self.inner.desk.stop.notify_one();
        self.inner.queue_room.close();
        let proposer = self.inner.proposer.lock().take();
        if let Some(task) = proposer
            && let Err(error) = task.await
        {
            tracing::warn!(group = %self.inner.id, %error, "the proposer did not end in order");
        }
    }

    /// This node's id.
    pub fn node(&self) -> NodeId {
        self.inner.node
    }
}
