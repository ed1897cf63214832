//! Values of configuration keys: durations, bytes, listeners.

use std::{net::SocketAddr, time::Duration};

use super::Kind;

/// An address to listen on, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listen {
    /// The listener is turned off.
    Off,
    /// Listen here; port 0 picks a free one.
    At(SocketAddr),
}

impl Listen {
    /// Reads `host:port` or `off`.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self::Off);
        }
        let text = text
            .strip_prefix("localhost:")
            .map_or_else(|| text.to_owned(), |port| format!("127.0.0.1:{port}"));
        text.parse().map(Self::At).map_err(|_| format!("{text:?} is neither IP:PORT nor `off`"))
    }
}

/// Checks a value against its key's kind; the error says what is wrong.
pub fn check(kind: Kind, value: &str) -> Result<(), String> {
    match kind {
        Kind::Text | Kind::Secret => Ok(()),
        Kind::Bool if matches!(value, "true" | "false") => Ok(()),
        Kind::Bool => Err(format!("{value:?} is neither true nor false")),
        Kind::Integer => {
            value.parse::<u64>().map(drop).map_err(|_| format!("{value:?} is not a whole number"))
        }
        Kind::Duration => parse_duration(value).map(drop),
        Kind::Bytes => parse_bytes(value).map(drop),
        Kind::Listen => Listen::parse(value).map(drop),
    }
}

/// Reads a duration: one or more of a number and a unit (`ms`, `s`, `m`, `h`, `d`, `w`).
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|e| format!("{text:?} is not a duration: {e}"))
}

/// Reads a number of bytes: a whole number with an optional unit, `KB`, `MB`, `GB` (powers of 1000) or `KiB`, `MiB`, `GiB`.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().map_err(|_| format!("{text:?} is not a number of bytes"))?;
    let unit: u64 = match text[digits..].trim() {
        "" | "B" => 1,
        "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        other => {
            return Err(format!("{text:?}: unknown unit {other:?}; units are KB, MB, GB, KiB, MiB, GiB"));
        }
    };
    number.checked_mul(unit).ok_or_else(|| format!("{text:?} is too large"))
}
