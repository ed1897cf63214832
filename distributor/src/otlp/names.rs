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
    ("d", "days"), ("h", "hours"), ("min", "minutes"), ("s", "seconds"), ("ms", "milliseconds"), ("us", "microseconds"),
    ("ns", "nanoseconds"), ("By", "bytes"), ("KiBy", "kibibytes"), ("MiBy", "mebibytes"), ("GiBy", "gibibytes"),
    ("TiBy", "tibibytes"), ("KBy", "kilobytes"), ("MBy", "megabytes"), ("GBy", "gigabytes"), ("TBy", "terabytes"),
    ("m", "meters"), ("V", "volts"), ("A", "amperes"), ("J", "joules"), ("W", "watts"), ("g", "grams"),
    ("Cel", "celsius"), ("Hz", "hertz"), ("1", ""), ("%", "percent"),
];

const PER_UNITS: &[(&str, &str)] =
    &[("s", "second"), ("m", "minute"), ("h", "hour"), ("d", "day"), ("w", "week"), ("mo", "month"), ("y", "year")];

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

/// Invalid characters to `_`, runs of `_` to one, none at the ends.
fn clean_unit(unit: &str) -> String {
    let mapped: String = unit.chars().map(|c| if is_name_char(c) { c } else { '_' }).collect();
    mapped.split('_').filter(|t| !t.is_empty()).collect::<Vec<_>>().join("_")
}

/// The unit in Prometheus' words: `By/s` is `bytes_per_second`.
pub fn unit_name(unit: &str, strategy: Strategy) -> String {
    let (mut main, mut per) = unit_suffixes(unit);
    if !strategy.keeps_utf8() {
        (main, per) = (clean_unit(&main), clean_unit(&per));
    }
    match (main.is_empty(), per.is_empty()) {
        (_, true) => main,
        (true, false) => per,
        (false, false) => format!("{main}_{per}"),
    }
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
    if !strategy.keeps_utf8() && built.chars().all(|c| c == '_') && !name.chars().all(|c| c == '_') {
        return Err(NameError::InvalidMetric(name.to_owned(), built));
    }
    Ok(built)
}

fn escaped(name: &str, namespace: &str) -> String {
    let clean = |text: &str| -> String { text.chars().map(|c| if is_name_char(c) { c } else { '_' }).collect() };
    let mut out = clean(name);
    if !namespace.is_empty() {
        out = format!("{}_{out}", clean(namespace));
    } else if out.starts_with(|c: char| c.is_ascii_digit()) {
        out.insert(0, '_');
    }
    out
}

fn normalized(name: &str, unit: &str, kind: SuffixType, namespace: &str) -> String {
    let mut tokens: Vec<String> =
        name.split(|c: char| !is_name_char(c) || c == '_').filter(|t| !t.is_empty()).map(str::to_owned).collect();
    let (main, per) = unit_suffixes(unit);
    let (main, per) = (clean_unit(&main), clean_unit(&per));
    if !main.is_empty() && !tokens.contains(&main) {
        tokens.push(main);
    }
    if !per.is_empty() && !tokens.contains(&per.trim_start_matches("per_").to_owned()) {
        tokens.push(per);
    }
    let last = match kind {
        SuffixType::MonotonicCounter => Some("total"),
        SuffixType::Gauge if unit == "1" => Some("ratio"),
        _ => None,
    };
    if let Some(suffix) = last
        && !tokens.is_empty()
    {
        tokens.retain(|t| t != suffix);
        tokens.push(suffix.to_owned());
    }
    if !namespace.is_empty() {
        let namespace: String = namespace.chars().map(|c| if is_name_char(c) { c } else { '_' }).collect();
        tokens.insert(0, namespace.trim_matches('_').to_owned());
    }
    let mut out = tokens.join("_");
    if out.starts_with(|c: char| c.is_ascii_digit()) {
        out.insert(0, '_');
    }
    out
}

fn utf8_name(name: &str, unit: &str, kind: SuffixType, namespace: &str, suffixes: bool) -> String {
    let mut out = if namespace.is_empty() { name.to_owned() } else { format!("{namespace}_{name}") };
    if !suffixes || name.is_empty() {
        return out;
    }
    let last = match kind {
        SuffixType::MonotonicCounter => Some("total"),
        SuffixType::Gauge if unit == "1" => Some("ratio"),
        _ => None,
    };
    if let Some(rest) = last.and_then(|s| out.strip_suffix(s)) {
        out = rest.trim_end_matches(['_', '.']).to_owned();
    }
    let (main, per) = unit_suffixes(unit);
    for suffix in [main, per] {
        if !suffix.is_empty() && !out.ends_with(&suffix) {
            out = format!("{out}_{suffix}");
        }
    }
    match last {
        Some(suffix) => format!("{out}_{suffix}"),
        None => out,
    }
}

/// An attribute's name as a label's. `keep_runs` keeps several underscores in a row; `key_prefix` puts `key` before a
/// single leading underscore. Names that begin with `__` are reserved and stay.
pub fn label_name(name: &str, strategy: Strategy, keep_runs: bool, key_prefix: bool) -> Result<String, NameError> {
    if name.is_empty() {
        return Err(NameError::EmptyLabel);
    }
    if strategy.keeps_utf8() {
        return Ok(name.to_owned());
    }
    let reserved = name.starts_with("__") && name.ends_with("__") && name.len() > 4;
    let mut out = String::with_capacity(name.len() + 4);
    let mut last_underscore = false;
    for c in name.chars() {
        let valid = c.is_ascii_alphanumeric();
        if valid {
            out.push(c);
        } else if keep_runs || reserved || !last_underscore {
            out.push('_');
        }
        last_underscore = !valid;
    }
    if out.starts_with(|c: char| c.is_ascii_digit()) {
        out.insert_str(0, "key_");
    } else if key_prefix && out.starts_with('_') && !out.starts_with("__") {
        out.insert_str(0, "key");
    }
    if out.chars().all(|c| c == '_') {
        return Err(NameError::InvalidLabel(name.to_owned(), out));
    }
    Ok(out)
}
