//! Prometheus' JSON, written as text: numbers, times, labels and histograms in its very notation.

use std::fmt::Write;

use sextant_model::{Histogram, Labels};

/// Appends a float as Go's `strconv.FormatFloat(v, 'f', -1, 64)`, with an exponent for very large and very small values.
pub fn push_float(out: &mut String, v: f64) {
    if v.is_nan() {
        out.push_str("NaN");
    } else if v.is_infinite() {
        out.push_str(if v > 0.0 { "+Inf" } else { "-Inf" });
    } else if v != 0.0 && !(1e-6..1e21).contains(&v.abs()) {
        let text = format!("{v:e}");
        match text.split_once('e') {
            Some((mantissa, exponent)) => {
                let (sign, digits) = match exponent.strip_prefix('-') {
                    Some(d) => ('-', d),
                    None => ('+', exponent),
                };
                let _ = write!(out, "{mantissa}e{sign}{digits:0>2}");
            }
            None => out.push_str(&text),
        }
    } else if v.trunc() == v && v.abs() < INTEGER_MAX {
        if v.is_sign_negative() {
            out.push('-');
        }
        push_integer(out, v.abs() as u64);
    } else if v.abs() >= 1e-5 && v.abs() < INTEGER_MAX {
        out.push_str(zmij::Buffer::new().format_finite(v));
    } else {
        let _ = write!(out, "{v}");
    }
}

/// Below it floats are written without an exponent, and whole ones are exact in 64 bits.
const INTEGER_MAX: f64 = 1e15;

fn push_integer(out: &mut String, n: u64) {
    out.push_str(itoa::Buffer::new().format(n));
}

/// Appends the quoted float of a scalar, which unlike a point's has no exponent however long it gets.
pub fn push_scalar(out: &mut String, v: f64) {
    out.push('"');
    if v.is_finite() && v != 0.0 && !(1e-6..1e21).contains(&v.abs()) {
        let _ = write!(out, "{v}");
    } else {
        push_float(out, v);
    }
    out.push('"');
}

/// Appends a quoted float.
pub fn push_quoted_float(out: &mut String, v: f64) {
    out.push('"');
    push_float(out, v);
    out.push('"');
}

/// Appends a time given in milliseconds as seconds, with three decimals where it is not whole.
pub fn push_time(out: &mut String, ms: i64) {
    let abs = ms.unsigned_abs();
    if ms < 0 {
        out.push('-');
    }
    push_integer(out, abs / 1000);
    if !abs.is_multiple_of(1000) {
        let _ = write!(out, ".{:03}", abs % 1000);
    }
}

/// Appends a JSON string.
pub fn push_string(out: &mut String, s: &str) {
    out.push('"');
    let mut plain = 0;
    for (i, b) in s.bytes().enumerate() {
        let escape = match b {
            b'"' => "\\\"",
            b'\\' => "\\\\",
            b'\n' => "\\n",
            b'\r' => "\\r",
            b'\t' => "\\t",
            0..=0x1f => "",
            _ => continue,
        };
        out.push_str(&s[plain..i]);
        if escape.is_empty() {
            let _ = write!(out, "\\u{b:04x}");
        } else {
            out.push_str(escape);
        }
        plain = i + 1;
    }
    out.push_str(&s[plain..]);
    out.push('"');
}

/// Appends a label set as an object.
pub fn push_labels(out: &mut String, labels: &Labels) {
    out.push('{');
    for (i, (n, v)) in labels.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        push_string(out, n);
        out.push(':');
        push_string(out, v);
    }
    out.push('}');
}

/// Appends an array of strings.
pub fn push_strings<'a>(out: &mut String, items: impl IntoIterator<Item = &'a str>) {
    out.push('[');
    for (i, s) in items.into_iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        push_string(out, s);
    }
    out.push(']');
}

