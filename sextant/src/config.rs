//! Configuration: one YAML file, flags and environment variables over the same keys.
//!
//! Order: a flag wins over an environment variable, that over the file, that over the default. Unknown keys are
//! refused with the nearest known key named; every value is checked before anything starts.

mod keys;
mod reference;
mod values;

use std::collections::BTreeMap;

pub use keys::{KEYS, Key, Kind};
pub use reference::reference_markdown;
pub use values::{Listen, parse_bytes, parse_duration};

/// Where a value came from; errors name it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Source {
    Default,
    File(String),
    Env(String),
    Flag(String),
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Default => f.write_str("the default"),
            Self::File(path) => write!(f, "file {path}"),
            Self::Env(name) => write!(f, "environment variable {name}"),
            Self::Flag(name) => write!(f, "flag --{name}"),
        }
    }
}

/// All settings, checked.
#[derive(Clone, Debug)]
pub struct Config {
    values: BTreeMap<&'static str, (String, Source)>,
}

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{place}: unknown key {key:?}{}", suggestion(.nearest))]
    UnknownKey { place: String, key: String, nearest: Option<String> },
    #[error("{key}: {reason} (from {place})")]
    BadValue { key: &'static str, reason: String, place: String },
    #[error("{missing} is missing: {given} needs it (from {place})")]
    Missing { missing: &'static str, given: &'static str, place: String },
    #[error("cannot read the configuration file {path}: {reason}")]
    File { path: String, reason: String },
}

fn suggestion(nearest: &Option<String>) -> String {
    nearest.as_ref().map(|n| format!("; did you mean {n:?}?")).unwrap_or_default()
}

/// The known name nearest to a mistyped one.
fn nearest<'a>(given: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    known
        .max_by(|a, b| strsim::jaro_winkler(given, a).total_cmp(&strsim::jaro_winkler(given, b)))
        .map(str::to_owned)
}

/// Keys that need another: (given, needed).
const NEEDS: &[(&str, &str)] = &[
    ("tls.cert_file", "tls.key_file"),
    ("tls.key_file", "tls.cert_file"),
    ("tls.client_ca_file", "tls.cert_file"),
    ("tls.require_client_cert", "tls.client_ca_file"),
    ("cluster_tls.cert_file", "cluster_tls.key_file"),
    ("cluster_tls.cert_file", "cluster_tls.ca_file"),
    ("cluster_tls.key_file", "cluster_tls.cert_file"),
    ("cluster_tls.ca_file", "cluster_tls.cert_file"),
];

impl Config {
    /// Puts the sources together. `flags` are (flag name, value); `env` looks a variable up.
    pub fn load(
        file: Option<&str>,
        flags: &[(String, String)],
        env: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        let mut values: BTreeMap<&'static str, (String, Source)> =
            KEYS.iter().map(|k| (k.path, (k.default.to_owned(), Source::Default))).collect();
        if let Some(path) = file {
            let text = std::fs::read_to_string(path)
                .map_err(|e| ConfigError::File { path: path.to_owned(), reason: e.to_string() })?;
            for (key, value) in read_yaml(path, &text)? {
                values.insert(key.path, (value, Source::File(path.to_owned())));
            }
        }
        for key in KEYS {
            if let Some(value) = env(&key.env()) {
                values.insert(key.path, (value, Source::Env(key.env())));
            }
        }
        for (flag, value) in flags {
            let key = KEYS.iter().find(|k| k.flag() == *flag).ok_or_else(|| {
                let flags: Vec<String> = KEYS.iter().map(Key::flag).collect();
                ConfigError::UnknownKey {
                    place: "command line".into(),
                    key: flag.clone(),
                    nearest: nearest(flag, flags.iter().map(String::as_str)),
                }
            })?;
            values.insert(key.path, (value.clone(), Source::Flag(flag.clone())));
        }
        for key in KEYS {
            let (value, source) = &values[key.path];
            values::check(key.kind, value).map_err(|reason| ConfigError::BadValue {
                key: key.path,
                reason,
                place: source.to_string(),
            })?;
        }
        let config = Self { values };
        config.complete()?;
        Ok(config)
    }

