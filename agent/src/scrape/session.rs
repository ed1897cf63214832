//! What a target's answers become: samples, markers for series that are gone, and the samples about the scrape itself.
//!
//! State of one target over its scrapes; no I/O. Either all of an answer becomes samples or nothing of it does.

use std::{
    borrow::Cow,
    sync::{Arc, Mutex, PoisonError},
};

use hashbrown::HashMap;
use sextant_model::{
    Histogram, HistogramSample, Labels, METRIC_NAME, MetricMetadata, MetricType, NO_START, Sample, SeriesId,
};
use sextant_proto::{SeriesWrite, WriteRequest, metric_family};

use super::{
    negotiate::BodyFormat,
    series::{Known, SeriesCache, metric_hash, series_labels},
    target::Target,
    values::{exemplar, family_exemplar, metric_type, normal_boundary, normal_nan},
};
use crate::{
    active::{ActiveSeries, Touch, float_write},
    exposition::{
        ClassicSample, Entry, FamilyReader, OpenMetricsParser, ParseError, SampleLine, TextParser,
        classic_samples, label_pairs, native_histogram,
    },
};

/// A target's clock may be this much ahead; a sample from further ahead would block the series for all that follow.
const AHEAD_MS_MAX: i64 = 10 * 60 * 1000;

/// Metadata that did not change is sent again after this many scrapes, for a backend that lost or dropped it.
const METADATA_ROUNDS: u64 = 40;

/// Why an answer became no samples.
#[derive(Debug, thiserror::Error)]
pub enum ScrapeError {
    /// It cannot be parsed.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// It has too many samples.
    #[error("sample limit exceeded (sample_limit {0})")]
    SampleLimit(u64),
    /// A series breaks a limit on labels.
    #[error("{limit} {value} exceeded: {actual} in {series}")]
    LabelLimit {
        /// The setting.
        limit: &'static str,
        /// Its value.
        value: u64,
        /// What the series has.
        actual: usize,
        /// The series.
        series: String,
    },
    /// Relabelling removed the name of a series.
    #[error("missing metric name (__name__ label) in {0}")]
    NoName(String),
    /// A native histogram that is not well-formed.
    #[error("metric {metric:?}: {reason}")]
    Histogram {
        /// The metric.
        metric: String,
        /// What is wrong.
        reason: &'static str,
    },
}

/// What the samples about a scrape say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScrapeCounts {
    /// Samples of the answer.
    pub scraped: u64,
    /// Samples left after relabelling.
    pub post_relabel: u64,
    /// Series that were not in the scrape before.
    pub added: u64,
}

/// Types, help texts and units of a target's metrics by name, each with the scrape in which it was sent last.
pub(crate) type SharedMetadata = Arc<Mutex<HashMap<String, (MetricMetadata, u64)>>>;

/// A target's state over its scrapes.
pub struct Session {
    target: Arc<Target>,
    external: Arc<[(String, String)]>,
    cache: SeriesCache,
    active: ActiveSeries,
    metadata: SharedMetadata,
    report_labels: [Labels; 5],
    round: u64,
}

const REPORT_METRICS: [&str; 5] = [
    "up",
    "scrape_duration_seconds",
    "scrape_samples_scraped",
    "scrape_samples_post_metric_relabeling",
    "scrape_series_added",
];

/// The family whose samples are read, with what arrives in any order.
#[derive(Default)]
struct FamilyState {
    name: String,
    metric_type: MetricType,
    /// Where its samples begin in the batch.
    first: usize,
    /// Start timestamps by metric.
    created: Vec<(u64, i64)>,
}

/// One answer while it is read.
struct Batch<'a> {
    session: &'a mut Session,
    t: i64,
    series: Vec<SeriesWrite>,
    /// Parallel to `series`.
    metrics: Vec<u64>,
    counts: ScrapeCounts,
    family: FamilyState,
    changed: HashMap<String, MetricMetadata>,
    key: Vec<u8>,
}

impl Session {
    /// A target that has not been scraped yet.
    pub fn new(target: Arc<Target>, external: Arc<[(String, String)]>) -> Self {
        let report_labels = REPORT_METRICS.map(|name| {
            let mut labels = target.labels.to_builder();
            labels.set(METRIC_NAME, name);
            for (n, v) in external.iter() {
                if labels.get(n).is_none() {
                    labels.set(n, v);
                }
            }
            labels.build()
        });
        let (cache, active) = (SeriesCache::default(), ActiveSeries::default());
        Self { target, external, cache, active, metadata: Arc::default(), report_labels, round: 0 }
    }

