//! Warnings and infos beside an answer, in Prometheus' words.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use sextant_promql::PosRange;

use crate::format::{go_float, go_quote, significant};

/// How much an annotation says against the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The answer is probably not what was meant.
    Warning,
    /// The answer may be what was meant.
    Info,
}

/// One annotation.
#[derive(Clone, Debug, PartialEq)]
pub struct Annotation {
    /// Warning or info.
    pub severity: Severity,
    /// The text with its `PromQL warning: ` or `PromQL info: `, without the position.
    pub text: String,
    /// The part of the query it is about.
    pub pos: PosRange,
    forced: Option<Forced>,
}

/// What was changed in buckets to make them monotonic, over all series and steps of one function call.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Forced {
    min_bucket: f64,
    max_bucket: f64,
    max_diff: f64,
    first_ms: i64,
    last_ms: i64,
    samples: u64,
}

/// A histogram operation, as annotations name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HistogramOp {
    /// `+`
    Addition,
    /// `-`
    Subtraction,
    /// `sum`, `avg` and the like.
    Aggregation,
}

impl HistogramOp {
    fn as_str(self) -> &'static str {
        match self {
            Self::Addition => "addition",
            Self::Subtraction => "subtraction",
            Self::Aggregation => "aggregation",
        }
    }
}

/// The annotations of one query: a set by text, shared by its operators. Cloning gives another handle to the same.
#[derive(Clone, Debug, Default)]
pub struct Annotations(Arc<Mutex<BTreeMap<String, Annotation>>>);

impl Annotations {
    /// Adds an annotation. Of equal texts one stays, with the later position.
    fn add(&self, severity: Severity, text: String, pos: PosRange) {
        self.insert(Annotation { severity, text, pos, forced: None });
    }

    fn insert(&self, new: Annotation) {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match map.get_mut(&new.text) {
            None => drop(map.insert(new.text.clone(), new)),
            Some(old) => {
                if new.pos.start > old.pos.start {
                    old.pos = new.pos;
                }
                old.forced = merge_forced(old.forced, new.forced);
            }
        }
    }

    /// Adds every annotation of another set.
    pub fn merge(&self, other: &Annotations) {
        for a in other.all() {
            self.insert(a);
        }
    }

    /// Adds a warning of the caller's own (a store that answered in part, say).
    pub fn warn(&self, text: impl Into<String>, pos: PosRange) {
        self.add(Severity::Warning, text.into(), pos);
    }

    /// Every annotation, in order of text.
    pub fn all(&self) -> Vec<Annotation> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// The texts of one severity with `line:column` positions in `query`.
    pub fn texts(&self, severity: Severity, query: &str) -> Vec<String> {
        self.all().iter().filter(|a| a.severity == severity).map(|a| a.render(query)).collect()
    }

    /// Warnings as the HTTP API gives them.
    pub fn warnings(&self, query: &str) -> Vec<String> {
        self.texts(Severity::Warning, query)
    }

    /// Infos as the HTTP API gives them.
    pub fn infos(&self, query: &str) -> Vec<String> {
        self.texts(Severity::Info, query)
    }

    fn warning(&self, text: String, pos: PosRange) {
        self.add(Severity::Warning, format!("PromQL warning: {text}"), pos);
    }

    fn info(&self, text: String, pos: PosRange) {
        self.add(Severity::Info, format!("PromQL info: {text}"), pos);
    }

    pub(crate) fn invalid_quantile(&self, q: f64, pos: PosRange) {
        self.warning(format!("quantile value should be between 0 and 1, got {}", go_float(q)), pos);
    }

    pub(crate) fn invalid_ratio(&self, r: f64, cap: f64, pos: PosRange) {
        let (r, cap) = (go_float(r), go_float(cap));
        self.warning(format!("ratio value should be between -1 and 1, got {r}, capping to {cap}"), pos);
    }

    pub(crate) fn sort_in_range_query(&self, pos: PosRange) {
        let text = "sort is ineffective for range queries since results are always ordered by labels";
        self.warning(text.to_owned(), pos);
    }

    pub(crate) fn bad_bucket_label(&self, name: &str, le: &str, pos: PosRange) {
        let text = format!("bucket label \"le\" is missing or has a malformed value of {}", go_quote(le));
        self.warning(with_name(text, name), pos);
    }

    pub(crate) fn mixed_floats_histograms(&self, name: &str, pos: PosRange) {
        let name = go_quote(name);
        self.warning(format!("encountered a mix of histograms and floats for metric name {name}"), pos);
    }

    pub(crate) fn mixed_floats_histograms_in_aggregation(&self, pos: PosRange) {
        self.warning("encountered a mix of histograms and floats for aggregation".to_owned(), pos);
    }

    pub(crate) fn mixed_classic_native(&self, name: &str, pos: PosRange) {
        let text = "vector contains a mix of classic and native histograms".to_owned();
        self.warning(with_name(text, name), pos);
    }

    pub(crate) fn not_counter(&self, name: &str, pos: PosRange) {
        self.warning(format!("this native histogram metric is not a counter: {}", go_quote(name)), pos);
    }

    pub(crate) fn not_gauge(&self, name: &str, pos: PosRange) {
        self.warning(format!("this native histogram metric is not a gauge: {}", go_quote(name)), pos);
    }

    pub(crate) fn mixed_exponential_custom(&self, name: &str, pos: PosRange) {
        let text =
            "vector contains a mix of histograms with exponential and custom buckets schemas for metric name";
        self.warning(format!("{text} {}", go_quote(name)), pos);
    }

    pub(crate) fn incompatible_bucket_layout(&self, op: &str, pos: PosRange) {
        self.warning(format!("incompatible bucket layout encountered for binary operator {op}"), pos);
    }

