//! Families to the Prometheus text format.

use super::{
    number::format_float,
    write::{Count, bucket_count, comment, escape, histogram_count, series, simple_value},
};
use sextant_proto::metric_family::{FamilyType, LabelPair, Metric, MetricFamily};

/// Appends a family.
pub fn write_text(family: &MetricFamily, out: &mut String) {
    let name = family.name();
    if let Some(help) = &family.help {
        comment("HELP", name, out);
        escape(help, false, out);
        out.push('\n');
    }
    comment("TYPE", name, out);
    out.push_str(match family.r#type() {
        FamilyType::Counter => "counter",
        FamilyType::Gauge => "gauge",
        FamilyType::Summary => "summary",
        FamilyType::Untyped => "untyped",
        // The format has no gauge histograms.
        FamilyType::Histogram | FamilyType::GaugeHistogram => "histogram",
    });
    out.push('\n');
    for metric in &family.metric {
        write_metric(family, metric, out);
    }
}

fn write_metric(family: &MetricFamily, metric: &Metric, out: &mut String) {
    let name = family.name();
    let mut sample = |suffix: &str, extra: Option<(&str, &str)>, value: &str| {
        line(&format!("{name}{suffix}"), &metric.label, extra, value, metric.timestamp_ms, out);
    };
    match family.r#type() {
        FamilyType::Summary => {
            let Some(summary) = &metric.summary else { return };
            for q in &summary.quantile {
                let quantile = format_float(q.quantile());
                sample("", Some(("quantile", &quantile)), &format_float(q.value()));
            }
            sample("_sum", None, &format_float(summary.sample_sum()));
            sample("_count", None, &summary.sample_count().to_string());
        }
        FamilyType::Histogram | FamilyType::GaugeHistogram => {
            let Some(h) = &metric.histogram else { return };
            let mut infinite = false;
            for b in &h.bucket {
                infinite |= b.upper_bound() == f64::INFINITY;
                sample("_bucket", Some(("le", &format_float(b.upper_bound()))), &count_text(bucket_count(b)));
            }
            let all = count_text(histogram_count(h));
            if !infinite {
                sample("_bucket", Some(("le", "+Inf")), &all);
            }
            sample("_sum", None, &format_float(h.sample_sum()));
            sample("_count", None, &all);
        }
        _ => sample("", None, &format_float(simple_value(family, metric))),
    }
}

fn count_text(count: Count) -> String {
    match count {
        Count::Integer(n) => n.to_string(),
        Count::Float(f) => format_float(f),
    }
}

fn line(
    name: &str,
    labels: &[LabelPair],
    extra: Option<(&str, &str)>,
    value: &str,
    timestamp_ms: Option<i64>,
    out: &mut String,
) {
    series(name, labels, extra, out);
    out.push(' ');
    out.push_str(value);
    if let Some(t) = timestamp_ms {
        out.push(' ');
        out.push_str(&t.to_string());
    }
    out.push('\n');
}
