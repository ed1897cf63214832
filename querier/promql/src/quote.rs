//! Strings as queries write them: quoting as Go does, and unquoting of `"…"`, `'…'` and `` `…` ``.

use std::fmt::Write;

/// Decodes the first character. Bytes that are not UTF-8 give `None` and a width of 1; no bytes give a width of 0.
pub(crate) fn decode_char(bytes: &[u8]) -> (Option<char>, usize) {
    let width = match bytes.first() {
        None => return (None, 0),
        Some(b) if b.is_ascii() => return (Some(char::from(*b)), 1),
        Some(b) if *b >= 0xf0 => 4,
        Some(b) if *b >= 0xe0 => 3,
        Some(_) => 2,
    };
    let text = bytes.get(..width).and_then(|b| std::str::from_utf8(b).ok());
    match text.and_then(|t| t.chars().next()) {
        Some(c) => (Some(c), width),
        None => (None, 1),
    }
}

/// The text in double quotes, escaped so that unquoting gives the same bytes.
pub(crate) fn quote(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() + 2);
    out.push('"');
    escape(&mut out, bytes, '"');
    out.push('"');
    out
}

/// A character in single quotes.
pub(crate) fn quote_char(c: Option<char>) -> String {
    let mut out = String::from("'");
    let mut buf = [0; 4];
    escape(&mut out, c.unwrap_or(char::REPLACEMENT_CHARACTER).encode_utf8(&mut buf).as_bytes(), '\'');
    out.push('\'');
    out
}

/// A character as `U+002E '.'`.
pub(crate) fn unicode_char(c: Option<char>) -> String {
    let c = c.unwrap_or(char::REPLACEMENT_CHARACTER);
    if is_print(c) { format!("U+{:04X} '{c}'", c as u32) } else { format!("U+{:04X}", c as u32) }
}

fn escape(out: &mut String, mut bytes: &[u8], quote: char) {
    while !bytes.is_empty() {
        let (c, width) = decode_char(bytes);
        // Writing to a string does not fail.
        let _ = match c {
            None => write!(out, "\\x{:02x}", bytes.first().copied().unwrap_or_default()),
            Some(c) if c == quote || c == '\\' => write!(out, "\\{c}"),
            Some('\x07') => write!(out, "\\a"),
            Some('\x08') => write!(out, "\\b"),
            Some('\x0c') => write!(out, "\\f"),
            Some('\n') => write!(out, "\\n"),
            Some('\r') => write!(out, "\\r"),
            Some('\t') => write!(out, "\\t"),
            Some('\x0b') => write!(out, "\\v"),
            Some(c) if is_print(c) => write!(out, "{c}"),
            Some(c) if (c as u32) < 0x80 => write!(out, "\\x{:02x}", c as u32),
            Some(c) if (c as u32) < 0x1_0000 => write!(out, "\\u{:04x}", c as u32),
            Some(c) => write!(out, "\\U{:08x}", c as u32),
        };
        bytes = bytes.get(width.max(1)..).unwrap_or_default();
    }
}

/// Whether a character is shown as itself. Beyond ASCII this is what the standard library shows as itself inside of a
/// string (behind a letter, because combining marks are escaped only at the start).
fn is_print(c: char) -> bool {
    if c.is_ascii() {
        return (' '..='~').contains(&c);
    }
    let shown = format!("{:?}", String::from_iter(['a', c]));
    !shown.contains("\\u{")
}

/// Why a quoted string cannot be unquoted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("invalid syntax")]
pub(crate) struct UnquoteError;

/// The bytes that a quoted string stands for.
pub(crate) fn unquote(quoted: &[u8]) -> Result<Vec<u8>, UnquoteError> {
    let (quote, rest) = quoted.split_first().ok_or(UnquoteError)?;
    let (last, inner) = rest.split_last().ok_or(UnquoteError)?;
    if last != quote {
        return Err(UnquoteError);
    }
    match quote {
        b'`' if inner.contains(&b'`') => Err(UnquoteError),
        b'`' => Ok(inner.to_vec()),
        b'"' | b'\'' if inner.contains(&b'\n') => Err(UnquoteError),
        b'"' | b'\'' if !inner.contains(&b'\\') && !inner.contains(quote) => Ok(inner.to_vec()),
        b'"' | b'\'' => unescape(inner, *quote),
        _ => Err(UnquoteError),
    }
}

fn unescape(mut rest: &[u8], quote: u8) -> Result<Vec<u8>, UnquoteError> {
    let mut out = Vec::with_capacity(rest.len());
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte == quote {
            return Err(UnquoteError);
        }
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        let (&escape, tail) = rest.split_first().ok_or(UnquoteError)?;
        rest = tail;
        match escape {
            b'a' => out.push(0x07),
            b'b' => out.push(0x08),
            b'f' => out.push(0x0c),
            b'n' => out.push(b'\n'),
            b'r' => out.push(b'\r'),
            b't' => out.push(b'\t'),
            b'v' => out.push(0x0b),
            b'\\' => out.push(b'\\'),
            b'\'' | b'"' if escape == quote => out.push(escape),
            b'x' => out.push(u8::try_from(digits(&mut rest, 2, 16)?).map_err(|_| UnquoteError)?),
            b'u' | b'U' => {
                let code = digits(&mut rest, if escape == b'u' { 4 } else { 8 }, 16)?;
                let c = char::from_u32(code).ok_or(UnquoteError)?;
                out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            }
            b'0'..=b'7' => {
                let high = u32::from(escape - b'0');
                let code = high * 64 + digits(&mut rest, 2, 8)?;
                out.push(u8::try_from(code).map_err(|_| UnquoteError)?);
            }
            _ => return Err(UnquoteError),
        }
    }
    Ok(out)
}

fn digits(rest: &mut &[u8], count: usize, radix: u32) -> Result<u32, UnquoteError> {
    let (text, tail) = rest.split_at_checked(count).ok_or(UnquoteError)?;
    *rest = tail;
    text.iter().try_fold(0u32, |value, b| {
        let digit = char::from(*b).to_digit(radix).ok_or(UnquoteError)?;
        value.checked_mul(radix).and_then(|v| v.checked_add(digit)).ok_or(UnquoteError)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoting_and_unquoting_are_inverse() {
        for bytes in [&b"a\"b\\c\n\t\x00\x7f"[..], "é☺\u{301}\u{200b}\u{10111}".as_bytes(), b"\xff\xfe", b""]
        {
            assert_eq!(unquote(quote(bytes).as_bytes()).unwrap(), bytes);
        }
        assert_eq!(quote("\u{7f}\u{200b}".as_bytes()), r#""\x7f\u200b""#);
    }

    #[test]
    fn bad_quoted_strings_are_refused() {
        for bad in [
            "",
            "\"",
            "\"a",
            "'a\"",
            "`a``",
            "\"\n\"",
            r#""\""#,
            r#""\x1""#,
            r#""\400""#,
            r#""\ud800""#,
            "\"a\"b\"",
        ] {
            assert!(unquote(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }
}
