//! Credentials on every listener: another tenant's data through every API, tenant ids that are paths, rights that are not there.

use std::{
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use arrow_flight::{
    FlightDescriptor,
    flight_service_client::FlightServiceClient,
    sql::{CommandStatementQuery, ProstMessageExt},
};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, metrics_service_client::MetricsServiceClient,
};
use prost::Message;
use tonic::{Code, Request, transport::Endpoint};

use crate::{
    binary::{Sextant, binary, remote_write},
    ledger::eventually,
};

const TOKEN_A: &str = "token-of-tenant-a-with-all-rights-0001";
const TOKEN_READS_A: &str = "token-of-tenant-a-that-reads-00000002";
const TOKEN_WRITES_A: &str = "token-of-tenant-a-that-writes-0000003";
const TOKEN_ADMINISTERS_A: &str = "token-of-tenant-a-that-administers-4";
const TOKEN_ALL: &str = "token-of-all-tenants-with-all-rights-5";
pub const PASSWORD: &str = "correct horse battery";

const FORM: &str = "application/x-www-form-urlencoded";
const PROTOBUF: &str = "application/x-protobuf";

/// A line for the file of credentials, by the binary itself.
pub fn password_hash(password: &str) -> String {
    let mut child = Command::new(binary())
        .arg("hash-password")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(format!("{password}\n").as_bytes()).unwrap();
    let out = child.wait_with_output().unwrap();
    assert!(out.status.success());
    String::from_utf8(out.stdout).unwrap().trim_end().to_owned()
}

/// The file of credentials; by name: token or password, tenants, rights.
pub fn credentials(folder: &Path, hash_line: &str) -> String {
    let mut text = "credentials:\n".to_owned();
    for (name, token, tenants, rights) in [
        ("all-of-a", TOKEN_A, "[a]", "[read, write, admin]"),
        ("reads-a", TOKEN_READS_A, "[a]", "[read]"),
        ("writes-a", TOKEN_WRITES_A, "[a]", "[write]"),
        ("administers-a", TOKEN_ADMINISTERS_A, "[a]", "[admin]"),
        ("operator", TOKEN_ALL, "\"*\"", "[read, write, admin]"),
    ] {
        std::fs::write(folder.join(format!("{name}.token")), format!("{token}\n")).unwrap();
        text += &format!(
            "  - name: {name}\n    token_file: {name}.token\n    user: {name}\n    tenants: {tenants}\n    rights: {rights}\n"
        );
    }
    text += &format!(
        "  - name: grafana\n    user: grafana\n    {hash_line}\n    tenants: [a]\n    rights: [read]\n"
    );
    let file = folder.join("auth.yaml");
    std::fs::write(&file, text).unwrap();
    format!("--auth.file={}", file.display())
}

fn start(folder: &Path, more: &[&str]) -> Sextant {
    let auth = credentials(folder, &password_hash(PASSWORD));
    let mut args = vec!["--agent.host-metrics=false", "--multi-tenancy=true", "--http.admin-api=true", &auth];
    args.extend(more);
    let sextant = Sextant::start(folder, &args, None);
    for (tenant, value) in [("a", 1.0), ("b", 2.0)] {
        let labels = vec![("__name__", "owned".to_owned()), ("job", tenant.to_owned())];
        let body = remote_write(&[(labels, vec![(1000, value)])]);
        let push = Ask { tenants: &[tenant], ..Ask::post("/api/v1/push", PROTOBUF, body) };
        assert_eq!(push.send(&sextant, Some(TOKEN_ALL)).0, 204);
    }
    sextant
}

/// A request.
struct Ask<'a> {
    method: &'a str,
    path: &'a str,
    content_type: &'a str,
    body: Vec<u8>,
    tenants: &'a [&'a str],
}

impl<'a> Ask<'a> {
    fn get(path: &'a str) -> Self {
        Self { method: "GET", path, content_type: "text/plain", body: Vec::new(), tenants: &[] }
    }

