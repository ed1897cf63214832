//! The Prometheus text format, 0.0.4 and 1.0.0: a line is a sample, a comment, metadata or blank.

use std::borrow::Cow;

use sextant_model::MetricType;

use super::{
    error::{ParseError, TextFault},
    lexer::{Dialect, Scanner, take_line, utf8},
    number::parse_float,
    sample::{Entry, SampleLine},
};

/// A pull parser; after an error its answers have no meaning.
#[derive(Clone, Debug)]
pub struct TextParser<'a> {
    rest: &'a str,
    line: usize,
    dialect: Dialect,
}

impl<'a> TextParser<'a> {
    /// Reads as a scrape does: the last line need not end.
    pub fn new(body: &'a [u8]) -> Result<Self, ParseError> {
        Ok(Self { rest: utf8(body)?, line: 0, dialect: Dialect::Text })
    }

    /// Reads as a file of families must be: unknown escapes and a cut last line are errors.
    pub fn strict(body: &'a [u8]) -> Result<Self, ParseError> {
        Ok(Self { rest: utf8(body)?, line: 0, dialect: Dialect::StrictText })
    }

    /// The next line, or `None` at the end.
    pub fn next_entry(&mut self) -> Result<Option<Entry<'a>>, ParseError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let (line, ended) = take_line(&mut self.rest);
        self.line += 1;
        let mut s = Scanner::new(line, self.line, self.dialect);
        s.skip_blanks();
        let entry = match s.peek() {
            None => Entry::Comment,
            Some(b'#') => comment(&mut s)?,
            Some(_) => sample(&mut s, self.dialect)?,
        };
        if !ended && self.dialect == Dialect::StrictText {
            return Err(s.fault(TextFault::UnexpectedEnd));
        }
        Ok(Some(entry))
    }
}

fn comment<'a>(s: &mut Scanner<'a>) -> Result<Entry<'a>, ParseError> {
    s.eat(b'#');
    s.skip_blanks();
    let kind = match s.token() {
        "HELP" => "HELP",
        "TYPE" => "TYPE",
        _ => return Ok(Entry::Comment),
    };
    if s.at_end() {
        return Ok(Entry::Comment);
    }
    s.skip_blanks();
    // `# HELP ` with nothing more says nothing.
    if s.at_end() {
        return Ok(Entry::Comment);
    }
    let Some(family) = s.metadata_name()? else {
        return Err(s.fault(TextFault::ExpectedMetadataName(kind)));
    };
    if !s.at_end() && !matches!(s.peek(), Some(b' ' | b'\t')) {
        return Err(s.fault(TextFault::InvalidMetricName));
    }
    s.skip_blanks();
    let text = s.rest();
    if kind == "HELP" {
        return Ok(Entry::Help { family, text: unescape_help(text) });
    }
    match metric_type(text.trim_end_matches([' ', '\t', '\r'])) {
        Some(metric_type) => Ok(Entry::Type { family, metric_type }),
        None => Err(s.fault(TextFault::InvalidType(text.to_owned()))),
    }
}

/// A type's name; some exporters write it in capitals, and `gauge_histogram` is the protobuf enum's name.
fn metric_type(text: &str) -> Option<MetricType> {
    match text.to_ascii_lowercase().as_str() {
        "untyped" => Some(MetricType::Unknown),
        "gauge_histogram" => Some(MetricType::GaugeHistogram),
        other => MetricType::from_name(other),
    }
}

/// Help text has `\\` and `\n`; what quotes need is read too, because some writers escape them.
fn unescape_help(text: &str) -> Cow<'_, str> {
    if !text.contains('\\') {
        return text.into();
    }
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('n') => out.push('\n'),
            Some(c @ ('\\' | '"')) => out.push(c),
            Some(c) => out.extend(['\\', c]),
            None => out.push('\\'),
        }
    }
    out.into()
}

fn sample<'a>(s: &mut Scanner<'a>, dialect: Dialect) -> Result<Entry<'a>, ParseError> {
    let column = s.column();
    let series = s.series_text()?;
    let braced = series.ends_with('}');
    if !braced && !matches!(s.peek(), Some(b' ' | b'\t')) {
        let fault = if s.at_end() { TextFault::ExpectedValue } else { TextFault::InvalidMetricName };
        return Err(s.fault(fault));
    }
    s.skip_blanks();
    let before_value = s.clone();
    let token = s.token();
    if token.is_empty() {
        return Err(before_value.fault(TextFault::ExpectedValue));
    }
    let Some(value) = parse_float(token) else {
        return Err(before_value.fault(TextFault::InvalidFloat(token.to_owned())));
    };
    s.skip_blanks();
    let mut timestamp_ms = None;
    if !s.at_end() {
        let before_timestamp = s.clone();
        let token = s.token();
        let parsed = token.parse::<i64>().ok().filter(|_| !token.starts_with('+'));
        timestamp_ms = Some(
            parsed.ok_or_else(|| before_timestamp.fault(TextFault::InvalidTimestamp(token.to_owned())))?,
        );
        s.skip_blanks();
        if !s.at_end() {
            return Err(s.fault(TextFault::TrailingText(s.rest().to_owned())));
        }
    }
    let line = s.line_number();
    Ok(Entry::Sample(SampleLine { series, value, timestamp_ms, exemplar: None, line, dialect, column }))
}
