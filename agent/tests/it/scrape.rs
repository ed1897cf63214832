//! Scraping a target over HTTP, to the samples that reach the sink.

use std::{io::Write, sync::Arc, time::Duration};

use prost::Message;
use sextant_agent::{Agent, AgentConfig, ScrapeConfigs};
use sextant_model::{TenantId, is_stale_nan};
use sextant_proto::{
    WriteError, WriteRequest, WriteSink, WriteSummary,
    metric_family::{BucketSpan, FamilyType, Histogram, Metric, MetricFamily, Timestamp},
};
use tokio::sync::watch;

use crate::{
    running::Running,
    target_double::{Answer, target},
};

fn job(address: &str, more: &str) -> String {
    format!(
        "scrape_configs:\n- job_name: j\n  scrape_interval: 100ms\n  scrape_timeout: 100ms\n  \
         static_configs: [{{targets: [\"{address}\"], labels: {{zone: z}}}}]\n{more}"
    )
}

#[tokio::test]
async fn series_that_go_get_staleness_markers() {
    let answer = |_: &str, n: usize| match n {
        0 => Answer::text("a 1\nb{x=\"y\"} 2\n"),
        1 => Answer::text("a 3\n"),
        _ => Answer { status: "500 Internal Server Error", ..Answer::default() },
    };
    let (address, _) = target(answer).await;
    let running = Running::start(&job(&address, ""));
    let id = format!("instance=\"{address}\", job=\"j\"");
    let up = format!("up{{{id}, zone=\"z\"}}");
    running.sink.wait(&up, 3).await;
    let report = running.agent.targets();
    let sink = running.end().await;

    assert_eq!(sink.values(&up)[..3], [1.0, 1.0, 0.0]);
    let a = sink.values(&format!("a{{{id}, zone=\"z\"}}"));
    assert_eq!(a[..2], [1.0, 3.0]);
    assert!(a.len() == 3 && is_stale_nan(a[2]), "{a:?}");
    let b = sink.values(&format!("b{{{id}, x=\"y\", zone=\"z\"}}"));
    assert!(b.len() == 2 && is_stale_nan(b[1]), "{b:?}");
    for (name, expected) in [
        ("scrape_samples_scraped", [2.0, 1.0, 0.0]),
        ("scrape_samples_post_metric_relabeling", [2.0, 1.0, 0.0]),
        ("scrape_series_added", [2.0, 0.0, 0.0]),
    ] {
        assert_eq!(sink.values(&format!("{name}{{{id}, zone=\"z\"}}"))[..3], expected, "{name}");
    }
    // All samples of one scrape have one time, and scrapes are one interval apart.
    let times: Vec<i64> = sink.of(&up).iter().map(|s| s.samples[0].t).collect();
    assert!((times[1] - times[0] - 100).abs() < 50, "{times:?}");
    assert_eq!(report.active_targets[0].last_error, "server returned HTTP status 500 Internal Server Error");
}

#[tokio::test]
async fn labels_are_joined_and_relabelled() {
    let (address, requests) = target(|_, _| Answer::text("a{job=\"own\"} 1\ngone 1\nb 1 1000\n")).await;
    let more = "  params: {q: [\"1 2\"]}\n  basic_auth: {username: u, password: p}\n  metric_relabel_configs:\n  \
                - {source_labels: [__name__], regex: gone, action: drop}\n";
    let yaml = format!("global: {{external_labels: {{cluster: c}}}}\n{}", job(&address, more));
    let running = Running::start(&yaml);
    let id = format!("cluster=\"c\", instance=\"{address}\", job=\"j\"");
    // A series may send what it wants; the target's own labels win.
    let a =
        format!("a{{cluster=\"c\", exported_job=\"own\", instance=\"{address}\", job=\"j\", zone=\"z\"}}");
    running.sink.wait(&a, 1).await;
    let sink = running.end().await;
    assert_eq!(sink.values(&format!("scrape_samples_post_metric_relabeling{{{id}, zone=\"z\"}}"))[0], 2.0);
    assert_eq!(sink.of(&format!("b{{{id}, zone=\"z\"}}"))[0].samples[0].t, 1000);
    let head = requests.lock().expect("not poisoned")[0].to_lowercase();
    assert!(head.starts_with("get /metrics?q=1+2 http/1.1"), "{head}");
    assert!(head.contains("authorization: basic dtpw\r\n"), "{head}");
    assert!(head.contains("accept: application/vnd.google.protobuf;"), "{head}");
    assert!(head.contains("accept-encoding: gzip\r\n"), "{head}");
}

