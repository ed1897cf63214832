//! The values of parameters as SQL: each as a constant of its type, so that they may stand wherever a constant may.

use bytes::{Buf, Bytes};
use datafusion::logical_expr::sqlparser::ast::{Expr, Value};

use super::{
    error::PgError,
    rewrite::expression,
    types::{self, ColumnType, PgType},
};

/// A text in quotes.
pub fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// The expression of a parameter's value.
pub fn literal(value: Option<&Bytes>, kind: ColumnType, binary: bool) -> Result<Expr, PgError> {
    let Some(bytes) = value else { return null(kind) };
    if !kind.array && is_text(kind.scalar) {
        let text = utf8(bytes, kind)?;
        return Ok(Expr::Value(Value::SingleQuotedString(text.to_owned()).into()));
    }
    expression(&match (kind.array, binary) {
        (false, _) => scalar(bytes, kind.scalar, binary)?,
        (true, true) => binary_array(bytes.clone(), kind)?,
        (true, false) => {
            let text = utf8(bytes, kind)?;
            let items = array_items(text).ok_or_else(|| invalid(kind.scalar, text))?;
            let items = items
                .iter()
                .map(|i| match i {
                    Some(text) => scalar(text.as_bytes(), kind.scalar, false),
                    None => Ok("NULL".to_owned()),
                })
                .collect::<Result<Vec<_>, _>>()?;
            array(&items, kind)
        }
    })
}

/// NULL of a type: what stands for a parameter until its value is known.
pub fn null(kind: ColumnType) -> Result<Expr, PgError> {
    let array = if kind.array { "[]" } else { "" };
    expression(&format!("CAST(NULL AS {}{array})", sql_type(kind.scalar)))
}

fn array(items: &[String], kind: ColumnType) -> String {
    format!("CAST(ARRAY[{}] AS {}[])", items.join(", "), sql_type(kind.scalar))
}

fn is_text(kind: PgType) -> bool {
    matches!(
        kind,
        types::TEXT
            | types::VARCHAR
            | types::BPCHAR
            | types::NAME
            | types::UNKNOWN
            | types::JSON
            | types::CHAR
            | types::REGPROC
    )
}

/// The name that DataFusion has for a type.
fn sql_type(kind: PgType) -> &'static str {
    match kind {
        types::BOOL => "BOOLEAN",
        types::INT2 => "SMALLINT",
        types::INT4 => "INT",
        types::INT8 | types::OID => "BIGINT",
        types::FLOAT4 => "REAL",
        types::FLOAT8 => "DOUBLE",
        types::NUMERIC => "DECIMAL(38, 10)",
        types::DATE => "DATE",
        types::TIME => "TIME",
        types::TIMESTAMP => "TIMESTAMP",
        types::TIMESTAMPTZ => "TIMESTAMP WITH TIME ZONE",
        types::INTERVAL => "INTERVAL",
        types::BYTEA => "BYTEA",
        _ => "VARCHAR",
    }
}

fn invalid(kind: PgType, text: &str) -> PgError {
    PgError::new("22P02", format!("invalid input syntax for type {}: \"{text}\"", kind.sql_name))
}

fn utf8(bytes: &[u8], kind: ColumnType) -> Result<&str, PgError> {
    std::str::from_utf8(bytes)
        .map_err(|_| PgError::new("22021", format!("a value of type {} is not UTF-8", kind.sql_name())))
}

fn scalar(bytes: &[u8], kind: PgType, binary: bool) -> Result<String, PgError> {
    let text = if binary { binary_text(bytes, kind)? } else { text_form(bytes, kind)? };
    Ok(match kind {
        types::BOOL | types::INT2 | types::INT4 | types::INT8 | types::OID => text,
        types::BYTEA => format!("X{}", quoted(&text)),
        types::INTERVAL => format!("INTERVAL {}", quoted(&text)),
        kind if is_text(kind) || matches!(kind, types::UUID | types::JSONB) => quoted(&text),
        kind => format!("CAST({} AS {})", quoted(&text), sql_type(kind)),
    })
}

/// A value in text form, checked.
fn text_form(bytes: &[u8], kind: PgType) -> Result<String, PgError> {
    let text = utf8(bytes, ColumnType { scalar: kind, array: false })?;
    let trimmed = text.trim();
    Ok(match kind {
        types::BOOL => match trimmed.to_ascii_lowercase().as_str() {
            "t" | "true" | "y" | "yes" | "on" | "1" => "TRUE".to_owned(),
            "f" | "false" | "n" | "no" | "off" | "0" => "FALSE".to_owned(),
            _ => return Err(invalid(kind, text)),
        },
        types::INT2 | types::INT4 | types::INT8 | types::OID => {
            trimmed.parse::<i64>().map_err(|_| invalid(kind, text))?.to_string()
        }
        types::FLOAT4 | types::FLOAT8 => {
            let v = trimmed.parse::<f64>().map_err(|_| invalid(kind, text))?;
            v.to_string()
        }
        types::BYTEA => match trimmed.strip_prefix("\\x") {
            Some(hex) if hex.bytes().all(|b| b.is_ascii_hexdigit()) => hex.to_owned(),
            _ => return Err(invalid(kind, text)),
        },
        _ => trimmed.to_owned(),
    })
}

