//! Runs a suite of the shared conformance data, which may be absent.

use std::path::PathBuf;

use serde_json::Value;

/// The folder of the shared suites.
pub fn folder() -> PathBuf {
    match std::env::var_os("SEXTANT_CONFORMANCE") {
        Some(path) => path.into(),
        None => PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/conformance"),
    }
}

/// Runs `case` on every case of a file; prints how many passed and fails where one did not.
pub fn run(file: &str, case: impl Fn(&Value) -> Result<(), String>) {
    let Ok(text) = std::fs::read_to_string(folder().join(file)) else {
        println!("{file}: skipped, the suite is absent");
        return;
    };
    let suite: Value = serde_json::from_str(&text).expect("a suite is JSON");
    let cases = suite["cases"].as_array().expect("a suite has cases");
    let failures: Vec<String> = cases
        .iter()
        .filter_map(|c| case(c).err().map(|e| format!("{}: {e}\n  case: {c}", c["id"])))
        .collect();
    println!("{file}: {} passed, {} failed", cases.len() - failures.len(), failures.len());
    for failure in &failures {
        println!("{failure}");
    }
    assert!(failures.is_empty(), "{} cases of {file} failed", failures.len());
}

/// A text of a case, given as a string or as the bytes of one that is not UTF-8.
pub fn bytes(value: &Value) -> Vec<u8> {
    match value {
        Value::String(s) => s.clone().into_bytes(),
        other => {
            let hex = other["$hex"].as_str().expect("text or $hex");
            (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).expect("hex")).collect()
        }
    }
}

/// A number of a case; those that JSON does not have are strings.
pub fn number(value: &Value) -> f64 {
    match value {
        Value::String(s) => s.parse().expect("a number"),
        other => other.as_f64().expect("a number"),
    }
}

/// `Ok` where `got` is `want`.
pub fn same<X: PartialEq + std::fmt::Debug>(got: X, want: X) -> Result<(), String> {
    if got == want { Ok(()) } else { Err(format!("\n  got  {got:?}\n  want {want:?}")) }
}
