//! Numbers and strings as Go prints them: labels, errors and annotations hold such texts.

/// `%g`: the shortest digits that read back, with an exponent below 1e-4 and from 1e6 on.
pub fn go_float(v: f64) -> String {
    if v.is_nan() {
        return "NaN".to_owned();
    }
    if v.is_infinite() {
        return if v > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let scientific = format!("{v:e}");
    let Some((mantissa, exponent)) = scientific.split_once('e') else {
        return scientific;
    };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..6).contains(&exponent) {
        return format!("{v}");
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.abs())
}

/// `%.<digits>g`.
pub fn significant(v: f64, digits: usize) -> String {
    if !v.is_finite() {
        return go_float(v);
    }
    let scientific = format!("{v:.*e}", digits.max(1) - 1);
    let Some((mantissa, exponent)) = scientific.split_once('e') else {
        return scientific;
    };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let trim = |s: &str| {
        if s.contains('.') { s.trim_end_matches('0').trim_end_matches('.').to_owned() } else { s.to_owned() }
    };
    if exponent < -4 || exponent >= digits as i32 {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{}e{sign}{:02}", trim(mantissa), exponent.abs());
    }
    trim(&format!("{v:.*}", (digits as i32 - 1 - exponent).max(0) as usize))
}

/// `strconv.FormatFloat(v, 'f', -1, 64)`: never an exponent.
pub fn plain_float(v: f64) -> String {
    if v.is_finite() { format!("{v}") } else { go_float(v) }
}

/// The text of a float in OpenMetrics: always with a point or an exponent.
pub fn open_metrics_float(v: f64) -> String {
    if !v.is_finite() {
        return go_float(v);
    }
    let text = go_float(v);
    if text.contains(['.', 'e']) { text } else { format!("{text}.0") }
}

/// `%q` for the strings that occur in labels.
pub fn go_quote(s: &str) -> String {
    let mut out = String::with_capacity(s.len() + 2);
    out.push('"');
    for c in s.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if c.is_control() => out.push_str(&format!("\\x{:02x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_go_prints() {
        for (v, text) in [
            (0.5, "0.5"),
            (1e-5, "1e-05"),
            (1234567.0, "1.234567e+06"),
            (100000.0, "100000"),
            (f64::INFINITY, "+Inf"),
            (-1.1, "-1.1"),
        ] {
            assert_eq!(go_float(v), text);
        }
        assert_eq!(significant(0.0001234, 2), "0.00012");
        assert_eq!(significant(123.0, 2), "1.2e+02");
        assert_eq!(open_metrics_float(1.0), "1.0");
        assert_eq!(plain_float(1e21), "1000000000000000000000");
        assert_eq!(go_quote("a\"b\n"), r#""a\"b\n""#);
    }
}
