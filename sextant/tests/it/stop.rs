//! SIGTERM under load: an orderly end, within its time, and nothing acknowledged is lost.

use std::{
    io::Write,
    net::TcpStream,
    process::{Command, ExitStatus},
    time::{Duration, Instant},
};

use crate::{
    binary::Sextant,
    ledger::{Ledger, Written, flush},
};

const WRITERS: usize = 4;

fn terminate(sextant: &Sextant) {
    let pid = sextant.child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
}

/// Waits for the end; a process that does not end at all fails the test after a minute.
fn wait(sextant: &mut Sextant) -> ExitStatus {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(status) = sextant.child.try_wait().unwrap() {
            return status;
        }
        assert!(Instant::now() < until, "the process did not end");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_stop_under_load_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    // Small flushes, so that one is usually under way when the stop comes.
    let args = [
        "--agent.host-metrics=false",
        "--ingester.shards=2",
        "--ingester.log-segment-size=1MiB",
        "--ingester.flush-samples=2000",
        "--compactor.interval=1s",
    ];
    let mut ledgers: Vec<Ledger> =
        (0..WRITERS).map(|w| Ledger::new(None, &format!("stop_{w}"), 20).padded(100)).collect();
    for round in 0..3 {
        let mut sextant = Sextant::start(folder.path(), &args, None);
        let (ending, acknowledged): (Vec<_>, Vec<_>) = std::thread::scope(|scope| {
            let sextant = &sextant;
            let writers: Vec<_> = ledgers
                .iter_mut()
                .map(|ledger| {
                    scope.spawn(move || {
                        let before = ledger.acknowledged.len();
                        let ending = loop {
                            match ledger.write(sextant) {
                                Written::Acknowledged => {}
                                other => break other,
                            }
                        };
                        (ending, ledger.acknowledged.len() - before)
                    })
                })
                .collect();
            std::thread::sleep(Duration::from_millis(500 + 400 * round));
            terminate(sextant);
            writers.into_iter().map(|w| w.join().unwrap()).unzip()
        });
        let status = wait(&mut sextant);
        assert!(status.success(), "{status}");
        assert!(acknowledged.iter().all(|n| *n > 0), "{acknowledged:?}");
        // A writer learns of the stop by a connection that is closed, or by a status that tells it to come again.
        for end in ending {
            assert!(matches!(end, Written::Gone | Written::Refused(503, _)), "{end:?}");
        }
    }
    let sextant = Sextant::start(folder.path(), &args, None);
    for ledger in &ledgers {
        ledger.check(&sextant, "after stops");
    }
    assert_eq!(flush(&sextant, None), (204, String::new()));
    for ledger in &ledgers {
        ledger.check(&sextant, "after a flush");
    }
    println!("{} acknowledged", ledgers.iter().map(|l| l.acknowledged.len()).sum::<usize>());
}

#[test]
fn a_client_that_never_ends_its_request_does_not_hold_up_a_stop() {
    let folder = tempfile::tempdir().unwrap();
    let args = ["--agent.host-metrics=false", "--shutdown-timeout=1s"];
    let mut sextant = Sextant::start(folder.path(), &args, None);
    let mut ledger = Ledger::new(None, "stop", 20);
    ledger.write_all(&sextant, 5);
    let mut silent = TcpStream::connect(sextant.url.trim_start_matches("http://")).unwrap();
    silent.write_all(b"POST /api/v1/push HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nhalf").unwrap();
    let _idle = TcpStream::connect(&sextant.grpc).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    terminate(&sextant);
    let status = wait(&mut sextant);
    assert!(status.success(), "{status}");
    let sextant = Sextant::start(folder.path(), &args, None);
    ledger.check_stored(&sextant, "after the stop");
}
