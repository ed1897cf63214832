//! The conformance cases: where they are, and how a suite of them is run.

use std::{env, fs, path::PathBuf};

use serde_json::Value;

/// A suite's document, or nothing where the cases are not at hand.
pub fn document(path: &str) -> Option<Value> {
    let beside = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/conformance");
    let root = env::var_os("SEXTANT_CONFORMANCE").map_or_else(beside, PathBuf::from);
    let file = root.join(path);
    let Ok(text) = fs::read_to_string(&file) else {
        println!("{path}: skipped, there are no cases");
        return None;
    };
    Some(serde_json::from_str(&text).unwrap_or_else(|e| panic!("{path}: {e}")))
}

/// What became of a case.
pub type Outcome = Result<(), String>;

/// Runs every case of a suite, prints the numbers and fails where a case fails that `exceptions` does not name. An
/// exception is a case's id and why it does not apply; one that passes is an error too.
pub fn run(path: &str, exceptions: &[(&str, &str)], check: impl FnMut(&Value) -> Outcome) {
    let Some(document) = document(path) else { return };
    run_cases(path, cases_of(&document), exceptions, check);
}

pub fn cases_of(document: &Value) -> &[Value] {
    document["cases"].as_array().map_or(&[], Vec::as_slice)
}

pub fn run_cases(
    path: &str,
    cases: &[Value],
    exceptions: &[(&str, &str)],
    mut check: impl FnMut(&Value) -> Outcome,
) {
    let (mut passed, mut excepted, mut wrong) = (0, 0, Vec::new());
    for case in cases {
        let id = case["id"].as_str().unwrap_or("a case without id");
        let exception = exceptions.iter().find(|(of, _)| *of == id);
        match (check(case), exception) {
            (Ok(()), None) => passed += 1,
            (Ok(()), Some(_)) => wrong.push(format!("{id} passes and is listed as an exception")),
            (Err(_), Some((_, reason))) => {
                excepted += 1;
                println!("  {id}: {reason}");
            }
            (Err(e), None) => wrong.push(format!("{id}: {e}")),
        }
    }
    println!("{path}: {passed} passed, {} failed, {excepted} exceptions", wrong.len());
    assert!(wrong.is_empty(), "{path}:\n{}", wrong.join("\n"));
    assert!(passed > 0, "{path}: no case");
}

/// The text of a field, empty where it is absent.
pub fn text<'a>(case: &'a Value, field: &str) -> &'a str {
    case[field].as_str().unwrap_or("")
}

/// Complains unless both are equal.
pub fn same<T: PartialEq + std::fmt::Debug>(what: &str, got: &T, expected: &T) -> Outcome {
    if got == expected { Ok(()) } else { Err(format!("{what}: expected {expected:?}, got {got:?}")) }
}
