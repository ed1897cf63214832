//! What the parsers of text formats give: entries.

use std::borrow::Cow;

use sextant_model::MetricType;

use super::{
    error::{ParseError, TextFault},
    lexer::{Dialect, ParsedLabels, Scanner},
};

/// One line of an exposition.
#[derive(Clone, Debug)]
pub enum Entry<'a> {
    /// A family's help text.
    Help {
        /// The family.
        family: Cow<'a, str>,
        /// The text, unescaped.
        text: Cow<'a, str>,
    },
    /// A family's type.
    Type {
        /// The family.
        family: Cow<'a, str>,
        /// The type.
        metric_type: MetricType,
    },
    /// A family's unit (OpenMetrics).
    Unit {
        /// The family.
        family: Cow<'a, str>,
        /// The unit; may be empty.
        unit: &'a str,
    },
    /// A comment, or a line without anything.
    Comment,
    /// A sample.
    Sample(SampleLine<'a>),
}

/// A sample whose labels have not been read yet.
#[derive(Clone, Debug)]
pub struct SampleLine<'a> {
    /// Name and labels as they stand in the text: the same text is the same series.
    pub series: &'a str,
    /// The value.
    pub value: f64,
    /// The target's own timestamp, milliseconds.
    pub timestamp_ms: Option<i64>,
    /// An exemplar (OpenMetrics).
    pub exemplar: Option<ParsedExemplar<'a>>,
    /// From 1.
    pub line: usize,
    pub(super) dialect: Dialect,
    pub(super) column: usize,
}

/// An exemplar as it stands in the text.
#[derive(Clone, Debug, PartialEq)]
pub struct ParsedExemplar<'a> {
    /// The exemplar's own labels.
    pub labels: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    /// The observed value.
    pub value: f64,
    /// When, milliseconds.
    pub timestamp_ms: Option<i64>,
}

impl<'a> SampleLine<'a> {
    /// Reads name and labels.
    pub fn labels(&self) -> Result<ParsedLabels<'a>, ParseError> {
        let mut scanner = Scanner::new(self.series, self.line, self.dialect);
        let labels = scanner.labels().and_then(|labels| match scanner.at_end() {
            true => Ok(labels),
            false => Err(scanner.fault(TextFault::ExpectedCommaOrBrace)),
        });
        labels.map_err(|e| match e {
            ParseError::Text { line, column, fault } => {
                ParseError::Text { line, column: column + self.column - 1, fault }
            }
            other => other,
        })
    }
}
