//! Rows as PostgreSQL sends them: each value in its type's text or binary form.

use std::fmt::Write;

use arrow_array::{Array, RecordBatch};
use bytes::{BufMut, BytesMut};

use super::{
    cells::{Cell, Column},
    error::PgError,
    types::{self, ColumnType},
    wire::{Answers, ColumnDescription},
};

/// Microseconds from 1970 to 2000, where PostgreSQL's clock starts.
const EPOCH_MICROS: i64 = 946_684_800_000_000;
/// Days from 1970 to 2000.
const EPOCH_DAYS: i32 = 10_957;
const DAY_MICROS: i64 = 86_400_000_000;

/// Writes the rows `from..to` of a batch.
pub fn rows(
    out: &mut Answers,
    batch: &RecordBatch,
    from: usize,
    to: usize,
    columns: &[(ColumnType, ColumnDescription)],
) -> Result<(), PgError> {
    let readers = batch
        .columns()
        .iter()
        .zip(columns)
        .map(|(array, (kind, described))| {
            Ok((Column::new(&array.slice(from, to - from), *kind)?, *kind, described.binary))
        })
        .collect::<Result<Vec<_>, PgError>>()?;
    let mut failed = None;
    for row in 0..to - from {
        out.put(b'D', |b| {
            b.put_u16(readers.len() as u16);
            for (reader, kind, binary) in &readers {
                match reader.cell(row) {
                    Ok(None) => b.put_i32(-1),
                    Ok(Some(cell)) => sized(b, |b| value(b, &cell, *kind, *binary)),
                    Err(e) => failed = Some(e),
                }
            }
        });
        if let Some(e) = failed {
            return Err(e);
        }
    }
    Ok(())
}

/// What `write` puts, after its length.
fn sized(b: &mut BytesMut, write: impl FnOnce(&mut BytesMut)) {
    let at = b.len();
    b.put_i32(0);
    write(b);
    let length = (b.len() - at - 4) as u32;
    b[at..at + 4].copy_from_slice(&length.to_be_bytes());
}

fn value(b: &mut BytesMut, cell: &Cell<'_>, kind: ColumnType, binary: bool) {
    match (cell, binary) {
        (Cell::Array(items), true) => array_binary(b, items, kind),
        (Cell::Array(items), false) => array_text(b, items, kind),
        (cell, true) => binary_value(b, cell, kind),
        (cell, false) => text_value(b, cell),
    }
}

fn binary_value(b: &mut BytesMut, cell: &Cell<'_>, kind: ColumnType) {
    match cell {
        Cell::Bool(v) => b.put_u8(u8::from(*v)),
        Cell::Int(v) => match kind.scalar.size {
            1 => b.put_u8(*v as u8),
            2 => b.put_i16(*v as i16),
            4 => b.put_i32(*v as i32),
            _ => b.put_i64(*v),
        },
        Cell::Float(v) if kind.scalar == types::FLOAT4 => b.put_f32(*v as f32),
        Cell::Float(v) => b.put_f64(*v),
        Cell::Text(v) => b.put_slice(v.as_bytes()),
        Cell::Json(v) => {
            if kind.scalar == types::JSONB {
                b.put_u8(1);
            }
            b.put_slice(v.as_bytes());
        }
        Cell::Bytes(v) => b.put_slice(v),
        Cell::Numeric(v) => numeric_binary(b, v),
        Cell::Date(v) => b.put_i32(v.saturating_sub(EPOCH_DAYS)),
        Cell::Time(v) => b.put_i64(*v),
        Cell::Timestamp { micros, .. } => b.put_i64(match *micros {
            i64::MIN | i64::MAX => *micros,
            v => v.saturating_sub(EPOCH_MICROS),
        }),
        Cell::Interval { months, days, micros } => {
            b.put_i64(*micros);
            b.put_i32(*days);
            b.put_i32(*months);
        }
        Cell::Array(_) => {}
    }
}

