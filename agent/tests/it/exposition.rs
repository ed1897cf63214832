//! Exposition formats against the peers' own cases.

use serde_json::Value;
use sextant_agent::exposition::{
    Entry, OpenMetricsOptions, OpenMetricsParser, TextParser, text_to_families, validate_openmetrics,
    write_openmetrics, write_text,
};

use crate::{
    conformance::{bytes, folder, run},
    families::family,
};

const SUITE: &str = "exposition-formats";

/// Reads a body as a scrape does, to the end.
fn read_text(body: &[u8]) -> Result<usize, String> {
    let mut parser = TextParser::new(body).map_err(|e| e.to_string())?;
    let mut samples = 0;
    while let Some(entry) = parser.next_entry().map_err(|e| e.to_string())? {
        if let Entry::Sample(line) = entry {
            line.labels().map_err(|e| e.to_string())?;
            samples += 1;
        }
    }
    Ok(samples)
}

fn read_openmetrics(body: &[u8]) -> Result<usize, String> {
    let mut parser = OpenMetricsParser::new(body).map_err(|e| e.to_string())?;
    let mut samples = 0;
    while let Some(entry) = parser.next_entry().map_err(|e| e.to_string())? {
        if let Entry::Sample(line) = entry {
            line.labels().map_err(|e| e.to_string())?;
            samples += 1;
        }
    }
    Ok(samples)
}

/// Refused or taken as expected; our messages are our own, the line where they give one must agree.
fn refusal(got: Result<(), String>, expected: Option<&str>) -> Result<(), String> {
    match (got, expected) {
        (Ok(()), None) => Ok(()),
        (Ok(()), Some(e)) => Err(format!("taken, expected {e}")),
        (Err(e), None) => Err(format!("refused: {e}")),
        (Err(e), Some(expected)) => {
            let line =
                expected.strip_prefix("text format parsing error in line ").and_then(|r| r.split(':').next());
            match line {
                Some(n) if !e.starts_with(&format!("line {n},")) => Err(format!("{e}, expected {expected}")),
                _ => Ok(()),
            }
        }
    }
}

fn error_of<'a>(case: &'a Value, key: &str) -> Option<&'a str> {
    case[key].as_str().filter(|e| !e.is_empty() && *e != "EOF")
}

#[test]
fn text_errors() {
    run(SUITE, "prom_text_errors.json", 19, |case| {
        refusal(read_text(&bytes(&case["input"])).map(|_| ()), error_of(case, "err"))
    });
}

#[test]
fn openmetrics_errors() {
    // The cases with NUL that are taken hold no end mark that matters.
    run(SUITE, "openmetrics_errors.json", 60, |case| {
        refusal(read_openmetrics(&bytes(&case["input"])).map(|_| ()), error_of(case, "err"))
    });
}

#[test]
fn family_errors() {
    run(SUITE, "prom_text_family_errors.json", 34, |case| {
        let got = text_to_families(&bytes(&case["in"])).map(|_| ()).map_err(|e| e.to_string());
        refusal(got, error_of(case, "errUTF8"))
    });
}

#[test]
fn text_to_metric_families() {
    run(SUITE, "prom_text_to_families.json", 13, |case| {
        let mut got = text_to_families(&bytes(&case["in"])).map_err(|e| e.to_string())?;
        let mut expected: Vec<_> = case["out"].as_array().into_iter().flatten().map(family).collect();
        got.sort_by(|a, b| a.name().cmp(b.name()));
        expected.sort_by(|a, b| a.name().cmp(b.name()));
        // As text, because NaN is not equal to itself.
        let (got, expected) = (format!("{got:?}"), format!("{expected:?}"));
        if got == expected { Ok(()) } else { Err(format!("\n  got      {got}\n  expected {expected}")) }
    });
}

fn same_text(got: &str, expected: &str) -> Result<(), String> {
    if got == expected { Ok(()) } else { Err(format!("\n{got}---\n{expected}")) }
}

#[test]
fn families_to_text() {
    run(SUITE, "families_to_prom_text.json", 9, |case| {
        let mut out = String::new();
        write_text(&family(&case["in"]), &mut out);
        same_text(&out, case["out"].as_str().unwrap_or(""))
    });
}

#[test]
fn families_to_openmetrics() {
    run(SUITE, "families_to_openmetrics.json", 13, |case| {
        let has = |name: &str| case["options"].as_array().into_iter().flatten().any(|o| o == name);
        let options = OpenMetricsOptions { created_lines: has("created_lines"), unit_suffix: has("unit") };
        let mut out = String::new();
        write_openmetrics(&family(&case["in"]), options, &mut out);
        same_text(&out, case["out"].as_str().unwrap_or(""))
    });
}

#[test]
fn openmetrics_parsers() {
    const MINIMUM: usize = 154;
    let Some(folder) = folder(SUITE) else { return };
    let (mut passed, mut failed) = (0, 0);
    for entry in std::fs::read_dir(folder.join("openmetrics-parsers")).into_iter().flatten().flatten() {
        let read = |file: &str| std::fs::read(entry.path().join(file)).expect("a case has both files");
        let about: Value = serde_json::from_slice(&read("test.json")).expect("JSON");
        let result = validate_openmetrics(&read("metrics"));
        if Some(result.is_ok()) == about["shouldParse"].as_bool() {
            passed += 1;
        } else {
            failed += 1;
            println!("FAILED openmetrics-parsers {:?}: {result:?}", entry.file_name());
        }
    }
    println!("{SUITE}/openmetrics-parsers: {passed} passed, {failed} failed");
    assert!(passed >= MINIMUM, "{passed} passed, {MINIMUM} before");
}

#[test]
fn whole_files() {
    let Some(folder) = folder(SUITE) else { return };
    for entry in std::fs::read_dir(folder.join("files")).into_iter().flatten().flatten() {
        let body = std::fs::read(entry.path()).expect("readable");
        let is_openmetrics = entry.file_name().to_string_lossy().contains(".om.");
        let samples = if is_openmetrics { read_openmetrics(&body) } else { read_text(&body) };
        let samples = samples.unwrap_or_else(|e| panic!("{:?}: {e}", entry.file_name()));
        println!("{:?}: {samples} samples", entry.file_name());
        let text = String::from_utf8_lossy(&body);
        assert_eq!(samples, text.lines().filter(|l| !l.is_empty() && !l.starts_with('#')).count());
    }
}
