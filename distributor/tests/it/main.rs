//! The distributor against shards in memory, and against the published conformance cases.

mod cases;
mod equality;
// The benchmark uses it too, each its own part.
#[allow(dead_code)]
mod fake;
mod limits;
mod otlp;
mod otlp_bad_input;
mod otlp_grpc;
mod otlp_input;
mod otlp_receiver;
mod receiver;
mod remote_write;
mod rng;
mod send;
