//! What is told of targets, and, where Prometheus is installed, that it tells the same of the same configuration.

use std::{
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::{Value, json};
use sextant_agent::{Agent, RelabelStepsError, TargetStates};
use sextant_model::Matcher;

use crate::{
    running::Running,
    target_double::{Answer, target},
};

const PROGRAM: &str = "prometheus";
const BODY: &str = "# HELP a_total Counts.\n# TYPE a_total counter\na_total 1\n# TYPE b gauge\nb 2\n";

/// A port that nobody listens on.
fn closed() -> String {
    TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound").to_string()
}

fn yaml(up: &str, down: &str) -> String {
    format!(
        r#"
global: {{scrape_interval: 1s500ms, scrape_timeout: 1s}}
scrape_configs:
- job_name: a
  params: {{module: [x, y]}}
  static_configs:
  - targets: ["{up}", "{down}"]
    labels: {{zone: z}}
  - targets: ["dropped:1", "dropped:2"]
    labels: {{drop: "yes"}}
  relabel_configs:
  - {{source_labels: [drop], regex: "yes", action: drop}}
  - {{source_labels: [__address__, zone], target_label: place}}
- job_name: all_dropped
  scrape_interval: 90s
  static_configs: [{{targets: ["dropped:3"]}}]
  relabel_configs: [{{action: drop}}]
- job_name: empty
"#
    )
}

/// Waits until both targets of job `a` have been scraped, and the one that answers is up.
async fn scraped(report: impl AsyncFn() -> Value) {
    for _ in 0..600 {
        let report = report().await;
        let targets = report["activeTargets"].as_array().cloned().unwrap_or_default();
        if targets.len() == 2
            && targets.iter().all(|t| t["health"] != "unknown")
            && targets.iter().any(|t| t["health"] == "up")
        {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the targets were not scraped");
}

async fn agent_scraped(agent: &Agent) {
    scraped(async || agent.targets_json(TargetStates::Any, None)).await;
}

#[tokio::test]
async fn states_and_pools_are_told_apart() {
    let (up, _) = target(|_, _| Answer::text(BODY)).await;
    let down = closed();
    let running = Running::start(&yaml(&up, &down));
    let agent = &running.agent;
    agent_scraped(agent).await;

    let all = agent.targets_json(TargetStates::from_parameter(""), None);
    let target = |address: &str| {
        let found = all["activeTargets"].as_array().expect("a list").iter();
        found.into_iter().find(|t| t["labels"]["instance"] == address).expect("the target").clone()
    };
    let good = target(&up);
    assert_eq!(good["health"], "up");
    assert_eq!(good["lastError"], "");
    assert_eq!(good["scrapePool"], "a");
    assert_eq!(good["scrapeUrl"], format!("http://{up}/metrics?module=x&module=y"));
    assert_eq!((&good["scrapeInterval"], &good["scrapeTimeout"]), (&json!("1s500ms"), &json!("1s")));
    assert!(good["lastScrapeDuration"].as_f64().is_some_and(|s| s > 0.0), "{good}");
    let expected = json!({"instance": up, "job": "a", "zone": "z", "place": format!("{up};z")});
    assert_eq!(good["labels"], expected);
    let expected = json!({
        "__address__": up, "__metrics_path__": "/metrics", "__param_module": "x", "__scheme__": "http",
        "__scrape_interval__": "1s500ms", "__scrape_timeout__": "1s", "job": "a", "zone": "z",
    });
    assert_eq!(good["discoveredLabels"], expected);
    let bad = target(&down);
    assert_eq!(bad["health"], "down");
    assert!(bad["lastError"].as_str().is_some_and(|e| !e.is_empty()), "{bad}");

    let sizes = |value: &Value| {
        let of = |key: &str| value[key].as_array().expect("a list").len();
        (of("activeTargets"), of("droppedTargets"))
    };
    let counts = json!({"a": 2, "all_dropped": 1, "empty": 0});
    assert_eq!((sizes(&all), &all["droppedTargetCounts"]), ((2, 3), &counts));
    for (state, pool, expected, has_counts) in [
        ("any", None, (2, 3), true),
        ("ACTIVE", None, (2, 0), false),
        ("dropped", None, (0, 3), true),
        ("other", None, (0, 0), false),
        ("", Some("all_dropped"), (0, 1), true),
        ("", Some("none"), (0, 0), true),
    ] {
        let value = agent.targets_json(TargetStates::from_parameter(state), pool);
        assert_eq!(sizes(&value), expected, "{state} {pool:?}");
        assert_eq!(value["droppedTargetCounts"] == counts, has_counts, "{state} {pool:?}");
    }
    assert_eq!(agent.scrape_pools(), ["a", "all_dropped", "empty"]);
    running.end().await;
}

#[tokio::test]
async fn metadata_of_targets() {
    let (up, _) = target(|_, _| Answer::text(BODY)).await;
    let running = Running::start(&yaml(&up, &closed()));
    let agent = &running.agent;
    agent_scraped(agent).await;
    let labels = json!({"instance": up, "job": "a", "zone": "z", "place": format!("{up};z")});
    let a = json!({"target": labels, "metric": "a_total", "type": "counter", "help": "Counts.", "unit": ""});
    let b = json!({"target": labels, "metric": "b", "type": "gauge", "help": "", "unit": ""});
    assert_eq!(agent.targets_metadata_json(&[], None, None), json!([a, b]));
    assert_eq!(agent.targets_metadata_json(&[Matcher::equal("job", "c")], None, None), json!([]));
    assert_eq!(agent.targets_metadata_json(&[], None, Some(0)), json!([]));
    let one = json!({"target": labels, "type": "gauge", "help": "", "unit": ""});
    assert_eq!(agent.targets_metadata_json(&[Matcher::equal("job", "a")], Some("b"), None), json!([one]));
    running.end().await;
}

#[tokio::test]
async fn steps_of_relabelling() {
    let (up, _) = target(|_, _| Answer::text(BODY)).await;
    let running = Running::start(&yaml(&up, &closed()));
    let agent = &running.agent;
    agent_scraped(agent).await;
    let steps = |labels: &str| agent.relabel_steps_json("a", labels);
    let drop = json!({
        "source_labels": ["drop"], "separator": ";", "regex": "yes", "replacement": "$1", "action": "drop",
    });
    let place = json!({
        "source_labels": ["__address__", "zone"], "separator": ";", "regex": "(.*)", "target_label": "place",
        "replacement": "$1", "action": "replace",
    });
    let kept = json!({"steps": [
        {"rule": drop, "output": {"zone": "z"}, "keep": true},
        {"rule": place, "output": {"zone": "z", "place": ";z"}, "keep": true},
    ]});
    assert_eq!(steps("{\"zone\":\"z\"}").expect("valid"), kept);
    let dropped = json!({"steps": [
        {"rule": drop, "output": {}, "keep": false},
        {"rule": place, "output": {}, "keep": false},
    ]});
    assert_eq!(steps("{\"drop\":\"yes\"}").expect("valid"), dropped);
    assert!(matches!(steps(""), Err(RelabelStepsError::NoLabels)));
    assert!(matches!(steps("[1]"), Err(RelabelStepsError::Labels(_))));
    assert!(matches!(agent.relabel_steps_json("", "{}"), Err(RelabelStepsError::NoPool)));
    assert!(matches!(agent.relabel_steps_json("no", "{}"), Err(RelabelStepsError::UnknownPool(_))));
    running.end().await;
}

struct Prometheus {
    process: Child,
    url: String,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Prometheus {
    /// Starts it on a free port; `None`, with a message, where it is not installed.
    fn start(folder: &Path, yaml: &str) -> Option<Self> {
        let config = folder.join("prometheus.yml");
        std::fs::write(&config, yaml).expect("a file");
        let address = closed();
        let mut command = Command::new(PROGRAM);
        command
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        match command.spawn() {
            Ok(process) => Some(Self { process, url: format!("http://{address}/api/v1") }),
            Err(_) => {
                println!("skipped: {PROGRAM} is not installed");
                None
            }
        }
    }

    async fn data(&self, path: &str) -> Value {
        let Ok(response) = reqwest::get(format!("{}{path}", self.url)).await else { return Value::Null };
        let body = response.bytes().await.expect("a body");
        let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
        answer["data"].clone()
    }
}

/// Takes out what differs from scrape to scrape.
fn settle(mut report: Value) -> Value {
    for key in ["activeTargets", "droppedTargets"] {
        let Some(targets) = report[key].as_array_mut() else { continue };
        for target in &mut *targets {
            let Some(target) = target.as_object_mut().filter(|t| t.contains_key("lastScrape")) else {
                continue;
            };
            let failed = target["lastError"] != "";
            target.insert("lastError".into(), json!(failed));
            target.insert("lastScrape".into(), json!(target["lastScrape"].is_string()));
            target.insert("lastScrapeDuration".into(), json!(target["lastScrapeDuration"].is_number()));
        }
        targets.sort_by_key(|t| t["discoveredLabels"].to_string());
    }
    report
}

#[tokio::test]
async fn prometheus_tells_the_same() {
    let folder = tempfile::tempdir().expect("a folder");
    let (up, _) = target(|_, _| Answer::text(BODY)).await;
    let yaml = yaml(&up, &closed());
    let Some(prometheus) = Prometheus::start(folder.path(), &yaml) else { return };
    scraped(async || prometheus.data("/targets").await).await;
    let running = Running::start(&yaml);
    let agent = &running.agent;
    agent_scraped(agent).await;
    for state in ["", "any", "active", "Dropped", "other"] {
        for pool in ["", "a", "all_dropped", "none"] {
            let theirs = prometheus.data(&format!("/targets?state={state}&scrapePool={pool}")).await;
            let asked = Some(pool).filter(|p| !p.is_empty());
            let ours = settle(agent.targets_json(TargetStates::from_parameter(state), asked));
            assert_eq!(ours, settle(theirs), "{state} {pool}");
        }
    }
    assert_eq!(prometheus.data("/scrape_pools").await["scrapePools"], json!(agent.scrape_pools()));
    let a = Matcher::equal("job", "a");
    for (query, matchers, metric, limit) in [
        ("", &[][..], None, None),
        ("match_target={job=\"a\"}&metric=b", &[a][..], Some("b"), None),
        ("match_target={job=\"b\"}", &[Matcher::equal("job", "b")][..], None, None),
        ("metric=none", &[][..], Some("none"), None),
        ("limit=0", &[][..], None, Some(0)),
        ("limit=1", &[][..], None, Some(1)),
    ] {
        let sorted = |mut value: Value| {
            if let Some(list) = value.as_array_mut() {
                list.sort_by_key(Value::to_string);
            }
            value
        };
        let theirs = prometheus.data(&format!("/targets/metadata?{query}")).await;
        let ours = agent.targets_metadata_json(matchers, metric, limit);
        assert_eq!(sorted(ours), sorted(theirs), "{query}");
    }
    running.end().await;
}
