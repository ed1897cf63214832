//! The agent's tests that need its public interface only.

mod bad_input;
mod conformance;
mod exposition;
mod families;
mod host;
mod node_exporter;
mod relabel;
mod reload;
mod running;
mod scrape;
mod scrape_keys;
mod target_double;
mod targets;
mod tls;
