//! Native histograms in double braces: `{{schema:1 sum:3 count:22 buckets:[5 10 7] offset:-3}}`.

use sextant_model::{Histogram, ResetHint, Span};

use super::SequenceValue;
use crate::{
    ast::PosRange,
    parser::{Parse, Parser, Stop},
    token::{Token, TokenKind as T},
};

/// The fields of a histogram as they are written; each may be written once.
#[derive(Default)]
struct Fields {
    histogram: Histogram,
    offset: i32,
    negative_offset: i32,
    hint_set: bool,
    seen: Vec<T>,
}

impl Fields {
    fn build(self) -> (Histogram, bool) {
        let mut h = self.histogram;
        h.positive_spans = spans(self.offset, &h.positive_buckets);
        h.negative_spans = spans(self.negative_offset, &h.negative_buckets);
        (h, self.hint_set)
    }
}

fn spans(offset: i32, buckets: &[f64]) -> Vec<Span> {
    match u32::try_from(buckets.len()) {
        Ok(length) if length > 0 => vec![Span { offset, length }],
        _ => Vec::new(),
    }
}

impl Parser<'_> {
    /// A histogram, one repeated, or one with a step.
    pub(super) fn histogram_item(&mut self, values: &mut Vec<SequenceValue>) -> Parse<()> {
        let (base, hint_set) = self.histogram()?;
        let step = match self.kind() {
            kind @ (T::Add | T::Sub) => {
                self.advance();
                Some((kind, self.histogram()?))
            }
            _ => None,
        };
        let times = self.times()?;
        match (step, times) {
            (None, times) => {
                let count = times.unwrap_or(0).saturating_add(1);
                self.extend(values, count, |_| SequenceValue::Histogram(Box::new(base.clone()), hint_set))
            }
            (Some(_), None) => Err(Stop::Syntax),
            (Some((op, (step, step_hint_set))), Some(times)) => {
                self.histogram_steps(values, base, op, &step, times, step_hint_set)
            }
        }
    }

    fn histogram_steps(
        &mut self,
        values: &mut Vec<SequenceValue>,
        base: Histogram,
        op: T,
        step: &Histogram,
        times: usize,
        hint_set: bool,
    ) -> Parse<()> {
        if times > 0 && base.schema > step.schema {
            let pos = self.peek().pos;
            let message = format!("cannot merge from schema {} to {}", step.schema, base.schema);
            self.add_error(pos, format!("error combining histograms: {message}"));
            return Err(Stop::Abort);
        }
        let mut current = base;
        self.extend(values, 1, |_| SequenceValue::Histogram(Box::new(current.clone()), hint_set))?;
        for _ in 0..times {
            let combined = if op == T::Add { current.add(step) } else { current.sub(step) };
            if let Err(e) = combined {
                let pos = self.peek().pos;
                self.add_error(pos, format!("error combining histograms: {e}"));
                return Err(Stop::Abort);
            }
            self.extend(values, 1, |_| SequenceValue::Histogram(Box::new(current.clone()), hint_set))?;
        }
        Ok(())
    }

    fn histogram(&mut self) -> Parse<(Histogram, bool)> {
        self.expect(T::OpenHist)?;
        let mut fields = Fields::default();
        if self.accept(T::Space).is_some() {
            self.expect(T::CloseHist)?;
            return Ok(fields.build());
        }
        if self.accept(T::CloseHist).is_some() {
            return Ok(fields.build());
        }
        self.histogram_field(&mut fields)?;
        loop {
            match self.kind() {
                T::CloseHist => {
                    self.advance();
                    return Ok(fields.build());
                }
                T::Space => {
                    self.advance();
                    if self.kind() != T::CloseHist {
                        self.histogram_field(&mut fields)?;
                    }
                }
                _ => {
                    let expected = "histogram description key, e.g. buckets:[5 10 7]";
                    self.unexpected("histogram description", expected);
                    return Err(Stop::Abort);
                }
            }
        }
    }

    fn histogram_field(&mut self, fields: &mut Fields) -> Parse<()> {
        let token = self.advance();
        if matches!(token.kind, T::Error | T::Eof) {
            return Err(Stop::Syntax);
        }
        self.expect(T::Colon)?;
        if fields.seen.contains(&token.kind) {
            let name = self.text_of(token);
            self.add_error(PosRange::default(), format!("duplicate key \"{name}\" in histogram"));
        }
        fields.seen.push(token.kind);
        let h = &mut fields.histogram;
        match token.kind {
            T::SchemaDesc => h.schema = self.integer()?,
            T::SumDesc => h.sum = self.sequence_number()?,
            T::CountDesc => h.count = self.sequence_number()?,
            T::ZeroBucketDesc => h.zero_count = self.sequence_number()?,
            T::ZeroBucketWidthDesc => {
                let width = self.expect(T::Number)?;
                h.zero_threshold = self.number_value(width);
            }
            T::BucketsDesc => h.positive_buckets = self.bucket_list()?,
            T::NegativeBucketsDesc => h.negative_buckets = self.bucket_list()?,
            T::CustomValuesDesc => h.custom_values = self.bucket_list()?,
            T::OffsetDesc => fields.offset = self.integer()?,
            T::NegativeOffsetDesc => fields.negative_offset = self.integer()?,
            T::ResetHintDesc => {
                h.reset_hint = self.reset_hint()?;
                fields.hint_set = true;
            }
            _ => return Err(Stop::Syntax),
        }
        Ok(())
    }

    fn reset_hint(&mut self) -> Parse<ResetHint> {
        let hint = match self.kind() {
            T::HintUnknown => ResetHint::Unknown,
            T::HintReset => ResetHint::Reset,
            T::HintNotReset => ResetHint::NoReset,
            T::HintGauge => ResetHint::Gauge,
            _ => return Err(Stop::Syntax),
        };
        self.advance();
        Ok(hint)
    }

    fn integer(&mut self) -> Parse<i32> {
        let negative = self.accept(T::Sub).is_some();
        let token = self.expect(T::Number)?;
        let value = self.integer_value(token, negative);
        Ok(value)
    }

    fn integer_value(&mut self, token: Token, negative: bool) -> i32 {
        let text = self.text_of(token);
        let signed = if negative { format!("-{text}") } else { text };
        signed.parse().unwrap_or_else(|e| {
            self.add_error(token.pos, format!("invalid integer in histogram: {signed:?}: {e}"));
            0
        })
    }

    fn bucket_list(&mut self) -> Parse<Vec<f64>> {
        self.expect(T::LeftBracket)?;
        let mut buckets = vec![self.sequence_number()?];
        loop {
            match self.kind() {
                T::RightBracket => {
                    self.advance();
                    return Ok(buckets);
                }
                T::Space => {
                    self.advance();
                    if self.kind() != T::RightBracket {
                        buckets.push(self.sequence_number()?);
                    }
                }
                _ => return Err(Stop::Syntax),
            }
        }
    }
}
