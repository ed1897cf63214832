//! Counter-reset hints of native histograms as Prometheus' store gives them to its engine.
//!
//! What was sent is stored; a hint depends on what comes before a sample, so it is worked out when series are read: after a sample
//! without a reset the next is `NoReset`, and where a reset or another layout begins nothing is said. The sample before a
//! selection is known to the head or block that holds it, which sets the first sample's hint.

use sextant_model::{HistogramSample, SeriesSet};

/// Sets the hints of every series, but for their first samples.
pub fn set_reset_hints(set: &mut SeriesSet) {
    for i in 0..set.h_offsets.len().saturating_sub(1) {
        let rows = set.h_offsets[i] as usize..set.h_offsets[i + 1] as usize;
        set_hints(&mut set.h[rows]);
    }
}

fn set_hints(samples: &mut [HistogramSample]) {
    for i in 1..samples.len() {
        let (before, rest) = samples.split_at_mut(i);
        let h = &mut rest[0].h;
        if !h.is_stale() {
            h.reset_hint = h.hint_after(before.last().map(|p| &p.h));
        }
    }
}

#[cfg(test)]
mod tests {
    use sextant_model::{Histogram, Labels, ResetHint, SeriesBuf};

    use super::*;

    #[test]
    fn a_hint_follows_from_the_sample_before() {
        let of = |count: f64, reset_hint| Histogram {
            count,
            zero_count: count,
            reset_hint,
            ..Histogram::default()
        };
        let counts = [
            (1.0, ResetHint::Unknown),
            (2.0, ResetHint::Unknown),
            (1.0, ResetHint::NoReset),
            (5.0, ResetHint::Gauge),
        ];
        let h = counts.iter().enumerate().map(|(i, (c, r))| HistogramSample {
            t: i as i64,
            start: 0,
            h: of(*c, *r),
        });
        let mut set = SeriesSet::new();
        set.push(Labels::empty(), &SeriesBuf { h: h.collect(), ..SeriesBuf::default() });
        set_reset_hints(&mut set);
        let hints: Vec<_> = set.h.iter().map(|h| h.h.reset_hint).collect();
        assert_eq!(hints, [ResetHint::Unknown, ResetHint::NoReset, ResetHint::Unknown, ResetHint::Gauge]);
    }
}
