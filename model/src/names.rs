//! Names for readers that know only letters, digits and underscores: escaping and its reverse.

/// How a name is written for a reader that does not take every UTF-8 name; the words of `escaping=` in content types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EscapingScheme {
    /// Each character that is not allowed becomes an underscore: `underscores`.
    Underscores,
    /// Dots become `_dot_`, underscores are doubled, other characters that are not allowed become `__`: `dots`.
    Dots,
    /// `U__`, then each character that is not allowed as its code in hexadecimal between underscores: `values`.
    Values,
}

/// Whether a character may stand at a place of a legacy metric name.
fn is_legacy(i: usize, c: char) -> bool {
    c.is_ascii_alphabetic() || c == '_' || c == ':' || (i > 0 && c.is_ascii_digit())
}

/// A name as a scheme writes it. Legacy names stay, except that `dots` doubles their underscores.
pub fn escape_name(name: &str, scheme: EscapingScheme) -> String {
    let is_plain = name.chars().enumerate().all(|(i, c)| is_legacy(i, c));
    if name.is_empty() || (is_plain && scheme != EscapingScheme::Dots) {
        return name.to_owned();
    }
    let mut out = String::with_capacity(name.len() + 8);
    if scheme == EscapingScheme::Values {
        out.push_str("U__");
    }
    for (i, c) in name.chars().enumerate() {
        match (scheme, c) {
            (EscapingScheme::Dots | EscapingScheme::Values, '_') => out.push_str("__"),
            (EscapingScheme::Dots, '.') => out.push_str("_dot_"),
            _ if is_legacy(i, c) => out.push(c),
            (EscapingScheme::Underscores, _) => out.push('_'),
            (EscapingScheme::Dots, _) => out.push_str("__"),
            (EscapingScheme::Values, _) => out.push_str(&format!("_{:x}_", u32::from(c))),
        }
    }
    out
}

/// The name that [`EscapingScheme::Values`] has written; the text itself where that has not written it.
pub fn unescape_name(name: &str) -> String {
    name.strip_prefix("U__").and_then(unescape_values).unwrap_or_else(|| name.to_owned())
}

fn unescape_values(escaped: &str) -> Option<String> {
    let mut out = String::with_capacity(escaped.len());
    let mut rest = escaped;
    while let Some((plain, tail)) = rest.split_once('_') {
        out.push_str(plain);
        let (code, after) = tail.split_once('_')?;
        out.push(match code {
            "" => '_',
            _ if code.len() > 6 || !code.bytes().all(|b| b.is_ascii_hexdigit()) => return None,
            _ => u32::from_str_radix(code, 16).ok().and_then(char::from_u32)?,
        });
        rest = after;
    }
    out.push_str(rest);
    Some(out)
}
