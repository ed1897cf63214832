//! The ingester.
#![forbid(unsafe_code)]
pub mod head;
