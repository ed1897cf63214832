//! Finding and counting the conformance cases of the peers.

use std::path::PathBuf;

use serde_json::Value;

/// The folder of a suite; `None`, with a message, where the cases are not on this machine.
pub fn folder(suite: &str) -> Option<PathBuf> {
    let root = std::env::var_os("SEXTANT_CONFORMANCE").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/conformance"),
        PathBuf::from,
    );
    let folder = root.join(suite);
    if !folder.is_dir() {
        println!("skipped: no conformance cases for {suite}");
        return None;
    }
    Some(folder)
}

/// The cases of a file; `None` where the file is not there.
pub fn cases(suite: &str, file: &str) -> Option<Vec<Value>> {
    let text = std::fs::read_to_string(folder(suite)?.join(file)).ok()?;
    let mut suite: Value = serde_json::from_str(&text).expect("JSON");
    match suite["cases"].take() {
        Value::Array(cases) => Some(cases),
        _ => None,
    }
}

/// A text, or `{"$hex": ".."}` for bytes that are none.
pub fn bytes(value: &Value) -> Vec<u8> {
    if let Some(text) = value.as_str() {
        return text.as_bytes().to_vec();
    }
    let hex = value["$hex"].as_str().expect("text or $hex");
    (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).expect("hex")).collect()
}

/// Runs a check over a file's cases, prints the count, and fails below the pinned minimum.
pub fn run(suite: &str, file: &str, minimum: usize, check: impl Fn(&Value) -> Result<(), String>) {
    let Some(cases) = cases(suite, file) else { return };
    let mut passed = 0;
    for case in &cases {
        match check(case) {
            Ok(()) => passed += 1,
            Err(reason) => println!("FAILED {file} {}: {reason}", case["id"]),
        }
    }
    println!("{suite}/{file}: {passed} passed, {} failed", cases.len() - passed);
    assert!(passed >= minimum, "{file}: {passed} passed, {minimum} before");
}
