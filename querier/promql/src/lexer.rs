//! The lexer: bytes to tokens, one at a time, with constant memory.
//!
//! What a character means depends on where it stands, so the lexer is a machine of a few modes: statements, braces,
//! brackets up to the first number (`lexer/words.rs`), and the values of test series (`lexer/series.rs`). An error is a
//! token too; its message is in [`Lexer::error`].

mod number;
mod series;
mod strings;
mod words;

use crate::{
    ast::PosRange,
    quote::{decode_char, quote_char},
    token::{Token, TokenKind as T},
};

/// What the next character is part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Statements,
    Braces,
    /// Inside of brackets, before the first number.
    DurationExpr,
    /// Inside of a string with this quote; the opening quote is read.
    String(u8),
    ValueSequence,
    Histogram,
    Buckets,
    /// After the end or an error that ends the text.
    Done,
}

/// Where a histogram stands in a value sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HistogramState {
    Outside,
    Open,
    /// Closed, and one of `x`, `+`, `-` follows.
    Operator(T),
}

/// The state of a lexer.
#[derive(Debug)]
pub(crate) struct Lexer<'a> {
    input: &'a [u8],
    /// The next byte to read.
    pos: usize,
    /// The first byte of the token being read.
    start: usize,
    mode: Mode,
    paren_depth: usize,
    brace_open: bool,
    bracket_open: bool,
    got_colon: bool,
    got_duration: bool,
    series: bool,
    histogram: HistogramState,
    error: String,
}

fn is_space(c: Option<char>) -> bool {
    matches!(c, Some(' ' | '\t' | '\n' | '\r'))
}

fn is_alpha(c: Option<char>) -> bool {
    c.is_some_and(|c| c == '_' || c.is_ascii_alphabetic())
}

fn is_digit(c: Option<char>) -> bool {
    c.is_some_and(|c| c.is_ascii_digit())
}

fn is_alphanumeric(c: Option<char>) -> bool {
    is_alpha(c) || is_digit(c)
}

impl<'a> Lexer<'a> {
    /// A lexer of a query.
    pub(crate) fn new(input: &'a [u8]) -> Self {
        Self {
            input,
            pos: 0,
            start: 0,
            mode: Mode::Statements,
            paren_depth: 0,
            brace_open: false,
            bracket_open: false,
            got_colon: false,
            got_duration: false,
            series: false,
            histogram: HistogramState::Outside,
            error: String::new(),
        }
    }

    /// A lexer of a test series with its values.
    pub(crate) fn new_series(input: &'a [u8]) -> Self {
        Self { series: true, ..Self::new(input) }
    }

