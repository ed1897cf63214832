//! Errors with positions. A parse can find several; the first is what a user sees.

use std::fmt;

use crate::ast::PosRange;

/// After so many errors a parse gives up: text that is all errors must not cost more than text that is none.
pub(crate) const MAX_ERRORS: usize = 64;

/// One error of a query's text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseError {
    /// The offending bytes.
    pub pos: PosRange,
    /// The line of the first offending byte, from 1; 0 where the query is empty.
    pub line: usize,
    /// The column in bytes of the first offending byte, from 1.
    pub column: usize,
    /// What is wrong, without the position.
    pub message: String,
}

impl ParseError {
    pub(crate) fn new(input: &[u8], pos: PosRange, message: String) -> Self {
        // What an error in the middle of a part leaves without an end is empty, never inverted.
        let pos = PosRange::new(pos.start, pos.end.max(pos.start));
        if input.is_empty() {
            return Self { pos, line: 0, column: 0, message };
        }
        let before = input.get(..pos.start).unwrap_or(input);
        let line = 1 + before.iter().filter(|b| **b == b'\n').count();
        let line_start = before.iter().rposition(|b| *b == b'\n').map_or(0, |i| i + 1);
        Self { pos, line, column: before.len() - line_start + 1, message }
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line == 0 {
            write!(f, "unknown position: parse error: {}", self.message)
        } else {
            write!(f, "{}:{}: parse error: {}", self.line, self.column, self.message)
        }
    }
}

impl std::error::Error for ParseError {}

/// The errors of a query's text, at least one, in the order in which they were found. Prints as the first.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.first().map(ToString::to_string).unwrap_or_default())]
pub struct ParseErrors(pub Vec<ParseError>);
