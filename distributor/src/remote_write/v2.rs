//! Remote write 2.0: label names and values are numbers in a table of symbols.
//!
//! Every symbol is hashed once. A series' spelling is its symbols in the order sent: the hash of their hashes is looked
//! up, as the hash of the label bytes is in 1.0. No text is checked or copied and nothing is allocated for a series that
//! is known. Symbols that are used again and again make much text of a few bytes: all spellings together may be as long
//! as a request.

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
    rows::{ITEMS_MAX, LabelForm, NO_ENTRY, REFUSED, RowSample, Rows},
    wire::{Field, Wire, WireError, varint, wire_error},
};

/// Takes a request apart into rows; every row's labels are its references, or pairs in the spill.
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
            if rows.symbols.len() >= ITEMS_MAX {
                return Err(malformed(wire_error("more symbols than a request may hold", r.start)));
            }
            rows.symbols.push((r.start as u32, r.len() as u32));
        }
    }
    if let Some(&(at, 1..)) = rows.symbols.first() {
        return Err(malformed(wire_error("the first symbol must be the empty text", at as usize)));
    }
    let symbols = std::mem::take(&mut rows.symbols);
    let of_symbol = KeyedHash::of(Form::V2Symbol);
    let symbol_hash = |&range: &(u32, u32)| of_symbol.hash(crate::rows::slice(input, range)).to_le_bytes();
    let mut walker = Walker {
        input,
        context,
        symbols: &symbols,
        symbol_hashes: symbols.iter().map(symbol_hash).collect(),
        refs: Vec::new(),
        hashes: Vec::new(),
        spelled_bytes: 0,
        last_family: None,
        last: NO_ENTRY,
        predicted: NO_ENTRY,
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

const VALUE_TAG: u8 = 1 << 3 | 1;
const TIMESTAMP_TAG: u8 = 2 << 3;

/// References of one series: each takes twenty bytes of memory and may take one in the request.
const REFS_MAX: usize = 200_000;

struct Walker<'a> {
    input: &'a [u8],
    context: &'a Context<'a>,
    symbols: &'a [(u32, u32)],
    symbol_hashes: Vec<[u8; 16]>,
    /// Reused from series to series.
    refs: Vec<u32>,
    /// The hashes of a series' symbols; reused too.
    hashes: Vec<u8>,
    /// How long all spellings are together.
    spelled_bytes: usize,
    /// Name and metadata of the series before: neighbours mostly are of one family.
    last_family: Option<(u32, Metadata)>,
    /// The entry of the series before.
    last: u32,
    /// The entry expected next.
    predicted: u32,
}

