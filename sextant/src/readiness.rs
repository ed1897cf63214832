//! What the process still waits for before it is ready, and which shards do not take writes.

use std::{collections::BTreeSet, sync::Arc};

use parking_lot::Mutex;

use crate::shards::Shards;

/// A shared list of things that are not there yet.
#[derive(Clone, Default)]
pub struct Readiness(Arc<Mutex<BTreeSet<&'static str>>>);

impl Readiness {
    /// Waits for the given things.
    pub fn waiting_for(things: &[&'static str]) -> Self {
        Self(Arc::new(Mutex::new(things.iter().copied().collect())))
    }

    /// One of them is there.
    pub fn done(&self, thing: &'static str) {
        self.0.lock().remove(thing);
    }

    /// What is not there yet; empty when ready.
    pub fn missing(&self) -> Vec<&'static str> {
        self.0.lock().iter().copied().collect()
    }
}

/// Everything that keeps the process from being ready, as a person reads it; empty when ready.
pub fn obstacles(ready: &Readiness, shards: &Shards) -> Vec<String> {
    let waiting = ready.missing().into_iter().map(|thing| format!("waiting for: {thing}"));
    waiting.chain(shards.obstacles()).collect()
}
