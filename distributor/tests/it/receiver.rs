//! The receiver seen from both ends: messages byte by byte on one side, shards that keep the contract on the other.

mod bad_input;
mod encode;
mod end_to_end;
mod histograms;
mod limits;
mod shards;
mod sink;
