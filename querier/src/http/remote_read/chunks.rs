//! Samples as Prometheus' chunks: XOR for floats, histogram and float histogram for native histograms.
//!
//! A chunk of histograms has one layout (schema, zero bucket, spans, custom bounds) and, unless they are gauges, no counter reset
//! after its first: either ends it.

use sextant_model::{Histogram, HistogramSample, ResetHint, SeriesSet, Span, counts_to_deltas};
use sextant_proto::remote_read::{Chunk, ChunkEncoding};

use super::bits::{Bits, XorFloat};

/// Samples of a chunk, at most: what Prometheus' own have.
const SAMPLES_MAX: usize = 120;

/// The third byte of a histogram chunk.
const RESET: u8 = 0b1000_0000;
const GAUGE: u8 = 0b1100_0000;

/// The chunks of a series of a set, in order of time.
pub fn chunks(set: &SeriesSet, series: usize) -> Vec<Chunk> {
    let (mut t, mut v) = set.floats(series);
    let mut histograms = set.histograms(series);
    let mut out = Vec::new();
    while !t.is_empty() || !histograms.is_empty() {
        let until = histograms.first().map_or(i64::MAX, |h| h.t);
        let run = t.partition_point(|&at| at < until).min(SAMPLES_MAX);
        if run > 0 {
            out.push(xor_chunk(&t[..run], &v[..run]));
            (t, v) = (&t[run..], &v[run..]);
            continue;
        }
        let until = t.first().copied().unwrap_or(i64::MAX);
        let run = histograms.partition_point(|h| h.t < until).min(SAMPLES_MAX);
        let (chunk, taken) = histogram_chunk(&histograms[..run.max(1)]);
        out.push(chunk);
        histograms = &histograms[taken..];
    }
    out
}

