//! Remote write 1.0, walked by hand: of a known series no label is looked at.
//!
//! A series message usually begins with its labels and goes on with one sample. The labels of the next message are
//! predicted from the message before: their length and keyed hash are compared. Equal bytes parse alike, so the byte
//! after them begins a field; it must not be the tag of one more label, since then the series is another one, of whose
//! labels these are a prefix. Labels that are not the predicted ones are found by their length fields and looked up.
//! Everything that the protocol allows besides (several samples, labels after samples, unknown fields) takes the
//! general way in [`Walker::contents`].

use std::ops::Range;

use sextant_model::MetricType;

use super::{
    Context,
    parts::{push_exemplar, push_histogram},
};
use crate::{
    RequestError,
    canonical::{Pairs, show_pairs},
    identity::{Form, KeyedHash},
    metadata,
    rows::{LabelForm, NO_ENTRY, RowSample, Rows},
    wire::{Field, Wire, WireError, put_varint, varint, wire_error},
};

const SERIES_TAG: u8 = 1 << 3 | 2;
const LABEL_TAG: u8 = 1 << 3 | 2;
const SAMPLE_TAG: u8 = 2 << 3 | 2;
const VALUE_TAG: u8 = 1 << 3 | 1;
const TIMESTAMP_TAG: u8 = 2 << 3;

/// Takes a request apart into rows.
pub(crate) fn walk(input: &[u8], context: &Context<'_>, rows: &mut Rows) -> Result<(), RequestError> {
    let malformed = |e: WireError| {
        let (reason, at) = (e.reason, e.at);
        RequestError::Protobuf { message: "prometheus.WriteRequest", reason, at }
    };
    let mut walker =
        Walker { input, context, hash: KeyedHash::of(Form::V1), last: NO_ENTRY, predicted: NO_ENTRY };
    let (mut at, mut looks_like_v2) = (0, false);
    while at < input.len() {
        context.check_size(rows)?;
        if input[at] == SERIES_TAG {
            let message = length_delimited(input, at + 1).map_err(malformed)?;
            at = message.end;
            walker.series(message, rows).map_err(malformed)?;
            continue;
        }
        let mut wire = Wire::new(input, at..input.len());
        let field = wire.next().map_err(malformed)?;
        at = wire.pos();
        match field {
            Some((1, Field::Bytes(message))) => walker.series(message, rows).map_err(malformed)?,
            Some((3, Field::Bytes(message))) => family(input, message, context, rows).map_err(malformed)?,
            Some((4 | 5, Field::Bytes(_))) => looks_like_v2 = true,
            _ => {}
        }
    }
    // Taken for 1.0, a request of 2.0 is one of unknown fields: it would be answered with success and lost.
    if looks_like_v2 && rows.series.is_empty() {
        let reason =
            "no series, and fields of 2.0: its content type names proto=io.prometheus.write.v2.Request";
        return Err(malformed(wire_error(reason, 0)));
    }
    Ok(())
}

/// The range after a length, which lies within the input.
#[inline]
fn length_delimited(input: &[u8], at: usize) -> Result<Range<usize>, WireError> {
    let (n, len) = varint(&input[at..]).map_err(|reason| wire_error(reason, at))?;
    let start = at + len;
    if n > (input.len() - start) as u64 {
        return Err(wire_error("length goes past the end", at));
    }
    Ok(start..start + n as usize)
}

struct Walker<'a> {
    input: &'a [u8],
    context: &'a Context<'a>,
    hash: KeyedHash,
    /// The entry of the message before.
    last: u32,
    /// The entry expected next. It stays over a message that is new, so that one new series costs one miss.
    predicted: u32,
}