    /// What is known of the metrics of the target, for reports.
    pub(crate) fn metadata(&self) -> SharedMetadata {
        Arc::clone(&self.metadata)
    }

    /// Reads an answer. What comes back holds the samples, or, with an error, markers for all series of before.
    pub fn ingest(
        &mut self,
        body: &[u8],
        format: BodyFormat,
        t: i64,
    ) -> (WriteRequest, ScrapeCounts, Result<(), ScrapeError>) {
        self.round += 1;
        self.cache.begin();
        self.active.begin();
        let mut batch = Batch {
            session: self,
            t,
            series: Vec::new(),
            metrics: Vec::new(),
            counts: ScrapeCounts::default(),
            family: FamilyState::default(),
            changed: HashMap::new(),
            key: Vec::new(),
        };
        let result = match format {
            BodyFormat::Text => batch.text(body),
            BodyFormat::OpenMetrics => batch.openmetrics(body),
            BodyFormat::Protobuf => batch.protobuf(body),
        };
        let result = result.and_then(|()| batch.check_sample_limit());
        let Batch { mut series, counts, changed, .. } = batch;
        let mut request = WriteRequest::default();
        match result {
            Ok(()) => {
                self.active.finish(t, &mut series);
                request.series = series;
                request.metadata = self.note_metadata(changed);
                (request, counts, Ok(()))
            }
            Err(e) => {
                self.active.abort(t, &mut request.series);
                (request, counts, Err(e))
            }
        }
    }

    /// The target did not answer: every series is gone.
    pub fn fail(&mut self, t: i64) -> WriteRequest {
        let mut request = WriteRequest::default();
        self.active.begin();
        self.active.abort(t, &mut request.series);
        request
    }

    /// The samples about a scrape.
    pub fn report(&self, t: i64, up: bool, seconds: f64, counts: ScrapeCounts, out: &mut WriteRequest) {
        let values = [
            f64::from(u8::from(up)),
            seconds,
            counts.scraped as f64,
            counts.post_relabel as f64,
            counts.added as f64,
        ];
        out.series.extend(self.report_labels.iter().zip(values).map(|(l, v)| float_write(l.clone(), t, v)));
    }

    /// The target is not scraped any more: markers for its series and for those about its scrapes.
    pub fn end(&mut self, t: i64) -> WriteRequest {
        let mut request = WriteRequest::default();
        self.active.end(t, &mut request.series);
        let stale = sextant_model::stale_nan();
        request.series.extend(self.report_labels.iter().map(|l| float_write(l.clone(), t, stale)));
        request
    }

    fn note_metadata(&mut self, changed: HashMap<String, MetricMetadata>) -> Vec<(String, MetricMetadata)> {
        let mut send = Vec::new();
        let mut known = self.metadata.lock().unwrap_or_else(PoisonError::into_inner);
        if self.round.is_multiple_of(METADATA_ROUNDS) {
            // What is still there was sent again within one period.
            known.retain(|_, (_, round)| self.round <= *round + 2 * METADATA_ROUNDS);
        }
        for (name, metadata) in changed {
            let due = match known.get(&name) {
                Some((known, round)) => *known != metadata || self.round >= round + METADATA_ROUNDS,
                None => true,
            };
            if due {
                send.push((name.clone(), metadata.clone()));
                known.insert(name, (metadata, self.round));
            }
        }
        send
    }
}

