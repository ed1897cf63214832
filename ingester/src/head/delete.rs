//! Deletions of a tenant's series by matchers and time.
//!
//! A `Delete` entry at position P deletes what the entries before it brought, and nothing that later ones bring:
//! - P ends the active generation if it has rows of the tenant. So each generation's rows of the tenant are all before P or
//!   all after it, and the same holds for the blocks made of them.
//! - The sealed generations in memory that have rows of the tenant note which of their series it is and which times. Every
//!   read, and the flush, leaves those samples out **before** generations and blocks are joined, so that a deleted sample
//!   neither hides an older one nor takes back a later one.
//! - What is in blocks is deleted by a tombstone in the manifest, which its author commits when every shard has applied the
//!   entry. A generation that is flushed later writes what is left of it; the tombstone then finds nothing more in its block.
//!
//! Deletions are not part of checkpoints. One at a position before P is followed by the entry itself, which is applied again
//! to the generations that are made again. One at P or later is made when all generations up to it are in blocks, where
//! deletions are the manifest's.
//!
//! The ids of the last minutes are remembered with those of writes, so that a repetition changes nothing, also one that comes
//! after everything is flushed. A tenant's earlier writes are no longer recognised after a deletion: the same batch sent
//! again must be stored again. Increments are an exception, because they would be counted twice.
//!
//! Format of the entry (little-endian; `v` varint, `z` zigzag varint):
//! ```text
//! u128 id | z clock | z start | z end | v length, tenant | v selectors { v matchers { u8 op, v length, name, v length, value } }
//! op: 0 =, 1 !=, 2 =~, 3 !~
//! ```

use foldhash::fast::RandomState;
use hashbrown::HashSet;
use roaring::RoaringBitmap;
use sextant_model::{Exemplar, Labels, MatchOp, Matcher, SeriesBuf, TenantId};
use sextant_proto::{DeleteOutcome, DeleteRequest, ShardError, ShardStats};

use super::{
    Applied, Head,
    bits::{array, put_varint, put_zigzag, take, varint, zigzag},
    generation::Generation,
    series::SeriesRef,
    snapshot::{ReadBuf, Snapshot},
    tenant::{Rows, TenantHead},
};

const ALL: (i64, i64) = (i64::MIN, i64::MAX);

const OPS: [MatchOp; 4] = [MatchOp::Equal, MatchOp::NotEqual, MatchOp::Regex, MatchOp::NotRegex];

/// The body of a `Delete` entry.
pub fn encode_delete(request: &DeleteRequest) -> Vec<u8> {
    fn text(out: &mut Vec<u8>, text: &str) {
        put_varint(out, text.len() as u64);
        out.extend_from_slice(text.as_bytes());
    }
    let mut out = request.id.to_le_bytes().to_vec();
    put_zigzag(&mut out, request.now_ms);
    put_zigzag(&mut out, request.start);
    put_zigzag(&mut out, request.end);
    text(&mut out, request.tenant.as_str());
    put_varint(&mut out, request.selectors.len() as u64);
    for selector in &request.selectors {
        put_varint(&mut out, selector.len() as u64);
        for m in selector {
            out.push(OPS.iter().position(|op| *op == m.op).unwrap_or_default() as u8);
            text(&mut out, &m.name);
            text(&mut out, &m.value);
        }
    }
    out
}

/// Reads the body of a `Delete` entry; `None` where it is none. Safe on any input.
pub fn decode_delete(bytes: &[u8]) -> Option<DeleteRequest> {
    fn text<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
        let len = usize::try_from(varint(rest)?).ok()?;
        std::str::from_utf8(take(rest, len)?).ok()
    }
    let rest = &mut &bytes[..];
    let id = u128::from_le_bytes(array(rest)?);
    let (now_ms, start, end) = (zigzag(rest)?, zigzag(rest)?, zigzag(rest)?);
    let tenant = TenantId::new(text(rest)?).ok()?;
    let mut selectors = Vec::new();
    for _ in 0..varint(rest)? {
        let mut matchers = Vec::new();
        for _ in 0..varint(rest)? {
            let op = *OPS.get(usize::from(u8::from_le_bytes(array(rest)?)))?;
            let name = text(rest)?;
            matchers.push(Matcher::new(name, op, text(rest)?).ok()?);
        }
        // Nothing asks for everything, so nothing that was cut or damaged does.
        if matchers.is_empty() {
            return None;
        }
        selectors.push(matchers);
    }
    rest.is_empty().then_some(DeleteRequest { tenant, id, now_ms, selectors, start, end })
}

