//! Shards over gRPC on loopback: nodes whose shards are fakes with one shared state, as replicas have.

mod nodes;
mod proxy;
mod rpc_faults;
mod rpc_messages;
