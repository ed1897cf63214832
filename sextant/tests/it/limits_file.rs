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
