//! A metric as tests write it: a name and labels with values, not matchers.

use sextant_model::{Labels, LabelsBuilder, METRIC_NAME};

use crate::{
    parser::{Parse, Parser, Stop},
    token::TokenKind as T,
};

const CONTEXT: &str = "label set";

impl Parser<'_> {
    /// `name`, `name{…}`, `{…}`, or nothing: the empty set.
    pub(super) fn metric(&mut self) -> Parse<Labels> {
        let mut labels = LabelsBuilder::default();
        let name = match self.kind() {
            kind if kind.is_metric_name() => {
                let token = self.advance();
                Some(self.text_of(token))
            }
            T::LeftBrace | T::Eof | T::Space => None,
            _ => return Err(Stop::Syntax),
        };
        if self.kind() == T::LeftBrace {
            self.label_set(&mut labels)?;
        }
        if let Some(name) = name {
            labels.set(METRIC_NAME, &name);
        }
        Ok(labels.build())
    }

    fn label_set(&mut self, labels: &mut LabelsBuilder) -> Parse<()> {
        self.advance();
        loop {
            match self.kind() {
                T::RightBrace => {
                    self.advance();
                    return Ok(());
                }
                T::Identifier | T::String => self.label(labels)?,
                _ => {
                    self.unexpected(CONTEXT, "identifier or \"}\"");
                    return Err(Stop::Abort);
                }
            }
            match self.kind() {
                T::Comma => {
                    self.advance();
                }
                T::RightBrace => {}
                _ => {
                    self.unexpected(CONTEXT, "\",\" or \"}\"");
                    return Err(Stop::Abort);
                }
            }
        }
    }

    fn label(&mut self, labels: &mut LabelsBuilder) -> Parse<()> {
        let token = self.advance();
        let quoted = token.kind == T::String;
        let name = if quoted { self.string_value(token) } else { self.lexer.text(token.pos).to_vec() };
        let name = String::from_utf8_lossy(&name).into_owned();
        if self.accept(T::Eql).is_none() {
            if quoted {
                labels.set(METRIC_NAME, &name);
                return Ok(());
            }
            self.unexpected(CONTEXT, "\"=\"");
            return Err(Stop::Abort);
        }
        let Some(value) = self.accept(T::String) else {
            self.unexpected(CONTEXT, "string");
            return Err(Stop::Abort);
        };
        let text = self.string_value(value);
        labels.set(&name, &String::from_utf8_lossy(&text));
        Ok(())
    }
}
