//! What every collector of host metrics shares: where files are, how a value is handed over, how it fails.
//!
//! A collector reads files and system calls that describe this host, and must never write any.

use std::{
    borrow::Cow,
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
};

use sextant_model::MetricType;

/// Where the host's files are: in a container the host's `/proc`, `/sys` and `/` are mounted elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPaths {
    /// The host's `/proc`.
    pub proc: PathBuf,
    /// The host's `/sys`.
    pub sys: PathBuf,
    /// The host's `/`.
    pub rootfs: PathBuf,
}

impl Default for HostPaths {
    fn default() -> Self {
        Self { proc: "/proc".into(), sys: "/sys".into(), rootfs: "/".into() }
    }
}

/// Why a collector gave nothing, or not all.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// The kernel was built without it or the host has no such device; nothing is wrong.
    #[error("not available on this host: {0}")]
    Unavailable(PathBuf),
    /// The process may not make the system call; nothing is wrong.
    #[error("{0} is not permitted to this process")]
    Forbidden(&'static str),
    /// A file that exists cannot be read.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is not in the form that the kernel documents.
    #[error("{path}: {what}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What was found or expected.
        what: String,
    },
    /// A system call failed.
    #[error("{call}: {source}")]
    System {
        /// The call.
        call: &'static str,
        /// Why.
        source: io::Error,
    },
}

impl CollectError {
    pub(super) fn malformed(path: &Path, what: impl Into<String>) -> Self {
        Self::Malformed { path: path.to_owned(), what: what.into() }
    }

    fn of_read(path: &Path, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::NotFound => Self::Unavailable(path.to_owned()),
            _ => Self::Io { path: path.to_owned(), source },
        }
    }
}

/// One source of host metrics under the name that node_exporter gives it.
pub trait Collector: Send {
    /// The value of the label `collector`.
    fn name(&self) -> &'static str;

    /// Reads the host and hands samples over. What was handed over before an error stays.
    fn collect(&mut self, paths: &HostPaths, out: &mut Gather) -> Result<(), CollectError>;
}

/// A sample of a host metric.
#[derive(Clone, Debug, PartialEq)]
pub struct HostSample {
    /// Labels beside the name, `job` and `instance`.
    pub labels: Vec<(&'static str, String)>,
    /// The value.
    pub value: f64,
}

/// A host metric with its samples.
#[derive(Clone, Debug, PartialEq)]
pub struct HostFamily {
    /// The metric's name.
    pub name: Cow<'static, str>,
    /// The help text.
    pub help: Cow<'static, str>,
    /// The type.
    pub metric_type: MetricType,
    /// The samples.
    pub samples: Vec<HostSample>,
}

/// Takes samples from collectors and keeps them by family.
#[derive(Debug, Default)]
pub struct Gather {
    families: Vec<HostFamily>,
    by_name: HashMap<Cow<'static, str>, usize>,
}

impl Gather {
    /// Adds a sample of a gauge.
    pub fn gauge(
        &mut self,
        name: impl Into<Cow<'static, str>>,
        help: impl Into<Cow<'static, str>>,
        labels: &[(&'static str, &str)],
        value: f64,
    ) {
        self.add(MetricType::Gauge, name, help, labels, value);
    }

    /// Adds a sample of a counter.
    pub fn counter(
        &mut self,
        name: impl Into<Cow<'static, str>>,
        help: impl Into<Cow<'static, str>>,
        labels: &[(&'static str, &str)],
        value: f64,
    ) {
        self.add(MetricType::Counter, name, help, labels, value);
    }

    /// Adds a sample; type and help count where the family is new.
    pub fn add(
        &mut self,
        metric_type: MetricType,
        name: impl Into<Cow<'static, str>>,
        help: impl Into<Cow<'static, str>>,
        labels: &[(&'static str, &str)],
        value: f64,
    ) {
        let name = name.into();
        let at = *self.by_name.entry(name.clone()).or_insert_with(|| {
            self.families.push(HostFamily { name, help: help.into(), metric_type, samples: Vec::new() });
            self.families.len() - 1
        });
        let labels = labels.iter().map(|(n, v)| (*n, (*v).to_owned())).collect();
        self.families[at].samples.push(HostSample { labels, value });
    }

    /// The families in the order in which they came.
    pub fn into_families(self) -> Vec<HostFamily> {
        self.families
    }

    /// The families in the order in which they came.
    pub fn families(&self) -> &[HostFamily] {
        &self.families
    }
}

/// Reads a whole file as text.
pub(super) fn read(path: &Path) -> Result<String, CollectError> {
    let bytes = fs::read(path).map_err(|e| CollectError::of_read(path, e))?;
    Ok(String::from_utf8(bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned()))
}

/// Reads a file that may be absent or unreadable by design of the kernel (`EINVAL` of many attributes in sysfs).
pub(super) fn read_optional(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok().map(|t| t.trim().to_owned())
}

/// The names in a directory, sorted.
pub(super) fn list(path: &Path) -> Result<Vec<String>, CollectError> {
    let entries = fs::read_dir(path).map_err(|e| CollectError::of_read(path, e))?;
    let mut names: Vec<String> =
        entries.filter_map(Result::ok).filter_map(|e| e.file_name().into_string().ok()).collect();
    names.sort();
    Ok(names)
}

/// A decimal number, or an error that names the file.
pub(super) fn number(path: &Path, text: &str) -> Result<f64, CollectError> {
    text.parse().map_err(|_| CollectError::malformed(path, format!("{text:?} is not a number")))
}

/// A field of a line by its index, or an error that names the file.
pub(super) fn field<'a>(path: &Path, fields: &[&'a str], index: usize) -> Result<&'a str, CollectError> {
    fields.get(index).copied().ok_or_else(|| {
        CollectError::malformed(
            path,
            format!("{} fields where at least {} are expected", fields.len(), index + 1),
        )
    })
}
