//! PromQL's syntax: lexer, parser, type checker, printers, and the notation of test series.
//!
//! Receives text, gives a tree with byte positions. **Architecture Invariant:** nothing here reads data, knows time
//! zones or clocks, does I/O or knows Arrow; evaluation lives in a crate of its own.

mod ast;
mod check;
mod duration;
mod duration_text;
mod error;
mod functions;
mod json;
mod lexer;
mod number;
mod operators;
mod parser;
mod pretty;
mod printer;
mod quote;
mod series;
pub mod testing;
mod token;
mod tokens;
mod walk;

pub use ast::{
    AggregateExpr, AtModifier, BinaryExpr, CallExpr, Cardinality, Expr, MatrixSelector, NumberLiteral,
    ParenExpr, PosRange, StringLiteral, SubqueryExpr, UnaryExpr, ValueType, VectorMatching, VectorSelector,
};
pub use duration::{DurationError, DurationErrorKind, DurationExpr, DurationOp, resolve_durations};
pub use duration_text::{DurationTextError, format_duration, parse_duration, parse_signed_duration};
pub use error::{ParseError, ParseErrors};
pub use functions::{FUNCTIONS, Function, function};
pub use json::to_json;
pub use number::format_float;
pub use operators::{AggregateOp, BinaryOp};
pub use parser::{MAX_DEPTH, MAX_NESTING, ParserOptions, parse_expr, parse_expr_with, parse_metric_selector};
pub use pretty::{DEFAULT_LINE_LIMIT, prettify};
pub use series::{
    LoadLine, MAX_SEQUENCE, SequenceValue, StartSequenceError, parse_load_line, parse_metric, parse_series,
    parse_start_sequence,
};
pub use tokens::{LexedToken, tokens};
pub use walk::{extract_selectors, selectors, walk};
