//! The file of scrape configurations while the agent runs: what it says is taken when it changes.

use std::{fs, path::Path, sync::Arc, time::Duration};

use sextant_agent::{Agent, AgentConfig, AgentError, LastReload};
use sextant_model::is_stale_nan;

use crate::{
    running::Running,
    target_double::{Answer, Recorder, target},
};

const SUCCESSFUL: &str = "sextant_agent_config_last_reload_successful";

fn config(path: &Path) -> AgentConfig {
    AgentConfig {
        host_metrics: false,
        scrape_config_file: Some(path.to_owned()),
        scrape_config_poll: Duration::from_millis(20),
        ..AgentConfig::default()
    }
}

fn yaml(job: &str, address: &str, more: &str) -> String {
    format!(
        "scrape_configs:\n- job_name: {job}\n  scrape_interval: 50ms\n  \
         static_configs: [{{targets: [\"{address}\"]}}]\n{more}"
    )
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    for _ in 0..1000 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("did not happen: {what}");
}

#[tokio::test]
async fn what_the_file_says_is_taken_when_it_changes() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("scrape.yml");
    let (address, _) = target(|_, _| Answer::text("a 1\n")).await;
    fs::write(&path, yaml("first", &address, "")).expect("a file");
    let sink = Arc::new(Recorder::default());
    let agent = Agent::open(config(&path), sink.clone()).await.expect("a valid file");
    let running = Running::of(agent, sink);
    let up = |job: &str| format!("up{{instance=\"{address}\", job=\"{job}\"}}");
    running.sink.wait(&up("first"), 1).await;
    assert_eq!(running.metric(SUCCESSFUL), 1.0);
    assert!(running.metric("sextant_agent_config_last_reload_success_timestamp_seconds") > 1e9);

    fs::write(&path, yaml("second", &address, "")).expect("a file");
    running.sink.wait(&up("second"), 1).await;
    assert_eq!(running.agent.scrape_pools(), ["second"]);

    // A file that is wrong changes nothing but the metric; so does one that is gone.
    fs::write(&path, yaml("third", &address, "  scrape_intervall: 1s\n")).expect("a file");
    until("the wrong file is noticed", || running.metric(SUCCESSFUL) == 0.0).await;
    let before = running.sink.of(&up("second")).len();
    running.sink.wait(&up("second"), before + 2).await;
    assert_eq!(running.agent.scrape_pools(), ["second"]);
    let error = running.agent.reload().await.expect_err("the file is wrong").to_string();
    assert!(error.contains("\"scrape_intervall\", did you mean \"scrape_interval\"?"), "{error}");

    // What was in force before is in the file again.
    fs::write(&path, yaml("second", &address, "")).expect("a file");
    until("the file is right again", || running.metric(SUCCESSFUL) == 1.0).await;
    fs::remove_file(&path).expect("the file is there");
    until("the file is gone", || running.metric(SUCCESSFUL) == 0.0).await;
    fs::write(&path, yaml("second", &address, "")).expect("a file");
    until("the file is back", || running.metric(SUCCESSFUL) == 1.0).await;

    // A configuration that only a client can refuse is refused all the same.
    fs::write(&path, yaml("fourth", &address, "  tls_config: {ca_file: /nowhere/ca.pem}\n")).expect("a file");
    until("the certificate is missed", || running.metric(SUCCESSFUL) == 0.0).await;
    assert_eq!(running.agent.scrape_pools(), ["second"]);
    let values = running.end().await.values(&up("second"));
    assert!(!values.iter().copied().any(is_stale_nan), "{values:?}");
}

