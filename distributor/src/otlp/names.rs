//! OpenTelemetry names in Prometheus' words.
//!
//! The rules are those of OpenTelemetry's "Prometheus and OpenMetrics compatibility" and of Prometheus' `otlptranslator`:
//! characters, unit suffixes, `_total` for monotonic counters, `_ratio` for gauges of unit `1`.

/// How names are translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Strategy {
    /// Invalid characters become `_`; unit and type suffixes are added. Prometheus' default.
    #[default]
    UnderscoreEscapingWithSuffixes,
    /// Invalid characters become `_`; no suffixes.
    UnderscoreEscapingWithoutSuffixes,
    /// Names stay; suffixes are added.
    NoUtf8EscapingWithSuffixes,
    /// Names stay as they are.
    NoTranslation,
}

impl Strategy {
    fn keeps_utf8(self) -> bool {
        matches!(self, Self::NoUtf8EscapingWithSuffixes | Self::NoTranslation)
    }

    fn adds_suffixes(self) -> bool {
        matches!(self, Self::UnderscoreEscapingWithSuffixes | Self::NoUtf8EscapingWithSuffixes)
    }
}

/// What decides a metric's suffix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SuffixType {
    /// Gets `_total`.
    MonotonicCounter,
    /// Gets `_ratio` for unit `1`.
    Gauge,
    /// Gets only its unit.
    Other,
}

/// Why a name has no translation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing is left of it.
    #[error("normalization for metric {0:?} resulted in empty name")]
    EmptyMetric(String),
    /// Only underscores are left of it.
    #[error("normalization for metric {0:?} resulted in invalid name {1:?}")]
    InvalidMetric(String, String),
    /// An empty attribute name.
    #[error("label name is empty")]
    EmptyLabel,
    /// Only underscores are left of it.
    #[error("normalization for label name {0:?} resulted in invalid name {1:?}")]
    InvalidLabel(String, String),
}

const UNITS: &[(&str, &str)] = &[
    ("d", "days"),
    ("h", "hours"),
    ("min", "minutes"),
    ("s", "seconds"),
    ("ms", "milliseconds"),
    ("us", "microseconds"),
    ("ns", "nanoseconds"),
    ("By", "bytes"),
    ("KiBy", "kibibytes"),
    ("MiBy", "mebibytes"),
    ("GiBy", "gibibytes"),
    ("TiBy", "tibibytes"),
    ("KBy", "kilobytes"),
    ("MBy", "megabytes"),
    ("GBy", "gigabytes"),
    ("TBy", "terabytes"),
    ("m", "meters"),
    ("V", "volts"),
    ("A", "amperes"),
    ("J", "joules"),
    ("W", "watts"),
    ("g", "grams"),
    ("Cel", "celsius"),
    ("Hz", "hertz"),
    ("1", ""),
    ("%", "percent"),
];

const PER_UNITS: &[(&str, &str)] = &[
    ("s", "second"),
    ("m", "minute"),
    ("h", "hour"),
    ("d", "day"),
    ("w", "week"),
    ("mo", "month"),
    ("y", "year"),
];

fn lookup<'a>(table: &[(&str, &'a str)], unit: &'a str) -> &'a str {
    table.iter().find(|(u, _)| *u == unit).map_or(unit, |(_, word)| word)
}

/// Main unit and "per" unit as suffixes, both possibly empty.
fn unit_suffixes(unit: &str) -> (String, String) {
    let (main, per) = unit.split_once('/').map_or((unit, ""), |(m, p)| (m, p));
    let usable = |u: &str| {
        let u = u.trim();
        !u.is_empty() && !u.contains(['{', '}'])
    };
    let main = if usable(main) { lookup(UNITS, main.trim()).to_owned() } else { String::new() };
    let per = if usable(per) { format!("per_{}", lookup(PER_UNITS, per.trim())) } else { String::new() };
    (main, per)
}

fn is_name_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == ':'
}

/// Invalid characters to `_`, runs of `_` to one, none at the start.
fn clean_unit(unit: &str) -> String {
    let mut out = String::with_capacity(unit.len());
    for c in unit.chars() {
        match c {
            '_' if out.ends_with('_') => {}
            c if is_name_char(c) => out.push(c),
            _ if out.ends_with('_') => {}
            _ => out.push('_'),
        }
    }
    out.strip_prefix('_').map(str::to_owned).unwrap_or(out)
}

/// The unit in Prometheus' words: `By/s` is `bytes_per_second`.
pub fn unit_name(unit: &str, strategy: Strategy) -> String {
    let (mut main, mut per) = unit_suffixes(unit);
    if !strategy.keeps_utf8() {
        (main, per) = (clean_unit(&main), clean_unit(&per));
    }
    let both = match (main.is_empty(), per.is_empty()) {
        (_, true) => main,
        (true, false) => per,
        (false, false) => format!("{main}_{per}"),
    };
    let name = both.strip_prefix('_').unwrap_or(&both);
    name.strip_suffix('_').unwrap_or(name).to_owned()
}

