//! A decoded write of any protocol: what OTLP, remote write 2.0, the agent and tests hand to the distributor.

use sextant_model::{Exemplar, HistogramSample, Labels, MetricMetadata, Sample};

use crate::ErrorClass;

/// Whether a series' samples are running totals or increments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Hash)]
pub enum Temporality {
    /// Samples are stored as they come.
    #[default]
    Cumulative,
    /// Samples are increments; the ingester adds them up (OTLP delta sums and histograms).
    Delta,
}

/// What is written to one series.
#[derive(Clone, Debug, Default)]
pub struct SeriesWrite {
    /// The series.
    pub labels: Labels,
    /// Float samples, in any order.
    pub samples: Vec<Sample>,
    /// Native histograms, in any order.
    pub histograms: Vec<HistogramSample>,
    /// Exemplars.
    pub exemplars: Vec<Exemplar>,
    /// What the sender knows of the metric family.
    pub metadata: Option<MetricMetadata>,
    /// Running totals or increments.
    pub temporality: Temporality,
}

/// One request's series, and metadata by metric family name.
#[derive(Clone, Debug, Default)]
pub struct WriteRequest {
    /// Series; labels may occur more than once.
    pub series: Vec<SeriesWrite>,
    /// Metadata that is not tied to a series of the request.
    pub metadata: Vec<(String, MetricMetadata)>,
    /// Identifies the request's content, so that a retry is applied once; `None` computes it from the content.
    pub write_id: Option<u128>,
}

/// A series (or some of its samples) that was refused while the rest was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedSeries {
    /// The series as text, shortened where it is very long.
    pub series: String,
    /// Why, with the limit's name, value and key where it is a limit.
    pub reason: String,
    /// [`ErrorClass::BadRequest`] or [`ErrorClass::TooManyRequests`].
    pub class: ErrorClass,
}

/// What became of a write. Everything that is not refused is durable.
#[derive(Clone, Debug, Default)]
pub struct WriteSummary {
    /// Float samples stored (a repeated write counts as stored).
    pub samples: u64,
    /// Histograms stored.
    pub histograms: u64,
    /// Exemplars stored.
    pub exemplars: u64,
    /// What was refused; at most the first hundred, see `refused_samples` for the number.
    pub refused: Vec<RefusedSeries>,
    /// How many samples, histograms and exemplars were refused.
    pub refused_samples: u64,
}

/// Why a write as a whole failed. Nothing of it is acknowledged; parts may be durable, and repeating it is safe.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{reason}")]
pub struct WriteError {
    /// What the sender must do.
    pub class: ErrorClass,
    /// The reason, with the limit's name, value and key where it is a limit.
    pub reason: String,
    /// When to repeat it, for classes that may be repeated.
    pub retry_after_s: Option<u32>,
}

impl WriteError {
    /// An error of a class.
    pub fn new(class: ErrorClass, reason: impl Into<String>) -> Self {
        let retry_after_s = match class {
            ErrorClass::TooManyRequests | ErrorClass::Unavailable => Some(1),
            _ => None,
        };
        Self { class, reason: reason.into(), retry_after_s }
    }
}