    /// Whether no setting lacks another that it needs.
    fn complete(&self) -> Result<(), ConfigError> {
        let is_set = |key: &str| !matches!(self.text(key), "" | "false");
        for &(given, missing) in NEEDS {
            if is_set(given) && !is_set(missing) {
                let place = self.values.get(given).map_or_else(String::new, |(_, s)| s.to_string());
                return Err(ConfigError::Missing { missing, given, place });
            }
        }
        let interval = "security.reload_interval";
        if self.duration(interval).is_zero() {
            let place = self.values.get(interval).map_or_else(String::new, |(_, s)| s.to_string());
            return Err(ConfigError::BadValue { key: interval, reason: "it is not above 0".into(), place });
        }
        Ok(())
    }

    /// The text of a key.
    pub fn text(&self, path: &str) -> &str {
        self.values.get(path).map_or("", |(v, _)| v.as_str())
    }

    /// The text of a key, `None` where it is empty.
    pub fn optional(&self, path: &str) -> Option<&str> {
        Some(self.text(path)).filter(|t| !t.is_empty())
    }

    /// A key of kind [`Kind::Bool`].
    pub fn flag(&self, path: &str) -> bool {
        self.text(path) == "true"
    }

    /// A key of kind [`Kind::Integer`].
    pub fn integer(&self, path: &str) -> u64 {
        self.text(path).parse().unwrap_or_default()
    }

    /// A key of kind [`Kind::Bytes`].
    pub fn bytes(&self, path: &str) -> u64 {
        parse_bytes(self.text(path)).unwrap_or_default()
    }

    /// A key of kind [`Kind::Duration`].
    pub fn duration(&self, path: &str) -> std::time::Duration {
        parse_duration(self.text(path)).unwrap_or_default()
    }

    /// A key of kind [`Kind::Listen`].
    pub fn listen(&self, path: &str) -> Listen {
        Listen::parse(self.text(path)).unwrap_or(Listen::Off)
    }

    /// The effective settings as YAML, secrets hidden.
    pub fn to_yaml(&self) -> String {
        let mut out = String::new();
        for key in KEYS {
            out.push_str(&format!("{}: {:?}\n", key.path, self.shown(key)));
        }
        out
    }

    /// The effective settings by flag, secrets hidden.
    pub fn flags(&self) -> impl Iterator<Item = (String, String)> + '_ {
        KEYS.iter().map(|key| (key.flag(), self.shown(key).to_owned()))
    }

    fn shown(&self, key: &Key) -> &str {
        match self.text(key.path) {
            "" => "",
            _ if key.kind == Kind::Secret => "<secret>",
            text => text,
        }
    }
}

/// Flattens a YAML mapping to (key, value text); dotted keys and nested mappings may be mixed.
fn read_yaml(path: &str, text: &str) -> Result<Vec<(&'static Key, String)>, ConfigError> {
    let file_error = |reason: String| ConfigError::File { path: path.to_owned(), reason };
    let value: serde_yaml_ng::Value = serde_yaml_ng::from_str(text).map_err(|e| file_error(e.to_string()))?;
    let mut out = Vec::new();
    match value {
        serde_yaml_ng::Value::Null => {}
        serde_yaml_ng::Value::Mapping(m) => flatten(path, "", &m, &mut out)?,
        _ => return Err(file_error("the file is not a mapping of keys to values".into())),
    }
    Ok(out)
}

