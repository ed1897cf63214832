//! The cluster's metadata: one more Raft group, whose state says who is a member, which nodes hold each shard, and what the
//! roles share (tenants, limits, tokens, rules, silences; leases).
//!
//! Constraints: the state is a pure function of the commands ([`State::apply`]); time and randomness come in commands, from the
//! proposer. Its size is bounded, and so is its checkpoint, which is the whole state. Where shards should be is decided by
//! a pure function of the state ([`plan`]); the [`Driver`] on the group's leader carries it out through [`ShardAdmin`].
//!
//! Format: commands and checkpoints are JSON with a version. A member that meets a command newer than itself stops applying
//! ([`CommandError::Unsupported`]) instead of going on with another state than the others; so a new kind of command is
//! proposed only when all members know it.

mod command;
mod driver;
mod group;
mod machine;
mod placement;
mod state;

pub use command::{Command, CommandError, MemberInfo};
pub use driver::{AdminError, Driver, DriverOptions, Moving, ShardAdmin, ShardStatus};
pub use group::{MetadataError, MetadataGroup, MetadataOptions};
pub use machine::MetadataMachine;
pub use placement::{Move, PlanOptions, plan};
pub use state::{ClusterInfo, Lease, MemberRecord, MemberState, ShardRecord, State, Value};

use crate::GroupId;

/// The metadata's group. Shards count from 0, so it is out of their way.
pub const METADATA_GROUP: GroupId = GroupId(u64::MAX);

/// The role whose members hold shards.
pub const INGESTER: &str = "ingester";

/// Longest value of the key-value part, in bytes.
pub const VALUE_BYTES_MAX: usize = 1 << 20;

/// Bound of all keys and values together, in bytes: a checkpoint must fit a message.
pub const VALUES_BYTES_MAX: u64 = 16 << 20;