/// A deletion as far as it concerns one tenant's rows of one generation.
pub(crate) struct Deletion {
    id: u128,
    position: u64,
    range: (i64, i64),
    series: RoaringBitmap,
}

impl Rows {
    /// Whether samples of a series may be deleted.
    pub(crate) fn is_cut(&self, series: SeriesRef) -> bool {
        self.deletions.iter().any(|d| d.series.contains(series))
    }

    /// Whether samples of any series may be deleted.
    pub(crate) fn has_cuts(&self) -> bool {
        self.deletions.iter().any(|d| !d.series.is_empty())
    }

    /// The times that are deleted of a series.
    pub(crate) fn deleted(&self, series: SeriesRef) -> Vec<(i64, i64)> {
        self.deletions.iter().filter(|d| d.series.contains(series)).map(|d| d.range).collect()
    }
}

impl Rows {
    /// The exemplars of a series within the range.
    pub(crate) fn exemplars_of(&self, series: SeriesRef, range: (i64, i64)) -> Vec<Exemplar> {
        let mut exemplars = self.exemplars.get(&series).map(|e| e.read(range)).unwrap_or_default();
        if self.is_cut(series) {
            let deleted = self.deleted(series);
            exemplars.retain(|e| !deleted.iter().any(|d| d.0 <= e.t && e.t <= d.1));
        }
        exemplars
    }
}

impl TenantHead {
    /// Adds what is left after deletions: series to `ids`, the rest to `stats`.
    pub(crate) fn count_left(&self, stats: &mut ShardStats, ids: &mut HashSet<u128, RandomState>) {
        let (mut buf, mut samples) = (ReadBuf::default(), SeriesBuf::default());
        let len = self.rows.read().table.len() as SeriesRef;
        for series in 0..len {
            let (snapshot, id) = {
                let rows = self.rows.read();
                (Snapshot::take(&rows, series, Labels::empty(), ALL), rows.table.id(series))
            };
            snapshot.read(ALL, &mut buf, &mut samples);
            if samples.is_empty() {
                continue;
            }
            let times = samples.t.iter().copied().chain(samples.h.iter().map(|h| h.t));
            (stats.min_t, stats.max_t) =
                times.fold((stats.min_t, stats.max_t), |(min, max), t| (min.min(t), max.max(t)));
            stats.samples += samples.len() as u64;
            stats.series += 1;
            ids.insert(id);
        }
    }

    /// The ids of the deletions that were applied to these rows.
    pub fn deletions(&self) -> Vec<u128> {
        self.rows.read().deletions.iter().map(|d| d.id).collect()
    }

    /// Notes a deletion; returns the bytes of memory it takes. The rows must be sealed.
    fn delete(&self, request: &DeleteRequest, position: u64) -> usize {
        let mut series = RoaringBitmap::new();
        for selector in &request.selectors {
            series |= self.matching(selector);
        }
        let memory = size_of::<Deletion>() + series.serialized_size();
        let range = (request.start, request.end);
        self.rows.write().deletions.push(Deletion { id: request.id, position, range, series });
        memory
    }

    /// Where a deletion was applied.
    fn deleted_at(&self, id: u128) -> Option<u64> {
        self.rows.read().deletions.iter().find(|d| d.id == id).map(|d| d.position)
    }
}

