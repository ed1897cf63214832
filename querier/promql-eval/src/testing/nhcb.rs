//! `load_with_nhcb`: for each classic histogram, the native histogram with custom buckets.

use std::collections::BTreeMap;

use sextant_model::{
    CUSTOM_BUCKETS_SCHEMA, Histogram, HistogramSample, Labels, METRIC_NAME, SeriesBuf, Span,
};

#[derive(Default)]
struct Classic {
    buckets: Vec<(f64, f64)>,
    count: Option<f64>,
    sum: f64,
}

/// The native histograms of the classic ones among `series`.
pub fn convert(series: &[(Labels, SeriesBuf)]) -> Result<Vec<(Labels, SeriesBuf)>, String> {
    let mut all: BTreeMap<Labels, BTreeMap<i64, Classic>> = BTreeMap::new();
    for (labels, buf) in series {
        let name = labels.metric_name();
        let le = labels.get("le").and_then(|le| le.parse::<f64>().ok()).filter(|le| !le.is_nan());
        let base = |suffix: &str| {
            name.strip_suffix(suffix).map(|base| {
                let mut b = labels.to_builder();
                b.set(METRIC_NAME, base).remove("le");
                b.build()
            })
        };
        let (labels, set): (Labels, Box<dyn Fn(&mut Classic, f64)>) =
            if let (Some(base), Some(le)) = (base("_bucket"), le) {
                (base, Box::new(move |c, v| c.buckets.push((le, v))))
            } else if let Some(base) = base("_count") {
                (base, Box::new(|c, v| c.count = Some(v)))
            } else if let Some(base) = base("_sum") {
                (base, Box::new(|c, v| c.sum = v))
            } else {
                continue;
            };
        let of = all.entry(labels).or_default();
        for (&t, &v) in buf.t.iter().zip(&buf.v) {
            set(of.entry(t).or_default(), v);
        }
    }
    let mut out = Vec::new();
    for (labels, by_time) in all {
        let mut buf = SeriesBuf::default();
        for (t, classic) in by_time {
            buf.h.push(HistogramSample { t, start: 0, h: native(classic)? });
        }
        out.push((labels, buf));
    }
    Ok(out)
}

fn native(mut classic: Classic) -> Result<Histogram, String> {
    classic.buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
    let total = classic.count.or(classic.buckets.last().map(|b| b.1)).unwrap_or(0.0);
    let mut custom_values = Vec::new();
    let mut counts = Vec::new();
    let mut before = 0.0;
    for &(le, count) in &classic.buckets {
        if le == f64::INFINITY {
            break;
        }
        // Another spelling of the same bound.
        if custom_values.last() == Some(&le) {
            continue;
        }
        custom_values.push(le);
        counts.push(count - before);
        before = count;
    }
    counts.push(total - before);
    if counts.iter().any(|c| *c < 0.0) {
        return Err(format!("classic histogram is not monotonic: {counts:?}"));
    }
    let mut h = Histogram {
        schema: CUSTOM_BUCKETS_SCHEMA,
        count: total,
        sum: classic.sum,
        positive_spans: vec![Span { offset: 0, length: counts.len() as u32 }],
        positive_buckets: counts,
        custom_values,
        ..Histogram::default()
    };
    h.compact(0);
    Ok(h)
}
