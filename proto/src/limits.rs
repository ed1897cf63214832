//! What a tenant may do: one structure that every role reads, and the file that sets it.
//!
//! Format (YAML): `{defaults: {key: value, …}, overrides: {tenant: {key: value, …}, …}}`. The file's defaults start from
//! those that the process was configured with, an override from the file's defaults; each names only what differs. An unknown key is an error that names the nearest known one. The number 0
//! turns a limit off, everywhere. Durations are `30s`, `5m`, `1h30m`, `7d`, `2w`, `1y`.
//!
//! **Architecture Invariant:** nothing here reads a file; whoever watches one calls [`LimitsHandle::replace`].

use std::{collections::HashMap, fmt, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_yaml_ng::{Mapping, Value};
use sextant_model::TenantId;

/// The limits of one tenant. The field's name is the key in the limits file; 0 turns a limit off.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TenantLimits {
    /// Samples, histograms and exemplars a second that one distributor takes.
    pub ingestion_rate: f64,
    /// How many may come at once above the rate; 0 is one second's worth of it.
    pub ingestion_burst: u64,
    /// Series with a sample in the heads, over all shards; each shard takes its part of it.
    pub max_active_series: u64,
    /// Labels of one series, `__name__` included.
    pub max_label_names_per_series: usize,
    /// Bytes of a label's name.
    pub max_label_name_length: usize,
    /// Bytes of a label's value.
    pub max_label_value_length: usize,
    /// How much older than the newest sample of its series a sample may be; 0 takes any age.
    pub out_of_order_window: LimitDuration,
    /// Bytes of a write request after decompression.
    pub max_request_bytes: u64,
    /// How long samples are kept; 0 is for ever.
    pub retention: LimitDuration,
    /// The longest time range of a query.
    pub max_query_range: LimitDuration,
    /// Series a query may read.
    pub max_query_series: usize,
    /// Samples a query may hold at once.
    pub max_query_samples: usize,
    /// Bytes of memory a query may use.
    pub max_query_memory_bytes: u64,
    /// How long a query may take.
    pub max_query_time: LimitDuration,
    /// Queries of the tenant that run at once; more wait in its queue.
    pub max_concurrent_queries: usize,
    /// Queries of the tenant that wait; more are refused.
    pub max_queued_queries: usize,
    /// The tenant's share of the queriers relative to others' while queries of several wait: 1 for all is equal shares.
    pub query_weight: f64,
}

impl Default for TenantLimits {
    fn default() -> Self {
        Self {
            ingestion_rate: 0.0,
            ingestion_burst: 0,
            max_active_series: 0,
            max_label_names_per_series: 128,
            max_label_name_length: 1024,
            max_label_value_length: 4096,
            out_of_order_window: LimitDuration::OFF,
            max_request_bytes: 64 << 20,
            retention: LimitDuration::OFF,
            max_query_range: LimitDuration::OFF,
            max_query_series: 1_000_000,
            max_query_samples: 50_000_000,
            max_query_memory_bytes: 4 << 30,
            max_query_time: LimitDuration::from_secs(120),
            max_concurrent_queries: 16,
            max_queued_queries: 256,
            query_weight: 1.0,
        }
    }
}

/// A duration in the limits file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct LimitDuration(Duration);

impl LimitDuration {
    /// No limit.
    pub const OFF: Self = Self(Duration::ZERO);

    /// So many seconds.
    pub const fn from_secs(s: u64) -> Self {
        Self(Duration::from_secs(s))
    }

    /// The duration, or `None` where the limit is off.
    pub fn get(self) -> Option<Duration> {
        (self.0 > Duration::ZERO).then_some(self.0)
    }

    /// The duration in milliseconds, or `None` where the limit is off.
    pub fn get_ms(self) -> Option<i64> {
        self.get().map(|d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX))
    }
}