#[tokio::test]
async fn honoured_labels_and_limits() {
    let (address, _) = target(|_, _| Answer::text("a{job=\"own\",zone=\"\"} 1\nb 1\n")).await;
    let running = Running::start(&job(&address, "  honor_labels: true\n"));
    let a = format!("a{{instance=\"{address}\", job=\"own\"}}");
    running.sink.wait(&a, 1).await;
    running.end().await;

    let running = Running::start(&job(&address, "  sample_limit: 1\n"));
    let id = format!("instance=\"{address}\", job=\"j\", zone=\"z\"");
    running.sink.wait(&format!("up{{{id}}}"), 1).await;
    let sink = running.end().await;
    assert_eq!(sink.values(&format!("up{{{id}}}"))[0], 0.0);
    assert!(sink.of(&format!("b{{{id}}}")).is_empty());
}

#[tokio::test]
async fn openmetrics_exemplars_and_start_times() {
    let body =
        "# TYPE c counter\nc_total 5 # {trace_id=\"t\"} 2 3.5\nc_created 123.5\n# TYPE g gauge\ng 1\n# EOF\n";
    let (address, _) =
        target(move |_, _| Answer::ok("application/openmetrics-text; version=1.0.0", body)).await;
    let running = Running::start(&job(&address, ""));
    let id = format!("instance=\"{address}\", job=\"j\", zone=\"z\"");
    running.sink.wait(&format!("c_total{{{id}}}"), 1).await;
    let sink = running.end().await;
    let c = &sink.of(&format!("c_total{{{id}}}"))[0];
    assert_eq!((c.samples[0].v, c.samples[0].start), (5.0, 123_500));
    let e = &c.exemplars[0];
    assert_eq!((e.v, e.t, e.labels.to_string().as_str()), (2.0, 3500, "{trace_id=\"t\"}"));
    assert!(sink.of(&format!("c_created{{{id}}}")).is_empty());
    assert_eq!(sink.of(&format!("g{{{id}}}"))[0].samples[0].start, 0);
}

fn native_family() -> Vec<u8> {
    let histogram = Histogram {
        sample_count: Some(3),
        sample_sum: Some(4.5),
        schema: Some(1),
        zero_threshold: Some(0.001),
        zero_count: Some(0),
        positive_span: vec![BucketSpan { offset: Some(0), length: Some(2) }],
        positive_delta: vec![1, 1],
        created_timestamp: Some(Timestamp { seconds: 7, nanos: 0 }),
        ..Histogram::default()
    };
    let family = MetricFamily {
        name: Some("h".into()),
        r#type: Some(FamilyType::Histogram as i32),
        metric: vec![Metric { histogram: Some(histogram), ..Metric::default() }],
        ..MetricFamily::default()
    };
    family.encode_length_delimited_to_vec()
}

#[tokio::test]
async fn native_histograms_come_compressed() {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&native_family()).expect("memory");
    let body = gzip.finish().expect("memory");
    let (address, _) = target(move |_, n| {
        let media_type =
            "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited";
        let mut a = Answer::ok(media_type, body.clone());
        a.headers.push_str("Content-Encoding: gzip\r\n");
        if n == 0 { a } else { Answer { status: "404 Not Found", ..Answer::default() } }
    })
    .await;
    let running = Running::start(&job(&address, ""));
    let h = format!("h{{instance=\"{address}\", job=\"j\", zone=\"z\"}}");
    running.sink.wait(&h, 2).await;
    let sink = running.end().await;
    let writes = sink.of(&h);
    let first = &writes[0].histograms[0];
    assert_eq!((first.start, first.h.schema, first.h.count, first.h.sum), (7000, 1, 3.0, 4.5));
    assert_eq!(first.h.positive_buckets, [1.0, 2.0]);
    assert!(writes[1].histograms[0].h.is_stale());
}