/// Appends `[time, "value"]`.
pub fn push_point(out: &mut String, t: i64, v: f64) {
    out.push('[');
    push_time(out, t);
    out.push(',');
    push_quoted_float(out, v);
    out.push(']');
}

/// Appends `[time, {count, sum, buckets}]`.
pub fn push_histogram_point(out: &mut String, t: i64, h: &Histogram) {
    out.push('[');
    push_time(out, t);
    out.push(',');
    push_histogram(out, h);
    out.push(']');
}

/// Appends a histogram: count, sum and, where there are any, its non-empty buckets as `[rule, lower, upper, count]`.
///
/// Rules: 0 lower exclusive and upper inclusive, 1 lower inclusive and upper exclusive, 2 both exclusive, 3 both inclusive.
pub fn push_histogram(out: &mut String, h: &Histogram) {
    out.push_str("{\"count\":");
    push_quoted_float(out, h.count);
    out.push_str(",\"sum\":");
    push_quoted_float(out, h.sum);
    let mut first = true;
    for b in h.all_buckets() {
        if b.count == 0.0 {
            continue;
        }
        out.push_str(if first { ",\"buckets\":[" } else { "," });
        first = false;
        let rule = match (b.lower_inclusive, b.upper_inclusive) {
            (false, true) => 0,
            (true, false) => 1,
            (false, false) => 2,
            (true, true) => 3,
        };
        let _ = write!(out, "[{rule},");
        push_quoted_float(out, b.lower);
        out.push(',');
        push_quoted_float(out, b.upper);
        out.push(',');
        push_quoted_float(out, b.count);
        out.push(']');
    }
    if !first {
        out.push(']');
    }
    out.push('}');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_as_go_prints_them() {
        for (v, text) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.0, "1"),
            (0.1, "0.1"),
            (1e20, "100000000000000000000"),
            (1e21, "1e+21"),
            (1.5e-7, "1.5e-07"),
            (0.000001, "0.000001"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
            (1e100, "1e+100"),
            (969_743_328_285_844.0 + 0.25, "969743328285844.2"),
            (969_743_328_285_844.0 + 0.75, "969743328285844.8"),
        ] {
            let mut s = String::new();
            push_float(&mut s, v);
            assert_eq!(s, text);
        }
        let mut s = String::new();
        push_scalar(&mut s, 1e21);
        push_scalar(&mut s, 1.5e-7);
        push_scalar(&mut s, f64::NEG_INFINITY);
        assert_eq!(s, "\"1000000000000000000000\"\"0.00000015\"\"-Inf\"");
        // Whatever writes the digits, they are the shortest, and there is no exponent within the range.
        let mut bits = 0x3ee4_f8b5_88e3_68f1u64;
        for i in 0..200_000u64 {
            let v = f64::from_bits(bits);
            if (1e-6..1e21).contains(&v.abs()) {
                let mut s = String::new();
                push_float(&mut s, if i % 3 == 0 { (v * 1000.0).round() / 1000.0 } else { v });
                let exact = if i % 3 == 0 { (v * 1000.0).round() / 1000.0 } else { v };
                let text = format!("{exact}");
                // Half way between two shortest texts Go takes the even one, as is tested below.
                assert!(s == text || (s.len() == text.len() && s.parse() == Ok(exact)), "{s} {text}");
            }
            // From 1e-6 to 1e21, both signs, all mantissas.
            bits = (bits.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(i) & 0x800f_ffff_ffff_ffff)
                | ((0x3eb + i % 0x5b) << 52);
        }
        for (ms, text) in [(0, "0"), (1500, "1.500"), (-1, "-0.001"), (1_433_337_718_005, "1433337718.005")] {
            let mut s = String::new();
            push_time(&mut s, ms);
            assert_eq!(s, text);
        }
        let mut s = String::new();
        push_string(&mut s, "a\"b\\c\n\u{1}é");
        assert_eq!(s, "\"a\\\"b\\\\c\\n\\u0001é\"");
    }
}
