//! This host's metrics beside those of the node_exporter that is installed: names, types, help, label sets and stable
//! values must agree.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::TcpListener,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use sextant_agent::{
    Agent, AgentConfig, ScrapeConfigs,
    exposition::{label_pairs, text_to_families},
    host::{HostFamily, HostMetrics, HostPaths, HostSample, kernel_clock},
};
use sextant_model::Labels;
use sextant_proto::metric_family::{Metric, MetricFamily};
use tokio::sync::watch;

use crate::target_double::Recorder;

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

/// What is compared of a family.
struct Family {
    metric_type: String,
    help: String,
    values: BTreeMap<Vec<(String, String)>, f64>,
}

/// Values that do not move while both sides are read, and by how much they may differ.
const STABLE: &[(&str, f64)] = &[
    ("node_boot_time_seconds", 1.0),
    ("node_disk_info", 0.0),
    ("node_filefd_maximum", 0.0),
    ("node_filesystem_files", 0.0),
    ("node_filesystem_readonly", 0.0),
    ("node_filesystem_size_bytes", 0.0),
    ("node_memory_Hugepagesize_bytes", 0.0),
    ("node_memory_MemTotal_bytes", 0.0),
    ("node_memory_SwapTotal_bytes", 0.0),
    ("node_network_flags", 0.0),
    ("node_network_iface_id", 0.0),
    ("node_network_mtu_bytes", 0.0),
    ("node_network_protocol_type", 0.0),
    ("node_network_speed_bytes", 0.0),
    ("node_network_up", 0.0),
    ("node_nf_conntrack_entries_limit", 0.0),
    ("node_os_version", 0.0),
    ("node_time_seconds", 30.0),
    ("node_time_zone_offset_seconds", 0.0),
    ("node_timex_estimated_error_seconds", 1.0),
    ("node_timex_frequency_adjustment_ratio", 1e-3),
    ("node_timex_loop_time_constant", 0.0),
    ("node_timex_maxerror_seconds", 1.0),
    ("node_timex_offset_seconds", 0.5),
    ("node_timex_pps_calibration_total", 0.0),
    ("node_timex_pps_error_total", 0.0),
    ("node_timex_pps_frequency_hertz", 1e-3),
    ("node_timex_pps_jitter_seconds", 1e-3),
    ("node_timex_pps_jitter_total", 0.0),
    ("node_timex_pps_shift_seconds", 0.0),
    ("node_timex_pps_stability_exceeded_total", 0.0),
    ("node_timex_pps_stability_hertz", 1e-3),
    ("node_timex_status", 0.0),
    ("node_timex_sync_status", 0.0),
    ("node_timex_tai_offset_seconds", 0.0),
    ("node_timex_tick_seconds", 0.0),
    ("node_uname_info", 0.0),
];

