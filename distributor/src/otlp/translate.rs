//! A metrics request as series.

use std::collections::HashSet;

use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    common::v1::KeyValue,
    metrics::v1::{
        AggregationTemporality, Exemplar as OtlpExemplar, HistogramDataPoint, Metric, NumberDataPoint,
        SummaryDataPoint, exemplar, metric::Data, number_data_point,
    },
};
use sextant_model::{
    Exemplar, Histogram, HistogramSample, Labels, LabelsBuilder, METRIC_NAME, MetricMetadata, MetricType,
    NO_START, Sample, stale_nan,
};
use sextant_proto::{SeriesWrite, Temporality, WriteRequest};

use super::{
    OtlpOptions,
    attributes::{BaseLabels, Joined, base_labels, point_labels, target_info, value_text},
    histograms::{NO_RECORDED_VALUE, custom_buckets, exponential},
    names::{SuffixType, metric_name, unit_name},
};

/// `target_info` is written at most this far apart, so that it is never stale between two exports.
const TARGET_INFO_EVERY_MS: i64 = 150_000;
/// Samples of `target_info` between the first and the last of each resource, in one request: two points far apart must
/// not cost more than they weigh.
const TARGET_INFO_BETWEEN_MAX: usize = 100_000;

/// What a request became.
#[derive(Debug, Default)]
pub struct Translated {
    /// The series.
    pub request: WriteRequest,
    /// Points of the request.
    pub points: u64,
    /// Points without a translation.
    pub rejected_points: u64,
    /// Why, each reason once.
    pub reasons: Vec<String>,
    /// Attributes that became one label with others.
    pub joined: Joined,
    /// The labels of the series are longer than was allowed, and the rest of the request is left out.
    pub is_too_long: bool,
    /// Bytes of the labels of all series.
    label_bytes: usize,
    label_bytes_max: usize,
}

impl Translated {
    fn reject(&mut self, points: usize, reason: String) {
        self.rejected_points += points as u64;
        if self.reasons.len() < 20 && !self.reasons.contains(&reason) {
            self.reasons.push(reason);
        }
    }

    fn push(&mut self, series: SeriesWrite) {
        self.label_bytes = self.label_bytes.saturating_add(series.labels.as_bytes().len());
        if self.label_bytes > self.label_bytes_max {
            self.is_too_long = true;
            return;
        }
        self.request.series.push(series);
    }
}

/// Translates a request.
pub fn translate(request: &ExportMetricsServiceRequest, options: &OtlpOptions) -> Translated {
    translate_within(request, options, usize::MAX)
}

/// Translates a request, and stops where its series have more than `label_bytes_max` bytes of labels.
pub fn translate_within(
    request: &ExportMetricsServiceRequest,
    options: &OtlpOptions,
    label_bytes_max: usize,
) -> Translated {
    let mut out = Translated { label_bytes_max, ..Translated::default() };
    let mut between_left = TARGET_INFO_BETWEEN_MAX;
    // Resources may describe a family differently.
    let mut families = HashSet::<(String, MetricMetadata)>::new();
    for resource in &request.resource_metrics {
        let attributes: &[KeyValue] = resource.resource.as_ref().map_or(&[], |r| &r.attributes);
        let mut times = TimeSpan::default();
        for scope in &resource.scope_metrics {
            let base = base_labels(attributes, scope.scope.as_ref(), &scope.schema_url, options);
            for metric in &scope.metrics {
                if out.is_too_long {
                    return out;
                }
                let mut writer = MetricWriter { options, base: &base, out: &mut out, times: &mut times };
                families.extend(writer.metric(metric));
            }
        }
        let Some((first, last)) = times.0 else { continue };
        if let Some(labels) = target_info(attributes, options, &mut out.joined) {
            out.push(info_series(labels, first, last, &mut between_left));
        }
    }
    out.request.metadata = families.into_iter().collect();
    out.request.metadata.sort();
    out
}

