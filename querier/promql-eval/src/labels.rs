//! `label_replace` and `label_join`.

use regex::Regex;
use sextant_model::METRIC_NAME;

use crate::{block::StepBlock, context::EvalContext, error::EvalError, names};

/// Work for an expression that is run over a short value.
const UNITS_PER_MATCH: usize = 128;

/// Sets one label of each series from others.
#[derive(Clone, Debug)]
pub struct LabelRewrite {
    destination: String,
    rule: Rule,
}

#[derive(Clone, Debug)]
enum Rule {
    /// `dollars` counts those of the replacement: there are at most so many references to groups in it.
    Replace {
        replacement: String,
        dollars: usize,
        source: String,
        regex: Regex,
    },
    Join {
        separator: String,
        sources: Vec<String>,
    },
}

impl LabelRewrite {
    /// `label_replace(v, destination, replacement, source, regex)`.
    pub fn replace(
        destination: &str,
        replacement: &str,
        source: &str,
        regex: &str,
    ) -> Result<Self, EvalError> {
        let compiled = sextant_model::anchored_regex(regex).map_err(|_| {
            EvalError::execution(format!("invalid regular expression in label_replace(): {regex}"))
        })?;
        let rule = Rule::Replace {
            replacement: replacement.to_owned(),
            dollars: replacement.matches('$').count(),
            source: source.to_owned(),
            regex: compiled,
        };
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
    pub fn apply(&self, mut block: StepBlock, ctx: &EvalContext) -> Result<StepBlock, EvalError> {
        let pace = ctx.cancel.pace();
        let mut bytes = 0usize;
        for i in 0..block.len() {
            let labels = &block.labels[i];
            let value = match &self.rule {
                Rule::Join { separator, sources } => {
                    let parts: Vec<&str> = sources.iter().map(|s| labels.get(s).unwrap_or("")).collect();
                    let size = parts.iter().map(|p| p.len() + separator.len()).sum();
                    bytes = bytes.saturating_add(size);
                    ctx.check_label_bytes(bytes)?;
                    pace.spend(UNITS_PER_MATCH + size + sources.len())?;
                    parts.join(separator)
                }
                Rule::Replace { replacement, dollars, source, regex } => {
                    let source = labels.get(source).unwrap_or("");
                    pace.spend(UNITS_PER_MATCH + 16 * source.len())?;
                    let Some(groups) = regex.captures(source) else { continue };
                    // No group is longer than what was matched.
                    let most = replacement.len().saturating_add(dollars.saturating_mul(source.len()));
                    bytes = bytes.saturating_add(most);
                    ctx.check_label_bytes(bytes)?;
                    pace.spend(most)?;
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
        names::merge_same_labels(block, ctx)
    }
}