/// Starts the program on a free port; `None`, with a message, where it is not installed.
async fn exporter() -> Option<(Exporter, String)> {
    let free = TcpListener::bind("127.0.0.1:0").ok()?.local_addr().ok()?.to_string();
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
    let exporter = Exporter(child);
    for _ in 0..100 {
        if reqwest::get(format!("http://{free}/")).await.is_ok() {
            return Some((exporter, free));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{PROGRAM} did not answer");
}

async fn exporter_families(address: &str) -> Vec<MetricFamily> {
    let response = reqwest::get(format!("http://{address}/metrics")).await.expect("an answer");
    let body = response.bytes().await.expect("a body");
    text_to_families(&body).expect("node_exporter's answer is valid")
}

fn excepted(name: &str) -> bool {
    EXCEPTED.iter().any(|(pattern, _)| match pattern.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => name == *pattern,
    })
}

fn theirs(families: &[MetricFamily]) -> BTreeMap<String, Family> {
    let value = |m: &Metric| {
        let simple = m.gauge.as_ref().and_then(|g| g.value).or(m.counter.as_ref().and_then(|c| c.value));
        simple.or(m.untyped.as_ref().and_then(|u| u.value)).unwrap_or(f64::NAN)
    };
    let family = |f: &MetricFamily| Family {
        metric_type: format!("{:?}", f.r#type()).to_lowercase().replace("untyped", "unknown"),
        help: f.help().to_owned(),
        values: f.metric.iter().map(|m| (sorted(label_pairs(&m.label)), value(m))).collect(),
    };
    families.iter().map(|f| (f.name().to_owned(), family(f))).collect()
}

fn sorted<'a>(labels: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<(String, String)> {
    let mut pairs: Vec<_> =
        labels.filter(|(_, v)| !v.is_empty()).map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
    pairs.sort();
    pairs
}

fn ours() -> BTreeMap<String, Family> {
    let family = |f: HostFamily| {
        let labels = |s: &HostSample| sorted(s.labels.iter().map(|(n, v)| (*n, v.as_str())));
        let compared = Family {
            metric_type: f.metric_type.as_str().to_owned(),
            help: f.help.to_string(),
            values: f.samples.iter().map(|s| (labels(s), s.value)).collect(),
        };
        (f.name.to_string(), compared)
    };
    HostMetrics::new(HostPaths::default(), kernel_clock())
        .collect()
        .families
        .into_iter()
        .map(family)
        .collect()
}

fn compare(name: &str, theirs: Option<&Family>, ours: Option<&Family>) -> Option<String> {
    let (t, o) = match (theirs, ours) {
        (Some(t), Some(o)) => (t, o),
        (Some(_), None) => return Some(format!("{name}: missing")),
        (None, _) => return Some(format!("{name}: only here")),
    };
    if (&t.metric_type, &t.help) != (&o.metric_type, &o.help) {
        return Some(format!(
            "{name}: {} {:?} there, {} {:?} here",
            t.metric_type, t.help, o.metric_type, o.help
        ));
    }
    if !t.values.keys().eq(o.values.keys()) {
        let there = t.values.keys().find(|k| !o.values.contains_key(*k));
        let here = o.values.keys().find(|k| !t.values.contains_key(*k));
        return Some(format!("{name}: there {there:?}, here {here:?}"));
    }
    let (_, tolerance) = STABLE.iter().find(|(n, _)| *n == name)?;
    let mut pairs = t.values.values().zip(o.values.values());
    pairs.find(|(t, o)| (**t - **o).abs() > *tolerance).map(|(t, o)| format!("{name}: {t} there, {o} here"))
}

#[tokio::test]
async fn names_types_help_labels_and_stable_values_agree() {
    let Some((_exporter, address)) = exporter().await else { return };
    let (theirs, ours) = (theirs(&exporter_families(&address).await), ours());
    let names: BTreeSet<&String> = theirs.keys().chain(ours.keys()).filter(|n| !excepted(n)).collect();
    let wrong: Vec<String> = names.iter().filter_map(|n| compare(n, theirs.get(*n), ours.get(*n))).collect();
    println!("{} names compared, {} wrong", names.len(), wrong.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The scraper asks node_exporter for protobuf; what comes of it must be what its text says.
#[tokio::test]
async fn its_protobuf_is_scraped_as_its_text_says() {
    let Some((_exporter, address)) = exporter().await else { return };
    let yaml = format!(
        "scrape_configs: [{{job_name: n, scrape_interval: 1s, static_configs: [{{targets: [\"{address}\"]}}]}}]"
    );
    let scrapes = ScrapeConfigs::from_yaml(&yaml).expect("a valid configuration");
    let sink = Arc::new(Recorder::default());
    let config = AgentConfig { host_metrics: false, ..AgentConfig::default() };
    let agent = Arc::new(Agent::new(config, sink.clone()).with_scrapes(scrapes));
    let (stop, stopped) = watch::channel(false);
    let run = Arc::clone(&agent);
    let task = tokio::spawn(async move { run.run(stopped).await });
    sink.wait(&format!("up{{instance=\"{address}\", job=\"n\"}}"), 1).await;
    stop.send(true).expect("the agent runs");
    task.await.expect("the agent ends");

    let families = exporter_families(&address).await;
    let mut missing = Vec::new();
    let mut compared = 0;
    for family in families.iter().filter(|f| f.name().starts_with("node_")) {
        for metric in &family.metric {
            let own = [("__name__", family.name()), ("instance", address.as_str()), ("job", "n")];
            let pairs = label_pairs(&metric.label).chain(own);
            let labels = Labels::from_pairs(pairs).expect("unique names").to_string();
            compared += 1;
            if sink.values(&labels).is_empty() {
                missing.push(labels);
            }
        }
    }
    println!("{compared} series compared, {} missing", missing.len());
    assert!(missing.is_empty() && compared > 100, "{compared} compared, missing: {missing:#?}");
}