impl Batch<'_> {
    fn text(&mut self, body: &[u8]) -> Result<(), ScrapeError> {
        let mut parser = TextParser::new(body)?;
        while let Some(entry) = parser.next_entry()? {
            self.entry(entry, false)?;
        }
        Ok(())
    }

    fn openmetrics(&mut self, body: &[u8]) -> Result<(), ScrapeError> {
        let mut parser = OpenMetricsParser::new(body)?;
        while let Some(entry) = parser.next_entry()? {
            self.entry(entry, true)?;
        }
        self.settle_family();
        Ok(())
    }

    fn entry(&mut self, entry: Entry<'_>, is_openmetrics: bool) -> Result<(), ScrapeError> {
        match entry {
            Entry::Comment => {}
            Entry::Sample(line) => self.line(&line, is_openmetrics)?,
            Entry::Help { family, text } => text.as_ref().clone_into(&mut self.metadata(&family).help),
            Entry::Unit { family, unit } => unit.clone_into(&mut self.metadata(&family).unit),
            Entry::Type { family, metric_type } => {
                self.metadata(&family).metric_type = metric_type;
                self.family.metric_type = metric_type;
            }
        }
        Ok(())
    }

    /// The metadata of a family, which becomes the current one.
    fn metadata(&mut self, name: &str) -> &mut MetricMetadata {
        if self.family.name != name {
            self.settle_family();
            self.family =
                FamilyState { name: name.to_owned(), first: self.series.len(), ..FamilyState::default() };
        }
        self.changed.entry_ref(name).or_default()
    }

    /// Gives the samples of the family that ends the start timestamps that came after them.
    fn settle_family(&mut self) {
        if self.family.created.is_empty() {
            return;
        }
        let created: HashMap<u64, i64> = self.family.created.drain(..).collect();
        for (write, metric) in self.series.iter_mut().zip(&self.metrics).skip(self.family.first) {
            if let Some(start) = created.get(metric) {
                write.samples.iter_mut().for_each(|s| s.start = *start);
                write.histograms.iter_mut().for_each(|h| h.start = *start);
            }
        }
    }

    fn line(&mut self, line: &SampleLine<'_>, is_openmetrics: bool) -> Result<(), ScrapeError> {
        let Session { target, external, cache, .. } = &mut *self.session;
        let family = &self.family;
        let known = cache.get(line.series.as_bytes(), || {
            let parsed = line.labels()?;
            let has_parts = matches!(
                family.metric_type,
                MetricType::Counter | MetricType::Histogram | MetricType::Summary
            );
            let is_created = is_openmetrics
                && has_parts
                && parsed.name.strip_suffix("_created").is_some_and(|base| base == family.name);
            let boundary = match family.metric_type {
                MetricType::Histogram | MetricType::GaugeHistogram => "le",
                MetricType::Summary => "quantile",
                _ => "",
            };
            let labels: Vec<(&str, Cow<'_, str>)> = parsed
                .labels
                .iter()
                .map(|(n, v)| {
                    (n.as_ref(), if n == boundary { normal_boundary(v) } else { Cow::Borrowed(v.as_ref()) })
                })
                .collect();
            let pairs: Vec<(&str, &str)> = labels.iter().map(|(n, v)| (*n, v.as_ref())).collect();
            resolve(target, external, &family.name, &parsed.name, &pairs, is_created)
        })?;
        if known.is_created {
            self.family.created.push((known.metric, (line.value * 1000.0).round() as i64));
            return Ok(());
        }
        let (labels, metric) = (known.labels.clone(), known.metric);
        let at = self.place(labels, metric, line.timestamp_ms, false);
        if let Some((i, t)) = at {
            let write = &mut self.series[i];
            write.samples.push(Sample { t, v: line.value, start: NO_START });
            write.exemplars.extend(line.exemplar.as_ref().and_then(|e| exemplar(e, t)));
        }
        Ok(())
    }

    /// Where a sample goes and its time; `None` where it is not stored. Counts it either way.
    fn place(
        &mut self,
        labels: Option<(Labels, SeriesId)>,
        metric: u64,
        timestamp_ms: Option<i64>,
        is_histogram: bool,
    ) -> Option<(usize, i64)> {
        self.counts.scraped += 1;
        let (labels, id) = labels?;
        self.counts.post_relabel += 1;
        let job = &self.session.target.job;
        let own_time = timestamp_ms.filter(|_| job.honor_timestamps);
        let t = own_time.unwrap_or(self.t);
        if t > self.t.saturating_add(AHEAD_MS_MAX) {
            return None;
        }
        if own_time.is_none() || job.track_timestamps_staleness {
            match self.session.active.touch(id, &labels, is_histogram) {
                Touch::New => self.counts.added += 1,
                Touch::Known => {}
                // Two samples of one series at one time: the first counts.
                Touch::Repeated if own_time.is_none() => return None,
                Touch::Repeated => {}
            }
        }
        self.series.push(SeriesWrite { labels, ..SeriesWrite::default() });
        self.metrics.push(metric);
        Some((self.series.len() - 1, t))
    }

    fn protobuf(&mut self, body: &[u8]) -> Result<(), ScrapeError> {
        for family in FamilyReader::new(body) {
            let family = family?;
            let metadata = self.metadata(family.name());
            family.help().clone_into(&mut metadata.help);
            family.unit().clone_into(&mut metadata.unit);
            metadata.metric_type = metric_type(family.r#type());
            for metric in &family.metric {
                self.metric(&family, metric)?;
            }
        }
        Ok(())
    }

    fn metric(
        &mut self,
        family: &metric_family::MetricFamily,
        metric: &metric_family::Metric,
    ) -> Result<(), ScrapeError> {
        let job = Arc::clone(&self.session.target.job);
        let is_gauge = family.r#type() == metric_family::FamilyType::GaugeHistogram;
        if let Some(h) = metric.histogram.as_ref().filter(|_| job.scrape_native_histograms) {
            let native = native_histogram(h, is_gauge)
                .map_err(|reason| ScrapeError::Histogram { metric: family.name().to_owned(), reason })?;
            if let Some(native) = native {
                self.native(family, metric, h, native)?;
                if !job.always_scrape_classic_histograms || h.bucket.is_empty() {
                    return Ok(());
                }
            }
        }
        let mut result = Ok(());
        classic_samples(family, metric, &mut |sample| {
            if result.is_ok() {
                result = self.classic(family, metric, sample);
            }
        });
        result
    }

    fn known(
        &mut self,
        family: &metric_family::MetricFamily,
        metric: &metric_family::Metric,
        suffix: &str,
        boundary: Option<(&str, String)>,
    ) -> Result<Known, ScrapeError> {
        self.key.clear();
        let boundary = boundary.as_ref().map(|(n, v)| (*n, v.as_str()));
        for part in [family.name(), suffix] {
            self.key.extend(part.as_bytes());
            self.key.push(0xff);
        }
        for (n, v) in label_pairs(&metric.label).chain(boundary) {
            for part in [n, v] {
                self.key.extend(part.as_bytes());
                self.key.push(0xff);
            }
        }
        let Session { target, external, cache, .. } = &mut *self.session;
        let known = cache.get(&self.key, || {
            let pairs: Vec<(&str, &str)> = label_pairs(&metric.label).chain(boundary).collect();
            resolve(target, external, family.name(), &format!("{}{suffix}", family.name()), &pairs, false)
        })?;
        Ok(known.clone())
    }

    fn classic(
        &mut self,
        family: &metric_family::MetricFamily,
        metric: &metric_family::Metric,
        sample: ClassicSample<'_>,
    ) -> Result<(), ScrapeError> {
        let known = self.known(family, metric, sample.suffix, sample.boundary_label())?;
        if let Some((i, t)) = self.place(known.labels, known.metric, metric.timestamp_ms, false) {
            let start = sample.created.map_or(NO_START, |c| c.as_ms());
            self.series[i].samples.push(Sample { t, v: normal_nan(sample.value), start });
            self.series[i].exemplars.extend(sample.exemplar.and_then(|e| family_exemplar(e, t)));
        }
        Ok(())
    }

    fn native(
        &mut self,
        family: &metric_family::MetricFamily,
        metric: &metric_family::Metric,
        h: &metric_family::Histogram,
        native: Histogram,
    ) -> Result<(), ScrapeError> {
        let known = self.known(family, metric, "", None)?;
        if let Some((i, t)) = self.place(known.labels, known.metric, metric.timestamp_ms, true) {
            let start = h.created_timestamp.map_or(NO_START, |c| c.as_ms());
            self.series[i].histograms.push(HistogramSample { t, start, h: native });
            let own = h.exemplars.iter();
            let of_buckets =
                h.bucket.iter().filter(|_| h.exemplars.is_empty()).filter_map(|b| b.exemplar.as_ref());
            self.series[i].exemplars.extend(own.chain(of_buckets).filter_map(|e| family_exemplar(e, t)));
        }
        Ok(())
    }

    fn check_sample_limit(&self) -> Result<(), ScrapeError> {
        let limit = self.session.target.job.sample_limit;
        if limit > 0 && self.counts.post_relabel > limit {
            return Err(ScrapeError::SampleLimit(limit));
        }
        Ok(())
    }
}

fn resolve(
    target: &Target,
    external: &[(String, String)],
    family: &str,
    name: &str,
    labels: &[(&str, &str)],
    is_created: bool,
) -> Result<Known, ScrapeError> {
    let stored =
        if is_created { None } else { series_labels(&target.job, &target.labels, external, name, labels)? };
    let labels_and_id = stored.map(|l| {
        let id = l.series_id();
        (l, id)
    });
    Ok(Known { labels: labels_and_id, metric: metric_hash(family, labels.iter().copied()), is_created })
}
