//! Raft's requests between nodes, over gRPC.
//!
//! One service, `sextant.replication.v1.Raft`, carries the requests of all groups over one connection per address. Its
//! messages are not protobuf: a message is a frame of our own (`transport::codec`), because payloads must go from the socket to the log without being
//! copied more than once, and be told apart without being looked into.
//!
//! [`RaftService`] is the server's side: a registry of the groups open on this node. [`GrpcNetwork`] is the client's. Both know
//! the cluster's id and their node's, so that an address that was given to somebody else is noticed.

mod client;
mod codec;
mod frame;
mod server;

pub use client::{Connect, GrpcNetwork, GrpcNetworkOptions, endpoint, plain_connect};
pub use codec::fuzz_decode_message;
pub use server::RaftService;

/// Version of the messages: the first byte of each. A node reads every version up to its own, and writes the lowest that can say
/// what it has to say, so that nodes of two releases understand each other during an upgrade.
pub(crate) const VERSION: u8 = 1;

/// Default bound of one message. The largest entry is half a segment (32 MiB by default), and a request has either one entry
/// or a few MiB of them; a checkpoint is small.
pub(crate) const MESSAGE_BYTES_MAX: usize = 48 << 20;

/// HTTP/2 flow-control window of a stream, in bytes: one whole request of the usual size, so that it does not wait for window updates. Servers
/// should be built with it too (`initial_stream_window_size`).
pub const STREAM_WINDOW_BYTES: u32 = 8 << 20;

/// HTTP/2 flow-control window of a connection, in bytes; see [`STREAM_WINDOW_BYTES`].
pub const CONNECTION_WINDOW_BYTES: u32 = 32 << 20;