fn info_series(labels: Labels, first: i64, last: i64, between_left: &mut usize) -> SeriesWrite {
    let mut samples: Vec<Sample> = Vec::new();
    let mut t = first;
    while t < last && (t == first || *between_left > 0) {
        *between_left -= usize::from(t > first);
        samples.push(Sample { t, v: 1.0, start: NO_START });
        t += TARGET_INFO_EVERY_MS;
    }
    samples.push(Sample { t: last, v: 1.0, start: NO_START });
    let metadata = MetricMetadata {
        metric_type: MetricType::Gauge,
        help: "Target metadata".into(),
        unit: String::new(),
    };
    SeriesWrite { labels, samples, metadata: Some(metadata), ..SeriesWrite::default() }
}

/// Earliest and latest point of a resource.
#[derive(Default)]
struct TimeSpan(Option<(i64, i64)>);

impl TimeSpan {
    fn add(&mut self, t: i64) {
        let (first, last) = self.0.unwrap_or((t, t));
        self.0 = Some((first.min(t), last.max(t)));
    }
}

fn ms(unix_nano: u64) -> i64 {
    (unix_nano / 1_000_000) as i64
}

struct MetricWriter<'a> {
    options: &'a OtlpOptions,
    base: &'a BaseLabels,
    out: &'a mut Translated,
    times: &'a mut TimeSpan,
}

/// What all series of one metric have in common.
struct Family {
    name: String,
    metadata: MetricMetadata,
    temporality: Temporality,
}

