//! The parser: recursive descent with operator precedence, tokens fetched only when a decision needs one.
//!
//! **Errors.** Where the grammar knows what to expect (groupings, label matchers, `offset`, `@`, brackets,
//! aggregations) an error is reported with that context and parsing goes on: tokens that do not fit are skipped until
//! one does. Elsewhere an error goes up to the nearest such place, and at last to the start, which ends the parse.
//! Types are checked only where nothing else was wrong.
//!
//! **Depth.** The parser's recursion is bounded by [`MAX_NESTING`] and the depth of the tree by [`MAX_DEPTH`], so that
//! neither parsing nor any walk over the tree, its destruction included, can exhaust the stack.

mod aggregate;
mod binary;
mod brackets;
mod duration;
mod modifiers;
mod primary;
mod selector;

pub(crate) use binary::operator_range;
use sextant_model::Matcher;

use crate::{
    ast::{Expr, PosRange},
    check,
    error::{MAX_ERRORS, ParseError, ParseErrors},
    lexer::Lexer,
    number::parse_number,
    quote::{quote, unquote},
    token::{Token, TokenKind as T, describe},
};

/// How deep a tree may get. A chain of binary operators takes one level per operator.
pub const MAX_DEPTH: usize = 500;

/// How deep text may nest: parentheses, calls, signs, powers. A level takes up to 6 kB of stack in a debug build, in the
/// parser or in what walks the tree; all together fit half a megabyte.
pub const MAX_NESTING: usize = 80;

/// Which parts of the language are on. All are by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ParserOptions {
    /// Experimental functions and aggregations.
    pub experimental_functions: bool,
    /// Arithmetic in durations, `step()`, `range()`, `min_of()`, `max_of()`.
    pub duration_expressions: bool,
    /// `anchored` and `smoothed`.
    pub extended_range_selectors: bool,
    /// `fill()`, `fill_left()`, `fill_right()`.
    pub fill_modifiers: bool,
}

impl Default for ParserOptions {
    fn default() -> Self {
        Self {
            experimental_functions: true,
            duration_expressions: true,
            extended_range_selectors: true,
            fill_modifiers: true,
        }
    }
}

/// Parses and type-checks an expression.
pub fn parse_expr(input: &str) -> Result<Expr, ParseErrors> {
    parse_expr_with(input.as_bytes(), ParserOptions::default())
}

/// As [`parse_expr`], with options, of bytes that may not be UTF-8 (which is an error with a position).
pub fn parse_expr_with(input: &[u8], options: ParserOptions) -> Result<Expr, ParseErrors> {
    let mut parser = Parser::new(Lexer::new(input), options);
    let expr = parser.start();
    match expr {
        Some(mut expr) if parser.errors.is_empty() => {
            check::check(&expr, &mut parser);
            if parser.errors.is_empty() {
                check::settle_matching(&mut expr);
                return Ok(expr);
            }
        }
        _ => {}
    }
    Err(parser.into_errors())
}

/// Parses a selector such as `name{label="value"}`, as `match[]` takes it. A selector that matches everything is
/// accepted: whether that is allowed is the caller's rule.
pub fn parse_metric_selector(input: &str) -> Result<Vec<Matcher>, ParseErrors> {
    let mut parser = Parser::new(Lexer::new(input.as_bytes()), ParserOptions::default());
    let selector = parser.selector_only();
    match selector {
        Some(matchers) if parser.errors.is_empty() => Ok(matchers),
        _ => Err(parser.into_errors()),
    }
}

/// Why parsing stopped at some place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The next token does not fit; a place further up may know what to do.
    Syntax,
    /// The text ended while skipping, or a bound was met: nothing more is to be said.
    Abort,
}

pub(crate) type Parse<X> = Result<X, Stop>;

/// An expression with what the parser needs to know of it.
#[derive(Debug)]
pub(crate) struct Parsed {
    pub(crate) expr: Expr,
    /// Levels of the tree, 1 for a leaf.
    pub(crate) depth: usize,
    /// It is a range of something that cannot have one; the error is reported.
    pub(crate) bad_range: bool,
}

/// What may follow an expression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Within {
    Top,
    Parens,
    Arguments,
}

/// The state of a parse.
pub(crate) struct Parser<'a> {
    pub(crate) lexer: Lexer<'a>,
    pub(crate) options: ParserOptions,
    lookahead: Option<Token>,
    errors: Vec<(PosRange, String)>,
    /// After an error, until a token fits.
    recovering: bool,
    nesting: usize,
    /// Nodes of the duration expression being read.
    duration_nodes: usize,
    /// The end of the last token that can close something.
    last_closing: usize,
}

impl<'a> Parser<'a> {
    pub(crate) fn new(lexer: Lexer<'a>, options: ParserOptions) -> Self {
        Self {
            lexer,
            options,
            lookahead: None,
            errors: Vec::new(),
            recovering: false,
            nesting: 0,
            duration_nodes: 0,
            last_closing: 0,
        }
    }

    pub(crate) fn has_errors(&self) -> bool {
        !self.errors.is_empty()
    }

    pub(crate) fn into_errors(self) -> ParseErrors {
        let input = self.lexer.input();
        let errors = self.errors.into_iter();
        ParseErrors(errors.map(|(pos, message)| ParseError::new(input, pos, message)).collect())
    }

    pub(crate) fn add_error(&mut self, pos: PosRange, message: impl Into<String>) {
        if self.errors.len() < MAX_ERRORS {
            self.errors.push((pos, message.into()));
        }
    }