/// Unit names and their milliseconds, longest first: the order in which they are written and matched.
const UNITS: [(&str, u64); 7] = [
    ("y", 365 * 86_400_000),
    ("w", 7 * 86_400_000),
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

impl std::str::FromStr for LimitDuration {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is not a duration such as 30s, 5m, 1h30m, 7d or 0");
        if text == "0" {
            return Ok(Self::OFF);
        }
        let (mut rest, mut total_ms) = (text, 0u64);
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let n: u64 = rest[..digits].parse().map_err(|_| bad())?;
            let letters = rest[digits..].bytes().take_while(u8::is_ascii_alphabetic).count();
            let unit = &rest[digits..digits + letters];
            let (_, ms) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(bad)?;
            total_ms = n.checked_mul(*ms).and_then(|ms| total_ms.checked_add(ms)).ok_or_else(bad)?;
            rest = &rest[digits + letters..];
        }
        if text.is_empty() { Err(bad()) } else { Ok(Self(Duration::from_millis(total_ms))) }
    }
}

impl fmt::Display for LimitDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut ms = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        if ms == 0 {
            return f.write_str("0");
        }
        for (unit, size) in UNITS {
            if ms >= size {
                write!(f, "{}{unit}", ms / size)?;
                ms %= size;
            }
        }
        Ok(())
    }
}

impl Serialize for LimitDuration {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for LimitDuration {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = LimitDuration;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration such as 30s, 5m, 1h30m, 7d, or 0")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<LimitDuration, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_u64<E: serde::de::Error>(self, n: u64) -> Result<LimitDuration, E> {
                if n == 0 { Ok(LimitDuration::OFF) } else { Err(E::custom(format!("{n} has no unit"))) }
            }
        }
        d.deserialize_any(Visitor)
    }
}

/// Why a text is not a limits file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LimitsError {
    /// A key that no limit has.
    #[error("{place}: unknown key {key:?}; did you mean {nearest:?}?")]
    UnknownKey {
        /// `defaults`, `overrides.<tenant>` or the top level.
        place: String,
        /// The key as written.
        key: String,
        /// The known key most like it.
        nearest: String,
    },
    /// A name under `overrides` that is no tenant id.
    #[error("overrides: {0}")]
    Tenant(#[from] sextant_model::TenantError),
    /// A value of the wrong type, or text that is not YAML.
    #[error("{place}: {reason}")]
    Invalid {
        /// Where.
        place: String,
        /// Why.
        reason: String,
    },
}

/// The limits of every tenant.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Limits {
    defaults: Arc<TenantLimits>,
    overrides: HashMap<TenantId, Arc<TenantLimits>>,
}

impl Limits {
    /// The same limits for every tenant.
    pub fn new(defaults: TenantLimits) -> Self {
        Self { defaults: Arc::new(defaults), overrides: HashMap::new() }
    }

    /// Sets all limits of one tenant.
    #[must_use]
    pub fn with_override(mut self, tenant: TenantId, limits: TenantLimits) -> Self {
        self.overrides.insert(tenant, Arc::new(limits));
        self
    }

