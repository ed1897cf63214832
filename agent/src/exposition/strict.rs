//! The rules of OpenMetrics 1.0.0 beyond its syntax: order, grouping, names by type, values by type.
//!
//! A scrape takes what breaks them, as Prometheus does; a check of an exporter must not. State is one family and, in it,
//! one metric (the samples that share labels), because a family's lines and a metric's lines stand together.

use std::collections::HashSet;

use sextant_model::MetricType;

use super::{
    error::{ParseError, TextFault},
    lexer::ParsedLabels,
    number::parse_float,
    openmetrics::OpenMetricsParser,
    sample::{Entry, SampleLine},
};

/// What one exemplar's label names and values may have together, in characters.
const EXEMPLAR_CHARACTERS_MAX: usize = 128;

/// Checks a whole exposition; the first finding is the answer.
pub fn validate_openmetrics(body: &[u8]) -> Result<(), ParseError> {
    let mut parser = OpenMetricsParser::strict(body)?;
    let mut rules = Rules::default();
    while let Some(entry) = parser.next_entry()? {
        rules.entry(entry).map_err(|finding| match finding {
            Finding::Parse(e) => e,
            Finding::Fault(fault) => ParseError::Text { line: parser.line(), column: 1, fault },
        })?;
    }
    rules.close_family().map_err(|fault| ParseError::Text { line: parser.line(), column: 1, fault })
}

enum Finding {
    Parse(ParseError),
    Fault(TextFault),
}

impl From<TextFault> for Finding {
    fn from(fault: TextFault) -> Self {
        Self::Fault(fault)
    }
}

impl From<ParseError> for Finding {
    fn from(e: ParseError) -> Self {
        Self::Parse(e)
    }
}

#[derive(Default)]
struct Rules {
    names_taken: HashSet<String>,
    family: Option<Family>,
}

#[derive(Default)]
struct Family {
    name: String,
    metric_type: MetricType,
    metadata_seen: Vec<&'static str>,
    unit: String,
    has_samples: bool,
    groups_done: HashSet<Vec<(String, String)>>,
    group: Option<Group>,
}

#[derive(Default)]
struct Group {
    labels: Vec<(String, String)>,
    timestamp_ms: Option<i64>,
    histogram: HistogramState,
}

/// What is known of one histogram at one time.
#[derive(Default)]
struct HistogramState {
    bound: Option<f64>,
    value: f64,
    count: Option<f64>,
    has_sum: bool,
    has_negative_gauge_sum: bool,
    has_negative_buckets: bool,
}

fn suffixes(metric_type: MetricType) -> &'static [&'static str] {
    match metric_type {
        MetricType::Counter => &["_total", "_created"],
        MetricType::Histogram => &["_bucket", "_count", "_sum", "_created"],
        MetricType::GaugeHistogram => &["_bucket", "_gcount", "_gsum"],
        MetricType::Summary => &["", "_count", "_sum", "_created"],
        MetricType::Info => &["_info"],
        MetricType::Gauge | MetricType::StateSet | MetricType::Unknown => &[""],
    }
}

impl Rules {
    fn entry(&mut self, entry: Entry<'_>) -> Result<(), Finding> {
        match entry {
            Entry::Help { family, .. } => drop(self.metadata(&family, "HELP")?),
            Entry::Type { family, metric_type } => self.metadata(&family, "TYPE")?.metric_type = metric_type,
            Entry::Unit { family, unit } => self.metadata(&family, "UNIT")?.unit = unit.to_owned(),
            Entry::Comment => {}
            Entry::Sample(line) => self.sample(&line)?,
        }
        Ok(())
    }

    fn metadata(&mut self, name: &str, kind: &'static str) -> Result<&mut Family, TextFault> {
        if self.family.as_ref().is_none_or(|f| f.name != name) {
            self.open_family(name)?;
        }
        let family = self.family.get_or_insert_default();
        let metric = name.to_owned();
        if family.has_samples {
            return Err(TextFault::MetadataAfterSamples { kind, metric });
        }
        if family.metadata_seen.contains(&kind) {
            return Err(TextFault::RepeatedMetadata { kind, metric });
        }
        family.metadata_seen.push(kind);
        Ok(family)
    }

    fn open_family(&mut self, name: &str) -> Result<(), TextFault> {
        self.close_family()?;
        self.family = Some(Family { name: name.to_owned(), ..Family::default() });
        Ok(())
    }