    fn post(path: &'a str, content_type: &'a str, body: Vec<u8>) -> Self {
        Self { method: "POST", content_type, body, ..Self::get(path) }
    }

    fn send(&self, sextant: &Sextant, bearer: Option<&str>) -> (u16, String) {
        self.send_to(sextant, &sextant.url, bearer)
    }

    fn send_to(&self, sextant: &Sextant, url: &str, bearer: Option<&str>) -> (u16, String) {
        let method = self.method.parse().unwrap();
        let request = sextant.client.request(method, format!("{url}{}", self.path));
        let request = request.header("Content-Type", self.content_type).body(self.body.clone());
        let request = self.tenants.iter().fold(request, |r, t| r.header("X-Scope-OrgID", *t));
        let request = bearer.into_iter().fold(request, |r, t| r.bearer_auth(t));
        let response = request.send().unwrap();
        (response.status().as_u16(), response.text().unwrap())
    }
}

fn reads() -> Vec<Ask<'static>> {
    let range = "/api/v1/query_range?query=owned&start=0&end=60&step=15";
    let mut all: Vec<Ask<'_>> = [
        "/api/v1/query?query=owned&time=1",
        "/prometheus/api/v1/query?query=owned&time=1",
        range,
        "/api/v1/query_exemplars?query=owned&start=0&end=60",
        "/api/v1/series?match[]=owned&start=0&end=60",
        "/api/v1/labels",
        "/api/v1/label/job/values",
        "/api/v1/metadata",
        "/api/v1/explain?query=owned",
        "/api/v1/status/tsdb",
        "/api/v1/cardinality/label_names",
        "/api/v1/cardinality/label_values?label_names[]=job",
        "/api/v1/cardinality/active_series?selector=owned",
        "/federate?match[]=owned",
        "/prometheus/federate?match[]=owned",
        "/api/v1/sql?q=select+*+from+metrics",
    ]
    .map(Ask::get)
    .into();
    for (path, form) in [
        ("/api/v1/query", "query=owned&time=1"),
        ("/api/v1/query_range", "query=owned&start=0&end=60&step=15"),
        ("/api/v1/series", "match[]=owned"),
        ("/api/v1/labels", ""),
        ("/api/v1/sql", "q=select+1"),
    ] {
        all.push(Ask::post(path, FORM, form.into()));
    }
    all.push(Ask::post("/api/v1/read", PROTOBUF, snap::raw::Encoder::new().compress_vec(&[]).unwrap()));
    all
}

fn writes() -> Vec<Ask<'static>> {
    let body = || remote_write(&[(vec![("__name__", "owned".to_owned())], vec![(2000, 9.0)])]);
    let otlp = ["/otlp/v1/metrics", "/api/v1/otlp/v1/metrics", "/v1/metrics"];
    let push = ["/api/v1/push", "/api/v1/write", "/prometheus/api/v1/push"];
    let otlp = otlp.map(|path| Ask::post(path, PROTOBUF, Vec::new()));
    push.map(|path| Ask::post(path, PROTOBUF, body())).into_iter().chain(otlp).collect()
}

fn administration() -> Vec<Ask<'static>> {
    let delete = "/api/v1/admin/tsdb/delete_series?match[]=owned";
    vec![
        Ask::post(delete, FORM, Vec::new()),
        Ask { method: "PUT", ..Ask::post(delete, FORM, Vec::new()) },
        Ask::post("/prometheus/api/v1/admin/tsdb/delete_series", FORM, "match[]=owned".into()),
        Ask::post("/api/v1/admin/tsdb/clean_tombstones", FORM, Vec::new()),
    ]
}

