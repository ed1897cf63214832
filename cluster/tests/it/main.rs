//! A cluster of ingesters in one process: real gRPC on loopback, real logs, one object store.

mod nodes;
mod support;