fn finish(kind: ChunkEncoding, count: usize, times: (i64, i64), bits: Bits) -> Chunk {
    let mut data = bits.into_bytes();
    data[..2].copy_from_slice(&(count as u16).to_be_bytes());
    Chunk { min_time_ms: times.0, max_time_ms: times.1, r#type: kind as i32, data }
}

/// Timestamps as differences of differences, values as differences in bits. At least one sample.
fn xor_chunk(t: &[i64], v: &[f64]) -> Chunk {
    let mut out = Bits::after(&[0, 0]);
    out.put_varint(t[0]);
    let mut value = XorFloat::first(&mut out, v[0]);
    let mut delta = 0;
    for i in 1..t.len() {
        let next = t[i].wrapping_sub(t[i - 1]);
        match i {
            1 => out.put_uvarint(next as u64),
            _ => out.put_dod(next.wrapping_sub(delta)),
        }
        delta = next;
        value.next(&mut out, v[i]);
    }
    finish(ChunkEncoding::Xor, t.len(), (t[0], t[t.len() - 1]), out)
}

/// A stale histogram is only its sum.
fn bare(h: &Histogram) -> Histogram {
    match h.is_stale() {
        true => Histogram { sum: h.sum, integer: h.integer, ..Histogram::default() },
        false => h.clone(),
    }
}

fn same_layout(a: &Histogram, b: &Histogram) -> bool {
    a.schema == b.schema
        && a.integer == b.integer
        && a.zero_threshold.to_bits() == b.zero_threshold.to_bits()
        && a.positive_spans == b.positive_spans
        && a.negative_spans == b.negative_spans
        && a.custom_values == b.custom_values
}

fn is_gauge(h: &Histogram) -> bool {
    h.reset_hint == ResetHint::Gauge
}

/// Whether `b` may follow `a` in a chunk.
fn goes_on(a: &Histogram, b: &Histogram) -> bool {
    if a.is_stale() || b.is_stale() || is_gauge(a) != is_gauge(b) || !same_layout(a, b) {
        return false;
    }
    match b.reset_hint {
        ResetHint::Gauge | ResetHint::NoReset => true,
        ResetHint::Reset => false,
        ResetHint::Unknown => !b.detect_reset(a),
    }
}

/// The first histograms as a chunk, and how many it took. At least one is given.
fn histogram_chunk(all: &[HistogramSample]) -> (Chunk, usize) {
    let taken = 1 + all.windows(2).take_while(|pair| goes_on(&pair[0].h, &pair[1].h)).count();
    let run = &all[..taken];
    let first = bare(&run[0].h);
    let flag = match run[0].h.reset_hint {
        ResetHint::Gauge => GAUGE,
        ResetHint::Reset => RESET,
        ResetHint::Unknown | ResetHint::NoReset => 0,
    };
    let mut out = Bits::after(&[0, 0, flag]);
    put_layout(&mut out, &first);
    let times = (run[0].t, run[taken - 1].t);
    let integers: Option<Vec<Integers>> =
        first.integer.then(|| run.iter().map(|s| Integers::of(&bare(&s.h))).collect()).flatten();
    let kind = match &integers {
        Some(integers) => {
            put_integers(&mut out, run, integers);
            ChunkEncoding::Histogram
        }
        None => {
            put_floats(&mut out, run);
            ChunkEncoding::FloatHistogram
        }
    };
    (finish(kind, taken, times, out), taken)
}

/// An integer histogram: count, zero count, then the buckets of both sides as differences from the one before.
struct Integers(Vec<i64>);

impl Integers {
    /// `None` where a number is not whole.
    fn of(h: &Histogram) -> Option<Self> {
        let totals = counts_to_deltas(&[h.count])?.into_iter().chain(counts_to_deltas(&[h.zero_count])?);
        let buckets = h.positive_deltas()?.into_iter().chain(h.negative_deltas()?);
        Some(Self(totals.chain(buckets).collect()))
    }
}

fn put_integers(out: &mut Bits, run: &[HistogramSample], all: &[Integers]) {
    let first = &all[0].0;
    out.put_varbit(run[0].t);
    out.put_uvarbit(first[0] as u64);
    out.put_uvarbit(first[1] as u64);
    let mut sum = XorFloat::first(out, run[0].h.sum);
    for &bucket in &first[2..] {
        out.put_varbit(bucket);
    }
    let mut time_delta = 0;
    let mut deltas = vec![0_i64; first.len()];
    for i in 1..run.len() {
        let next = run[i].t.wrapping_sub(run[i - 1].t);
        out.put_varbit(next.wrapping_sub(time_delta));
        time_delta = next;
        for (k, delta) in deltas.iter_mut().enumerate() {
            let next = all[i].0[k].wrapping_sub(all[i - 1].0[k]);
            out.put_varbit(next.wrapping_sub(*delta));
            *delta = next;
            if k == 1 {
                sum.next(out, run[i].h.sum);
            }
        }
    }
}

fn floats(h: &Histogram) -> impl Iterator<Item = f64> + '_ {
    let totals = [h.count, h.zero_count, h.sum].into_iter();
    totals.chain(h.positive_buckets.iter().copied()).chain(h.negative_buckets.iter().copied())
}

fn put_floats(out: &mut Bits, run: &[HistogramSample]) {
    out.put_varbit(run[0].t);
    let mut values: Vec<XorFloat> = floats(&bare(&run[0].h)).map(|v| XorFloat::first(out, v)).collect();
    let mut delta = 0;
    for pair in run.windows(2) {
        let next = pair[1].t.wrapping_sub(pair[0].t);
        out.put_varbit(next.wrapping_sub(delta));
        delta = next;
        for (value, v) in values.iter_mut().zip(floats(&pair[1].h)) {
            value.next(out, v);
        }
    }
}

fn put_layout(out: &mut Bits, h: &Histogram) {
    put_zero_threshold(out, h.zero_threshold);
    out.put_varbit(i64::from(h.schema));
    for spans in [&h.positive_spans, &h.negative_spans] {
        out.put_uvarbit(spans.len() as u64);
        for &Span { offset, length } in spans {
            out.put_uvarbit(u64::from(length));
            out.put_varbit(i64::from(offset));
        }
    }
    if h.uses_custom_buckets() {
        out.put_uvarbit(h.custom_values.len() as u64);
        for &bound in &h.custom_values {
            put_custom_bound(out, bound);
        }
    }
}

