//! Text to metric families: the samples of histograms and summaries are put together again.

use std::collections::HashMap;

use sextant_model::MetricType;
use sextant_proto::metric_family::{
    Bucket, Counter, FamilyType, Gauge, Histogram, LabelPair, Metric, MetricFamily, Quantile, Summary,
    Untyped,
};

use super::{
    error::{ParseError, TextFault},
    lexer::ParsedLabels,
    number::parse_float,
    sample::{Entry, SampleLine},
    text::TextParser,
};

/// Reads families in the order in which they occur; those without a sample are left out.
pub fn text_to_families(body: &[u8]) -> Result<Vec<MetricFamily>, ParseError> {
    let mut parser = TextParser::strict(body)?;
    let mut assembly = Assembly::default();
    let mut line = 0;
    while let Some(entry) = parser.next_entry()? {
        line += 1;
        assembly.entry(entry, line)?;
    }
    Ok(assembly.families.into_iter().filter(|f| !f.metric.is_empty()).collect())
}

#[derive(Default)]
struct Assembly {
    families: Vec<MetricFamily>,
    by_name: HashMap<String, usize>,
    /// Metrics of histograms and summaries by family and labels.
    metrics: HashMap<(usize, Vec<(String, String)>), usize>,
}

/// What a sample's name says beside the family.
#[derive(Clone, Copy, PartialEq)]
enum Part {
    Value,
    Bucket,
    Sum,
    Count,
}

impl Assembly {
    fn entry(&mut self, entry: Entry<'_>, line: usize) -> Result<(), ParseError> {
        let fault = |fault| ParseError::Text { line, column: 1, fault };
        match entry {
            Entry::Help { family, text } if !text.is_empty() => {
                let at = self.family(&family);
                if self.families[at].help.is_some() {
                    let metric = family.into_owned();
                    return Err(fault(TextFault::RepeatedMetadata { kind: "HELP", metric }));
                }
                self.families[at].help = Some(text.into_owned());
            }
            Entry::Type { family, metric_type } => {
                let at = self.family(&family);
                let metric = family.into_owned();
                if self.families[at].r#type.is_some() {
                    let kind = "TYPE";
                    return Err(fault(match self.families[at].metric.is_empty() {
                        true => TextFault::RepeatedMetadata { kind, metric },
                        false => TextFault::MetadataAfterSamples { kind, metric },
                    }));
                }
                self.families[at].r#type = Some(family_type(metric_type) as i32);
            }
            Entry::Sample(sample) => self.sample(&sample)?,
            _ => {}
        }
        Ok(())
    }

    fn family(&mut self, name: &str) -> usize {
        if let Some(at) = self.by_name.get(name) {
            return *at;
        }
        self.families.push(MetricFamily { name: Some(name.to_owned()), ..MetricFamily::default() });
        self.by_name.insert(name.to_owned(), self.families.len() - 1);
        self.families.len() - 1
    }

    /// The family and part that a sample's name means, given the types known so far.
    fn place(&mut self, name: &str) -> (usize, Part) {
        if let Some(at) = self.by_name.get(name) {
            return (*at, Part::Value);
        }
        for (suffix, part) in [("_count", Part::Count), ("_sum", Part::Sum), ("_bucket", Part::Bucket)] {
            let at = name.strip_suffix(suffix).and_then(|base| self.by_name.get(base));
            let takes_part = |t: FamilyType| match t {
                FamilyType::Summary => part != Part::Bucket,
                FamilyType::Histogram | FamilyType::GaugeHistogram => true,
                _ => false,
            };
            if let Some(at) = at.filter(|at| takes_part(self.families[**at].r#type())) {
                return (*at, part);
            }
        }
        (self.family(name), Part::Value)
    }

    fn sample(&mut self, line: &SampleLine<'_>) -> Result<(), ParseError> {
        let parsed = line.labels()?;
        let fault = |fault| ParseError::Text { line: line.line, column: 1, fault };
        let (at, part) = self.place(&parsed.name);
        if self.families[at].r#type.is_none() {
            self.families[at].r#type = Some(FamilyType::Untyped as i32);
        }
        let family_type = self.families[at].r#type();
        let own = match family_type {
            FamilyType::Summary => "quantile",
            FamilyType::Histogram | FamilyType::GaugeHistogram => "le",
            _ => return self.simple(at, family_type, &parsed, line),
        };
        let boundary = match parsed.labels.iter().find(|(n, _)| n == own) {
            None => None,
            Some((_, v)) => Some(parse_float(v).ok_or_else(|| {
                fault(TextFault::InvalidBoundary { label: own, value: v.clone().into_owned() })
            })?),
        };
        let labels = pairs(&parsed, own);
        let metric = self.metric(at, labels);
        if let Some(t) = line.timestamp_ms {
            metric.timestamp_ms = Some(t);
        }
        if family_type == FamilyType::Summary {
            add_to_summary(metric.summary.get_or_insert_default(), part, boundary, line.value);
            return Ok(());
        }
        let name = self.families[at].name.clone().unwrap_or_default();
        let negative = |what| fault(TextFault::NegativeCount { what, metric: name });
        match part {
            Part::Count if line.value < 0.0 => return Err(negative("count")),
            Part::Bucket if line.value < 0.0 => return Err(negative("bucket population")),
            _ => {}
        }
        let metric = self.metric(at, pairs(&parsed, own));
        add_to_histogram(metric.histogram.get_or_insert_default(), part, boundary, line.value);
        Ok(())
    }

    fn simple(
        &mut self,
        at: usize,
        family_type: FamilyType,
        parsed: &ParsedLabels<'_>,
        line: &SampleLine<'_>,
    ) -> Result<(), ParseError> {
        let value = Some(line.value);
        let mut metric =
            Metric { label: pairs(parsed, ""), timestamp_ms: line.timestamp_ms, ..Metric::default() };
        match family_type {
            FamilyType::Counter => metric.counter = Some(Counter { value, ..Counter::default() }),
            FamilyType::Gauge => metric.gauge = Some(Gauge { value }),
            _ => metric.untyped = Some(Untyped { value }),
        }
        self.families[at].metric.push(metric);
        Ok(())
    }

    fn metric(&mut self, family: usize, labels: Vec<LabelPair>) -> &mut Metric {
        let mut key: Vec<(String, String)> =
            labels.iter().map(|l| (l.name().to_owned(), l.value().to_owned())).collect();
        key.sort();
        let metrics = &mut self.families[family].metric;
        let at = *self.metrics.entry((family, key)).or_insert_with(|| {
            metrics.push(Metric { label: labels, ..Metric::default() });
            metrics.len() - 1
        });
        &mut metrics[at]
    }
}

