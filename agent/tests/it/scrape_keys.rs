//! What the keys of a scrape configuration do, and what a bad target cannot do.

use std::{fs, io::Write, sync::atomic::Ordering::Relaxed, time::Duration};

use sextant_agent::ScrapeConfigs;
use sextant_model::is_stale_nan;

use crate::{
    running::Running,
    target_double::{Answer, hung_target, target},
};

fn job(address: &str, more: &str) -> String {
    format!(
        "scrape_configs:\n- job_name: j\n  scrape_interval: 100ms\n  scrape_timeout: 100ms\n  \
         static_configs: [{{targets: [\"{address}\"]}}]\n{more}"
    )
}

fn series(name: &str, address: &str) -> String {
    format!("{name}{{instance=\"{address}\", job=\"j\"}}")
}

/// A job with these keys scrapes the target, and stores its `a`.
async fn takes(address: &str, more: &str) {
    let running = Running::start(&job(address, more));
    running.sink.wait(&series("a", address), 1).await;
    assert_eq!(running.end().await.values(&series("a", address))[0], 1.0, "{more}");
}

/// A job with these keys finds this wrong with the target's answer, and stores nothing of it.
async fn refuses(address: &str, more: &str, what: &str) {
    let running = Running::start(&job(address, more));
    running.error(|error| error.contains(what)).await;
    let sink = running.end().await;
    assert!(sink.of(&series("a", address)).is_empty(), "{more}");
    assert!(sink.values(&series("up", address)).iter().all(|v| *v == 0.0), "{more}");
}

#[tokio::test]
async fn a_target_that_hangs_is_down_and_holds_nobody_up() {
    let (good, _) = target(|_, _| Answer::text("a 1\n")).await;
    let (silent, _) = hung_target("").await;
    let in_the_body = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 100\r\n\r\na 1\n";
    let (halfway, _) = hung_target(in_the_body).await;
    let running = Running::start(&job(&format!("{good}\", \"{silent}\", \"{halfway}"), ""));
    for address in [&silent, &halfway] {
        running.sink.wait(&series("up", address), 2).await;
    }
    let before = running.sink.of(&series("a", &good)).len();
    running.sink.wait(&series("a", &good), before + 2).await;
    for state in running.agent.targets().active_targets {
        if !state.scrape_url.contains(&good) {
            assert_eq!(state.last_error, "context deadline exceeded");
        }
    }
    let sink = running.end().await;
    for address in [&silent, &halfway] {
        assert!(sink.values(&series("up", address)).iter().all(|v| *v == 0.0));
        assert!(sink.of(&series("a", address)).is_empty());
    }
}

/// A reload that takes out a target while it hangs does not wait for its timeout: the scrape is given up and leaves no
/// sample.
#[tokio::test]
async fn a_target_that_hangs_does_not_hold_up_a_reload() {
    let (silent, connections) = hung_target("").await;
    let (good, _) = target(|_, _| Answer::text("a 1\n")).await;
    let slow =
        job(&silent, "").replace("interval: 100ms", "interval: 5s").replace("timeout: 100ms", "timeout: 5s");
    let running = Running::start(&slow);
    while connections.load(Relaxed) == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let scrapes = ScrapeConfigs::from_yaml(&job(&good, "")).expect("valid");
    running.agent.set_scrapes(scrapes).await.expect("the agent runs");
    running.sink.wait(&series("up", &good), 1).await;
    let values = running.end().await.values(&series("up", &silent));
    assert!(matches!(values[..], [v] if is_stale_nan(v)), "{values:?}");
}

#[tokio::test]
async fn bodies_and_samples_are_bounded() {
    let (address, _) = target(|_, _| Answer::text(&format!("a 1\n# {}\n", "x".repeat(2000)))).await;
    takes(&address, "  body_size_limit: 3KB\n").await;
    refuses(&address, "  body_size_limit: 1KB\n", "body size limit exceeded").await;

    // What counts is the size after decompression.
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    gzip.write_all(format!("a 1\n# {}\n", "x".repeat(100_000)).as_bytes()).expect("memory");
    let body = gzip.finish().expect("memory");
    assert!(body.len() < 1024);
    let (address, _) = target(move |_, _| {
        let mut answer = Answer::ok("text/plain; version=0.0.4", body.clone());
        answer.headers.push_str("Content-Encoding: gzip\r\n");
        answer
    })
    .await;
    takes(&address, "").await;
    refuses(&address, "  body_size_limit: 1KB\n", "body size limit exceeded").await;

    let (address, _) = target(|_, _| Answer::text("a 1\nb 1\nc 1\n")).await;
    refuses(&address, "  sample_limit: 2\n", "sample_limit 2").await;
    // What relabelling drops does not count.
    let more = "  sample_limit: 2\n  metric_relabel_configs: [{source_labels: [__name__], regex: b, action: drop}]\n";
    takes(&address, more).await;
}

