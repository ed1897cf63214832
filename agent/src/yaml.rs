//! Reading configuration in Prometheus' YAML: every key is asked for, and what is left over is refused by name.

use std::time::Duration;

use serde_yaml_ng::{Mapping, Value};

use crate::error::ConfigError;

/// How unlike a key may be to be suggested for another.
const SUGGESTION_DISTANCE_MAX: usize = 4;

/// One mapping, whose keys are taken out one by one.
pub(crate) struct Section {
    path: String,
    map: Mapping,
    asked: Vec<&'static str>,
}

impl Section {
    /// A mapping; nothing (`key:` without a value) is an empty one.
    pub(crate) fn new(path: impl Into<String>, value: Value) -> Result<Self, ConfigError> {
        let path = path.into();
        match value {
            Value::Mapping(map) => Ok(Self { path, map, asked: Vec::new() }),
            Value::Null => Ok(Self { path, map: Mapping::new(), asked: Vec::new() }),
            _ => Err(ConfigError::invalid(path, "a mapping is expected")),
        }
    }

    pub(crate) fn path(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Takes a key's value; `null` counts as absent.
    pub(crate) fn value(&mut self, key: &'static str) -> Option<Value> {
        self.asked.push(key);
        self.map.remove(key).filter(|v| !v.is_null())
    }

    /// Takes a text; numbers and booleans count as their text.
    pub(crate) fn text(&mut self, key: &'static str) -> Result<Option<String>, ConfigError> {
        let path = self.path(key);
        self.value(key).map(|v| scalar(&path, v)).transpose()
    }

    pub(crate) fn bool(&mut self, key: &'static str, default: bool) -> Result<bool, ConfigError> {
        match self.value(key) {
            None => Ok(default),
            Some(Value::Bool(b)) => Ok(b),
            Some(_) => Err(ConfigError::invalid(self.path(key), "true or false is expected")),
        }
    }

    pub(crate) fn u64(&mut self, key: &'static str) -> Result<Option<u64>, ConfigError> {
        let path = self.path(key);
        let number =
            |v: Value| v.as_u64().ok_or_else(|| ConfigError::invalid(path, "a whole number is expected"));
        self.value(key).map(number).transpose()
    }

    pub(crate) fn duration(&mut self, key: &'static str) -> Result<Option<Duration>, ConfigError> {
        let path = self.path(key);
        let Some(text) = self.text(key)? else { return Ok(None) };
        match parse_duration(&text) {
            Some(d) => Ok(Some(d)),
            None => Err(ConfigError::invalid(path, format!("{text:?} is not a duration"))),
        }
    }

    /// Takes a list; absent is empty.
    pub(crate) fn list(&mut self, key: &'static str) -> Result<Vec<Value>, ConfigError> {
        match self.value(key) {
            None => Ok(Vec::new()),
            Some(Value::Sequence(items)) => Ok(items),
            Some(_) => Err(ConfigError::invalid(self.path(key), "a list is expected")),
        }
    }

    pub(crate) fn texts(&mut self, key: &'static str) -> Result<Vec<String>, ConfigError> {
        let path = self.path(key);
        self.list(key)?.into_iter().map(|v| scalar(&path, v)).collect()
    }

    /// Takes a mapping of texts, in the order of the file.
    pub(crate) fn text_map(&mut self, key: &'static str) -> Result<Vec<(String, String)>, ConfigError> {
        let path = self.path(key);
        let Some(value) = self.value(key) else { return Ok(Vec::new()) };
        let Value::Mapping(map) = value else {
            return Err(ConfigError::invalid(path, "a mapping is expected"));
        };
        map.into_iter().map(|(k, v)| Ok((scalar(&path, k)?, scalar(&path, v)?))).collect()
    }

    /// Refuses what was not asked for: by name where Prometheus knows it, with the nearest known key where it does not.
    pub(crate) fn finish(self, unsupported: &[&str]) -> Result<(), ConfigError> {
        let Some((key, _)) = self.map.into_iter().next() else { return Ok(()) };
        let key = scalar(&self.path, key)?;
        let path = if self.path.is_empty() { "configuration".to_owned() } else { self.path };
        if unsupported.contains(&key.as_str()) {
            return Err(ConfigError::UnsupportedKey { path, key });
        }
        let nearest = self
            .asked
            .iter()
            .chain(unsupported)
            .map(|k| (strsim::damerau_levenshtein(k, &key), *k))
            .min()
            .filter(|(distance, _)| *distance <= SUGGESTION_DISTANCE_MAX)
            .map(|(_, k)| k.to_owned());
        Err(ConfigError::UnknownKey { path, key, nearest })
    }
}

fn scalar(path: &str, value: Value) -> Result<String, ConfigError> {
    match value {
        Value::String(s) => Ok(s),
        Value::Number(n) => Ok(n.to_string()),
        Value::Bool(b) => Ok(b.to_string()),
        Value::Null => Ok(String::new()),
        _ => Err(ConfigError::invalid(path, "a text is expected")),
    }
}

/// Units of durations, and their milliseconds.
const UNITS: [(&str, u64); 7] = [
    ("y", 365 * 86_400_000),
    ("w", 7 * 86_400_000),
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1000),
    ("ms", 1),
];

