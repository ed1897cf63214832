//! Duration expressions. A literal, with its sign, stays a literal; everything else is kept as an expression.
//!
//! Behind `offset` a literal, `step()`, `range()`, `min_of(…)`, `max_of(…)`, each with or without a sign, and a sign with
//! parentheses end the offset: `m offset 1m + 1m` adds to the metric. In brackets and in parentheses all operators are the
//! duration's.

use super::{MAX_NESTING, Parse, Parser, Stop};
use crate::{
    ast::PosRange,
    duration::{DurationExpr, DurationOp},
    token::{Token, TokenKind as T},
};

const POWER: u8 = 3;

/// The most seconds that fit 64 bits of nanoseconds.
const MAX_SECONDS: f64 = 9_223_372_036_854_775_808.0 / 1e9;

fn operator(kind: T) -> Option<(DurationOp, u8)> {
    Some(match kind {
        T::Add => (DurationOp::Add, 1),
        T::Sub => (DurationOp::Sub, 1),
        T::Mul => (DurationOp::Mul, 2),
        T::Div => (DurationOp::Div, 2),
        T::Mod => (DurationOp::Mod, 2),
        T::Pow => (DurationOp::Pow, POWER),
        _ => return None,
    })
}

/// What a literal that is an error counts as. It stands nowhere, as in Prometheus.
fn zero() -> DurationExpr {
    DurationExpr::Number { val: 0.0, duration: false, pos: PosRange::default() }
}

fn is_zero(expr: &DurationExpr) -> bool {
    matches!(expr, DurationExpr::Number { val, .. } if *val == 0.0)
}

fn parens(inner: DurationExpr, pos: PosRange) -> DurationExpr {
    match inner {
        // Parentheses in parentheses are one pair.
        DurationExpr::Paren(expr, _) => DurationExpr::Paren(expr, pos),
        inner => DurationExpr::Paren(Box::new(inner), pos),
    }
}