impl Walker<'_> {
    #[inline]
    fn series(&mut self, message: Range<usize>, rows: &mut Rows) -> Result<(), WireError> {
        let input = self.input;
        if let Some(end) = self.predicted_end(&message) {
            let row = self.push_known(self.predicted, message.start..end, rows);
            if let Some((t, v)) = one_sample(&input[end..message.end]) {
                rows.series[row as usize].has_data = true;
                rows.samples.push(RowSample { row, t, v, start: 0 });
                return Ok(());
            }
            return self.contents(message.start..end, end..message.end, rows);
        }
        // Labels that lie together at the start are one range; a message that begins otherwise has none there.
        let mut end = message.start;
        while end < message.end && input[end] == LABEL_TAG {
            end = length_delimited(&input[..message.end], end + 1)?.end;
        }
        self.push(message.start..end, LabelForm::Fields, rows);
        self.contents(message.start..end, end..message.end, rows)
    }

    /// Where the labels end, if they are the predicted series'.
    #[inline]
    fn predicted_end(&self, message: &Range<usize>) -> Option<usize> {
        let identities = self.context.identities;
        let end = message.start.checked_add(identities.raw_len(self.predicted)?)?;
        if end > message.end || (end < message.end && self.input[end] == LABEL_TAG) {
            return None;
        }
        identities.is(self.predicted, self.hash.hash(&self.input[message.start..end])).then_some(end)
    }

    #[inline]
    fn push_known(&mut self, raw: u32, labels: Range<usize>, rows: &mut Rows) -> u32 {
        let identities = self.context.identities;
        identities.link(self.last, raw);
        self.last = raw;
        self.predicted = identities.next(raw);
        let labels = (labels.start as u32, labels.len() as u32);
        rows.push_placed(raw, identities.place(raw, self.context.epochs), labels, LabelForm::Fields)
    }

    /// Adds a row for labels that were not predicted.
    fn push(&mut self, labels: Range<usize>, form: LabelForm, rows: &mut Rows) {
        let from = if form == LabelForm::Fields { self.input } else { &rows.spill };
        let hash = self.hash.hash(&from[labels.clone()]);
        match self.context.identities.find_raw(hash, labels.len()) {
            Some(raw) => {
                let row = self.push_known(raw, labels, rows);
                rows.series[row as usize].form = form;
            }
            None => {
                self.last = NO_ENTRY;
                rows.push_miss((labels.start as u32, labels.len() as u32), form, hash);
            }
        }
    }

    /// The fields after the first labels, into the row added last. Where more labels come, the row is made anew: the
    /// label fields are copied together and looked up as one spelling.
    fn contents(
        &mut self,
        labels: Range<usize>,
        rest: Range<usize>,
        rows: &mut Rows,
    ) -> Result<(), WireError> {
        let (input, row) = (self.input, rows.series.len() as u32 - 1);
        let items_before = rows.item_count();
        let mut wire = Wire::new(input, rest.clone());
        let mut is_scattered = false;
        while let Some((number, field)) = wire.next()? {
            if rows.is_full() {
                return Err(wire_error("more samples than a request may hold", wire.pos()));
            }
            match (number, field) {
                (1, Field::Bytes(_)) => is_scattered = true,
                (2, Field::Bytes(message)) => {
                    let (t, v) = sample(input, message)?;
                    rows.samples.push(RowSample { row, t, v, start: 0 });
                }
                (3, Field::Bytes(message)) => exemplar(input, message, row, rows)?,
                (4, Field::Bytes(message)) => {
                    let at = message.start;
                    let show = || pairs(&input[labels.clone()]).map(|p| show_pairs(&p)).unwrap_or_default();
                    push_histogram(&input[message], at, row, rows, show)?;
                }
                _ => {}
            }
        }
        if is_scattered {
            rows.pop_row();
            let start = rows.spill.len();
            rows.spill.extend_from_slice(&input[labels]);
            let mut wire = Wire::new(input, rest);
            while let Some((number, field)) = wire.next()? {
                if let (1, Field::Bytes(label)) = (number, field) {
                    rows.spill.push(LABEL_TAG);
                    put_varint(&mut rows.spill, label.len() as u64);
                    rows.spill.extend_from_slice(&input[label]);
                }
            }
            self.push(start..rows.spill.len(), LabelForm::SpilledFields, rows);
        }
        // A series without anything to store (labels alone, or everything refused) is checked and not announced.
        rows.series[row as usize].has_data = rows.item_count() > items_before;
        Ok(())
    }
}

