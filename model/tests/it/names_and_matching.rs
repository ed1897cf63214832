//! Suites of matchers, regular expressions and names.

use serde_json::Value;
use sextant_model::{
    EscapingScheme, Labels, MatchOp, Matcher, escape_name, is_valid_label_name, is_valid_legacy_metric_name,
    unescape_name,
};

use crate::suite::{read, run};

fn strings<'a>(value: &'a Value, key: &str) -> Vec<&'a str> {
    value[key].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

fn regex(pattern: &str) -> Result<Matcher, String> {
    Matcher::new("a", MatchOp::Regex, pattern).map_err(|e| e.to_string())
}

#[test]
fn matchers() {
    run("label-matching/matchers.json", &[], |case| {
        let m = &case["matcher"];
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        let op = match m["op"].as_str() {
            Some("=") => MatchOp::Equal,
            Some("!=") => MatchOp::NotEqual,
            Some("=~") => MatchOp::Regex,
            _ => MatchOp::NotRegex,
        };
        let matcher = Matcher::new(text(&m["name"]), op, text(&m["value"])).map_err(|e| e.to_string())?;
        let matches = matcher.matches(&text(&case["value"]));
        if case["match"].as_bool() == Some(matches) { Ok(()) } else { Err(format!("{matches}")) }
    });
}

#[test]
fn regular_expressions() {
    run("label-matching/regex.json", &[], |case| {
        let matcher = regex(case["pattern"].as_str().unwrap_or_default())?;
        let wrong = |values: Vec<&str>, want: bool| -> Option<String> {
            values.into_iter().find(|v| matcher.matches(v) != want).map(str::to_owned)
        };
        // A set is upper case where the expression folds cases: its members match all the same.
        match (wrong(strings(case, "matches"), true), wrong(strings(case, "not_matches"), false)) {
            (None, None) => {}
            (Some(v), _) => return Err(format!("does not match {v:?}")),
            (_, Some(v)) => return Err(format!("matches {v:?}")),
        }
        match wrong(strings(case, "set_matches"), true) {
            Some(v) => Err(format!("does not match {v:?} of its set")),
            None => Ok(()),
        }
    });
}

/// Matchers that look a value up instead of running the expression agree with the expression.
#[test]
fn shortcuts_agree_with_the_expression() {
    let path = "label-matching/regex_differential.json";
    let Some(text) = read(path) else { return };
    let suite: Value = serde_json::from_str(&text).expect("the suite is JSON");
    let values = strings(&suite["source"], "values");
    run(path, &[], |case| {
        let pattern = case["pattern"].as_str().unwrap_or_default();
        let matcher = regex(pattern)?;
        let negated = Matcher::new("a", MatchOp::NotRegex, pattern).map_err(|e| e.to_string())?;
        let plain = regex::Regex::new(&format!("^(?s:{pattern})$")).map_err(|e| e.to_string())?;
        for value in values.iter().copied().chain(pattern.split('|')) {
            if matcher.matches(value) != plain.is_match(value)
                || negated.matches(value) == plain.is_match(value)
            {
                return Err(format!("differs for {value:?}"));
            }
        }
        Ok(())
    });
}

/// A name of a suite, which may be bytes that are not UTF-8: those cannot become a name here.
fn name(value: &Value) -> Option<&str> {
    value.as_str()
}

fn validity(case: &Value, key: &str, legacy: fn(&str) -> bool) -> Result<(), String> {
    let name = name(&case[key]);
    let (is_legacy, is_utf8) = (name.is_some_and(legacy), name.is_some_and(|n| !n.is_empty()));
    let expected = (case["legacyValid"].as_bool(), case["utf8Valid"].as_bool());
    if expected == (Some(is_legacy), Some(is_utf8)) { Ok(()) } else { Err(format!("{is_legacy} {is_utf8}")) }
}

#[test]
fn valid_names() {
    run("names-and-durations/label_name_valid.json", &[], |case| validity(case, "ln", is_valid_label_name));
    run("names-and-durations/metric_name_valid.json", &[], |case| {
        validity(case, "mn", is_valid_legacy_metric_name)
    });
}

#[test]
fn labels_as_text() {
    run("names-and-durations/metric_to_string.json", &[], |case| {
        let pairs = case["input"].as_object().ok_or("no input")?;
        let pairs = pairs.iter().map(|(n, v)| (n.as_str(), v.as_str().unwrap_or_default()));
        let labels = Labels::from_pairs(pairs).map_err(|e| e.to_string())?;
        if case["expected"] == labels.to_string() { Ok(()) } else { Err(labels.to_string()) }
    });
}

#[test]
fn escaped_names() {
    run("names-and-durations/escape_name.json", &[], |case| {
        let input = case["input"].as_str().unwrap_or_default();
        let results = [
            ("expectedUnderscores", escape_name(input, EscapingScheme::Underscores)),
            ("expectedDots", escape_name(input, EscapingScheme::Dots)),
            ("expectedValue", escape_name(input, EscapingScheme::Values)),
            ("expected", unescape_name(input)),
        ];
        for (key, got) in results {
            if case[key].as_str().is_some_and(|want| want != got) {
                return Err(format!("{key}: {got}"));
            }
        }
        let back = unescape_name(&escape_name(input, EscapingScheme::Values));
        if case["expectedValue"].is_null() || back == input { Ok(()) } else { Err(format!("back: {back}")) }
    });
}
