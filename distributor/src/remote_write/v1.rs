//! Remote write 1.0, walked by hand: of a known series no label is looked at.
//!
//! A series message usually begins with its labels and goes on with samples. The labels of the next message are predicted from the
//! message before: their length and keyed hash are compared, and the byte after them must be the tag of samples, histograms or
//! exemplars (or the end), so that a longer label set is never taken for its prefix. Everything else takes the general way.

use std::ops::Range;

use prost::Message;
use sextant_model::{MetricMetadata, MetricType};
use sextant_proto::{ErrorClass, remote_write as wire_format};

use super::{histogram, no_identities};
use crate::{
    RequestError,
    canonical::{Pairs, canonicalise, put_text, show_pairs},
    identity::{Epochs, Form, Identities, KeyedHash},
    rows::{LabelForm, Miss, NEEDS_LABELS, NO_ENTRY, Row, RowExemplar, RowHistogram, RowMetadata, RowSample, Rows},
    wire::{Field, Wire, WireError, wire_error},
};

const LABEL_TAG: u8 = 1 << 3 | 2;

fn malformed(e: WireError) -> RequestError {
    RequestError::Protobuf { message: "prometheus.WriteRequest", reason: e.reason, at: e.at }
}

/// Takes a request apart into rows.
pub(crate) fn walk(
    input: &[u8],
    identities: &Identities,
    epochs: &Epochs,
    rows: &mut Rows,
) -> Result<(), RequestError> {
    let mut request = Wire::new(input, 0..input.len());
    let mut walker = Walker { input, identities, epochs, hash: KeyedHash::of(Form::V1), last: NO_ENTRY };
    while let Some((number, field)) = request.next().map_err(malformed)? {
        match (number, field) {
            (1, Field::Bytes(message)) => walker.series(message, rows).map_err(malformed)?,
            (3, Field::Bytes(message)) => metadata(input, message, rows).map_err(malformed)?,
            _ => {}
        }
    }
    Ok(())
}

struct Walker<'a> {
    input: &'a [u8],
    identities: &'a Identities,
    epochs: &'a Epochs,
    hash: KeyedHash,
    last: u32,
}

