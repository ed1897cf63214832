//! Relabelling: Prometheus' rules that change, keep and drop label sets.
//!
//! A rule is checked when it is made, so that applying it cannot fail.

use std::fmt;

use md5::{Digest, Md5};
use regex::Regex;
use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_yaml_ng::Value;
use sextant_model::{LabelsBuilder, anchored_regex, is_valid_label_name};

use crate::{error::ConfigError, yaml::Section};

const SEPARATOR: &str = ";";
const REGEX: &str = "(.*)";
const REPLACEMENT: &str = "$1";

/// What a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Sets the target label to the replacement where the regular expression matches.
    Replace,
    /// Drops what does not match.
    Keep,
    /// Drops what matches.
    Drop,
    /// Drops what is not equal to the target label.
    KeepEqual,
    /// Drops what is equal to the target label.
    DropEqual,
    /// Sets the target label to a hash modulo a number.
    HashMod,
    /// Copies labels whose name matches to the name that the replacement gives.
    LabelMap,
    /// Removes labels whose name matches.
    LabelDrop,
    /// Removes labels whose name does not match.
    LabelKeep,
    /// Sets the target label to the lower-case value.
    Lowercase,
    /// Sets the target label to the upper-case value.
    Uppercase,
}

impl Action {
    const ALL: [(&'static str, Self); 11] = [
        ("replace", Self::Replace),
        ("keep", Self::Keep),
        ("drop", Self::Drop),
        ("keepequal", Self::KeepEqual),
        ("dropequal", Self::DropEqual),
        ("hashmod", Self::HashMod),
        ("labelmap", Self::LabelMap),
        ("labeldrop", Self::LabelDrop),
        ("labelkeep", Self::LabelKeep),
        ("lowercase", Self::Lowercase),
        ("uppercase", Self::Uppercase),
    ];

    /// The action of a name, in any case.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, a)| *a)
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::ALL.iter().find(|(_, a)| a == self).map_or("", |(n, _)| n);
        f.write_str(name)
    }
}

/// Which names are valid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NameScheme {
    /// Any text that is not empty.
    #[default]
    Utf8,
    /// Letters, digits and `_`.
    Legacy,
}

impl NameScheme {
    fn is_label_name(self, name: &str) -> bool {
        match self {
            Self::Utf8 => !name.is_empty(),
            Self::Legacy => is_valid_label_name(name),
        }
    }

    /// Whether a name may come of a template with `$1` and `${name}`.
    pub fn is_label_name_template(self, template: &str) -> bool {
        if self == Self::Utf8 {
            return !template.is_empty();
        }
        let mut rest = template;
        let mut first = true;
        while let Some(c) = rest.chars().next() {
            let word = |s: &str| s.bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_').count();
            let used = match c {
                '$' if rest[1..].starts_with('{') => {
                    let name = word(&rest[2..]);
                    if name == 0 || !rest[2 + name..].starts_with('}') {
                        return false;
                    }
                    name + 3
                }
                '$' => match word(&rest[1..]) {
                    0 => return false,
                    n => n + 1,
                },
                c if c.is_ascii_alphabetic() || c == '_' || (c.is_ascii_digit() && !first) => 1,
                _ => return false,
            };
            first = false;
            rest = &rest[used..];
        }
        !first
    }
}

/// Why a rule is refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum RelabelError {
    /// There is no such action.
    #[error("unknown relabel action {0:?}")]
    UnknownAction(String),
    /// `hashmod` without a modulus.
    #[error("relabel configuration for hashmod requires non-zero modulus")]
    NoModulus,
    /// The action needs a target.
    #[error("relabel configuration for {0} action requires 'target_label' value")]
    NoTarget(Action),
    /// The target is not a label name.
    #[error("{target:?} is invalid 'target_label' for {action} action")]
    InvalidTarget {
        /// The action.
        action: Action,
        /// The target.
        target: String,
    },
    /// The replacement cannot be a label name.
    #[error("{replacement:?} is invalid 'replacement' for {action} action")]
    InvalidReplacement {
        /// The action.
        action: Action,
        /// The replacement.
        replacement: String,
    },
    /// A field that the action does not use is set.
    #[error("{action} action requires only {uses}, and no other fields")]
    UnusedField {
        /// The action.
        action: Action,
        /// What it uses.
        uses: &'static str,
    },
    /// The replacement is set where the action has none.
    #[error("'replacement' can not be set for {0} action")]
    UnusedReplacement(Action),
    /// The regular expression is wrong.
    #[error("invalid regular expression: {0}")]
    Regex(String),
}

