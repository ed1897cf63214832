//! `[range]` and `[range:step]`.

use super::{Parse, Parsed, Parser, Stop, modifiers::seconds_to_ms};
use crate::{
    ast::{Expr, MatrixSelector, PosRange, SubqueryExpr, VectorSelector},
    duration::DurationExpr,
    token::TokenKind as T,
};

/// A literal's milliseconds, or the expression that gives them later.
fn millis_or_expr(duration: DurationExpr) -> (i64, Option<DurationExpr>) {
    match duration {
        DurationExpr::Number { val, .. } => (seconds_to_ms(val), None),
        expr => (0, Some(expr)),
    }
}

impl Parser<'_> {
    pub(super) fn brackets(&mut self, operand: Parsed) -> Parse<Parsed> {
        let open = self.advance().pos;
        let range = match self.positive_duration() {
            Err(Stop::Syntax) => {
                self.unexpected("subquery or range selector", "number, duration, step(), or range()");
                return Ok(operand);
            }
            other => other?,
        };
        match self.kind() {
            T::RightBracket => self.matrix(operand, range, open),
            T::Colon => self.subquery(operand, range),
            _ => {
                self.unexpected("subquery or range", "\":\" or \"]\"");
                Ok(operand)
            }
        }
    }

    fn matrix(&mut self, operand: Parsed, range: DurationExpr, open: PosRange) -> Parse<Parsed> {
        let close = self.advance().pos;
        let pos = operand.expr.pos().to(close);
        let problem = match &operand.expr {
            Expr::VectorSelector(v) if v.offset_ms != 0 || v.offset_expr.is_some() => {
                Some("no offset modifiers allowed before range")
            }
            Expr::VectorSelector(v) if v.at.is_some() => Some("no @ modifiers allowed before range"),
            Expr::VectorSelector(_) => None,
            _ => Some("ranges only allowed for vector selectors"),
        };
        if let Some(problem) = problem {
            self.add_error(open.to(close), problem);
        }
        let (range_ms, range_expr) = millis_or_expr(range);
        let (selector, bad_range) = match operand.expr {
            Expr::VectorSelector(v) => (*v, false),
            other => (no_selector(other.pos()), true),
        };
        let matrix = MatrixSelector { selector, range_ms, range_expr, pos };
        let parsed = self.parsed(Expr::MatrixSelector(Box::new(matrix)), 0)?;
        Ok(Parsed { bad_range, ..parsed })
    }

    fn subquery(&mut self, operand: Parsed, range: DurationExpr) -> Parse<Parsed> {
        const CONTEXT: &str = "subquery selector";
        self.advance();
        let step = if self.kind() == T::RightBracket {
            None
        } else {
            match self.positive_duration() {
                Err(Stop::Syntax) => {
                    self.unexpected(CONTEXT, "number, duration, step(), range(), or \"]\"");
                    return Ok(operand);
                }
                other => Some(other?),
            }
        };
        let Some(close) = self.accept(T::RightBracket) else {
            self.unexpected(CONTEXT, "\"]\"");
            return Ok(operand);
        };
        let pos = operand.expr.pos().to(close.pos);
        let (range_ms, range_expr) = millis_or_expr(range);
        let (step_ms, step_expr) = match step.map(millis_or_expr) {
            None => (None, None),
            Some((ms, None)) => (Some(ms), None),
            Some((_, expr)) => (None, expr),
        };
        let subquery = SubqueryExpr {
            expr: operand.expr,
            range_ms,
            range_expr,
            step_ms,
            step_expr,
            offset_ms: 0,
            offset_expr: None,
            at: None,
            pos,
        };
        self.parsed(Expr::Subquery(Box::new(subquery)), operand.depth)
    }
}

/// Stands for a selector that is missing, in a tree that is thrown away.
fn no_selector(pos: PosRange) -> VectorSelector {
    VectorSelector {
        name: None,
        matchers: Vec::new(),
        offset_expr: None,
        offset_ms: 0,
        at: None,
        anchored: false,
        smoothed: false,
        pos,
    }
}