/// A metric's name.
pub fn metric_name(
    name: &str,
    unit: &str,
    kind: SuffixType,
    namespace: &str,
    strategy: Strategy,
) -> Result<String, NameError> {
    let built = match (strategy.keeps_utf8(), strategy.adds_suffixes()) {
        (true, suffixes) => utf8_name(name, unit, kind, namespace, suffixes),
        (false, true) => normalized(name, unit, kind, namespace),
        (false, false) => escaped(name, namespace),
    };
    if built.is_empty() {
        return Err(NameError::EmptyMetric(name.to_owned()));
    }
    if !strategy.keeps_utf8() && built != name && built.chars().all(|c| c == '_') {
        return Err(NameError::InvalidMetric(name.to_owned(), built));
    }
    Ok(built)
}

/// What is valid of a name, joined by `_`.
fn valid_parts(name: &str) -> String {
    name.split(|c| !is_name_char(c)).filter(|t| !t.is_empty()).collect::<Vec<_>>().join("_")
}

fn escaped(name: &str, namespace: &str) -> String {
    let out = valid_parts(name);
    if !namespace.is_empty() {
        return format!("{}_{out}", valid_parts(namespace));
    }
    if out.starts_with(|c: char| c.is_ascii_digit()) { format!("_{out}") } else { out }
}

/// The suffix that comes last.
fn type_suffix(unit: &str, kind: SuffixType) -> Option<&'static str> {
    match kind {
        SuffixType::MonotonicCounter => Some("total"),
        SuffixType::Gauge if unit == "1" => Some("ratio"),
        _ => None,
    }
}

fn normalized(name: &str, unit: &str, kind: SuffixType, namespace: &str) -> String {
    let mut tokens: Vec<&str> =
        name.split(|c: char| !is_name_char(c) || c == '_').filter(|t| !t.is_empty()).collect();
    let (main, per) = unit_suffixes(unit);
    let (main, per) = (clean_unit(&main), clean_unit(&per));
    let per = if per == "per_" { "" } else { per.strip_suffix('_').unwrap_or(&per) };
    let per = if tokens.contains(&per) { "" } else { per };
    let main = if tokens.contains(&main.as_str()) { "" } else { main.as_str() };
    let main = if per.is_empty() { main } else { main.strip_suffix('_').unwrap_or(main) };
    tokens.extend([main, per].into_iter().filter(|t| !t.is_empty()));
    // A name of which nothing is valid has no translation, rather than its suffix.
    if let Some(suffix) = type_suffix(unit, kind)
        && !tokens.is_empty()
    {
        tokens.retain(|t| *t != suffix);
        tokens.push(suffix);
    }
    if !namespace.is_empty() {
        tokens.insert(0, namespace);
    }
    let out = tokens.join("_");
    if out.starts_with(|c: char| c.is_ascii_digit()) { format!("_{out}") } else { out }
}

fn utf8_name(name: &str, unit: &str, kind: SuffixType, namespace: &str, suffixes: bool) -> String {
    let mut out = if namespace.is_empty() { name.to_owned() } else { format!("{namespace}_{name}") };
    if !suffixes || name.is_empty() {
        return out;
    }
    let (main, per) = unit_suffixes(unit);
    // Suffixes that the name has already are taken off from the outermost inwards and put on again.
    let outer = [type_suffix(unit, kind).unwrap_or(""), per.as_str()];
    for suffix in outer {
        out.truncate(without_suffix(&out, suffix).len());
    }
    if !main.is_empty() && !out.ends_with(&main) {
        out = format!("{out}_{main}");
    }
    for suffix in outer.into_iter().rev().filter(|s| !s.is_empty()) {
        out = format!("{out}_{suffix}");
    }
    out
}

/// A name without a suffix and the character before it, whatever it is.
fn without_suffix<'a>(name: &'a str, suffix: &str) -> &'a str {
    let stem = if suffix.is_empty() { None } else { name.strip_suffix(suffix) };
    let shorter = stem.and_then(|stem| stem.char_indices().next_back()).map(|(at, _)| &name[..at]);
    shorter.filter(|s| !s.is_empty()).unwrap_or(name)
}

/// An attribute's name as a label's. `keep_runs` keeps several underscores in a row; `key_prefix` puts `key` before a
/// single leading underscore. Names between `__` and `__` are reserved and keep both.
pub fn label_name(
    name: &str,
    strategy: Strategy,
    keep_runs: bool,
    key_prefix: bool,
) -> Result<String, NameError> {
    if name.is_empty() {
        return Err(NameError::EmptyLabel);
    }
    if strategy.keeps_utf8() {
        return Ok(name.to_owned());
    }
    let inner =
        name.strip_prefix("__").and_then(|n| n.strip_suffix("__")).filter(|n| !n.is_empty() && !keep_runs);
    let mut out = match inner {
        Some(inner) => format!("__{}__", escaped_label(inner, keep_runs)),
        None => escaped_label(name, keep_runs),
    };
    if out.starts_with(|c: char| c.is_ascii_digit()) {
        out.insert_str(0, "key_");
    } else if key_prefix && out.starts_with('_') && !out.starts_with("__") {
        out.insert_str(0, "key");
    }
    if out != name && out.chars().all(|c| c == '_') {
        return Err(NameError::InvalidLabel(name.to_owned(), out));
    }
    Ok(out)
}

fn escaped_label(name: &str, keep_runs: bool) -> String {
    let mut out = String::with_capacity(name.len() + 4);
    for c in name.chars() {
        if c.is_ascii_alphanumeric() {
            out.push(c);
        } else if keep_runs || !out.ends_with('_') {
            out.push('_');
        }
    }
    out
}