/// What is everyone's: a credential of one tenant does not suffice, whichever tenant the request names.
fn of_the_process() -> Vec<Ask<'static>> {
    let reads = [
        "/api/v1/status/config",
        "/api/v1/status/flags",
        "/api/v1/status/runtimeinfo",
        "/api/v1/overview",
        "/api/v1/targets",
        "/api/v1/targets/metadata",
        "/api/v1/targets/relabel_steps",
        "/api/v1/scrape_pools",
    ];
    let mut all: Vec<Ask<'_>> = reads.map(Ask::get).into();
    all.push(Ask::post("/api/v1/admin/flush", FORM, Vec::new()));
    all.push(Ask::post("/-/reload", FORM, Vec::new()));
    all
}

#[test]
fn http_gives_nobody_anothers_data() {
    let folder = tempfile::tempdir().unwrap();
    let sextant = start(folder.path(), &["--log.level=debug"]);
    let otlp_http = format!("http://{}", sextant.otlp_http);
    let of_tenants: Vec<Ask<'_>> = reads().into_iter().chain(writes()).chain(administration()).collect();
    for ask in &of_tenants {
        let what = format!("{} {}", ask.method, ask.path);
        for (tenants, bearer, expected) in [
            (&["b"][..], Some(TOKEN_A), 403),
            (&["a|b"], Some(TOKEN_A), 403),
            (&["b|a"], Some(TOKEN_A), 403),
            (&["anonymous"], Some(TOKEN_A), 403),
            (&["a"], None, 401),
            (&[], None, 401),
            (&["a"], Some("token-of-tenant-a-with-all-rights-0002"), 401),
            (&["a"], Some(""), 401),
            (&[], Some(TOKEN_ALL), 401),
            // Were it there twice, one reader might take the first and another the last.
            (&["a", "b"], Some(TOKEN_A), 401),
            (&["b", "a"], Some(TOKEN_A), 401),
        ] {
            let ask = Ask { tenants, body: ask.body.clone(), ..*ask };
            for url in [&sextant.url, &otlp_http] {
                let (status, body) = ask.send_to(&sextant, url, bearer);
                assert_eq!(status, expected, "{what} {tenants:?}: {body}");
                assert!(!body.contains("token-of"), "{what}: {body}");
            }
        }
        for path in
            ["../b", "a/../b", "..", ".", "/etc/passwd", "a/b", "a\\b", "%2e%2e", "a|../b", "a|", "|", "a\tb"]
        {
            let ask = Ask { tenants: &[path], body: ask.body.clone(), ..*ask };
            for bearer in [TOKEN_A, TOKEN_ALL] {
                let (status, body) = ask.send(&sextant, Some(bearer));
                assert!((400..500).contains(&status), "{what} {path:?}: {status} {body}");
            }
        }
    }
    for ask in of_the_process() {
        for tenants in [&["a"][..], &["b"], &[]] {
            let ask = Ask { tenants, body: Vec::new(), ..ask };
            assert_eq!(ask.send(&sextant, Some(TOKEN_A)).0, 403, "{} {tenants:?}", ask.path);
            assert_eq!(ask.send(&sextant, None).0, 401, "{} {tenants:?}", ask.path);
        }
        let ask = Ask { tenants: &["a"], ..ask };
        let (status, body) = ask.send(&sextant, Some(TOKEN_ALL));
        let is_served = status < 300 || body.contains("no scrapePool parameter");
        assert!(is_served, "{}: {status} {body}", ask.path);
        for secret in [TOKEN_A, TOKEN_ALL, PASSWORD, "argon2id"] {
            assert!(!body.contains(secret), "{}: {body}", ask.path);
        }
        assert!(
            !ask.path.ends_with("status/config") || body.contains("auth.yaml"),
            "the file's name is no secret"
        );
    }
    for (asks, with) in [
        (reads(), [TOKEN_WRITES_A, TOKEN_ADMINISTERS_A]),
        (writes(), [TOKEN_READS_A, TOKEN_ADMINISTERS_A]),
        (administration(), [TOKEN_READS_A, TOKEN_WRITES_A]),
    ] {
        for (ask, bearer) in asks.iter().flat_map(|ask| with.map(|bearer| (ask, bearer))) {
            let ask = Ask { tenants: &["a"], body: ask.body.clone(), ..*ask };
            let (status, body) = ask.send(&sextant, Some(bearer));
            assert_eq!(status, 403, "{} {} {bearer}: {body}", ask.method, ask.path);
            assert!(body.contains("do not have the right"), "{body}");
        }
    }
    // Every attempt has left everything as it was, and those who may read do so, with a header and without.
    for (tenants, bearer, expected) in [
        (&["a"][..], TOKEN_A, &["1"][..]),
        (&[], TOKEN_A, &["1"]),
        (&[], TOKEN_READS_A, &["1"]),
        (&["b"], TOKEN_ALL, &["2"]),
        (&["a|b"], TOKEN_ALL, &["1", "2"]),
    ] {
        let ask = Ask { tenants, ..Ask::get("/api/v1/query?query=sort(owned)&time=5") };
        let (status, body) = ask.send(&sextant, Some(bearer));
        assert_eq!(status, 200, "{body}");
        let answer: serde_json::Value = serde_json::from_str(&body).unwrap();
        let result = answer["data"]["result"].as_array().unwrap().iter();
        let values: Vec<&str> = result.map(|r| r["value"][1].as_str().unwrap()).collect();
        assert_eq!(values, expected, "{tenants:?} {bearer}");
    }
    for ask in reads() {
        let ask = Ask { tenants: &["a"], ..ask };
        let (status, body) = ask.send(&sextant, Some(TOKEN_READS_A));
        assert_eq!(status, 200, "{} {}: {body}", ask.method, ask.path);
        assert!(!body.contains("\"b\""), "{} {}: {body}", ask.method, ask.path);
    }
    for path in ["/ready", "/healthz", "/-/ready", "/-/healthy"] {
        assert_eq!(Ask::get(path).send(&sextant, None).0, 200, "{path}");
    }
    for path in ["/", "/metrics"] {
        assert_eq!(Ask::get(path).send(&sextant, None).0, 401, "{path}");
        assert_eq!(Ask::get(path).send(&sextant, Some(TOKEN_READS_A)).0, 200, "{path}");
    }
    assert_eq!(Ask::get("/nowhere").send(&sextant, Some(TOKEN_ALL)).0, 403, "no rule names it");
    let log = std::fs::read_to_string(folder.path().join("log.txt")).unwrap();
    assert!(log.contains("a request is refused"), "the log is of level debug");
    for secret in [TOKEN_A, TOKEN_READS_A, TOKEN_WRITES_A, TOKEN_ALL, PASSWORD, "argon2id"] {
        assert!(!log.contains(secret), "{secret} is in the log");
    }
}