#[tokio::test]
async fn a_file_that_is_wrong_at_the_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("scrape.yml");
    let open = async || Agent::open(config(&path), Arc::new(Recorder::default())).await.map(drop);
    assert!(matches!(open().await, Err(AgentError::ReadConfig { .. })));
    fs::write(&path, "scrape_configs: [{}]").expect("a file");
    assert!(matches!(open().await, Err(AgentError::Config(_))));
    fs::write(&path, yaml("j", "localhost:1", "  tls_config: {ca_file: /nowhere/ca.pem}\n")).expect("a file");
    assert!(matches!(open().await, Err(AgentError::Client { .. })));

    // An agent that was not opened with it waits for it to be right.
    let sink = Arc::new(Recorder::default());
    let running = Running::of(Agent::new(config(&path), sink.clone()), sink);
    let (address, _) = target(|_, _| Answer::text("a 1\n")).await;
    fs::write(&path, yaml("j", &address, "")).expect("a file");
    running.sink.wait(&format!("up{{instance=\"{address}\", job=\"j\"}}"), 1).await;
    assert_eq!(running.metric(SUCCESSFUL), 1.0);
    running.end().await;
}

#[tokio::test]
async fn intervals_that_labels_of_a_target_set_are_taken() {
    let (address, _) = target(|_, _| Answer::text("a 1\n")).await;
    let yaml = |interval: &str| {
        format!(
            "scrape_configs:\n- job_name: j\n  static_configs:\n  - targets: [\"{address}\"]\n    \
             labels: {{__scrape_interval__: {interval}, __scrape_timeout__: 50ms}}\n"
        )
    };
    let running = Running::start(&yaml("1h"));
    until("the target is there", || !running.agent.targets().active_targets.is_empty()).await;
    let scrapes = sextant_agent::ScrapeConfigs::from_yaml(&yaml("50ms")).expect("valid");
    running.agent.set_scrapes(scrapes).await.expect("the agent runs");
    running.sink.wait(&format!("up{{instance=\"{address}\", job=\"j\"}}"), 2).await;
    assert_eq!(running.agent.targets().active_targets[0].scrape_interval, "50ms");
    running.end().await;
}

#[tokio::test]
async fn a_reload_reads_the_file_at_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("scrape.yml");
    let (address, _) = target(|_, _| Answer::text("a 1\n")).await;
    fs::write(&path, yaml("first", &address, "")).expect("a file");
    let sink = Arc::new(Recorder::default());
    // The file is looked at when the agent starts, and not again by itself.
    let config = AgentConfig { scrape_config_poll: Duration::from_secs(86_400), ..config(&path) };
    let agent = Agent::open(config, sink.clone()).await.expect("a valid file");
    assert_eq!(agent.last_reload(), LastReload { successful: false, taken: None });
    let running = Running::of(agent, sink);
    let up = |job: &str| format!("up{{instance=\"{address}\", job=\"{job}\"}}");
    running.sink.wait(&up("first"), 1).await;
    let started = running.agent.last_reload();
    assert!(started.successful && started.taken.is_some(), "{started:?}");

    fs::write(&path, yaml("second", &address, "")).expect("a file");
    running.agent.reload().await.expect("a valid file");
    assert_eq!(running.agent.scrape_pools(), ["second"]);
    let taken = running.agent.last_reload();
    assert!(taken.successful && taken.taken >= started.taken, "{taken:?}");
    // A file that says what it said is taken again.
    running.agent.reload().await.expect("a valid file");

    fs::write(&path, yaml("third", &address, "  relabel_configs: [{action: none}]\n")).expect("a file");
    let error = running.agent.reload().await.expect_err("the file is wrong").to_string();
    assert!(error.contains("unknown relabel action \"none\""), "{error}");
    assert_eq!(running.agent.scrape_pools(), ["second"]);
    let refused = running.agent.last_reload();
    assert!(!refused.successful && refused.taken >= taken.taken, "{refused:?}");
    fs::remove_file(&path).expect("the file is there");
    assert!(matches!(running.agent.reload().await, Err(AgentError::ReadConfig { .. })));

    fs::write(&path, yaml("second", &address, "")).expect("a file");
    running.agent.reload().await.expect("a valid file");
    assert!(running.agent.last_reload().successful);
    let agent = running.agent.clone();
    running.end().await;
    assert!(matches!(agent.reload().await, Err(AgentError::NotRunning)));
}

#[tokio::test]
async fn without_a_file_there_is_nothing_to_reload() {
    let running = Running::start("scrape_configs: []");
    assert!(matches!(running.agent.reload().await, Err(AgentError::NoConfigFile)));
    assert!(running.agent.last_reload().successful);
    running.end().await;
}
