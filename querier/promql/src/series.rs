//! The notation of series in tests: `metric{label="value"} 1 2 _ 4+1x3 stale {{schema:1 sum:3}}x2`, and lines of start
//! timestamps: `metric{label="value"}@st _ -1m -30s+10sx3`.
//!
//! Built on the query's lexer and its label syntax, because names and quoting are the same.

mod histogram;
mod labels;
mod start;

use sextant_model::{Histogram, Labels, stale_nan};

use crate::{
    ast::PosRange,
    error::{ParseError, ParseErrors},
    lexer::Lexer,
    parser::{Parse, Parser, ParserOptions, Stop},
    token::{Token, TokenKind as T},
};

pub use start::{StartSequenceError, parse_start_sequence};

/// One line may not give more values: a typo must not take the memory of a machine.
pub const MAX_SEQUENCE: usize = 1_000_000;

const CONTEXT: &str = "series values";

/// One value of a sequence.
#[derive(Debug, Clone, PartialEq)]
pub enum SequenceValue {
    /// `_`: no sample.
    Omitted,
    /// A number, or the staleness marker.
    Float(f64),
    /// A native histogram, and whether its counter reset hint was written (else a test does not look at it).
    Histogram(Box<Histogram>, bool),
}

/// One line of a `load` command.
#[derive(Debug, Clone, PartialEq)]
pub enum LoadLine {
    /// A series with its samples.
    Samples(Labels, Vec<SequenceValue>),
    /// A series with the start timestamps of its samples: milliseconds relative to each sample's time, `None` where the
    /// sample has none.
    Starts(Labels, Vec<Option<i64>>),
}

/// Parses `metric{labels} values`.
pub fn parse_series(input: &str) -> Result<(Labels, Vec<SequenceValue>), ParseErrors> {
    let mut parser = Parser::new(Lexer::new_series(input.as_bytes()), ParserOptions::default());
    let result = parser.series_line();
    let result = result.map_err(|stop| parser.give_up(stop));
    match result {
        Ok(line) if !parser.has_errors() => Ok(line),
        _ => Err(parser.into_errors()),
    }
}

/// Parses `metric{labels}`, as expectations of tests write a series.
pub fn parse_metric(input: &str) -> Result<Labels, ParseErrors> {
    let mut parser = Parser::new(Lexer::new(input.as_bytes()), ParserOptions::default());
    let result = parser.metric().and_then(|labels| parser.end().map(|()| labels));
    let result = result.map_err(|stop| parser.give_up(stop));
    match result {
        Ok(labels) if !parser.has_errors() => Ok(labels),
        _ => Err(parser.into_errors()),
    }
}

/// Parses a line of a `load` command: samples, or start timestamps where `@st` follows the metric.
pub fn parse_load_line(line: &str) -> Result<LoadLine, ParseErrors> {
    let metric_end = metric_end(line);
    let (metric, rest) = line.split_at(metric_end);
    let starts = rest.strip_prefix("@st").filter(|r| r.is_empty() || r.starts_with(char::is_whitespace));
    let Some(starts) = starts else {
        return parse_series(line).map(|(labels, values)| LoadLine::Samples(labels, values));
    };
    let labels = parse_metric(metric)?;
    let offsets = parse_start_sequence(starts).map_err(|e| {
        let pos = PosRange::new(line.len() - starts.len(), line.len());
        ParseErrors(vec![ParseError::new(line.as_bytes(), pos, e.to_string())])
    })?;
    Ok(LoadLine::Starts(labels, offsets))
}

/// Where the metric ends: at a space or an `@` that is not inside of braces.
fn metric_end(line: &str) -> usize {
    let mut quote = None;
    let mut braces = false;
    let mut escaped = false;
    for (i, b) in line.bytes().enumerate() {
        match (quote, b) {
            _ if escaped => escaped = false,
            (Some(q), b'\\') if q != b'`' => escaped = true,
            (Some(q), b) if q == b => quote = None,
            (Some(_), _) => {}
            (None, b'"' | b'\'' | b'`') if braces => quote = Some(b),
            (None, b'{') => braces = true,
            (None, b'}') => braces = false,
            (None, b' ' | b'\t' | b'@') if !braces => return i,
            _ => {}
        }
    }
    line.len()
}

