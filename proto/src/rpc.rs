//! Roles in different processes call each other through the traits that the roles of one process implement.
//!
//! One service, `sextant.v1.Shards`, stands before a node's shards: [`ShardServer`] over [`LocalShards`]. [`RemoteShards`] is a
//! [`crate::ShardClient`] over many such nodes: it finds each shard's leader by a [`Placement`], follows refusals to it, and repeats until
//! its deadline what was not answered. Repeating is safe: writes carry ids, reads change nothing.
//!
//! Messages are not protobuf but bytes of our own (`rpc::wire`), because a write batch must go from the socket to the log
//! without being looked into, and samples should be neither copied one by one nor larger than they are. Appends and deletions are
//! unary. Reads are streams in parts of about a MiB; the answer's headers are sent when the leader has passed its read barrier, so
//! a caller can tell a node that hangs from a read that takes long.
//!
//! **Architecture Invariant:** an answer is whole or an error. A shard that cannot be reached is an error, never less data.

mod client;
mod frame;
mod local;
mod metrics;
mod server;
pub(crate) mod wire;

pub use client::{
    CONNECTION_WINDOW_BYTES, Connect, FixedPlacement, Placement, PlacementView, RemoteOptions, RemoteShards,
    Replica, STREAM_WINDOW_BYTES, ShardPlacement, endpoint, plain_connect,
};
pub use frame::{Frame, FrameCodec};
pub use local::{Leader, LocalError, LocalShards};
pub use metrics::RpcMetrics;
pub use server::ShardServer;

/// The version of the protocol that this release writes, and the highest it reads: the first byte of every message.
pub const VERSION: u8 = 1;

/// The most bytes of one message, either way: a batch that is larger is refused, an answer is sent in parts.
pub const MESSAGE_BYTES_MAX: usize = 32 << 20;

/// About how many bytes a part of an answer has.
pub(crate) const PART_BYTES: usize = 1 << 20;

/// Details of statuses and the texts of errors stay below what HTTP/2 headers may have.
pub(crate) const STATUS_TEXT_MAX: usize = 256;

/// The service's methods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Method {
    Append,
    Delete,
    Select,
    Find,
    Series,
    LabelValues,
    Exemplars,
    Metadata,
    Stats,
    Tenants,
}

impl Method {
    pub(crate) const ALL: [Self; 10] = [
        Self::Append,
        Self::Delete,
        Self::Select,
        Self::Find,
        Self::Series,
        Self::LabelValues,
        Self::Exemplars,
        Self::Metadata,
        Self::Stats,
        Self::Tenants,
    ];

    /// The path of its requests, and the value of `method` in metrics.
    const fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Append => ("/sextant.v1.Shards/Append", "append"),
            Self::Delete => ("/sextant.v1.Shards/Delete", "delete"),
            Self::Select => ("/sextant.v1.Shards/Select", "select"),
            Self::Find => ("/sextant.v1.Shards/Find", "find"),
            Self::Series => ("/sextant.v1.Shards/Series", "series"),
            Self::LabelValues => ("/sextant.v1.Shards/LabelValues", "label_values"),
            Self::Exemplars => ("/sextant.v1.Shards/Exemplars", "exemplars"),
            Self::Metadata => ("/sextant.v1.Shards/Metadata", "metadata"),
            Self::Stats => ("/sextant.v1.Shards/Stats", "stats"),
            Self::Tenants => ("/sextant.v1.Shards/Tenants", "tenants"),
        }
    }

    pub(crate) const fn path(self) -> &'static str {
        self.names().0
    }

    pub(crate) const fn label(self) -> &'static str {
        self.names().1
    }

    pub(crate) fn of_path(path: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|m| m.path() == path)
    }

    /// Whether the answer is one message.
    pub(crate) const fn is_unary(self) -> bool {
        matches!(self, Self::Append | Self::Delete)
    }
}
