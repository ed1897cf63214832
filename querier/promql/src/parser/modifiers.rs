//! What may follow an operand, in any order: brackets, `offset`, `@`, `anchored`, `smoothed`.

use super::{Parse, Parsed, Parser, Stop, Within, binary};
use crate::{
    ast::{AtModifier, Expr, PosRange, VectorSelector},
    duration::DurationExpr,
    number::format_float,
    token::TokenKind as T,
};

/// The parts of a selector or a subquery that `offset` and `@` set.
struct Slots<'e> {
    offset_ms: &'e mut i64,
    offset_expr: &'e mut Option<DurationExpr>,
    at: &'e mut Option<AtModifier>,
    pos: &'e mut PosRange,
}

fn slots(expr: &mut Expr) -> Option<Slots<'_>> {
    match expr {
        Expr::VectorSelector(v) => {
            let VectorSelector { offset_ms, offset_expr, at, pos, .. } = &mut **v;
            Some(Slots { offset_ms, offset_expr, at, pos })
        }
        Expr::MatrixSelector(m) => {
            let VectorSelector { offset_ms, offset_expr, at, .. } = &mut m.selector;
            Some(Slots { offset_ms, offset_expr, at, pos: &mut m.pos })
        }
        Expr::Subquery(s) => Some(Slots {
            offset_ms: &mut s.offset_ms,
            offset_expr: &mut s.offset_expr,
            at: &mut s.at,
            pos: &mut s.pos,
        }),
        _ => None,
    }
}

impl Parser<'_> {
    pub(super) fn modifiers(&mut self, mut operand: Parsed, within: Within) -> Parse<Parsed> {
        loop {
            match self.kind() {
                T::LeftBracket => operand = self.brackets(operand)?,
                T::Offset => self.offset(&mut operand)?,
                T::At => self.at(&mut operand)?,
                T::Anchored | T::Smoothed => self.extended_range(&mut operand),
                kind if self.recovering && !follows(kind, within) => self.skip_or_stop()?,
                _ => return Ok(operand),
            }
        }
    }

    fn offset(&mut self, operand: &mut Parsed) -> Parse<()> {
        self.advance();
        let offset = match self.offset_duration() {
            Err(Stop::Syntax) => {
                self.unexpected("offset", "number, duration, step(), or range()");
                return Ok(());
            }
            other => other?,
        };
        let Some(slots) = self.slots_or_error("offset modifier", operand) else { return Ok(()) };
        if *slots.offset_ms != 0 || slots.offset_expr.is_some() {
            let pos = *slots.pos;
            self.add_error(pos, "offset may not be set multiple times");
            return Ok(());
        }
        slots.pos.end = offset.pos().end;
        match offset {
            DurationExpr::Number { val, .. } => *slots.offset_ms = seconds_to_ms(val),
            expr => *slots.offset_expr = Some(expr),
        }
        Ok(())
    }

    fn slots_or_error<'e>(&mut self, what: &str, operand: &'e mut Parsed) -> Option<Slots<'e>> {
        let pos = operand.expr.pos();
        if operand.bad_range {
            self.add_error(pos, "ranges only allowed for vector selectors");
            return None;
        }
        let slots = slots(&mut operand.expr);
        if slots.is_none() {
            let message =
                "must be preceded by an instant vector selector or range vector selector or a subquery";
            self.add_error(pos, format!("{what} {message}"));
        }
        slots
    }

    fn at(&mut self, operand: &mut Parsed) -> Parse<()> {
        self.advance();
        let (at, end) = match self.at_value(operand.expr.pos()) {
            Err(Stop::Syntax) => {
                self.unexpected("@", "timestamp");
                return Ok(());
            }
            other => other?,
        };
        let Some(slots) = self.slots_or_error("@ modifier", operand) else { return Ok(()) };
        if slots.at.is_some() {
            let pos = *slots.pos;
            self.add_error(pos, "@ <timestamp> may not be set multiple times");
            return Ok(());
        }
        *slots.at = Some(at);
        slots.pos.end = end;
        Ok(())
    }

    fn at_value(&mut self, operand: PosRange) -> Parse<(AtModifier, usize)> {
        let at = match self.kind() {
            T::Start => AtModifier::Start,
            T::End => AtModifier::End,
            _ => {
                let seconds = self.signed_number()?;
                let end = self.last_closing;
                return Ok((AtModifier::Timestamp(self.timestamp_ms(seconds, operand)), end));
            }
        };
        self.advance();
        self.expect(T::LeftParen)?;
        let close = self.expect(T::RightParen)?;
        Ok((at, close.pos.end))
    }

    fn timestamp_ms(&mut self, seconds: f64, operand: PosRange) -> i64 {
        // The bounds are those of 64-bit seconds, as in Prometheus; milliseconds beyond 64 bits saturate.
        if seconds.is_nan() || seconds.abs() >= i64::MAX as f64 {
            let shown = if seconds.is_finite() { format!("{seconds:.6}") } else { format_float(seconds) };
            self.add_error(operand, format!("timestamp out of bounds for @ modifier: {shown}"));
            return 0;
        }
        (seconds * 1000.0).round() as i64
    }

    fn extended_range(&mut self, operand: &mut Parsed) {
        let anchored = self.advance().kind == T::Anchored;
        let name = if anchored { "anchored" } else { "smoothed" };
        let pos = operand.expr.pos();
        if !self.options.extended_range_selectors {
            self.add_error(pos, format!("{name} modifier is experimental and not enabled"));
            return;
        }
        let selector = match &mut operand.expr {
            Expr::VectorSelector(v) => &mut **v,
            Expr::MatrixSelector(m) => &mut m.selector,
            Expr::Subquery(_) => {
                self.add_error(pos, format!("{name} modifier is not supported for subqueries"));
                return;
            }
            _ => {
                self.add_error(pos, format!("{name} modifier not implemented"));
                return;
            }
        };
        if anchored {
            selector.anchored = true;
        } else {
            selector.smoothed = true;
        }
        if selector.anchored && selector.smoothed && !operand.bad_range {
            self.add_error(pos, "anchored and smoothed modifiers cannot be used together");
        }
    }
}

/// Whether a token may stand behind an operand and all its modifiers.
fn follows(kind: T, within: Within) -> bool {
    binary::is_operator(kind)
        || match within {
            Within::Top => matches!(kind, T::Eof | T::Error),
            Within::Parens => kind == T::RightParen,
            Within::Arguments => matches!(kind, T::RightParen | T::Comma),
        }
}

/// Seconds to milliseconds, by way of the nanoseconds that Prometheus keeps.
pub(super) fn seconds_to_ms(seconds: f64) -> i64 {
    (seconds * 1e9).round() as i64 / 1_000_000
}
