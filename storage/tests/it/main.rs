//! Tests of the whole crate over memory, a local folder and, where it is installed, an S3 server.

mod round_trip;
mod support;