fn flatten(
    file: &str,
    prefix: &str,
    mapping: &serde_yaml_ng::Mapping,
    out: &mut Vec<(&'static Key, String)>,
) -> Result<(), ConfigError> {
    for (name, value) in mapping {
        let name = scalar(name).unwrap_or_default();
        let path = if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
        let known = KEYS.iter().find(|k| k.path == path);
        match (known, value) {
            (Some(key), v) => {
                let text = scalar(v).ok_or_else(|| ConfigError::BadValue {
                    key: key.path,
                    reason: "expected a single value".into(),
                    place: format!("file {file}"),
                })?;
                out.push((key, text));
            }
            (None, serde_yaml_ng::Value::Mapping(m))
                if KEYS.iter().any(|k| k.path.starts_with(&format!("{path}."))) =>
            {
                flatten(file, &path, m, out)?;
            }
            (None, _) => {
                return Err(ConfigError::UnknownKey {
                    place: format!("file {file}"),
                    nearest: nearest(&path, KEYS.iter().map(|k| k.path)),
                    key: path,
                });
            }
        }
    }
    Ok(())
}

fn scalar(value: &serde_yaml_ng::Value) -> Option<String> {
    match value {
        serde_yaml_ng::Value::Null => Some(String::new()),
        serde_yaml_ng::Value::Bool(b) => Some(b.to_string()),
        serde_yaml_ng::Value::Number(n) => Some(n.to_string()),
        serde_yaml_ng::Value::String(s) => Some(s.clone()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn yaml(text: &str) -> Result<Config, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.yaml");
        std::fs::write(&path, text).unwrap();
        Config::load(Some(path.to_str().unwrap()), &[], |_| None)
    }

    #[test]
    fn flag_wins_over_environment_over_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.yaml");
        std::fs::write(&path, "ingester:\n  shards: 2\n  flush_age: 1h\nhttp.listen: 127.0.0.1:1\n").unwrap();
        let env = |name: &str| match name {
            "SEXTANT_INGESTER_SHARDS" => Some("3".to_owned()),
            "SEXTANT_HTTP_LISTEN" => Some("127.0.0.1:2".to_owned()),
            _ => None,
        };
        let flags = [("ingester.shards".to_owned(), "4".to_owned())];
        let c = Config::load(path.to_str(), &flags, env).unwrap();
        assert_eq!(c.integer("ingester.shards"), 4);
        assert_eq!(c.text("http.listen"), "127.0.0.1:2");
        assert_eq!(c.duration("ingester.flush_age").as_secs(), 3600);
        assert_eq!(c.bytes("distributor.max_request_bytes"), 64 << 20);
    }

    #[test]
    fn unknown_keys_name_the_nearest_known_one() {
        let e = yaml("ingester:\n  flush_agee: 1h\n").unwrap_err().to_string();
        assert!(e.contains("ingester.flush_agee") && e.contains("\"ingester.flush_age\""), "{e}");
        let e = Config::load(None, &[("http.lisen".into(), "x".into())], |_| None).unwrap_err().to_string();
        assert!(e.contains("http.listen"), "{e}");
    }

    #[test]
    fn bad_values_name_key_and_place() {
        for (text, word) in [
            ("ingester.shards: many", "ingester.shards"),
            ("ingester.flush_age: 5 parsecs", "ingester.flush_age"),
            ("http.listen: nowhere", "http.listen"),
            ("multi_tenancy: maybe", "multi_tenancy"),
            ("querier.cache_bytes: 12XB", "querier.cache_bytes"),
            ("ingester.shards: [1, 2]", "ingester.shards"),
            ("- a", "mapping"),
        ] {
            let e = yaml(text).unwrap_err().to_string();
            assert!(e.contains(word), "{text}: {e}");
        }
    }

    #[test]
    fn half_a_pair_names_the_other_half() {
        for (text, missing) in [
            ("tls.cert_file: c.pem", "tls.key_file is missing"),
            ("tls.key_file: k.pem", "tls.cert_file is missing"),
            ("tls.client_ca_file: a.pem", "tls.cert_file is missing"),
            (
                "tls: {cert_file: c, key_file: k, require_client_cert: true}",
                "tls.client_ca_file is missing: tls.require_client_cert needs it (from file ",
            ),
            ("cluster_tls: {cert_file: c, key_file: k}", "cluster_tls.ca_file is missing"),
            ("cluster_tls.ca_file: a.pem", "cluster_tls.cert_file is missing"),
            ("security.reload_interval: 0s", "security.reload_interval: it is not above 0"),
        ] {
            let e = yaml(text).unwrap_err().to_string();
            assert!(e.contains(missing), "{text}: {e}");
        }
        assert!(
            yaml("tls: {cert_file: c, key_file: k, client_ca_file: a, require_client_cert: true}").is_ok()
        );
        assert!(yaml("cluster_tls: {cert_file: c, key_file: k, ca_file: a}").is_ok());
    }

    #[test]
    fn the_committed_reference_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md");
        let committed = std::fs::read_to_string(path).unwrap_or_default();
        assert_eq!(
            committed,
            reference_markdown(),
            "run `cargo xtask docs` to write docs/configuration.md anew"
        );
    }
}