fn family_type(metric_type: MetricType) -> FamilyType {
    match metric_type {
        MetricType::Counter => FamilyType::Counter,
        MetricType::Gauge => FamilyType::Gauge,
        MetricType::Summary => FamilyType::Summary,
        MetricType::Histogram => FamilyType::Histogram,
        MetricType::GaugeHistogram => FamilyType::GaugeHistogram,
        MetricType::Unknown | MetricType::Info | MetricType::StateSet => FamilyType::Untyped,
    }
}

fn pairs(parsed: &ParsedLabels<'_>, without: &str) -> Vec<LabelPair> {
    let kept = parsed.labels.iter().filter(|(n, _)| n != without);
    kept.map(|(n, v)| LabelPair { name: Some(n.clone().into_owned()), value: Some(v.clone().into_owned()) })
        .collect()
}

fn add_to_summary(summary: &mut Summary, part: Part, quantile: Option<f64>, value: f64) {
    match part {
        Part::Count => summary.sample_count = Some(value as u64),
        Part::Sum => summary.sample_sum = Some(value),
        Part::Value | Part::Bucket => {
            if quantile.is_some() {
                summary.quantile.push(Quantile { quantile, value: Some(value) });
            }
        }
    }
}

fn add_to_histogram(h: &mut Histogram, part: Part, bound: Option<f64>, value: f64) {
    let whole = value >= 0.0 && value <= u64::MAX as f64 && value.fract() == 0.0;
    match part {
        Part::Value => return,
        Part::Sum => {
            h.sample_sum = Some(value);
            return;
        }
        Part::Count | Part::Bucket => {}
    }
    // One count with a fraction makes the whole histogram a float histogram.
    let is_float = !whole
        || h.sample_count_float.is_some()
        || h.bucket.iter().any(|b| b.cumulative_count_float.is_some());
    if is_float {
        to_float(h);
    }
    let (count, count_float) = if is_float { (None, Some(value)) } else { (Some(value as u64), None) };
    if part == Part::Count {
        h.sample_count = count;
        h.sample_count_float = count_float;
    } else if bound.is_some() {
        h.bucket.push(Bucket {
            cumulative_count: count,
            cumulative_count_float: count_float,
            upper_bound: bound,
            exemplar: None,
        });
    }
}

fn to_float(h: &mut Histogram) {
    if let Some(c) = h.sample_count.take() {
        h.sample_count_float = Some(c as f64);
    }
    for b in &mut h.bucket {
        if let Some(c) = b.cumulative_count.take() {
            b.cumulative_count_float = Some(c as f64);
        }
    }
}