#[tokio::test]
async fn a_target_that_is_taken_out_ends_its_series() {
    let (gone, _) = target(|_, _| Answer::text("a 1\n")).await;
    let (stays, _) = target(|_, _| Answer::text("a 2\n")).await;
    let both = job(&format!("{gone}\", \"{stays}"), "");
    let running = Running::start(&both);
    let series =
        |name: &str, address: &str| format!("{name}{{instance=\"{address}\", job=\"j\", zone=\"z\"}}");
    running.sink.wait(&series("up", &gone), 1).await;
    running.sink.wait(&series("up", &stays), 1).await;
    let less = ScrapeConfigs::from_yaml(&job(&stays, "")).expect("a valid configuration");
    running.agent.set_scrapes(less.clone()).await.expect("the agent runs");
    let before = running.sink.of(&series("up", &stays)).len();
    running.sink.wait(&series("up", &stays), before + 2).await;
    assert_eq!(running.agent.targets().active_targets.len(), 1);
    let agent = Arc::clone(&running.agent);
    let sink = running.end().await;
    for name in ["a", "up", "scrape_duration_seconds"] {
        let values = sink.values(&series(name, &gone));
        assert!(values.last().copied().is_some_and(is_stale_nan), "{name}: {values:?}");
        // The agent that ends leaves the series of the other target to its successor.
        assert!(!sink.values(&series(name, &stays)).into_iter().any(is_stale_nan), "{name}");
    }
    assert!(agent.set_scrapes(less).await.is_err());
}

/// Never answers.
struct Hung;

#[async_trait::async_trait]
impl WriteSink for Hung {
    async fn write(&self, _: &TenantId, _: WriteRequest) -> Result<WriteSummary, WriteError> {
        std::future::pending().await
    }
}

#[tokio::test]
async fn a_sink_that_hangs_does_not_keep_the_agent() {
    let config = AgentConfig { host_interval: Duration::from_millis(20), ..AgentConfig::default() };
    let agent = Agent::new(config, Arc::new(Hung));
    let (stop, stopped) = watch::channel(false);
    let run = async { tokio::time::timeout(Duration::from_secs(30), agent.run(stopped)).await };
    let end = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        stop.send(true).expect("the agent runs");
    };
    let (ended, ()) = tokio::join!(run, end);
    assert!(ended.is_ok());
}

#[test]
fn refused_configurations() {
    for (yaml, message) in [
        (
            "scrape_config: []",
            "configuration: unknown key \"scrape_config\", did you mean \"scrape_configs\"?",
        ),
        ("scrape_configs: [{}]", "scrape_configs[0]: job_name is empty"),
        (
            "scrape_configs: [{job_name: a}, {job_name: a}]",
            "found multiple scrape configs with job name \"a\"",
        ),
        ("scrape_configs: [{job_name: a, scrape_intervall: 1s}]", "did you mean \"scrape_interval\"?"),
        (
            "scrape_configs: [{job_name: a, kubernetes_sd_configs: []}]",
            "\"kubernetes_sd_configs\" is not supported",
        ),
        ("scrape_configs: [{job_name: a, scrape_interval: 1s, scrape_timeout: 2s}]", "timeout greater than"),
        (
            "scrape_configs: [{job_name: a, relabel_configs: [{action: keepp}]}]",
            "unknown relabel action \"keepp\"",
        ),
        ("scrape_configs: [{job_name: a, scheme: ftp}]", "\"ftp\" is neither http nor https"),
        ("global: {scrape_interval: soon}", "global.scrape_interval: \"soon\" is not a duration"),
        ("scrape_configs: {", "not YAML"),
    ] {
        let error = ScrapeConfigs::from_yaml(yaml).expect_err(yaml).to_string();
        assert!(error.contains(message), "{yaml}: {error}");
    }
}