#[tokio::test]
async fn labels_are_bounded() {
    let (address, _) = target(|_, _| Answer::text("a 1\nb{long_name=\"long value\"} 1\n")).await;
    for (key, enough) in
        [("label_limit", 4), ("label_name_length_limit", 9), ("label_value_length_limit", address.len())]
    {
        takes(&address, &format!("  {key}: {enough}\n")).await;
    }
    for (key, limit, what) in [
        ("label_limit", 3, "label_limit 3 exceeded: 4"),
        ("label_name_length_limit", 8, "label_name_length_limit 8 exceeded: 9"),
        ("label_value_length_limit", 3, "label_value_length_limit 3 exceeded"),
    ] {
        refuses(&address, &format!("  {key}: {limit}\n"), what).await;
    }
    // `global` sets it for all jobs, and a job may set it otherwise.
    let global = |job_limit: &str| format!("global: {{label_limit: 3}}\n{}", job(&address, job_limit));
    let running = Running::start(&global(""));
    running.error(|error| error.contains("label_limit 3 exceeded")).await;
    running.end().await;
    let running = Running::start(&global("  label_limit: 4\n"));
    running.sink.wait(&series("a", &address), 1).await;
    running.end().await;
}

#[tokio::test]
async fn timestamps_of_the_target() {
    for (more, own_time, markers) in [
        ("", true, 0),
        ("  track_timestamps_staleness: true\n", true, 1),
        ("  honor_timestamps: false\n", false, 1),
    ] {
        let (address, _) =
            target(|_, n| Answer::text(if n == 0 { "a 1 1000\nb 1\n" } else { "b 1\n" })).await;
        // The first answer must not come too late: there is no other like it.
        let running = Running::start(&job(&address, more).replace("100ms", "1s"));
        running.sink.wait(&series("b", &address), 3).await;
        let sink = running.end().await;
        let a = sink.of(&series("a", &address));
        assert_eq!(a[0].samples[0].t == 1000, own_time, "{more}");
        let stale = a.iter().filter(|w| is_stale_nan(w.samples[0].v)).count();
        assert_eq!((a.len(), stale), (1 + markers, markers), "{more}");
    }
}

#[tokio::test]
async fn formats_are_asked_for_and_fallen_back_to() {
    let (address, requests) = target(|_, _| Answer::ok("application/json", "a 1\n")).await;
    let more =
        "  scrape_protocols: [PrometheusText0.0.4, OpenMetricsText1.0.0]\n  enable_compression: false\n";
    refuses(&address, more, "unsupported Content-Type \"application/json\"").await;
    let head = requests.lock().expect("not poisoned")[0].to_lowercase();
    let accept = "accept: text/plain;version=0.0.4;q=0.3,application/openmetrics-text;version=1.0.0;\
                  escaping=allow-utf-8;q=0.2,*/*;q=0.1\r\n";
    assert!(head.contains(accept), "{head}");
    assert!(head.contains("accept-encoding: identity\r\n"), "{head}");
    assert!(head.contains("x-prometheus-scrape-timeout-seconds: 0.1\r\n"), "{head}");
    let more = "  fallback_scrape_protocol: PrometheusText0.0.4\n";
    takes(&address, more).await;
}

#[tokio::test]
async fn who_asks() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("secret");
    fs::write(&file, "from file\n").expect("a file");
    let file = file.display();
    let (address, requests) = target(|_, _| Answer::text("a 1\n")).await;
    for (more, header) in [
        ("basic_auth: {username: u, password: p}".to_owned(), "Basic dTpw"),
        (format!("basic_auth: {{username: u, password_file: \"{file}\"}}"), "Basic dTpmcm9tIGZpbGU="),
        ("authorization: {credentials: c}".to_owned(), "Bearer c"),
        (format!("authorization: {{type: Token, credentials_file: \"{file}\"}}"), "Token from file"),
        ("bearer_token: b".to_owned(), "Bearer b"),
        (format!("bearer_token_file: \"{file}\""), "Bearer from file"),
    ] {
        takes(&address, &format!("  {more}\n")).await;
        let head = requests.lock().expect("not poisoned").last().cloned().expect("a request");
        assert!(head.contains(&format!("authorization: {header}\r\n")), "{more}: {head}");
    }
    refuses(&address, "  bearer_token_file: /nowhere/token\n", "/nowhere/token").await;
}

