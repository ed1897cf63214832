//! The limits file is read again while the process runs; retention takes samples from queries and from the store.

use std::path::Path;

use crate::{
    binary::{Sextant, remote_write},
    ledger::{ask, eventually, flush, metric, promql},
};

fn set(file: &Path, text: &str) {
    // As an editor or a mounted configuration does: the file is there at every instant.
    let aside = file.with_extension("new");
    std::fs::write(&aside, text).unwrap();
    std::fs::rename(&aside, file).unwrap();
}

fn write(sextant: &Sextant, tenant: &str, instance: usize, t_ms: i64) -> (u16, String) {
    let labels = vec![("__name__", "limited".to_owned()), ("instance", instance.to_string())];
    let body = remote_write(&[(labels, vec![(t_ms, 1.0)])]);
    ask(sextant, Some(tenant), "/api/v1/push", "application/x-protobuf", body).unwrap()
}

#[test]
fn new_limits_take_effect_while_the_process_runs() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("limits.yaml");
    set(&file, "defaults: {}\n");
    let limits = format!("--limits-file={}", file.display());
    let args = ["--agent.host-metrics=false", "--multi-tenancy=true", &limits];
    let sextant = Sextant::start(folder.path(), &args, None);
    let mut instance = 0;
    let mut next = |tenant: &str| {
        instance += 1;
        write(&sextant, tenant, instance, 1000)
    };
    for _ in 0..10 {
        assert_eq!(next("a").0, 204);
        assert_eq!(next("b").0, 204);
    }
    set(&file, "overrides: {a: {max_active_series: 10}}\n");
    let reason = eventually("the limit is in force", || match next("a") {
        (204, _) => Err("accepted".to_owned()),
        refused => Ok(refused),
    });
    assert!(reason.0 == 429 || reason.0 == 400, "{reason:?}");
    for part in ["max_active_series", "10"] {
        assert!(reason.1.contains(part), "{reason:?}");
    }
    assert_eq!(next("b").0, 204, "the limit is of the other tenant");
    assert_eq!(write(&sextant, "a", 1, 2000).0, 204, "a series that is known");

    // A wrong file changes nothing and is reported.
    set(&file, "overrides: {a: {max_active_serie: 1000}}\n");
    let log = folder.path().join("log.txt");
    eventually("the wrong file is reported", || {
        let text = std::fs::read_to_string(&log).unwrap();
        if text.contains("max_active_series") { Ok(()) } else { Err(text) }
    });
    assert_ne!(next("a").0, 204);
    set(&file, "overrides: {a: {max_active_series: 1000}}\n");
    eventually("the limit is raised", || match next("a") {
        (204, _) => Ok(()),
        refused => Err(format!("{refused:?}")),
    });
}

#[test]
fn retention_removes_old_samples_from_queries_and_from_the_store() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("limits.yaml");
    set(&file, "defaults: {retention: 30d}\n");
    let limits = format!("--limits-file={}", file.display());
    let args = [
        "--agent.host-metrics=false",
        "--multi-tenancy=true",
        "--compactor.interval=1s",
        "--compactor.delete-delay=1s",
        &limits,
    ];
    let sextant = Sextant::start(folder.path(), &args, None);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as i64;
    const DAY: i64 = 86_400;
    for (instance, age) in [10, 5, 0].into_iter().enumerate() {
        for tenant in ["short", "long"] {
            assert_eq!(write(&sextant, tenant, instance, (now - age * DAY) * 1000).0, 204);
        }
        // A block of its own for each age.
        assert_eq!(flush(&sextant, Some("short")), (204, String::new()));
    }
    let count = |tenant| {
        let (status, body) = promql(&sextant, Some(tenant), "count(last_over_time(limited[20d]))", now);
        assert_eq!(status, 200, "{body}");
        let answer: serde_json::Value = serde_json::from_str(&body).unwrap();
        answer["data"]["result"][0]["value"][1].as_str().unwrap_or("0").to_owned()
    };
    let blocks = |tenant: &str| {
        let dir = folder.path().join("data/objects/tenants").join(tenant).join("metrics/blocks");
        std::fs::read_dir(dir).unwrap().count()
    };
    assert_eq!((count("short"), blocks("short")), ("3".to_owned(), 3));
    set(&file, "defaults: {retention: 30d}\noverrides: {short: {retention: 7d}}\n");
    eventually("what is older than seven days is gone", || match count("short").as_str() {
        "2" => Ok(()),
        other => Err(other.to_owned()),
    });
    set(&file, "defaults: {retention: 30d}\noverrides: {short: {retention: 1d}}\n");
    eventually("what is older than a day is gone", || match (count("short").as_str(), blocks("short")) {
        ("1", 1) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    assert_eq!((count("long"), blocks("long")), ("3".to_owned(), 3));
    assert_eq!(metric(&sextant, "sextant_compactor_failures_total"), 0.0);
}

#[test]
fn a_tenant_may_send_more_than_is_configured_for_all() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("limits.yaml");
    set(&file, "overrides: {b: {max_request_bytes: 1000000}}\n");
    let limits = format!("--limits-file={}", file.display());
    let args = [
        "--agent.host-metrics=false",
        "--multi-tenancy=true",
        "--distributor.max-request-bytes=4KiB",
        &limits,
    ];
    let sextant = Sextant::start(folder.path(), &args, None);
    // Names that do not compress: more than the limit, as sent already.
    let mut x = 7u64;
    let mut name = || {
        x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        format!("{x:016x}")
    };
    let series: Vec<_> = (0..1000)
        .map(|_| (vec![("__name__", "large".to_owned()), ("instance", name())], vec![(1000i64, 1.0)]))
        .collect();
    let body = remote_write(&series);
    let push = |tenant: &str, path: &str| {
        ask(&sextant, Some(tenant), path, "application/x-protobuf", body.clone()).unwrap()
    };
    for path in ["/api/v1/push", "/v1/metrics"] {
        let (status, reason) = push("a", path);
        assert_eq!(status, 413, "{path}: {reason}");
        assert!(reason.contains("max_request_bytes") && reason.contains("4096"), "{path}: {reason}");
    }
    assert_eq!(push("b", "/api/v1/push").0, 204);
}