    /// Reads a limits file's text over the limits that hold where the file names none: an empty text gives just those.
    pub fn from_yaml(text: &str, configured: &TenantLimits) -> Result<Self, LimitsError> {
        let invalid = |place: &str, reason: String| LimitsError::Invalid { place: place.into(), reason };
        let file: Value = serde_yaml_ng::from_str(text).map_err(|e| invalid("limits file", e.to_string()))?;
        let file = mapping(file, "limits file")?;
        known_keys(&file, &["defaults", "overrides"], "limits file")?;
        let configured =
            serde_yaml_ng::to_value(configured).map_err(|e| invalid("configured limits", e.to_string()))?;
        let configured = mapping(configured, "configured limits")?;
        let keys: Vec<&str> = configured.keys().filter_map(Value::as_str).collect();

        let section = |base: &Mapping, over: Mapping, place: &str| -> Result<_, LimitsError> {
            known_keys(&over, &keys, place)?;
            let mut merged = base.clone();
            merged.extend(over);
            let limits: TenantLimits = serde_yaml_ng::from_value(Value::Mapping(merged.clone()))
                .map_err(|e| invalid(place, e.to_string()))?;
            if !limits.ingestion_rate.is_finite() || limits.ingestion_rate < 0.0 {
                return Err(invalid(place, "ingestion_rate must be a number, 0 or more".into()));
            }
            if !(0.01..=100.0).contains(&limits.query_weight) {
                return Err(invalid(place, "query_weight must be a number between 0.01 and 100".into()));
            }
            Ok((merged, Arc::new(limits)))
        };
        let part = |name: &str| mapping(file.get(name).cloned().unwrap_or(Value::Null), name);
        let (base, defaults) = section(&configured, part("defaults")?, "defaults")?;
        let mut overrides = HashMap::new();
        for (tenant, over) in part("overrides")? {
            let tenant = match &tenant {
                Value::String(s) => TenantId::new(s)?,
                Value::Number(n) => TenantId::new(&n.to_string())?,
                _ => return Err(invalid("overrides", "a tenant id is a text".into())),
            };
            let place = format!("overrides.{tenant}");
            let (_, limits) = section(&base, mapping(over, &place)?, &place)?;
            overrides.insert(tenant, limits);
        }
        Ok(Self { defaults, overrides })
    }

    /// The limits of tenants without an override.
    pub fn defaults(&self) -> &Arc<TenantLimits> {
        &self.defaults
    }

    /// The limits of a tenant.
    pub fn of(&self, tenant: &TenantId) -> &Arc<TenantLimits> {
        self.overrides.get(tenant).unwrap_or(&self.defaults)
    }
}

fn mapping(value: Value, place: &str) -> Result<Mapping, LimitsError> {
    match value {
        Value::Mapping(m) => Ok(m),
        Value::Null => Ok(Mapping::new()),
        _ => Err(LimitsError::Invalid { place: place.into(), reason: "expected keys and values".into() }),
    }
}

fn known_keys(map: &Mapping, known: &[&str], place: &str) -> Result<(), LimitsError> {
    for key in map.keys() {
        let key = key.as_str().unwrap_or_default();
        if known.contains(&key) {
            continue;
        }
        let nearest = known.iter().max_by(|a, b| {
            strsim::jaro_winkler(a, key).total_cmp(&strsim::jaro_winkler(b, key)).then_with(|| b.cmp(a))
        });
        return Err(LimitsError::UnknownKey {
            place: place.into(),
            key: key.into(),
            nearest: nearest.copied().unwrap_or_default().into(),
        });
    }
    Ok(())
}

/// The limits in force: cheap to clone and to read, replaced as a whole while the process runs.
#[derive(Clone, Debug, Default)]
pub struct LimitsHandle(Arc<ArcSwap<Limits>>);

