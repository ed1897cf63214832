//! Collects waiting payloads into Raft entries.
//!
//! openraft 0.9 syncs each append before it goes on, and an entry costs it several hand-overs between tasks. So payloads are
//! batched above Raft: while an entry is being synced and applied, whatever arrives becomes the next one. One task per group
//! does this; it starts another entry beside those on their way only when enough bytes wait to be worth a sync of their own.
//!
//! A leader of openraft 0.9 that is cut off does not notice by itself: it keeps its term and its entries wait. So the task looks
//! at leadership and at the age of the majority's last answer, and tells the callers that their outcome is unknown.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use openraft::{Raft, ServerState, raft::ClientWriteResult};
use tokio::sync::{Notify, OwnedSemaphorePermit, mpsc, oneshot};

use crate::{
    GroupOptions, LogStore, Member, NodeId, ProposeError, StateMachine,
    applier::Progress,
    store::{NoRoom, Reservation},
    types::{Batch, Outputs, TypeConfig},
};

/// A payload that waits for its entry.
pub(crate) struct Proposal<O> {
    pub(crate) payload: Bytes,
    /// Whether it must be the only payload of its entry.
    pub(crate) alone: bool,
    pub(crate) done: oneshot::Sender<Result<O, ProposeError>>,
    pub(crate) _room: OwnedSemaphorePermit,
}

struct InFlight<O> {
    result: oneshot::Receiver<ClientWriteResult<TypeConfig>>,
    waiting: Vec<(oneshot::Sender<Result<O, ProposeError>>, OwnedSemaphorePermit)>,
    _space: Reservation,
}

/// What the task and the group's handles share.
#[derive(Default)]
pub(crate) struct Desk {
    pub(crate) stop: Notify,
    /// No entry is started: leadership is being handed over.
    paused: AtomicBool,
    resumed: Notify,
    in_flight: AtomicUsize,
    /// Since when something waits without a break, on the scale of [`Progress::now_ms`] plus one; 0 when nothing does.
    waiting_since: AtomicU64,
}

/// Ends a pause when it is dropped.
pub(crate) struct Pause(Arc<Desk>);

impl Drop for Pause {
    fn drop(&mut self) {
        self.0.paused.store(false, Ordering::Release);
        self.0.resumed.notify_one();
    }
}

impl Desk {
    /// Starts no entry until the result is dropped. `None` when there is a pause already.
    pub(crate) fn pause(self: &Arc<Self>) -> Option<Pause> {
        (!self.paused.swap(true, Ordering::AcqRel)).then(|| Pause(Arc::clone(self)))
    }

    /// Entries on their way.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Acquire)
    }

    /// For how long proposals wait while nothing is applied, in milliseconds.
    pub(crate) fn stalled_ms(&self, progress: &Progress) -> u64 {
        match self.waiting_since.load(Ordering::Relaxed) {
            0 => 0,
            since => progress.now_ms().saturating_sub(progress.advanced_ms().max(since - 1)),
        }
    }
}

/// The leader as far as the node knows, with its address.
pub(crate) fn known_leader(raft: &Raft<TypeConfig>) -> Option<(NodeId, Member)> {
    let metrics = raft.server_metrics();
    let metrics = metrics.borrow();
    let id = metrics.current_leader?;
    Some((id, metrics.membership_config.membership().get_node(&id)?.clone()))
}

pub(crate) struct Proposer<S: StateMachine> {
    pub(crate) raft: Raft<TypeConfig>,
    pub(crate) store: LogStore,
    pub(crate) options: GroupOptions,
    pub(crate) rx: mpsc::UnboundedReceiver<Proposal<S::Output>>,
    pub(crate) desk: Arc<Desk>,
    progress: Arc<Progress>,
    waiting: VecDeque<Proposal<S::Output>>,
    waiting_bytes: usize,
    in_flight: VecDeque<InFlight<S::Output>>,
}

/// Messages taken from the channel at once.
const TAKE_MAX: usize = 256;
/// Turns given to callers between two entries. A turn costs about a microsecond, a sync a hundred at least.
const TURNS_MAX: usize = 8;

impl<S: StateMachine> Proposer<S> {
    pub(crate) fn new(
        raft: Raft<TypeConfig>,
        store: LogStore,
        options: GroupOptions,
        rx: mpsc::UnboundedReceiver<Proposal<S::Output>>,
        desk: Arc<Desk>,
        progress: Arc<Progress>,
    ) -> Self {
        let (waiting, in_flight) = (VecDeque::new(), VecDeque::new());
        Self { raft, store, options, rx, desk, progress, waiting, waiting_bytes: 0, in_flight }
    }

