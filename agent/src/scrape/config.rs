//! `global` and `scrape_configs`, in Prometheus' own YAML.
//!
//! Every key is either taken or refused by name: a configuration that means something else than in Prometheus must not start.

use std::{collections::HashSet, path::PathBuf, time::Duration};

use serde_yaml_ng::Value;

use super::{fetch::Fetcher, negotiate::ScrapeProtocol};
use crate::{
    error::{AgentError, ConfigError},
    relabel::{NameScheme, RelabelConfig, RelabelRule},
    yaml::{Section, parse_bytes},
};

const INTERVAL: Duration = Duration::from_secs(60);
const TIMEOUT: Duration = Duration::from_secs(10);

/// Top-level keys of Prometheus that are another part's business.
const UNSUPPORTED_TOP: &[&str] = &[
    "runtime",
    "alerting",
    "rule_files",
    "scrape_config_files",
    "storage",
    "tracing",
    "remote_write",
    "remote_read",
    "otlp",
];
const UNSUPPORTED_GLOBAL: &[&str] =
    &["query_log_file", "scrape_failure_log_file", "rule_query_offset", "extra_scrape_metrics"];
const UNSUPPORTED_JOB: &[&str] = &[
    "azure_sd_configs",
    "aws_sd_configs",
    "consul_sd_configs",
    "digitalocean_sd_configs",
    "dns_sd_configs",
    "docker_sd_configs",
    "dockerswarm_sd_configs",
    "ec2_sd_configs",
    "ecs_sd_configs",
    "eureka_sd_configs",
    "file_sd_configs",
    "gce_sd_configs",
    "hetzner_sd_configs",
    "http_sd_configs",
    "ionos_sd_configs",
    "kubernetes_sd_configs",
    "kuma_sd_configs",
    "lightsail_sd_configs",
    "linode_sd_configs",
    "marathon_sd_configs",
    "msk_sd_configs",
    "nerve_sd_configs",
    "nomad_sd_configs",
    "openstack_sd_configs",
    "ovhcloud_sd_configs",
    "puppetdb_sd_configs",
    "scaleway_sd_configs",
    "serverset_sd_configs",
    "stackit_sd_configs",
    "triton_sd_configs",
    "uyuni_sd_configs",
    "vultr_sd_configs",
    "oauth2",
    "proxy_url",
    "no_proxy",
    "proxy_from_environment",
    "proxy_connect_header",
    "http_headers",
    "convert_classic_histograms_to_nhcb",
    "native_histogram_bucket_limit",
    "native_histogram_min_bucket_factor",
    "metric_name_escaping_scheme",
    "scrape_failure_log_file",
    "extra_scrape_metrics",
];
const UNSUPPORTED_TLS: &[&str] = &["server_name", "ca_ref", "cert_ref", "key_ref"];

/// All jobs.
#[derive(Clone, Debug, Default)]
pub struct ScrapeConfigs {
    /// Labels for every series that has no label of the name.
    pub external_labels: Vec<(String, String)>,
    /// Jobs, by unique name.
    pub jobs: Vec<JobConfig>,
}

/// Targets that share labels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StaticGroup {
    /// `host:port`.
    pub targets: Vec<String>,
    /// Their labels.
    pub labels: Vec<(String, String)>,
}

/// A text, or the file that holds it.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// The text.
    Text(String),
    /// Read at each scrape, because such files are rotated.
    File(PathBuf),
}

impl Secret {
    fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::File(_) => None,
        }
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(_) => f.write_str("<secret>"),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

/// How a scrape says who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Authorization {
    /// User and password.
    Basic {
        /// The user.
        username: Secret,
        /// The password.
        password: Option<Secret>,
    },
    /// `Authorization: <scheme> <credentials>`.
    Scheme {
        /// `Bearer` mostly.
        scheme: String,
        /// What follows.
        credentials: Secret,
    },
}

impl Authorization {
    /// What `Debug` hides.
    pub(super) fn secrets(&self) -> Vec<&str> {
        let found = match self {
            Self::Basic { username, password } => [Some(username), password.as_ref()],
            Self::Scheme { credentials, .. } => [Some(credentials), None],
        };
        found.into_iter().flatten().filter_map(Secret::text).collect()
    }
}

