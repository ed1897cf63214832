//! Writers, readers and faults against a cluster of this workspace's binaries.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

const CHECKER: &str = env!("CARGO_BIN_EXE_sextant-load-tests");

/// A binary of the workspace beside the checker; `None` where it is not built.
fn beside(name: &str) -> Option<PathBuf> {
    let path = Path::new(CHECKER).with_file_name(name);
    if path.exists() {
        return Some(path);
    }
    println!("skipped: {} is not there (cargo build --workspace --bins)", path.display());
    None
}

fn works(program: &str, arguments: &[&str]) -> bool {
    let done = Command::new(program).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
    done.is_ok_and(|s| s.success())
}

/// Runs the checker against a cluster of these flags. Returns its report; `None` where binaries are missing.
fn checked(cluster: &[&str], checker: &str) -> Option<String> {
    let (xtask, sextant) = (beside("xtask")?, beside("sextant")?);
    let dir = tempfile::tempdir().unwrap();
    let report = dir.path().join("report.md");
    let store = if works("moto_server", &["--help"]) {
        "--store=s3"
    } else {
        println!("without an S3 server (pip install 'moto[server]')");
        "--store=file"
    };
    let blocks = if works("python3", &["-c", "import duckdb"]) {
        ""
    } else {
        println!("without reading blocks (pip install duckdb)");
        "--without-blocks"
    };
    let then = format!(
        "exec {CHECKER} checker --cluster \"$SEXTANT_CLUSTER\" --report {} {blocks} {checker}",
        report.display()
    );
    let output = Command::new(xtask)
        .args(["cluster", store, "--dir"])
        .arg(dir.path().join("cluster"))
        .arg("--binary")
        .arg(sextant)
        .args(cluster)
        .args(["--then", &then])
        .output()
        .unwrap();
    let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{out}\n{error}", output.status);
    Some(std::fs::read_to_string(report).unwrap())
}

#[test]
fn one_process_that_is_killed_loses_and_doubles_nothing() {
    let flags = "--seed=3 --duration=18s --flush-every=1s --faults=kill,store-lose";
    let Some(report) = checked(&["--all-in-one", "--shards=2"], flags) else { return };
    for part in
        ["**Nothing is wrong.**", "kill -9 all-1", "| attempts repeated |", "flushed |", "compacted |"]
    {
        assert!(report.contains(part), "{part:?} is not in\n{report}");
    }
}
