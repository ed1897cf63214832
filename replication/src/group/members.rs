//! Changes of a group's members, and of its leader.
//!
//! openraft changes voters through joint consensus: a first entry with both sets, a second with the new one. A leader that
//! dies in between leaves the joint set in force; repeating the call at the next leader ends it. So every method here may be
//! repeated until it succeeds.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use openraft::{
    ChangeMembers, RaftMetrics, ServerState,
    error::{ChangeMembershipError, ClientWriteError, RaftError},
};

use crate::{Group, HandOverRequest, Member, MembershipError, NodeId, Request, StateMachine, TransferError};

/// How far a new learner has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CatchUp {
    /// It had all entries of the leader at one moment.
    Done,
    /// It lacked this many entries when the time was over. Replication goes on.
    Lagging(u64),
}

type Changed = RaftError<NodeId, ClientWriteError<NodeId, Member>>;

impl<S: StateMachine> Group<S> {
    /// Adds a member without a vote, unless it is one already, and waits up to `within` until it has caught up. The member
    /// must open the group with [`crate::Bootstrap::Join`]; it gets the leader's checkpoint and the log behind it.
    ///
    /// A node that lost its disk must come back under a new id: with the old one it would vote without what it acknowledged.
    pub async fn add_learner(
        &self,
        node: NodeId,
        member: Member,
        within: Duration,
    ) -> Result<CatchUp, MembershipError> {
        let deadline = tokio::time::Instant::now() + within;
        if !self.members().iter().any(|(id, known)| *id == node && *known == member) {
            let nodes = BTreeMap::from([(node, member)]);
            // A known node with another address is a change of its address.
            let is_known = self.members().iter().any(|(id, _)| *id == node);
            let change =
                if is_known { ChangeMembers::SetNodes(nodes) } else { ChangeMembers::AddNodes(nodes) };
            self.change(change, true, within).await?;
        }
        let mut metrics = self.inner.raft.metrics();
        let lag = |m: &RaftMetrics<NodeId, Member>| {
            let next = m.last_log_index.map_or(0, |i| i + 1);
            let matched = m.replication.as_ref().and_then(|r| r.get(&node).copied().flatten());
            next.saturating_sub(matched.map_or(0, |l| l.index + 1))
        };
        let settled = metrics.wait_for(|m| {
            m.running_state.is_err()
                || m.state != ServerState::Leader
                || (m.membership_config.membership().get_node(&node).is_some() && lag(m) == 0)
        });
        match tokio::time::timeout_at(deadline, settled).await {
            Err(_) => Ok(CatchUp::Lagging(lag(&self.inner.raft.metrics().borrow()))),
            Ok(Err(_)) => Err(MembershipError::Stopped("raft has ended".to_owned())),
            Ok(Ok(m)) if m.running_state.is_err() => {
                Err(MembershipError::Stopped(format!("{:?}", m.running_state)))
            }
            Ok(Ok(m)) if m.state == ServerState::Leader => Ok(CatchUp::Done),
            Ok(Ok(_)) => Err(MembershipError::NotLeader { leader: self.leader() }),
        }
    }

    /// Makes exactly these members the voters. They must be members already; voters that are not among them leave the group, and
    /// learners stay. Waits up to `within` for the confirmation of a majority of both the old and the new voters.
    pub async fn change_voters(
        &self,
        voters: BTreeSet<NodeId>,
        within: Duration,
    ) -> Result<(), MembershipError> {
        {
            let metrics = self.inner.raft.server_metrics();
            let metrics = metrics.borrow();
            let now = metrics.membership_config.membership();
            if metrics.state == ServerState::Leader && now.get_joint_config() == &vec![voters.clone()] {
                return Ok(());
            }
        }
        self.change(ChangeMembers::ReplaceAllVoters(voters), false, within).await
    }

    /// Takes a member out of the group, whether it has a vote or not. Nothing happens when it is no member.
    pub async fn remove(&self, node: NodeId, within: Duration) -> Result<(), MembershipError> {
        let (is_voter, is_member) = {
            let metrics = self.inner.raft.server_metrics();
            let metrics = metrics.borrow();
            let now = metrics.membership_config.membership();
            (now.voter_ids().any(|id| id == node), now.get_node(&node).is_some())
        };
        if is_voter {
            self.change(ChangeMembers::RemoveVoters([node].into()), false, within).await
        } else if is_member {
            self.change(ChangeMembers::RemoveNodes([node].into()), false, within).await
        } else if self.is_leader() {
            Ok(())
        } else {
            Err(MembershipError::NotLeader { leader: self.leader() })
        }
    }

