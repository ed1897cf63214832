//! Tests of the whole crate over memory, a local folder and, where it is installed, an S3 server.

mod bad_input;
mod damage;
mod deletions;
mod kills;
mod manifests;
mod merging;
mod other_engines;
mod round_trip;
mod s3;
mod support;
