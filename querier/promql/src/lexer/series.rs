//! The values of test series: numbers, repetitions, and native histograms in double braces.

use super::{HistogramState, Lexer, Mode, is_alpha, is_digit, is_space};
use crate::{
    quote::{quote, quote_char},
    token::{Token, TokenKind as T, histogram_field, is_special_number, reset_hint},
};

impl Lexer<'_> {
    pub(super) fn value_sequence(&mut self) -> Option<Token> {
        if self.histogram != HistogramState::Outside {
            self.mode = Mode::Histogram;
            return None;
        }
        let c = self.next();
        match c {
            None => {
                self.mode = Mode::Statements;
                None
            }
            Some('{') if self.peek() == Some('{') => {
                self.histogram = HistogramState::Open;
                self.mode = Mode::Histogram;
                self.next();
                Some(self.emit(T::OpenHist))
            }
            Some(' ' | '\t' | '\n' | '\r') => Some(self.space()),
            Some('+') => Some(self.emit(T::Add)),
            Some('-') => Some(self.emit(T::Sub)),
            Some('x') => Some(self.emit(T::Times)),
            Some('_') => Some(self.emit(T::Blank)),
            Some(r) if is_digit(c) || (r == '.' && is_digit(self.peek())) => {
                self.pos -= 1;
                self.number()
            }
            _ if is_alpha(c) => Some(self.keyword_or_identifier()),
            _ => self.fail(format!("unexpected character in series sequence: {}", quote_char(c))),
        }
    }

    /// One space is the token; further ones are skipped.
    fn space(&mut self) -> Token {
        let token = self.emit(T::Space);
        self.skip_spaces();
        token
    }

    pub(super) fn histogram(&mut self) -> Option<Token> {
        if let HistogramState::Operator(kind) = self.histogram {
            self.histogram = HistogramState::Outside;
            self.mode = Mode::ValueSequence;
            return self.two(kind);
        }
        if self.bracket_open {
            self.mode = Mode::Buckets;
            return None;
        }
        let c = self.next();
        match c {
            _ if is_space(c) => Some(self.space()),
            _ if is_alpha(c) => self.histogram_word(),
            Some(':') => Some(self.emit(T::Colon)),
            Some('-') => Some(self.emit(T::Sub)),
            _ if is_digit(c) => {
                self.pos -= 1;
                self.number()
            }
            Some('[') => {
                self.bracket_open = true;
                self.mode = Mode::Buckets;
                Some(self.emit(T::LeftBracket))
            }
            Some('}') if self.peek() == Some('}') => self.close_histogram(),
            _ => self.fail(format!("histogram description incomplete unexpected: {}", quote_char(c))),
        }
    }

    fn close_histogram(&mut self) -> Option<Token> {
        let token = self.two(T::CloseHist);
        self.histogram = match self.peek() {
            Some('x') => HistogramState::Operator(T::Times),
            Some('+') => HistogramState::Operator(T::Add),
            Some('-') => HistogramState::Operator(T::Sub),
            _ => HistogramState::Outside,
        };
        self.mode = Mode::ValueSequence;
        token
    }

    fn histogram_word(&mut self) -> Option<Token> {
        while is_alpha(self.peek()) {
            self.pos += 1;
        }
        let word = self.input.get(self.start..self.pos).unwrap_or_default();
        if let Some(kind) = histogram_field(word) {
            if self.peek() != Some(':') {
                return self.fail("missing `:` for histogram descriptor");
            }
            return Some(self.emit(kind));
        }
        if is_special_number(word) {
            return Some(self.emit(T::Number));
        }
        if let Some(kind) = reset_hint(word) {
            return Some(self.emit(kind));
        }
        let message = format!("bad histogram descriptor found: {}", quote(word));
        self.fail(message)
    }

    pub(super) fn buckets(&mut self) -> Option<Token> {
        let c = self.next();
        match c {
            _ if is_space(c) => Some(self.space()),
            Some('-') => Some(self.emit(T::Sub)),
            _ if is_digit(c) => {
                self.pos -= 1;
                self.number()
            }
            Some(']') => {
                self.bracket_open = false;
                self.mode = Mode::Histogram;
                Some(self.emit(T::RightBracket))
            }
            _ if is_alpha(c) => {
                while is_alpha(self.peek()) {
                    self.pos += 1;
                }
                let word = self.input.get(self.start..self.pos).unwrap_or_default();
                if is_special_number(word) {
                    return Some(self.emit(T::Number));
                }
                let message = format!("bad number syntax: {}", quote(word));
                self.fail(message)
            }
            _ => self.fail(format!("invalid character in buckets description: {}", quote_char(c))),
        }
    }
}
