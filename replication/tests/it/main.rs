//! The replicated log from outside: what survives, what is refused, and what comes back exactly once.

mod basics;
mod cluster;
mod crash;
mod damage;
mod faults;
mod grpc_cluster;
mod metadata;
mod nodes;
mod recycling;
mod replay;
mod support;
