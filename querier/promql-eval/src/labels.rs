//! `label_replace` and `label_join`.

use regex::Regex;
use sextant_model::METRIC_NAME;

use crate::{block::StepBlock, error::EvalError, names};

/// Sets one label of each series from others.
#[derive(Clone, Debug)]
pub struct LabelRewrite {
    destination: String,
    rule: Rule,
}

#[derive(Clone, Debug)]
enum Rule {
    Replace { replacement: String, source: String, regex: Regex },
    Join { separator: String, sources: Vec<String> },
}

impl LabelRewrite {
    /// `label_replace(v, destination, replacement, source, regex)`.
    pub fn replace(
        destination: &str,
        replacement: &str,
        source: &str,
        regex: &str,
    ) -> Result<Self, EvalError> {
        let compiled =
            regex::RegexBuilder::new(&format!("^(?s:{regex})$")).size_limit(10 << 20).build().map_err(
                |_| EvalError::execution(format!("invalid regular expression in label_replace(): {regex}")),
            )?;
        let rule =
            Rule::Replace { replacement: replacement.to_owned(), source: source.to_owned(), regex: compiled };
        Ok(Self { destination: destination.to_owned(), rule })
    }

    /// `label_join(v, destination, separator, sources…)`.
    pub fn join(destination: &str, separator: &str, sources: &[&str]) -> Self {
        let sources = sources.iter().map(|s| (*s).to_owned()).collect();
        Self {
            destination: destination.to_owned(),
            rule: Rule::Join { separator: separator.to_owned(), sources },
        }
    }

    /// As in a query.
    pub fn describe(&self) -> String {
        match &self.rule {
            Rule::Replace { source, regex, .. } => {
                format!("label_replace {} from {source} by {}", self.destination, regex.as_str())
            }
            Rule::Join { sources, .. } => {
                format!("label_join {} from {}", self.destination, sources.join(", "))
            }
        }
    }

    /// Rewrites the labels of each series and merges those that are equal then.
    pub fn apply(&self, mut block: StepBlock) -> Result<StepBlock, EvalError> {
        for i in 0..block.len() {
            let labels = &block.labels[i];
            let value = match &self.rule {
                Rule::Join { separator, sources } => {
                    let parts: Vec<&str> = sources.iter().map(|s| labels.get(s).unwrap_or("")).collect();
                    parts.join(separator)
                }
                Rule::Replace { replacement, source, regex } => {
                    let Some(groups) = regex.captures(labels.get(source).unwrap_or("")) else { continue };
                    let mut value = String::new();
                    groups.expand(replacement, &mut value);
                    value
                }
            };
            let mut builder = labels.to_builder();
            block.labels[i] = builder.set(&self.destination, &value).build();
            // A name that was set on purpose stays.
            if self.destination == METRIC_NAME {
                block.drop_name[i] = false;
            }
        }
        names::merge_same_labels(block)
    }
}
