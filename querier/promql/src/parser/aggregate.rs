//! Aggregations and lists of labels in parentheses.

use super::{Parse, Parsed, Parser, Stop};
use crate::{
    ast::{AggregateExpr, Expr, NumberLiteral, PosRange},
    operators::AggregateOp,
    quote::quote,
    token::{Token, TokenKind as T},
};

/// `by (…)` or `without (…)`.
#[derive(Default)]
struct Grouping {
    labels: Vec<String>,
    without: bool,
    end: usize,
}

fn aggregate_op(kind: T) -> AggregateOp {
    match kind {
        T::Avg => AggregateOp::Avg,
        T::Bottomk => AggregateOp::Bottomk,
        T::Count => AggregateOp::Count,
        T::CountValues => AggregateOp::CountValues,
        T::Group => AggregateOp::Group,
        T::Max => AggregateOp::Max,
        T::Min => AggregateOp::Min,
        T::Quantile => AggregateOp::Quantile,
        T::Stddev => AggregateOp::Stddev,
        T::Stdvar => AggregateOp::Stdvar,
        T::Topk => AggregateOp::Topk,
        T::Limitk => AggregateOp::Limitk,
        T::LimitRatio => AggregateOp::LimitRatio,
        _ => AggregateOp::Sum,
    }
}

impl Parser<'_> {
    /// An aggregator's name: also a metric's, unless parentheses or a grouping follow.
    pub(super) fn name_or_aggregation(&mut self) -> Parse<Parsed> {
        let name = self.advance();
        if !matches!(self.kind(), T::LeftParen | T::By | T::Without) {
            return self.named_selector(name);
        }
        match self.nested(|p| p.aggregation(name)) {
            Err(Stop::Syntax) => self.bad_aggregation(name),
            other => other,
        }
    }

    fn bad_aggregation(&mut self, name: Token) -> Parse<Parsed> {
        self.unexpected("aggregation", "");
        let pos = PosRange::new(name.pos.start, self.last_closing);
        self.add_error(pos, "no arguments for aggregate expression provided");
        self.parsed(placeholder(pos), 0)
    }

    fn aggregation(&mut self, name: Token) -> Parse<Parsed> {
        let mut grouping = self.grouping()?;
        let (args, close) = self.arguments()?;
        let mut end = close.end;
        if grouping.is_none() {
            grouping = self.grouping()?;
            end = grouping.as_ref().map_or(end, |g| g.end);
        }
        self.make_aggregation(name, grouping.unwrap_or_default(), args, end)
    }

    fn make_aggregation(
        &mut self,
        name: Token,
        grouping: Grouping,
        args: Vec<Parsed>,
        end: usize,
    ) -> Parse<Parsed> {
        let Grouping { labels, without, .. } = grouping;
        let pos = PosRange::new(name.pos.start, end);
        let op = aggregate_op(name.kind);

        if args.is_empty() {
            self.add_error(pos, "no arguments for aggregate expression provided");
            return self.parsed(placeholder(pos), 0);
        }
        if op.is_experimental() && !self.options.experimental_functions {
            self.add_error(pos, format!("{}() is experimental and not enabled", op.as_str()));
        }
        let wanted = if op.has_param() { 2 } else { 1 };
        let given = args.len();
        if given != wanted {
            self.add_error(
                pos,
                format!(
                    "wrong number of arguments for aggregate expression provided, expected {wanted}, got {given}"
                ),
            );
        }
        let below = args.iter().map(|a| a.depth).max().unwrap_or(0);
        let mut args = args.into_iter().map(|a| a.expr);
        let param = if op.has_param() { args.next() } else { None };
        let expr = args.next().unwrap_or_else(|| placeholder(pos));
        let grouping = labels;
        let aggregate = AggregateExpr { op, expr, param, grouping, without, pos };
        self.parsed(Expr::Aggregate(Box::new(aggregate)), below)
    }

    fn grouping(&mut self) -> Parse<Option<Grouping>> {
        let without = match self.kind() {
            T::By => false,
            T::Without => true,
            _ => return Ok(None),
        };
        self.advance();
        let labels = self.grouping_labels()?;
        Ok(Some(Grouping { labels, without, end: self.last_closing }))
    }

    /// Labels in parentheses; a comma may follow the last.
    pub(super) fn grouping_labels(&mut self) -> Parse<Vec<String>> {
        const CONTEXT: &str = "grouping opts";
        let mut labels = Vec::new();
        if self.accept(T::LeftParen).is_none() {
            self.unexpected(CONTEXT, "\"(\"");
            return Ok(labels);
        }
        loop {
            // At the start, or behind a comma.
            match self.kind() {
                T::RightParen => {
                    self.advance();
                    return Ok(labels);
                }
                kind if kind.is_grouping_label() || kind == T::String => labels.push(self.grouping_label()),
                _ => self.unexpected(CONTEXT, "label"),
            }
            loop {
                match self.kind() {
                    T::Comma => {
                        self.advance();
                        break;
                    }
                    T::RightParen => {
                        self.advance();
                        return Ok(labels);
                    }
                    _ if self.recovering => self.skip_or_stop()?,
                    _ => self.unexpected(CONTEXT, "\",\" or \")\""),
                }
            }
        }
    }

    fn grouping_label(&mut self) -> String {
        let token = self.advance();
        let bytes = match token.kind {
            T::String => self.string_value(token),
            _ => self.lexer.text(token.pos).to_vec(),
        };
        match String::from_utf8(bytes) {
            Ok(label) if !label.is_empty() => label,
            Ok(_) => self.bad_label(token, b""),
            Err(e) => self.bad_label(token, e.as_bytes()),
        }
    }

    fn bad_label(&mut self, token: Token, label: &[u8]) -> String {
        self.add_error(token.pos, format!("invalid label name for grouping: {}", quote(label)));
        String::new()
    }
}

/// Stands for an expression that is missing, in a tree that is thrown away.
pub(super) fn placeholder(pos: PosRange) -> Expr {
    Expr::NumberLiteral(Box::new(NumberLiteral { val: 0.0, duration: false, pos }))
}
