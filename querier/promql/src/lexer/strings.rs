//! Quoted strings. A token is the string as written; escapes are checked here and read by the parser.

use super::{Lexer, Mode};
use crate::{
    quote::{decode_char, unicode_char},
    token::{Token, TokenKind as T},
};

impl Lexer<'_> {
    /// Reads to the closing quote. After an error inside of the string, the string goes on.
    pub(super) fn string(&mut self, quote: u8) -> Option<Token> {
        let raw = quote == b'`';
        loop {
            let (c, width) = decode_char(self.input.get(self.pos..).unwrap_or_default());
            self.pos += width;
            match c {
                None if width == 0 && raw => {
                    return self.fail("unterminated raw string");
                }
                None if width == 0 => return self.fail("unterminated quoted string"),
                None => return self.error_token("invalid UTF-8 rune"),
                Some('\n') if !raw => return self.fail("unterminated quoted string"),
                Some('\\') if !raw => {
                    if let Some(message) = self.escape(quote) {
                        return self.error_token(message);
                    }
                }
                Some(c) if c == char::from(quote) => break,
                Some(_) => {}
            }
        }
        self.mode = Mode::Statements;
        Some(self.emit(T::String))
    }

    /// Checks an escape whose backslash was read; gives what is wrong with it.
    fn escape(&mut self, quote: u8) -> Option<String> {
        let c = self.next();
        let (digits, radix, max) = match c {
            None => return Some("escape sequence not terminated".to_owned()),
            Some('a' | 'b' | 'f' | 'n' | 'r' | 't' | 'v' | '\\') => return None,
            Some(c) if c == char::from(quote) => return None,
            Some('0'..='7') => {
                self.pos -= 1;
                (3, 8, 0xff)
            }
            Some('x') => (2, 16, 0xff),
            Some('u') => (4, 16, 0x10_ffff),
            Some('U') => (8, 16, 0x10_ffff),
            Some(_) => return Some(format!("unknown escape sequence {}", unicode_char(c))),
        };
        let mut value = 0u32;
        for _ in 0..digits {
            let c = self.next();
            match c.map(|c| c.to_digit(radix)) {
                None => return Some("escape sequence not terminated".to_owned()),
                Some(None) => {
                    return Some(format!("illegal character {} in escape sequence", unicode_char(c)));
                }
                Some(Some(digit)) => value = value.wrapping_mul(radix).wrapping_add(digit),
            }
        }
        if value > max || (0xd800..0xe000).contains(&value) {
            return Some("escape sequence is an invalid Unicode code point".to_owned());
        }
        None
    }
}
