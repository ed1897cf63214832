//! Numbers as text: what a number token means, and how numbers print.

/// Why a number token is not a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NumberError {
    /// It is not written as numbers are.
    #[error("invalid syntax")]
    Syntax,
    /// It is finite as written but not as a float.
    #[error("value out of range")]
    Range,
}

/// The value of a number: decimal, hexadecimal (`0x1f`), octal (`0755`), `Inf` and `NaN`, with `_` between digits.
pub(crate) fn parse_number(text: &str) -> Result<f64, NumberError> {
    if let Some(value) = parse_integer(text) {
        return Ok(value as f64);
    }
    if !underscores_separate_digits(text) {
        return Err(NumberError::Syntax);
    }
    let plain: String = text.chars().filter(|c| *c != '_').collect();
    let value: f64 = plain.parse().map_err(|_| NumberError::Syntax)?;
    if value.is_infinite() && plain.bytes().any(|b| b.is_ascii_digit()) {
        return Err(NumberError::Range);
    }
    Ok(value)
}

/// An integer of 64 bits with the base in its prefix; `None` where it is none (`08`, `1.5`).
fn parse_integer(text: &str) -> Option<i64> {
    if !underscores_separate_digits(text) {
        return None;
    }
    let plain: String = text.chars().filter(|c| *c != '_').collect();
    match plain.strip_prefix("0x").or_else(|| plain.strip_prefix("0X")) {
        Some(hex) => i64::from_str_radix(hex, 16).ok(),
        None if plain.len() > 1 && plain.starts_with('0') => i64::from_str_radix(&plain, 8).ok(),
        None => plain.parse().ok(),
    }
}

/// Whether every `_` has a digit or the base's prefix before it and a digit behind it.
fn underscores_separate_digits(text: &str) -> bool {
    let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
    let mut last_is_digit = digits.is_some();
    let mut bytes = digits.unwrap_or(text).bytes().peekable();
    while let Some(b) = bytes.next() {
        if b == b'_' && !(last_is_digit && bytes.peek().is_some_and(u8::is_ascii_hexdigit)) {
            return false;
        }
        last_is_digit = b.is_ascii_hexdigit();
    }
    true
}

/// The shortest decimal text that gives the same value, never with an exponent; infinities as `+Inf` and `-Inf`.
pub fn format_float(value: f64) -> String {
    if value.is_nan() {
        "NaN".to_owned()
    } else if value.is_infinite() {
        if value > 0.0 { "+Inf".to_owned() } else { "-Inf".to_owned() }
    } else {
        value.to_string()
    }
}

/// As [`format_float`], with an exponent for very large and very small values (`1e+21`).
pub(crate) fn format_float_general(value: f64) -> String {
    let magnitude = value.abs();
    if !value.is_finite() || value == 0.0 || (1e-4..1e21).contains(&magnitude) {
        return format_float(value);
    }
    let text = format!("{value:e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, digits) = exponent.strip_prefix('-').map_or(('+', exponent), |d| ('-', d));
    format!("{mantissa}e{sign}{digits:0>2}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        for (text, value) in [
            ("1", 1.0),
            ("0755", 493.0),
            ("08", 8.0),
            ("0x1F", 31.0),
            ("0X_1_F", 31.0),
            ("1_000", 1000.0),
            ("00_1_23_4.56_7_8", 1234.5678),
            ("1e1_0", 1e10),
            ("9223372036854775808", 9_223_372_036_854_775_808.0),
            ("5.", 5.0),
            (".5", 0.5),
            ("inF", f64::INFINITY),
        ] {
            assert_eq!(parse_number(text), Ok(value), "{text}");
        }
        assert!(parse_number("NaN").is_ok_and(f64::is_nan));
        assert_eq!(parse_number("1e999"), Err(NumberError::Range));
        for bad in ["", "1__0", "_1", "1_", "0xFFFFFFFFFFFFFFFFFF", "1.5.2", "x"] {
            assert_eq!(parse_number(bad), Err(NumberError::Syntax), "{bad}");
        }
    }

    #[test]
    fn printing() {
        assert_eq!(format_float(1e22), "10000000000000000000000");
        assert_eq!(format_float_general(1e22), "1e+22");
        assert_eq!(format_float_general(-1.5e-7), "-1.5e-07");
        assert_eq!(format_float_general(f64::NEG_INFINITY), "-Inf");
    }
}