#[tokio::test]
async fn redirects_are_followed_where_the_job_says_so() {
    let (address, _) = target(|head, _| {
        if head.starts_with("GET /metrics") {
            let headers = "Location: /elsewhere\r\n".to_owned();
            return Answer { status: "302 Found", headers, ..Answer::default() };
        }
        Answer::text("a 1\n")
    })
    .await;
    takes(&address, "").await;
    refuses(&address, "  follow_redirects: false\n", "302").await;
}

#[test]
fn every_section_names_the_key_that_it_refuses() {
    let in_job = |section: &str| format!("scrape_configs: [{{job_name: a, {section}}}]");
    for (yaml, message) in [
        ("globl: {}".to_owned(), "configuration: unknown key \"globl\", did you mean \"global\"?"),
        (
            "scrape_configs: [{jobname: a}]".into(),
            "scrape_configs[0]: unknown key \"jobname\", did you mean \"job_name\"?",
        ),
        ("remote_write: []".into(), "configuration: \"remote_write\" is not supported"),
        ("global: {scrap_interval: 1s}".into(), "global: unknown key \"scrap_interval\""),
        ("global: {query_log_file: x}".into(), "global: \"query_log_file\" is not supported"),
        (
            in_job("metric_path: /x"),
            "scrape_configs[0]: unknown key \"metric_path\", did you mean \"metrics_path\"?",
        ),
        (in_job("qwertyuiopasdf: 1"), "scrape_configs[0]: unknown key \"qwertyuiopasdf\""),
        (in_job("proxy_url: x"), "scrape_configs[0]: \"proxy_url\" is not supported"),
        (in_job("basic_auth: {user: u}"), "scrape_configs[0].basic_auth: unknown key \"user\""),
        (in_job("authorization: {token: t}"), "scrape_configs[0].authorization: unknown key \"token\""),
        (in_job("tls_config: {insecure: true}"), "scrape_configs[0].tls_config: unknown key \"insecure\""),
        (
            in_job("tls_config: {server_name: x}"),
            "scrape_configs[0].tls_config: \"server_name\" is not supported",
        ),
        (
            in_job("static_configs: [{target: [a]}]"),
            "scrape_configs[0].static_configs[0]: unknown key \"target\", did you mean \"targets\"?",
        ),
        (
            in_job("relabel_configs: [{source_label: [a]}]"),
            "scrape_configs[0].relabel_configs[0]: unknown key \"source_label\", did you mean \"source_labels\"?",
        ),
        (
            in_job("metric_relabel_configs: [{regexp: a}]"),
            "scrape_configs[0].metric_relabel_configs[0]: unknown key \"regexp\", did you mean \"regex\"?",
        ),
        (in_job("authorization: {type: basic, credentials: x}"), "use \"basic_auth\" instead"),
        (in_job("authorization: {type: Token}"), "credentials are not set"),
        (in_job("basic_auth: {password: p, password_file: f}"), "at most one of password and password_file"),
        (
            in_job("basic_auth: {username: u}, bearer_token: b"),
            "at most one of basic_auth, authorization and",
        ),
        (in_job("tls_config: {cert_file: c}"), "cert_file and key_file are set together"),
        (in_job("tls_config: {min_version: TLS10}"), "\"TLS10\" is neither TLS12 nor TLS13"),
        (in_job("tls_config: {min_version: TLS13, max_version: TLS12}"), "min_version is above max_version"),
        (in_job("scrape_protocols: [Text]"), "unknown scrape protocol \"Text\""),
        (in_job("params: {a: b}"), "scrape_configs[0].params"),
        (
            in_job("body_size_limit: big"),
            "scrape_configs[0].body_size_limit: \"big\" is not a number of bytes",
        ),
        (in_job("sample_limit: -1"), "scrape_configs[0].sample_limit: a whole number is expected"),
        (in_job("honor_timestamps: 1"), "scrape_configs[0].honor_timestamps: true or false is expected"),
        (in_job("static_configs: [{targets: [\"http://a\"]}]"), "\"http://a\" is not a valid hostname"),
    ] {
        let error = ScrapeConfigs::from_yaml(&yaml).expect_err(&yaml).to_string();
        assert!(error.contains(message), "{yaml}: {error}");
    }
}
