//! The distributor against shards in memory, and against the published conformance cases.

mod cases;
mod fake;
mod otlp;
mod otlp_input;
