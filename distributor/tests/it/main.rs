//! The distributor over shards that exist only in memory: what is sent is what arrives, whatever happens in between.

mod bad_input;
mod conformance;
mod encode;
mod end_to_end;
mod histograms;
mod limits;
mod shards;
mod sink;
