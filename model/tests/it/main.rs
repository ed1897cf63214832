//! Tests of the crate from outside: conformance suites of native histograms, and the byte codec.
//!
//! Suites are looked for in `SEXTANT_CONFORMANCE`, else beside the workspace; without them their tests pass and say so.

mod codec;
mod suite;

mod classic;
mod names_and_matching;
mod native_histograms;
mod promql;
