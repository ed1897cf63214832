//! The cluster as its processes see it: who they are, how a cluster comes to be, who holds which shard, and what moves.
//!
//! Constraints
//! - A cluster is made once, by the first of the listed peers, and only when all of them have said that there is none. So a peer
//!   that lost its disk never makes a second one: the others know of the first.
//! - A process's identity is its data folder ([`Identity`]). An ingester that lost its disk is a new member.
//! - Where shards are is decided by the metadata's state alone; an ingester opens what the state or the driver says, and closes
//!   only what the driver says, after the group has let it go.
//! - What a process knows of the placement may be old: ingesters refuse what is not theirs and name who leads.
//!
//! ```text
//! IngesterNode::new(NodeOptions, Identity, Ingester, RaftService)   one per ingester process
//!     .service()      the gRPC service `sextant.v1.Cluster`          .run()   joins, then tends shards until dropped
//! Discovery::start(peers, ClusterClient)   the state and the placement, for processes that hold no replica of the metadata
//! status::collect(…)                       what `sextant status` prints
//! ```

#![forbid(unsafe_code)]

mod admin;
mod client;
mod discovery;
mod identity;
mod message;
mod metrics;
mod node;
mod presence;
mod service;
pub mod status;

pub use admin::RemoteAdmin;
pub use client::{CallError, ClusterClient};
pub use discovery::Discovery;
pub use identity::{Identity, IdentityError, cluster_id};
pub use message::{Action, MESSAGE_VERSION, Refusal, Reply, Request};
pub use metrics::{Obstacle, render_example};
pub use node::{IngesterNode, NodeOptions};
pub use presence::Presence;
pub use service::ClusterService;
