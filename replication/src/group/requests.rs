//! What a group does with the requests of its other members.

use std::sync::{Arc, atomic::Ordering};

use async_trait::async_trait;
use openraft::{Snapshot, SnapshotMeta};

use crate::{
    AppendRequest, BallotRequest, CheckpointRequest, Group, HandOverRequest, Handler, NoAnswer, ReadError,
    Reply, Request, StateMachine, applier,
    checkpoint::{self, Position},
    group::opening::blocking,
    store::{NoRoom, entry_bytes},
    types::Vote,
};

fn refused(error: impl ToString) -> NoAnswer {
    NoAnswer::Refused(error.to_string())
}

#[async_trait]
impl<S: StateMachine> Handler for Group<S> {
    async fn handle(&self, request: Request) -> Result<Reply, NoAnswer> {
        match request {
            Request::Append(append) => self.on_append(append).await,
            Request::Ballot(ballot) => self.on_ballot(ballot).await,
            Request::Checkpoint(checkpoint) => self.on_checkpoint(checkpoint).await.map(Reply::Checkpoint),
            Request::HandOver(hand_over) => self.on_hand_over(&hand_over).await,
            Request::ReadIndex => match self.read_barrier().await {
                Ok(index) => Ok(Reply::ReadIndex(index)),
                Err(ReadError::NotLeader { leader }) => Err(NoAnswer::NotLeader(leader.map(|(id, _)| id))),
                Err(other) => Err(refused(other)),
            },
        }
    }
}

impl<S: StateMachine> Group<S> {
    /// Entries for which there is no disk space are refused here: openraft could not take them back, and the group would
    /// stop.
    async fn on_append(&self, request: AppendRequest) -> Result<Reply, NoAnswer> {
        let bytes: usize = request.entries.iter().map(entry_bytes).sum();
        let reserved = match self.inner.store.reserve(bytes, true) {
            Ok(reserved) => Some(reserved),
            Err(_) if request.entries.is_empty() => None,
            Err(NoRoom::Disk(reason)) => return Err(refused(format!("no disk space: {reason}"))),
            Err(NoRoom::Log { .. }) => return Err(refused("the log is full")),
        };
        let reply = self.inner.raft.append_entries(request).await.map_err(refused);
        drop(reserved);
        reply.map(Reply::Append)
    }

    async fn on_ballot(&self, ballot: BallotRequest) -> Result<Reply, NoAnswer> {
        if ballot.hand_over {
            self.forget_lease(&ballot).await?;
        }
        self.inner.raft.vote(ballot.request).await.map(Reply::Ballot).map_err(refused)
    }

    /// A voter that heard from its leader refuses other candidates until the lease ends, and openraft 0.9 knows no exception. But
    /// the lease is that of a committed vote, and any request with a higher vote replaces it: a checkpoint of nothing in the
    /// candidate's name leaves the voter with the uncommitted vote that a granted ballot would, and changes nothing else. The
    /// ballot itself, with its check of the log, follows.
    async fn forget_lease(&self, ballot: &BallotRequest) -> Result<(), NoAnswer> {
        let request = &ballot.request;
        let (vote, last) = {
            let state = self.inner.log.state.lock();
            (state.vote, state.last_log_id())
        };
        if request.vote.committed || vote >= Some(request.vote) || request.last_log_id < last {
            return Ok(());
        }
        let nothing = Snapshot { meta: SnapshotMeta::default(), snapshot: Box::default() };
        self.inner.raft.install_full_snapshot(request.vote, nothing).await.map(|_| ()).map_err(refused)
    }

    async fn on_hand_over(&self, request: &HandOverRequest) -> Result<Reply, NoAnswer> {
        let inner = &self.inner;
        let (vote, last) = {
            let state = inner.log.state.lock();
            (state.vote, state.last_log_id())
        };
        if vote != Some(request.vote) {
            return Err(refused("the sender does not lead this member"));
        }
        if last < request.last {
            return Err(refused("this member lacks entries of its leader"));
        }
        inner.network.hand_over_term.store(request.vote.leader_id.term + 1, Ordering::Release);
        inner.raft.trigger().elect().await.map_err(refused)?;
        Ok(Reply::HandOver)
    }

    /// Makes the leader's checkpoint this member's own, then lets Raft take it up. The answer is this member's vote: the
    /// sender's, unless that does not lead any more.
    ///
    /// | a crash after | leaves, when the group is opened again |
    /// |---|---|
    /// | the write of the file | the checkpoint before, and the log: as if nothing had been received |
    /// | the rename | the new checkpoint; the log, of which `open` purges what it covers |
    /// | the purge | the new checkpoint, and the log behind it |
    async fn on_checkpoint(&self, request: CheckpointRequest) -> Result<Vote, NoAnswer> {
        let inner = &self.inner;
        let own_vote = inner.raft.metrics().borrow().vote;
        if own_vote > request.vote {
            return Ok(own_vote);
        }
        let (position, _) = checkpoint::decode(&request.file, inner.id).map_err(refused)?;
        let _one_at_a_time = inner.checkpointing.lock().await;
        if self.is_ahead(&position) {
            let (store, id, file) = (inner.store.clone(), inner.id, request.file.clone());
            let write = blocking(move || {
                let hook = Arc::clone(&store.options().fault_hook);
                checkpoint::replace(store.dir(), id, &[&file], &hook)?;
                hook("checkpoint.before_install")
            });
            write.await.map_err(refused)?.map_err(refused)?;
        }
        let snapshot = applier::snapshot(&position, request.file);
        let reply = inner.raft.install_full_snapshot(request.vote, snapshot).await;
        reply.map(|r| r.vote).map_err(refused)
    }

    /// Whether the checkpoint covers more than this member has applied.
    fn is_ahead(&self, position: &Position) -> bool {
        let progress = &self.inner.progress;
        position.log_id.index > progress.last_applied() && Some(position.log_id) > progress.checkpoint()
    }
}