    fn close_family(&mut self) -> Result<(), TextFault> {
        let Some(mut family) = self.family.take() else { return Ok(()) };
        family.close_group()?;
        if !family.unit.is_empty() && matches!(family.metric_type, MetricType::Info | MetricType::StateSet) {
            return Err(family.rule("this type of metric has no unit"));
        }
        let reserved = suffixes(family.metric_type).iter().map(|s| format!("{}{s}", family.name));
        let names: HashSet<String> = reserved.chain([family.name.clone()]).collect();
        if names.iter().any(|n| self.names_taken.contains(n)) {
            return Err(family.rule("its name, or that of one of its samples, is used by another family"));
        }
        self.names_taken.extend(names);
        Ok(())
    }

    fn sample(&mut self, line: &SampleLine<'_>) -> Result<(), Finding> {
        let parsed = line.labels()?;
        let of_family = |f: &Family| {
            parsed.name.strip_prefix(f.name.as_str()).is_some_and(|s| suffixes(f.metric_type).contains(&s))
        };
        if !self.family.as_ref().is_some_and(of_family) {
            self.open_family(&parsed.name)?;
        }
        let family = self.family.get_or_insert_default();
        family.has_samples = true;
        family.sample(line, &parsed)?;
        Ok(())
    }
}

impl Family {
    fn rule(&self, rule: &'static str) -> TextFault {
        TextFault::Rule { metric: self.name.clone(), rule }
    }

    fn is_histogram(&self) -> bool {
        matches!(self.metric_type, MetricType::Histogram | MetricType::GaugeHistogram)
    }

    fn sample(&mut self, line: &SampleLine<'_>, parsed: &ParsedLabels<'_>) -> Result<(), TextFault> {
        let suffix = &parsed.name[self.name.len()..];
        self.check_labels(suffix, parsed)?;
        self.check_value(suffix, line.value)?;
        self.check_exemplar(suffix, line)?;
        self.enter_group(line, parsed)?;
        if !self.is_histogram() {
            return Ok(());
        }
        let le = label(parsed, "le").and_then(parse_float).unwrap_or(f64::NAN);
        let fault = self.group.as_mut().and_then(|g| g.histogram.sample(suffix, le, line.value).err());
        fault.map_or(Ok(()), |rule| Err(self.rule(rule)))
    }

    fn check_labels(&self, suffix: &str, parsed: &ParsedLabels<'_>) -> Result<(), TextFault> {
        let number = |name| label(parsed, name).and_then(parse_float).filter(|v| !v.is_nan());
        if suffix == "_bucket" {
            let le = number("le").ok_or_else(|| self.rule("a bucket needs a label le with a number"))?;
            if le.is_infinite() && label(parsed, "le") != Some("+Inf") {
                return Err(self.rule("the label le of the last bucket is +Inf"));
            }
        }
        if self.metric_type == MetricType::Summary && suffix.is_empty() {
            let in_range = number("quantile").is_some_and(|q| (0.0..=1.0).contains(&q));
            if !in_range {
                return Err(self.rule("a quantile needs a label quantile from 0 to 1"));
            }
        }
        if self.metric_type == MetricType::StateSet && label(parsed, &self.name).is_none() {
            return Err(self.rule("a state needs a label with the metric's name"));
        }
        Ok(())
    }

    fn check_value(&self, suffix: &str, value: f64) -> Result<(), TextFault> {
        let rule = match (self.metric_type, suffix) {
            (MetricType::StateSet, _) if value != 0.0 && value != 1.0 => "a state is 0 or 1",
            (MetricType::Info, _) if value != 1.0 => "an info metric is 1",
            (MetricType::Summary, "") if value < 0.0 => "a quantile's value is not negative",
            (_, "_total" | "_sum" | "_count" | "_bucket" | "_gcount" | "_gsum") if value.is_nan() => {
                "counts and sums are not NaN"
            }
            (_, "_total" | "_sum" | "_count" | "_bucket" | "_gcount") if value < 0.0 => {
                "counts and sums are not negative"
            }
            (_, "_count" | "_bucket" | "_gcount") if value.is_finite() && value.fract() != 0.0 => {
                "counts are integers"
            }
            _ => return Ok(()),
        };
        Err(self.rule(rule))
    }

