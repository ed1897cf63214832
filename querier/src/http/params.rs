//! Parameters of Prometheus' HTTP API: from the query string and, for POST, the form body.

use std::fmt;

use sextant_promql::parse_duration;

/// A parameter that is missing or wrong; becomes `bad_data`, 400.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadParameter(pub String);

impl BadParameter {
    /// `invalid parameter "name": reason`.
    pub fn invalid(name: &str, reason: impl fmt::Display) -> Self {
        Self(format!("invalid parameter {name:?}: {reason}"))
    }
}

/// Decoded parameters in order; a name may occur several times.
#[derive(Clone, Debug, Default)]
pub struct Params(Vec<(String, String)>);

impl Params {
    /// Reads the query string and a form body; the body's values come first, as in Go's `ParseForm`. Like there, a pair
    /// with a semicolon or a wrong escape is left out.
    pub fn parse(query: Option<&str>, form: &[u8]) -> Self {
        let pairs = [form, query.unwrap_or("").as_bytes()].map(|text| text.split(|&b| b == b'&'));
        let sound = pairs.into_iter().flatten().filter(|pair| is_sound(pair));
        Self(sound.flat_map(|pair| form_urlencoded::parse(pair).into_owned()).collect())
    }

    /// The first value of a name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// All values of a name.
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.0.iter().filter(|(n, _)| n == name).map(|(_, v)| v.as_str()).collect()
    }

    /// A time in milliseconds, or a default where the parameter is absent or empty.
    pub fn time_or(&self, name: &str, default: i64) -> Result<i64, BadParameter> {
        match self.get(name) {
            None | Some("") => Ok(default),
            Some(text) => parse_time(text)
                .map_err(|e| BadParameter::invalid(name, format!("invalid time value for '{name}': {e}"))),
        }
    }

    /// A required time in milliseconds.
    pub fn time(&self, name: &str) -> Result<i64, BadParameter> {
        parse_time(self.get(name).unwrap_or("")).map_err(|e| BadParameter::invalid(name, e))
    }

    /// A duration in milliseconds, `None` where the parameter is absent or empty.
    pub fn duration(&self, name: &str) -> Result<Option<i64>, BadParameter> {
        match self.get(name) {
            None | Some("") => Ok(None),
            Some(text) => parse_span(text).map(Some).map_err(|e| BadParameter::invalid(name, e)),
        }
    }

    /// `limit`: 0 or absent is no limit.
    pub fn limit(&self, name: &str) -> Result<Option<usize>, BadParameter> {
        match self.get(name) {
            None | Some("") => Ok(None),
            Some(text) => match parse_whole(text) {
                Ok(n) if n >= 0 => Ok(Some(n as usize).filter(|&n| n > 0)),
                Ok(_) => Err(BadParameter::invalid(name, "limit must be non-negative")),
                Err(reason) => Err(BadParameter::invalid(name, format!("strconv.Atoi: {reason}"))),
            },
        }
    }

    /// A number where absent or empty is `None`, with one text for every error.
    pub fn number(&self, name: &str, error: &str) -> Result<Option<i64>, BadParameter> {
        match self.get(name) {
            None | Some("") => Ok(None),
            Some(text) => parse_whole(text).map(Some).map_err(|_| BadParameter(error.to_owned())),
        }
    }

    /// A truth value in the spellings of Go's `strconv.ParseBool`; absent or empty is false.
    pub fn flag(&self, name: &str, context: &str) -> Result<bool, BadParameter> {
        match self.get(name) {
            None | Some("" | "0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
            Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(true),
            Some(text) => {
                let reason = format!("{context}: strconv.ParseBool: parsing {text:?}: invalid syntax");
                Err(BadParameter::invalid(name, reason))
            }
        }
    }
}

