//! Binary operators by precedence, and what stands between an operator and its right side.

use super::{Parse, Parsed, Parser, Stop, Within};
use crate::{
    ast::{BinaryExpr, Cardinality, Expr, PosRange, VectorMatching},
    operators::BinaryOp,
    token::TokenKind as T,
};

/// The precedence of `^`, the strongest operator and the only one that groups from the right.
pub(super) const POWER: u8 = 6;

fn operator(kind: T) -> Option<(BinaryOp, u8)> {
    Some(match kind {
        T::Lor => (BinaryOp::Or, 1),
        T::Land => (BinaryOp::And, 2),
        T::Lunless => (BinaryOp::Unless, 2),
        T::EqlC => (BinaryOp::Eq, 3),
        T::Neq => (BinaryOp::Ne, 3),
        T::Gtr => (BinaryOp::Gt, 3),
        T::Lss => (BinaryOp::Lt, 3),
        T::Gte => (BinaryOp::Ge, 3),
        T::Lte => (BinaryOp::Le, 3),
        T::TrimUpper => (BinaryOp::TrimUpper, 3),
        T::TrimLower => (BinaryOp::TrimLower, 3),
        T::Add => (BinaryOp::Add, 4),
        T::Sub => (BinaryOp::Sub, 4),
        T::Mul => (BinaryOp::Mul, 5),
        T::Div => (BinaryOp::Div, 5),
        T::Mod => (BinaryOp::Mod, 5),
        T::Atan2 => (BinaryOp::Atan2, 5),
        T::Pow => (BinaryOp::Pow, POWER),
        _ => return None,
    })
}

/// Whether a token continues an expression as a binary operator.
pub(super) fn is_operator(kind: T) -> bool {
    operator(kind).is_some()
}

impl Parser<'_> {
    /// An expression of operators that bind at least as strongly as `min`.
    pub(crate) fn expr(&mut self, min: u8, within: Within) -> Parse<Parsed> {
        let mut lhs = self.unary(within)?;
        while let Some((op, precedence)) = operator(self.kind()).filter(|(_, p)| *p >= min) {
            self.advance();
            let (return_bool, matching) = self.binary_modifiers()?;
            let rhs = if precedence == POWER {
                self.nested(|p| p.expr(POWER, within))?
            } else {
                self.nested(|p| p.expr(precedence + 1, within))?
            };
            lhs = self.binary(lhs, op, return_bool, matching, rhs)?;
        }
        Ok(lhs)
    }

    fn binary(
        &mut self,
        lhs: Parsed,
        op: BinaryOp,
        return_bool: bool,
        matching: VectorMatching,
        rhs: Parsed,
    ) -> Parse<Parsed> {
        let pos = lhs.expr.pos().to(rhs.expr.pos());
        let fills = matching.fill_lhs.is_some() || matching.fill_rhs.is_some();
        if fills && !self.options.fill_modifiers {
            self.add_error(pos, "binop fill modifiers are experimental and not enabled");
        }
        let below = lhs.depth.max(rhs.depth);
        let (lhs, rhs, matching) = (lhs.expr, rhs.expr, Some(matching));
        self.parsed(Expr::Binary(Box::new(BinaryExpr { op, lhs, rhs, return_bool, matching, pos })), below)
    }

    fn binary_modifiers(&mut self) -> Parse<(bool, VectorMatching)> {
        let return_bool = self.accept(T::Bool).is_some();
        let mut matching = VectorMatching::default();
        if matches!(self.kind(), T::On | T::Ignoring) {
            matching.on = self.advance().kind == T::On;
            matching.labels = self.grouping_labels()?;
            if matches!(self.kind(), T::GroupLeft | T::GroupRight) {
                matching.card = match self.advance().kind {
                    T::GroupLeft => Cardinality::ManyToOne,
                    _ => Cardinality::OneToMany,
                };
                if self.kind() == T::LeftParen {
                    matching.include = self.grouping_labels()?;
                }
            }
        }
        self.fill_modifiers(&mut matching)?;
        Ok((return_bool, matching))
    }

    fn fill_modifiers(&mut self, matching: &mut VectorMatching) -> Parse<()> {
        loop {
            match self.kind() {
                T::Fill if matching.fill_lhs.is_none() && matching.fill_rhs.is_none() => {
                    let value = Some(self.fill_value()?);
                    matching.fill_lhs = value;
                    matching.fill_rhs = value;
                }
                T::FillLeft if matching.fill_lhs.is_none() => matching.fill_lhs = Some(self.fill_value()?),
                T::FillRight if matching.fill_rhs.is_none() => matching.fill_rhs = Some(self.fill_value()?),
                T::Fill | T::FillLeft | T::FillRight => return Err(Stop::Syntax),
                _ => return Ok(()),
            }
        }
    }

    fn fill_value(&mut self) -> Parse<f64> {
        self.advance();
        self.expect(T::LeftParen)?;
        let value = self.signed_number()?;
        self.expect(T::RightParen)?;
        Ok(value)
    }

    /// A number or a duration in seconds, with an optional sign.
    pub(super) fn signed_number(&mut self) -> Parse<f64> {
        let negative = match self.kind() {
            T::Add | T::Sub => self.advance().kind == T::Sub,
            _ => false,
        };
        if !matches!(self.kind(), T::Number | T::Duration) {
            return Err(Stop::Syntax);
        }
        let value = self.number_or_duration_literal().val;
        Ok(if negative { -value } else { value })
    }
}

/// The range of an operator with its modifiers between two operands, without the spaces around it. As in Prometheus,
/// its end is the last byte itself.
pub(crate) fn operator_range(input: &[u8], lhs: PosRange, rhs: PosRange) -> PosRange {
    let is_space = |i: usize| input.get(i).is_some_and(|b| matches!(b, b' ' | b'\t' | b'\n' | b'\r'));
    let mut start = lhs.end;
    while is_space(start) {
        start += 1;
    }
    let mut end = rhs.start.saturating_sub(1);
    while end > start && is_space(end) {
        end -= 1;
    }
    PosRange::new(start, end)
}
