//! Requests and answers as bytes. Pure: no I/O; memory is taken only for what is there.
//!
//! Format (little-endian; `v` is a LEB128 varint, `z` a zigzag varint, *text* and *labels* a varint length and the bytes):
//! ```text
//! request    u8 version=1 | u128 cluster | u32 shard | body
//!   Append         the write batch as it is
//!   Delete         text tenant | u128 id | z now | z start | z end | v selectors { matchers }
//!   Select, Find, Series, Exemplars    select
//!   LabelValues    select | u8 0: the names, 1: the values of { text label }
//!   Metadata, Stats    text tenant | v after
//!   Tenants        nothing
//! select     text tenant | z start | z end | v after | v series max | v samples max | matchers
//! matchers   v count { u8 operator: 0 = 1 != 2 =~ 3 !~ | text name | text value }
//!
//! answer     u8 version=1 | body
//!   Append         v epoch | u8 duplicate | v new refs { v ref + 1, 0 where refused } | v refusals { v series, v samples, u8 kind }
//!   Delete         v position | v pending
//!   Select, Find   a part of a series set, see `series`
//!   others         v count { item }: a part of the list
//!     Series       labels
//!     LabelValues, Tenants    text
//!     Exemplars    labels | v count { z time, f64 value, labels }
//!     Metadata     text name | u8 type | text help | text unit
//!     Stats        v series | v samples | i64 earliest | i64 latest
//! ```
//! Refusals are described in `refusal`. A reader takes every version up to its own and refuses others by name; a writer
//! writes the lowest version that can say what it has to say, so that two releases understand each other during an upgrade.

pub(crate) mod list;
pub(crate) mod refusal;
pub(crate) mod series;

use bytes::Bytes;
use sextant_model::{MatchOp, Matcher, TenantId};

pub(crate) use crate::write_batch::MalformedBatch as Malformed;
use crate::{
    AppendOutcome, DeleteOutcome, DeleteRequest, Refusal, RefusalKind, SelectLimits, SelectRequest, ShardId,
    rpc::VERSION,
    write_batch::{Reader, put_bytes, put_varint, put_zigzag},
};

/// The most matchers of one request: each may hold a compiled expression.
pub(crate) const MATCHERS_MAX: usize = 4096;

/// The most bytes of a request that is not a write.
pub(crate) const REQUEST_BYTES_MAX: usize = 8 << 20;

const HEAD_BYTES: usize = 1 + 16 + 4;

/// The head of a request.
pub(crate) fn request_head(cluster: u128, shard: ShardId) -> Bytes {
    let mut out = Vec::with_capacity(HEAD_BYTES);
    out.push(VERSION);
    out.extend_from_slice(&cluster.to_le_bytes());
    out.extend_from_slice(&shard.0.to_le_bytes());
    out.into()
}

/// A request's head and body. The body shares the message's memory.
pub(crate) struct Opened {
    pub(crate) cluster: u128,
    pub(crate) shard: ShardId,
    pub(crate) body: Bytes,
}

/// Why a request's head was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadHead {
    Version(u8),
    Short,
}

pub(crate) fn open_request(message: &Bytes) -> Result<Opened, BadHead> {
    match message.first() {
        Some(&VERSION) => {}
        Some(&other) => return Err(BadHead::Version(other)),
        None => return Err(BadHead::Short),
    }
    let mut r = Reader(message.get(1..).unwrap_or_default());
    let cluster = r.array().map(u128::from_le_bytes).map_err(|_| BadHead::Short)?;
    let shard = r.array().map(u32::from_le_bytes).map_err(|_| BadHead::Short)?;
    Ok(Opened { cluster, shard: ShardId(shard), body: message.slice(HEAD_BYTES..) })
}

/// A reader of an answer's body.
pub(crate) fn open_answer(message: &[u8]) -> Result<Reader<'_>, Malformed> {
    let mut r = Reader(message);
    match r.u8()? {
        VERSION => Ok(r),
        _ => Err(Malformed("unknown version of the answer")),
    }
}

/// An answer's first byte.
fn answer() -> Vec<u8> {
    vec![VERSION]
}

fn end(r: &Reader<'_>) -> Result<(), Malformed> {
    if r.0.is_empty() { Ok(()) } else { Err(Malformed("bytes after the end")) }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_bytes(out, text.as_bytes());
}

fn take_u32(r: &mut Reader<'_>) -> Result<u32, Malformed> {
    u32::try_from(r.varint()?).map_err(|_| Malformed("number out of range"))
}

fn take_flag(r: &mut Reader<'_>) -> Result<bool, Malformed> {
    match r.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Malformed("flag is neither 0 nor 1")),
    }
}

fn take_tenant(r: &mut Reader<'_>) -> Result<TenantId, Malformed> {
    TenantId::new(r.text()?).map_err(|_| Malformed("not a tenant id"))
}

fn put_matchers(out: &mut Vec<u8>, matchers: &[Matcher]) {
    put_varint(out, matchers.len() as u64);
    for m in matchers {
        out.push(match m.op {
            MatchOp::Equal => 0,
            MatchOp::NotEqual => 1,
            MatchOp::Regex => 2,
            MatchOp::NotRegex => 3,
        });
        put_text(out, &m.name);
        put_text(out, &m.value);
    }
}