    /// Tells the group where a member is now. The node must be the same: id and disk.
    pub async fn update_address(
        &self,
        node: NodeId,
        member: Member,
        within: Duration,
    ) -> Result<(), MembershipError> {
        match self.members().into_iter().find(|(id, _)| *id == node) {
            None => Err(MembershipError::Invalid(format!("node {node} is not a member"))),
            Some((_, known)) if known == member => Ok(()),
            Some(_) => {
                self.change(ChangeMembers::SetNodes(BTreeMap::from([(node, member)])), true, within).await
            }
        }
    }

    async fn change(
        &self,
        change: ChangeMembers<NodeId, Member>,
        retain: bool,
        within: Duration,
    ) -> Result<(), MembershipError> {
        // openraft would look for a change under way first, and a follower may not know yet that the last one is over.
        if !self.is_leader() {
            return Err(MembershipError::NotLeader { leader: self.leader() });
        }
        // openraft must see the end of a change that it began, also when the caller does not wait for it.
        let raft = self.inner.raft.clone();
        let change = tokio::spawn(async move { raft.change_membership(change, retain).await });
        match tokio::time::timeout(within, change).await {
            Err(_) => Err(MembershipError::TimedOut(within)),
            Ok(Err(ended)) => Err(MembershipError::Stopped(ended.to_string())),
            Ok(Ok(result)) => result.map(|_| ()).map_err(|e| self.membership_error(e)),
        }
    }

    fn membership_error(&self, error: Changed) -> MembershipError {
        let error = match error {
            RaftError::Fatal(fatal) => return MembershipError::Stopped(fatal.to_string()),
            RaftError::APIError(ClientWriteError::ForwardToLeader(_)) => {
                let own = self.node();
                return MembershipError::NotLeader { leader: self.leader().filter(|(id, _)| *id != own) };
            }
            RaftError::APIError(ClientWriteError::ChangeMembershipError(e)) => e,
        };
        match error {
            ChangeMembershipError::InProgress(e) => MembershipError::InProgress(e.to_string()),
            other => MembershipError::Invalid(other.to_string()),
        }
    }

    /// Makes another voter the leader: lets it catch up while proposals wait here, then has it stand for election. Proposals
    /// that waited get [`crate::ProposeError::NotLeader`]. Returns when the other leads, as far as this node knows; at
    /// the latest after `within`.
    pub async fn transfer_leadership(&self, to: NodeId, within: Duration) -> Result<(), TransferError> {
        let inner = &self.inner;
        let deadline = tokio::time::Instant::now() + within;
        if !self.is_leader() {
            return Err(TransferError::NotLeader { leader: self.leader() });
        }
        if to == self.node() {
            return Ok(());
        }
        let failed = |reason: String| TransferError::Failed { node: to, reason };
        let Some((_, member)) = self.members().into_iter().find(|(id, _)| *id == to) else {
            return Err(TransferError::NotVoter(to));
        };
        let mut metrics = inner.raft.metrics();
        if !metrics.borrow().membership_config.membership().voter_ids().any(|id| id == to) {
            return Err(TransferError::NotVoter(to));
        }
        let Some(_pause) = inner.desk.pause() else {
            return Err(failed("leadership is being handed over already".to_owned()));
        };
        let lag = |m: &RaftMetrics<NodeId, Member>| {
            let matched = m.replication.as_ref().and_then(|r| r.get(&to).copied().flatten());
            let applied = m.last_applied.map(|l| l.index);
            // All of this leader's entries are committed, so none of them depends on who leads.
            let uncommitted = m.last_log_index.unwrap_or(0).saturating_sub(applied.unwrap_or(0));
            m.last_log_index.unwrap_or(0).saturating_sub(matched.map_or(0, |l| l.index)).max(uncommitted)
        };
        let caught_up = metrics
            .wait_for(|m| m.state != ServerState::Leader || (lag(m) == 0 && inner.desk.in_flight() == 0));
        match tokio::time::timeout_at(deadline, caught_up).await {
            Err(_) => {
                let lag = lag(&inner.raft.metrics().borrow());
                return Err(TransferError::Lagging { node: to, lag });
            }
            Ok(Ok(m)) if m.state == ServerState::Leader => {}
            Ok(_) => return Err(TransferError::NotLeader { leader: self.leader() }),
        }
        let (vote, last) = {
            let state = inner.log.state.lock();
            (state.vote, state.last_log_id())
        };
        let Some(vote) = vote else { return Err(failed("no vote".to_owned())) };
        let request = Request::HandOver(HandOverRequest { vote, last });
        let answer = inner.network.network.send(self.id(), to, &member, request);
        match tokio::time::timeout_at(deadline, answer).await {
            Err(_) => return Err(failed("no answer in time".to_owned())),
            Ok(Err(e)) => return Err(failed(e.to_string())),
            Ok(Ok(_)) => {}
        }
        let mut server = inner.raft.server_metrics();
        let elected = server.wait_for(|m| m.current_leader == Some(to));
        match tokio::time::timeout_at(deadline, elected).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(failed("it was not elected in time".to_owned())),
        }
    }
}
