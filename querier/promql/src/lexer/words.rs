//! Identifiers, keywords, and what stands in brackets.

use super::{Lexer, Mode, arithmetic, is_alpha, is_alphanumeric, is_digit, is_space};
use crate::{
    quote::quote_char,
    token::{Token, TokenKind as T, keyword},
};

impl Lexer<'_> {
    /// A letter or a colon was read.
    pub(super) fn word_or_colon(&mut self, first: char) -> Option<Token> {
        if !self.bracket_open {
            return Some(self.keyword_or_identifier());
        }
        if first == ':' {
            if self.got_colon {
                return self.fail("unexpected colon ':'");
            }
            self.got_colon = true;
            return Some(self.emit(T::Colon));
        }
        match self.duration_keyword() {
            Some(kind) => Some(self.emit(kind)),
            None => self.fail(format!("unexpected character: {}, expected ':'", quote_char(Some(first)))),
        }
    }

    pub(super) fn keyword_or_identifier(&mut self) -> Token {
        while is_alphanumeric(self.peek()) || self.peek() == Some(':') {
            self.pos += 1;
        }
        let word = self.input.get(self.start..self.pos).unwrap_or_default();
        let kind = match keyword(word) {
            // So that metrics of these names stay usable, they are keywords only in front of a parenthesis.
            Some(T::Fill | T::FillLeft | T::FillRight) if !self.paren_follows() => T::Identifier,
            Some(kind) => kind,
            None if word.contains(&b':') => T::MetricIdentifier,
            None => T::Identifier,
        };
        if self.series && self.peek() != Some('{') {
            self.mode = Mode::ValueSequence;
        } else {
            self.mode = Mode::Statements;
        }
        self.emit(kind)
    }

    /// The keyword that a word in brackets is; its first letter was read.
    fn duration_keyword(&mut self) -> Option<T> {
        while is_alpha(self.peek()) {
            self.pos += 1;
        }
        let word = self.input.get(self.start..self.pos).unwrap_or_default();
        keyword(word).filter(|kind| matches!(kind, T::Step | T::Range | T::MinOf | T::MaxOf))
    }

    pub(super) fn duration_expr(&mut self) -> Option<Token> {
        let c = self.next();
        let Some(r) = c else { return self.fail("unexpected end of input in duration expression") };
        match r {
            ']' => {
                self.bracket_open = false;
                self.got_colon = false;
                self.mode = Mode::Statements;
                Some(self.emit(T::RightBracket))
            }
            ':' => {
                let token = self.emit(T::Colon);
                if !self.got_duration {
                    return self.fail("unexpected colon before duration in duration expression");
                }
                if self.got_colon {
                    return self.fail("unexpected repeated colon in duration expression");
                }
                self.got_colon = true;
                Some(token)
            }
            '(' => self.open_paren(),
            ')' => self.close_paren(),
            ',' => Some(self.emit(T::Comma)),
            '*' | '/' | '%' | '+' | '-' | '^' => Some(self.emit(arithmetic(r))),
            _ if is_space(c) => {
                self.skip_spaces();
                None
            }
            _ if is_digit(c) || (r == '.' && is_digit(self.peek())) => {
                self.pos -= 1;
                self.got_duration = true;
                self.mode = Mode::Statements;
                self.number_or_duration()
            }
            's' | 'S' | 'm' | 'M' | 'r' | 'R' => match self.duration_keyword() {
                Some(kind) => {
                    // `step()` and `range()` are durations too: a colon may follow.
                    self.got_duration = true;
                    Some(self.emit(kind))
                }
                None => self.fail(format!("unexpected character in duration expression: {}", quote_char(c))),
            },
            _ => self.fail(format!("unexpected character in duration expression: {}", quote_char(c))),
        }
    }
}
