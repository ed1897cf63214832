//! This host's metrics beside those of the node_exporter that is installed: names, types and label sets must agree.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::TcpListener,
    process::{Child, Command, Stdio},
    time::Duration,
};

use sextant_agent::{
    exposition::{family::MetricFamily, text_to_families},
    host::{HostMetrics, HostPaths},
};

const PROGRAM: &str = "prometheus-node-exporter";

/// Names, or beginnings of names with `*`, that only one side has, and why.
const EXCEPTED: &[(&str, &str)] = &[
    ("go_*", "the Go runtime of that process"),
    ("promhttp_*", "the HTTP handler of that process"),
    ("process_network_*", "of that process' client library, newer than the names that all libraries share"),
    ("node_exporter_build_info", "that program itself"),
    ("node_textfile_*", "files of samples are not read"),
    ("node_netstat_TcpExt_TCPOFOQueue", "newer than the release that Debian 12 has"),
    ("node_netstat_TcpExt_TCPRcvQDrop", "newer than the release that Debian 12 has"),
    ("node_softnet_backlog_len", "newer than the release that Debian 12 has"),
    ("node_softnet_cpu_collision_total", "newer than the release that Debian 12 has"),
    ("node_softnet_flow_limit_count_total", "newer than the release that Debian 12 has"),
    ("node_softnet_received_rps_total", "newer than the release that Debian 12 has"),
    ("node_scrape_collector_*", "collectors are cut differently"),
    ("node_timex_*", "needs a reader of adjtimex, which the process that links the agent gives"),
];

/// node_exporter's own defaults, which Debian's package changes.
const DEFAULTS: &[&str] = &[
    "--collector.netdev.device-exclude=^$",
    "--collector.filesystem.mount-points-exclude=^/(dev|proc|run/credentials/.+|sys|var/lib/docker/.+|var/lib/containers/storage/.+)($|/)",
];

struct Exporter(Child);

impl Drop for Exporter {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

type Series = BTreeSet<Vec<(String, String)>>;

async fn exporter_families() -> Option<Vec<MetricFamily>> {
    let free = TcpListener::bind("127.0.0.1:0").ok()?.local_addr().ok()?;
    let mut command = Command::new(PROGRAM);
    command
        .args(DEFAULTS)
        .arg(format!("--web.listen-address={free}"))
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let Ok(child) = command.spawn() else {
        println!("skipped: {PROGRAM} is not installed");
        return None;
    };
    let _exporter = Exporter(child);
    for _ in 0..100 {
        if let Ok(response) = reqwest::get(format!("http://{free}/metrics")).await {
            let body = response.bytes().await.expect("a body");
            return Some(text_to_families(&body).expect("node_exporter's answer is valid"));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{PROGRAM} did not answer");
}

fn excepted(name: &str) -> bool {
    EXCEPTED.iter().any(|(pattern, _)| match pattern.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => name == *pattern,
    })
}

fn theirs(families: &[MetricFamily]) -> BTreeMap<String, (String, Series)> {
    let series = |f: &MetricFamily| f.metric.iter().map(|m| sorted(&m.label)).collect();
    let type_name =
        |f: &MetricFamily| format!("{:?}", f.r#type()).to_lowercase().replace("untyped", "unknown");
    families.iter().map(|f| (f.name().to_owned(), (type_name(f), series(f)))).collect()
}

fn sorted(labels: &[sextant_agent::exposition::family::LabelPair]) -> Vec<(String, String)> {
    let mut pairs: Vec<_> = labels.iter().map(|l| (l.name().to_owned(), l.value().to_owned())).collect();
    pairs.retain(|(_, v)| !v.is_empty());
    pairs.sort();
    pairs
}

fn ours() -> BTreeMap<String, (String, Series)> {
    let mut host = HostMetrics::new(HostPaths::default(), None);
    let families = host.collect().families;
    let one = |labels: &[(&'static str, String)]| {
        let mut pairs: Vec<_> = labels.iter().map(|(n, v)| ((*n).to_owned(), v.clone())).collect();
        pairs.retain(|(_, v)| !v.is_empty());
        pairs.sort();
        pairs
    };
    let entry = |f: &sextant_agent::host::HostFamily| {
        let series = f.samples.iter().map(|s| one(&s.labels)).collect();
        (f.name.to_string(), (f.metric_type.as_str().to_owned(), series))
    };
    families.iter().map(entry).collect()
}

#[tokio::test]
async fn names_types_and_labels_agree() {
    let Some(families) = exporter_families().await else { return };
    let (theirs, ours) = (theirs(&families), ours());
    let mut wrong = Vec::new();
    let names: BTreeSet<&String> = theirs.keys().chain(ours.keys()).filter(|n| !excepted(n)).collect();
    for name in &names {
        match (theirs.get(*name), ours.get(*name)) {
            (Some(_), None) => wrong.push(format!("{name}: missing")),
            (None, Some(_)) => wrong.push(format!("{name}: only here")),
            (Some(t), Some(o)) if t.0 != o.0 => wrong.push(format!("{name}: {} there, {} here", t.0, o.0)),
            (Some(t), Some(o)) if t.1 != o.1 => {
                let (there, here) = (t.1.difference(&o.1).next(), o.1.difference(&t.1).next());
                wrong.push(format!("{name}: there {there:?}, here {here:?}"));
            }
            _ => {}
        }
    }
    println!("{} names compared, {} wrong", names.len(), wrong.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
