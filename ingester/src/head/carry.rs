//! What outlives a generation: recent write ids, running totals, each tenant's newest time.
//!
//! Constraint: everything here is a function of the log. At a seal it is written out and kept with the sealed generation; a
//! checkpoint at that position is these bytes, and replay from it gives the same state.
//!
//! Format (little-endian; `v` varint, `z` zigzag varint):
//! ```text
//! u8 version=3 | u64 epoch of the next generation | u64 position of log index 0
//! z newest clock | v ids { z clock, u128 id }
//! v tenants { v length, id; u8 has newest, z newest; z touched; u128 salt (not in version 1); u64 end (since version 3);
//!             v totals { u128 series, z start, z newest, z touched, u8 has before, f64 before?, f64 total }
//!             v totals { u128 series, z start, z newest, z touched, u8 has before, histogram before?, histogram total } }
//! ```

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use sextant_model::Histogram;

use super::{
    bits::{array, put_varint, put_zigzag, take, varint, zigzag},
    recent::RecentWrites,
    totals::{Total, Totals},
};

const VERSION: u8 = 3;

/// A tenant of whom nothing came for this long is forgotten.
const TENANT_IDLE_MS_MAX: i64 = 24 * 3_600_000;

/// What outlives a generation, of one tenant.
#[derive(Clone, Debug, Default)]
pub(crate) struct TenantCarry {
    /// The newest timestamp of a sample: the out-of-order window ends here.
    pub(crate) t_max: Option<i64>,
    pub(crate) touched_ms: i64,
    /// The id of the last deletion; 0 for none. Writes are remembered by their id and this.
    pub(crate) salt: u128,
    /// Position of the last seal of a generation with rows of the tenant; 0 for none.
    pub(crate) end: u64,
    pub(crate) floats: Totals<f64>,
    pub(crate) histograms: Totals<Histogram>,
}

impl TenantCarry {
    pub(crate) fn saw(&mut self, t: i64) {
        self.t_max = self.t_max.max(Some(t));
    }
}

/// See the module's documentation.
#[derive(Clone, Debug, Default)]
pub(crate) struct Carry {
    pub(crate) recent: RecentWrites,
    pub(crate) tenants: HashMap<Box<str>, TenantCarry, RandomState>,
}

/// Checkpoint bytes that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CarryError {
    /// Written by a newer version.
    #[error("the checkpoint has version {0}, this program reads version {VERSION}")]
    Version(u8),
    /// Cut or damaged.
    #[error("the checkpoint is cut or damaged")]
    Damaged,
}

impl Carry {
    pub(crate) fn tenant(&mut self, id: &str) -> &mut TenantCarry {
        self.tenants.entry(id.into()).or_default()
    }

    /// What a write is remembered by: after a deletion another number, so that the same batch is stored again, except for
    /// one with increments, which would be counted twice.
    pub(crate) fn write_id(&self, tenant: &str, id: u128, has_increments: impl FnOnce() -> bool) -> u128 {
        match self.tenants.get(tenant) {
            Some(t) if t.salt != 0 && !has_increments() => id ^ t.salt,
            _ => id,
        }
    }

    /// Forgets what nobody will ask for; by the batches' clocks, so that every replica forgets alike.
    pub(crate) fn expire(&mut self) {
        let now_ms = self.recent.newest_ms();
        let oldest = now_ms.saturating_sub(TENANT_IDLE_MS_MAX);
        self.tenants.retain(|_, t| {
            t.floats.expire(now_ms);
            t.histograms.expire(now_ms);
            t.touched_ms >= oldest || !t.floats.by_series.is_empty() || !t.histograms.by_series.is_empty()
        });
    }

    /// Bytes of memory, by estimate.
    pub(crate) fn memory(&self) -> usize {
        let totals = |t: &TenantCarry| {
            256 + t.floats.by_series.allocation_size() + t.histograms.by_series.len() * 1024
        };
        self.recent.memory() + self.tenants.values().map(totals).sum::<usize>()
    }

    /// The checkpoint bytes. Equal states give equal bytes.
    pub(crate) fn encode(&self, next_epoch: u64, base: u64) -> Vec<u8> {
        let mut out = vec![VERSION];
        out.extend_from_slice(&next_epoch.to_le_bytes());
        out.extend_from_slice(&base.to_le_bytes());
        put_zigzag(&mut out, self.recent.newest_ms());
        put_varint(&mut out, self.recent.iter().len() as u64);
        for (at, id) in self.recent.iter() {
            put_zigzag(&mut out, at);
            out.extend_from_slice(&id.to_le_bytes());
        }
        let mut tenants: Vec<_> = self.tenants.iter().collect();
        tenants.sort_by_key(|(id, _)| *id);
        put_varint(&mut out, tenants.len() as u64);
        for (id, t) in tenants {
            put_varint(&mut out, id.len() as u64);
            out.extend_from_slice(id.as_bytes());
            out.push(u8::from(t.t_max.is_some()));
            put_zigzag(&mut out, t.t_max.unwrap_or_default());
            put_zigzag(&mut out, t.touched_ms);
            out.extend_from_slice(&t.salt.to_le_bytes());
            out.extend_from_slice(&t.end.to_le_bytes());
            encode_totals(&t.floats, &mut out, |v, out| out.extend_from_slice(&v.to_le_bytes()));
            encode_totals(&t.histograms, &mut out, Histogram::encode);
        }
        out
    }

