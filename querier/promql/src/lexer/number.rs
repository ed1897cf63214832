//! Numbers and durations. A scanned number is not always a valid one: the parser reads its value.

use super::{Lexer, is_alphanumeric};
use crate::{
    quote::quote,
    token::{Token, TokenKind as T},
};

const DIGITS: &[u8] = b"0123456789";
const HEX_DIGITS: &[u8] = b"0123456789abcdefABCDEF";

impl Lexer<'_> {
    /// A number or a duration; its first character is a digit or a dot and was not read.
    pub(super) fn number_or_duration(&mut self) -> Option<Token> {
        if self.scan_number() {
            return Some(self.emit(T::Number));
        }
        if self.scan_duration_rest() {
            return Some(self.emit(T::Duration));
        }
        // The offending character is part of what is shown.
        let text = self.input.get(self.start..self.pos).unwrap_or_default();
        let message = format!("bad number or duration syntax: {}", quote(text));
        self.fail(message)
    }

    /// A number; where it is none the error ends the text.
    pub(super) fn number(&mut self) -> Option<Token> {
        if self.scan_number() {
            return Some(self.emit(T::Number));
        }
        let text = self.input.get(self.start..self.pos).unwrap_or_default();
        let message = format!("bad number syntax: {}", quote(text));
        self.fail(message)
    }

    /// The unit behind the first number of a duration, and further numbers with units. Units in a wrong order are
    /// found when the duration's value is read.
    fn scan_duration_rest(&mut self) -> bool {
        if !self.accept(b"smhdwy") {
            return false;
        }
        self.accept(b"s");
        while self.accept(DIGITS) {
            while self.accept(DIGITS) {}
            // Years come first or not at all.
            if !self.accept(b"smhdw") {
                return false;
            }
            self.accept(b"s");
        }
        if is_alphanumeric(self.peek()) {
            self.pos += 1;
            return false;
        }
        true
    }

    fn at(&self, valid: &[u8]) -> bool {
        self.input.get(self.pos).is_some_and(|b| valid.contains(b))
    }

    fn scan_number(&mut self) -> bool {
        let first = self.pos;
        let mut digits = DIGITS;
        // In test series `0x3` is three times a zero.
        if !self.series && self.accept(b"0") && self.accept(b"xX") {
            self.accept(b"_");
            digits = HEX_DIGITS;
        }
        let hex = digits.len() > 10;
        self.accept(b".");
        self.accept(digits);
        let (mut dot, mut exponent) = (false, false);
        while self.at(digits) || self.at(b"._eE") {
            // Neither a dot nor an exponent comes twice.
            if (self.at(b".") && dot) || (self.at(b"eE") && exponent) {
                self.pos += 1;
                return false;
            }
            if self.accept(b".") {
                dot = true;
                if self.accept(b"_.") || hex {
                    return false;
                }
            } else if self.accept(b"eE") {
                exponent = true;
                self.accept(b"+-");
                if self.accept(b"._eE") || self.peek().is_none() {
                    return false;
                }
            } else if self.accept(b"_") {
                if self.accept(b"._eE") || self.peek().is_none() {
                    return false;
                }
            } else {
                while self.accept(digits) {}
            }
        }
        let ends = match self.peek() {
            Some('x') if self.series => true,
            next => !is_alphanumeric(next),
        };
        self.pos > first && ends
    }
}
