//! End-to-end tests: the roles together, and the binary as a user meets it.

mod binary;
mod clients;
mod conformance;
mod crash;
mod http_api;
mod stack;