#[test]
fn passwords_over_http() {
    let folder = tempfile::tempdir().unwrap();
    let sextant = start(folder.path(), &[]);
    let url = format!("{}/api/v1/query?query=owned&time=5", sextant.url);
    for (user, password, tenant, expected) in [
        ("grafana", PASSWORD, None, 200),
        ("grafana", PASSWORD, Some("a"), 200),
        ("grafana", PASSWORD, Some("b"), 403),
        ("grafana", "correct horse", Some("a"), 401),
        ("grafana", "", Some("a"), 401),
        ("nobody", PASSWORD, Some("a"), 401),
        ("reads-a", TOKEN_READS_A, Some("a"), 200),
        ("grafana", TOKEN_READS_A, Some("a"), 401),
    ] {
        let request = sextant.client.get(&url).basic_auth(user, Some(password));
        let request = tenant.into_iter().fold(request, |r, t| r.header("X-Scope-OrgID", t));
        let response = request.send().unwrap();
        assert_eq!(response.status().as_u16(), expected, "{user} {password} {tenant:?}");
        assert_eq!(response.headers().contains_key("WWW-Authenticate"), expected == 401, "{user} {password}");
    }
}

#[test]
fn the_file_of_credentials_is_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let sextant = start(folder.path(), &["--security.reload-interval=50ms"]);
    let ask = Ask { tenants: &["a"], ..Ask::get("/api/v1/query?query=owned&time=5") };
    assert_eq!(ask.send(&sextant, Some(TOKEN_A)).0, 200);
    let (file, aside) = (folder.path().join("auth.yaml"), folder.path().join("auth.new"));
    let set = |text: &str| {
        std::fs::write(&aside, text).unwrap();
        std::fs::rename(&aside, &file).unwrap();
    };
    let metric = || Ask::get("/metrics").send(&sextant, Some(TOKEN_ALL)).1;
    let before = std::fs::read_to_string(&file).unwrap();
    set("credentials: [{name: x, rights: all}]\n");
    let refused = "sextant_security_reload_successful{part=\"credentials\"} 0";
    eventually("the wrong file is refused", || match metric() {
        text if text.contains(refused) => Ok(()),
        text => Err(text),
    });
    assert_eq!(ask.send(&sextant, Some(TOKEN_A)).0, 200, "what was in force stays");
    set(&before.replace("token_file: all-of-a.token", "token_file: other.token"));
    std::fs::write(folder.path().join("other.token"), "another-token-of-tenant-a-00000006\n").unwrap();
    eventually("the new token is in force", || {
        match ask.send(&sextant, Some("another-token-of-tenant-a-00000006")) {
            (200, _) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    assert_eq!(ask.send(&sextant, Some(TOKEN_A)).0, 401, "the old one is not");
    let text = metric();
    assert!(text.contains(&refused.replace("} 0", "} 1")), "{text}");
    assert!(text.contains("sextant_security_requests_total{result=\"unauthenticated\"}"), "{text}");
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// A call's metadata.
fn request<T>(message: T, bearer: Option<&str>, tenant: Option<&str>) -> Request<T> {
    let mut request = Request::new(message);
    let metadata = request.metadata_mut();
    bearer.map(|b| metadata.insert("authorization", format!("Bearer {b}").parse().unwrap()));
    tenant.map(|t| metadata.insert("x-scope-orgid", t.parse().unwrap()));
    request
}

#[test]
fn grpc_gives_nobody_anothers_data() {
    let folder = tempfile::tempdir().unwrap();
    let sextant = start(folder.path(), &[]);
    runtime().block_on(async {
        let connect = |to: &str| Endpoint::new(format!("http://{to}")).unwrap().connect_lazy();
        let mut flight = FlightServiceClient::new(connect(&sextant.grpc));
        let mut otlp = MetricsServiceClient::new(connect(&sextant.otlp_grpc));
        let statement = CommandStatementQuery {
            query: "select distinct job from samples where name = 'owned'".to_owned(),
            transaction_id: None,
        };
        let descriptor = FlightDescriptor::new_cmd(statement.as_any().encode_to_vec());
        let ask = request(descriptor.clone(), Some(TOKEN_READS_A), Some("a"));
        let info = flight.get_flight_info(ask).await.unwrap().into_inner();
        let ticket = info.endpoint[0].ticket.clone().unwrap();
        for (reads, writes, tenant, expected) in [
            (Some(TOKEN_A), Some(TOKEN_A), Some("b"), Code::PermissionDenied),
            (Some(TOKEN_A), Some(TOKEN_A), Some("a|b"), Code::PermissionDenied),
            (Some(TOKEN_WRITES_A), Some(TOKEN_READS_A), Some("a"), Code::PermissionDenied),
            (None, None, Some("a"), Code::Unauthenticated),
            (Some("token-that-nobody-has-000000000"), Some(""), Some("a"), Code::Unauthenticated),
            (Some(TOKEN_ALL), Some(TOKEN_ALL), None, Code::Unauthenticated),
            (Some(TOKEN_ALL), Some(TOKEN_ALL), Some("../b"), Code::Unauthenticated),
            (Some(TOKEN_A), Some(TOKEN_A), Some("a/../b"), Code::Unauthenticated),
            (Some(TOKEN_READS_A), Some(TOKEN_WRITES_A), Some("a"), Code::Ok),
            (Some(TOKEN_READS_A), Some(TOKEN_WRITES_A), None, Code::Ok),
        ] {
            let code = |status: Option<tonic::Status>| status.map_or(Code::Ok, |s| s.code());
            let found = [
                code(flight.get_flight_info(request(descriptor.clone(), reads, tenant)).await.err()),
                code(flight.do_get(request(ticket.clone(), reads, tenant)).await.err()),
                code(
                    otlp.export(request(ExportMetricsServiceRequest::default(), writes, tenant)).await.err(),
                ),
            ];
            for (i, code) in found.into_iter().enumerate() {
                assert_eq!(code, expected, "call {i}, {reads:?} {writes:?} {tenant:?}");
            }
        }
        let rows = flight.do_get(request(ticket, Some(TOKEN_READS_A), Some("a"))).await.unwrap();
        let rows = rows.into_inner();
        let rows = arrow_flight::decode::FlightRecordBatchStream::new_from_flight_data(
            futures::TryStreamExt::map_err(rows, |e| arrow_flight::error::FlightError::Tonic(Box::new(e))),
        );
        let batches: Vec<_> = futures::TryStreamExt::try_collect(rows).await.unwrap();
        assert_eq!(batches.iter().map(|b| b.num_rows()).sum::<usize>(), 1, "{batches:?}");
    });
}

#[test]
fn postgres_gives_nobody_anothers_data() {
    let folder = tempfile::tempdir().unwrap();
    let sextant = start(folder.path(), &[]);
    let (host, port) = sextant.postgres.split_once(':').unwrap();
    runtime().block_on(async {
        for (user, password, database, expected) in [
            ("grafana", PASSWORD, "a", ""),
            ("reads-a", TOKEN_READS_A, "a", ""),
            ("grafana", PASSWORD, "b", "42501"),
            ("grafana", PASSWORD, "a|b", "42501"),
            ("all-of-a", TOKEN_A, "b", "42501"),
            ("writes-a", TOKEN_WRITES_A, "a", "42501"),
            ("operator", TOKEN_ALL, "../b", "3D000"),
            ("operator", TOKEN_ALL, "b", ""),
            ("grafana", "wrong", "a", "28P01"),
            ("grafana", TOKEN_READS_A, "a", "28P01"),
            ("nobody", PASSWORD, "a", "28P01"),
        ] {
            let mut config = tokio_postgres::Config::new();
            config.host(host).port(port.parse().unwrap()).user(user).password(password).dbname(database);
            let code = match config.connect(tokio_postgres::NoTls).await {
                Err(e) => e.code().map_or_else(|| e.to_string(), |c| c.code().to_owned()),
                Ok((client, connection)) => {
                    let task = tokio::spawn(connection);
                    let rows =
                        client.query("select distinct job from samples where name = 'owned'", &[]).await;
                    let jobs: Vec<String> = rows.unwrap().iter().map(|r| r.get(0)).collect();
                    assert_eq!(jobs, [database], "{user}");
                    task.abort();
                    String::new()
                }
            };
            assert_eq!(code, expected, "{user} {database}");
        }
        let mut config = tokio_postgres::Config::new();
        config.host(host).port(port.parse().unwrap()).user("grafana").dbname("a");
        assert!(config.connect(tokio_postgres::NoTls).await.is_err(), "without a password");
        config.password(PASSWORD).options("-c tenant=b");
        let error = config.connect(tokio_postgres::NoTls).await.err().unwrap();
        assert_eq!(error.code().map(|c| c.code()), Some("42501"), "{error}");
    });
    let metrics = Ask::get("/metrics").send(&sextant, Some(TOKEN_ALL)).1;
    assert!(metrics.contains("sextant_security_requests_total{result=\"forbidden\"} 5"), "{metrics}");
}
