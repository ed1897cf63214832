//! What the Prometheus API tells of targets: the agent of this process is asked.

use std::{sync::Arc, time::SystemTime};

use sextant_agent::Agent;
use sextant_model::Matcher;
use sextant_querier::http::{TargetStates, TargetsSource};

/// The agent of this process.
pub struct AgentTargets(pub Arc<Agent>);

impl TargetsSource for AgentTargets {
    fn targets(&self, states: TargetStates, pool: Option<&str>) -> String {
        let states = match (states.active, states.dropped) {
            (true, true) => sextant_agent::TargetStates::Any,
            (true, false) => sextant_agent::TargetStates::Active,
            (false, true) => sextant_agent::TargetStates::Dropped,
            (false, false) => sextant_agent::TargetStates::None,
        };
        self.0.targets_json(states, pool).to_string()
    }

    fn scrape_pools(&self) -> Vec<String> {
        self.0.scrape_pools()
    }

    fn metadata(&self, matchers: &[Matcher], metric: Option<&str>, limit: Option<usize>) -> String {
        self.0.targets_metadata_json(matchers, metric, limit).to_string()
    }

    fn relabel_steps(&self, pool: &str, labels: &str) -> Result<String, String> {
        self.0.relabel_steps_json(pool, labels).map(|v| v.to_string()).map_err(|e| e.to_string())
    }

    fn last_reload(&self) -> (bool, Option<SystemTime>) {
        let last = self.0.last_reload();
        // Before the first one is applied nothing has gone wrong.
        (last.successful || last.taken.is_none(), last.taken)
    }
}
