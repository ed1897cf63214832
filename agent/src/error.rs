//! What may be wrong with the agent's configuration. Errors while collecting are samples (`up`), logs and metrics instead.

use std::path::PathBuf;

use crate::relabel::RelabelError;

/// Why an agent cannot start, or a configuration cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The file of scrape configurations cannot be read.
    #[error("scrape configuration {path}: {source}")]
    ReadConfig {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A client for a scrape job cannot be made.
    #[error("job {job:?}: {reason}")]
    Client {
        /// The job.
        job: String,
        /// Why.
        reason: String,
    },
    /// There is no file that a configuration could be read from again.
    #[error("no scrape configuration file is set")]
    NoConfigFile,
    /// A configuration cannot be taken because the agent does not run.
    #[error("the agent does not run")]
    NotRunning,
}

/// Why a scrape configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It is not YAML.
    #[error("not YAML: {0}")]
    Yaml(#[from] serde_yaml_ng::Error),
    /// A key that no version of Prometheus has.
    #[error("{path}: unknown key {key:?}{}", nearest.as_ref().map(|n| format!(", did you mean {n:?}?")).unwrap_or_default())]
    UnknownKey {
        /// The mapping in which it stands.
        path: String,
        /// The key.
        key: String,
        /// The known key most like it.
        nearest: Option<String>,
    },
    /// A key of Prometheus for something that is not implemented.
    #[error("{path}: {key:?} is not supported")]
    UnsupportedKey {
        /// The mapping in which it stands.
        path: String,
        /// The key.
        key: String,
    },
    /// A key's value is of the wrong form.
    #[error("{path}: {reason}")]
    Invalid {
        /// The key, or the mapping that is wrong as a whole.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// A relabelling rule is wrong.
    #[error("{path}: {source}")]
    Relabel {
        /// The rule.
        path: String,
        /// What is wrong.
        source: RelabelError,
    },
}

impl ConfigError {
    pub(crate) fn invalid(path: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Invalid { path: path.into(), reason: reason.into() }
    }
}
