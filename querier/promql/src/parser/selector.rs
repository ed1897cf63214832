//! Vector selectors and label matchers.

use sextant_model::{METRIC_NAME, MatchOp, Matcher};

use super::{Parse, Parser, Stop};
use crate::{
    ast::{PosRange, VectorSelector},
    token::{Token, TokenKind as T},
};

const CONTEXT: &str = "label matching";

impl Parser<'_> {
    /// `name`, `name{…}` or `{…}`.
    pub(crate) fn vector_selector(&mut self) -> Parse<VectorSelector> {
        match self.kind() {
            T::LeftBrace => {
                let (matchers, pos) = self.label_matchers()?;
                Ok(selector(None, matchers, pos))
            }
            kind if kind.is_metric_name() => {
                let name = self.advance();
                self.selector_after_name(name)
            }
            _ => Err(Stop::Syntax),
        }
    }

    pub(super) fn selector_after_name(&mut self, token: Token) -> Parse<VectorSelector> {
        let name = self.text_of(token);
        let (mut matchers, pos) = if self.kind() == T::LeftBrace {
            let (matchers, braces) = self.label_matchers()?;
            (matchers, token.pos.to(braces))
        } else {
            (Vec::new(), token.pos)
        };
        matchers.push(Matcher::equal(METRIC_NAME, name.clone()));
        Ok(selector(Some(name), matchers, pos))
    }

    /// Matchers in braces; a comma may follow the last.
    fn label_matchers(&mut self) -> Parse<(Vec<Matcher>, PosRange)> {
        let open = self.advance().pos;
        let mut matchers = Vec::new();
        loop {
            // At the start, or behind a comma.
            match self.kind() {
                T::RightBrace => return Ok((matchers, open.to(self.advance().pos))),
                T::Identifier | T::String => matchers.extend(self.label_matcher()),
                _ => self.unexpected(CONTEXT, "identifier or \"}\""),
            }
            loop {
                match self.kind() {
                    T::Comma => {
                        self.advance();
                        break;
                    }
                    T::RightBrace => return Ok((matchers, open.to(self.advance().pos))),
                    _ if self.recovering => self.skip_or_stop()?,
                    _ => self.unexpected(CONTEXT, "\",\" or \"}\""),
                }
            }
        }
    }

    fn label_matcher(&mut self) -> Option<Matcher> {
        let label = self.advance();
        let quoted = label.kind == T::String;
        let name = if quoted { self.string_value(label) } else { self.lexer.text(label.pos).to_vec() };
        let name = String::from_utf8_lossy(&name).into_owned();
        if !self.kind().is_match_op() {
            if quoted {
                return Some(Matcher::equal(METRIC_NAME, name));
            }
            self.unexpected(CONTEXT, "label matching operator");
            return None;
        }
        let op = match self.advance().kind {
            T::Neq => MatchOp::NotEqual,
            T::EqlRegex => MatchOp::Regex,
            T::NeqRegex => MatchOp::NotRegex,
            _ => MatchOp::Equal,
        };
        let Some(value) = self.accept(T::String) else {
            self.unexpected(CONTEXT, "string");
            return None;
        };
        let text = String::from_utf8_lossy(&self.string_value(value)).into_owned();
        Matcher::new(name, op, text).map_err(|e| self.add_error(label.pos.to(value.pos), e.to_string())).ok()
    }
}

fn selector(name: Option<String>, matchers: Vec<Matcher>, pos: PosRange) -> VectorSelector {
    VectorSelector {
        name,
        matchers,
        offset_expr: None,
        offset_ms: 0,
        at: None,
        anchored: false,
        smoothed: false,
        pos,
    }
}