impl Walker<'_> {
    fn series(&mut self, message: Range<usize>, rows: &mut Rows) -> Result<(), WireError> {
        let row = rows.series.len() as u32;
        let predicted = self.identities.next(self.last);
        if predicted != NO_ENTRY
            && let Some(end) = self.predicted_end(predicted, &message)
        {
            self.push_known(predicted, message.start..end, rows);
            return self.contents(end..message.end, row, rows, None);
        }
        // Labels that lie together at the start are one range; others are gathered.
        let mut labels = Wire::new(self.input, message.clone());
        while !labels.is_at_end() && self.input[labels.pos()] == LABEL_TAG {
            labels.next()?;
        }
        let end = labels.pos();
        self.push(message.start..end, rows);
        let mut scattered = Vec::new();
        self.contents(end..message.end, row, rows, Some(&mut scattered))?;
        if !scattered.is_empty() {
            self.gather(message.start..end, &scattered, row, rows);
        }
        Ok(())
    }

    /// Where the labels end, if they are the predicted series'.
    #[inline]
    fn predicted_end(&self, entry: u32, message: &Range<usize>) -> Option<usize> {
        let end = message.start.checked_add(self.identities.raw_len(entry))?;
        if end > message.end || (end < message.end && self.input[end] == LABEL_TAG) {
            return None;
        }
        self.identities.is(entry, self.hash.hash(&self.input[message.start..end])).then_some(end)
    }

    #[inline]
    fn push_known(&mut self, raw: u32, labels: Range<usize>, rows: &mut Rows) {
        let place = self.identities.place(raw, self.epochs);
        self.identities.link(self.last, raw);
        self.last = raw;
        if place.sent == NEEDS_LABELS {
            rows.needs_labels.push(rows.series.len() as u32);
        }
        rows.series.push(Row {
            raw,
            entry: place.entry,
            sent: place.sent,
            shard: place.shard,
            labels: (labels.start as u32, labels.len() as u32),
            form: LabelForm::Body,
            has_data: false,
            flags: 0,
        });
    }

    fn push(&mut self, labels: Range<usize>, rows: &mut Rows) {
        let hash = self.hash.hash(&self.input[labels.clone()]);
        if let Some(raw) = self.identities.find_raw(hash, labels.len()) {
            return self.push_known(raw, labels, rows);
        }
        self.last = NO_ENTRY;
        let row = rows.series.len() as u32;
        rows.misses.push(Miss { row, hash });
        rows.needs_labels.push(row);
        rows.series.push(unplaced((labels.start as u32, labels.len() as u32), LabelForm::Body));
    }

    /// Labels in several places: copied together, and looked up as one spelling.
    fn gather(&mut self, first: Range<usize>, rest: &[Range<usize>], row: u32, rows: &mut Rows) {
        let start = rows.spill.len();
        rows.spill.extend_from_slice(&self.input[first]);
        for label in rest {
            rows.spill.push(LABEL_TAG);
            crate::wire::put_varint(&mut rows.spill, label.len() as u64);
            rows.spill.extend_from_slice(&self.input[label.clone()]);
        }
        let labels = (start as u32, (rows.spill.len() - start) as u32);
        let hash = self.hash.hash(&rows.spill[start..]);
        rows.needs_labels.retain(|r| *r != row);
        rows.misses.retain(|m| m.row != row);
        rows.misses.push(Miss { row, hash });
        rows.needs_labels.push(row);
        let has_data = rows.series[row as usize].has_data;
        rows.series[row as usize] = Row { has_data, ..unplaced(labels, LabelForm::Spill) };
        self.last = NO_ENTRY;
    }

    /// The fields after the labels; labels among them go to `scattered`, or are an error of the prediction's own.
    fn contents(
        &self,
        range: Range<usize>,
        row: u32,
        rows: &mut Rows,
        mut scattered: Option<&mut Vec<Range<usize>>>,
    ) -> Result<(), WireError> {
        let mut wire = Wire::new(self.input, range);
        let mut late = Vec::new();
        while let Some((number, field)) = wire.next()? {
            match (number, field) {
                (1, Field::Bytes(label)) => match &mut scattered {
                    Some(list) => list.push(label),
                    None => late.push(label),
                },
                (2, Field::Bytes(message)) => sample(self.input, message, row, rows)?,
                (3, Field::Bytes(message)) => exemplar(self.input, message, row, rows)?,
                (4, Field::Bytes(message)) => native(self.input, message, row, rows)?,
                _ => {}
            }
        }
        if !late.is_empty() {
            // A predicted series that has more labels after its samples: start over with what it really is.
            let known = rows.series[row as usize];
            let first = known.labels.0 as usize..(known.labels.0 + known.labels.1) as usize;
            let mut walker = Walker { last: NO_ENTRY, ..*self };
            walker.gather(first, &late, row, rows);
        }
        Ok(())
    }
}

fn unplaced(labels: (u32, u32), form: LabelForm) -> Row {
    Row { raw: NO_ENTRY, entry: NO_ENTRY, sent: NEEDS_LABELS, shard: 0, labels, form, has_data: false, flags: 0 }
}

