//! OpenMetrics 0.0.1 and 1.0.0, as a scrape reads it: what is well-formed is taken. Its further rules are in `strict`.

use std::borrow::Cow;

use sextant_model::MetricType;

use super::{
    error::{ParseError, TextFault},
    lexer::{Dialect, Scanner, take_line, utf8},
    number::parse_float,
    sample::{Entry, ParsedExemplar, SampleLine},
};

/// A pull parser; after an error its answers have no meaning.
#[derive(Clone, Debug)]
pub struct OpenMetricsParser<'a> {
    rest: &'a str,
    line: usize,
    dialect: Dialect,
    ended: bool,
}

impl<'a> OpenMetricsParser<'a> {
    /// Reads as a scrape does.
    pub fn new(body: &'a [u8]) -> Result<Self, ParseError> {
        Ok(Self { rest: utf8(body)?, line: 0, dialect: Dialect::OpenMetrics, ended: false })
    }

    /// Reads with the syntax exactly as specified.
    pub(super) fn strict(body: &'a [u8]) -> Result<Self, ParseError> {
        Ok(Self { rest: utf8(body)?, line: 0, dialect: Dialect::StrictOpenMetrics, ended: false })
    }

    /// The number of the line that was read last, from 1.
    pub(super) fn line(&self) -> usize {
        self.line
    }

    /// The next line, or `None` after `# EOF`.
    pub fn next_entry(&mut self) -> Result<Option<Entry<'a>>, ParseError> {
        if self.ended {
            return Ok(None);
        }
        let (line, has_feed) = take_line(&mut self.rest);
        self.line += 1;
        let mut s = Scanner::new(line, self.line, self.dialect);
        if line.is_empty() && !has_feed {
            return Err(s.fault(TextFault::MissingEof));
        }
        if s.eat_text("# EOF") {
            self.ended = true;
            if !s.at_end() || !self.rest.is_empty() {
                return Err(s.fault(TextFault::DataAfterEof));
            }
            return Ok(None);
        }
        let entry = if s.peek() == Some(b'#') { metadata(&mut s)? } else { sample(&mut s, self.dialect)? };
        if !has_feed {
            return Err(s.fault(TextFault::MissingEof));
        }
        Ok(Some(entry))
    }
}

fn metadata<'a>(s: &mut Scanner<'a>) -> Result<Entry<'a>, ParseError> {
    let kind = if s.eat_text("# HELP ") {
        "HELP"
    } else if s.eat_text("# TYPE ") {
        "TYPE"
    } else if s.eat_text("# UNIT ") {
        "UNIT"
    } else {
        return Err(s.fault(TextFault::ExpectedStart));
    };
    let Some(family) = s.metadata_name()? else {
        return Err(s.fault(TextFault::ExpectedMetadataName(kind)));
    };
    if !s.eat(b' ') {
        return Err(s.fault(TextFault::ExpectedMetadataText(kind)));
    }
    let text = s.rest();
    match kind {
        "HELP" => Ok(Entry::Help { family, text: unescape(text) }),
        "TYPE" => match MetricType::from_name(text) {
            Some(metric_type) => Ok(Entry::Type { family, metric_type }),
            None => Err(s.fault(TextFault::InvalidType(text.to_owned()))),
        },
        _ => {
            let suffix = || family.strip_suffix(text).is_some_and(|f| f.ends_with('_'));
            if !text.is_empty() && !suffix() {
                let fault = TextFault::UnitNotSuffix { unit: text.to_owned(), metric: family.into_owned() };
                return Err(s.fault(fault));
            }
            Ok(Entry::Unit { family, unit: text })
        }
    }
}

fn unescape(text: &str) -> Cow<'_, str> {
    if !text.contains('\\') {
        return text.into();
    }
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, if c == '\\' { chars.next() } else { None }) {
            ('\\', Some('n')) => out.push('\n'),
            ('\\', Some(e @ ('\\' | '"'))) => out.push(e),
            ('\\', Some(e)) => out.extend(['\\', e]),
            (c, _) => out.push(c),
        }
    }
    out.into()
}

fn sample<'a>(s: &mut Scanner<'a>, dialect: Dialect) -> Result<Entry<'a>, ParseError> {
    let column = s.column();
    let series = s.series_text()?;
    let value = float(s, TextFault::ExpectedValue)?;
    let mut timestamp_ms = None;
    let mut exemplar = None;
    if !s.at_end() && !s.rest().starts_with(" # {") {
        timestamp_ms = Some(timestamp(s)?);
    }
    if s.eat_text(" # {") {
        let labels = s.exemplar_labels()?.labels;
        let value = float(s, TextFault::ExpectedExemplarValue)?;
        let timestamp_ms = if s.at_end() { None } else { Some(timestamp(s)?) };
        exemplar = Some(ParsedExemplar { labels, value, timestamp_ms });
    }
    if !s.at_end() {
        return Err(s.fault(TextFault::TrailingText(s.rest().to_owned())));
    }
    let line = s.line_number();
    Ok(Entry::Sample(SampleLine { series, value, timestamp_ms, exemplar, line, dialect, column }))
}

/// One space and a number.
fn float(s: &mut Scanner<'_>, missing: TextFault) -> Result<f64, ParseError> {
    if !s.eat(b' ') {
        return Err(s.fault(missing));
    }
    let before = s.clone();
    let token = s.token();
    if token.is_empty() {
        return Err(before.fault(missing));
    }
    parse_float(token).ok_or_else(|| before.fault(TextFault::InvalidFloat(token.to_owned())))
}

/// One space and a number of seconds.
fn timestamp(s: &mut Scanner<'_>) -> Result<i64, ParseError> {
    if !s.eat(b' ') {
        return Err(s.fault(TextFault::TrailingText(s.rest().to_owned())));
    }
    let before = s.clone();
    let token = s.token();
    match parse_float(token).filter(|t| t.is_finite()) {
        // A cast saturates: times beyond the range of milliseconds become its ends.
        Some(seconds) => Ok((seconds * 1000.0).round() as i64),
        None => Err(before.fault(TextFault::InvalidTimestamp(token.to_owned()))),
    }
}