/// A rule as it is configured; `None` takes Prometheus' default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RelabelConfig {
    /// Labels whose values are joined.
    pub source_labels: Vec<String>,
    /// What stands between them, `;`.
    pub separator: Option<String>,
    /// Matches the whole of the joined value, `(.*)`.
    pub regex: Option<String>,
    /// For `hashmod`.
    pub modulus: u64,
    /// The label that is set.
    pub target_label: String,
    /// What it is set to, `$1`.
    pub replacement: Option<String>,
    /// The action's name, `replace`.
    pub action: Option<String>,
}

impl RelabelConfig {
    /// Reads a rule from YAML.
    pub(crate) fn from_yaml(path: &str, value: Value) -> Result<Self, ConfigError> {
        let mut section = Section::new(path, value)?;
        let config = Self {
            source_labels: section.texts("source_labels")?,
            separator: section.text("separator")?,
            regex: section.text("regex")?,
            modulus: section.u64("modulus")?.unwrap_or(0),
            target_label: section.text("target_label")?.unwrap_or_default(),
            replacement: section.text("replacement")?,
            action: section.text("action")?,
        };
        section.finish(&[])?;
        Ok(config)
    }
}

/// A checked rule.
#[derive(Clone, Debug)]
pub struct RelabelRule {
    source_labels: Vec<String>,
    separator: String,
    /// As it is configured: what is compiled is anchored and in another syntax.
    pattern: String,
    regex: Regex,
    modulus: u64,
    target_label: String,
    replacement: String,
    action: Action,
    scheme: NameScheme,
}

fn has_variable(template: &str) -> bool {
    template.contains('$')
}

impl RelabelRule {
    /// Checks a rule.
    pub fn new(config: RelabelConfig, scheme: NameScheme) -> Result<Self, RelabelError> {
        let name = config.action.as_deref().unwrap_or("replace");
        let action = Action::from_name(name).ok_or_else(|| RelabelError::UnknownAction(name.to_owned()))?;
        let pattern = config.regex.unwrap_or_else(|| REGEX.into());
        let rule = Self {
            regex: anchored_regex(&pattern).map_err(RelabelError::Regex)?,
            pattern,
            separator: config.separator.unwrap_or_else(|| SEPARATOR.into()),
            replacement: config.replacement.unwrap_or_else(|| REPLACEMENT.into()),
            source_labels: config.source_labels,
            modulus: config.modulus,
            target_label: config.target_label,
            action,
            scheme,
        };
        rule.check()?;
        Ok(rule)
    }

    fn check(&self) -> Result<(), RelabelError> {
        use Action::{
            DropEqual, HashMod, KeepEqual, LabelDrop, LabelKeep, LabelMap, Lowercase, Replace, Uppercase,
        };
        let action = self.action;
        if action == HashMod && self.modulus == 0 {
            return Err(RelabelError::NoModulus);
        }
        let sets_target = matches!(action, Replace | HashMod | Lowercase | Uppercase | KeepEqual | DropEqual);
        if sets_target && self.target_label.is_empty() {
            return Err(RelabelError::NoTarget(action));
        }
        let target_is_valid = match action {
            Replace if has_variable(&self.target_label) => {
                self.scheme.is_label_name_template(&self.target_label)
            }
            _ => self.scheme.is_label_name(&self.target_label),
        };
        if sets_target && !target_is_valid {
            return Err(RelabelError::InvalidTarget { action, target: self.target_label.clone() });
        }
        let default_separator = self.separator == SEPARATOR;
        let default_replacement = self.replacement == REPLACEMENT;
        match action {
            Lowercase | Uppercase if !default_replacement => Err(RelabelError::UnusedReplacement(action)),
            LabelMap if !self.scheme.is_label_name_template(&self.replacement) => {
                Err(RelabelError::InvalidReplacement { action, replacement: self.replacement.clone() })
            }
            KeepEqual | DropEqual
                if !(self.pattern == REGEX
                    && self.modulus == 0
                    && default_separator
                    && default_replacement) =>
            {
                Err(RelabelError::UnusedField { action, uses: "'source_labels' and 'target_label'" })
            }
            LabelDrop | LabelKeep
                if !(self.source_labels.is_empty()
                    && self.target_label.is_empty()
                    && self.modulus == 0
                    && default_separator
                    && default_replacement) =>
            {
                Err(RelabelError::UnusedField { action, uses: "'regex'" })
            }
            _ => Ok(()),
        }
    }