    /// Runs until the group is shut down or its last handle is dropped, then stops Raft.
    pub(crate) async fn run(mut self) {
        let mut taken = Vec::with_capacity(TAKE_MAX);
        let mut open = true;
        let desk = Arc::clone(&self.desk);
        let mut server = self.raft.server_metrics();
        let mut check =
            tokio::time::interval(Duration::from_millis(self.options.heartbeat_interval_ms.max(1)));
        check.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while open || !self.in_flight.is_empty() {
            tokio::select! {
                biased;
                () = desk.stop.notified(), if open => {
                    self.rx.close();
                    open = false;
                }
                result = first_result(&mut self.in_flight) => {
                    if let Some(entry) = self.in_flight.pop_front() {
                        self.complete(entry, result);
                    }
                    self.let_callers_run().await;
                }
                Ok(()) = server.changed() => self.give_up_if_deposed(),
                _ = check.tick(), if !self.in_flight.is_empty() => self.give_up_if_deposed(),
                () = desk.resumed.notified() => {}
                n = self.rx.recv_many(&mut taken, TAKE_MAX), if open => {
                    open = n > 0;
                    taken.drain(..).for_each(|p| self.queue(p));
                }
            }
            if open && !desk.paused.load(Ordering::Acquire) {
                self.start_entries().await;
            }
            self.publish();
        }
        while let Ok(proposal) = self.rx.try_recv() {
            self.queue(proposal);
        }
        for proposal in self.waiting.drain(..) {
            let _ = proposal.done.send(Err(ProposeError::ShutDown));
        }
        if let Err(error) = self.raft.shutdown().await {
            tracing::warn!(%error, "raft did not end in order");
        }
    }

    fn publish(&self) {
        self.desk.in_flight.store(self.in_flight.len(), Ordering::Release);
        let waits = !self.in_flight.is_empty() || !self.waiting.is_empty();
        let since = self.desk.waiting_since.load(Ordering::Relaxed);
        if waits != (since > 0) {
            let now = if waits { self.progress.now_ms() + 1 } else { 0 };
            self.desk.waiting_since.store(now, Ordering::Relaxed);
        }
    }