/// How an `https` target is trusted. Certificates and keys are PEM; their files are read when a configuration is applied,
/// and that is done again when they change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsConfig {
    /// Certificates to trust beside the system's.
    pub ca: Option<Secret>,
    /// Our certificate.
    pub cert: Option<Secret>,
    /// Its key.
    pub key: Option<Secret>,
    /// The oldest version of TLS that is spoken; 1.2 where absent.
    pub min_version: Option<TlsVersion>,
    /// The newest; 1.3 where absent.
    pub max_version: Option<TlsVersion>,
    /// Trust anything.
    pub insecure_skip_verify: bool,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// 1.2.
    Tls12,
    /// 1.3.
    Tls13,
}

/// One entry of `scrape_configs`, with the defaults of `global` in it. A limit of 0 is none.
#[derive(Clone, Debug)]
pub struct JobConfig {
    /// Its name, the label `job`.
    pub job_name: String,
    /// How often.
    pub scrape_interval: Duration,
    /// How long a scrape may take.
    pub scrape_timeout: Duration,
    /// The path, `/metrics`.
    pub metrics_path: String,
    /// `http` or `https`.
    pub scheme: String,
    /// Query parameters.
    pub params: Vec<(String, Vec<String>)>,
    /// Whether labels of the target win over ours.
    pub honor_labels: bool,
    /// Whether timestamps of the target are used.
    pub honor_timestamps: bool,
    /// Whether series with timestamps get staleness markers.
    pub track_timestamps_staleness: bool,
    /// Whether gzip is asked for.
    pub enable_compression: bool,
    /// Whether redirects are followed.
    pub follow_redirects: bool,
    /// Who asks.
    pub authorization: Option<Authorization>,
    /// Whom to trust.
    pub tls: TlsConfig,
    /// Formats in order of preference.
    pub scrape_protocols: Vec<ScrapeProtocol>,
    /// What an answer is that does not say.
    pub fallback_scrape_protocol: Option<ScrapeProtocol>,
    /// Whether native histograms are taken.
    pub scrape_native_histograms: bool,
    /// Whether classic series are taken of a histogram that is native too.
    pub always_scrape_classic_histograms: bool,
    /// Targets.
    pub static_configs: Vec<StaticGroup>,
    /// Rules for targets.
    pub relabel_configs: Vec<RelabelRule>,
    /// Rules for samples.
    pub metric_relabel_configs: Vec<RelabelRule>,
    /// Bytes of a body after decompression.
    pub body_size_limit: u64,
    /// Samples of a scrape after relabelling.
    pub sample_limit: u64,
    /// Labels of a series.
    pub label_limit: u64,
    /// Bytes of a label's name.
    pub label_name_length_limit: u64,
    /// Bytes of a label's value.
    pub label_value_length_limit: u64,
    /// Targets of the job.
    pub target_limit: u64,
    /// Dropped targets that are remembered for the report.
    pub keep_dropped_targets: u64,
}

/// What `global` sets for jobs that do not.
#[derive(Clone)]
struct Defaults {
    interval: Duration,
    timeout: Duration,
    protocols: Vec<ScrapeProtocol>,
    native_histograms: bool,
    classic_histograms: bool,
    names: NameScheme,
    body_size_limit: u64,
    sample_limit: u64,
    label_limit: u64,
    label_name_length_limit: u64,
    label_value_length_limit: u64,
    target_limit: u64,
    keep_dropped_targets: u64,
}

impl ScrapeConfigs {
    /// The files whose contents are part of what the jobs are: certificates and keys.
    pub(crate) fn tls_files(&self) -> Vec<PathBuf> {
        let parts = self.jobs.iter().flat_map(|job| [&job.tls.ca, &job.tls.cert, &job.tls.key]);
        let file = |part: &Secret| match part {
            Secret::File(path) => Some(path.clone()),
            Secret::Text(_) => None,
        };
        parts.flatten().filter_map(file).collect()
    }

    /// Checks what only a client can tell: that certificates and keys can be read.
    pub(crate) fn check_clients(&self) -> Result<(), AgentError> {
        self.jobs.iter().try_for_each(|job| Fetcher::new(job).map(drop))
    }