/// `budget` is how many matchers the request may still have.
fn take_matchers(r: &mut Reader<'_>, budget: &mut usize) -> Result<Vec<Matcher>, Malformed> {
    let n = r.count(3)?;
    *budget = budget.checked_sub(n).ok_or(Malformed("too many matchers"))?;
    let mut out = Vec::with_capacity(n);
    for _ in 0..n {
        let op = match r.u8()? {
            0 => MatchOp::Equal,
            1 => MatchOp::NotEqual,
            2 => MatchOp::Regex,
            3 => MatchOp::NotRegex,
            _ => return Err(Malformed("unknown operator of a matcher")),
        };
        let (name, value) = (r.text()?, r.text()?);
        out.push(Matcher::new(name, op, value).map_err(|_| Malformed("invalid regular expression"))?);
    }
    Ok(out)
}

fn put_select(out: &mut Vec<u8>, request: &SelectRequest) {
    put_text(out, request.tenant.as_str());
    put_zigzag(out, request.start);
    put_zigzag(out, request.end);
    put_varint(out, request.after);
    put_varint(out, request.limits.series_max as u64);
    put_varint(out, request.limits.samples_max as u64);
    put_matchers(out, &request.matchers);
}

fn take_select(r: &mut Reader<'_>) -> Result<SelectRequest, Malformed> {
    let tenant = take_tenant(r)?;
    let (start, end, after) = (r.zigzag()?, r.zigzag()?, r.varint()?);
    let mut bound = || r.varint().map(|n| usize::try_from(n).unwrap_or(usize::MAX));
    let limits = SelectLimits { series_max: bound()?, samples_max: bound()? };
    let matchers = take_matchers(r, &mut MATCHERS_MAX.clone())?;
    Ok(SelectRequest { tenant, matchers, start, end, after, limits })
}

pub(crate) fn encode_select(request: &SelectRequest) -> Bytes {
    let mut out = Vec::new();
    put_select(&mut out, request);
    out.into()
}

pub(crate) fn decode_select(body: &[u8]) -> Result<SelectRequest, Malformed> {
    let mut r = Reader(body);
    let request = take_select(&mut r)?;
    end(&r)?;
    Ok(request)
}

pub(crate) fn encode_label_values(request: &SelectRequest, label: Option<&str>) -> Bytes {
    let mut out = Vec::new();
    put_select(&mut out, request);
    out.push(u8::from(label.is_some()));
    if let Some(label) = label {
        put_text(&mut out, label);
    }
    out.into()
}

pub(crate) fn decode_label_values(body: &[u8]) -> Result<(SelectRequest, Option<String>), Malformed> {
    let mut r = Reader(body);
    let request = take_select(&mut r)?;
    let label = if take_flag(&mut r)? { Some(r.text()?.to_owned()) } else { None };
    end(&r)?;
    Ok((request, label))
}

pub(crate) fn encode_tenant(tenant: &TenantId, after: u64) -> Bytes {
    let mut out = Vec::new();
    put_text(&mut out, tenant.as_str());
    put_varint(&mut out, after);
    out.into()
}

pub(crate) fn decode_tenant(body: &[u8]) -> Result<(TenantId, u64), Malformed> {
    let mut r = Reader(body);
    let tenant = (take_tenant(&mut r)?, r.varint()?);
    end(&r)?;
    Ok(tenant)
}

pub(crate) fn encode_delete(request: &DeleteRequest) -> Bytes {
    let mut out = Vec::new();
    put_text(&mut out, request.tenant.as_str());
    out.extend_from_slice(&request.id.to_le_bytes());
    [request.now_ms, request.start, request.end].iter().for_each(|&t| put_zigzag(&mut out, t));
    put_varint(&mut out, request.selectors.len() as u64);
    request.selectors.iter().for_each(|matchers| put_matchers(&mut out, matchers));
    out.into()
}

pub(crate) fn decode_delete(body: &[u8]) -> Result<DeleteRequest, Malformed> {
    let mut r = Reader(body);
    let tenant = take_tenant(&mut r)?;
    let id = u128::from_le_bytes(r.array()?);
    let (now_ms, start, until) = (r.zigzag()?, r.zigzag()?, r.zigzag()?);
    let n = r.count(1)?;
    let mut budget = MATCHERS_MAX;
    if n > budget {
        return Err(Malformed("too many selectors"));
    }
    let mut selectors = Vec::with_capacity(n);
    for _ in 0..n {
        selectors.push(take_matchers(&mut r, &mut budget)?);
    }
    end(&r)?;
    Ok(DeleteRequest { tenant, id, now_ms, selectors, start, end: until })
}

pub(crate) fn encode_delete_outcome(outcome: &DeleteOutcome) -> Bytes {
    let mut out = answer();
    put_varint(&mut out, outcome.position);
    put_varint(&mut out, outcome.pending);
    out.into()
}