    /// The whole text.
    pub(crate) fn input(&self) -> &'a [u8] {
        self.input
    }

    /// The bytes of a range, none where it is out of the text.
    pub(crate) fn text(&self, pos: PosRange) -> &'a [u8] {
        self.input.get(pos.start..pos.end).unwrap_or_default()
    }

    /// The message of the last error token.
    pub(crate) fn error(&self) -> &str {
        &self.error
    }

    /// The next token; after the end, [`T::Eof`] for ever.
    pub(crate) fn next_token(&mut self) -> Token {
        loop {
            let token = match self.mode {
                Mode::Statements => self.statements(),
                Mode::Braces => self.braces(),
                Mode::DurationExpr => self.duration_expr(),
                Mode::String(quote) => self.string(quote),
                Mode::ValueSequence => self.value_sequence(),
                Mode::Histogram => self.histogram(),
                Mode::Buckets => self.buckets(),
                Mode::Done => Some(self.emit(T::Eof)),
            };
            if let Some(token) = token {
                return token;
            }
        }
    }

    fn next(&mut self) -> Option<char> {
        let rest = self.input.get(self.pos..).unwrap_or_default();
        let (c, width) = decode_char(rest);
        self.pos += width;
        // A byte that is not UTF-8 is a character like another, just never a valid one.
        if width == 0 { None } else { Some(c.unwrap_or(char::REPLACEMENT_CHARACTER)) }
    }

    fn peek(&self) -> Option<char> {
        let (c, width) = decode_char(self.input.get(self.pos..).unwrap_or_default());
        if width == 0 { None } else { Some(c.unwrap_or(char::REPLACEMENT_CHARACTER)) }
    }

    fn accept(&mut self, valid: &[u8]) -> bool {
        let found = self.input.get(self.pos).is_some_and(|b| valid.contains(b));
        self.pos += usize::from(found);
        found
    }

    fn emit(&mut self, kind: T) -> Token {
        let pos = PosRange::new(self.start, self.pos);
        self.start = self.pos;
        Token { kind, pos }
    }

    fn ignore(&mut self) {
        self.start = self.pos;
    }

    /// An error token after which the lexer goes on.
    fn error_token(&mut self, message: impl Into<String>) -> Option<Token> {
        self.error = message.into();
        Some(Token { kind: T::Error, pos: PosRange::new(self.start, self.start) })
    }

    /// An error token that ends the text.
    fn fail(&mut self, message: impl Into<String>) -> Option<Token> {
        self.mode = Mode::Done;
        self.error_token(message)
    }

    fn skip_spaces(&mut self) {
        while self.accept(b" \t\n\r") {}
        self.ignore();
    }

    /// Whether the next characters are spaces and then `(`.
    fn paren_follows(&self) -> bool {
        let rest = self.input.get(self.pos..).unwrap_or_default();
        rest.iter().find(|b| !matches!(b, b' ' | b'\t' | b'\n' | b'\r')) == Some(&b'(')
    }

    fn line_comment(&mut self) -> Option<Token> {
        let rest = self.input.get(self.pos..).unwrap_or_default();
        self.pos += rest.iter().position(|b| matches!(b, b'\n' | b'\r')).unwrap_or(rest.len());
        Some(self.emit(T::Comment))
    }

    fn statements(&mut self) -> Option<Token> {
        if self.histogram != HistogramState::Outside {
            self.mode = Mode::Histogram;
            return None;
        }
        if self.brace_open {
            self.mode = Mode::Braces;
            return None;
        }
        if self.peek() == Some('#') {
            return self.line_comment();
        }
        let c = self.next();
        let Some(r) = c else {
            if self.paren_depth != 0 {
                return self.fail("unclosed left parenthesis");
            }
            if self.bracket_open {
                return self.fail("unclosed left bracket");
            }
            self.mode = Mode::Done;
            return Some(self.emit(T::Eof));
        };
        match r {
            ' ' | '\t' | '\n' | '\r' => {
                self.skip_spaces();
                None
            }
            ',' => Some(self.emit(T::Comma)),
            '*' | '/' | '%' | '+' | '-' | '^' => Some(self.emit(arithmetic(r))),
            '=' => match self.peek() {
                Some('~') => self.fail("unexpected character after '=': '~'"),
                Some('=') => self.two(T::EqlC),
                _ => Some(self.emit(T::Eql)),
            },
            '!' => match self.next() {
                Some('=') => Some(self.emit(T::Neq)),
                other => self.fail(format!("unexpected character after '!': {}", quote_char(other))),
            },
            '<' | '>' => self.comparison(r),
            '"' | '\'' | '`' => {
                self.mode = Mode::String(r as u8);
                None
            }
            '(' => self.open_paren(),
            ')' => self.close_paren(),
            '{' => {
                self.brace_open = true;
                self.mode = Mode::Braces;
                Some(self.emit(T::LeftBrace))
            }
            '[' => self.open_bracket(),
            ']' if !self.bracket_open => self.fail("unexpected right bracket ']'"),
            ']' => {
                self.bracket_open = false;
                Some(self.emit(T::RightBracket))
            }
            '@' => Some(self.emit(T::At)),
            _ if is_digit(c) || (r == '.' && is_digit(self.peek())) => {
                self.pos -= 1;
                self.number_or_duration()
            }
            _ if is_alpha(c) || r == ':' => self.word_or_colon(r),
            _ => self.fail(format!("unexpected character: {}", quote_char(c))),
        }
    }

    fn two(&mut self, kind: T) -> Option<Token> {
        self.next();
        Some(self.emit(kind))
    }

    fn comparison(&mut self, first: char) -> Option<Token> {
        let less = first == '<';
        match self.peek() {
            Some('=') => self.two(if less { T::Lte } else { T::Gte }),
            Some('/') => self.two(if less { T::TrimUpper } else { T::TrimLower }),
            _ => Some(self.emit(if less { T::Lss } else { T::Gtr })),
        }
    }

    fn open_paren(&mut self) -> Option<Token> {
        self.paren_depth += 1;
        Some(self.emit(T::LeftParen))
    }

    fn close_paren(&mut self) -> Option<Token> {
        let token = self.emit(T::RightParen);
        match self.paren_depth.checked_sub(1) {
            Some(depth) => {
                self.paren_depth = depth;
                Some(token)
            }
            None => self.fail("unexpected right parenthesis ')'"),
        }
    }

    fn open_bracket(&mut self) -> Option<Token> {
        if self.bracket_open {
            return self.fail("unexpected left bracket '['");
        }
        self.got_colon = false;
        self.got_duration = false;
        self.bracket_open = true;
        self.mode = Mode::DurationExpr;
        Some(self.emit(T::LeftBracket))
    }

    fn braces(&mut self) -> Option<Token> {
        if self.peek() == Some('#') {
            self.mode = Mode::Statements;
            return self.line_comment();
        }
        let c = self.next();
        match c {
            None => self.fail("unexpected end of input inside braces"),
            Some(' ' | '\t' | '\n' | '\r') => {
                self.skip_spaces();
                None
            }
            _ if is_alpha(c) => {
                while is_alphanumeric(self.peek()) {
                    self.pos += 1;
                }
                Some(self.emit(T::Identifier))
            }
            Some(',') => Some(self.emit(T::Comma)),
            Some(quote @ ('"' | '\'' | '`')) => {
                self.mode = Mode::String(quote as u8);
                None
            }
            Some('=') => {
                let kind = if self.accept(b"~") { T::EqlRegex } else { T::Eql };
                Some(self.emit(kind))
            }
            Some('!') => match self.next() {
                Some('~') => Some(self.emit(T::NeqRegex)),
                Some('=') => Some(self.emit(T::Neq)),
                other => {
                    self.fail(format!("unexpected character after '!' inside braces: {}", quote_char(other)))
                }
            },
            Some('{') => self.fail("unexpected left brace '{'"),
            Some('}') => {
                self.brace_open = false;
                self.mode = if self.series { Mode::ValueSequence } else { Mode::Statements };
                Some(self.emit(T::RightBrace))
            }
            _ => self.fail(format!("unexpected character inside braces: {}", quote_char(c))),
        }
    }
}

fn arithmetic(c: char) -> T {
    match c {
        '*' => T::Mul,
        '/' => T::Div,
        '%' => T::Mod,
        '+' => T::Add,
        '-' => T::Sub,
        _ => T::Pow,
    }
}
