//! An object store that fails, hangs or is slow: writes go on until memory is full, are then refused, and nothing is lost.
//!
//! The store is a real S3 server (`pip install 'moto[server]'`) behind a proxy that misbehaves when told to.

use std::{
    net::TcpListener,
    process::{Child, Command, Stdio},
    time::Duration,
};

use crate::{
    binary::Sextant,
    ledger::{Ledger, Written, eventually, flush, metric, promql, readiness, sql},
    proxy::{Mode, Proxy},
};

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A server with a bucket `blocks`, and a proxy before it; `None` where it is not installed.
fn s3() -> Option<(Server, Proxy)> {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let child = Command::new("moto_server")
        .args(["-H", "127.0.0.1", "-p", &port.to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let Ok(child) = child else {
        println!("skipped: moto_server cannot be run (pip install 'moto[server]')");
        return None;
    };
    let server = Server(child);
    let client = reqwest::blocking::Client::new();
    eventually("the S3 server answers", || {
        let made = client.put(format!("http://127.0.0.1:{port}/blocks")).send();
        made.and_then(|r| r.error_for_status()).map(drop).map_err(|e| e.to_string())
    });
    Some((server, Proxy::start(port)))
}

fn start(folder: &std::path::Path, proxy: &Proxy, more: &[&str]) -> Sextant {
    let endpoint = format!("--s3.endpoint=http://{}", proxy.address);
    let mut args = vec![
        "--agent.host-metrics=false",
        "--object-store=s3://blocks/faults",
        "--s3.allow-http=true",
        "--s3.region=us-east-1",
        "--s3.access-key-id=test",
        "--s3.secret-access-key=test",
        &endpoint,
    ];
    args.extend(more);
    Sextant::start(folder, &args, None)
}

#[test]
fn a_failing_object_store_slows_writers_down_and_loses_nothing() {
    let Some((_server, proxy)) = s3() else { return };
    let folder = tempfile::tempdir().unwrap();
    let args = ["--ingester.head-memory-max=2MiB", "--ingester.drop-grace=0s"];
    let mut sextant = start(folder.path(), &proxy, &args);
    let mut ledger = Ledger::new(None, "outage", 40).padded(1000);
    ledger.write_all(&sextant, 3);
    assert_eq!(flush(&sextant, None), (204, String::new()));

    proxy.set(Mode::Status(503));
    let first_in_memory = ledger.acknowledged.len() as i64 + 1;
    let (status, reason) = ledger.write_until_refused(&sextant, 1000);
    assert!(status == 429 && reason.contains("ingester.head_memory_max"), "{status}: {reason}");
    assert!(readiness(&sextant).0, "a full memory is not a shard that is down");
    let in_memory = "count(count_over_time(outage[1s]))";
    for mode in [Mode::Status(500), Mode::Reset] {
        proxy.set(mode);
        // What is in memory is answered without the store. What needs a block is an error, never a part of the answer.
        let (status, body) = promql(&sextant, None, "count(outage)", first_in_memory);
        assert_eq!(status, 503, "the look-back reaches the block: {body}");
        assert!(
            body.contains("object store") && body.contains("tenants/anonymous/metrics/blocks/"),
            "{body}"
        );
        let (status, body) = promql(&sextant, None, in_memory, first_in_memory);
        assert!(status == 200 && body.contains("\"40\""), "{mode:?}: {status}: {body}");
        let (status, body) = sql(&sextant, None, "select count(*) from samples");
        assert!(status == 503 && body.contains("object store"), "{mode:?}: {status}: {body}");
        let (status, body) = flush(&sextant, None);
        assert!(status == 503 && body.contains("object store"), "{mode:?}: {status}: {body}");
        // The flush has ended a generation, which takes less memory then; there may be room for a few more.
        assert_eq!(ledger.write_until_refused(&sextant, 1000).0, 429, "{mode:?}");
    }
    assert!(metric(&sextant, "sextant_ingester_flush_failures_total") > 0.0);

    // It comes back: the flush is repeated by itself, and writers go on.
    proxy.set(Mode::Pass);
    eventually("writes go on", || match ledger.write(&sextant) {
        Written::Acknowledged => Ok(()),
        other => Err(format!("{other:?}")),
    });
    ledger.check_stored(&sextant, "the store is back");
    assert_eq!(flush(&sextant, None), (204, String::new()));
    assert_eq!(ledger.stored(&sextant).1, 0);
    ledger.check_stored(&sextant, "after the flush");

    // An outage over a restart.
    ledger.write_all(&sextant, 3);
    proxy.set(Mode::Status(503));
    sextant.kill();
    sextant = start(folder.path(), &proxy, &args);
    ledger.write_all(&sextant, 2);
    let (status, body) = promql(&sextant, None, "outage", 1);
    assert!(status == 503 && body.contains("object store"), "no manifest is known: {status}: {body}");
    proxy.set(Mode::Pass);
    ledger.check_stored(&sextant, "after a restart");
}

#[test]
fn a_slow_or_silent_object_store_holds_up_neither_writers_nor_reads_of_recent_data() {
    let Some((_server, proxy)) = s3() else { return };
    let folder = tempfile::tempdir().unwrap();
    let sextant = start(folder.path(), &proxy, &[]);
    let mut ledger = Ledger::new(None, "slow", 5);
    ledger.write_all(&sextant, 3);
    assert_eq!(flush(&sextant, None), (204, String::new()));
    ledger.write_all(&sextant, 3);
    let newest = |at| {
        let (status, body) = promql(&sextant, None, "count(count_over_time(slow[1s]))", at);
        assert!(status == 200 && body.contains("\"5\""), "{status}: {body}");
    };

    proxy.set(Mode::Delay(Duration::from_secs(1)));
    let before = proxy.requests();
    eventually("a query asks the store for the newest manifest", || {
        newest(6);
        if proxy.requests() > before { Ok(()) } else { Err("no request".to_owned()) }
    });
    ledger.write_all(&sextant, 3);
    newest(9);
    ledger.check(&sextant, "slow");
    assert_eq!(flush(&sextant, None), (204, String::new()));
    ledger.check_stored(&sextant, "flushed to a slow store");

    proxy.set(Mode::Hang);
    ledger.write_all(&sextant, 3);
    newest(12);
    proxy.set(Mode::Pass);
    ledger.check_stored(&sextant, "the store answers again");
}
