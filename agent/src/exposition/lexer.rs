//! What the text formats share: a scanner over one line, names, quoted text and label sets.

use std::borrow::Cow;

use sextant_model::METRIC_NAME;

use super::error::{ParseError, TextFault};

/// Up to this many labels a new one is compared with each: beyond it a target that sends a line of a million labels would
/// keep us busy for hours, so names are sorted once at the end.
const FEW_LABELS: usize = 32;

/// Which of the text formats a line is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// The Prometheus text format: blanks between tokens, a comma after the last label, any escape kept as it is.
    Text,
    /// The same as `expfmt` reads it: unknown escapes are errors.
    StrictText,
    /// OpenMetrics: no blanks in a label set.
    OpenMetrics,
    /// OpenMetrics with its rules: no comma after the last label.
    StrictOpenMetrics,
}

impl Dialect {
    fn allows_blanks(self) -> bool {
        matches!(self, Self::Text | Self::StrictText)
    }
}

/// Name and labels of a sample, as they stand in the text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParsedLabels<'a> {
    /// The metric's name.
    pub name: Cow<'a, str>,
    /// The labels in the order of the text; values may be empty.
    pub labels: Vec<(Cow<'a, str>, Cow<'a, str>)>,
}

/// A position in one line.
#[derive(Clone, Debug)]
pub(crate) struct Scanner<'a> {
    line: &'a str,
    at: usize,
    number: usize,
    dialect: Dialect,
}

pub(crate) fn is_name_start(b: u8) -> bool {
    b.is_ascii_alphabetic() || b == b'_' || b == b':'
}

fn is_label_start(b: u8) -> bool {
    b.is_ascii_alphabetic() || b == b'_'
}

impl<'a> Scanner<'a> {
    /// A scanner at the beginning of a line without its line feed.
    pub(crate) fn new(line: &'a str, number: usize, dialect: Dialect) -> Self {
        Self { line, at: 0, number, dialect }
    }

    pub(crate) fn fault(&self, fault: TextFault) -> ParseError {
        ParseError::Text { line: self.number, column: self.at + 1, fault }
    }

