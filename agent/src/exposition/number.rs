//! Numbers as the formats write them: Go's `strconv` with what the formats forbid.

/// The quiet NaN that stands for every NaN of an exposition: the staleness marker is one that no target may send.
const NORMAL_NAN_BITS: u64 = 0x7ff8_0000_0000_0001;

/// A float of a sample; hexadecimal, `_` and numbers beyond the range of a double are refused.
pub fn parse_float(text: &str) -> Option<f64> {
    let bytes = text.as_bytes();
    if bytes.iter().any(|b| matches!(b, b'_' | b'x' | b'X' | b'p' | b'P')) {
        return None;
    }
    let value: f64 = text.parse().ok()?;
    if value.is_nan() {
        return Some(f64::from_bits(NORMAL_NAN_BITS));
    }
    // Rust rounds what is too large to infinity; only text that says so may mean it.
    let says_infinity = || bytes.iter().any(|b| b.eq_ignore_ascii_case(&b'i'));
    (value.is_finite() || says_infinity()).then_some(value)
}

/// A float in the shortest form, as Go prints it with `%g`.
pub fn format_float(value: f64) -> String {
    if value.is_nan() {
        return "NaN".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf".into() } else { "-Inf".into() };
    }
    // Rust's `{:e}` has the shortest digits that read back: `-1.7560473e6`.
    let scientific = format!("{value:e}");
    let Some((mantissa, exponent)) = scientific.split_once('e') else { return scientific };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    // Where `%g` changes to scientific notation in the shortest form, whatever the number of digits.
    if (-4..6).contains(&exponent) {
        return format!("{value}");
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.abs())
}

/// The same with a fraction where there would be none, as OpenMetrics writes floats.
pub fn format_openmetrics_float(value: f64) -> String {
    let mut text = format_float(value);
    if value.is_finite() && !text.contains(['.', 'e']) {
        text.push_str(".0");
    }
    text
}