    /// Reads and checks a configuration.
    pub fn from_yaml(text: &str) -> Result<Self, ConfigError> {
        let mut top = Section::new("", serde_yaml_ng::from_str(text)?)?;
        let global = top.value("global").unwrap_or(Value::Null);
        let (defaults, external_labels) = global_section(global)?;
        let mut names = HashSet::new();
        let mut jobs = Vec::new();
        for (i, value) in top.list("scrape_configs")?.into_iter().enumerate() {
            let job = job_section(&format!("scrape_configs[{i}]"), value, &defaults)?;
            if !names.insert(job.job_name.clone()) {
                let reason = format!("found multiple scrape configs with job name {:?}", job.job_name);
                return Err(ConfigError::invalid(format!("scrape_configs[{i}].job_name"), reason));
            }
            jobs.push(job);
        }
        top.finish(UNSUPPORTED_TOP)?;
        Ok(Self { external_labels, jobs })
    }
}

fn global_section(value: Value) -> Result<(Defaults, Vec<(String, String)>), ConfigError> {
    let mut s = Section::new("global", value)?;
    let interval = s.duration("scrape_interval")?.filter(|d| !d.is_zero()).unwrap_or(INTERVAL);
    let timeout = interval_and_timeout(&mut s, interval, TIMEOUT)?;
    // How often rules run; not ours, and no reason to refuse a file that is shared with whose it is.
    s.duration("evaluation_interval")?;
    let base = Defaults {
        interval,
        timeout,
        protocols: ScrapeProtocol::DEFAULT.to_vec(),
        native_histograms: true,
        classic_histograms: false,
        names: NameScheme::Utf8,
        body_size_limit: 0,
        sample_limit: 0,
        label_limit: 0,
        label_name_length_limit: 0,
        label_value_length_limit: 0,
        target_limit: 0,
        keep_dropped_targets: 0,
    };
    let defaults = shared_keys(&mut s, &base)?;
    let external_labels = s.text_map("external_labels")?;
    s.finish(UNSUPPORTED_GLOBAL)?;
    Ok((Defaults { interval, timeout, ..defaults }, external_labels))
}

/// The timeout, which is at most the interval; a default that is longer gives way.
fn interval_and_timeout(
    s: &mut Section,
    interval: Duration,
    default: Duration,
) -> Result<Duration, ConfigError> {
    match s.duration("scrape_timeout")?.filter(|d| !d.is_zero()) {
        None => Ok(default.min(interval)),
        Some(timeout) if timeout > interval => {
            Err(ConfigError::invalid(s.path("scrape_timeout"), "scrape timeout greater than scrape interval"))
        }
        Some(timeout) => Ok(timeout),
    }
}

/// The keys that `global` and a job both have.
fn shared_keys(s: &mut Section, base: &Defaults) -> Result<Defaults, ConfigError> {
    let protocols = match s.texts("scrape_protocols")? {
        names if names.is_empty() => base.protocols.clone(),
        names => protocols(&s.path("scrape_protocols"), &names)?,
    };
    let path = s.path("metric_name_validation_scheme");
    let names = match s.text("metric_name_validation_scheme")?.as_deref() {
        None => base.names,
        Some("utf8") => NameScheme::Utf8,
        Some("legacy") => NameScheme::Legacy,
        Some(other) => {
            return Err(ConfigError::invalid(path, format!("{other:?} is neither utf8 nor legacy")));
        }
    };
    let path = s.path("body_size_limit");
    let body_size_limit = match s.text("body_size_limit")? {
        None => base.body_size_limit,
        Some(text) => parse_bytes(&text)
            .ok_or_else(|| ConfigError::invalid(path, format!("{text:?} is not a number of bytes")))?,
    };
    Ok(Defaults {
        interval: base.interval,
        timeout: base.timeout,
        protocols,
        native_histograms: s.bool("scrape_native_histograms", base.native_histograms)?,
        classic_histograms: s.bool("always_scrape_classic_histograms", base.classic_histograms)?,
        names,
        body_size_limit,
        sample_limit: s.u64("sample_limit")?.unwrap_or(base.sample_limit),
        label_limit: s.u64("label_limit")?.unwrap_or(base.label_limit),
        label_name_length_limit: s.u64("label_name_length_limit")?.unwrap_or(base.label_name_length_limit),
        label_value_length_limit: s.u64("label_value_length_limit")?.unwrap_or(base.label_value_length_limit),
        target_limit: s.u64("target_limit")?.unwrap_or(base.target_limit),
        keep_dropped_targets: s.u64("keep_dropped_targets")?.unwrap_or(base.keep_dropped_targets),
    })
}

fn protocol(path: &str, name: &str) -> Result<ScrapeProtocol, ConfigError> {
    ScrapeProtocol::from_name(name)
        .ok_or_else(|| ConfigError::invalid(path, format!("unknown scrape protocol {name:?}")))
}