    pub(crate) fn rest(&self) -> &'a str {
        &self.line[self.at..]
    }

    pub(crate) fn line_number(&self) -> usize {
        self.number
    }

    pub(crate) fn column(&self) -> usize {
        self.at + 1
    }

    pub(crate) fn at_end(&self) -> bool {
        self.at == self.line.len()
    }

    pub(crate) fn peek(&self) -> Option<u8> {
        self.line.as_bytes().get(self.at).copied()
    }

    pub(crate) fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    pub(crate) fn eat_text(&mut self, text: &str) -> bool {
        let found = self.rest().starts_with(text);
        if found {
            self.at += text.len();
        }
        found
    }

    pub(crate) fn skip_blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t')) {
            self.at += 1;
        }
    }

    /// Text up to a blank or the end of the line; the format decides whether a tab is a blank.
    pub(crate) fn token(&mut self) -> &'a str {
        let tabs = self.dialect.allows_blanks();
        let rest = self.rest();
        let end = rest.bytes().position(|b| b == b' ' || (tabs && b == b'\t')).unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    fn while_bytes(&mut self, start: fn(u8) -> bool) -> Option<&'a str> {
        let rest = self.rest();
        let bytes = rest.as_bytes();
        if !bytes.first().copied().is_some_and(start) {
            return None;
        }
        let end = bytes.iter().position(|b| !start(*b) && !b.is_ascii_digit()).unwrap_or(bytes.len());
        self.at += end;
        Some(&rest[..end])
    }

    /// A legacy metric name.
    pub(crate) fn metric_name(&mut self) -> Option<&'a str> {
        self.while_bytes(is_name_start)
    }

    /// A metric's name in a comment: legacy or quoted.
    pub(crate) fn metadata_name(&mut self) -> Result<Option<Cow<'a, str>>, ParseError> {
        if self.peek() == Some(b'"') {
            return self.quoted().map(Some);
        }
        Ok(self.metric_name().map(Cow::Borrowed))
    }

    /// A text in double quotes with `\\`, `\"` and `\n`.
    pub(crate) fn quoted(&mut self) -> Result<Cow<'a, str>, ParseError> {
        let opening = self.at;
        if !self.eat(b'"') {
            return Err(self.fault(TextFault::UnterminatedText));
        }
        let bytes = self.line.as_bytes();
        let start = self.at;
        let mut escaped = false;
        let mut end = start;
        loop {
            match bytes.get(end) {
                Some(b'"') => break,
                Some(b'\\') => {
                    escaped = true;
                    end += 2;
                }
                Some(_) => end += 1,
                None => {
                    self.at = opening;
                    return Err(self.fault(TextFault::UnterminatedText));
                }
            }
        }
        let raw = &self.line[start..end];
        let text = if escaped { Cow::Owned(self.unescape(raw)?) } else { Cow::Borrowed(raw) };
        self.at = end + 1;
        Ok(text)
    }

    fn unescape(&mut self, raw: &str) -> Result<String, ParseError> {
        let start = self.at;
        let mut out = String::with_capacity(raw.len());
        let mut chars = raw.char_indices();
        while let Some((_, c)) = chars.next() {
            if c != '\\' {
                out.push(c);
                continue;
            }
            match chars.next() {
                Some((_, 'n')) => out.push('\n'),
                Some((_, c @ ('\\' | '"'))) => out.push(c),
                Some((i, c)) if self.dialect == Dialect::StrictText => {
                    self.at = start + i;
                    return Err(self.fault(TextFault::InvalidEscape(c)));
                }
                Some((_, c)) => out.extend(['\\', c]),
                None => out.push('\\'),
            }
        }
        Ok(out)
    }

    /// Moves over a series' name and labels without reading them, and gives their text: the key of a series.
    pub(crate) fn series_text(&mut self) -> Result<&'a str, ParseError> {
        let start = self.at;
        let named = self.metric_name().is_some();
        let after_name = self.at;
        if self.dialect.allows_blanks() {
            self.skip_blanks();
        }
        if self.peek() != Some(b'{') {
            self.at = after_name;
            return if named {
                Ok(&self.line[start..after_name])
            } else {
                Err(self.fault(TextFault::ExpectedStart))
            };
        }
        let bytes = self.line.as_bytes();
        let mut end = self.at + 1;
        let mut quoted = false;
        loop {
            match bytes.get(end) {
                Some(b'"') => quoted = !quoted,
                Some(b'\\') if quoted => end += 1,
                Some(b'}') if !quoted => break,
                Some(_) => {}
                None => {
                    // Reading the labels finds the place and the reason.
                    self.at = start;
                    self.labels()?;
                    return Err(self.fault(TextFault::ExpectedCommaOrBrace));
                }
            }
            end += 1;
        }
        self.at = end + 1;
        Ok(&self.line[start..self.at])
    }

    /// Reads a series' name and labels.
    pub(crate) fn labels(&mut self) -> Result<ParsedLabels<'a>, ParseError> {
        let mut parsed = ParsedLabels { name: self.metric_name().unwrap_or("").into(), labels: Vec::new() };
        if self.dialect.allows_blanks() {
            self.skip_blanks();
        }
        if self.eat(b'{') {
            self.label_set(&mut parsed, true)?;
        }
        if parsed.name.is_empty() {
            return Err(self.fault(TextFault::MissingMetricName));
        }
        Ok(parsed)
    }

    /// Reads the labels of an exemplar, after their opening brace.
    pub(crate) fn exemplar_labels(&mut self) -> Result<ParsedLabels<'a>, ParseError> {
        let mut parsed = ParsedLabels::default();
        self.label_set(&mut parsed, false)?;
        Ok(parsed)
    }

    fn label_set(&mut self, parsed: &mut ParsedLabels<'a>, name_allowed: bool) -> Result<(), ParseError> {
        let blanks = self.dialect.allows_blanks();
        let skip = |s: &mut Self| {
            if blanks {
                s.skip_blanks();
            }
        };
        let mut after_comma = false;
        loop {
            skip(self);
            if self.peek() == Some(b'}') && !(after_comma && self.dialect == Dialect::StrictOpenMetrics) {
                self.at += 1;
                return self.no_label_twice(&parsed.labels);
            }
            self.one_label(parsed, name_allowed, skip)?;
            skip(self);
            after_comma = self.eat(b',');
            if !after_comma && self.peek() != Some(b'}') {
                return Err(self.fault(TextFault::ExpectedCommaOrBrace));
            }
        }
    }

    /// The check that `one_label` leaves out where there are many labels.
    fn no_label_twice(&self, labels: &[(Cow<'a, str>, Cow<'a, str>)]) -> Result<(), ParseError> {
        if labels.len() <= FEW_LABELS {
            return Ok(());
        }
        let mut names: Vec<&str> = labels.iter().map(|(n, _)| n.as_ref()).collect();
        names.sort_unstable();
        match names.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(self.fault(TextFault::DuplicateLabel(pair[0].to_owned()))),
            None => Ok(()),
        }
    }

    fn one_label(
        &mut self,
        parsed: &mut ParsedLabels<'a>,
        name_allowed: bool,
        skip: impl Fn(&mut Self),
    ) -> Result<(), ParseError> {
        let start = self.at;
        let quoted = self.peek() == Some(b'"');
        let name: Cow<'a, str> = if quoted {
            self.quoted()?
        } else {
            self.while_bytes(is_label_start).ok_or_else(|| self.fault(TextFault::ExpectedLabelName))?.into()
        };
        skip(self);
        if !self.eat(b'=') {
            if !quoted || !name_allowed {
                return Err(self.fault(TextFault::ExpectedEquals(name.into_owned())));
            }
            if name.is_empty() {
                return Err(self.fault(TextFault::InvalidMetricName));
            }
            if !parsed.name.is_empty() {
                return Err(self.fault(TextFault::SecondMetricName(name.into_owned())));
            }
            parsed.name = name;
            return Ok(());
        }
        skip(self);
        if self.peek() != Some(b'"') {
            return Err(self.fault(TextFault::ExpectedLabelValue(name.into_owned())));
        }
        let value = self.quoted()?;
        let fault = if name.is_empty() {
            TextFault::ExpectedLabelName
        } else if name == METRIC_NAME && name_allowed {
            TextFault::ReservedLabel(name.into_owned())
        } else if parsed.labels.iter().take(FEW_LABELS).any(|(n, _)| *n == name) {
            TextFault::DuplicateLabel(name.into_owned())
        } else {
            parsed.labels.push((name, value));
            return Ok(());
        };
        self.at = start;
        Err(self.fault(fault))
    }
}

/// Checks that a body is UTF-8 and gives the place where it is not.
pub(crate) fn utf8(body: &[u8]) -> Result<&str, ParseError> {
    std::str::from_utf8(body).map_err(|e| {
        let before = &body[..e.valid_up_to()];
        let line_start = before.iter().rposition(|b| *b == b'\n').map_or(0, |i| i + 1);
        ParseError::Text {
            line: before.iter().filter(|b| **b == b'\n').count() + 1,
            column: before.len() - line_start + 1,
            fault: TextFault::InvalidUtf8,
        }
    })
}

/// Splits a line off the front of `rest`; the second is whether it ended with a line feed.
pub(crate) fn take_line<'a>(rest: &mut &'a str) -> (&'a str, bool) {
    match rest.bytes().position(|b| b == b'\n') {
        Some(i) => {
            let line = &rest[..i];
            *rest = &rest[i + 1..];
            (line, true)
        }
        None => (std::mem::take(rest), false),
    }
}