impl MetricWriter<'_> {
    fn metric(&mut self, metric: &Metric) -> Option<(String, MetricMetadata)> {
        let count = point_count(metric);
        self.out.points += count as u64;
        let family = match self.family(metric) {
            Ok(f) => f,
            Err(reason) => {
                self.out.reject(count, reason);
                return None;
            }
        };
        match metric.data.as_ref()? {
            Data::Gauge(g) => self.numbers(&family, &g.data_points),
            Data::Sum(s) => self.numbers(&family, &s.data_points),
            Data::Histogram(h) => {
                for p in &h.data_points {
                    self.histogram(&family, p);
                    if self.out.is_too_long {
                        break;
                    }
                }
            }
            Data::ExponentialHistogram(h) => {
                let delta = family.temporality == Temporality::Delta;
                for p in &h.data_points {
                    match exponential(p, delta) {
                        Ok(native) => {
                            let times = (p.time_unix_nano, p.start_time_unix_nano);
                            self.native(&family, &p.attributes, native, times, &p.exemplars);
                        }
                        Err(e) => self.out.reject(1, format!("metric {:?}: {e}", metric.name)),
                    }
                    if self.out.is_too_long {
                        break;
                    }
                }
            }
            Data::Summary(s) => {
                for p in &s.data_points {
                    self.summary(&family, p);
                    if self.out.is_too_long {
                        break;
                    }
                }
            }
        }
        Some((family.name, family.metadata))
    }

    fn family(&self, metric: &Metric) -> Result<Family, String> {
        let unsupported = || {
            format!(
                "could not get aggregation temporality for {} as it has unsupported metric type Empty",
                metric.name
            )
        };
        let (kind, metric_type, temporality) = match metric.data.as_ref().ok_or_else(unsupported)? {
            Data::Gauge(_) => (SuffixType::Gauge, MetricType::Gauge, None),
            Data::Sum(s) if s.is_monotonic => {
                (SuffixType::MonotonicCounter, MetricType::Counter, Some(s.aggregation_temporality))
            }
            Data::Sum(s) => (SuffixType::Other, MetricType::Gauge, Some(s.aggregation_temporality)),
            Data::Histogram(h) => (SuffixType::Other, MetricType::Histogram, Some(h.aggregation_temporality)),
            Data::ExponentialHistogram(h) => {
                (SuffixType::Other, MetricType::Histogram, Some(h.aggregation_temporality))
            }
            Data::Summary(_) => (SuffixType::Other, MetricType::Summary, None),
        };
        let temporality = match temporality.map(AggregationTemporality::try_from) {
            None | Some(Ok(AggregationTemporality::Cumulative)) => Temporality::Cumulative,
            Some(Ok(AggregationTemporality::Delta)) => Temporality::Delta,
            Some(_) => {
                return Err(format!("invalid temporality and type combination for metric {:?}", metric.name));
            }
        };
        let name = metric_name(&metric.name, &metric.unit, kind, "", self.options.strategy)
            .map_err(|e| e.to_string())?;
        let unit = unit_name(&metric.unit, self.options.strategy);
        let metadata = MetricMetadata { metric_type, help: metric.description.clone(), unit };
        Ok(Family { name, metadata, temporality })
    }

    fn labels(&mut self, family: &Family, attributes: &[KeyValue]) -> LabelsBuilder {
        let mut labels = point_labels(self.base, attributes, self.options, &mut self.out.joined);
        if self.options.type_and_unit_labels {
            labels.set("__type__", family.metadata.metric_type.as_str());
            labels.set("__unit__", &family.metadata.unit);
        }
        labels
    }

    fn push(
        &mut self,
        family: &Family,
        labels: &LabelsBuilder,
        suffix: &str,
        sample: Sample,
        exemplars: Vec<Exemplar>,
    ) {
        let mut labels = labels.clone();
        labels.set(METRIC_NAME, &format!("{}{suffix}", family.name));
        self.out.push(SeriesWrite {
            labels: labels.build(),
            samples: vec![sample],
            exemplars,
            temporality: family.temporality,
            ..SeriesWrite::default()
        });
    }

    fn numbers(&mut self, family: &Family, points: &[NumberDataPoint]) {
        for p in points {
            let v = match p.value {
                _ if p.flags & NO_RECORDED_VALUE != 0 => stale_nan(),
                Some(number_data_point::Value::AsDouble(d)) => d,
                Some(number_data_point::Value::AsInt(i)) => i as f64,
                None => 0.0,
            };
            let labels = self.labels(family, &p.attributes);
            let sample = self.sample(p.time_unix_nano, p.start_time_unix_nano, v);
            self.push(family, &labels, "", sample, exemplars(&p.exemplars));
            if self.out.is_too_long {
                break;
            }
        }
    }

    fn sample(&mut self, time: u64, start: u64, v: f64) -> Sample {
        let t = ms(time);
        self.times.add(t);
        Sample { t, v, start: ms(start) }
    }

    fn histogram(&mut self, family: &Family, p: &HistogramDataPoint) {
        if self.options.convert_histograms_to_nhcb {
            let native = custom_buckets(p, family.temporality == Temporality::Delta);
            let times = (p.time_unix_nano, p.start_time_unix_nano);
            return self.native(family, &p.attributes, native, times, &p.exemplars);
        }
        let labels = self.labels(family, &p.attributes);
        let stale = p.flags & NO_RECORDED_VALUE != 0;
        let value = |v: f64| if stale { stale_nan() } else { v };
        let emit =
            |this: &mut Self, labels: &LabelsBuilder, suffix: &str, v: f64, exemplars: Vec<Exemplar>| {
                let sample = this.sample(p.time_unix_nano, p.start_time_unix_nano, value(v));
                this.push(family, labels, suffix, sample, exemplars);
            };
        if let Some(sum) = p.sum {
            emit(self, &labels, "_sum", sum, Vec::new());
        }
        emit(self, &labels, "_count", p.count as f64, Vec::new());
        let mut pending = exemplars(&p.exemplars);
        pending.sort_by(|a, b| a.v.total_cmp(&b.v));
        let mut pending = pending.into_iter().peekable();
        let mut cumulative = 0u64;
        for (bound, count) in p.explicit_bounds.iter().zip(&p.bucket_counts) {
            cumulative = cumulative.saturating_add(*count);
            let mut with_bound = labels.clone();
            with_bound.set("le", &plain_float(*bound));
            let here = std::iter::from_fn(|| pending.next_if(|e| e.v <= *bound)).collect();
            emit(self, &with_bound, "_bucket", cumulative as f64, here);
            if self.out.is_too_long {
                return;
            }
        }
        let mut with_bound = labels.clone();
        with_bound.set("le", "+Inf");
        emit(self, &with_bound, "_bucket", p.count as f64, pending.collect());
    }

    fn native(
        &mut self,
        family: &Family,
        attributes: &[KeyValue],
        h: Histogram,
        (time, start): (u64, u64),
        of_point: &[OtlpExemplar],
    ) {
        let mut labels = self.labels(family, attributes);
        labels.set(METRIC_NAME, &family.name);
        self.times.add(ms(time));
        self.out.push(SeriesWrite {
            labels: labels.build(),
            histograms: vec![HistogramSample { t: ms(time), start: ms(start), h }],
            exemplars: exemplars(of_point),
            temporality: family.temporality,
            ..SeriesWrite::default()
        });
    }

    fn summary(&mut self, family: &Family, p: &SummaryDataPoint) {
        let labels = self.labels(family, &p.attributes);
        let stale = p.flags & NO_RECORDED_VALUE != 0;
        let value = |v: f64| if stale { stale_nan() } else { v };
        let times = (p.time_unix_nano, p.start_time_unix_nano);
        let sum = self.sample(times.0, times.1, value(p.sum));
        self.push(family, &labels, "_sum", sum, Vec::new());
        let count = self.sample(times.0, times.1, value(p.count as f64));
        self.push(family, &labels, "_count", count, Vec::new());
        for q in &p.quantile_values {
            let mut with_quantile = labels.clone();
            with_quantile.set("quantile", &plain_float(q.quantile));
            let sample = self.sample(times.0, times.1, value(q.value));
            self.push(family, &with_quantile, "", sample, Vec::new());
            if self.out.is_too_long {
                return;
            }
        }
    }
}

