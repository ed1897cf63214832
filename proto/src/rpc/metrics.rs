//! Counters of both sides.

use std::{
    fmt::Write,
    sync::atomic::{AtomicU64, Ordering},
};

use super::Method;

/// Counters of [`super::RemoteShards`] or [`super::ShardServer`], by method.
#[derive(Debug, Default)]
pub struct RpcMetrics {
    counters: [Counters; Method::ALL.len()],
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Calls, each counted once however often it was repeated.
    pub(crate) requests: AtomicU64,
    /// Attempts after the first that were not redirects.
    pub(crate) retries: AtomicU64,
    /// Attempts at the leader that a node named.
    pub(crate) redirects: AtomicU64,
    /// Calls that ended with an error.
    pub(crate) errors: AtomicU64,
}

/// Adds one.
pub(crate) fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl RpcMetrics {
    pub(crate) fn of(&self, method: Method) -> &Counters {
        &self.counters[method as usize]
    }

    fn sum(&self, counter: impl Fn(&Counters) -> &AtomicU64) -> u64 {
        self.counters.iter().map(|c| counter(c).load(Ordering::Relaxed)).sum()
    }

    /// Calls of all methods.
    pub fn requests(&self) -> u64 {
        self.sum(|c| &c.requests)
    }

    /// Attempts after the first, of all methods, that did not follow a redirect. Always 0 for a server.
    pub fn retries(&self) -> u64 {
        self.sum(|c| &c.retries)
    }

    /// Attempts of all methods at the leader that a node named. Always 0 for a server.
    pub fn redirects(&self) -> u64 {
        self.sum(|c| &c.redirects)
    }

    /// Calls of all methods that ended with an error; for a server these include refusals by which clients find the leader.
    pub fn errors(&self) -> u64 {
        self.sum(|c| &c.errors)
    }

    /// Appends a client's counters as Prometheus text.
    pub fn render_client(&self, out: &mut String) {
        let name = "sextant_shard_client";
        self.family(out, name, "requests", "Calls of shards on other nodes.", |c| &c.requests);
        self.family(out, name, "retries", "Attempts that repeated a call without an answer.", |c| &c.retries);
        self.family(out, name, "redirects", "Attempts at the leader that a node named.", |c| &c.redirects);
        self.family(out, name, "errors", "Calls of shards that ended with an error.", |c| &c.errors);
    }

    /// Appends a server's counters as Prometheus text.
    pub fn render_server(&self, out: &mut String) {
        let name = "sextant_shard_server";
        self.family(out, name, "requests", "Requests of other nodes for shards.", |c| &c.requests);
        self.family(out, name, "errors", "Requests for shards that were refused or failed.", |c| &c.errors);
    }

    fn family(
        &self,
        out: &mut String,
        prefix: &str,
        name: &str,
        help: &str,
        counter: impl Fn(&Counters) -> &AtomicU64,
    ) {
        let name = format!("{prefix}_{name}_total");
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} counter");
        for method in Method::ALL {
            let (label, value) = (method.label(), counter(self.of(method)).load(Ordering::Relaxed));
            let _ = writeln!(out, "{name}{{method=\"{label}\"}} {value}");
        }
    }
}
