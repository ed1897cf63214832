//! The replicated log: openraft groups over one log store per node.
//!
//! Constraints: a payload is acknowledged when a majority has synced it and it is applied here; every acknowledged payload is
//! applied exactly once and in one order, on every member and after every restart; memory and log size are bounded. This
//! crate never looks into a shard's payload and never knows what a state machine does with it.
//!
//! The way of a payload: [`Group::propose`] → `proposer` (payloads become entries) → openraft → `raft_log` → the writer thread
//! of [`LogStore`] (one write and one sync for all groups) → openraft → `network` and [`transport`] → the same on the
//! followers → openraft → `applier` → [`StateMachine::apply`] → the proposer's caller.
//!
//! [`metadata`] is one group's state machine: who is a member, who holds which shard, and what moves.
//!
//! The formats are described where they are read: `record`, `segment`, `membership`, `checkpoint`, `transport::codec`. Recovery is in
//! `store::recovery` (the log) and `group` (the state).

#![forbid(unsafe_code)]

mod applier;
mod checkpoint;
mod config;
mod error;
mod group;
mod machine;
mod membership;
pub mod metadata;
mod network;
mod proposer;
mod raft_log;
mod record;
mod segment;
mod store;
pub mod transport;
mod types;

pub use config::{Bootstrap, FaultHook, GroupOptions, StoreOptions, SyncMode};
pub use error::{
    CheckpointError, MembershipError, OpenError, ProposeError, ReadError, RestoreError, StoreError,
    TransferError,
};
pub use group::{CatchUp, FollowerMetrics, Group, GroupMetrics};
pub use machine::StateMachine;
pub use network::{
    AppendReply, AppendRequest, BallotReply, BallotRequest, CheckpointRequest, ClusterId, HandOverRequest,
    Handler, Network, NoAnswer, NoNetwork, Reply, Request,
};
#[doc(hidden)]
pub use store::fuzz_decode_segment;
pub use store::{LogStore, StoreStats};
pub use types::{Batch, GroupId, Member, NodeId, Outputs, TypeConfig};

#[doc(hidden)]
pub use transport::fuzz_decode_message;

/// Decodes any bytes as a checkpoint; for fuzzing. Never panics, whatever the bytes.
#[doc(hidden)]
pub fn fuzz_decode_checkpoint(bytes: &[u8]) {
    checkpoint::fuzz_decode_checkpoint(bytes);
}