    pub(crate) fn peek(&mut self) -> Token {
        if let Some(token) = self.lookahead {
            return token;
        }
        let token = loop {
            let token = self.lexer.next_token();
            if token.kind != T::Comment {
                break token;
            }
        };
        match token.kind {
            T::Error => {
                let pos = PosRange::new(token.pos.start, self.lexer.input().len());
                let message = self.lexer.error().to_owned();
                self.add_error(pos, message);
            }
            T::RightBrace | T::RightParen | T::RightBracket | T::Duration | T::Number => {
                self.last_closing = token.pos.end;
            }
            _ => {}
        }
        self.lookahead = Some(token);
        token
    }

    pub(crate) fn kind(&mut self) -> T {
        self.peek().kind
    }

    /// Takes the next token, which fits.
    pub(crate) fn advance(&mut self) -> Token {
        let token = self.peek();
        // The end stays the end, and an error token is reported once.
        if !matches!(token.kind, T::Eof | T::Error) {
            self.lookahead = None;
        }
        self.recovering = false;
        token
    }

    pub(crate) fn accept(&mut self, kind: T) -> Option<Token> {
        (self.kind() == kind).then(|| self.advance())
    }

    pub(crate) fn expect(&mut self, kind: T) -> Parse<Token> {
        self.accept(kind).ok_or(Stop::Syntax)
    }

    /// The next token does not fit here. While recovering it is skipped, else it is an error.
    pub(crate) fn skip_or_stop(&mut self) -> Parse<()> {
        if !self.recovering {
            return Err(Stop::Syntax);
        }
        if matches!(self.kind(), T::Eof | T::Error) || self.errors.len() >= MAX_ERRORS {
            return Err(Stop::Abort);
        }
        self.lookahead = None;
        Ok(())
    }

    /// Reports the next token as one that does not fit and starts recovering. A token that is a lexer's error is
    /// reported already.
    pub(crate) fn unexpected(&mut self, context: &str, expected: &str) {
        let token = self.peek();
        self.recovering = true;
        if token.kind == T::Error {
            return;
        }
        let mut message = format!("unexpected {}", describe(token.kind, self.lexer.text(token.pos)));
        if !context.is_empty() {
            message.push_str(" in ");
            message.push_str(context);
        }
        if !expected.is_empty() {
            message.push_str(", expected ");
            message.push_str(expected);
        }
        self.add_error(token.pos, message);
    }

    /// Runs a part that recurses, unless the parser is too deep.
    pub(crate) fn nested<X>(&mut self, part: impl FnOnce(&mut Self) -> Parse<X>) -> Parse<X> {
        if self.nesting >= MAX_NESTING {
            return Err(self.too_deep(MAX_NESTING));
        }
        self.nesting += 1;
        let result = part(self);
        self.nesting -= 1;
        result
    }

    pub(crate) fn too_deep(&mut self, limit: usize) -> Stop {
        let pos = self.peek().pos;
        self.add_error(pos, format!("expression is nested too deep, the limit is {limit}"));
        Stop::Abort
    }

    pub(crate) fn parsed(&mut self, expr: Expr, below: usize) -> Parse<Parsed> {
        if below >= MAX_DEPTH {
            return Err(self.too_deep(MAX_DEPTH));
        }
        Ok(Parsed { expr, depth: below + 1, bad_range: false })
    }

    /// The value of a number token.
    pub(crate) fn number_value(&mut self, token: Token) -> f64 {
        let text = String::from_utf8_lossy(self.lexer.text(token.pos)).into_owned();
        parse_number(&text).unwrap_or_else(|e| {
            self.add_error(token.pos, format!("error parsing number: {}: {e}", quote(text.as_bytes())));
            0.0
        })
    }

    /// The bytes of a string token.
    pub(crate) fn string_value(&mut self, token: Token) -> Vec<u8> {
        let text = self.lexer.text(token.pos);
        unquote(text).unwrap_or_else(|e| {
            self.add_error(token.pos, format!("error unquoting string {}: {e}", quote(text)));
            Vec::new()
        })
    }

    pub(crate) fn text_of(&self, token: Token) -> String {
        String::from_utf8_lossy(self.lexer.text(token.pos)).into_owned()
    }

    /// The end of the parse by an error that nothing else explains: the rest of the text may hold a lexer's error too.
    pub(crate) fn give_up(&mut self, stop: Stop) {
        if stop == Stop::Syntax {
            self.unexpected("", "");
            while self.skip_or_stop().is_ok() {}
        }
    }

    fn start(&mut self) -> Option<Expr> {
        if self.kind() == T::Eof {
            self.add_error(PosRange::default(), "no expression found in input");
            return None;
        }
        let result = self.expr(0, Within::Top).and_then(|parsed| self.end().map(|()| parsed.expr));
        result.map_err(|stop| self.give_up(stop)).ok()
    }

    /// The end of the text. After an error the end may also be a lexer's error.
    pub(crate) fn end(&mut self) -> Parse<()> {
        while !matches!(self.kind(), T::Eof | T::Error) {
            self.skip_or_stop()?;
        }
        Ok(())
    }

    fn selector_only(&mut self) -> Option<Vec<Matcher>> {
        let result = self.vector_selector().and_then(|s| self.end().map(|()| s.matchers));
        result.map_err(|stop| self.give_up(stop)).ok()
    }
}
