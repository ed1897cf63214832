//! Errors as PostgreSQL's clients know them: a code of five characters (SQLSTATE), a message, and where known a position.

use datafusion::{common::SchemaError, error::DataFusionError, logical_expr::sqlparser::parser::ParserError};

use super::wire::Malformed;
use crate::error::QueryError;

/// An error for a client.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message} ({code})")]
pub struct PgError {
    /// The SQLSTATE.
    pub code: &'static str,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// Where in the statement, in characters from 1.
    pub position: Option<usize>,
    /// Whether the session ends with it.
    pub fatal: bool,
}

impl PgError {
    /// An error that leaves the session usable.
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: None, position: None, fatal: false }
    }

    /// An error that ends the session.
    pub fn fatal(code: &'static str, message: impl Into<String>) -> Self {
        Self { fatal: true, ..Self::new(code, message) }
    }

    /// With a piece of advice.
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// A feature that is not there.
    pub fn unsupported(what: impl std::fmt::Display) -> Self {
        Self::new("0A000", format!("{what} is not supported"))
    }

    /// A statement that would write.
    pub fn read_only(command: &str) -> Self {
        Self::new("25006", format!("cannot execute {command} in a read-only transaction"))
            .with_hint("Sextant answers reads; data comes in by remote write, OTLP and the agent.")
    }

    /// The fields of an error message.
    pub fn fields(&self) -> Vec<(u8, String)> {
        let severity = if self.fatal { "FATAL" } else { "ERROR" };
        let mut fields = vec![
            (b'S', severity.to_owned()),
            (b'V', severity.to_owned()),
            (b'C', self.code.to_owned()),
            (b'M', self.message.clone()),
        ];
        fields.extend(self.hint.clone().map(|h| (b'H', h)));
        fields.extend(self.position.map(|p| (b'P', p.to_string())));
        fields
    }

    /// An error of the parser, with its place in the statement.
    pub fn syntax(error: &ParserError, sql: &str) -> Self {
        match error {
            ParserError::RecursionLimitExceeded => Self::new("54001", "the statement is nested too deeply"),
            ParserError::TokenizerError(text) | ParserError::ParserError(text) => {
                let (message, position) = split_position(text, sql);
                Self { position, ..Self::new("42601", format!("syntax error: {message}")) }
            }
        }
    }

    /// An error of planning or running a statement.
    pub fn from_datafusion(error: DataFusionError, sql: &str) -> Self {
        match error {
            DataFusionError::Diagnostic(diagnostic, inner) => {
                let position = diagnostic
                    .span
                    .and_then(|s| offset_of(sql, s.start.line as usize, s.start.column as usize));
                let mut error = Self::from_datafusion(*inner, sql);
                error.position = error.position.or(position);
                error
            }
            DataFusionError::Context(_, inner) => Self::from_datafusion(*inner, sql),
            DataFusionError::Collection(mut errors) if !errors.is_empty() => {
                Self::from_datafusion(errors.swap_remove(0), sql)
            }
            DataFusionError::SQL(error, _) => Self::syntax(&error, sql),
            DataFusionError::SchemaError(error, _) => {
                let code = match &*error {
                    SchemaError::FieldNotFound { .. } => "42703",
                    SchemaError::AmbiguousReference { .. } => "42702",
                    _ => "42701",
                };
                let message = match &*error {
                    SchemaError::FieldNotFound { field, .. } => {
                        format!("column \"{}\" does not exist", field.flat_name().replace('"', ""))
                    }
                    SchemaError::AmbiguousReference { field } => {
                        format!("column reference \"{}\" is ambiguous", field.name())
                    }
                    other => other.to_string(),
                };
                let position = match &*error {
                    SchemaError::FieldNotFound { field, .. } => field.spans.first(),
                    SchemaError::AmbiguousReference { field } => field.spans.first(),
                    _ => None,
                }
                .and_then(|s| offset_of(sql, s.start.line as usize, s.start.column as usize));
                Self { position, ..Self::new(code, message) }
            }
            DataFusionError::NotImplemented(text) => Self::new("0A000", text),
            DataFusionError::ResourcesExhausted(text) => Self::new("53200", text),
            DataFusionError::ArrowError(error, _) => Self::from_arrow(&error),
            DataFusionError::Plan(text) => match (plan_code(&text), text.split('\'').nth(1)) {
                ("42P01", Some(name)) => {
                    let name = name.rsplit('.').next().unwrap_or(name);
                    Self::new("42P01", format!("relation \"{name}\" does not exist"))
                }
                (code, _) => Self::new(code, text),
            },
            DataFusionError::External(inner) if !inner.is::<QueryError>() => {
                match inner.downcast::<DataFusionError>() {
                    Ok(inner) => Self::from_datafusion(*inner, sql),
                    Err(other) => Self::new("XX000", other.to_string()),
                }
            }
            other => {
                match other.find_root() {
                    DataFusionError::ResourcesExhausted(text) => return Self::new("53200", text.clone()),
                    DataFusionError::ArrowError(error, _) => return Self::from_arrow(error),
                    _ => {}
                }
                let text = other.strip_backtrace();
                let code = plan_code(&text);
                match QueryError::from(other) {
                    QueryError::Execution(_) if code != "42000" => Self::new(code, text),
                    query => Self::from(query),
                }
            }
        }
    }

    fn from_arrow(error: &arrow_schema::ArrowError) -> Self {
        use arrow_schema::ArrowError as A;
        let code = match error {
            A::DivideByZero => "22012",
            A::CastError(_) | A::ParseError(_) => "22P02",
            A::ArithmeticOverflow(_) => "22003",
            A::InvalidArgumentError(_) => "22023",
            _ => "XX000",
        };
        let message = match error {
            A::DivideByZero => "division by zero".to_owned(),
            other => other.to_string(),
        };
        Self::new(code, message)
    }
}