    pub(crate) fn counter_reset_collision(&self, op: HistogramOp, pos: PosRange) {
        self.warning(format!("conflicting counter resets during histogram {}", op.as_str()), pos);
    }

    pub(crate) fn mismatched_custom_buckets(&self, op: HistogramOp, pos: PosRange) {
        self.info(format!("mismatched custom buckets were reconciled during {}", op.as_str()), pos);
    }

    pub(crate) fn start_time_overlap(&self, name: &str, pos: PosRange) {
        let text = "sample has start time that overlaps with previous sample timestamp for metric";
        self.warning(format!("{text} {}", go_quote(name)), pos);
    }

    pub(crate) fn possible_non_counter(&self, name: &str, pos: PosRange) {
        let text = "metric might not be a counter, name does not end in _total/_sum/_count/_bucket:";
        self.info(format!("{text} {}", go_quote(name)), pos);
    }

    pub(crate) fn possible_non_counter_type(&self, name: &str, type_label: &str, pos: PosRange) {
        let text = "metric might not be a counter, __type__ label is not set to \"counter\" or \"histogram\"";
        self.info(format!("{text}, got {}: {}", go_quote(type_label), go_quote(name)), pos);
    }

    pub(crate) fn incompatible_types(&self, lhs: &str, op: &str, rhs: &str, pos: PosRange) {
        let text = "incompatible sample types encountered for binary operator";
        self.info(format!("{text} {}: {lhs} {op} {rhs}", go_quote(op)), pos);
    }

    pub(crate) fn histogram_ignored_in_aggregation(&self, op: &str, pos: PosRange) {
        self.info(format!("ignored histogram in {op} aggregation"), pos);
    }

    pub(crate) fn histogram_ignored_in_range(&self, name: &str, pos: PosRange) {
        let text = "ignored histograms in a range containing both floats and histograms for metric name";
        self.info(format!("{text} {}", go_quote(name)), pos);
    }

    pub(crate) fn quantile_nan_result(&self, name: &str, pos: PosRange) {
        let text = "input to histogram_quantile has NaN observations, result is NaN".to_owned();
        self.info(with_name(text, name), pos);
    }

    pub(crate) fn quantile_nan_skew(&self, name: &str, pos: PosRange) {
        let text = "input to histogram_quantile has NaN observations, result is skewed higher".to_owned();
        self.info(with_name(text, name), pos);
    }

    pub(crate) fn fraction_nan(&self, name: &str, pos: PosRange) {
        let text = "input to histogram_fraction has NaN observations, which are excluded from all fractions";
        self.info(with_name(text.to_owned(), name), pos);
    }

    pub(crate) fn forced_monotonicity(
        &self,
        name: &str,
        pos: PosRange,
        at_ms: i64,
        buckets: (f64, f64),
        max_diff: f64,
    ) {
        let text = "PromQL info: input to histogram_quantile needed to be fixed for monotonicity (see \
                    https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile)";
        let forced = Forced {
            min_bucket: buckets.0,
            max_bucket: buckets.1,
            max_diff,
            first_ms: at_ms,
            last_ms: at_ms,
            samples: 1,
        };
        self.insert(Annotation {
            severity: Severity::Info,
            text: with_name(text.to_owned(), name),
            pos,
            forced: Some(forced),
        });
    }
}

fn merge_forced(old: Option<Forced>, new: Option<Forced>) -> Option<Forced> {
    match (old, new) {
        (Some(a), Some(b)) => Some(Forced {
            min_bucket: a.min_bucket.min(b.min_bucket),
            max_bucket: a.max_bucket.max(b.max_bucket),
            max_diff: a.max_diff.max(b.max_diff),
            first_ms: a.first_ms.min(b.first_ms),
            last_ms: a.last_ms.max(b.last_ms),
            samples: a.samples + b.samples,
        }),
        (a, b) => a.or(b),
    }
}

fn with_name(text: String, name: &str) -> String {
    if name.is_empty() { text } else { format!("{text} for metric name {}", go_quote(name)) }
}

impl Annotation {
    /// The text with the position in `query`.
    pub fn render(&self, query: &str) -> String {
        let mut text = self.text.clone();
        if let Some(f) = &self.forced {
            text.push_str(&format!(
                ", from buckets {} to {}, with a max diff of {}, over {} samples from {} to {}",
                go_float(f.min_bucket),
                go_float(f.max_bucket),
                significant(f.max_diff, 2),
                f.samples,
                crate::date::rfc3339(f.first_ms),
                crate::date::rfc3339(f.last_ms),
            ));
        }
        format!("{text} ({})", line_and_column(query, self.pos))
    }
}

/// `line:column` of the start of a range, both from 1.
pub fn line_and_column(query: &str, pos: PosRange) -> String {
    if query.is_empty() {
        return "unknown position".to_owned();
    }
    let Some(before) = query.as_bytes().get(..pos.start) else {
        return "invalid position".to_owned();
    };
    let line = 1 + before.iter().filter(|&&b| b == b'\n').count();
    let column = pos.start - before.iter().rposition(|&b| b == b'\n').map_or(0, |i| i + 1) + 1;
    format!("{line}:{column}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_lines_and_equal_texts_merge() {
        let a = Annotations::default();
        a.not_gauge("m", PosRange::new(5, 9));
        a.not_gauge("m", PosRange::new(5, 9));
        assert_eq!(
            a.warnings("rate(\nm[5m])"),
            [r#"PromQL warning: this native histogram metric is not a gauge: "m" (1:6)"#]
        );
        assert_eq!(line_and_column("a\nbc", PosRange::new(3, 4)), "2:2");
        assert!(a.infos("x").is_empty());
    }
}
