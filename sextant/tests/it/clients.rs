//! Real clients against the binary: OpenTelemetry's SDK, Prometheus, the Flight SQL driver. Each says why where it is not at hand.

use std::{
    io::Write,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use crate::binary::Sextant;

/// Runs a Python program; `None` where Python or a module is not there.
pub fn python(modules: &str, program: &str, args: &[&str]) -> Option<std::process::Output> {
    let probe = Command::new("python3").args(["-c", &format!("import {modules}")]).output();
    if !probe.is_ok_and(|o| o.status.success()) {
        println!("skipped: python3 cannot import {modules}");
        return None;
    }
    let mut child = Command::new("python3")
        .arg("-")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(program.as_bytes()).unwrap();
    Some(child.wait_with_output().unwrap())
}

#[test]
fn opentelemetry_sdk_writes_through_both_transports() {
    let folder = tempfile::tempdir().unwrap();
    let sextant = Sextant::start(folder.path(), &["--agent.host-metrics=false"], None);
    let program = r#"
import sys
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
if sys.argv[1] == "grpc":
    from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
    exporter = OTLPMetricExporter(endpoint=sys.argv[2], insecure=True)
else:
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    exporter = OTLPMetricExporter(endpoint="http://" + sys.argv[2] + "/v1/metrics")
resource = Resource.create({"service.name": "shop", "service.instance.id": sys.argv[1], "zone": "z1"})
provider = MeterProvider(resource=resource, metric_readers=[PeriodicExportingMetricReader(exporter, export_interval_millis=3600000)])
meter = provider.get_meter("test")
meter.create_counter("orders", unit="1").add(5, {"kind": "new"})
meter.create_histogram("latency", unit="s").record(0.3)
meter.create_up_down_counter("queue.depth").add(7)
assert provider.force_flush()
provider.shutdown()
"#;
    for (transport, address) in [("grpc", &sextant.otlp_grpc), ("http", &sextant.otlp_http)] {
        let Some(out) = python(
            "opentelemetry.sdk.metrics, opentelemetry.exporter.otlp.proto.grpc",
            program,
            &[transport, address],
        ) else {
            return;
        };
        assert!(out.status.success(), "{transport}: {}", String::from_utf8_lossy(&out.stderr));
        let result = |query: &str| {
            let path = format!("/api/v1/query?query={}", crate::binary::encode(query));
            let body = sextant.get(&path).1;
            serde_json::from_str::<serde_json::Value>(&body).unwrap()["data"]["result"].clone()
        };
        let instance = format!("job=\"shop\",instance=\"{transport}\"");
        assert_eq!(result(&format!("orders_total{{{instance},kind=\"new\"}}"))[0]["value"][1], "5");
        assert_eq!(result(&format!("queue_depth{{{instance}}}"))[0]["value"][1], "7");
        assert_eq!(result(&format!("latency_seconds_count{{{instance}}}"))[0]["value"][1], "1");
        assert_eq!(result(&format!("latency_seconds_bucket{{{instance},le=\"+Inf\"}}"))[0]["value"][1], "1");
        assert_eq!(result(&format!("target_info{{{instance},zone=\"z1\"}}"))[0]["value"][1], "1");
    }
}

#[test]
fn the_flight_sql_driver_reads() {
    let folder = tempfile::tempdir().unwrap();
    let sextant = Sextant::start(folder.path(), &["--agent.host-metrics=false"], None);
    let body = crate::binary::remote_write(&[(
        vec![("__name__", "m".to_owned()), ("pod", "p".to_owned())],
        vec![(1000, 1.5), (2000, 2.5)],
    )]);
    assert_eq!(sextant.post("/api/v1/push", "application/x-protobuf", body).unwrap().0, 204);
    let program = r#"
import sys
import adbc_driver_flightsql.dbapi as dbapi
with dbapi.connect("grpc://" + sys.argv[1]) as connection:
    with connection.cursor() as cursor:
        cursor.execute("select pod, sum(value) as total from samples where name = 'm' group by pod")
        rows = cursor.fetchall()
        assert rows == [("p", 4.0)], rows
        try:
            cursor.execute("drop table samples")
            cursor.fetchall()
        except Exception as e:
            assert "only reads" in str(e), e
        else:
            raise SystemExit("a write was not refused")
"#;
    if let Some(out) = python("adbc_driver_flightsql.dbapi, pyarrow", program, &[&sextant.grpc]) {
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    }
}

/// A Prometheus that scrapes itself and writes to Sextant; both must then give the same answers.
#[test]
fn a_prometheus_fills_it_by_remote_write() {
    let Some(prometheus) = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
        .map(|p| p.join("prometheus"))
        .find(|p| p.is_file())
    else {
        println!("skipped: there is no prometheus on the PATH");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let sextant = Sextant::start(folder.path(), &["--agent.host-metrics=false"], None);
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let config = format!(
        "global: {{scrape_interval: 1s}}\nscrape_configs:\n- job_name: self\n  static_configs: [{{targets: ['127.0.0.1:{port}']}}]\nremote_write:\n- url: {}/api/v1/push\n",
        sextant.url
    );
    let mut peer = start_prometheus(&prometheus, folder.path(), &config, port);
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let body = sextant.get("/api/v1/query?query=count({job=%22self%22})").1;
        let count = serde_json::from_str::<serde_json::Value>(&body).unwrap()["data"]["result"][0]["value"]
            [1]
        .as_str()
        .and_then(|s| s.parse::<f64>().ok())
        .unwrap_or(0.0);
        if count > 100.0 {
            break;
        }
        assert!(Instant::now() < until, "nothing came: {body}");
        std::thread::sleep(Duration::from_millis(200));
    }
    let _ = peer.kill();
    let _ = peer.wait();
    let body = sextant.get("/api/v1/metadata?metric=prometheus_build_info").1;
    assert!(body.contains("status"), "{body}");
}

fn start_prometheus(program: &Path, folder: &Path, config: &str, port: u16) -> std::process::Child {
    let file = folder.join("prometheus.yml");
    std::fs::write(&file, config).unwrap();
    Command::new(program)
        .arg(format!("--config.file={}", file.display()))
        .arg(format!("--storage.tsdb.path={}", folder.join("tsdb").display()))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}