/// The code of a planner's error, which has nothing but its text.
fn plan_code(text: &str) -> &'static str {
    let has = |parts: &[&str]| parts.iter().all(|p| text.contains(p));
    if has(&["table '", "not found"]) || has(&["table function", "not found"]) {
        if text.contains("function") { "42883" } else { "42P01" }
    } else if text.contains("Invalid function") || text.contains("No function matches") {
        "42883"
    } else if text.contains("must be in GROUP BY") || has(&["could not be resolved", "GROUP BY"]) {
        "42803"
    } else if has(&["cannot be cast"]) || has(&["Cannot coerce"]) || has(&["type_coercion"]) {
        "42804"
    } else if has(&["Error parsing timestamp"]) || has(&["Cannot cast"]) {
        "22P02"
    } else {
        "42000"
    }
}

impl From<QueryError> for PgError {
    fn from(error: QueryError) -> Self {
        let code = match &error {
            QueryError::BadRequest(text) => plan_code(text),
            QueryError::Execution(_) => "22000",
            QueryError::Limit(_) | QueryError::Overloaded(_) => "53400",
            QueryError::Timeout(after) => {
                return Self::new(
                    "57014",
                    format!("canceling statement due to statement timeout ({after:?})"),
                )
                .with_hint("Narrow the query, or raise querier.timeout (and statement_timeout, where set).");
            }
            QueryError::Cancelled => {
                return Self::new("57014", "canceling statement due to user request");
            }
            QueryError::Shard(_) | QueryError::Storage(_) => "58030",
            QueryError::Internal(_) => "XX000",
        };
        Self::new(code, error.to_string())
    }
}

impl From<Malformed> for PgError {
    fn from(error: Malformed) -> Self {
        Self::fatal("08P01", error.0)
    }
}

/// Takes the parser's " at Line: 1, Column: 8" off its text.
fn split_position(text: &str, sql: &str) -> (String, Option<usize>) {
    let Some((message, place)) = text.rsplit_once(" at Line: ") else { return (text.to_owned(), None) };
    let mut numbers = place.split(", Column: ").map(|n| n.trim().parse::<usize>().ok());
    let position = match (numbers.next().flatten(), numbers.next().flatten()) {
        (Some(line), Some(column)) => offset_of(sql, line, column),
        _ => None,
    };
    (message.trim_end().to_owned(), position)
}

/// The position in characters, from 1, of a line and column, both from 1.
fn offset_of(sql: &str, line: usize, column: usize) -> Option<usize> {
    let before: usize = sql.lines().take(line.checked_sub(1)?).map(|l| l.chars().count() + 1).sum();
    Some(before + column).filter(|p| *p >= 1 && *p <= sql.chars().count() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_characters() {
        let sql = "select\n  é, frm";
        assert_eq!(offset_of(sql, 2, 6), Some(13));
        let e = ParserError::ParserError("Expected: x, found: frm at Line: 2, Column: 6".into());
        let e = PgError::syntax(&e, sql);
        assert_eq!((e.code, e.position), ("42601", Some(13)));
        assert_eq!(e.message, "syntax error: Expected: x, found: frm");
    }
}
