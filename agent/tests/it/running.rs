//! An agent that scrapes, and the sink that it writes to.

use std::{sync::Arc, time::Duration};

use sextant_agent::{Agent, AgentConfig, ScrapeConfigs};
use tokio::sync::watch;

use crate::target_double::Recorder;

/// An agent that runs and collects nothing of this host.
pub struct Running {
    /// What it has written.
    pub sink: Arc<Recorder>,
    /// The agent.
    pub agent: Arc<Agent>,
    stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

impl Running {
    /// Starts one with a configuration.
    pub fn start(yaml: &str) -> Self {
        let scrapes = ScrapeConfigs::from_yaml(yaml).expect("a valid configuration");
        let sink = Arc::new(Recorder::default());
        let config = AgentConfig { host_metrics: false, ..AgentConfig::default() };
        Self::of(Agent::new(config, sink.clone()).with_scrapes(scrapes), sink)
    }

    /// Runs an agent.
    pub fn of(agent: Agent, sink: Arc<Recorder>) -> Self {
        let agent = Arc::new(agent);
        let (stop, stopped) = watch::channel(false);
        let run = Arc::clone(&agent);
        let task = tokio::spawn(async move { run.run(stopped).await });
        Self { sink, agent, stop, task }
    }

    /// Stops it and waits until it has ended.
    pub async fn end(self) -> Arc<Recorder> {
        self.stop.send(true).expect("the agent runs");
        self.task.await.expect("the agent ends");
        self.sink
    }

    /// The value of one of the agent's own metrics.
    pub fn metric(&self, name: &str) -> f64 {
        let mut text = String::new();
        self.agent.render_metrics(&mut text);
        let line = text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|v| v.parse().ok()).unwrap_or_else(|| panic!("no metric {name}"))
    }

    /// Waits until the last error of the only target is as expected, and gives it. A machine under load may let a scrape
    /// run out of time before.
    pub async fn error(&self, is_expected: impl Fn(&str) -> bool) -> String {
        let mut last = String::new();
        for _ in 0..1000 {
            if let [target] = self.agent.targets().active_targets.as_slice() {
                last.clone_from(&target.last_error);
                if is_expected(&last) {
                    return last;
                }
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the last error is {last:?}");
    }
}
