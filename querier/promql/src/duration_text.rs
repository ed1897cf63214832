//! Durations as text: `1h30m`, in milliseconds.

use crate::quote::quote;

/// The units from the longest to the shortest, with their milliseconds.
const UNITS: [(&str, i64); 7] = [
    ("y", 365 * 86_400_000),
    ("w", 7 * 86_400_000),
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1000),
    ("ms", 1),
];

/// Prometheus keeps nanoseconds in 64 bits; nothing longer is a duration.
const MAX_MS: i64 = i64::MAX / 1_000_000;

/// Why a text is not a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DurationTextError {
    /// There is no text.
    #[error("empty duration string")]
    Empty,
    /// Not `[0-9]+unit`, with units from long to short and none twice.
    #[error("not a valid duration string: {}", quote(.0.as_bytes()))]
    Invalid(String),
    /// Longer than about 292 years.
    #[error("duration out of range")]
    OutOfRange,
}

/// Reads a duration such as `1h30m` or `0`; the result is in milliseconds.
pub fn parse_duration(text: &str) -> Result<i64, DurationTextError> {
    let invalid = || DurationTextError::Invalid(text.to_owned());
    match text {
        "" => return Err(DurationTextError::Empty),
        "0" => return Ok(0),
        _ => {}
    }
    let mut rest = text;
    let mut total = 0i64;
    let mut units = UNITS.iter();
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, tail) = rest.split_at(digits);
        let unit_len = if tail.starts_with("ms") { 2 } else { 1 };
        let unit = tail.get(..unit_len).filter(|_| digits > 0).ok_or_else(invalid)?;
        let (_, millis) = units.find(|(name, _)| *name == unit).ok_or_else(invalid)?;
        let number: i64 = number.parse().map_err(|_| DurationTextError::OutOfRange)?;
        total = number
            .checked_mul(*millis)
            .and_then(|ms| ms.checked_add(total))
            .filter(|ms| *ms <= MAX_MS)
            .ok_or(DurationTextError::OutOfRange)?;
        rest = tail.get(unit_len..).unwrap_or_default();
    }
    Ok(total)
}

/// As [`parse_duration`], with an optional `-` in front.
pub fn parse_signed_duration(text: &str) -> Result<i64, DurationTextError> {
    match text.strip_prefix('-') {
        Some(positive) => Ok(-parse_duration(positive)?),
        None => parse_duration(text),
    }
}

/// Milliseconds as Prometheus prints them: `1h30m`, `0s`, `-5m`. Years and weeks only where nothing remains.
pub fn format_duration(ms: i64) -> String {
    if ms == 0 {
        return "0s".to_owned();
    }
    let mut out = String::new();
    if ms < 0 {
        out.push('-');
    }
    let mut rest = ms.unsigned_abs();
    for (name, unit) in UNITS {
        let unit = unit.unsigned_abs();
        let exact_only = matches!(name, "y" | "w");
        if rest < unit || (exact_only && !rest.is_multiple_of(unit)) {
            continue;
        }
        out.push_str(&(rest / unit).to_string());
        out.push_str(name);
        rest %= unit;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_and_print() {
        for (text, ms, printed) in [
            ("0", 0, "0s"),
            ("1y", 31_536_000_000, "1y"),
            ("3w2d1h", 1_990_800_000, "23d1h"),
            ("1h30m", 5_400_000, "1h30m"),
            ("10ms", 10, "10ms"),
            ("-5m", -300_000, "-5m"),
        ] {
            assert_eq!(parse_signed_duration(text), Ok(ms), "{text}");
            assert_eq!(format_duration(ms), printed);
        }
        for bad in [
            "",
            "1",
            "d",
            "5m1h",
            "1m1m",
            "1.5d",
            "-5m",
            "1s ",
            "294y",
            "200y10400w",
            "99999999999999999999s",
            "é",
        ] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }
}
