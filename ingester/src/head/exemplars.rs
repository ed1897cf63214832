//! Exemplars of one series: the newest [`EXEMPLARS_MAX`] by time, equal ones once.

use sextant_model::{Exemplar, Labels};

/// Kept per series and generation; beyond it the oldest goes. A scrape brings one, so this is half an hour at 15 s.
pub(crate) const EXEMPLARS_MAX: usize = 128;

struct Stored {
    t: i64,
    bits: u64,
    labels: Box<[u8]>,
}

/// See the module's documentation.
#[derive(Default)]
pub(crate) struct Exemplars {
    /// In order of time; of equal times, in order of arrival.
    stored: Vec<Stored>,
}

impl Exemplars {
    /// Adds an exemplar with canonical label bytes. `memory` follows what they take.
    pub(crate) fn push(&mut self, t: i64, v: f64, labels: &[u8], memory: &mut usize) {
        let i = self.stored.partition_point(|e| e.t <= t);
        let equal = |e: &&Stored| e.bits == v.to_bits() && *e.labels == *labels;
        if self.stored[..i].iter().rev().take_while(|e| e.t == t).any(|e| equal(&e)) {
            return;
        }
        let full = self.stored.len() == EXEMPLARS_MAX;
        if full && i == 0 {
            return;
        }
        let capacity = self.stored.capacity();
        self.stored.insert(i, Stored { t, bits: v.to_bits(), labels: labels.into() });
        *memory += labels.len() + 16 + (self.stored.capacity() - capacity) * size_of::<Stored>();
        if full {
            *memory -= self.stored.remove(0).labels.len() + 16;
        }
    }

    /// The exemplars within a range, in order of time.
    pub(crate) fn read(&self, range: (i64, i64)) -> Vec<Exemplar> {
        let inside = self.stored.iter().filter(|e| range.0 <= e.t && e.t <= range.1);
        inside
            .map(|e| Exemplar {
                t: e.t,
                v: f64::from_bits(e.bits),
                labels: Labels::from_trusted_bytes(&e.labels),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_kept_once() {
        let (mut e, mut memory) = (Exemplars::default(), 0);
        for t in (0..200).rev().chain(0..200) {
            e.push(t, 0.5, b"\x01a\x01b", &mut memory);
        }
        let times: Vec<i64> = e.read((i64::MIN, 197)).iter().map(|e| e.t).collect();
        assert_eq!(times, (72..=197).collect::<Vec<_>>());
    }
}
