//! Linearizable reads: the leader asks a majority whether it still leads, and tells up to where to apply.
//!
//! A round with the majority takes a request to every member, so callers share them. A caller may only use a round that
//! began after its call: the one under way may have read the commit position before a write that the caller knows of.

use std::sync::Arc;

use openraft::{
    Raft,
    error::{CheckIsLeaderError, RaftError},
};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::{
    Group, NoAnswer, ReadError, Reply, Request, StateMachine, proposer::known_leader, types::TypeConfig,
};

type Waiter = oneshot::Sender<Result<u64, ReadError>>;

/// Callers that wait for the next round.
#[derive(Default)]
pub(crate) struct Rounds {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    is_running: bool,
    waiting: Vec<Waiter>,
}

impl Rounds {
    /// Queues a caller; returns whether somebody has to run the rounds.
    fn join(&self, waiter: Waiter) -> bool {
        let mut state = self.state.lock();
        state.waiting.push(waiter);
        !std::mem::replace(&mut state.is_running, true)
    }

    /// The callers of the next round; with none of them the rounds end.
    fn next(&self) -> Vec<Waiter> {
        let mut state = self.state.lock();
        state.is_running = !state.waiting.is_empty();
        std::mem::take(&mut state.waiting)
    }

    async fn run(self: Arc<Self>, raft: Raft<TypeConfig>) {
        loop {
            let waiting = self.next();
            if waiting.is_empty() {
                return;
            }
            let result = confirm(&raft).await;
            waiting.into_iter().for_each(|w| drop(w.send(result.clone())));
        }
    }
}

/// One round: the index up to which a reader has to see the state.
async fn confirm(raft: &Raft<TypeConfig>) -> Result<u64, ReadError> {
    match raft.get_read_log_id().await {
        Ok((read, _)) => Ok(read.map_or(0, |l| l.index)),
        Err(RaftError::APIError(CheckIsLeaderError::ForwardToLeader(_))) => {
            let own = raft.metrics().borrow().id;
            Err(ReadError::NotLeader { leader: known_leader(raft).filter(|(id, _)| *id != own) })
        }
        Err(RaftError::APIError(e)) => Err(ReadError::Unconfirmed(e.to_string())),
        Err(RaftError::Fatal(e)) => Err(ReadError::Stopped(e.to_string())),
    }
}

impl<S: StateMachine> Group<S> {
    /// On the leader: waits until the state machine has everything that was acknowledged before this call, wherever it was, and gives
    /// the index up to which it is applied. Callers at the same time share one round with the majority; with a single
    /// voter there is none.
    pub async fn read_barrier(&self) -> Result<u64, ReadError> {
        let inner = &self.inner;
        let (waiter, result) = oneshot::channel();
        if inner.rounds.join(waiter) {
            tokio::spawn(Arc::clone(&inner.rounds).run(inner.raft.clone()));
        }
        let index = result.await.unwrap_or_else(|_| Err(ReadError::Stopped("the round ended".to_owned())))?;
        self.wait_applied(index).await?;
        Ok(index)
    }

    /// The same on any member: a follower asks the leader for the index, then waits until it has applied it itself.
    pub async fn read_index(&self) -> Result<u64, ReadError> {
        if self.is_leader() {
            return self.read_barrier().await;
        }
        let Some((leader, member)) = self.leader() else {
            return Err(ReadError::NotLeader { leader: None });
        };
        let network = &self.inner.network;
        let index = match network.network.send(self.id(), leader, &member, Request::ReadIndex).await {
            Ok(Reply::ReadIndex(index)) => index,
            Ok(_) => return Err(ReadError::Unconfirmed("not the answer to a read index".to_owned())),
            Err(NoAnswer::NotLeader(_)) => return Err(ReadError::NotLeader { leader: self.leader() }),
            Err(other) => return Err(ReadError::Unconfirmed(format!("node {leader}: {other}"))),
        };
        self.wait_applied(index).await?;
        Ok(index)
    }

    /// Waits until everything up to `index` is applied here.
    pub async fn wait_applied(&self, index: u64) -> Result<(), ReadError> {
        if self.last_applied() >= index {
            return Ok(());
        }
        let mut metrics = self.inner.raft.metrics();
        let reached = |m: &openraft::RaftMetrics<_, _>| {
            m.running_state.is_err() || m.last_applied.is_some_and(|l| l.index >= index)
        };
        match metrics.wait_for(reached).await {
            Ok(m) => m.running_state.as_ref().map(|_| ()).map_err(|e| ReadError::Stopped(e.to_string())),
            Err(_) => Err(ReadError::Stopped("raft has ended".to_owned())),
        }
    }
}