/// The text form of a value that is not an array.
fn text_value(b: &mut BytesMut, cell: &Cell<'_>) {
    match cell {
        Cell::Bool(v) => b.put_u8(if *v { b't' } else { b'f' }),
        Cell::Int(v) => put(b, format_args!("{v}")),
        Cell::Float(v) => b.put_slice(float_text(*v).as_bytes()),
        Cell::Text(v) => b.put_slice(v.as_bytes()),
        Cell::Json(v) | Cell::Numeric(v) => b.put_slice(v.as_bytes()),
        Cell::Bytes(v) => {
            b.put_slice(b"\\x");
            v.iter().for_each(|byte| put(b, format_args!("{byte:02x}")));
        }
        Cell::Date(days) => date_text(b, *days),
        Cell::Time(micros) => time_text(b, *micros),
        Cell::Timestamp { micros: i64::MAX, .. } => b.put_slice(b"infinity"),
        Cell::Timestamp { micros: i64::MIN, .. } => b.put_slice(b"-infinity"),
        Cell::Timestamp { micros, zoned } => {
            let (year, month, day) = civil(micros.div_euclid(DAY_MICROS));
            put(b, format_args!("{:04}-{month:02}-{day:02} ", if year > 0 { year } else { 1 - year }));
            time_text(b, micros.rem_euclid(DAY_MICROS));
            if *zoned {
                b.put_slice(b"+00");
            }
            if year <= 0 {
                b.put_slice(b" BC");
            }
        }
        Cell::Interval { months, days, micros } => interval_text(b, *months, *days, *micros),
        Cell::Array(_) => {}
    }
}

/// The text form of a value that is not an array, as a text.
pub fn plain_text(cell: &Cell<'_>) -> String {
    let mut b = BytesMut::new();
    text_value(&mut b, cell);
    String::from_utf8_lossy(&b).into_owned()
}

fn put(b: &mut BytesMut, text: std::fmt::Arguments<'_>) {
    // Writing to memory does not fail.
    let _ = b.write_fmt(text);
}

/// A float as PostgreSQL spells it: shortest digits that read back as the same number, with an exponent from 1e15 on and
/// below 1e-4.
pub fn float_text(v: f64) -> String {
    if v.is_nan() {
        return "NaN".into();
    }
    if v.is_infinite() {
        return if v > 0.0 { "Infinity" } else { "-Infinity" }.into();
    }
    let scientific = format!("{v:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    match exponent.parse::<i32>() {
        Ok(e) if !(-4..15).contains(&e) => {
            format!("{digits}e{}{:02}", if e < 0 { '-' } else { '+' }, e.unsigned_abs())
        }
        _ => format!("{v}"),
    }
}

/// The date of a number of days since 1970 in the proleptic Gregorian calendar; year 0 is 1 BC.
///
/// Days are counted from 1 March of year 0, so that the leap day ends a year, in eras of 400 years (146,097 days).
fn civil(days: i64) -> (i64, u32, u32) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = (day_of_year - (153 * shifted + 2) / 5 + 1) as u32;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 } as u32;
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

fn date_text(b: &mut BytesMut, days: i32) {
    let (year, month, day) = civil(i64::from(days));
    put(b, format_args!("{:04}-{month:02}-{day:02}", if year > 0 { year } else { 1 - year }));
    if year <= 0 {
        b.put_slice(b" BC");
    }
}

/// `hh:mm:ss` with as many decimals as are needed.
fn time_text(b: &mut BytesMut, micros: i64) {
    let seconds = micros / 1_000_000;
    put(b, format_args!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60));
    let fraction = micros % 1_000_000;
    if fraction != 0 {
        put(b, format_args!(".{}", format!("{fraction:06}").trim_end_matches('0')));
    }
}

fn interval_text(b: &mut BytesMut, months: i32, days: i32, micros: i64) {
    let mut parts = Vec::new();
    let mut part = |n: i32, name: &str| {
        if n != 0 {
            parts.push(format!("{n} {name}{}", if n == 1 { "" } else { "s" }));
        }
    };
    part(months / 12, "year");
    part(months % 12, "mon");
    part(days, "day");
    b.put_slice(parts.join(" ").as_bytes());
    if micros != 0 || parts.is_empty() {
        if !parts.is_empty() {
            b.put_u8(b' ');
        }
        if micros < 0 {
            b.put_u8(b'-');
        }
        time_text(b, micros.checked_abs().unwrap_or(i64::MAX));
    }
}

/// PostgreSQL's binary numeric: digits of base 10,000 from the most significant, the first one's power, sign and scale.
fn numeric_binary(b: &mut BytesMut, text: &str) {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let lead = (4 - whole.len() % 4) % 4;
    let trail = (4 - fraction.len() % 4) % 4;
    let padded = format!("{}{whole}{fraction}{}", "0".repeat(lead), "0".repeat(trail));
    let mut groups: Vec<i16> =
        padded.as_bytes().chunks(4).map(|g| g.iter().fold(0, |n, d| n * 10 + i16::from(d - b'0'))).collect();
    let mut weight = ((whole.len() + lead) / 4) as i16 - 1;
    while groups.last() == Some(&0) {
        groups.pop();
    }
    let zeros = groups.iter().take_while(|g| **g == 0).count();
    groups.drain(..zeros);
    weight -= zeros as i16;
    if groups.is_empty() {
        weight = 0;
    }
    b.put_u16(groups.len() as u16);
    b.put_i16(weight);
    b.put_u16(if negative && !groups.is_empty() { 0x4000 } else { 0 });
    b.put_u16(fraction.len() as u16);
    groups.iter().for_each(|g| b.put_i16(*g));
}