/// A value in binary form, as a text.
fn binary_text(bytes: &[u8], kind: PgType) -> Result<String, PgError> {
    let short = || PgError::new("22P03", format!("incorrect binary data format for type {}", kind.sql_name));
    let fixed = |n: usize| if bytes.len() == n { Ok(bytes) } else { Err(short()) };
    Ok(match kind {
        types::BOOL => if fixed(1)?[0] != 0 { "TRUE" } else { "FALSE" }.to_owned(),
        types::INT2 => fixed(2)?.get_i16().to_string(),
        types::INT4 => fixed(4)?.get_i32().to_string(),
        types::OID => fixed(4)?.get_u32().to_string(),
        types::INT8 => fixed(8)?.get_i64().to_string(),
        types::FLOAT4 => fixed(4)?.get_f32().to_string(),
        types::FLOAT8 => fixed(8)?.get_f64().to_string(),
        types::BYTEA => bytes.iter().map(|b| format!("{b:02x}")).collect(),
        types::TIMESTAMP | types::TIMESTAMPTZ => {
            let micros = fixed(8)?.get_i64();
            let at = chrono::DateTime::from_timestamp_micros(micros.saturating_add(946_684_800_000_000))
                .ok_or_else(short)?;
            let zone = if kind == types::TIMESTAMPTZ { "Z" } else { "" };
            format!("{}{zone}", at.format("%Y-%m-%dT%H:%M:%S%.6f"))
        }
        types::DATE => {
            let days = i64::from(fixed(4)?.get_i32()) + 10_957;
            let at = chrono::DateTime::from_timestamp(days * 86_400, 0).ok_or_else(short)?;
            at.format("%Y-%m-%d").to_string()
        }
        types::TIME => {
            let micros = fixed(8)?.get_i64();
            let at = chrono::DateTime::from_timestamp_micros(micros).ok_or_else(short)?;
            at.format("%H:%M:%S%.6f").to_string()
        }
        types::INTERVAL => {
            let mut b = fixed(16)?;
            let (micros, days, months) = (b.get_i64(), b.get_i32(), b.get_i32());
            let sign = if micros < 0 { "-" } else { "" };
            let micros = micros.unsigned_abs();
            format!(
                "{months} months {days} days {sign}{}.{:06} seconds",
                micros / 1_000_000,
                micros % 1_000_000
            )
        }
        types::NUMERIC => numeric_text(bytes).ok_or_else(short)?,
        types::UUID => {
            let hex: String = fixed(16)?.iter().map(|b| format!("{b:02x}")).collect();
            format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
        }
        types::JSONB => match bytes.split_first() {
            Some((1, text)) => utf8(text, ColumnType { scalar: kind, array: false })?.to_owned(),
            _ => return Err(short()),
        },
        _ => utf8(bytes, ColumnType { scalar: kind, array: false })?.to_owned(),
    })
}

/// A binary numeric in decimal notation; `None` where it is none.
fn numeric_text(mut b: &[u8]) -> Option<String> {
    if b.len() < 8 {
        return None;
    }
    let (count, weight, sign, scale) =
        (usize::from(b.get_u16()), i32::from(b.get_i16()), b.get_u16(), usize::from(b.get_u16()));
    match sign {
        0xc000 => return Some("NaN".into()),
        0xd000 => return Some("Infinity".into()),
        0xf000 => return Some("-Infinity".into()),
        0 | 0x4000 => {}
        _ => return None,
    }
    if b.len() != count * 2 {
        return None;
    }
    let groups: Vec<u16> = (0..count).map(|_| b.get_u16()).collect();
    let group =
        |power: i32| usize::try_from(weight - power).ok().and_then(|i| groups.get(i)).copied().unwrap_or(0);
    let mut whole: String = (0..=weight.max(0)).rev().map(|p| format!("{:04}", group(p))).collect();
    whole = whole.trim_start_matches('0').to_owned();
    if whole.is_empty() {
        whole.push('0');
    }
    let fraction: String = (1..=scale.div_ceil(4) as i32).map(|p| format!("{:04}", group(-p))).collect();
    let sign = if sign == 0x4000 { "-" } else { "" };
    Some(match fraction.get(..scale) {
        Some(digits) if !digits.is_empty() => format!("{sign}{whole}.{digits}"),
        _ => format!("{sign}{whole}"),
    })
}