/// A duration in whole milliseconds as Prometheus prints it. Years, weeks and days only stand alone: `1d`, but `36h`.
pub(crate) fn format_duration(duration: Duration) -> String {
    let mut rest = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if rest == 0 {
        return "0s".into();
    }
    let mut text = String::new();
    for (i, (unit, ms)) in UNITS.into_iter().enumerate() {
        let stands_alone = i < 3;
        if rest >= ms && (!stands_alone || rest.is_multiple_of(ms)) {
            text.push_str(&format!("{}{unit}", rest / ms));
            rest %= ms;
        }
    }
    text
}

/// A duration as Prometheus writes it: `1h30m`, `15s`, `250ms`, `0`.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut total_ms = 0u64;
    let mut next_unit = 0;
    while !rest.is_empty() {
        let digits = rest.bytes().position(|b| !b.is_ascii_digit()).filter(|n| *n > 0)?;
        let number: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest.bytes().position(|b| !b.is_ascii_alphabetic()).unwrap_or(rest.len());
        let unit = next_unit + UNITS[next_unit..].iter().position(|(u, _)| *u == &rest[..letters])?;
        rest = &rest[letters..];
        next_unit = unit + 1;
        total_ms = total_ms.checked_add(number.checked_mul(UNITS[unit].1)?)?;
    }
    (!text.is_empty()).then(|| Duration::from_millis(total_ms))
}

/// A number of bytes as Prometheus writes it: `10MB`, `1GiB`, `512KB`; all units are powers of 1024.
pub(crate) fn parse_bytes(text: &str) -> Option<u64> {
    let digits = text.bytes().position(|b| !b.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().ok()?;
    let power = match text[digits..].trim_end_matches('B').trim_end_matches('i') {
        "" => 0,
        "K" => 1,
        "M" => 2,
        "G" => 3,
        "T" => 4,
        "P" => 5,
        "E" => 6,
        _ => return None,
    };
    number.checked_mul(1u64.checked_shl(10 * power)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes() {
        for (text, ms) in [
            ("15s", 15_000),
            ("1m30s", 90_000),
            ("250ms", 250),
            ("1h", 3_600_000),
            ("1d2h", 93_600_000),
            ("0", 0),
        ] {
            assert_eq!(parse_duration(text), Some(Duration::from_millis(ms)), "{text}");
        }
        for bad in ["", "s", "1", "1s1m", "1x", "-1s", "1.5s", "1s1s", "99999999999999999999y", "1é"] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
        for (text, printed) in [
            ("60s", "1m"),
            ("90s", "1m30s"),
            ("1500ms", "1s500ms"),
            ("24h", "1d"),
            ("36h", "36h"),
            ("14d", "2w"),
            ("365d", "1y"),
            ("0", "0s"),
        ] {
            assert_eq!(parse_duration(text).map(format_duration).as_deref(), Some(printed), "{text}");
        }
        for (text, n) in [("10MB", 10 << 20), ("1GiB", 1 << 30), ("7", 7), ("0", 0), ("2KB", 2048)] {
            assert_eq!(parse_bytes(text), Some(n), "{text}");
        }
        for bad in ["", "MB", "1X", "99999999999EB", "1é"] {
            assert_eq!(parse_bytes(bad), None, "{bad}");
        }
    }
}