fn array_binary(b: &mut BytesMut, items: &[Option<Cell<'_>>], kind: ColumnType) {
    b.put_i32(i32::from(!items.is_empty()));
    b.put_i32(i32::from(items.iter().any(Option::is_none)));
    b.put_u32(kind.scalar.oid);
    if items.is_empty() {
        return;
    }
    b.put_i32(items.len() as i32);
    b.put_i32(1);
    for item in items {
        match item {
            None => b.put_i32(-1),
            Some(cell) => sized(b, |b| binary_value(b, cell, kind)),
        }
    }
}

fn array_text(b: &mut BytesMut, items: &[Option<Cell<'_>>], kind: ColumnType) {
    b.put_u8(b'{');
    let mut item_text = BytesMut::new();
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            b.put_u8(b',');
        }
        let Some(cell) = item else {
            b.put_slice(b"NULL");
            continue;
        };
        item_text.clear();
        text_value(&mut item_text, cell);
        let plain = matches!(kind.scalar.category, "N" | "B")
            || (!item_text.is_empty()
                && !item_text.eq_ignore_ascii_case(b"null")
                && !item_text.iter().any(|c| b"{},\"\\".contains(c) || c.is_ascii_whitespace()));
        if plain {
            b.put_slice(&item_text);
        } else {
            b.put_u8(b'"');
            for c in &item_text {
                if matches!(c, b'"' | b'\\') {
                    b.put_u8(b'\\');
                }
                b.put_u8(*c);
            }
            b.put_u8(b'"');
        }
    }
    b.put_u8(b'}');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(cell: Cell<'_>) -> String {
        let mut b = BytesMut::new();
        text_value(&mut b, &cell);
        String::from_utf8(b.to_vec()).unwrap()
    }

    #[test]
    fn floats_are_spelled_as_postgresql_spells_them() {
        for (v, expected) in [
            (f64::NAN, "NaN"),
            (f64::INFINITY, "Infinity"),
            (f64::NEG_INFINITY, "-Infinity"),
            (-0.0, "-0"),
            (0.1, "0.1"),
            (1e14, "100000000000000"),
            (1e15, "1e+15"),
            (1.5e300, "1.5e+300"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (123456.75, "123456.75"),
        ] {
            assert_eq!(float_text(v), expected);
        }
    }

    #[test]
    fn times_are_spelled_as_postgresql_spells_them() {
        let ts = |micros| text(Cell::Timestamp { micros, zoned: true });
        assert_eq!(ts(0), "1970-01-01 00:00:00+00");
        assert_eq!(ts(1_709_164_800_120_000), "2024-02-29 00:00:00.12+00");
        assert_eq!(ts(-1), "1969-12-31 23:59:59.999999+00");
        assert_eq!(ts(i64::MAX), "infinity");
        assert_eq!(ts(-62_135_596_800_000_001), "0001-12-31 23:59:59.999999+00 BC");
        assert_eq!(text(Cell::Date(19_782)), "2024-02-29");
        assert_eq!(
            text(Cell::Interval { months: 14, days: 1, micros: -1_500_000 }),
            "1 year 2 mons 1 day -00:00:01.5"
        );
        assert_eq!(text(Cell::Interval { months: 0, days: 0, micros: 0 }), "00:00:00");
    }

    #[test]
    fn numerics_in_binary() {
        let binary = |t: &str| {
            let mut b = BytesMut::new();
            numeric_binary(&mut b, t);
            b.chunks(2).map(|c| i16::from_be_bytes([c[0], c[1]])).collect::<Vec<_>>()
        };
        assert_eq!(binary("12345.678"), [3, 1, 0, 3, 1, 2345, 6780]);
        assert_eq!(binary("-0.00012"), [2, -1, 0x4000, 5, 1, 2000]);
        assert_eq!(binary("0.00"), [0, 0, 0, 2]);
        assert_eq!(binary("10000"), [1, 1, 0, 0, 1]);
    }

    #[test]
    fn arrays() {
        let kind = ColumnType { scalar: types::TEXT, array: true };
        let items = [Some(Cell::Text("a")), None, Some(Cell::Text("b \"c\"")), Some(Cell::Text(""))];
        let mut b = BytesMut::new();
        array_text(&mut b, &items, kind);
        assert_eq!(&b[..], br#"{a,NULL,"b \"c\"",""}"#);
    }
}