/// One byte for zero and for powers of two from 2^-243 to 2^10, else nine.
fn put_zero_threshold(out: &mut Bits, threshold: f64) {
    if threshold == 0.0 {
        return out.put(0, 8);
    }
    let bits = threshold.to_bits();
    let exponent = i64::from((bits >> 52) as u32) - 1023;
    if bits << 12 == 0 && (-243..=10).contains(&exponent) {
        return out.put((exponent + 244) as u64, 8);
    }
    out.put(255, 8);
    out.put(bits, 64);
}

/// A bound of at most three decimals as a number of thousandths, else as it is.
fn put_custom_bound(out: &mut Bits, bound: f64) {
    /// The largest number of thousandths that is written as a number.
    const THOUSANDTHS_MAX: f64 = 33_554_430.0;
    let thousandths = (bound * 1000.0).round();
    if (0.0..=THOUSANDTHS_MAX).contains(&(bound * 1000.0)) && thousandths / 1000.0 == bound {
        return out.put_uvarbit(thousandths as u64 + 1);
    }
    out.put(0, 1);
    out.put(bound.to_bits(), 64);
}

#[cfg(test)]
mod tests {
    use sextant_model::{Labels, SeriesBuf};

    use super::*;

    fn set(buf: &SeriesBuf) -> SeriesSet {
        let mut set = SeriesSet::new();
        set.push(Labels::empty(), buf);
        set
    }

    #[test]
    fn floats_are_cut_into_chunks() {
        let buf = SeriesBuf {
            t: (0..300).map(|i| i * 15_000).collect(),
            v: (0..300).map(f64::from).collect(),
            ..SeriesBuf::default()
        };
        let all = chunks(&set(&buf), 0);
        assert_eq!(all.len(), 3);
        assert_eq!(
            (all[0].min_time_ms, all[0].max_time_ms, all[2].max_time_ms),
            (0, 119 * 15_000, 299 * 15_000)
        );
        assert!(all.iter().all(|c| c.r#type == ChunkEncoding::Xor as i32 && c.data.len() < 400));
        assert_eq!(all[0].data[..2], [0, 120]);
        // A chunk of one sample: count, time in zigzag, the float.
        let one = SeriesBuf { t: vec![1], v: vec![1.0], ..SeriesBuf::default() };
        assert_eq!(chunks(&set(&one), 0)[0].data, [0, 1, 2, 0x3f, 0xf0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn histograms_end_a_chunk_at_a_new_layout_a_reset_and_a_float() {
        let h = |t: i64, count: f64, spans: u32, hint| HistogramSample {
            t,
            start: 0,
            h: Histogram {
                integer: true,
                count,
                sum: count,
                reset_hint: hint,
                positive_spans: vec![Span { offset: 0, length: spans }],
                positive_buckets: (0..spans).map(|i| if i == 0 { count } else { 0.0 }).collect(),
                ..Histogram::default()
            },
        };
        let mut buf = SeriesBuf {
            t: vec![45],
            v: vec![1.0],
            h: vec![
                h(10, 1.0, 1, ResetHint::Unknown),
                h(20, 2.0, 1, ResetHint::NoReset),
                h(30, 3.0, 2, ResetHint::NoReset),
                h(40, 1.0, 2, ResetHint::Unknown),
                h(50, 2.0, 2, ResetHint::NoReset),
                h(60, 2.0, 2, ResetHint::Gauge),
                h(70, 1.5, 2, ResetHint::Gauge),
            ],
            ..SeriesBuf::default()
        };
        buf.h.push(HistogramSample {
            t: 80,
            start: 0,
            h: Histogram { sum: sextant_model::stale_nan(), ..Histogram::default() },
        });
        let all = chunks(&set(&buf), 0);
        let times: Vec<_> = all.iter().map(|c| (c.min_time_ms, c.max_time_ms)).collect();
        assert_eq!(times, [(10, 20), (30, 30), (40, 40), (45, 45), (50, 50), (60, 70), (80, 80)]);
        let kinds: Vec<_> = all.iter().map(|c| c.r#type).collect();
        assert_eq!(kinds, [2, 2, 2, 1, 2, 3, 3]);
        assert_eq!((all[5].data[2], all[0].data[2]), (GAUGE, 0));
    }
}
