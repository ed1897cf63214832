//! Prometheus' own scripts against the evaluator in memory.

use std::{fs, path::PathBuf};

use sextant_promql_eval::testing::{Memory, Target, parse_script, run_script};

/// The folder with the conformance data, where it is there.
pub fn conformance() -> Option<PathBuf> {
    let path = std::env::var_os("SEXTANT_CONFORMANCE").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/conformance"),
        PathBuf::from,
    );
    path.is_dir().then_some(path)
}

/// So many evals of all scripts must pass.
const MUST_PASS: usize = 1671;

#[test]
fn prometheus_scripts() {
    run_all(&mut Memory::default());
}

/// Runs every script against a target; prints what fails.
pub fn run_all(target: &mut dyn Target) {
    let Some(root) = conformance() else {
        println!("skipped: no conformance data");
        return;
    };
    let mut files: Vec<PathBuf> = fs::read_dir(root.join("promql"))
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "test"))
        .collect();
    files.sort();
    let (mut passed, mut total) = (0, 0);
    for file in files {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let commands = match parse_script(&fs::read_to_string(&file).unwrap()) {
            Ok(commands) => commands,
            Err(e) => panic!("{name}: {e}"),
        };
        let report = run_script(&commands, target).unwrap();
        println!("{name}: {} of {}", report.passed(), report.outcomes.len());
        for failure in report.failures() {
            println!(
                "  {name}:{} {}\n      {}",
                failure.line,
                failure.query,
                failure.failure.as_deref().unwrap()
            );
        }
        passed += report.passed();
        total += report.outcomes.len();
    }
    println!("passed {passed} of {total}");
    assert!(passed >= MUST_PASS, "{passed} evals pass, {MUST_PASS} must");
}