fn protocols(path: &str, names: &[String]) -> Result<Vec<ScrapeProtocol>, ConfigError> {
    let mut found = Vec::new();
    for name in names {
        let p = protocol(path, name)?;
        if found.contains(&p) {
            return Err(ConfigError::invalid(path, format!("duplicated scrape protocol {name:?}")));
        }
        found.push(p);
    }
    Ok(found)
}

fn job_section(path: &str, value: Value, global: &Defaults) -> Result<JobConfig, ConfigError> {
    let mut s = Section::new(path, value)?;
    let job_name = s.text("job_name")?.unwrap_or_default();
    let interval = s.duration("scrape_interval")?.filter(|d| !d.is_zero()).unwrap_or(global.interval);
    let timeout = interval_and_timeout(&mut s, interval, global.timeout)?;
    let shared = shared_keys(&mut s, global)?;
    let scheme = s.text("scheme")?.unwrap_or_else(|| "http".into());
    if scheme != "http" && scheme != "https" {
        return Err(ConfigError::invalid(s.path("scheme"), format!("{scheme:?} is neither http nor https")));
    }
    let fallback = s.text("fallback_scrape_protocol")?;
    let fallback_path = s.path("fallback_scrape_protocol");
    let job = JobConfig {
        job_name,
        scrape_interval: interval,
        scrape_timeout: timeout,
        metrics_path: s.text("metrics_path")?.unwrap_or_else(|| "/metrics".into()),
        scheme,
        params: params(&mut s)?,
        honor_labels: s.bool("honor_labels", false)?,
        honor_timestamps: s.bool("honor_timestamps", true)?,
        track_timestamps_staleness: s.bool("track_timestamps_staleness", false)?,
        enable_compression: s.bool("enable_compression", true)?,
        follow_redirects: s.bool("follow_redirects", true)?,
        authorization: authorization(&mut s)?,
        tls: tls(&mut s)?,
        scrape_protocols: shared.protocols,
        fallback_scrape_protocol: fallback.map(|name| protocol(&fallback_path, &name)).transpose()?,
        scrape_native_histograms: shared.native_histograms,
        always_scrape_classic_histograms: shared.classic_histograms,
        static_configs: static_configs(&mut s)?,
        relabel_configs: rules(&mut s, "relabel_configs", shared.names)?,
        metric_relabel_configs: rules(&mut s, "metric_relabel_configs", shared.names)?,
        body_size_limit: shared.body_size_limit,
        sample_limit: shared.sample_limit,
        label_limit: shared.label_limit,
        label_name_length_limit: shared.label_name_length_limit,
        label_value_length_limit: shared.label_value_length_limit,
        target_limit: shared.target_limit,
        keep_dropped_targets: shared.keep_dropped_targets,
    };
    // A permission: HTTP/1.1 is spoken with or without it.
    s.bool("enable_http2", true)?;
    s.finish(UNSUPPORTED_JOB)?;
    // Only now, so that a name under a mistyped key is refused by that key.
    if job.job_name.is_empty() {
        return Err(ConfigError::invalid(path, "job_name is empty"));
    }
    Ok(job)
}

fn params(s: &mut Section) -> Result<Vec<(String, Vec<String>)>, ConfigError> {
    let path = s.path("params");
    let Some(value) = s.value("params") else { return Ok(Vec::new()) };
    serde_yaml_ng::from_value::<std::collections::BTreeMap<String, Vec<String>>>(value)
        .map(|m| m.into_iter().collect())
        .map_err(|e| ConfigError::invalid(path, e.to_string()))
}

fn rules(s: &mut Section, key: &'static str, names: NameScheme) -> Result<Vec<RelabelRule>, ConfigError> {
    let base = s.path(key);
    let items = s.list(key)?.into_iter().enumerate();
    let rule = |(i, value)| {
        let path = format!("{base}[{i}]");
        let config = RelabelConfig::from_yaml(&path, value)?;
        RelabelRule::new(config, names).map_err(|source| ConfigError::Relabel { path, source })
    };
    items.map(rule).collect()
}