    /// Applies the rule; false drops the label set.
    pub fn apply(&self, labels: &mut LabelsBuilder) -> bool {
        let values: Vec<&str> = self.source_labels.iter().map(|n| labels.get(n).unwrap_or("")).collect();
        let value = values.join(&self.separator);
        match self.action {
            Action::Keep => return self.regex.is_match(&value),
            Action::Drop => return !self.regex.is_match(&value),
            Action::KeepEqual => return labels.get(&self.target_label).unwrap_or("") == value,
            Action::DropEqual => return labels.get(&self.target_label).unwrap_or("") != value,
            Action::Replace => self.replace(&value, labels),
            Action::Lowercase => drop(labels.set(&self.target_label, &value.to_lowercase())),
            Action::Uppercase => drop(labels.set(&self.target_label, &value.to_uppercase())),
            Action::HashMod => {
                let hash = Md5::digest(value.as_bytes());
                let low = hash[8..].iter().fold(0u64, |n, b| n << 8 | u64::from(*b));
                labels.set(&self.target_label, &(low % self.modulus).to_string());
            }
            Action::LabelMap => {
                let mapped: Vec<(String, String)> = labels
                    .iter()
                    .filter(|(n, _)| self.regex.is_match(n))
                    .map(|(n, v)| {
                        (self.regex.replace(n, self.replacement.as_str()).into_owned(), v.to_owned())
                    })
                    .collect();
                for (n, v) in mapped.iter().filter(|(n, _)| !n.is_empty()) {
                    labels.set(n, v);
                }
            }
            Action::LabelDrop => self.remove_names(labels, true),
            Action::LabelKeep => self.remove_names(labels, false),
        }
        true
    }

    fn replace(&self, value: &str, labels: &mut LabelsBuilder) {
        let Some(captures) = self.regex.captures(value) else { return };
        let mut target = String::new();
        captures.expand(&self.target_label, &mut target);
        if !self.scheme.is_label_name(&target) {
            return;
        }
        let mut replacement = String::new();
        captures.expand(&self.replacement, &mut replacement);
        labels.set(&target, &replacement);
    }

    fn remove_names(&self, labels: &mut LabelsBuilder, matching: bool) {
        let names: Vec<String> =
            labels.iter().map(|(n, _)| n.to_owned()).filter(|n| self.regex.is_match(n) == matching).collect();
        for n in names {
            labels.remove(&n);
        }
    }
}

impl Serialize for RelabelRule {
    /// The rule as it is configured, defaults filled in; what is empty is left out.
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut map = s.serialize_map(None)?;
        if !self.source_labels.is_empty() {
            map.serialize_entry("source_labels", &self.source_labels)?;
        }
        map.serialize_entry("regex", &self.pattern)?;
        if self.modulus != 0 {
            map.serialize_entry("modulus", &self.modulus)?;
        }
        let texts = [
            ("separator", &self.separator),
            ("target_label", &self.target_label),
            ("replacement", &self.replacement),
        ];
        for (name, text) in texts.into_iter().filter(|(_, t)| !t.is_empty()) {
            map.serialize_entry(name, text)?;
        }
        map.serialize_entry("action", &self.action.to_string())?;
        map.end()
    }
}

/// Applies rules in order; false drops the label set.
pub fn relabel(rules: &[RelabelRule], labels: &mut LabelsBuilder) -> bool {
    rules.iter().all(|r| r.apply(labels))
}
