//! Crashes at every point of the write path: nothing acknowledged is lost or applied twice.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use futures::future::join_all;
use parking_lot::Mutex;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use sextant_replication::{LogStore, StoreOptions};

use crate::support::*;

const WRITERS: u64 = 6;
const PER_WRITER: u64 = 120;

/// A folder as it was at a fault point, with what each writer had been told by then.
struct Image {
    path: PathBuf,
    point: &'static str,
    acknowledged: Vec<u64>,
    checkpoint: u64,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_acknowledged_payload_survives_a_crash_at_any_point() {
    let dir = tempfile::tempdir().unwrap();
    let images_dir = tempfile::tempdir().unwrap();
    let acknowledged: Arc<Vec<AtomicU64>> = Arc::new((0..WRITERS).map(|_| AtomicU64::new(0)).collect());
    let checkpointed = Arc::new(AtomicU64::new(0));
    let armed = Arc::new(AtomicBool::new(false));
    let images: Arc<Mutex<Vec<Image>>> = Arc::default();
    // A checkpoint's files change on another thread than the log's: a copy must not run while the other one renames.
    let rng = Mutex::new((StdRng::seed_from_u64(42), 0));
    let crash = {
        let (from, to) = (dir.path().to_owned(), images_dir.path().to_owned());
        let (acknowledged, checkpointed) = (Arc::clone(&acknowledged), Arc::clone(&checkpointed));
        let (armed, images) = (Arc::clone(&armed), Arc::clone(&images));
        hook(move |point| {
            let mut rng = rng.lock();
            let rare = point == "log.recycle" || point.starts_with("checkpoint");
            if armed.load(Ordering::Relaxed) && rng.0.random_bool(if rare { 0.5 } else { 0.1 }) {
                rng.1 += 1;
                // First what was promised, then the copy: the copy must hold it all.
                let promised = acknowledged.iter().map(|a| a.load(Ordering::SeqCst)).collect();
                let checkpoint = checkpointed.load(Ordering::SeqCst);
                let path = to.join(rng.1.to_string());
                if try_copy(&from, &path) {
                    images.lock().push(Image { path, point, acknowledged: promised, checkpoint });
                }
            }
            Ok(())
        })
    };
    let store = LogStore::open(StoreOptions { fault_hook: crash, ..options(dir.path()) }).unwrap();
    let group = open_group(&store, GROUP).await;
    armed.store(true, Ordering::Relaxed);
    let writers = (0..WRITERS).map(|w| {
        let (group, acknowledged) = (group.clone(), Arc::clone(&acknowledged));
        let checkpointed = Arc::clone(&checkpointed);
        tokio::spawn(async move {
            for n in 0..PER_WRITER {
                let (index, _) = group.propose(numbered(w * 1000 + n, 300)).await.unwrap();
                acknowledged[w as usize].store(n + 1, Ordering::SeqCst);
                if w == 0 && n % 20 == 19 {
                    let app = covered(&group.state_machine().applied.lock(), index);
                    group.checkpoint(index, app.into()).await.unwrap();
                    checkpointed.store(index, Ordering::SeqCst);
                }
            }
        })
    });
    join_all(writers).await.into_iter().for_each(|w| w.unwrap());
    armed.store(false, Ordering::Relaxed);
    close(store, group).await;

    let images = std::mem::take(&mut *images.lock());
    let points: std::collections::BTreeSet<_> = images.iter().map(|i| i.point).collect();
    for point in ["log.write", "log.sync", "log.after_sync", "log.recycle"] {
        assert!(points.contains(point), "no crash at {point}: {points:?}");
    }
    assert!(points.iter().any(|p| p.starts_with("checkpoint")), "no crash within a checkpoint: {points:?}");
    let mut rng = StdRng::seed_from_u64(7);
    for image in &images {
        check(image).await;
        // Only here the last write is on its way; at the other points it is synced, and losing any of it would be damage.
        if image.point == "log.sync" {
            tear(&image.path, &mut rng);
            check(image).await;
        }
    }
}

/// Copies the folder unless a file vanishes meanwhile (a rename on another thread).
fn try_copy(from: &Path, to: &Path) -> bool {
    fs::create_dir_all(to).unwrap();
    let listed: Vec<_> = fs::read_dir(from).unwrap().map(|e| e.unwrap().file_name()).collect();
    let copied = listed.iter().all(|name| fs::copy(from.join(name), to.join(name)).is_ok());
    copied && fs::read_dir(from).unwrap().all(|e| listed.contains(&e.unwrap().file_name()))
}

/// The next number of each writer at `index`, as the app's part of a checkpoint.
fn covered(applied: &[(u64, bytes::Bytes)], index: u64) -> String {
    let mut next = vec![0; WRITERS as usize];
    for (_, payload) in applied.iter().filter(|(i, _)| *i <= index) {
        let text = String::from_utf8_lossy(payload);
        let n: u64 = text.split(' ').next().unwrap().parse().unwrap();
        next[n as usize / 1000] = n % 1000 + 1;
    }
    next.iter().map(u64::to_string).collect::<Vec<_>>().join(",")
}

/// Loses a random part of what the last write did not sync, as a power loss would: whole sectors, in any order.
fn tear(dir: &Path, rng: &mut StdRng) {
    let Some(segment) = segments(dir).pop() else { return };
    let found = records(&segment);
    let Some(&(last, length, synced)) = found.last() else { return };
    let mut bytes = fs::read(&segment).unwrap();
    for sector in (synced.next_multiple_of(512)..last + length).step_by(512) {
        if rng.random_bool(0.5) {
            let end = (sector + 512).min(bytes.len());
            bytes[sector..end].fill(0);
        }
    }
    fs::write(&segment, bytes).unwrap();
}

async fn check(image: &Image) {
    // On a copy, because opening repairs.
    let trial = tempfile::tempdir().unwrap();
    copy_dir(&image.path, trial.path());
    let (store, group) = open(trial.path()).await;
    let machine = group.state_machine();
    let restored = machine.restored.lock().clone();
    let at = restored.as_ref().map_or(0, |(index, _)| *index);
    assert!(at >= image.checkpoint, "the checkpoint at {} is gone", image.checkpoint);
    let mut next: Vec<u64> = match restored {
        Some((_, app)) => String::from_utf8(app).unwrap().split(',').map(|n| n.parse().unwrap()).collect(),
        None => vec![0; WRITERS as usize],
    };
    for n in machine.numbers() {
        let writer = n as usize / 1000;
        assert_eq!(n % 1000, next[writer], "writer {writer}, crash at {} in {:?}", image.point, image.path);
        next[writer] += 1;
    }
    for (writer, (&found, &promised)) in next.iter().zip(&image.acknowledged).enumerate() {
        assert!(
            found >= promised,
            "writer {writer}: {promised} acknowledged, {found} found, {}",
            image.point
        );
    }
    group.propose("99999 still writable".into()).await.unwrap();
    close(store, group).await;
}

const CHILD: &str = "SEXTANT_CRASH_CHILD";

/// The process really ends, at the fault points that are set from outside.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_aborted_process_has_lost_nothing_that_it_reported() {
    let fault_points = [
        "log.write=abort@40",
        "log.sync=abort@41",
        "log.after_sync=abort@42",
        "log.recycle=abort@2",
        "checkpoint.before_rename=abort@2",
        "checkpoint.after_rename=abort@2",
    ];
    for fault in fault_points {
        let dir = tempfile::tempdir().unwrap();
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crash::child_process", "--nocapture"])
            .env(CHILD, dir.path())
            .env("SEXTANT_FAULT", fault)
            .output()
            .unwrap();
        assert!(!child.status.success(), "{fault} was not reached");
        let text = String::from_utf8_lossy(&child.stdout);
        let reported =
            text.lines().filter_map(|l| l.strip_prefix("ack ")).filter_map(|n| n.parse().ok()).max();
        let reported: u64 = reported.unwrap_or_else(|| panic!("{fault}: nothing was acknowledged: {text}"));
        let (store, group) = open(dir.path()).await;
        let restored = group.state_machine().restored.lock().clone();
        let first =
            restored.map_or(0, |(_, app)| String::from_utf8(app).unwrap().parse::<u64>().unwrap() + 1);
        let numbers = group.state_machine().numbers();
        let next = first + numbers.len() as u64;
        assert_eq!(numbers, (first..next).collect::<Vec<_>>(), "{fault}");
        assert!(next == reported + 1 || next == reported + 2, "{fault}: {reported} reported, {next} found");
        group.propose(numbered(next, 300)).await.unwrap();
        close(store, group).await;
    }
}

/// The process that is aborted; does nothing when it is run as a test of its own.
#[test]
fn child_process() {
    let Ok(dir) = std::env::var(CHILD) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let (_store, group) = open(dir.as_ref()).await;
        for n in 0..1000 {
            let (index, _) = group.propose(numbered(n, 1000)).await.unwrap();
            println!("ack {n}");
            if n % 10 == 9 {
                group.checkpoint(index, n.to_string().into()).await.unwrap();
            }
        }
    });
}
