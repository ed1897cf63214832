//! A disk that is full, and one that fails: writes are refused with a reason, reads go on, and nothing acknowledged is lost.
//!
//! The data folder is a tmpfs of a few MiB, which takes the right to mount one.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    binary::Sextant,
    ledger::{Ledger, Written, eventually, flush, metric, readiness},
};

const TAKES_WRITES: &str = "sextant_ingester_shard_takes_writes{shard=\"0\"}";

/// A mounted tmpfs; unmounted with the value.
struct Disk(PathBuf);

impl Disk {
    /// Mounts one; `None`, and why, where that is not allowed.
    fn mount(at: &Path, size: &str) -> Option<Self> {
        std::fs::create_dir_all(at).unwrap();
        let options = format!("size={size}");
        let done = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(at).output();
        match done {
            Ok(output) if output.status.success() => Some(Self(at.to_owned())),
            Ok(output) => {
                println!("skipped: no tmpfs: {}", String::from_utf8_lossy(&output.stderr).trim());
                None
            }
            Err(e) => {
                println!("skipped: no tmpfs: {e}");
                None
            }
        }
    }

    fn resize(&self, size: &str) {
        let options = format!("remount,size={size}");
        assert!(Command::new("mount").args(["-o", &options]).arg(&self.0).status().unwrap().success());
    }

    /// Takes what is left of the space.
    fn fill(&self) -> PathBuf {
        let path = self.0.join("filler");
        let mut file = std::fs::File::create(&path).unwrap();
        let page = [1u8; 4096];
        while std::io::Write::write_all(&mut file, &page).is_ok() {}
        path
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily, because the process may still be ending.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn args(object_store: Option<&Path>) -> Vec<String> {
    let mut args =
        ["--agent.host-metrics=false", "--ingester.log-segment-size=1MiB"].map(str::to_owned).to_vec();
    args.extend(object_store.map(|dir| format!("--object-store=file://{}", dir.display())));
    args
}

fn start(folder: &Path, args: &[String]) -> Sextant {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    Sextant::spawn(folder, &args, None).expect("the process starts")
}

#[test]
fn a_full_disk_refuses_writes_until_a_flush_frees_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let Some(_disk) = Disk::mount(&folder.path().join("data"), "8m") else { return };
    let args = args(Some(&folder.path().join("objects")));
    let mut sextant = start(folder.path(), &args);
    let mut ledger = Ledger::new(None, "full", 40).padded(3000);
    let (status, reason) = ledger.write_until_refused(&sextant, 1000);
    assert_eq!(status, 503, "{reason}");
    assert!(reason.contains("no disk space left for the log"), "{reason}");
    assert!(ledger.acknowledged.len() > 20, "{}", ledger.acknowledged.len());
    let (is_ready, why) = readiness(&sextant);
    assert!(!is_ready && why.contains("shard 0 does not take writes: no disk space"), "{why}");
    assert_eq!(metric(&sextant, TAKES_WRITES), 0.0);
    ledger.check_stored(&sextant, "full");

    // Killed and started on the full disk: it answers, and still refuses.
    sextant.kill();
    sextant = start(folder.path(), &args);
    ledger.check_stored(&sextant, "started on a full disk");
    let (status, reason) = ledger.write_until_refused(&sextant, 100);
    assert_eq!(status, 503, "{reason}");
    assert!(!readiness(&sextant).0);

    // The flush goes elsewhere and frees the log.
    assert_eq!(flush(&sextant, None), (204, String::new()));
    eventually("writes go on", || match ledger.write(&sextant) {
        Written::Acknowledged => Ok(()),
        other => Err(format!("{other:?}")),
    });
    assert_eq!(readiness(&sextant), (true, "ready\n".to_owned()));
    assert_eq!(metric(&sextant, TAKES_WRITES), 1.0);
    ledger.write_all(&sextant, 5);
    ledger.check_stored(&sextant, "after the flush");
    sextant.kill();
    let sextant = start(folder.path(), &args);
    ledger.check_stored(&sextant, "after a restart");
}

#[test]
fn a_full_disk_with_the_object_store_on_it_refuses_until_there_is_space() {
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = Disk::mount(&folder.path().join("data"), "8m") else { return };
    let mut sextant = start(folder.path(), &args(None));
    let mut ledger = Ledger::new(None, "full", 40).padded(3000);
    ledger.write_all(&sextant, 3);
    assert_eq!(flush(&sextant, None), (204, String::new()));
    let (status, reason) = ledger.write_until_refused(&sextant, 1000);
    assert!(status == 503 && reason.contains("no disk space left for the log"), "{status}: {reason}");
    let filler = disk.fill();
    let (status, reason) = flush(&sextant, None);
    assert!(status == 503 && reason.contains("No space left on device"), "{status}: {reason}");
    ledger.check_stored(&sextant, "flush on a full disk");
    assert!(!readiness(&sextant).0);

    // Space comes without a restart, and nobody writes meanwhile: the process finds out by itself.
    disk.resize("64m");
    eventually("ready again", || match readiness(&sextant) {
        (true, _) => Ok(()),
        (false, why) => Err(why),
    });
    ledger.write_all(&sextant, 5);
    eventually("the flush is repeated", || {
        let (blocks, head) = ledger.stored(&sextant);
        if blocks > 3 * 40 { Ok(()) } else { Err(format!("{blocks} in blocks, {head} in memory")) }
    });
    assert_eq!(flush(&sextant, None), (204, String::new()));
    ledger.check_stored(&sextant, "with space");
    std::fs::remove_file(filler).unwrap();
    sextant.kill();
    let sextant = start(folder.path(), &args(None));
    ledger.check_stored(&sextant, "after a restart");
    assert_eq!(ledger.stored(&sextant).1, 0);
}

#[test]
fn a_log_that_cannot_be_synced_stops_its_shards_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let args = ["--agent.host-metrics=false", "--ingester.shards=2"];
    let mut sextant = Sextant::start(folder.path(), &args, Some("log.sync=error@30"));
    let mut ledger = Ledger::new(None, "sync", 20);
    let (status, reason) = ledger.write_until_refused(&sextant, 100);
    assert!(status == 503 && reason.contains("syncing") && reason.contains("log-0"), "{status}: {reason}");
    // A sync that succeeds later proves nothing, so there is none. The other shard may still be told of the one that failed.
    let (status, reason) = ledger.write_until_refused(&sextant, 1);
    let says = ["stopped", "syncing"].iter().any(|why| reason.contains(why));
    assert!(status == 503 && says, "{status}: {reason}");
    let why = eventually("not ready", || match readiness(&sextant) {
        (true, _) => Err("ready".to_owned()),
        (false, why) => Ok(why),
    });
    for shard in ["shard 0 does not take writes", "shard 1 does not take writes", "syncing"] {
        assert!(why.contains(shard), "{why}");
    }
    assert_eq!(metric(&sextant, TAKES_WRITES), 0.0);
    assert_eq!(sextant.get("/healthz").0, 200);
    ledger.check(&sextant, "reads go on");
    let (status, reason) = flush(&sextant, None);
    assert_eq!(status, 503, "{reason}");
    ledger.check(&sextant, "after a flush that failed");
    sextant.kill();
    let sextant = Sextant::start(folder.path(), &args, None);
    ledger.check_stored(&sextant, "after a restart");
    ledger.write_all(&sextant, 3);
    assert_eq!(metric(&sextant, TAKES_WRITES), 1.0);
}
