//! Remote write 2.0: label names and values are numbers in a table of symbols.
//!
//! A series' spelling is its names and values in the order sent, each with its length; it is written to the rows' spill
//! and looked up by its hash, as in 1.0. No text is checked and nothing is allocated for a series that is known.
//! Symbols that are used again and again make much text of a few bytes: all spellings together may be as long as a
//! request.

use std::ops::Range;

use sextant_model::{METRIC_NAME, MetricType};
use sextant_proto::ErrorClass;

use super::{
    Context,
    parts::{push_exemplar, push_histogram},
};
use crate::{
    RequestError,
    canonical::{Pairs, put_text, show_pairs},
    identity::{Form, KeyedHash},
    metadata,
    rows::{LabelForm, REFUSED, RowSample, Rows},
    wire::{Field, Wire, WireError, varint, wire_error},
};

/// Takes a request apart into rows; every row's labels are in the spill.
pub(crate) fn walk(input: &[u8], context: &Context<'_>, rows: &mut Rows) -> Result<(), RequestError> {
    let malformed = |e: WireError| {
        let (reason, at) = (e.reason, e.at);
        RequestError::Protobuf { message: "io.prometheus.write.v2.Request", reason, at }
    };
    // Symbols need not come first.
    rows.symbols.clear();
    let mut wire = Wire::new(input, 0..input.len());
    while let Some((number, field)) = wire.next().map_err(malformed)? {
        if let (4, Field::Bytes(r)) = (number, field) {
            rows.symbols.push((r.start as u32, r.len() as u32));
        }
    }
    if let Some(&(at, 1..)) = rows.symbols.first() {
        return Err(malformed(wire_error("the first symbol must be the empty text", at as usize)));
    }
    let symbols = std::mem::take(&mut rows.symbols);
    let mut walker = Walker {
        input,
        context,
        symbols: &symbols,
        hash: KeyedHash::of(Form::V2),
        refs: Vec::new(),
        pairs: Vec::new(),
    };
    let mut wire = Wire::new(input, 0..input.len());
    let result = loop {
        match wire.next().map_err(malformed) {
            Ok(Some((5, Field::Bytes(message)))) => {
                let size = context.check_size(rows);
                if let Err(e) = size.and_then(|()| walker.series(message, rows).map_err(malformed)) {
                    break Err(e);
                }
            }
            Ok(Some(_)) => {}
            Ok(None) => break context.check_size(rows),
            Err(e) => break Err(e),
        }
    };
    rows.symbols = symbols;
    result
}

struct Walker<'a> {
    input: &'a [u8],
    context: &'a Context<'a>,
    symbols: &'a [(u32, u32)],
    hash: KeyedHash,
    /// Reused from series to series.
    refs: Vec<u32>,
    pairs: Pairs<'a>,
}

/// Numbers of a metadata message.
#[derive(Clone, Copy, Default)]
struct Metadata {
    metric_type: MetricType,
    help: u32,
    unit: u32,
}

