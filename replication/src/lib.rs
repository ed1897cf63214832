//! The replicated log: openraft groups over one log store per node.

#![forbid(unsafe_code)]

mod applier;
mod checkpoint;
mod config;
mod error;
mod group;
mod machine;
mod membership;
mod network;
mod proposer;
mod raft_log;
mod record;
mod segment;
mod store;
mod types;

pub use config::{Bootstrap, FaultHook, GroupOptions, StoreOptions, SyncMode};
pub use error::{CheckpointError, OpenError, ProposeError, RestoreError, StoreError};
pub use group::{Group, GroupMetrics};
pub use machine::StateMachine;
pub use network::{AppendReply, AppendRequest, BallotReply, BallotRequest, Network, NoAnswer, NoNetwork};
#[doc(hidden)]
pub use store::fuzz_decode_segment;
pub use store::{LogStore, StoreStats};
pub use types::{Batch, GroupId, Member, NodeId, Outputs, TypeConfig};