/// Numbers of a metadata message.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
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
                    let show = || self.resolve(&refs).map(|p| show_pairs(&p)).unwrap_or_default();
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
        let finished = self.finish(&refs, sent, has_values, has_exemplars, rows);
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
        &mut self,
        refs: &[u32],
        sent: Metadata,
        has_values: bool,
        has_exemplars: bool,
        rows: &mut Rows,
    ) -> Result<(), (String, String)> {
        let by_refs = || format!("{refs:?}").replace(',', "");
        let Some(size) = self.spell(refs) else {
            let reason = self.resolve(refs).err().unwrap_or_default();
            return Err((by_refs(), format!("parsing labels for series {}: {reason}", by_refs())));
        };
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
            let shown = self.resolve(refs).map(|pairs| show_pairs(&pairs)).unwrap_or_default();
            let reason =
                format!("TimeSeries must contain at least one sample or histogram for series {shown}");
            return Err((shown, reason));
        }
        if has_metadata || !has_values {
            let is_name = |pair: &&[u32]| self.symbol(pair[0]) == Some(METRIC_NAME.as_bytes());
            let name_ref = refs.chunks_exact(2).find(is_name).map_or(0, |pair| pair[1]);
            let name = self.symbol(name_ref).unwrap_or_default();
            if has_metadata && !name.is_empty() && self.last_family != Some((name_ref, sent)) {
                self.last_family = Some((name_ref, sent));
                let content = (sent.metric_type, help, unit);
                let Context { memory, tenant, epochs, .. } = *self.context;
                metadata::push(memory, tenant, epochs, name, content, rows);
            }
            if !has_values && !name.is_empty() {
                return Ok(());
            }
        }
        self.spelled_bytes = self.spelled_bytes.saturating_add(size);
        if self.spelled_bytes > self.context.label_bytes_max {
            rows.is_too_long = true;
            return Err((by_refs(), String::new()));
        }
        if self.context.type_and_unit_labels {
            self.push_pairs(refs, sent.metric_type, unit, rows);
        } else {
            let labels = (rows.refs.len() as u32, refs.len() as u32);
            rows.refs.extend_from_slice(refs);
            self.push(KeyedHash::of(Form::V2).hash(&self.hashes), labels, LabelForm::Symbols, rows);
        }
        Ok(())
    }

    /// Puts the hashes of a series' symbols behind each other; the length of its spelling, or nothing where references
    /// are not those of pairs.
    fn spell(&mut self, refs: &[u32]) -> Option<usize> {
        self.hashes.clear();
        let mut size = 0;
        for &r in refs {
            self.hashes.extend_from_slice(self.symbol_hashes.get(r as usize)?);
            size += self.symbols[r as usize].1 as usize + 2;
        }
        refs.len().is_multiple_of(2).then_some(size)
    }

    /// Adds a row whose labels are not only those of its symbols: their pairs are written out.
    fn push_pairs(&mut self, refs: &[u32], metric_type: MetricType, unit: &'a [u8], rows: &mut Rows) {
        let mut pairs = self.resolve(refs).unwrap_or_default();
        if metric_type != MetricType::Unknown {
            replace(&mut pairs, b"__type__", metric_type.as_str().as_bytes());
        }
        if !unit.is_empty() {
            replace(&mut pairs, b"__unit__", unit);
        }
        let start = rows.spill.len();
        for (name, value) in &pairs {
            put_text(&mut rows.spill, name);
            put_text(&mut rows.spill, value);
        }
        let labels = (start as u32, (rows.spill.len() - start) as u32);
        let hash = KeyedHash::of(Form::V2Pairs).hash(&rows.spill[start..]);
        self.push(hash, labels, LabelForm::SpilledPairs, rows);
    }

    /// Adds a row. The entry is predicted from the series before, as in 1.0: entries that follow each other lie together,
    /// and a look into the table of all would wait for memory.
    fn push(&mut self, hash: u128, labels: (u32, u32), form: LabelForm, rows: &mut Rows) {
        let (identities, len) = (self.context.identities, labels.1 as usize);
        let is_predicted =
            identities.raw_len(self.predicted) == Some(len) && identities.is(self.predicted, hash);
        let raw = if is_predicted { Some(self.predicted) } else { identities.find_raw(hash, len) };
        match raw {
            Some(raw) => {
                identities.link(self.last, raw);
                (self.last, self.predicted) = (raw, identities.next(raw));
                rows.push_placed(raw, identities.place(raw, self.context.epochs), labels, form);
            }
            None => {
                self.last = NO_ENTRY;
                rows.push_miss(labels, form, hash);
            }
        }
    }

    fn symbol(&self, r: u32) -> Option<&'a [u8]> {
        self.symbols.get(r as usize).map(|&range| crate::rows::slice(self.input, range))
    }

    /// The pairs that references stand for.
    fn resolve(&self, refs: &[u32]) -> Result<Pairs<'a>, String> {
        if !refs.len().is_multiple_of(2) {
            return Err(format!("invalid labelRefs length {}", refs.len()));
        }
        let mut pairs = Vec::with_capacity(refs.len() / 2 + 2);
        for pair in refs.chunks_exact(2) {
            let Some(found) = self.symbol(pair[0]).zip(self.symbol(pair[1])) else {
                let (name, value, size) = (pair[0], pair[1], self.symbols.len());
                return Err(format!(
                    "labelRefs {name} (name) = {value} (value) outside of symbols table (size {size})"
                ));
            };
            pairs.push(found);
        }
        Ok(pairs)
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
        match self.resolve(&refs) {
            Ok(mut pairs) => push_exemplar(row, t, v, &mut pairs, rows),
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
        if refs.len() > REFS_MAX {
            return Err(wire_error("more labels than a series may have", packed.start));
        }
        // Nearly every reference has one or two bytes.
        let (n, len) = match rest {
            [a @ 0..0x80, ..] => (u64::from(*a), 1),
            [a, b @ 0..0x80, ..] => (u64::from(a & 0x7f) | u64::from(*b) << 7, 2),
            _ => varint(rest).map_err(|reason| wire_error(reason, packed.end - rest.len()))?,
        };
        refs.push(clamp(n));
        rest = &rest[len..];
    }
    Ok(())
}

#[inline]
fn sample(input: &[u8], message: Range<usize>) -> Result<(i64, f64, i64), WireError> {
    // Value and timestamp, as senders write them.
    if let [VALUE_TAG, rest @ ..] = &input[message.clone()]
        && let Some((bits, [TIMESTAMP_TAG, rest @ ..])) = rest.split_first_chunk::<8>()
        && let Ok((t, len)) = varint(rest)
        && len == rest.len()
    {
        return Ok((t as i64, f64::from_le_bytes(*bits), 0));
    }
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
