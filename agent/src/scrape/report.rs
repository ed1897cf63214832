//! What is known of targets, in the form of Prometheus' `GET /api/v1/targets` and `GET /api/v1/targets/metadata`.

use std::{borrow::Cow, collections::BTreeMap};

use serde::{Serialize, Serializer, ser::SerializeMap};
use sextant_model::{Labels, MetricMetadata};

/// Whether the last scrape of a target succeeded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// It has not been scraped yet.
    #[default]
    Unknown,
    /// It succeeded.
    Up,
    /// It failed.
    Down,
}

/// A target that is scraped.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TargetState {
    /// Labels before relabelling.
    #[serde(serialize_with = "labels")]
    pub discovered_labels: Labels,
    /// Labels of its series.
    #[serde(serialize_with = "labels")]
    pub labels: Labels,
    /// Its job.
    pub scrape_pool: String,
    /// Where it is.
    pub scrape_url: String,
    /// The same as others see it: the host's name in place of `localhost`.
    pub global_url: String,
    /// Why the last scrape failed; empty where it did not.
    pub last_error: String,
    /// When it was scraped last, milliseconds; 0 for never.
    #[serde(serialize_with = "rfc3339")]
    pub last_scrape: i64,
    /// How long that took, seconds.
    pub last_scrape_duration: f64,
    /// Whether it succeeded.
    pub health: Health,
    /// How often it is scraped.
    pub scrape_interval: String,
    /// How long a scrape may take.
    pub scrape_timeout: String,
}

impl TargetState {
    /// Keeps what the last scrape gave where a target goes on under a changed job.
    pub(super) fn take_last_scrape(&mut self, before: Self) {
        self.last_error = before.last_error;
        self.last_scrape = before.last_scrape;
        self.last_scrape_duration = before.last_scrape_duration;
        self.health = before.health;
    }
}

/// A target that relabelling dropped.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DroppedTarget {
    /// Labels before relabelling.
    #[serde(serialize_with = "labels")]
    pub discovered_labels: Labels,
    /// Its job.
    pub scrape_pool: String,
}

/// All targets.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TargetReport {
    /// Those that are scraped, in order of job and URL.
    pub active_targets: Vec<TargetState>,
    /// Those that relabelling dropped, as many as jobs keep.
    pub dropped_targets: Vec<DroppedTarget>,
    /// How many were dropped, by job; every job is named. `None` where dropped targets were not asked for.
    pub dropped_target_counts: Option<BTreeMap<String, u64>>,
}

/// Which targets are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetStates {
    /// All.
    Any,
    /// Those that are scraped.
    Active,
    /// Those that relabelling dropped.
    Dropped,
    /// None: a state that does not exist was asked for.
    None,
}

impl TargetStates {
    /// The meaning of the parameter `state`, in any case; empty is all.
    pub fn from_parameter(state: &str) -> Self {
        match state.to_ascii_lowercase().as_str() {
            "" | "any" => Self::Any,
            "active" => Self::Active,
            "dropped" => Self::Dropped,
            _ => Self::None,
        }
    }
}

impl TargetReport {
    /// Leaves what is asked for: targets in these states, of one job where it is named. Counts are of all jobs.
    pub fn only(mut self, states: TargetStates, scrape_pool: Option<&str>) -> Self {
        let is_asked = |pool: &str| scrape_pool.is_none_or(|p| p == pool);
        if !matches!(states, TargetStates::Any | TargetStates::Active) {
            self.active_targets.clear();
        }
        if !matches!(states, TargetStates::Any | TargetStates::Dropped) {
            self.dropped_targets.clear();
            self.dropped_target_counts = None;
        }
        self.active_targets.retain(|t| is_asked(&t.scrape_pool));
        self.dropped_targets.retain(|t| is_asked(&t.scrape_pool));
        self
    }
}

/// What a target says of one of its metrics.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TargetMetadata {
    /// The target's labels.
    #[serde(serialize_with = "labels")]
    pub target: Labels,
    /// The metric; absent where one metric was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metric: Option<String>,
    /// The metric's type.
    #[serde(rename = "type")]
    pub metric_type: Cow<'static, str>,
    /// Its help text.
    pub help: String,
    /// Its unit.
    pub unit: String,
}

impl TargetMetadata {
    pub(super) fn new(target: Labels, metric: Option<String>, metadata: &MetricMetadata) -> Self {
        let metric_type = metadata.metric_type.as_str().into();
        Self { target, metric, metric_type, help: metadata.help.clone(), unit: metadata.unit.clone() }
    }
}

pub(super) fn labels<S: Serializer>(labels: &Labels, s: S) -> Result<S::Ok, S::Error> {
    let mut map = s.serialize_map(None)?;
    for (n, v) in labels {
        map.serialize_entry(n, v)?;
    }
    map.end()
}

fn rfc3339<S: Serializer>(t_ms: &i64, s: S) -> Result<S::Ok, S::Error> {
    match t_ms {
        // Go's zero time, which Prometheus shows for a target that was never scraped.
        0 => s.serialize_str("0001-01-01T00:00:00Z"),
        t => s.serialize_str(&format_rfc3339(*t)),
    }
}

/// A time in UTC. Days to a civil date after Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms".
fn format_rfc3339(t_ms: i64) -> String {
    let (days, ms) = (t_ms.div_euclid(86_400_000), t_ms.rem_euclid(86_400_000));
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (h, m, s) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60);
    format!("{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}.{:03}Z", ms % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        assert_eq!(format_rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(format_rfc3339(1_709_210_096_789), "2024-02-29T12:34:56.789Z");
        assert_eq!(format_rfc3339(-1), "1969-12-31T23:59:59.999Z");
    }
}
