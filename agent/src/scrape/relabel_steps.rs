//! What each rule of a job's `relabel_configs` makes of given labels: Prometheus' `GET /api/v1/targets/relabel_steps`.

use std::collections::BTreeMap;

use serde::Serialize;
use sextant_model::{Labels, LabelsBuilder};

use super::{config::JobConfig, report::labels};
use crate::relabel::RelabelRule;

/// All rules of a job.
#[derive(Clone, Debug, Serialize)]
pub struct RelabelSteps {
    /// In order. After a rule that drops the labels every step drops them.
    pub steps: Vec<RelabelStep>,
}

/// One rule.
#[derive(Clone, Debug, Serialize)]
pub struct RelabelStep {
    /// The rule.
    pub rule: RelabelRule,
    /// The labels after it; empty where they are dropped.
    #[serde(serialize_with = "labels")]
    pub output: Labels,
    /// Whether the labels are kept.
    pub keep: bool,
}

/// Why there are no steps; each is a bad request.
#[derive(Debug, thiserror::Error)]
pub enum RelabelStepsError {
    /// No job is named.
    #[error("no scrapePool parameter provided")]
    NoPool,
    /// There are no labels.
    #[error("no labels parameter provided")]
    NoLabels,
    /// The labels are not a JSON object of texts.
    #[error("error parsing labels: {0}")]
    Labels(serde_json::Error),
    /// There is no such job.
    #[error("error retrieving scrape config: scrape pool {0:?} not found")]
    UnknownPool(String),
}

impl RelabelSteps {
    /// Applies the rules of a job to labels, which are a JSON object of texts.
    pub(crate) fn new(job: &JobConfig, labels: &str) -> Result<Self, RelabelStepsError> {
        let pairs: BTreeMap<String, String> =
            serde_json::from_str(labels).map_err(RelabelStepsError::Labels)?;
        let mut labels = LabelsBuilder::default();
        for (n, v) in &pairs {
            labels.set(n, v);
        }
        let mut keep = true;
        let step = |rule: &RelabelRule| {
            keep = keep && rule.apply(&mut labels);
            let output = if keep { labels.build() } else { Labels::empty() };
            RelabelStep { rule: rule.clone(), output, keep }
        };
        Ok(Self { steps: job.relabel_configs.iter().map(step).collect() })
    }
}