impl Parser<'_> {
    /// A duration in brackets; a literal must be positive.
    pub(super) fn positive_duration(&mut self) -> Parse<DurationExpr> {
        self.duration_nodes = 0;
        let expr = self.duration(0)?;
        if let DurationExpr::Number { val, pos, .. } = &expr
            && *val <= 0.0
        {
            self.add_error(*pos, "duration must be greater than 0");
            return Ok(zero());
        }
        Ok(expr)
    }

    /// A duration behind `offset`.
    pub(super) fn offset_duration(&mut self) -> Parse<DurationExpr> {
        self.duration_nodes = 0;
        match self.kind() {
            T::Add | T::Sub => {
                let sign = self.advance();
                match self.kind() {
                    T::Number | T::Duration => {
                        let literal = self.duration_literal_unchecked();
                        Ok(self.signed_duration(sign, literal))
                    }
                    T::Step | T::Range | T::MinOf | T::MaxOf => {
                        let expr = Box::new(self.duration_primary()?);
                        let pos = sign.pos.to(expr.pos());
                        Ok(DurationExpr::Unary { negative: sign.kind == T::Sub, expr, pos })
                    }
                    T::LeftParen => {
                        let expr = self.duration_parens()?;
                        Ok(self.signed_duration(sign, expr))
                    }
                    T::Add | T::Sub => {
                        let operand = self.duration(POWER)?;
                        let signed = self.signed_duration(sign, operand);
                        self.duration_operators(signed, 0)
                    }
                    _ => Err(Stop::Syntax),
                }
            }
            T::LeftParen => self.duration(0),
            _ => self.duration_primary(),
        }
    }

    fn duration(&mut self, min: u8) -> Parse<DurationExpr> {
        self.duration_nodes += 1;
        if self.duration_nodes > MAX_NESTING {
            return Err(self.too_deep(MAX_NESTING));
        }
        let operand = if matches!(self.kind(), T::Add | T::Sub) {
            let sign = self.advance();
            let operand = self.duration(POWER)?;
            self.signed_duration(sign, operand)
        } else {
            self.duration_primary()?
        };
        self.duration_operators(operand, min)
    }

    fn duration_operators(&mut self, mut lhs: DurationExpr, min: u8) -> Parse<DurationExpr> {
        while let Some((op, precedence)) = operator(self.kind()).filter(|(_, p)| *p >= min) {
            let token = self.advance();
            let rhs = self.duration(if precedence == POWER { POWER } else { precedence + 1 })?;
            self.require_duration_expressions(lhs.pos());
            lhs = match op {
                DurationOp::Div if is_zero(&rhs) => {
                    self.add_error(token.pos, "division by zero");
                    zero()
                }
                DurationOp::Mod if is_zero(&rhs) => {
                    self.add_error(token.pos, "modulo by zero");
                    zero()
                }
                _ => {
                    let pos = lhs.pos().to(rhs.pos());
                    DurationExpr::Binary { op, lhs: Box::new(lhs), rhs: Box::new(rhs), pos }
                }
            };
        }
        Ok(lhs)
    }

    fn duration_primary(&mut self) -> Parse<DurationExpr> {
        match self.kind() {
            T::Number | T::Duration => {
                let literal = self.duration_literal_unchecked();
                Ok(self.in_range(literal, None))
            }
            T::Step | T::Range => {
                let name = self.advance();
                self.expect(T::LeftParen)?;
                let pos = name.pos.to(self.expect(T::RightParen)?.pos);
                self.require_duration_expressions(pos);
                Ok(if name.kind == T::Step { DurationExpr::Step(pos) } else { DurationExpr::Range(pos) })
            }
            T::MinOf | T::MaxOf => {
                let name = self.advance();
                self.expect(T::LeftParen)?;
                let a = Box::new(self.duration(0)?);
                self.expect(T::Comma)?;
                let b = Box::new(self.duration(0)?);
                let pos = name.pos.to(self.expect(T::RightParen)?.pos);
                self.require_duration_expressions(pos);
                Ok(match name.kind {
                    T::MinOf => DurationExpr::MinOf(a, b, pos),
                    _ => DurationExpr::MaxOf(a, b, pos),
                })
            }
            T::LeftParen => self.duration_parens(),
            _ => Err(Stop::Syntax),
        }
    }

    fn duration_parens(&mut self) -> Parse<DurationExpr> {
        let open = self.advance();
        let inner = self.duration(0)?;
        let close = self.expect(T::RightParen)?;
        self.require_duration_expressions(inner.pos());
        Ok(parens(inner, open.pos.to(close.pos)))
    }

    fn duration_literal_unchecked(&mut self) -> DurationExpr {
        let literal = self.number_or_duration_literal();
        DurationExpr::Number { val: literal.val, duration: literal.duration, pos: literal.pos }
    }

    fn signed_duration(&mut self, sign: Token, operand: DurationExpr) -> DurationExpr {
        let negative = sign.kind == T::Sub;
        match operand {
            DurationExpr::Number { val, duration, pos } => {
                let val = if negative { -val } else { val };
                let literal = DurationExpr::Number { val, duration, pos: sign.pos.to(pos) };
                self.in_range(literal, Some(sign))
            }
            expr if negative => {
                let pos = sign.pos.to(expr.pos());
                DurationExpr::Unary { negative, expr: Box::new(expr), pos }
            }
            expr => expr,
        }
    }

    fn in_range(&mut self, literal: DurationExpr, sign: Option<Token>) -> DurationExpr {
        match literal {
            DurationExpr::Number { val, pos, .. } if val.is_nan() || val.abs() > MAX_SECONDS => {
                self.add_error(sign.map_or(pos, |s| s.pos), "duration out of range");
                zero()
            }
            literal => literal,
        }
    }

    fn require_duration_expressions(&mut self, pos: PosRange) {
        if !self.options.duration_expressions {
            self.add_error(pos, "experimental duration expression is not enabled");
        }
    }
}