fn binary_array(mut bytes: Bytes, kind: ColumnType) -> Result<String, PgError> {
    let broken =
        || PgError::new("22P03", format!("incorrect binary data format for type {}", kind.sql_name()));
    if bytes.len() < 12 {
        return Err(broken());
    }
    let (dimensions, _, element) = (bytes.get_i32(), bytes.get_i32(), bytes.get_u32());
    let scalar_kind = ColumnType::from_oid(element).filter(|t| !t.array).map_or(kind.scalar, |t| t.scalar);
    let mut items = Vec::new();
    match dimensions {
        0 => {}
        1 if bytes.len() >= 8 => {
            let count = usize::try_from(bytes.get_i32()).map_err(|_| broken())?;
            bytes.advance(4);
            if bytes.len() / 4 < count {
                return Err(broken());
            }
            for _ in 0..count {
                if bytes.len() < 4 {
                    return Err(broken());
                }
                match usize::try_from(bytes.get_i32()) {
                    Err(_) => items.push("NULL".to_owned()),
                    Ok(n) if n <= bytes.len() => items.push(scalar(&bytes.split_to(n), scalar_kind, true)?),
                    Ok(_) => return Err(broken()),
                }
            }
        }
        _ => return Err(PgError::unsupported("an array of several dimensions")),
    }
    Ok(array(&items, kind))
}

/// The items of an array of one dimension in text form; `None` where it is none. NULL items are `None`.
pub fn array_items(text: &str) -> Option<Vec<Option<String>>> {
    let inner = text.trim().strip_prefix('{')?.strip_suffix('}')?;
    let mut items = Vec::new();
    if inner.trim().is_empty() {
        return Some(items);
    }
    let mut chars = inner.chars();
    let (mut item, mut quoted, mut in_quotes) = (String::new(), false, false);
    loop {
        match chars.next() {
            Some('\\') => item.push(chars.next()?),
            Some('"') => {
                in_quotes = !in_quotes;
                quoted = true;
            }
            Some('{' | '}') if !in_quotes => return None,
            Some(c) if in_quotes || c != ',' => item.push(c),
            end => {
                if in_quotes {
                    return None;
                }
                let text = if quoted { std::mem::take(&mut item) } else { item.trim().to_owned() };
                items.push((quoted || !text.eq_ignore_ascii_case("null")).then_some(text));
                item.clear();
                quoted = false;
                if end.is_none() {
                    return Some(items);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sql(bytes: &'static [u8], kind: PgType, array: bool, binary: bool) -> String {
        literal(Some(&Bytes::from_static(bytes)), ColumnType { scalar: kind, array }, binary)
            .unwrap()
            .to_string()
    }

    #[test]
    fn values_become_constants() {
        assert_eq!(sql(b"o'x", types::TEXT, false, false), "'o''x'");
        assert_eq!(sql(b"-5", types::INT8, false, false), "-5");
        assert_eq!(sql(&[0, 0, 1, 0], types::INT4, false, true), "256");
        assert_eq!(sql(b"NaN", types::FLOAT8, false, false), "CAST('NaN' AS DOUBLE)");
        assert_eq!(
            sql(&[0; 8], types::TIMESTAMPTZ, false, true),
            "CAST('2000-01-01T00:00:00.000000Z' AS TIMESTAMP WITH TIME ZONE)"
        );
        assert_eq!(
            sql(b"{a,NULL,\"b,\\\"c\"}", types::TEXT, true, false),
            "CAST(ARRAY['a', NULL, 'b,\"c'] AS VARCHAR[])"
        );
        let ints = b"\0\0\0\x01\0\0\0\0\0\0\0\x17\0\0\0\x01\0\0\0\x01\0\0\0\x04\0\0\0\x07";
        assert_eq!(sql(ints, types::INT4, true, true), "CAST(ARRAY[7] AS INT[])");
        assert_eq!(
            sql(b"\0\x03\0\x01\0\0\0\x03\0\x01\x09\x29\x1a\x7c", types::NUMERIC, false, true),
            "CAST('12345.678' AS DECIMAL(38,10))"
        );
        assert!(
            literal(Some(&Bytes::from_static(b"x")), ColumnType { scalar: types::INT4, array: false }, false)
                .is_err()
        );
        assert!(
            literal(Some(&Bytes::from_static(b"\0")), ColumnType { scalar: types::INT8, array: false }, true)
                .is_err()
        );
        assert!(
            literal(
                Some(&Bytes::from_static(b"\0\0\0\x01\0\0\0\0\0\0\0\x17\x7f\xff\xff\xff\0\0\0\x01")),
                ColumnType { scalar: types::INT4, array: true },
                true
            )
            .is_err()
        );
    }
}
