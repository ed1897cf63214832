//! The HTTP API against the binary: what Grafana calls, SQL's forms, and errors.

use crate::binary::{Sextant, encode, remote_write};

fn filled(folder: &std::path::Path) -> Sextant {
    let sextant = Sextant::start(folder, &["--agent.host-metrics=false"], None);
    let series: Vec<_> = ["a", "b"]
        .iter()
        .map(|pod| {
            let labels = vec![
                ("__name__", "http_requests_total".to_owned()),
                ("job", "web".to_owned()),
                ("pod", (*pod).to_owned()),
            ];
            (labels, (0..20).map(|i| (i * 15_000, f64::from(i as u32) * 3.0)).collect())
        })
        .collect();
    let body = remote_write(&series);
    let (status, text) = sextant.post("/api/v1/push", "application/x-protobuf", body).unwrap();
    assert_eq!(status, 204, "{text}");
    sextant
}

#[test]
fn what_grafana_calls() {
    let folder = tempfile::tempdir().unwrap();
    let sextant = filled(folder.path());
    for blocks in [false, true] {
        if blocks {
            assert_eq!(
                sextant.post("/api/v1/admin/flush?compact=true", "text/plain", Vec::new()).unwrap().0,
                204
            );
        }
        for prefix in ["/api/v1", "/prometheus/api/v1"] {
            let json = |path: &str| -> serde_json::Value {
                let (status, body) = sextant.get(&format!("{prefix}{path}"));
                assert_eq!(status, 200, "{path}: {body}");
                serde_json::from_str(&body).unwrap()
            };
            assert_eq!(json("/query?query=1%2B1&time=4")["data"]["result"][1], "2");
            let build = json("/status/buildinfo");
            assert!(build["data"]["version"].is_string() && build["data"]["features"].is_null());
            let plan = json("/explain?query=sum(rate(http_requests_total[1m]))&time=120")["data"]["plan"]
                .to_string();
            assert!(plan.contains("output_rows=2") && plan.contains("output_bytes="), "{plan}");
            assert_eq!(json("/labels")["data"], serde_json::json!(["__name__", "job", "pod"]));
            assert_eq!(
                json("/label/__name__/values?limit=40000")["data"],
                serde_json::json!(["http_requests_total"])
            );
            assert_eq!(
                json("/label/pod/values?match[]=http_requests_total{pod!=%22a%22}")["data"],
                serde_json::json!(["b"])
            );
            assert_eq!(json("/series?match[]=http_requests_total")["data"].as_array().unwrap().len(), 2);
            assert_eq!(
                json("/series?match[]=http_requests_total&limit=1")["data"].as_array().unwrap().len(),
                1
            );
            assert!(json("/metadata")["data"].is_object());
            assert!(json("/rules")["data"]["groups"].is_array());
            assert_eq!(
                json("/query_exemplars?query=http_requests_total&start=0&end=10")["data"],
                serde_json::json!([])
            );
            let range =
                json("/query_range?query=sum(rate(http_requests_total[1m]))&start=120&end=240&step=60");
            assert_eq!(range["data"]["result"][0]["values"].as_array().unwrap().len(), 3);
            let rate: f64 = range["data"]["result"][0]["values"][0][1].as_str().unwrap().parse().unwrap();
            assert!((rate - 0.4).abs() < 1e-9, "{rate}");
            let form = "query=sum(rate(http_requests_total[1m]))&start=120&end=240&step=60";
            let posted = sextant
                .post(&format!("{prefix}/query_range"), "application/x-www-form-urlencoded", form.into())
                .unwrap();
            assert_eq!(serde_json::from_str::<serde_json::Value>(&posted.1).unwrap(), range);
        }
    }
    for (path, status, kind) in [
        ("/api/v1/query?query=sum(", 400, "bad_data"),
        ("/api/v1/query_range?query=up&start=0&end=1&step=0", 400, "bad_data"),
        ("/api/v1/query_range?query=up&start=0&end=1000000&step=1", 400, "bad_data"),
        ("/api/v1/query?query=up&time=abc", 400, "bad_data"),
        ("/api/v1/query?query=up&timeout=abc", 400, "bad_data"),
        ("/api/v1/series", 400, "bad_data"),
        ("/api/v1/query?query=label_replace(up,%22a%22,%22b%22,%22c%22,%22(%22)", 422, "execution"),
    ] {
        let (got, body) = sextant.get(path);
        let json: serde_json::Value = serde_json::from_str(&body).unwrap_or_default();
        assert_eq!((got, json["errorType"].as_str()), (status, Some(kind)), "{path}: {body}");
    }
}

