//! Tests of the whole crate over memory, a local folder and, where it is installed, an S3 server.

mod damage;
mod kills;
mod manifests;
mod merging;
mod round_trip;
mod support;