impl Head {
    /// Applies a `Delete` entry.
    pub(super) fn delete(&self, position: u64, index: u64, body: &[u8]) -> Applied {
        let Some(request) = decode_delete(body) else {
            return Applied::Deleted(Err(ShardError::Malformed("a deletion does not decode".to_owned())));
        };
        let tenant = request.tenant.as_str();
        {
            // Before the seal, whose checkpoint has it.
            let mut writer = self.writer.lock();
            let carry = &mut writer.carry;
            if carry.recent.contains(request.id) {
                return Applied::Deleted(self.repeated(&request));
            }
            carry.recent.insert(request.id, request.now_ms);
            if let Some(t) = carry.tenants.get_mut(tenant) {
                t.salt = request.id;
            }
        }
        if self.active().tenant(tenant).is_some() {
            self.seal(position, index);
        }
        for g in self.sealed() {
            if let Some(rows) = g.tenant(tenant) {
                g.add_memory(rows.delete(&request, position));
            }
        }
        Applied::Deleted(Ok(self.outcome(tenant, position)))
    }

    fn outcome(&self, tenant: &str, position: u64) -> DeleteOutcome {
        let concerned = |g: &Generation| g.end().filter(|&end| end <= position && g.tenant(tenant).is_some());
        let pending = self.sealed().iter().filter_map(|g| concerned(g)).max().unwrap_or(0);
        DeleteOutcome { position, pending }
    }

    fn repeated(&self, request: &DeleteRequest) -> Result<DeleteOutcome, ShardError> {
        let tenant = request.tenant.as_str();
        let rows = self.sealed().into_iter().filter_map(|g| g.tenant(tenant));
        let position = rows.into_iter().find_map(|rows| rows.deleted_at(request.id)).ok_or_else(|| {
            ShardError::Unavailable(
                "the deletion was applied before, and where is no longer known: ask for it anew".to_owned(),
            )
        })?;
        Ok(self.outcome(tenant, position))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> DeleteRequest {
        let m = |n: &str, op, v: &str| Matcher::new(n, op, v).unwrap();
        DeleteRequest {
            tenant: TenantId::new("a").unwrap(),
            id: u128::MAX - 5,
            now_ms: 7,
            selectors: vec![
                vec![m("__name__", MatchOp::Equal, "up"), m("a", MatchOp::NotEqual, "")],
                vec![m("b", MatchOp::Regex, "x.*"), m("c", MatchOp::NotRegex, "y")],
            ],
            start: i64::MIN,
            end: i64::MAX,
        }
    }

    #[test]
    fn entries_come_back_and_bad_ones_are_none() {
        let bytes = encode_delete(&request());
        assert_eq!(decode_delete(&bytes), Some(request()));
        for n in 0..bytes.len() {
            assert_eq!(decode_delete(&bytes[..n]), None, "cut at {n}");
        }
        for i in 0..bytes.len() {
            for flip in [1, 0x80, 0xff] {
                let mut bad = bytes.clone();
                bad[i] ^= flip;
                let _ = decode_delete(&bad);
            }
        }
        let with = |change: fn(&mut DeleteRequest)| {
            let mut r = request();
            change(&mut r);
            encode_delete(&r)
        };
        let mut long = bytes.clone();
        long.push(0);
        let mut op = with(|r| r.selectors = vec![vec![Matcher::equal("a", "b")]]);
        let at = op.len() - 5;
        assert_eq!(op[at], 0);
        op[at] = 4;
        let mut regex = with(|r| r.selectors = vec![vec![Matcher::equal("a", "(")]]);
        let at = regex.len() - 5;
        regex[at] = 2;
        let mut utf8 = with(|r| r.selectors = vec![vec![Matcher::equal("a", "b")]]);
        *utf8.last_mut().unwrap() = 0xff;
        let mut many = with(|r| r.selectors = vec![]);
        many.pop();
        many.extend([0xff; 9]);
        many.push(1);
        let cases = [
            ("a byte too many", long),
            ("an unknown comparison", op),
            ("an expression that does not compile", regex),
            ("a value that is not text", utf8),
            ("a count beyond the end", many),
            ("a selector of everything", with(|r| r.selectors = vec![vec![]])),
        ];
        for (what, bad) in cases {
            assert_eq!(decode_delete(&bad), None, "{what}");
        }
    }
}