/// The content of a message that is one sample and nothing else, in the order in which every sender writes it.
#[inline]
fn one_sample(bytes: &[u8]) -> Option<(i64, f64)> {
    let (&[SAMPLE_TAG, size], rest) = bytes.split_first_chunk::<2>()? else { return None };
    if usize::from(size) != rest.len() || size >= 0x80 {
        return None;
    }
    // A value of 0 may be left out.
    let (v, rest) = match rest {
        [VALUE_TAG, rest @ ..] => {
            let (bits, rest) = rest.split_first_chunk::<8>()?;
            (f64::from_le_bytes(*bits), rest)
        }
        _ => (0.0, rest),
    };
    let [TIMESTAMP_TAG, rest @ ..] = rest else { return None };
    let (t, len) = varint(rest).ok()?;
    (len == rest.len()).then_some((t as i64, v))
}

fn sample(input: &[u8], message: Range<usize>) -> Result<(i64, f64), WireError> {
    let mut wire = Wire::new(input, message);
    let (mut v, mut t) = (0.0, 0);
    while let Some((number, field)) = wire.next()? {
        match (number, field) {
            (1, Field::Fixed64(bits)) => v = f64::from_bits(bits),
            (2, Field::Varint(n)) => t = n as i64,
            _ => {}
        }
    }
    Ok((t, v))
}

fn exemplar(input: &[u8], message: Range<usize>, row: u32, rows: &mut Rows) -> Result<(), WireError> {
    let mut wire = Wire::new(input, message);
    let (mut v, mut t) = (0.0, 0);
    let mut pairs: Pairs<'_> = Vec::new();
    while let Some((number, field)) = wire.next()? {
        match (number, field) {
            (1, Field::Bytes(label)) => pairs.push(pair(input, label)?),
            (2, Field::Fixed64(bits)) => v = f64::from_bits(bits),
            (3, Field::Varint(n)) => t = n as i64,
            _ => {}
        }
    }
    push_exemplar(row, t, v, &mut pairs, rows);
    Ok(())
}

fn pair(input: &[u8], label: Range<usize>) -> Result<(&[u8], &[u8]), WireError> {
    let mut wire = Wire::new(input, label);
    let (mut name, mut value) = (&[][..], &[][..]);
    while let Some((number, field)) = wire.next()? {
        match (number, field) {
            (1, Field::Bytes(r)) => name = &input[r],
            (2, Field::Bytes(r)) => value = &input[r],
            _ => {}
        }
    }
    Ok((name, value))
}

/// The pairs of a spelling: label fields behind each other.
pub(crate) fn pairs(labels: &[u8]) -> Result<Pairs<'_>, WireError> {
    let mut wire = Wire::new(labels, 0..labels.len());
    let mut out = Vec::with_capacity(16);
    while let Some((number, field)) = wire.next()? {
        if let (1, Field::Bytes(label)) = (number, field) {
            out.push(pair(labels, label)?);
        }
    }
    Ok(out)
}

/// Metadata of a family.
fn family(
    input: &[u8],
    message: Range<usize>,
    context: &Context<'_>,
    rows: &mut Rows,
) -> Result<(), WireError> {
    let mut wire = Wire::new(input, message);
    let (mut metric_type, mut name, mut help, mut unit) = (MetricType::Unknown, &[][..], &[][..], &[][..]);
    while let Some((number, field)) = wire.next()? {
        match (number, field) {
            (1, Field::Varint(n)) => metric_type = MetricType::from_number(n as i64),
            (2, Field::Bytes(r)) => name = &input[r],
            (4, Field::Bytes(r)) => help = &input[r],
            (5, Field::Bytes(r)) => unit = &input[r],
            _ => {}
        }
    }
    metadata::push(context.memory, context.tenant, context.epochs, name, (metric_type, help, unit), rows);
    Ok(())
}