impl<'a> Walker<'a> {
    fn series(&mut self, message: Range<usize>, rows: &mut Rows) -> Result<(), WireError> {
        let input = self.input;
        let row = rows.series.len() as u32;
        let before = (rows.samples.len(), rows.histograms.len(), rows.refused.items);
        let exemplars_before = rows.exemplars.len() as u64 + rows.exemplars_dropped;
        // Items name their row, whose labels are known only when the whole message is read.
        rows.push_miss((0, 0), LabelForm::SpilledPairs, 0);
        let mut refs = std::mem::take(&mut self.refs);
        refs.clear();
        let (mut sent, mut created) = (Metadata::default(), 0);
        let mut wire = Wire::new(input, message);
        while let Some((number, field)) = wire.next()? {
            if rows.is_full() {
                return Err(wire_error("more samples than a request may hold", wire.pos()));
            }
            match (number, field) {
                (1, Field::Bytes(packed)) => unpack(input, packed, &mut refs)?,
                (1, Field::Varint(n)) => refs.push(clamp(n)),
                (2, Field::Bytes(m)) => {
                    let (t, v, start) = sample(input, m)?;
                    rows.samples.push(RowSample { row, t, v, start });
                }
                (3, Field::Bytes(m)) => {
                    let at = m.start;
                    let show = || {
                        let mut pairs = Vec::new();
                        self.resolve(&refs, &mut pairs).map(|()| show_pairs(&pairs)).unwrap_or_default()
                    };
                    push_histogram(&input[m], at, row, rows, show)?;
                }
                (4, Field::Bytes(m)) => self.exemplar(m, row, rows)?,
                (5, Field::Bytes(m)) => sent = numbers(input, m)?,
                (6, Field::Varint(n)) => created = n as i64,
                _ => {}
            }
        }
        for s in rows.samples[before.0..].iter_mut().filter(|s| s.start == 0) {
            s.start = created;
        }
        let has_values = before != (rows.samples.len(), rows.histograms.len(), rows.refused.items);
        let has_exemplars = rows.exemplars.len() as u64 + rows.exemplars_dropped > exemplars_before;
        rows.pop_row();
        let mut pairs = std::mem::take(&mut self.pairs);
        let finished = self.finish(&refs, &mut pairs, sent, has_values, has_exemplars, rows);
        self.pairs = pairs;
        if let Err((series, reason)) = finished {
            rows.push_miss((0, 0), LabelForm::SpilledPairs, 0);
            rows.misses.pop();
            rows.needs_labels.pop();
            rows.series[row as usize].sent = REFUSED;
            rows.refused.push(ErrorClass::BadRequest, || (series, reason));
        } else if has_values {
            rows.series[row as usize].has_data = true;
        }
        self.refs = refs;
        Ok(())
    }

    /// Adds the row, where the series has anything to store, and its metadata; the error is the series as text and the
    /// reason.
    fn finish(
        &self,
        refs: &[u32],
        pairs: &mut Pairs<'a>,
        sent: Metadata,
        has_values: bool,
        has_exemplars: bool,
        rows: &mut Rows,
    ) -> Result<(), (String, String)> {
        let by_refs = || format!("{refs:?}").replace(',', "");
        self.resolve(refs, pairs)
            .map_err(|e| (by_refs(), format!("parsing labels for series {}: {e}", by_refs())))?;
        let symbol = |what: &str, r: u32| {
            let outside =
                || format!("metadata {what} {r} outside of symbols table (size {})", self.symbols.len());
            // No symbols at all and nothing named: an old sender without metadata.
            if r == 0 { Ok(&[][..]) } else { self.symbol(r).ok_or_else(outside) }
        };
        let texts = symbol("help_ref", sent.help).and_then(|help| Ok((help, symbol("unit_ref", sent.unit)?)));
        let (help, unit) =
            texts.map_err(|e| (by_refs(), format!("parsing metadata for series {}: {e}", by_refs())))?;
        let has_metadata = sent.metric_type != MetricType::Unknown || !help.is_empty() || !unit.is_empty();
        if !has_values && (has_exemplars || !has_metadata) {
            let shown = show_pairs(&pairs);
            let reason =
                format!("TimeSeries must contain at least one sample or histogram for series {shown}");
            return Err((shown, reason));
        }
        let name = pairs.iter().find(|(n, _)| *n == METRIC_NAME.as_bytes()).map_or(&[][..], |(_, v)| *v);
        if has_metadata && !name.is_empty() {
            let content = (sent.metric_type, help, unit);
            let Context { memory, tenant, epochs, .. } = *self.context;
            metadata::push(memory, tenant, epochs, name, content, rows);
        }
        if !has_values && !name.is_empty() {
            return Ok(());
        }
        if self.context.type_and_unit_labels {
            if sent.metric_type != MetricType::Unknown {
                replace(pairs, b"__type__", sent.metric_type.as_str().as_bytes());
            }
            if !unit.is_empty() {
                replace(pairs, b"__unit__", unit);
            }
        }
        let size: usize = pairs.iter().map(|(n, v)| n.len() + v.len() + 4).sum();
        if rows.spill.len().saturating_add(size) > self.context.label_bytes_max {
            rows.is_too_long = true;
            return Err((by_refs(), String::new()));
        }
        let start = rows.spill.len();
        for (name, value) in pairs.iter() {
            put_text(&mut rows.spill, name);
            put_text(&mut rows.spill, value);
        }
        let spelling = &rows.spill[start..];
        let hash = self.hash.hash(spelling);
        let labels = (start as u32, spelling.len() as u32);
        match self.context.identities.find_raw(hash, spelling.len()) {
            Some(raw) => {
                let place = self.context.identities.place(raw, self.context.epochs);
                rows.push_placed(raw, place, labels, LabelForm::SpilledPairs);
            }
            None => rows.push_miss(labels, LabelForm::SpilledPairs, hash),
        }
        Ok(())
    }

