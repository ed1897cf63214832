//! Token streams.

use sextant_promql::tokens;

use crate::suite;

#[test]
fn lexer() {
    suite::run("promql-parser/lexer.json", |case| {
        let input = suite::bytes(&case["input"]);
        let got = tokens(&input, case["series_desc"] == true);
        if case["fail"] == true {
            return match got.last() {
                Some(t) if t.kind == "ERROR" => Ok(()),
                _ if got.iter().any(|t| t.kind == "ERROR") => Ok(()),
                other => Err(format!("no error at the end: {other:?}")),
            };
        }
        let want: Vec<(String, u64, String)> = case["expected"]
            .as_array()
            .ok_or("no expected")?
            .iter()
            .map(|t| {
                let text = |v: &serde_json::Value| v.as_str().unwrap_or_default().to_owned();
                (text(&t[0]), t[1].as_u64().unwrap_or(u64::MAX), text(&t[2]))
            })
            .collect();
        let got = got.into_iter().map(|t| (t.kind.to_owned(), t.pos.start as u64, t.text)).collect();
        suite::same(got, want)
    });
}
