//! The agent's tests that need its public interface only.

mod bad_input;
mod conformance;
mod exposition;
mod families;
mod host;
mod node_exporter;
mod relabel;
mod scrape;
mod target_double;