    fn symbol(&self, r: u32) -> Option<&'a [u8]> {
        self.symbols.get(r as usize).map(|&range| crate::rows::slice(self.input, range))
    }

    /// Puts the pairs that references stand for into `pairs`, in place of what is there.
    fn resolve(&self, refs: &[u32], pairs: &mut Pairs<'a>) -> Result<(), String> {
        pairs.clear();
        if !refs.len().is_multiple_of(2) {
            return Err(format!("invalid labelRefs length {}", refs.len()));
        }
        for pair in refs.chunks_exact(2) {
            let Some(found) = self.symbol(pair[0]).zip(self.symbol(pair[1])) else {
                let (name, value, size) = (pair[0], pair[1], self.symbols.len());
                return Err(format!(
                    "labelRefs {name} (name) = {value} (value) outside of symbols table (size {size})"
                ));
            };
            pairs.push(found);
        }
        Ok(())
    }

    fn exemplar(&self, message: Range<usize>, row: u32, rows: &mut Rows) -> Result<(), WireError> {
        let mut wire = Wire::new(self.input, message);
        let (mut refs, mut v, mut t) = (Vec::new(), 0.0, 0);
        while let Some((number, field)) = wire.next()? {
            match (number, field) {
                (1, Field::Bytes(packed)) => unpack(self.input, packed, &mut refs)?,
                (1, Field::Varint(n)) => refs.push(clamp(n)),
                (2, Field::Fixed64(bits)) => v = f64::from_bits(bits),
                (3, Field::Varint(n)) => t = n as i64,
                _ => {}
            }
        }
        let mut pairs = Vec::new();
        match self.resolve(&refs, &mut pairs) {
            Ok(()) => push_exemplar(row, t, v, &mut pairs, rows),
            Err(_) => rows.exemplars_dropped += 1,
        }
        Ok(())
    }
}

fn replace<'a>(pairs: &mut Pairs<'a>, name: &'static [u8], value: &'a [u8]) {
    pairs.retain(|(n, _)| *n != name);
    pairs.push((name, value));
}

/// A number too large for a reference is outside of every table.
fn clamp(n: u64) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

fn unpack(input: &[u8], packed: Range<usize>, refs: &mut Vec<u32>) -> Result<(), WireError> {
    let mut rest = &input[packed.clone()];
    while !rest.is_empty() {
        let (n, len) = varint(rest).map_err(|reason| wire_error(reason, packed.end - rest.len()))?;
        refs.push(clamp(n));
        rest = &rest[len..];
    }
    Ok(())
}

fn sample(input: &[u8], message: Range<usize>) -> Result<(i64, f64, i64), WireError> {
    let mut wire = Wire::new(input, message);
    let (mut v, mut t, mut start) = (0.0, 0, 0);
    while let Some((number, field)) = wire.next()? {
        match (number, field) {
            (1, Field::Fixed64(bits)) => v = f64::from_bits(bits),
            (2, Field::Varint(n)) => t = n as i64,
            (3, Field::Varint(n)) => start = n as i64,
            _ => {}
        }
    }
    Ok((t, v, start))
}

fn numbers(input: &[u8], message: Range<usize>) -> Result<Metadata, WireError> {
    let mut wire = Wire::new(input, message);
    let mut out = Metadata::default();
    while let Some((number, field)) = wire.next()? {
        match (number, field) {
            (1, Field::Varint(n)) => out.metric_type = MetricType::from_number(n as i64),
            (3, Field::Varint(n)) => out.help = clamp(n),
            (4, Field::Varint(n)) => out.unit = clamp(n),
            _ => {}
        }
    }
    Ok(out)
}