/// Whether Go's form parser takes a pair: no semicolon, and each `%` before two hexadecimal digits.
fn is_sound(pair: &[u8]) -> bool {
    let escape =
        |at: usize| matches!(pair.get(at + 1..at + 3), Some(d) if d.iter().all(u8::is_ascii_hexdigit));
    !pair.contains(&b';') && pair.iter().enumerate().all(|(i, &b)| b != b'%' || escape(i))
}

/// A whole number; the error as Go's `strconv` words it, without the function's name.
pub fn parse_whole(text: &str) -> Result<i64, String> {
    use std::num::IntErrorKind as K;
    text.parse::<i64>().map_err(|e| match e.kind() {
        K::PosOverflow | K::NegOverflow => format!("parsing {text:?}: value out of range"),
        _ => format!("parsing {text:?}: invalid syntax"),
    })
}

/// Earliest and latest time of the API: what `time.Unix(math.MinInt64/1000+62135596801, 0)` and its opposite give in
/// Prometheus, accepted as RFC 3339 literals.
const MIN_TIME_TEXT: &str = "-292273086-05-16T16:47:06Z";
const MAX_TIME_TEXT: &str = "292277025-08-18T07:12:54.999999999Z";

/// Reads a time: Unix seconds with an optional fraction, or RFC 3339. Milliseconds.
pub fn parse_time(text: &str) -> Result<i64, String> {
    if let Ok(seconds) = text.parse::<f64>()
        && seconds.is_finite()
    {
        let ms = (seconds * 1000.0).round();
        if ms.abs() < i64::MAX as f64 {
            return Ok(ms as i64);
        }
    }
    match text {
        MIN_TIME_TEXT => return Ok(-9_223_309_901_257_974),
        MAX_TIME_TEXT => return Ok(9_223_309_901_257_974),
        _ => {}
    }
    chrono::DateTime::parse_from_rfc3339(text)
        .map(|t| t.timestamp_millis())
        .map_err(|_| format!("cannot parse {text:?} to a valid timestamp"))
}

/// Reads a duration: seconds with an optional fraction, or Prometheus' notation. Milliseconds.
pub fn parse_span(text: &str) -> Result<i64, String> {
    if let Ok(seconds) = text.parse::<f64>() {
        let ms = seconds * 1000.0;
        if !ms.is_finite() || ms.abs() > i64::MAX as f64 / 1_000_000.0 {
            return Err(format!("cannot parse {text:?} to a valid duration. It overflows int64"));
        }
        return Ok(ms as i64);
    }
    parse_duration(text).map_err(|_| format!("cannot parse {text:?} to a valid duration"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_durations() {
        assert_eq!(parse_time("1.5"), Ok(1500));
        assert_eq!(parse_time("2015-06-03T13:21:58.555Z"), Ok(1_433_337_718_555));
        assert_eq!(parse_time("2015-06-03T14:21:58.555+01:00"), Ok(1_433_337_718_555));
        assert!(parse_time("").is_err() && parse_time("abc").is_err() && parse_time("30s").is_err());
        assert_eq!(parse_span("15"), Ok(15_000));
        assert_eq!(parse_span("5m"), Ok(300_000));
        assert!(parse_span("").is_err() && parse_span("-").is_err() && parse_span("1e300").is_err());
        let p = Params::parse(Some("match[]=a&match[]=b&limit=0"), b"query=x%2By");
        assert_eq!(p.all("match[]"), ["a", "b"]);
        assert_eq!(p.get("query"), Some("x+y"));
        assert_eq!(p.limit("limit"), Ok(None));
        let p = Params::parse(Some("a=%zz&b=1;c=2&d=%&e=%41&f=x&f=t"), b"");
        assert_eq!([p.get("a"), p.get("b"), p.get("d"), p.get("e")], [None, None, None, Some("A")]);
        assert!(p.limit("f").unwrap_err().0.contains("invalid syntax") && p.flag("f", "x").is_err());
        assert_eq!(p.number("f", "f must be a number"), Err(BadParameter("f must be a number".into())));
    }
}
