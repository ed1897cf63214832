//! Relabelling against Prometheus' own cases.

use serde_json::Value;
use sextant_agent::relabel::{NameScheme, RelabelConfig, RelabelRule, relabel};
use sextant_model::LabelsBuilder;

use crate::conformance::run;

const SUITE: &str = "relabel";

fn config(v: &Value) -> RelabelConfig {
    let text = |key: &str| v[key].as_str().map(str::to_owned);
    let labels = v["SourceLabels"].as_array().into_iter().flatten();
    RelabelConfig {
        source_labels: labels.filter_map(|l| l.as_str().map(str::to_owned)).collect(),
        separator: text("Separator"),
        regex: text("Regex"),
        modulus: v["Modulus"].as_u64().unwrap_or(0),
        target_label: text("TargetLabel").unwrap_or_default(),
        // The source names the default by a constant, of which the cases keep the last word.
        replacement: text("Replacement").filter(|r| r != "Replacement"),
        action: text("Action"),
    }
}

fn scheme(v: &Value) -> NameScheme {
    match v["NameValidationScheme"].as_str() {
        Some("LegacyValidation") => NameScheme::Legacy,
        _ => NameScheme::Utf8,
    }
}

fn builder(v: &Value) -> LabelsBuilder {
    let mut labels = LabelsBuilder::default();
    for (n, value) in v.as_object().into_iter().flatten() {
        labels.set(n, value.as_str().unwrap_or(""));
    }
    labels
}

#[test]
fn rules() {
    run(SUITE, "relabel.json", 25, |case| {
        let mut rules = Vec::new();
        for v in case["relabel"].as_array().into_iter().flatten() {
            rules.push(RelabelRule::new(config(v), scheme(v)).map_err(|e| e.to_string())?);
        }
        let mut labels = builder(&case["input"]);
        let kept = relabel(&rules, &mut labels);
        if kept == case["drop"].as_bool().unwrap_or(false) {
            return Err(format!("kept: {kept}"));
        }
        let (got, expected) = (labels.build(), builder(&case["output"]).build());
        if kept && got != expected { Err(format!("{got} is not {expected}")) } else { Ok(()) }
    });
}

#[test]
fn validation() {
    run(SUITE, "validate.json", 7, |case| {
        let result = RelabelRule::new(config(&case["config"]), scheme(&case["config"])).map(|_| ());
        match (result, case["expected"].as_str()) {
            (Ok(()), None) => Ok(()),
            (Err(e), Some(text)) if e.to_string().contains(text) => Ok(()),
            (result, _) => Err(format!("{result:?}")),
        }
    });
}

#[test]
fn legacy_target_labels() {
    run(SUITE, "target_label_legacy.json", 11, |case| {
        let valid = NameScheme::Legacy.is_label_name_template(case["str"].as_str().unwrap_or(""));
        if Some(valid) == case["valid"].as_bool() { Ok(()) } else { Err(format!("{}: {valid}", case["str"])) }
    });
}

fn replacing(regex: &str) -> RelabelConfig {
    RelabelConfig {
        source_labels: vec!["a".into()],
        regex: Some(regex.into()),
        target_label: "found".into(),
        ..RelabelConfig::default()
    }
}

#[test]
fn expressions_are_of_the_syntax_of_go() {
    for (regex, value, found) in [
        // A brace that begins no repetition is a literal; quoting.
        (r"x{(.*)}", "x{1}", Some("1")),
        (r"\Qa.b\E(.*)", "a.bc", Some("c")),
        (r"\Qa.b\E(.*)", "axbc", None),
        // Classes are ASCII and have no operators.
        (r"(\d+)", "\u{663}", None),
        (r"([a&&b]+)", "a&b", Some("a&b")),
        // A value matches as a whole, line feeds and all.
        ("(.*)", "a\nb", Some("a\nb")),
        ("(a|ab)", "ab", Some("ab")),
    ] {
        let rule = RelabelRule::new(replacing(regex), NameScheme::Utf8).expect(regex);
        let mut labels = LabelsBuilder::default();
        labels.set("a", value);
        assert!(rule.apply(&mut labels));
        assert_eq!(labels.get("found"), found, "{regex}");
        // It is shown as it was written.
        assert_eq!(serde_json::to_value(&rule).expect("JSON")["regex"], regex);
    }
}

#[test]
fn expressions_have_bounds() {
    let new = |regex: &str| RelabelRule::new(replacing(regex), NameScheme::Utf8).map(drop);
    for regex in ["(", "a{1001}", "((((a{100}){100}){100}){100})", &"a".repeat(1 << 20)] {
        let error = new(regex).expect_err("refused").to_string();
        assert!(error.starts_with("invalid regular expression: ") && error.len() < 200, "{error}");
    }
    assert_eq!(new("a{1000}"), Ok(()));
}
