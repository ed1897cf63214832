//! Families to OpenMetrics.

use super::{
    number::{format_float, format_openmetrics_float},
    write::{Count, bucket_count, comment, escape, histogram_count, label, series, simple_value},
};
use sextant_proto::metric_family::{Exemplar, FamilyType, Metric, MetricFamily, Timestamp};

/// What is written beside the samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenMetricsOptions {
    /// `_created` lines for metrics that have a created timestamp.
    pub created_lines: bool,
    /// Append the unit to a name that does not end with it.
    pub unit_suffix: bool,
}

/// Appends a family; the caller appends `# EOF` after the last.
pub fn write_openmetrics(family: &MetricFamily, options: OpenMetricsOptions, out: &mut String) {
    let (base, type_name) = base_and_type(family, options);
    if let Some(help) = &family.help {
        comment("HELP", &base, out);
        escape(help, true, out);
        out.push('\n');
    }
    comment("TYPE", &base, out);
    out.push_str(type_name);
    out.push('\n');
    if let Some(unit) = &family.unit {
        comment("UNIT", &base, out);
        escape(unit, true, out);
        out.push('\n');
    }
    for metric in &family.metric {
        Writer { base: &base, metric, out }.metric(family, type_name, options.created_lines);
    }
}

/// The family's name without `_total`, and its type; a counter whose name has no `_total` is of unknown type.
fn base_and_type(family: &MetricFamily, options: OpenMetricsOptions) -> (String, &'static str) {
    let name = family.name();
    let (base, type_name) = match family.r#type() {
        FamilyType::Counter => match name.strip_suffix("_total") {
            Some(base) => (base, "counter"),
            None => (name, "unknown"),
        },
        FamilyType::Gauge => (name, "gauge"),
        FamilyType::Summary => (name, "summary"),
        FamilyType::Untyped => (name, "unknown"),
        FamilyType::Histogram => (name, "histogram"),
        FamilyType::GaugeHistogram => (name, "gaugehistogram"),
    };
    let mut base = base.to_owned();
    if let Some(unit) = family.unit.as_ref().filter(|_| options.unit_suffix)
        && !base.ends_with(&format!("_{unit}"))
    {
        base.push('_');
        base.push_str(unit);
    }
    (base, type_name)
}

struct Writer<'a> {
    base: &'a str,
    metric: &'a Metric,
    out: &'a mut String,
}

impl Writer<'_> {
    fn metric(&mut self, family: &MetricFamily, type_name: &str, created_lines: bool) {
        let created = match family.r#type() {
            FamilyType::Counter => {
                let counter = self.metric.counter.as_ref();
                let suffix = if type_name == "counter" { "_total" } else { "" };
                let value = format_openmetrics_float(simple_value(family, self.metric));
                self.sample(suffix, None, &value, counter.and_then(|c| c.exemplar.as_ref()));
                counter.and_then(|c| c.created_timestamp)
            }
            FamilyType::Summary => {
                let Some(summary) = &self.metric.summary else { return };
                for q in &summary.quantile {
                    let quantile = format_openmetrics_float(q.quantile());
                    let value = format_openmetrics_float(q.value());
                    self.sample("", Some(("quantile", &quantile)), &value, None);
                }
                self.sample("_sum", None, &format_openmetrics_float(summary.sample_sum()), None);
                self.sample("_count", None, &summary.sample_count().to_string(), None);
                summary.created_timestamp
            }
            FamilyType::Histogram | FamilyType::GaugeHistogram => {
                let Some(h) = &self.metric.histogram else { return };
                let mut infinite = false;
                for b in &h.bucket {
                    infinite |= b.upper_bound() == f64::INFINITY;
                    let le = format_openmetrics_float(b.upper_bound());
                    self.sample(
                        "_bucket",
                        Some(("le", &le)),
                        &count_text(bucket_count(b)),
                        b.exemplar.as_ref(),
                    );
                }
                let all = count_text(histogram_count(h));
                if !infinite {
                    self.sample("_bucket", Some(("le", "+Inf")), &all, None);
                }
                self.sample("_sum", None, &format_openmetrics_float(h.sample_sum()), None);
                self.sample("_count", None, &all, None);
                h.created_timestamp
            }
            FamilyType::Gauge | FamilyType::Untyped => {
                let value = format_openmetrics_float(simple_value(family, self.metric));
                self.sample("", None, &value, None);
                None
            }
        };
        if let Some(created) = created.filter(|_| created_lines) {
            self.sample("_created", None, &seconds(&created), None);
        }
    }

    fn sample(
        &mut self,
        suffix: &str,
        extra: Option<(&str, &str)>,
        value: &str,
        exemplar: Option<&Exemplar>,
    ) {
        series(&format!("{}{suffix}", self.base), &self.metric.label, extra, self.out);
        self.out.push(' ');
        self.out.push_str(value);
        if let Some(t) = self.metric.timestamp_ms {
            self.out.push(' ');
            self.out.push_str(&format_openmetrics_float(t as f64 / 1000.0));
        }
        // The format cannot say an exemplar without labels from none.
        if let Some(e) = exemplar.filter(|e| !e.label.is_empty()) {
            self.out.push_str(" # {");
            for (i, l) in e.label.iter().enumerate() {
                if i > 0 {
                    self.out.push(',');
                }
                label(l.name(), l.value(), self.out);
            }
            self.out.push_str("} ");
            self.out.push_str(&format_openmetrics_float(e.value()));
            if let Some(t) = &e.timestamp {
                self.out.push(' ');
                self.out.push_str(&seconds(t));
            }
        }
        self.out.push('\n');
    }
}

fn seconds(t: &Timestamp) -> String {
    format_openmetrics_float(t.as_seconds())
}

fn count_text(count: Count) -> String {
    match count {
        Count::Integer(n) => n.to_string(),
        Count::Float(f) => format_float(f),
    }
}
