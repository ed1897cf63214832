//! The agent's own loop over this host, on files of a test.

use std::{fs, sync::Arc, time::Duration};

use sextant_agent::{Agent, AgentConfig, host::HostPaths};
use sextant_model::is_stale_nan;
use tokio::sync::watch;

use crate::target_double::Recorder;

#[tokio::test]
async fn host_metrics_are_written_and_end_with_their_source() {
    let root = tempfile::tempdir().expect("a folder");
    let path = |name: &str| root.path().join(name);
    for name in ["proc", "sys", "root"] {
        fs::create_dir(path(name)).expect("a folder");
    }
    fs::write(path("proc/loadavg"), "0.25 0.5 1 2/345 6789\n").expect("a file");
    let config = AgentConfig {
        host_interval: Duration::from_millis(30),
        host_instance: Some("n1".into()),
        paths: HostPaths { proc: path("proc"), sys: path("sys"), rootfs: path("root") },
        ..AgentConfig::default()
    };
    let sink = Arc::new(Recorder::default());
    let agent = Arc::new(Agent::new(config, sink.clone()));
    let (stop, stopped) = watch::channel(false);
    let run = Arc::clone(&agent);
    let task = tokio::spawn(async move { run.run(stopped).await });

    let load = "node_load1{instance=\"n1\", job=\"node\"}";
    sink.wait(load, 1).await;
    fs::remove_file(path("proc/loadavg")).expect("the file is there");
    let success = "node_scrape_collector_success{collector=\"loadavg\", instance=\"n1\", job=\"node\"}";
    let rounds = sink.of(success).len();
    sink.wait(success, rounds + 2).await;
    stop.send(true).expect("the agent runs");
    task.await.expect("the agent ends");

    let values = sink.values(load);
    assert_eq!(values[0], 0.25);
    assert_eq!(values.iter().filter(|v| is_stale_nan(**v)).count(), 1, "{values:?}");
    assert_eq!(sink.values(success).last(), Some(&0.0));
    assert!(sink.values("up{instance=\"n1\", job=\"node\"}").iter().all(|v| *v == 1.0));
    let mut text = String::new();
    agent.render_metrics(&mut text);
    assert!(text.contains("sextant_agent_host_collections_total "), "{text}");
}
