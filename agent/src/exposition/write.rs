//! What both writers share: quoting, label sets, the two forms of a histogram's counts.

use sextant_model::{is_valid_label_name, is_valid_legacy_metric_name};
use sextant_proto::metric_family::{Bucket, Histogram, LabelPair, Metric, MetricFamily};

/// Appends a text with `\` and line feed escaped, and `"` where `quotes` says so.
pub(super) fn escape(text: &str, quotes: bool, out: &mut String) {
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '"' if quotes => out.push_str("\\\""),
            c => out.push(c),
        }
    }
}

/// Appends a name, in quotes where it is no legacy name.
pub(super) fn name_or_quoted(name: &str, is_legacy: bool, out: &mut String) {
    if is_legacy {
        out.push_str(name);
        return;
    }
    out.push('"');
    escape(name, true, out);
    out.push('"');
}

/// Appends `name{labels}`, or `{"name",labels}` where the name needs quotes.
pub(super) fn series(name: &str, labels: &[LabelPair], extra: Option<(&str, &str)>, out: &mut String) {
    let legacy = is_valid_legacy_metric_name(name);
    if legacy {
        out.push_str(name);
        if labels.is_empty() && extra.is_none() {
            return;
        }
    }
    out.push('{');
    let mut separator = "";
    if !legacy {
        name_or_quoted(name, false, out);
        separator = ",";
    }
    let given = labels.iter().map(|l| (l.name(), l.value()));
    for (n, v) in given.chain(extra) {
        out.push_str(separator);
        separator = ",";
        label(n, v, out);
    }
    out.push('}');
}

/// Appends `name="value"`.
pub(super) fn label(name: &str, value: &str, out: &mut String) {
    name_or_quoted(name, is_valid_label_name(name), out);
    out.push_str("=\"");
    escape(value, true, out);
    out.push('"');
}

/// Appends `# KIND name `.
pub(super) fn comment(kind: &str, name: &str, out: &mut String) {
    out.push_str("# ");
    out.push_str(kind);
    out.push(' ');
    name_or_quoted(name, is_valid_legacy_metric_name(name), out);
    out.push(' ');
}

/// A count of either kind of histogram.
#[derive(Clone, Copy)]
pub(super) enum Count {
    /// Of an integer histogram.
    Integer(u64),
    /// Of a float histogram.
    Float(f64),
}

/// All observations.
pub(super) fn histogram_count(h: &Histogram) -> Count {
    match h.sample_count_float.filter(|c| *c > 0.0) {
        Some(c) => Count::Float(c),
        None => Count::Integer(h.sample_count()),
    }
}

/// The observations up to a bucket's bound.
pub(super) fn bucket_count(b: &Bucket) -> Count {
    match b.cumulative_count_float.filter(|c| *c > 0.0) {
        Some(c) => Count::Float(c),
        None => Count::Integer(b.cumulative_count()),
    }
}

/// The value of a metric that is one number; 0 where the family's type and the metric do not agree.
pub(super) fn simple_value(family: &MetricFamily, metric: &Metric) -> f64 {
    use sextant_proto::metric_family::FamilyType::{Counter, Gauge};
    let value = match family.r#type() {
        Counter => metric.counter.as_ref().and_then(|c| c.value),
        Gauge => metric.gauge.as_ref().and_then(|g| g.value),
        _ => metric.untyped.as_ref().and_then(|u| u.value),
    };
    value.unwrap_or_default()
}