fn point_count(metric: &Metric) -> usize {
    match &metric.data {
        None => 0,
        Some(Data::Gauge(g)) => g.data_points.len(),
        Some(Data::Sum(s)) => s.data_points.len(),
        Some(Data::Histogram(h)) => h.data_points.len(),
        Some(Data::ExponentialHistogram(h)) => h.data_points.len(),
        Some(Data::Summary(s)) => s.data_points.len(),
    }
}

/// A bound or quantile: all digits, without an exponent.
fn plain_float(v: f64) -> String {
    match v {
        f64::INFINITY => "+Inf".into(),
        f64::NEG_INFINITY => "-Inf".into(),
        v => v.to_string(),
    }
}

/// Characters that the labels of an exemplar may have, as OpenMetrics says.
const EXEMPLAR_CHARACTERS_MAX: usize = 128;

fn exemplars(points: &[OtlpExemplar]) -> Vec<Exemplar> {
    points
        .iter()
        .map(|e| {
            let mut labels = LabelsBuilder::default();
            if e.trace_id.iter().any(|b| *b != 0) {
                labels.set("trace_id", &hex::encode(&e.trace_id));
            }
            if e.span_id.iter().any(|b| *b != 0) {
                labels.set("span_id", &hex::encode(&e.span_id));
            }
            let v = match e.value {
                Some(exemplar::Value::AsDouble(d)) => d,
                Some(exemplar::Value::AsInt(i)) => i as f64,
                None => 0.0,
            };
            let mut all = labels.clone();
            for a in &e.filtered_attributes {
                all.set(&a.key, &value_text(a.value.as_ref()));
            }
            all.remove("");
            // The ids matter more than attributes that would make the labels too long.
            let characters: usize = all.iter().map(|(n, v)| n.chars().count() + v.chars().count()).sum();
            let labels = if characters <= EXEMPLAR_CHARACTERS_MAX { all } else { labels };
            Exemplar { t: ms(e.time_unix_nano), v, labels: labels.build() }
        })
        .collect()
}
