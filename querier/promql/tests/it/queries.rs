//! Every query of the evaluation scripts parses, and so does what it prints as.

use sextant_promql::{LoadLine, format_duration, parse_expr, parse_load_line};

use crate::suite;

/// The query of an `eval` line, without the times in front.
fn query(line: &str) -> Option<&str> {
    let rest = line.strip_prefix("eval")?;
    let rest = rest.split_once(char::is_whitespace)?.1.trim_start();
    let skip = |rest: &str, words: usize| -> Option<usize> {
        let mut at = 0;
        for _ in 0..words {
            at += rest[at..].find(char::is_whitespace)?;
            at += rest[at..].len() - rest[at..].trim_start().len();
        }
        Some(at)
    };
    if let Some(range) = rest.strip_prefix("range from ") {
        return skip(range, 5).map(|at| &range[at..]);
    }
    let instant = rest.strip_prefix("instant ")?.trim_start();
    match instant.strip_prefix("at ") {
        Some(at) => skip(at.trim_start(), 1).map(|i| &at.trim_start()[i..]),
        None => Some(instant),
    }
}

#[test]
fn queries_of_evaluation_scripts_parse_and_print_as_what_parses_to_the_same() {
    let Ok(files) = std::fs::read_dir(suite::folder().join("promql")) else {
        println!("promql: skipped, the scripts are absent");
        return;
    };
    let (mut queries, mut loads) = (0, 0);
    let mut failures = Vec::new();
    for file in files.flatten().filter(|f| f.path().extension().is_some_and(|e| e == "test")) {
        let text = std::fs::read_to_string(file.path()).expect("a script is text");
        let lines: Vec<&str> = text.lines().collect();
        let mut in_load = false;
        for (i, line) in lines.iter().enumerate() {
            let indented = line.starts_with([' ', '\t']);
            // An empty line ends a command; the next one may be indented.
            in_load &= !line.trim().is_empty();
            if in_load && indented && !line.trim().starts_with('#') {
                loads += 1;
                match parse_load_line(line.trim()) {
                    Ok(LoadLine::Samples(..) | LoadLine::Starts(..)) => {}
                    Err(e) => failures.push(format!("{:?}:{}: {line}: {e}", file.file_name(), i + 1)),
                }
            }
            if !indented && !line.is_empty() {
                in_load = line.starts_with("load");
            }
            let Some(query) = query(line.trim_start()) else { continue };
            let may_fail = line.starts_with("eval_fail")
                || lines[i + 1..]
                    .iter()
                    .take_while(|l| l.starts_with([' ', '\t']))
                    .any(|l| l.contains("expect fail"));
            queries += 1;
            match parse_expr(query) {
                Err(_) if may_fail => {}
                Err(e) => failures.push(format!("{:?}:{}: {query}: {e}", file.file_name(), i + 1)),
                Ok(expr) => {
                    let printed = expr.to_string();
                    match parse_expr(&printed) {
                        Ok(again) if again.to_string() == printed => {}
                        Ok(again) => failures.push(format!("{printed} prints as {again}")),
                        Err(e) => failures.push(format!("{printed}: {e}")),
                    }
                }
            }
        }
    }
    println!("promql/*.test: {queries} queries, {loads} load lines, {} failed", failures.len());
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert_eq!(format_duration(0), "0s");
}

#[test]
fn compliance_queries_parse() {
    suite::run("promql-compliance/queries.json", |case| {
        let queries: Vec<&str> = match &case["query"] {
            serde_json::Value::String(q) => vec![q],
            _ => case["queries"].as_array().ok_or("no query")?.iter().filter_map(|q| q.as_str()).collect(),
        };
        for query in queries {
            let result = parse_expr(query);
            if result.is_err() && case["should_fail"] != true {
                return Err(format!("{query}: {result:?}"));
            }
        }
        Ok(())
    });
}