#[test]
fn sql_in_its_forms() {
    let folder = tempfile::tempdir().unwrap();
    let sextant = filled(folder.path());
    let sql = |text: &str| sextant.post("/api/v1/sql", "text/plain", text.as_bytes().to_vec()).unwrap();
    for blocks in [false, true] {
        if blocks {
            assert_eq!(sextant.post("/api/v1/admin/flush", "text/plain", Vec::new()).unwrap().0, 204);
        }
        let (status, body) = sql(
            "select pod, count(*) as n, max(value) as top from samples where name = 'http_requests_total' group by pod order by pod",
        );
        assert_eq!(status, 200, "{body}");
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&body).unwrap(),
            serde_json::json!([{"pod": "a", "n": 20, "top": 57.0}, {"pod": "b", "n": 20, "top": 57.0}])
        );
        let (_, body) = sql("select name, pod, sample_count, labels['job'] as job from metrics order by pod");
        assert!(body.contains(r#""sample_count":20"#) && body.contains(r#""job":"web""#), "{body}");
        let (status, body) = sql(
            "select pod, time, value from promql('rate(http_requests_total[1m])', 120, 240, '60s') where pod = 'a' order by time",
        );
        assert_eq!(status, 200, "{body}");
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&body).unwrap().as_array().unwrap().len(),
            3,
            "{body}"
        );
    }
    let (_, plan) = sql(
        "explain select value from samples where pod = 'a' and time >= '1970-01-01T00:00:30Z' and time < '1970-01-01T00:01:00Z'",
    );
    assert!(plan.contains(r#"pod=\\\"a\\\""#) || plan.contains("pod="), "{plan}");
    assert!(
        plan.contains("time>=30000ms") && plan.contains("time<=59999ms") && !plan.contains("FilterExec"),
        "{plan}"
    );
    let csv = sextant.post("/api/v1/sql?format=csv", "text/plain", b"select 1 as one".to_vec()).unwrap();
    assert_eq!(csv.1, "one\n1\n");
    let form = format!("query={}&format=csv", encode("select 2 as two"));
    assert_eq!(
        sextant.post("/api/v1/sql", "application/x-www-form-urlencoded", form.into()).unwrap().1,
        "two\n2\n"
    );
    let json = sextant
        .post("/api/v1/sql", "application/json", br#"{"query": "select 3 as three"}"#.to_vec())
        .unwrap();
    assert_eq!(json.1, r#"[{"three":3}]"#);
    for bad in [
        "drop table samples",
        "insert into samples select * from samples",
        "create table x as select 1",
        "copy samples to 'x.parquet'",
        "set a = b",
        "select",
        "select * from nowhere",
    ] {
        let (status, body) = sql(bad);
        assert!((400..500).contains(&status), "{bad}: {status} {body}");
    }
}

#[test]
fn tenants_do_not_see_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let sextant = Sextant::start(folder.path(), &["--agent.host-metrics=false", "--multi-tenancy"], None);
    let send = |tenant: &str, v: f64| {
        let body = remote_write(&[(vec![("__name__", "m".to_owned())], vec![(1000, v)])]);
        let request = sextant
            .client
            .post(format!("{}/api/v1/push", sextant.url))
            .header("Content-Type", "application/x-protobuf");
        request.header("X-Scope-OrgID", tenant).body(body).send().unwrap().status().as_u16()
    };
    assert_eq!((send("a", 1.0), send("b", 2.0)), (204, 204));
    assert_eq!(send("../a", 1.0), 401);
    let ask = |tenant: Option<&str>| {
        let mut request = sextant.client.get(format!("{}/api/v1/query?query=m&time=1", sextant.url));
        if let Some(t) = tenant {
            request = request.header("X-Scope-OrgID", t);
        }
        let response = request.send().unwrap();
        (response.status().as_u16(), response.text().unwrap())
    };
    assert_eq!(ask(None).0, 401);
    let (_, a) = ask(Some("a"));
    assert!(a.contains("\"1\"") && !a.contains("\"2\""), "{a}");
    let (_, both) = ask(Some("a|b"));
    assert!(both.contains("__tenant_id__") && both.contains("\"1\"") && both.contains("\"2\""), "{both}");
}

#[test]
fn a_slow_query_is_logged_and_says_what_it_read() {
    let folder = tempfile::tempdir().unwrap();
    drop(filled(folder.path()));
    let sextant =
        Sextant::start(folder.path(), &["--agent.host-metrics=false", "--querier.slow-query=1ms"], None);
    assert_eq!(sextant.post("/api/v1/admin/flush", "text/plain", Vec::new()).unwrap().0, 204);
    let (status, body) =
        sextant.get("/api/v1/query?query=sum(rate(http_requests_total[2m]))&time=120&stats=detailed");
    assert_eq!(status, 200, "{body}");
    let stats: serde_json::Value = serde_json::from_str(&body).unwrap();
    let stats = &stats["data"]["stats"];
    assert_eq!(stats["storage"]["blocks"], 1, "{stats}");
    // The compactor has the block in the cache already, or it does not.
    let read = ["requests", "cachedChunks"].map(|n| stats["storage"][n].as_u64().unwrap());
    assert!(read[0] + read[1] > 0, "{stats}");
    assert!(stats["samples"]["totalQueryableSamplesPerStep"].is_array(), "{stats}");
    let (status, body) = sextant.get("/api/v1/query?query=1&stats=all");
    assert!(status == 200 && !body.contains("storage"), "{body}");
    // Not every machine takes a millisecond for one; a hundred subqueries take longer.
    let nested = format!("{}http_requests_total{}", "max_over_time(".repeat(30), "[1d:10s])".repeat(30));
    let _ = sextant.get(&format!("/api/v1/query?query={}&time=120", encode(&nested)));
    let log = std::fs::read_to_string(folder.path().join("log.txt")).unwrap();
    assert!(log.contains("slow query") && log.contains("PromExec"), "{log}");
}