    fn check_exemplar(&self, suffix: &str, line: &SampleLine<'_>) -> Result<(), TextFault> {
        let Some(exemplar) = &line.exemplar else { return Ok(()) };
        let allowed = match self.metric_type {
            MetricType::Counter => suffix == "_total",
            MetricType::Histogram | MetricType::GaugeHistogram => suffix == "_bucket",
            _ => false,
        };
        if !allowed {
            return Err(self.rule("only buckets and totals have exemplars"));
        }
        let characters: usize =
            exemplar.labels.iter().map(|(n, v)| n.chars().count() + v.chars().count()).sum();
        if characters > EXEMPLAR_CHARACTERS_MAX {
            return Err(self.rule("an exemplar's labels have at most 128 characters"));
        }
        Ok(())
    }

    /// Moves to the metric that the sample belongs to, and checks that its lines stand together in order of time.
    fn enter_group(&mut self, line: &SampleLine<'_>, parsed: &ParsedLabels<'_>) -> Result<(), TextFault> {
        let is_info = self.metric_type == MetricType::Info;
        let own = match self.metric_type {
            MetricType::Histogram | MetricType::GaugeHistogram => "le",
            MetricType::Summary => "quantile",
            MetricType::StateSet => self.name.as_str(),
            _ => "",
        };
        let mut labels: Vec<(String, String)> = parsed
            .labels
            .iter()
            .filter(|(n, _)| n != own && !is_info)
            .map(|(n, v)| (n.clone().into_owned(), v.clone().into_owned()))
            .collect();
        labels.sort();
        if let Some(group) = &mut self.group
            && group.labels == labels
        {
            let rule = match (group.timestamp_ms, line.timestamp_ms) {
                (None, None) => return Ok(()),
                (Some(before), Some(now)) if now >= before || is_info => {
                    if now == before {
                        return Ok(());
                    }
                    group.timestamp_ms = Some(now);
                    let done = std::mem::take(&mut group.histogram);
                    return if self.is_histogram() { done.check().map_err(|r| self.rule(r)) } else { Ok(()) };
                }
                (Some(_), Some(_)) => "timestamps of a metric go back",
                _ => "a metric has samples with and without timestamps",
            };
            return Err(self.rule(rule));
        }
        self.close_group()?;
        if self.groups_done.contains(&labels) {
            return Err(self.rule("the lines of a metric do not stand together"));
        }
        self.group = Some(Group { labels, timestamp_ms: line.timestamp_ms, ..Group::default() });
        Ok(())
    }

    fn close_group(&mut self) -> Result<(), TextFault> {
        let Some(group) = self.group.take() else { return Ok(()) };
        self.groups_done.insert(group.labels);
        if self.is_histogram() { group.histogram.check().map_err(|r| self.rule(r)) } else { Ok(()) }
    }
}

impl HistogramState {
    fn sample(&mut self, suffix: &str, le: f64, value: f64) -> Result<(), &'static str> {
        match suffix {
            "_bucket" => {
                if self.bound.is_some_and(|b| le <= b) {
                    return Err("buckets are not in order of their bounds");
                }
                if self.bound.is_some() && value < self.value {
                    return Err("a bucket counts less than the one before it");
                }
                self.has_negative_buckets |= le < 0.0;
                self.bound = Some(le);
                self.value = value;
            }
            "_count" | "_gcount" => self.count = Some(value),
            "_sum" => self.has_sum = true,
            "_gsum" => {
                self.has_sum = true;
                self.has_negative_gauge_sum = value < 0.0;
            }
            _ => {}
        }
        // With negative observations a sum may fall, so it is no counter and may not be there.
        if suffix == "_sum" && self.has_negative_buckets {
            return Err("a histogram with negative buckets has no sum");
        }
        Ok(())
    }

    fn check(&self) -> Result<(), &'static str> {
        if self.bound != Some(f64::INFINITY) {
            return Err("the bucket +Inf is missing");
        }
        if self.count.is_some_and(|c| c != self.value) {
            return Err("the count is not that of the bucket +Inf");
        }
        if self.has_sum != self.count.is_some() {
            return Err("count and sum are present only together");
        }
        if self.has_negative_gauge_sum && !self.has_negative_buckets {
            return Err("a negative sum without negative buckets");
        }
        Ok(())
    }
}

fn label<'a>(parsed: &'a ParsedLabels<'_>, name: &str) -> Option<&'a str> {
    parsed.labels.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_ref())
}