#[inline]
fn sample(input: &[u8], message: Range<usize>, row: u32, rows: &mut Rows) -> Result<(), WireError> {
    let mut wire = Wire::new(input, message);
    let (mut v, mut t) = (0.0, 0);
    while let Some((number, field)) = wire.next()? {
        match (number, field) {
            (1, Field::Fixed64(bits)) => v = f64::from_bits(bits),
            (2, Field::Varint(n)) => t = n as i64,
            _ => {}
        }
    }
    rows.series[row as usize].has_data = true;
    rows.samples.push(RowSample { row, t, v, start: 0 });
    Ok(())
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

/// Label characters that an exemplar may have, as OpenMetrics says.
const EXEMPLAR_CHARACTERS_MAX: usize = 128;

/// Adds an exemplar, or counts it as dropped where its labels are too long or not text: an exemplar never fails a request.
pub(super) fn push_exemplar(row: u32, t: i64, v: f64, pairs: &mut Pairs<'_>, rows: &mut Rows) {
    let text = |b: &[u8]| std::str::from_utf8(b).map(|s| s.chars().count());
    let size: Result<usize, _> = pairs.iter().map(|(n, v)| Ok::<_, std::str::Utf8Error>(text(n)? + text(v)?)).sum();
    pairs.sort();
    let twice = pairs.windows(2).any(|p| p[0].0 == p[1].0);
    if twice || !size.is_ok_and(|s| s <= EXEMPLAR_CHARACTERS_MAX) {
        rows.exemplars_dropped += 1;
        return;
    }
    let labels = rows.put_blob(|out| {
        for (name, value) in pairs.iter().filter(|(n, v)| !n.is_empty() && !v.is_empty()) {
            put_text(out, name);
            put_text(out, value);
        }
    });
    rows.exemplars.push(RowExemplar { row, t, v, labels });
}

fn native(input: &[u8], message: Range<usize>, row: u32, rows: &mut Rows) -> Result<(), WireError> {
    let at = message.start;
    let decoded = wire_format::Histogram::decode(&input[message]).map_err(|_| wire_error("malformed histogram", at))?;
    push_histogram(&decoded, row, rows);
    Ok(())
}

/// Adds a histogram, or refuses it and keeps the rest of its series.
pub(super) fn push_histogram(decoded: &wire_format::Histogram, row: u32, rows: &mut Rows) {
    rows.series[row as usize].has_data = true;
    match histogram::model(decoded) {
        Ok(h) => {
            let encoded = rows.put_blob(|out| h.encode(out));
            rows.histograms.push(RowHistogram { row, t: decoded.timestamp, start: decoded.start_timestamp, encoded });
        }
        Err(reason) => {
            rows.refused.push(ErrorClass::BadRequest, || {
                (format!("series {row} of the request"), format!("invalid histogram: {reason} (series {row} of the request)"))
            });
        }
    }
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
pub(crate) fn pairs(labels: &[u8]) -> Result<Pairs<'_>, &'static str> {
    let mut wire = Wire::new(labels, 0..labels.len());
    let mut out = Vec::with_capacity(16);
    while let Some((number, field)) = wire.next().map_err(|e| e.reason)? {
        if let (1, Field::Bytes(label)) = (number, field) {
            out.push(pair(labels, label).map_err(|e| e.reason)?);
        }
    }
    Ok(out)
}

fn metadata(input: &[u8], message: Range<usize>, rows: &mut Rows) -> Result<(), WireError> {
    let at = message.start;
    let m = wire_format::MetricMetadataV1::decode(&input[message]).map_err(|_| wire_error("malformed metadata", at))?;
    if !m.metric_family_name.is_empty() {
        let metadata = MetricMetadata { metric_type: MetricType::from_number(i64::from(m.r#type)), help: m.help, unit: m.unit };
        rows.metadata.push(RowMetadata { family: m.metric_family_name, metadata, shard: 0 });
    }
    Ok(())
}

/// Walks any bytes and reads the labels of every series.
#[doc(hidden)]
pub fn fuzz_v1(input: &[u8]) {
    let (identities, epochs, mut rows) = no_identities();
    if walk(input, &identities, &epochs, &mut rows).is_ok() {
        for row in &rows.series {
            let bytes = if row.form == LabelForm::Spill { &rows.spill[..] } else { input };
            if let Ok(mut pairs) = pairs(crate::rows::slice(bytes, row.labels)) {
                let _ = show_pairs(&pairs);
                let _ = canonicalise(&mut pairs, &Default::default(), &mut Vec::new());
            }
        }
    }
}