fn static_configs(s: &mut Section) -> Result<Vec<StaticGroup>, ConfigError> {
    let base = s.path("static_configs");
    let mut groups = Vec::new();
    for (i, value) in s.list("static_configs")?.into_iter().enumerate() {
        let mut group = Section::new(format!("{base}[{i}]"), value)?;
        let targets = group.texts("targets")?;
        if let Some(bad) = targets.iter().find(|t| t.contains('/')) {
            return Err(ConfigError::invalid(
                group.path("targets"),
                format!("{bad:?} is not a valid hostname"),
            ));
        }
        groups.push(StaticGroup { targets, labels: group.text_map("labels")? });
        group.finish(&[])?;
    }
    Ok(groups)
}

/// A text or the file that holds it; both is an error.
fn secret(s: &mut Section, text: &'static str, file: &'static str) -> Result<Option<Secret>, ConfigError> {
    match (s.text(text)?, s.text(file)?) {
        (Some(_), Some(_)) => {
            Err(ConfigError::invalid(s.path(text), format!("at most one of {text} and {file} may be set")))
        }
        (Some(t), None) => Ok(Some(Secret::Text(t))),
        (None, Some(f)) => Ok(Some(Secret::File(f.into()))),
        (None, None) => Ok(None),
    }
}

fn authorization(s: &mut Section) -> Result<Option<Authorization>, ConfigError> {
    let mut found = Vec::new();
    if let Some(value) = s.value("basic_auth") {
        let mut basic = Section::new(s.path("basic_auth"), value)?;
        let username =
            secret(&mut basic, "username", "username_file")?.unwrap_or(Secret::Text(String::new()));
        let password = secret(&mut basic, "password", "password_file")?;
        basic.finish(&["username_ref", "password_ref"])?;
        found.push(Authorization::Basic { username, password });
    }
    if let Some(value) = s.value("authorization") {
        let mut section = Section::new(s.path("authorization"), value)?;
        let scheme = section.text("type")?.unwrap_or_else(|| "Bearer".into());
        if scheme.eq_ignore_ascii_case("basic") {
            let reason = "authorization type cannot be set to \"basic\", use \"basic_auth\" instead";
            return Err(ConfigError::invalid(section.path("type"), reason));
        }
        let path = section.path("credentials");
        let credentials = secret(&mut section, "credentials", "credentials_file")?;
        section.finish(&["credentials_ref"])?;
        let credentials = credentials.ok_or_else(|| ConfigError::invalid(path, "credentials are not set"))?;
        found.push(Authorization::Scheme { scheme, credentials });
    }
    if let Some(credentials) = secret(s, "bearer_token", "bearer_token_file")? {
        found.push(Authorization::Scheme { scheme: "Bearer".into(), credentials });
    }
    if found.len() > 1 {
        let reason = "at most one of basic_auth, authorization and bearer_token may be set";
        return Err(ConfigError::invalid(s.path("authorization"), reason));
    }
    Ok(found.pop())
}

fn tls(s: &mut Section) -> Result<TlsConfig, ConfigError> {
    let Some(value) = s.value("tls_config") else { return Ok(TlsConfig::default()) };
    let mut section = Section::new(s.path("tls_config"), value)?;
    let tls = TlsConfig {
        ca: secret(&mut section, "ca", "ca_file")?,
        cert: secret(&mut section, "cert", "cert_file")?,
        key: secret(&mut section, "key", "key_file")?,
        min_version: tls_version(&mut section, "min_version")?,
        max_version: tls_version(&mut section, "max_version")?,
        insecure_skip_verify: section.bool("insecure_skip_verify", false)?,
    };
    if tls.cert.is_some() != tls.key.is_some() {
        let path = section.path("cert_file");
        return Err(ConfigError::invalid(path, "cert_file and key_file are set together or not at all"));
    }
    if tls.min_version.zip(tls.max_version).is_some_and(|(min, max)| min > max) {
        return Err(ConfigError::invalid(section.path("max_version"), "min_version is above max_version"));
    }
    section.finish(UNSUPPORTED_TLS)?;
    Ok(tls)
}

fn tls_version(s: &mut Section, key: &'static str) -> Result<Option<TlsVersion>, ConfigError> {
    match s.text(key)?.as_deref() {
        None => Ok(None),
        Some("TLS12") => Ok(Some(TlsVersion::Tls12)),
        Some("TLS13") => Ok(Some(TlsVersion::Tls13)),
        // Prometheus has TLS10 and TLS11 too, which no library that we use speaks.
        Some(other) => {
            Err(ConfigError::invalid(s.path(key), format!("{other:?} is neither TLS12 nor TLS13")))
        }
    }
}