impl LimitsHandle {
    /// A handle that starts with these limits.
    pub fn new(limits: Limits) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(limits)))
    }

    /// The limits of a tenant now. Take them once for a request, so that it sees one version.
    pub fn of(&self, tenant: &TenantId) -> Arc<TenantLimits> {
        self.0.load().of(tenant).clone()
    }

    /// The limits of tenants without an override, now.
    pub fn defaults(&self) -> Arc<TenantLimits> {
        self.0.load().defaults().clone()
    }

    /// Puts new limits in force.
    pub fn replace(&self, limits: Limits) {
        self.0.store(Arc::new(limits));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overrides_start_from_the_defaults() {
        let text = "defaults: {max_active_series: 10, out_of_order_window: 1h30m}\noverrides:\n  a: {retention: 7d}\n  7:\n";
        let limits = Limits::from_yaml(text, &TenantLimits::default()).unwrap();
        let a = limits.of(&TenantId::new("a").unwrap());
        assert_eq!((a.max_active_series, a.retention.get_ms()), (10, Some(7 * 86_400_000)));
        assert_eq!(a.out_of_order_window.to_string(), "1h30m");
        let other = limits.of(&TenantId::new("7").unwrap());
        assert_eq!((other.max_active_series, other.retention.get()), (10, None));
        assert_eq!(other.max_label_value_length, 4096);
        assert_eq!(Limits::from_yaml("", &TenantLimits::default()).unwrap(), Limits::default());
    }

    #[test]
    fn defaults_start_from_what_is_configured() {
        let configured = TenantLimits { max_request_bytes: 1 << 20, ..TenantLimits::default() };
        let bytes_of = |text: &str| {
            let limits = Limits::from_yaml(text, &configured).unwrap();
            let of = |tenant: &str| limits.of(&TenantId::new(tenant).unwrap()).max_request_bytes;
            (of("a"), of("b"))
        };
        for (text, expected) in [
            ("", (1 << 20, 1 << 20)),
            ("defaults: {max_active_series: 5}", (1 << 20, 1 << 20)),
            ("defaults: {max_request_bytes: 7}", (7, 7)),
            ("overrides: {a: {max_request_bytes: 8}, b: {retention: 1d}}", (8, 1 << 20)),
            ("defaults: {max_request_bytes: 7}\noverrides: {a: {max_request_bytes: 0}}", (0, 7)),
        ] {
            assert_eq!(bytes_of(text), expected, "{text}");
        }
    }

    #[test]
    fn bad_files_say_what_is_wrong() {
        let read = |text: &str| Limits::from_yaml(text, &TenantLimits::default());
        let reason = |text: &str| read(text).unwrap_err().to_string();
        assert_eq!(
            reason("defaults: {max_label_valu_length: 1}"),
            "defaults: unknown key \"max_label_valu_length\"; did you mean \"max_label_value_length\"?"
        );
        assert_eq!(
            reason("override: {}"),
            "limits file: unknown key \"override\"; did you mean \"overrides\"?"
        );
        assert!(reason("overrides: {a: {ingestion_rat: 1}}").contains("overrides.a"));
        assert!(reason("overrides: {../x: {}}").contains("unsupported character"));
        assert!(reason("defaults: {retention: 5}").contains("5 has no unit"));
        assert!(reason("defaults: {ingestion_rate: -1}").contains("ingestion_rate"));
        assert!(reason("defaults: [1]").contains("defaults"));
        assert!(reason("a: b: c").contains("limits file"));
        assert!(reason("[]").contains("limits file: expected keys and values"));
        assert!(reason("overrides: 7").contains("overrides: expected keys and values"));
        assert!(reason("overrides: {a: 7}").contains("overrides.a: expected keys and values"));
        assert!(reason("overrides: {[a]: {}}").contains("a tenant id is a text"));
        assert!(reason("defaults: {1: 2}").contains("unknown key"));
        assert!(reason("defaults: {max_active_series: -1}").contains("defaults"));
        assert!(reason("defaults: {max_active_series: 1e3}").contains("defaults"));
        assert!(reason("defaults: {ingestion_rate: .nan}").contains("ingestion_rate"));
        assert!(reason("defaults: {query_weight: 0}").contains("query_weight"));
        assert!(reason("defaults: {query_weight: .nan}").contains("query_weight"));
        assert!(reason("defaults: {ingestion_rate: .inf}").contains("ingestion_rate"));
        for duration in
            ["''", "5", "h", "1x", "-1h", "1h 30m", "99999999999999999999y", "18446744073709551615y", "٣h"]
        {
            assert!(read(&format!("defaults: {{retention: {duration}}}")).is_err(), "{duration}");
        }
        // Neither nesting nor aliases that multiply may cost more than the text is long.
        assert!(read(&"[".repeat(1_000)).is_err());
        let mut bomb = "a: &a [x, x, x, x, x, x, x, x]\n".to_owned();
        for (name, of) in
            ["b", "c", "d", "e", "f", "g", "h", "i"].iter().zip(["a", "b", "c", "d", "e", "f", "g", "h"])
        {
            bomb.push_str(&format!(
                "{name}: &{name} [*{of}, *{of}, *{of}, *{of}, *{of}, *{of}, *{of}, *{of}]\n"
            ));
        }
        assert!(read(&bomb).is_err());
    }
}
