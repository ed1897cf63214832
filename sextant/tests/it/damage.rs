//! Flipped bytes in a block, its sidecars, a manifest and the log: the answer is an error that names the file, never other data, and
//! only the damaged tenant has it.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    binary::{Sextant, binary},
    ledger::{Ledger, ask, flush, promql, sql},
};

const ARGS: [&str; 4] = [
    "--agent.host-metrics=false",
    "--multi-tenancy=true",
    "--ingester.log-segment-size=1MiB",
    "--compactor.interval=1h",
];

/// Changes one byte of a file for as long as the value lives.
struct Flipped {
    file: PathBuf,
    whole: Vec<u8>,
}

impl Flipped {
    fn at(file: &Path, offset: usize) -> Self {
        let whole = std::fs::read(file).unwrap();
        let mut bytes = whole.clone();
        bytes[offset] ^= 0x10;
        std::fs::write(file, bytes).unwrap();
        Self { file: file.to_owned(), whole }
    }
}

impl Drop for Flipped {
    fn drop(&mut self) {
        std::fs::write(&self.file, &self.whole).unwrap();
    }
}

/// The files below a folder, sorted.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { open.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    found
}

fn tenant_files(folder: &Path, tenant: &str, part: &str) -> Vec<PathBuf> {
    files(&folder.join("data/objects/tenants").join(tenant).join("metrics").join(part))
}

/// The path of an object as errors name it.
fn object(file: &Path) -> String {
    let text = file.display().to_string();
    text[text.find("tenants/").unwrap()..].to_owned()
}

/// Two tenants with a block each.
fn two_tenants(folder: &Path) -> (Ledger, Ledger) {
    let mut sextant = Sextant::start(folder, &ARGS, None);
    let (mut a, mut b) = (Ledger::new(Some("a"), "damage", 30), Ledger::new(Some("b"), "damage", 30));
    a.write_all(&sextant, 10);
    b.write_all(&sextant, 10);
    assert_eq!(flush(&sextant, Some("a")), (204, String::new()));
    sextant.kill();
    (a, b)
}

#[test]
fn a_flipped_byte_in_any_file_of_a_block_is_reported_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = two_tenants(folder.path());
    let blocks = tenant_files(folder.path(), "a", "blocks");
    let names: Vec<_> = blocks.iter().map(|f| f.file_name().unwrap().to_str().unwrap()).collect();
    for name in ["checksums", "index", "samples.parquet", "series.parquet"] {
        assert!(names.contains(&name), "{names:?}");
    }
    let mut reported = 0;
    for file in &blocks {
        let size = std::fs::metadata(file).unwrap().len() as usize;
        for offset in [4, size / 2, size - 5] {
            let _flipped = Flipped::at(file, offset);
            let sextant = Sextant::start(folder.path(), &ARGS, None);
            let what = format!("{} at {offset} of {size}", file.display());
            let answers = [
                promql(&sextant, Some("a"), "sum(count_over_time(damage[100s]))", 11),
                sql(&sextant, Some("a"), "select sum(value) from samples"),
                sql(&sextant, Some("a"), "select count(*) from metrics"),
            ];
            for (status, body) in &answers {
                match status {
                    // The file, or this part of it, is not needed for the answer.
                    200 => {}
                    500 => {
                        assert!(body.contains(&object(file)) && body.contains("corrupt"), "{what}: {body}")
                    }
                    _ => panic!("{what}: {status}: {body}"),
                }
            }
            if answers.iter().all(|(status, _)| *status == 200) {
                a.check(&sextant, &what);
            } else {
                reported += 1;
            }
            // Merging it would give the damage a new checksum: it is refused as well, and the block stays.
            let (status, body) =
                ask(&sextant, Some("a"), "/api/v1/admin/flush?compact=true", "", vec![]).unwrap();
            assert!(status == 204 || body.contains(&object(file)), "{what}: {status}: {body}");
            b.check(&sextant, &what);
        }
    }
    assert!(reported >= 12, "{reported} of {} files", blocks.len());
    assert_eq!(tenant_files(folder.path(), "a", "blocks"), blocks);
    let sextant = Sextant::start(folder.path(), &ARGS, None);
    a.check_stored(&sextant, "mended");
}

