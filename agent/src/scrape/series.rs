//! The known series of one target: from the text that names a series in its answer to our labels, worked out once.

use hashbrown::HashMap;
use sextant_model::{Labels, LabelsBuilder, METRIC_NAME, SeriesId};
use xxhash_rust::xxh3::xxh3_64;

use super::{config::JobConfig, session::ScrapeError};
use crate::relabel::relabel;

/// Series that were not in this many scrapes are forgotten: a target whose series change all the time must not fill memory.
const IDLE_ROUNDS_MAX: u64 = 3;

/// What one text of a series means.
#[derive(Clone, Debug)]
pub(super) struct Known {
    /// The labels that are stored; `None` where relabelling drops the series.
    pub labels: Option<(Labels, SeriesId)>,
    /// Which metric of its family it belongs to: a hash of its labels without `le` and `quantile`.
    pub metric: u64,
    /// It is OpenMetrics' `_created`: not a series, but the start of its metric's counters.
    pub is_created: bool,
}

#[derive(Debug)]
struct Slot {
    known: Known,
    round: u64,
}

/// The cache.
#[derive(Debug, Default)]
pub(super) struct SeriesCache {
    by_text: HashMap<Box<[u8]>, Slot>,
    round: u64,
}

impl SeriesCache {
    /// Begins a scrape.
    pub fn begin(&mut self) {
        self.round += 1;
        let round = self.round;
        if round.is_multiple_of(IDLE_ROUNDS_MAX) {
            self.by_text.retain(|_, slot| round - slot.round <= IDLE_ROUNDS_MAX);
        }
    }

    /// What a text means, worked out by `resolve` the first time.
    pub fn get(
        &mut self,
        text: &[u8],
        resolve: impl FnOnce() -> Result<Known, ScrapeError>,
    ) -> Result<&Known, ScrapeError> {
        // Two look-ups on a miss, one on a hit: hits are nearly all.
        if !self.by_text.contains_key(text) {
            let slot = Slot { known: resolve()?, round: 0 };
            self.by_text.insert(text.into(), slot);
        }
        match self.by_text.get_mut(text) {
            Some(slot) => {
                slot.round = self.round;
                Ok(&slot.known)
            }
            None => unreachable!("inserted above"),
        }
    }
}

/// A hash that the series of one metric share.
pub(super) fn metric_hash<'a>(family: &str, labels: impl Iterator<Item = (&'a str, &'a str)>) -> u64 {
    let mut pairs: Vec<(&str, &str)> = labels.filter(|(n, _)| *n != "le" && *n != "quantile").collect();
    pairs.sort_unstable();
    let mut bytes = family.as_bytes().to_vec();
    for (n, v) in pairs {
        bytes.push(0xff);
        bytes.extend(n.as_bytes());
        bytes.push(0xff);
        bytes.extend(v.as_bytes());
    }
    xxh3_64(&bytes)
}

/// The labels of a scraped series: joined with the target's, relabelled, checked, with external labels.
pub(super) fn series_labels(
    job: &JobConfig,
    target: &Labels,
    external: &[(String, String)],
    name: &str,
    scraped: &[(&str, &str)],
) -> Result<Option<Labels>, ScrapeError> {
    let mut labels = LabelsBuilder::default();
    labels.set(METRIC_NAME, name);
    for (n, v) in scraped {
        labels.set(n, v);
    }
    if job.honor_labels {
        for (n, v) in target {
            // An empty label in the answer says that the series has no such label.
            if labels.get(n).is_none() && !scraped.iter().any(|(s, _)| *s == n) {
                labels.set(n, v);
            }
        }
    } else {
        move_conflicts(&mut labels, target);
    }
    if !relabel(&job.metric_relabel_configs, &mut labels) {
        return Ok(None);
    }
    let built = labels.build();
    if built.is_empty() {
        return Ok(None);
    }
    if built.metric_name().is_empty() {
        return Err(ScrapeError::NoName(built.to_string()));
    }
    check_limits(job, &built)?;
    if external.iter().all(|(n, _)| labels.get(n).is_some()) {
        return Ok(Some(built));
    }
    for (n, v) in external {
        if labels.get(n).is_none() {
            labels.set(n, v);
        }
    }
    Ok(Some(labels.build()))
}

/// The target's labels win; the answer's labels of the same name become `exported_<name>`.
fn move_conflicts(labels: &mut LabelsBuilder, target: &Labels) {
    let mut conflicts: Vec<(String, String)> = Vec::new();
    for (n, v) in target {
        if let Some(scraped) = labels.get(n) {
            conflicts.push((n.to_owned(), scraped.to_owned()));
        }
        labels.set(n, v);
    }
    // Short names first, so that the result does not depend on which label is moved before another.
    conflicts.sort_by_key(|(n, _)| n.len());
    for (n, v) in conflicts {
        let mut name = format!("exported_{n}");
        while labels.get(&name).is_some() {
            name = format!("exported_{name}");
        }
        labels.set(&name, &v);
    }
}

fn check_limits(job: &JobConfig, labels: &Labels) -> Result<(), ScrapeError> {
    let over = |value: usize, limit: u64| limit > 0 && value as u64 > limit;
    let error = |limit: &'static str, value: u64, actual: usize| ScrapeError::LabelLimit {
        limit,
        value,
        actual,
        series: labels.to_string(),
    };
    if over(labels.len(), job.label_limit) {
        return Err(error("label_limit", job.label_limit, labels.len()));
    }
    for (n, v) in labels {
        if over(n.len(), job.label_name_length_limit) {
            return Err(error("label_name_length_limit", job.label_name_length_limit, n.len()));
        }
        if over(v.len(), job.label_value_length_limit) {
            return Err(error("label_value_length_limit", job.label_value_length_limit, v.len()));
        }
    }
    Ok(())
}
