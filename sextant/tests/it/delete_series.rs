//! Prometheus' deletion of series, against the binary: in memory, blocks and merged blocks, over restarts and fault points, and
//! beside a real Prometheus.

use std::{
    collections::BTreeMap,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::binary::{Sextant, encode, remote_write};

const FORM: &str = "application/x-www-form-urlencoded";
const ARGS: [&str; 3] = ["--agent.host-metrics=false", "--ingester.shards=2", "--http.admin-api=true"];
const PODS: i64 = 4;

fn start(folder: &Path, fault: Option<&str>) -> Sextant {
    Sextant::start(folder, &ARGS, fault)
}

/// What is there: (pod, second) → value.
type Samples = BTreeMap<(i64, i64), i64>;

/// Writes one sample of each pod at each second, with values that tell the writes apart.
fn write(sextant: &Sextant, want: &mut Samples, seconds: std::ops::Range<i64>, add: i64) {
    let series: Vec<_> = (0..PODS)
        .map(|pod| {
            let labels = vec![("__name__", "gone_total".to_owned()), ("pod", format!("p{pod}"))];
            let samples = seconds.clone().map(|s| (s * 1000, (s * 10 + pod + add) as f64)).collect();
            (labels, samples)
        })
        .collect();
    let (status, body) =
        sextant.post("/api/v1/push", "application/x-protobuf", remote_write(&series)).unwrap();
    assert_eq!(status, 204, "{body}");
    for s in seconds {
        want.extend((0..PODS).map(|pod| ((pod, s), s * 10 + pod + add)));
    }
}

fn flush(sextant: &Sextant, compact: bool) {
    let path = format!("/api/v1/admin/flush?compact={compact}");
    assert_eq!(sextant.post(&path, "text/plain", Vec::new()).unwrap().0, 204);
}

fn delete(sextant: &Sextant, want: &mut Samples, pods: &[i64], from: i64, to: i64) {
    let mut form = format!("start={from}&end={to}");
    for pod in pods {
        form.push_str(&format!("&match[]={}", encode(&format!("gone_total{{pod=\"p{pod}\"}}"))));
    }
    let answer = sextant.post("/api/v1/admin/tsdb/delete_series", FORM, form.into()).unwrap();
    assert_eq!(answer, (204, String::new()));
    want.retain(|(pod, s), _| !pods.contains(pod) || *s < from || *s > to);
}

fn clean(sextant: &Sextant) {
    let answer = sextant.post("/prometheus/api/v1/admin/tsdb/clean_tombstones", FORM, Vec::new()).unwrap();
    assert_eq!(answer, (204, String::new()));
}

fn json(sextant: &Sextant, path: &str) -> Value {
    let (status, body) = sextant.get(path);
    assert_eq!(status, 200, "{path}: {body}");
    serde_json::from_str::<Value>(&body).unwrap()["data"].clone()
}

/// PromQL, SQL, series, label values and cardinality must all say what is wanted.
fn check(sextant: &Sextant, want: &Samples, what: &str) {
    let mut got = Samples::new();
    for series in sextant.query("gone_total[10001s]", 10_000).as_array().unwrap() {
        let pod: i64 = series["metric"]["pod"].as_str().unwrap()[1..].parse().unwrap();
        for point in series["values"].as_array().unwrap() {
            let value: f64 = point[1].as_str().unwrap().parse().unwrap();
            let old = got.insert((pod, point[0].as_f64().unwrap() as i64), value as i64);
            assert_eq!(old, None, "{what}");
        }
    }
    let more: Vec<_> = got.iter().filter(|(k, v)| want.get(k) != Some(v)).take(5).collect();
    let less: Vec<_> = want.iter().filter(|(k, v)| got.get(k) != Some(v)).take(5).collect();
    assert!(got == *want, "{what}: too many {more:?}, too few {less:?}");
    let sql = b"select count(*) as n, sum(value) as v from samples where name = 'gone_total'".to_vec();
    let (status, body) = sextant.post("/api/v1/sql", "text/plain", sql).unwrap();
    assert_eq!(status, 200, "{body}");
    let rows: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(rows[0]["n"].as_u64(), Some(want.len() as u64), "{what}: {body}");
    assert_eq!(rows[0]["v"].as_f64().unwrap_or(0.0), want.values().sum::<i64>() as f64, "{what}: {body}");
    let mut pods: Vec<String> = want.keys().map(|k| format!("p{}", k.0)).collect();
    pods.dedup();
    let values = json(sextant, "/api/v1/label/pod/values?start=0&end=10000");
    assert_eq!(values, serde_json::json!(pods), "{what}");
    let series = json(sextant, "/api/v1/series?match[]=gone_total&start=0&end=10000");
    let found: Vec<&str> = series.as_array().unwrap().iter().map(|s| s["pod"].as_str().unwrap()).collect();
    assert_eq!(found, pods, "{what}");
}

#[test]
fn deleted_samples_are_gone_from_memory_blocks_and_merged_blocks_and_later_ones_stay() {
    let folder = tempfile::tempdir().unwrap();
    let mut want = Samples::new();
    let mut sextant = start(folder.path(), None);
    write(&sextant, &mut want, 0..40, 0);
    flush(&sextant, false);
    write(&sextant, &mut want, 20..60, 1);
    flush(&sextant, true);
    write(&sextant, &mut want, 50..80, 2);
    flush(&sextant, false);
    write(&sextant, &mut want, 70..90, 3);
    check(&sextant, &want, "written");
    delete(&sextant, &mut want, &[1, 2], 30, 75);
    check(&sextant, &want, "deleted over memory, a block and a merged block");
    write(&sextant, &mut want, 35..38, 0);
    // The same request again, after it was deleted once.
    write(&sextant, &mut want, 70..90, 3);
    check(&sextant, &want, "written again");
    flush(&sextant, false);
    check(&sextant, &want, "flushed");
    sextant.kill();
    sextant = start(folder.path(), None);
    check(&sextant, &want, "after a restart");
    delete(&sextant, &mut want, &[3], i64::from(i32::MIN), 10_000);
    check(&sextant, &want, "a whole series");
    flush(&sextant, true);
    check(&sextant, &want, "merged");
    write(&sextant, &mut want, 40..45, 7);
    delete(&sextant, &mut want, &[0, 3], 42, 42);
    sextant.kill();
    sextant = start(folder.path(), None);
    check(&sextant, &want, "replayed");
    clean(&sextant);
    check(&sextant, &want, "cleaned");
    flush(&sextant, false);
    clean(&sextant);
    check(&sextant, &want, "cleaned after a flush");
    delete(&sextant, &mut want, &[0, 1, 2, 3], 0, 10_000);
    check(&sextant, &want, "empty");
    flush(&sextant, true);
    clean(&sextant);
    check(&sextant, &want, "empty and clean");
    write(&sextant, &mut want, 5..9, 0);
    check(&sextant, &want, "a new beginning");
}

#[test]
fn a_deletion_is_complete_once_it_is_answered_wherever_the_process_dies() {
    for (fault, in_blocks) in [("delete.after_log=abort", false), ("delete.after_manifest=abort", true)] {
        let folder = tempfile::tempdir().unwrap();
        let mut want = Samples::new();
        let mut sextant = start(folder.path(), Some(fault));
        write(&sextant, &mut want, 0..20, 0);
        flush(&sextant, true);
        write(&sextant, &mut want, 20..40, 0);
        let form = format!("match[]={}", encode("gone_total{pod=~\"p[12]\"}"));
        let asked = sextant.post("/api/v1/admin/tsdb/delete_series", FORM, form.into_bytes());
        assert!(asked.is_err(), "{fault}: {asked:?}");
        // Not answered: what was in memory is gone, and stays so.
        want.retain(|(pod, s), _| ![1, 2].contains(pod) || (*s < 20 && !in_blocks));
        for _ in 0..2 {
            sextant.kill();
            sextant = start(folder.path(), None);
            check(&sextant, &want, fault);
            flush(&sextant, false);
            check(&sextant, &want, fault);
        }
        delete(&sextant, &mut want, &[1, 2], 0, 10_000);
        check(&sextant, &want, fault);
        write(&sextant, &mut want, 10..30, 5);
        flush(&sextant, true);
        clean(&sextant);
        sextant.kill();
        sextant = start(folder.path(), None);
        check(&sextant, &want, fault);
    }
}

#[test]
fn only_the_tenant_that_asks_loses_data_and_only_where_it_is_enabled() {
    let folder = tempfile::tempdir().unwrap();
    let ask = |sextant: &Sextant, tenant: &str, path: &str, body: Vec<u8>, kind: &str| {
        let request = sextant.client.post(format!("{}{path}", sextant.url)).header("Content-Type", kind);
        let response = request.header("X-Scope-OrgID", tenant).body(body).send().unwrap();
        (response.status().as_u16(), response.text().unwrap())
    };
    let count = |sextant: &Sextant, tenant: &str| {
        let path = "/api/v1/query?query=count_over_time(m[100s])&time=100";
        let answer: Value = serde_json::from_str(&ask(sextant, tenant, path, vec![], FORM).1).unwrap();
        answer["data"]["result"][0]["value"][1].as_str().unwrap_or("0").to_owned()
    };
    let disabled = "{\"status\":\"error\",\"errorType\":\"unavailable\",\"error\":\"admin APIs disabled\"}";
    let paths = ["delete_series?match[]=m", "delete_series", "clean_tombstones", "snapshot"];
    {
        let sextant = Sextant::start(folder.path(), &["--agent.host-metrics=false", "--multi-tenancy"], None);
        for path in paths {
            let path = format!("/api/v1/admin/tsdb/{path}");
            assert_eq!(ask(&sextant, "a", &path, vec![], FORM), (503, disabled.to_owned()));
        }
        for tenant in ["a", "b"] {
            let body = remote_write(&[(
                vec![("__name__", "m".to_owned())],
                vec![(10_000, 1.0), (20_000, 2.0), (30_000, 3.0)],
            )]);
            let written = ask(&sextant, tenant, "/api/v1/push", body, "application/x-protobuf");
            assert_eq!(written.0, 204);
        }
    }
    let args = ["--agent.host-metrics=false", "--multi-tenancy", "--http.admin-api"];
    let sextant = Sextant::start(folder.path(), &args, None);
    let path = "/api/v1/admin/tsdb/delete_series?match[]=m&start=15&end=25";
    let (status, body) = ask(&sextant, "a|b", path, vec![], FORM);
    assert!(status == 400 && body.contains("exactly one tenant"), "{status} {body}");
    assert_eq!(ask(&sextant, "a", path, vec![], FORM), (204, String::new()));
    assert_eq!((count(&sextant, "a").as_str(), count(&sextant, "b").as_str()), ("2", "3"));
    assert_eq!(ask(&sextant, "nobody", path, vec![], FORM), (204, String::new()));
    let (status, body) = ask(&sextant, "a", "/api/v1/admin/tsdb/snapshot", vec![], FORM);
    assert!(status == 503 && body.contains("there are no snapshots"), "{status} {body}");
}

/// Requests whose answers must be those of Prometheus, to the byte.
const REQUESTS: [(&str, &str); 18] = [
    ("POST", "delete_series"),
    ("POST", "delete_series?start=x"),
    ("POST", "delete_series?match[]="),
    ("POST", "delete_series?match[]=m{&start=x&end=y"),
    ("POST", "delete_series?match[]=m&end=x"),
    ("POST", "delete_series?match[]=m{"),
    ("POST", "delete_series?match[]=m[5m]"),
    ("POST", "delete_series?match[]=nothing&match[]={a=b}"),
    ("POST", "delete_series?match[]=m&start=100&end=50"),
    ("POST", "delete_series?match[]=nothing&start="),
    ("PUT", "delete_series?match[]=m{pod=\"a\"}&start=NOW-30&end=NOW-20"),
    ("POST", "delete_series?match[]=m{pod=\"b\"}&match[]=n&start=NOW-10"),
    ("POST", "clean_tombstones"),
    ("PUT", "clean_tombstones"),
    ("POST", "delete_series?match[]={pod=~\"c|d\"}&end=NOW-40"),
    ("POST", "delete_series?match[]={}&start=NOW-3&end=NOW-3"),
    ("POST", "delete_series?match[]={a=\"\"}&start=NOW-15&end=NOW-14"),
    ("POST", "delete_series?match[]={pod!=\"a\"}&match[]={pod=~\"a|b\"}"),
];

#[test]
fn answers_and_what_is_left_are_those_of_prometheus() {
    let Some(program) = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
        .map(|p| p.join("prometheus"))
        .find(|p| p.is_file())
    else {
        println!("skipped: there is no prometheus on the PATH");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let sextant = start(folder.path(), None);
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let file = folder.path().join("prometheus.yml");
    std::fs::write(&file, "global: {}\n").unwrap();
    let mut peer = Command::new(&program)
        .arg(format!("--config.file={}", file.display()))
        .arg(format!("--storage.tsdb.path={}", folder.path().join("tsdb").display()))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .args(["--web.enable-admin-api", "--web.enable-remote-write-receiver"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let url = format!("http://127.0.0.1:{port}");
    let until = Instant::now() + Duration::from_secs(60);
    while sextant.client.get(format!("{url}/-/ready")).send().map(|r| r.status().as_u16()).ok() != Some(200) {
        assert!(Instant::now() < until, "Prometheus is not ready");
        std::thread::sleep(Duration::from_millis(50));
    }
    let now_s = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as i64;
    let series: Vec<_> = [("m", "a"), ("m", "b"), ("m", "c"), ("n", "d")]
        .into_iter()
        .map(|(name, pod)| {
            let labels = vec![("__name__", name.to_owned()), ("pod", pod.to_owned())];
            (labels, (0..60).map(|k| ((now_s - 60 + k) * 1000, k as f64)).collect())
        })
        .collect();
    for path in [format!("{url}/api/v1/write"), format!("{}/api/v1/write", sextant.url)] {
        let request = sextant.client.post(path).header("Content-Type", "application/x-protobuf");
        let request = request.header("Content-Encoding", "snappy").body(remote_write(&series));
        assert_eq!(request.send().unwrap().status().as_u16(), 204);
    }
    let mut compared = 0;
    for (method, path) in REQUESTS {
        let mut path = path.to_owned();
        while let Some((before, rest)) = path.clone().split_once("NOW-") {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            let back: i64 = rest[..digits].parse().unwrap();
            path = format!("{before}{}{}", now_s - back, &rest[digits..]);
        }
        let ask = |base: &str| {
            let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
            let url = format!("{base}/api/v1/admin/tsdb/{path}");
            let response = sextant.client.request(method, url).send().unwrap();
            let kind = response.headers().get("content-type").map(|v| v.to_str().unwrap().to_owned());
            (response.status().as_u16(), kind, response.text().unwrap())
        };
        assert_eq!(ask(&sextant.url), ask(&url), "{method} {path}");
        let asked = path;
        for query in ["m[60s]", "n[60s]", "{pod!=\"\"}[60s]"] {
            let path = format!("/api/v1/query?query={}&time={now_s}", encode(query));
            let result = |base: &str| {
                let body = sextant.client.get(format!("{base}{path}")).send().unwrap().text().unwrap();
                let answer: Value = serde_json::from_str(&body).unwrap();
                let mut result = answer["data"]["result"].as_array().unwrap().clone();
                result.sort_by_key(|s| s["metric"].to_string());
                result
            };
            let (ours, theirs) = (result(&sextant.url), result(&url));
            assert!(ours == theirs, "{query} after {method} {asked}:\n{ours:?}\n{theirs:?}");
            compared += 1;
        }
    }
    println!("{} requests and {compared} answers are those of Prometheus", REQUESTS.len());
    let _ = peer.kill();
    let _ = peer.wait();
}