#[test]
fn a_damaged_manifest_is_reported_and_not_written_over() {
    let folder = tempfile::tempdir().unwrap();
    let (mut a, mut b) = two_tenants(folder.path());
    let manifests = tenant_files(folder.path(), "a", "manifest");
    let newest = manifests.last().unwrap();
    let flipped = Flipped::at(newest, 200);
    let damaged = std::fs::read(newest).unwrap();
    let mut sextant = Sextant::start(folder.path(), &ARGS, None);
    for (status, body) in
        [promql(&sextant, Some("a"), "damage", 5), sql(&sextant, Some("a"), "select count(*) from samples")]
    {
        assert!(
            status == 500 && body.contains(&object(newest)) && body.contains("corrupt"),
            "{status}: {body}"
        );
    }
    b.check(&sextant, "another tenant");
    // Writes are taken, for both; their flush is not possible for the one.
    a.write_all(&sextant, 2);
    b.write_all(&sextant, 2);
    let (status, body) = flush(&sextant, Some("b"));
    assert!(status == 503 && body.contains(&object(newest)), "{status}: {body}");
    let (status, body) = ask(&sextant, Some("a"), "/api/v1/admin/flush?compact=true", "", vec![]).unwrap();
    assert!(status == 503 && body.contains(&object(newest)), "{status}: {body}");
    b.check(&sextant, "another tenant, after flushes that failed");
    let (status, page) = sextant.get("/api/v1/overview");
    assert!(status == 200 && page.contains(&object(newest)) && page.contains("\"b\""), "{status}: {page}");
    assert_eq!(tenant_files(folder.path(), "a", "manifest"), manifests, "nothing was added");
    assert_eq!(std::fs::read(newest).unwrap(), damaged);
    sextant.kill();
    drop(flipped);
    let sextant = Sextant::start(folder.path(), &ARGS, None);
    assert_eq!(flush(&sextant, Some("a")), (204, String::new()));
    a.check_stored(&sextant, "mended");
    b.check_stored(&sextant, "mended");
}

/// Starts the binary where it must not come up; its error.
fn refused_start(folder: &Path) -> String {
    let output = Command::new(binary())
        .arg("--data-dir")
        .arg(folder.join("data"))
        .args([
            "--http.listen=127.0.0.1:0",
            "--grpc.listen=off",
            "--otlp.grpc.listen=off",
            "--otlp.http.listen=off",
        ])
        .args(ARGS)
        .output()
        .unwrap();
    assert!(!output.status.success());
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_flipped_byte_in_the_log_keeps_the_process_from_starting() {
    let folder = tempfile::tempdir().unwrap();
    let mut sextant = Sextant::start(folder.path(), &ARGS, None);
    let mut ledger = Ledger::new(Some("a"), "damage", 20).padded(100);
    ledger.write_all(&sextant, 20);
    let segment = files(&folder.path().join("data/log"))
        .into_iter()
        .find(|f| f.file_name().unwrap().to_str().unwrap().starts_with("log-"))
        .unwrap();
    let used = |bytes: &[u8]| bytes.iter().rposition(|b| *b != 0).unwrap();
    let end = used(&std::fs::read(&segment).unwrap());
    sextant.kill();
    // What is behind the last record that is known to be synced may be torn; everything before it must be whole.
    let name = segment.file_name().unwrap().to_str().unwrap().to_owned();
    for eighth in 0..7 {
        let offset = 16 + end * eighth / 8;
        let flipped = Flipped::at(&segment, offset);
        let damaged = std::fs::read(&segment).unwrap();
        let error = refused_start(folder.path());
        assert!(error.contains(&name) && error.contains("damaged"), "byte {offset} of {end}: {error}");
        assert_eq!(std::fs::read(&segment).unwrap(), damaged, "the file is left as it is");
        drop(flipped);
    }
    let sextant = Sextant::start(folder.path(), &ARGS, None);
    ledger.check_stored(&sextant, "mended");
}