    /// Why entries of this node are not going to be committed soon: it does not lead, or its majority is silent for so long
    /// that another leader may have been elected.
    fn deposed(&self) -> Option<&'static str> {
        let metrics = self.raft.metrics();
        let m = metrics.borrow();
        if m.running_state.is_err() {
            // openraft says so itself, with the reason.
            return None;
        }
        if m.state != ServerState::Leader {
            return Some("this node lost its leadership");
        }
        let is_alone = m.membership_config.membership().voter_ids().nth(1).is_none();
        let silence_max = 8 * self.options.heartbeat_interval_ms;
        let is_cut_off = !is_alone && m.millis_since_quorum_ack.is_some_and(|ms| ms > silence_max);
        is_cut_off.then_some("this node has lost its majority")
    }

    fn give_up_if_deposed(&mut self) {
        if self.in_flight.is_empty() {
            return;
        }
        let Some(reason) = self.deposed() else { return };
        let error = ProposeError::Unknown(reason.to_owned());
        for entry in self.in_flight.drain(..) {
            entry.waiting.into_iter().for_each(|(done, _)| drop(done.send(Err(error.clone()))));
        }
    }

    /// Whoever just got an answer may have the next payload at hand. Letting them run first makes one full entry of it
    /// instead of an entry of one payload and a nearly full one. Gives up when a turn brings nothing new.
    async fn let_callers_run(&mut self) {
        for turn in 0..TURNS_MAX {
            let before = self.waiting.len();
            tokio::task::yield_now().await;
            while let Ok(proposal) = self.rx.try_recv() {
                self.queue(proposal);
            }
            if turn > 0 && self.waiting.len() == before {
                return;
            }
        }
    }

    fn queue(&mut self, proposal: Proposal<S::Output>) {
        self.waiting_bytes += proposal.payload.len();
        self.waiting.push_back(proposal);
    }

    async fn start_entries(&mut self) {
        while !self.waiting.is_empty() {
            let may_start = match self.in_flight.len() {
                0 => true,
                n if n < self.options.pipeline_entries_max => {
                    self.waiting_bytes >= self.options.pipeline_bytes_min
                }
                _ => false,
            };
            if !may_start {
                return;
            }
            self.start_entry().await;
        }
    }

    /// Takes the payloads of the next entry from the queue.
    fn next_batch(
        &mut self,
    ) -> (Vec<Bytes>, Vec<(oneshot::Sender<Result<S::Output, ProposeError>>, OwnedSemaphorePermit)>, bool)
    {
        let (mut payloads, mut waiting) = (Vec::new(), Vec::new());
        let mut bytes = 0;
        let mut alone = false;
        let bytes_max = self.options.batch_bytes_max.min(self.store.options().batch_bytes_max());
        while let Some(next) = self.waiting.front() {
            let next_bytes = next.payload.len() + Batch::LENGTH_BYTES;
            let fits = bytes + next_bytes <= bytes_max
                && payloads.len() < self.options.batch_payloads_max
                && !next.alone;
            if !payloads.is_empty() && !fits {
                break;
            }
            let Some(next) = self.waiting.pop_front() else { break };
            bytes += next_bytes;
            self.waiting_bytes -= next.payload.len();
            payloads.push(next.payload);
            waiting.push((next.done, next._room));
            alone = next.alone;
            if alone {
                break;
            }
        }
        (payloads, waiting, alone)
    }

    async fn start_entry(&mut self) {
        let (payloads, waiting, alone) = self.next_batch();
        let bytes = payloads.iter().map(|p| p.len() + Batch::LENGTH_BYTES).sum();
        let refuse = |waiting: Vec<(oneshot::Sender<_>, _)>, error: &ProposeError| {
            waiting.into_iter().for_each(|(done, _)| drop(done.send(Err(error.clone()))));
        };
        if self.deposed().is_some() {
            let leader = known_leader(&self.raft).filter(|(id, _)| *id != self.raft_node());
            return refuse(waiting, &ProposeError::NotLeader { leader });
        }
        let space = match self.store.reserve(bytes, alone) {
            Ok(space) => space,
            Err(NoRoom::Disk(reason)) => return refuse(waiting, &ProposeError::DiskFull(reason)),
            Err(NoRoom::Log { bytes, max, pinned_by }) => {
                return refuse(waiting, &ProposeError::LogFull { bytes, max, pinned_by });
            }
        };
        match self.raft.client_write_ff(Batch(payloads.into())).await {
            Ok(result) => self.in_flight.push_back(InFlight { result, waiting, _space: space }),
            Err(fatal) => refuse(waiting, &ProposeError::Stopped(fatal.to_string())),
        }
    }

    fn complete(
        &self,
        entry: InFlight<S::Output>,
        result: Result<ClientWriteResult<TypeConfig>, oneshot::error::RecvError>,
    ) {
        let outputs: Result<Outputs, ProposeError> = match result {
            Ok(Ok(written)) => Ok(written.data),
            // Also when another leader's entry took the place of this one in the log here. A third member may still hold it, and
            // commit it when it is elected.
            Ok(Err(other)) => Err(ProposeError::Unknown(other.to_string())),
            Err(_) => Err(ProposeError::Unknown(self.why_stopped())),
        };
        let outputs = outputs.and_then(|o| {
            let typed = o.0.and_then(|any| any.downcast::<Vec<S::Output>>().ok());
            typed.ok_or_else(|| ProposeError::Unknown("the entry gave no outputs".to_owned()))
        });
        match outputs {
            // One output a payload: `Erased::apply_batch` maps them.
            Ok(outputs) => {
                for ((done, _), output) in entry.waiting.into_iter().zip(*outputs) {
                    let _ = done.send(Ok(output));
                }
            }
            Err(error) => {
                for (done, _) in entry.waiting {
                    let _ = done.send(Err(error.clone()));
                }
            }
        }
    }

    fn raft_node(&self) -> NodeId {
        self.raft.metrics().borrow().id
    }

    fn why_stopped(&self) -> String {
        if let Some(reason) = self.store.poisoned() {
            return reason;
        }
        match &self.raft.metrics().borrow().running_state {
            Err(fatal) => fatal.to_string(),
            Ok(()) => "the group stopped".to_owned(),
        }
    }
}

/// The result of the oldest entry; never ready when there is none. Entries are committed in their order.
async fn first_result<O>(
    in_flight: &mut VecDeque<InFlight<O>>,
) -> Result<ClientWriteResult<TypeConfig>, oneshot::error::RecvError> {
    match in_flight.front_mut() {
        Some(entry) => (&mut entry.result).await,
        None => std::future::pending().await,
    }
}