pub(crate) fn decode_delete_outcome(message: &[u8]) -> Result<DeleteOutcome, Malformed> {
    let mut r = open_answer(message)?;
    let outcome = DeleteOutcome { position: r.varint()?, pending: r.varint()? };
    end(&r)?;
    Ok(outcome)
}

pub(crate) fn encode_append_outcome(outcome: &AppendOutcome) -> Bytes {
    let mut out = answer();
    out.reserve(16 + outcome.new_refs.len() * 3 + outcome.refused.len() * 5);
    put_varint(&mut out, outcome.epoch);
    out.push(u8::from(outcome.duplicate));
    put_varint(&mut out, outcome.new_refs.len() as u64);
    outcome.new_refs.iter().for_each(|&r| put_varint(&mut out, u64::from(r.wrapping_add(1))));
    put_varint(&mut out, outcome.refused.len() as u64);
    for refusal in &outcome.refused {
        put_varint(&mut out, u64::from(refusal.series));
        put_varint(&mut out, u64::from(refusal.samples));
        out.push(match refusal.kind {
            RefusalKind::SeriesLimit => 1,
            RefusalKind::OutsideWindow => 2,
        });
    }
    out.into()
}

pub(crate) fn decode_append_outcome(message: &[u8]) -> Result<AppendOutcome, Malformed> {
    let mut r = open_answer(message)?;
    let (epoch, duplicate) = (r.varint()?, take_flag(&mut r)?);
    let n = r.count(1)?;
    let mut new_refs = Vec::with_capacity(n);
    for _ in 0..n {
        new_refs.push(take_u32(&mut r)?.wrapping_sub(1));
    }
    let n = r.count(3)?;
    let mut refused = Vec::with_capacity(n);
    for _ in 0..n {
        let (series, samples) = (take_u32(&mut r)?, take_u32(&mut r)?);
        let kind = match r.u8()? {
            1 => RefusalKind::SeriesLimit,
            2 => RefusalKind::OutsideWindow,
            _ => return Err(Malformed("unknown kind of refusal")),
        };
        refused.push(Refusal { series, samples, kind });
    }
    end(&r)?;
    Ok(AppendOutcome { epoch, new_refs, duplicate, refused })
}

/// Decodes bytes behind one that says as what; for fuzzing. Never panics, whatever the bytes.
pub(crate) fn fuzz_message(bytes: &[u8]) {
    use list::{ListParts, decode_list};
    fn list<T: list::Item>(bytes: &[u8]) {
        let Ok(items) = decode_list::<T>(bytes) else { return };
        let again: usize =
            ListParts::new(items, 1 << 30).map(|m| decode_list::<T>(&m).map_or(0, |l| l.len())).sum();
        assert_eq!(again, decode_list::<T>(bytes).map_or(0, |l| l.len()), "a list that came back as another");
    }
    let Some((kind, bytes)) = bytes.split_first() else { return };
    match kind % 13 {
        0 => {
            if let Ok(request) = decode_select(bytes) {
                let once = encode_select(&request);
                assert!(decode_select(&once).is_ok_and(|again| encode_select(&again) == once));
            }
        }
        1 => drop(decode_label_values(bytes)),
        2 => {
            if let Ok(request) = decode_delete(bytes) {
                let once = encode_delete(&request);
                assert!(decode_delete(&once).is_ok_and(|again| encode_delete(&again) == once));
            }
        }
        3 => drop(decode_tenant(bytes)),
        4 => {
            if let Ok(outcome) = decode_append_outcome(bytes) {
                let again = decode_append_outcome(&encode_append_outcome(&outcome));
                assert!(again.is_ok_and(|again| again == outcome));
            }
        }
        5 => drop(decode_delete_outcome(bytes)),
        6 => {
            if let Ok(refused) = refusal::decode_refused(bytes) {
                assert!(refusal::decode_refused(&refusal::encode_refused(&refused)).is_ok());
            }
        }
        7 => list::<String>(bytes),
        8 => list::<sextant_model::Labels>(bytes),
        9 => list::<crate::ExemplarSeries>(bytes),
        10 => list::<crate::MetadataEntry>(bytes),
        11 => list::<TenantId>(bytes),
        _ => {
            let Ok(part) = series::Part::decode(Bytes::copy_from_slice(bytes)) else { return };
            let mut parts = series::Parts::default();
            if parts.push(part, usize::MAX, usize::MAX).is_err() {
                return;
            }
            let Ok(set) = parts.read(0..parts.labels.len()) else { return };
            // A timestamp has a byte, a value eight; a histogram has more than twenty.
            assert!(set.t.len() * 9 + set.h.len() * 20 <= bytes.len());
            let mut again = series::Parts::default();
            for part in series::SetParts::new(set.clone(), 1 << 16) {
                let part = series::Part::decode(part);
                assert!(part.is_ok_and(|part| again.push(part, usize::MAX, usize::MAX).is_ok()));
            }
            let again = again.read(0..again.labels.len());
            assert!(again.is_ok_and(|again| again.t == set.t && again.labels == set.labels));
        }
    }
}

#[cfg(test)]
mod tests;