impl Parser<'_> {
    fn series_line(&mut self) -> Parse<(Labels, Vec<SequenceValue>)> {
        let labels = self.metric()?;
        match self.sequence() {
            Ok(values) => Ok((labels, values)),
            Err(Stop::Syntax) => {
                self.unexpected(CONTEXT, "");
                Err(Stop::Abort)
            }
            Err(stop) => Err(stop),
        }
    }

    fn sequence(&mut self) -> Parse<Vec<SequenceValue>> {
        let mut values = Vec::new();
        loop {
            match self.kind() {
                T::Eof => return Ok(values),
                T::Space => {
                    self.advance();
                    if !matches!(self.kind(), T::Eof | T::Space) {
                        self.sequence_item(&mut values)?;
                    }
                }
                _ => return Err(Stop::Syntax),
            }
        }
    }

    fn sequence_item(&mut self, values: &mut Vec<SequenceValue>) -> Parse<()> {
        match self.kind() {
            T::Blank => {
                self.advance();
                // Unlike a value, `_xn` is n times nothing, not n + 1 times.
                let count = self.times()?.unwrap_or(1);
                self.extend(values, count, |_| SequenceValue::Omitted)
            }
            T::OpenHist => self.histogram_item(values),
            _ => self.float_item(values),
        }
    }

    fn float_item(&mut self, values: &mut Vec<SequenceValue>) -> Parse<()> {
        let base = self.series_value()?;
        let step = match self.kind() {
            T::Add | T::Sub => Some(self.sequence_number()?),
            _ => None,
        };
        let times = self.times()?;
        if step.is_some() && times.is_none() {
            return Err(Stop::Syntax);
        }
        let mut value = base;
        let count = times.unwrap_or(0).saturating_add(1);
        self.extend(values, count, |_| {
            let current = SequenceValue::Float(value);
            value += step.unwrap_or(0.0);
            current
        })
    }

    fn series_value(&mut self) -> Parse<f64> {
        if self.kind() != T::Identifier {
            return self.sequence_number();
        }
        let token = self.peek();
        if self.text_of(token) != "stale" {
            self.unexpected(CONTEXT, "number or \"stale\"");
        }
        self.advance();
        Ok(stale_nan())
    }

    /// A number with an optional sign.
    pub(super) fn sequence_number(&mut self) -> Parse<f64> {
        let negative = match self.kind() {
            T::Add | T::Sub => self.advance().kind == T::Sub,
            _ => false,
        };
        let token = self.expect(T::Number)?;
        let value = self.number_value(token);
        Ok(if negative { -value } else { value })
    }

    /// `xn`, where it stands.
    pub(super) fn times(&mut self) -> Parse<Option<usize>> {
        if self.accept(T::Times).is_none() {
            return Ok(None);
        }
        let token = self.expect(T::Number)?;
        Ok(Some(self.count(token)))
    }

    fn count(&mut self, token: Token) -> usize {
        let text = self.text_of(token);
        text.parse().unwrap_or_else(|e| {
            self.add_error(token.pos, format!("invalid repetition in series values: {text:?}: {e}"));
            0
        })
    }

    /// Adds values, unless the line gets too long.
    pub(super) fn extend(
        &mut self,
        values: &mut Vec<SequenceValue>,
        count: usize,
        value: impl FnMut(usize) -> SequenceValue,
    ) -> Parse<()> {
        if count > MAX_SEQUENCE.saturating_sub(values.len()) {
            let pos = self.peek().pos;
            self.add_error(pos, format!("more than {MAX_SEQUENCE} values in one series"));
            return Err(Stop::Abort);
        }
        values.extend((0..count).map(value));
        Ok(())
    }
}