    /// Reads checkpoint bytes: the state, the epoch that begins with it, the position of log index 0.
    pub(crate) fn decode(bytes: &[u8]) -> Result<(Self, u64, u64), CarryError> {
        let version = match bytes.first() {
            Some(&v @ 1..=VERSION) => v,
            Some(&v) => return Err(CarryError::Version(v)),
            None => return Err(CarryError::Damaged),
        };
        let mut rest = &bytes[1..];
        let decoded = Self::decode_body(version, &mut rest).ok_or(CarryError::Damaged)?;
        if rest.is_empty() { Ok(decoded) } else { Err(CarryError::Damaged) }
    }

    fn decode_body(version: u8, rest: &mut &[u8]) -> Option<(Self, u64, u64)> {
        let epoch = u64::from_le_bytes(array(rest)?);
        let base = u64::from_le_bytes(array(rest)?);
        let mut carry = Self::default();
        let newest_ms = zigzag(rest)?;
        for _ in 0..varint(rest)? {
            let at = zigzag(rest)?;
            carry.recent.insert(u128::from_le_bytes(array(rest)?), at);
        }
        carry.recent.set_newest(newest_ms);
        for _ in 0..varint(rest)? {
            let len = usize::try_from(varint(rest)?).ok()?;
            let id = std::str::from_utf8(take(rest, len)?).ok()?;
            let has_newest = array::<1>(rest)? != [0];
            let t_max = Some(zigzag(rest)?).filter(|_| has_newest);
            let touched_ms = zigzag(rest)?;
            let salt = if version == 1 { 0 } else { u128::from_le_bytes(array(rest)?) };
            let end = if version < 3 { 0 } else { u64::from_le_bytes(array(rest)?) };
            let floats = decode_totals(rest, |rest| array(rest).map(f64::from_le_bytes))?;
            let histograms = decode_totals(rest, |rest| Histogram::decode(rest).ok())?;
            carry.tenants.insert(id.into(), TenantCarry { t_max, touched_ms, salt, end, floats, histograms });
        }
        Some((carry, epoch, base))
    }
}

fn encode_totals<V>(totals: &Totals<V>, out: &mut Vec<u8>, value: impl Fn(&V, &mut Vec<u8>)) {
    let mut sorted: Vec<_> = totals.by_series.iter().collect();
    sorted.sort_by_key(|(id, _)| **id);
    put_varint(out, sorted.len() as u64);
    for (id, x) in sorted {
        out.extend_from_slice(&id.to_le_bytes());
        put_zigzag(out, x.start);
        put_zigzag(out, x.t);
        put_zigzag(out, x.touched_ms);
        out.push(u8::from(x.before.is_some()));
        if let Some(before) = &x.before {
            value(before, out);
        }
        value(&x.total, out);
    }
}

fn decode_totals<V>(rest: &mut &[u8], value: impl Fn(&mut &[u8]) -> Option<V>) -> Option<Totals<V>> {
    let mut totals = Totals { by_series: HashMap::default() };
    for _ in 0..varint(rest)? {
        let id = u128::from_le_bytes(array(rest)?);
        let (start, t, touched_ms) = (zigzag(rest)?, zigzag(rest)?, zigzag(rest)?);
        let before = match array::<1>(rest)? {
            [0] => None,
            _ => Some(value(rest)?),
        };
        let total = value(rest)?;
        totals.by_series.insert(id, Total { start, t, before, total, touched_ms });
    }
    Some(totals)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Carry {
        let mut c = Carry::default();
        c.tenant("a").end = 12;
        for i in 0..100 {
            c.recent.insert(i * 7, i as i64);
        }
        c.tenant("a").saw(-5);
        c.tenant("b").floats.add(9, 10, 1.5, 3, 0);
        c.tenant("b").floats.add(9, 11, 2.5, 3, 0);
        let h = Histogram { count: 3.0, ..Histogram::default() };
        c.tenant("b").histograms.add(8, 10, h, 3, 0);
        c
    }

    #[test]
    fn checkpoints_of_earlier_versions_are_read() {
        let mut c = Carry::default();
        c.tenant("a").saw(-5);
        let now = c.encode(7, 5);
        let mut bytes = now.clone();
        for (version, added) in [(2, 8), (1, 16)] {
            bytes.drain(bytes.len() - 2 - added..bytes.len() - 2);
            bytes[0] = version;
            let (back, epoch, base) = Carry::decode(&bytes).unwrap();
            assert_eq!((epoch, base, back.encode(7, 5)), (7, 5, now.clone()));
        }
        let back = Carry::decode(&bytes).unwrap().0;
        bytes[0] = VERSION + 1;
        assert!(matches!(Carry::decode(&bytes), Err(CarryError::Version(_))));
        assert_eq!(back.write_id("a", 9, || true), 9);
        c.tenant("a").salt = 6;
        assert_eq!((c.write_id("a", 9, || true), c.write_id("a", 9, || false)), (9, 15));
    }

    #[test]
    fn the_state_comes_back_and_every_cut_is_an_error() {
        let bytes = example().encode(7, 5);
        let (back, epoch, base) = Carry::decode(&bytes).unwrap();
        assert_eq!((epoch, base, back.encode(7, 5)), (7, 5, bytes.clone()));
        assert!(back.recent.contains(7));
        for n in 0..bytes.len() {
            assert!(Carry::decode(&bytes[..n]).is_err(), "cut at {n}");
        }
        for i in 0..bytes.len() {
            let mut b = bytes.clone();
            b[i] ^= 0x81;
            let _ = Carry::decode(&b);
        }
    }
}
