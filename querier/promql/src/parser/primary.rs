//! Operands: literals, parentheses, calls, signs.

use super::{Parse, Parsed, Parser, Stop, Within, binary::POWER};
use crate::{
    ast::{CallExpr, Expr, NumberLiteral, ParenExpr, PosRange, StringLiteral, UnaryExpr, ValueType},
    duration_text::parse_duration,
    functions::{Function, function},
    parser::MAX_NESTING,
    quote::quote,
    token::{Token, TokenKind as T},
};

/// Stands for a function that is not known, in a tree that is thrown away.
static UNKNOWN: Function =
    Function { name: "", arg_types: &[], variadic: 0, return_type: ValueType::None, experimental: false };

impl Parser<'_> {
    /// An operand with its signs and modifiers.
    pub(super) fn unary(&mut self, within: Within) -> Parse<Parsed> {
        if matches!(self.kind(), T::Add | T::Sub) {
            return self.signs(within);
        }
        let operand = self.primary()?;
        self.modifiers(operand, within)
    }

    fn signs(&mut self, within: Within) -> Parse<Parsed> {
        let mut signs: Vec<Token> = Vec::new();
        while matches!(self.kind(), T::Add | T::Sub) {
            if signs.len() >= MAX_NESTING {
                return Err(self.too_deep(MAX_NESTING));
            }
            signs.push(self.advance());
        }
        // A sign binds as multiplication does: weaker than a power.
        let mut operand = self.nested(|p| p.expr(POWER, within))?;
        while let Some(sign) = signs.pop() {
            operand = self.signed(sign, operand)?;
        }
        Ok(operand)
    }

    fn signed(&mut self, sign: Token, operand: Parsed) -> Parse<Parsed> {
        let negative = sign.kind == T::Sub;
        let pos = sign.pos.to(operand.expr.pos());
        match operand.expr {
            Expr::NumberLiteral(mut n) => {
                n.val = if negative { -n.val } else { n.val };
                n.pos = pos;
                Ok(Parsed { expr: Expr::NumberLiteral(n), ..operand })
            }
            expr => {
                let expr = Expr::Unary(Box::new(UnaryExpr { negative, expr, pos }));
                self.parsed(expr, operand.depth)
            }
        }
    }

    fn primary(&mut self) -> Parse<Parsed> {
        match self.kind() {
            T::Number | T::Duration => self.number_literal(),
            T::String => self.string_literal(),
            T::LeftParen => self.nested(Self::parens),
            T::Identifier => self.name_or_call(),
            kind if kind.is_soft_function() => self.name_or_call(),
            kind if kind.is_aggregator() => self.name_or_aggregation(),
            _ => self.selector(),
        }
    }

    fn number_literal(&mut self) -> Parse<Parsed> {
        let literal = self.number_or_duration_literal();
        self.parsed(Expr::NumberLiteral(Box::new(literal)), 0)
    }

    fn selector(&mut self) -> Parse<Parsed> {
        let selector = self.vector_selector()?;
        self.parsed(Expr::VectorSelector(Box::new(selector)), 0)
    }

    pub(super) fn number_or_duration_literal(&mut self) -> NumberLiteral {
        let token = self.advance();
        if token.kind == T::Number {
            return NumberLiteral { val: self.number_value(token), duration: false, pos: token.pos };
        }
        let ms = parse_duration(&self.text_of(token)).unwrap_or_else(|e| {
            self.add_error(token.pos, e.to_string());
            0
        });
        NumberLiteral { val: ms as f64 / 1000.0, duration: true, pos: token.pos }
    }

    fn string_literal(&mut self) -> Parse<Parsed> {
        let token = self.advance();
        let (val, raw) = match String::from_utf8(self.string_value(token)) {
            Ok(text) => (text, None),
            Err(e) => (String::from_utf8_lossy(e.as_bytes()).into_owned(), Some(e.into_bytes())),
        };
        self.parsed(Expr::StringLiteral(Box::new(StringLiteral { val, raw, pos: token.pos })), 0)
    }

    fn parens(&mut self) -> Parse<Parsed> {
        let open = self.advance();
        let inner = self.expr(0, Within::Parens)?;
        let close = self.expect(T::RightParen)?;
        self.make_parens(inner, open.pos.to(close.pos))
    }

    fn make_parens(&mut self, inner: Parsed, pos: PosRange) -> Parse<Parsed> {
        self.parsed(Expr::Paren(Box::new(ParenExpr { expr: inner.expr, pos })), inner.depth)
    }

    fn name_or_call(&mut self) -> Parse<Parsed> {
        let name = self.advance();
        if self.kind() != T::LeftParen {
            return self.named_selector(name);
        }
        self.nested(|p| p.call(name))
    }

    pub(super) fn named_selector(&mut self, name: Token) -> Parse<Parsed> {
        let selector = self.selector_after_name(name)?;
        self.parsed(Expr::VectorSelector(Box::new(selector)), 0)
    }

    fn call(&mut self, name: Token) -> Parse<Parsed> {
        let (args, close) = self.arguments()?;
        self.make_call(name, args, close)
    }

    /// Apart from the recursion, so that a level of nesting takes little stack; so are the other `make_` parts.
    fn make_call(&mut self, name: Token, args: Vec<Parsed>, close: PosRange) -> Parse<Parsed> {
        let text = self.text_of(name);
        let func = match function(&text) {
            Some(f) if f.experimental && !self.options.experimental_functions => {
                self.add_error(name.pos, format!("function {} is not enabled", quote(text.as_bytes())));
                f
            }
            Some(f) => f,
            None => {
                self.add_error(name.pos, format!("unknown function with name {}", quote(text.as_bytes())));
                &UNKNOWN
            }
        };
        let below = args.iter().map(|a| a.depth).max().unwrap_or(0);
        let args = args.into_iter().map(|a| a.expr).collect();
        let pos = name.pos.to(close);
        self.parsed(Expr::Call(Box::new(CallExpr { func, args, pos })), below)
    }

    /// Arguments in parentheses, with the place of the closing one.
    pub(super) fn arguments(&mut self) -> Parse<(Vec<Parsed>, PosRange)> {
        self.expect(T::LeftParen)?;
        let mut args = Vec::new();
        if let Some(close) = self.accept(T::RightParen) {
            return Ok((args, close.pos));
        }
        args.push(self.expr(0, Within::Arguments)?);
        loop {
            match self.kind() {
                T::RightParen => return Ok((args, self.advance().pos)),
                T::Comma => {
                    let comma = self.advance();
                    if self.starts_expr() {
                        args.push(self.expr(0, Within::Arguments)?);
                    } else {
                        self.add_error(comma.pos, "trailing commas not allowed in function call args");
                    }
                }
                _ => return Err(Stop::Syntax),
            }
        }
    }

    fn starts_expr(&mut self) -> bool {
        let kind = self.kind();
        kind.is_metric_name()
            || matches!(
                kind,
                T::Number | T::Duration | T::String | T::LeftParen | T::LeftBrace | T::Add | T::Sub
            )
    }
}
