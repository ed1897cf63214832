//! The form in which rows reach an ingester and its log: decoded once by the distributor, applied as it is.
//!
//! Constraints: one batch is one tenant's part of one request for one shard. Series that the shard already knows in the
//! current epoch are named by a 32-bit ref; refs follow arrival, so a scrape is a few *runs* (first ref, count,
//! timestamp). New series bring their canonical label bytes and are named `NEW_SERIES_BASE + index` inside the batch.
//!
//! Format (little-endian; `v` is a LEB128 varint, `z` a zigzag varint):
//! ```text
//! u8 version=1 | v tenant length, tenant | u128 write id | u64 epoch | v max series | z out-of-order window ms | z now ms
//! v new series    { u8 flags, v length, label bytes }
//! v runs          { z first ref − (previous first ref + previous count), v count, z timestamp − previous timestamp }
//! v values        { f64 }                                             (as many as the runs count)
//! v start runs    { v first value, v count, z start − previous start }   values whose start timestamp is known, in order
//! v histograms    { v ref, z timestamp, z start, v length, encoded histogram }
//! v exemplars     { v ref, z timestamp, f64 value, v length, label bytes }
//! v metadata      { v length, family name; u8 type; v length, help; v length, unit }
//! ```
//! Recovery: the log's checksum covers a batch; a batch that does not parse is refused whole.

use bytes::Bytes;
use sextant_model::{MetricMetadata, MetricType};

/// Refs from here on name the batch's own new series.
pub const NEW_SERIES_BASE: u32 = 0x8000_0000;

/// Flag of a new series whose samples are increments.
pub const SERIES_DELTA: u8 = 1;

const VERSION: u8 = 1;

/// What applies to a whole batch. Everything that decides what `apply` does is in here or in the state, so that every
/// replica decides alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchHeader<'a> {
    /// Tenant id.
    pub tenant: &'a str,
    /// Identifies tenant and content; a batch with an id applied before is skipped.
    pub write_id: u128,
    /// The epoch of the refs; not looked at where the batch names only new series.
    pub epoch: u64,
    /// The tenant's limit of active series in this shard; 0 is no limit.
    pub max_series: u64,
    /// The tenant's out-of-order window in milliseconds; negative is no limit.
    pub ooo_window_ms: i64,
    /// When the distributor took the request, milliseconds.
    pub now_ms: i64,
}

/// Builds a batch; its buffers are reused after [`WriteBatchBuilder::finish`].
#[derive(Default, Debug)]
pub struct WriteBatchBuilder {
    new_series: Vec<u8>,
    new_series_count: u32,
    runs: Vec<Run>,
    values: Vec<f64>,
    starts: Vec<(u32, u32, i64)>,
    histograms: Vec<u8>,
    histogram_count: u32,
    exemplars: Vec<u8>,
    exemplar_count: u32,
    metadata: Vec<u8>,
    metadata_count: u32,
    uses_refs: bool,
}

/// Samples of consecutive refs at one timestamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The first series.
    pub first: u32,
    /// How many series, in order of ref, one value each.
    pub count: u32,
    /// Milliseconds.
    pub t: i64,
}

impl WriteBatchBuilder {
    /// Adds a series by its canonical label bytes; returns its ref within this batch.
    pub fn new_series(&mut self, labels: &[u8], flags: u8) -> u32 {
        self.new_series.push(flags);
        put_bytes(&mut self.new_series, labels);
        self.new_series_count += 1;
        NEW_SERIES_BASE + self.new_series_count - 1
    }

    /// Adds a float sample. `start` 0 is unknown.
    #[inline]
    pub fn sample(&mut self, series: u32, t: i64, v: f64, start: i64) {
        self.uses_refs |= series < NEW_SERIES_BASE;
        match self.runs.last_mut() {
            Some(r) if r.t == t && r.first + r.count == series => r.count += 1,
            _ => self.runs.push(Run { first: series, count: 1, t }),
        }
        if start != 0 {
            let at = self.values.len() as u32;
            match self.starts.last_mut() {
                Some((first, count, s)) if *s == start && *first + *count == at => *count += 1,
                _ => self.starts.push((at, 1, start)),
            }
        }
        self.values.push(v);
    }

    /// Adds a native histogram in the model's encoding.
    pub fn histogram(&mut self, series: u32, t: i64, start: i64, encoded: &[u8]) {
        self.uses_refs |= series < NEW_SERIES_BASE;
        put_varint(&mut self.histograms, u64::from(series));
        put_zigzag(&mut self.histograms, t);
        put_zigzag(&mut self.histograms, start);
        put_bytes(&mut self.histograms, encoded);
        self.histogram_count += 1;
    }

    /// Adds an exemplar with its own canonical label bytes.
    pub fn exemplar(&mut self, series: u32, t: i64, v: f64, labels: &[u8]) {
        self.uses_refs |= series < NEW_SERIES_BASE;
        put_varint(&mut self.exemplars, u64::from(series));
        put_zigzag(&mut self.exemplars, t);
        self.exemplars.extend_from_slice(&v.to_le_bytes());
        put_bytes(&mut self.exemplars, labels);
        self.exemplar_count += 1;
    }

    /// Adds metadata of a metric family.
    pub fn metadata(&mut self, family: &str, m: &MetricMetadata) {
        put_bytes(&mut self.metadata, family.as_bytes());
        self.metadata.push(m.metric_type as u8);
        put_bytes(&mut self.metadata, m.help.as_bytes());
        put_bytes(&mut self.metadata, m.unit.as_bytes());
        self.metadata_count += 1;
    }

    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
            && self.histogram_count == 0
            && self.exemplar_count == 0
            && self.metadata_count == 0
            && self.new_series_count == 0
    }

    /// How many float samples were added.
    pub fn sample_count(&self) -> usize {
        self.values.len()
    }

    /// Whether the batch names series by refs of an epoch.
    pub fn uses_refs(&self) -> bool {
        self.uses_refs
    }

    /// Empties the builder and keeps its memory.
    pub fn clear(&mut self) {
        self.new_series.clear();
        self.runs.clear();
        self.values.clear();
        self.starts.clear();
        self.histograms.clear();
        self.exemplars.clear();
        self.metadata.clear();
        self.new_series_count = 0;
        self.histogram_count = 0;
        self.exemplar_count = 0;
        self.metadata_count = 0;
        self.uses_refs = false;
    }

    /// The batch's bytes; the builder is empty afterwards.
    pub fn finish(&mut self, header: &BatchHeader<'_>) -> Bytes {
        let size = 80
            + header.tenant.len()
            + self.new_series.len()
            + self.runs.len() * 8
            + self.values.len() * 8
            + self.starts.len() * 12
            + self.histograms.len()
            + self.exemplars.len()
            + self.metadata.len();
        let mut out = Vec::with_capacity(size);
        out.push(VERSION);
        put_bytes(&mut out, header.tenant.as_bytes());
        out.extend_from_slice(&header.write_id.to_le_bytes());
        out.extend_from_slice(&header.epoch.to_le_bytes());
        put_varint(&mut out, header.max_series);
        put_zigzag(&mut out, header.ooo_window_ms);
        put_zigzag(&mut out, header.now_ms);
        put_varint(&mut out, u64::from(self.new_series_count));
        out.extend_from_slice(&self.new_series);
        put_varint(&mut out, self.runs.len() as u64);
        let (mut next, mut t) = (0i64, 0i64);
        for r in &self.runs {
            put_zigzag(&mut out, i64::from(r.first) - next);
            put_varint(&mut out, u64::from(r.count));
            put_zigzag(&mut out, r.t.wrapping_sub(t));
            (next, t) = (i64::from(r.first) + i64::from(r.count), r.t);
        }
        put_varint(&mut out, self.values.len() as u64);
        for v in &self.values {
            out.extend_from_slice(&v.to_le_bytes());
        }
        put_varint(&mut out, self.starts.len() as u64);
        let mut previous = 0;
        for &(first, count, start) in &self.starts {
            put_varint(&mut out, u64::from(first));
            put_varint(&mut out, u64::from(count));
            put_zigzag(&mut out, start.wrapping_sub(previous));
            previous = start;
        }
        put_varint(&mut out, u64::from(self.histogram_count));
        out.extend_from_slice(&self.histograms);
        put_varint(&mut out, u64::from(self.exemplar_count));
        out.extend_from_slice(&self.exemplars);
        put_varint(&mut out, u64::from(self.metadata_count));
        out.extend_from_slice(&self.metadata);
        self.clear();
        out.into()
    }
}

/// Why bytes are not a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct MalformedBatch(pub &'static str);

/// A series a batch brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewSeriesView<'a> {
    /// [`SERIES_DELTA`] or 0.
    pub flags: u8,
    /// Canonical label bytes, as the distributor made them.
    pub labels: &'a [u8],
}

/// A histogram of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistogramView<'a> {
    /// The series.
    pub series: u32,
    /// Milliseconds.
    pub t: i64,
    /// Start timestamp, 0 where unknown.
    pub start: i64,
    /// The model's encoding.
    pub encoded: &'a [u8],
}

/// An exemplar of a batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ExemplarView<'a> {
    /// The series.
    pub series: u32,
    /// Milliseconds.
    pub t: i64,
    /// The value.
    pub v: f64,
    /// Canonical label bytes.
    pub labels: &'a [u8],
}

/// A parsed batch. Small sections are materialised; values and label bytes point into the input.
#[derive(Clone, Debug)]
pub struct WriteBatchView<'a> {
    /// The header.
    pub header: BatchHeader<'a>,
    /// New series in order.
    pub new_series: Vec<NewSeriesView<'a>>,
    /// Runs in order.
    pub runs: Vec<Run>,
    /// Little-endian doubles, 8 bytes each.
    values: &'a [u8],
    /// (first value, count, start timestamp).
    pub starts: Vec<(u32, u32, i64)>,
    /// Histograms.
    pub histograms: Vec<HistogramView<'a>>,
    /// Exemplars.
    pub exemplars: Vec<ExemplarView<'a>>,
    /// Metadata by family name.
    pub metadata: Vec<(&'a str, MetricMetadata)>,
}

impl<'a> WriteBatchView<'a> {
    /// Parses a batch; every length is checked against the input before memory is taken for it.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, MalformedBatch> {
        let mut r = Reader(bytes);
        if r.u8()? != VERSION {
            return Err(MalformedBatch("unknown batch version"));
        }
        let tenant = r.text()?;
        let write_id = u128::from_le_bytes(r.array()?);
        let epoch = u64::from_le_bytes(r.array()?);
        let header = BatchHeader {
            tenant,
            write_id,
            epoch,
            max_series: r.varint()?,
            ooo_window_ms: r.zigzag()?,
            now_ms: r.zigzag()?,
        };
        let n = r.count(2)?;
        let mut new_series = Vec::with_capacity(n);
        for _ in 0..n {
            new_series.push(NewSeriesView { flags: r.u8()?, labels: r.bytes()? });
        }
        let n = r.count(3)?;
        let mut runs = Vec::with_capacity(n);
        let (mut next, mut t, mut total) = (0i64, 0i64, 0u64);
        for _ in 0..n {
            let first = next.wrapping_add(r.zigzag()?);
            let count = r.varint()?;
            t = t.wrapping_add(r.zigzag()?);
            let first = u32::try_from(first).map_err(|_| MalformedBatch("ref out of range"))?;
            let count = u32::try_from(count).map_err(|_| MalformedBatch("run too long"))?;
            let end = first.checked_add(count).ok_or(MalformedBatch("run too long"))?;
            let limit = if first >= NEW_SERIES_BASE {
                NEW_SERIES_BASE + new_series.len() as u32
            } else {
                NEW_SERIES_BASE
            };
            if end > limit || count == 0 {
                return Err(MalformedBatch("run names series that are not in the batch"));
            }
            total += u64::from(count);
            runs.push(Run { first, count, t });
            next = i64::from(end);
        }
        let n = r.count(8)?;
        if n as u64 != total {
            return Err(MalformedBatch("number of values is not that of the runs"));
        }
        let values = r.take(n * 8)?;
        let n = r.count(3)?;
        let mut starts = Vec::with_capacity(n);
        let (mut start, mut next) = (0i64, 0u64);
        for _ in 0..n {
            let first = r.varint()?;
            let count = r.varint()?;
            start = start.wrapping_add(r.zigzag()?);
            if first < next {
                return Err(MalformedBatch("start timestamps out of order"));
            }
            next = first.saturating_add(count);
            if next > total {
                return Err(MalformedBatch("start timestamps of values that are not there"));
            }
            starts.push((first as u32, count as u32, start));
        }
        let known = |series: u64, new: usize| -> Result<u32, MalformedBatch> {
            match u32::try_from(series) {
                Ok(s) if s < NEW_SERIES_BASE || ((s - NEW_SERIES_BASE) as usize) < new => Ok(s),
                _ => Err(MalformedBatch("ref out of range")),
            }
        };
        let n = r.count(4)?;
        let mut histograms = Vec::with_capacity(n);
        for _ in 0..n {
            let series = known(r.varint()?, new_series.len())?;
            histograms.push(HistogramView {
                series,
                t: r.zigzag()?,
                start: r.zigzag()?,
                encoded: r.bytes()?,
            });
        }
        let n = r.count(11)?;
        let mut exemplars = Vec::with_capacity(n);
        for _ in 0..n {
            let series = known(r.varint()?, new_series.len())?;
            let t = r.zigzag()?;
            let v = f64::from_le_bytes(r.array()?);
            exemplars.push(ExemplarView { series, t, v, labels: r.bytes()? });
        }
        let n = r.count(4)?;
        let mut metadata = Vec::with_capacity(n);
        for _ in 0..n {
            let family = r.text()?;
            let metric_type = MetricType::from_number(i64::from(r.u8()?));
            metadata.push((
                family,
                MetricMetadata { metric_type, help: r.text()?.to_owned(), unit: r.text()?.to_owned() },
            ));
        }
        if !r.0.is_empty() {
            return Err(MalformedBatch("bytes after the end"));
        }
        Ok(Self { header, new_series, runs, values, starts, histograms, exemplars, metadata })
    }

    /// How many float values the batch has.
    pub fn value_count(&self) -> usize {
        self.values.len() / 8
    }

    /// The values in order of the runs.
    pub fn values(&self) -> impl Iterator<Item = f64> + '_ {
        self.values
            .chunks_exact(8)
            .map(|c| f64::from_le_bytes([c[0], c[1], c[2], c[3], c[4], c[5], c[6], c[7]]))
    }
}

/// Appends a LEB128 varint.
pub(crate) fn put_varint(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

/// Appends a zigzag varint.
pub(crate) fn put_zigzag(out: &mut Vec<u8>, n: i64) {
    put_varint(out, ((n << 1) ^ (n >> 63)) as u64);
}

/// Appends a length and the bytes.
pub(crate) fn put_bytes(out: &mut Vec<u8>, b: &[u8]) {
    put_varint(out, b.len() as u64);
    out.extend_from_slice(b);
}

/// Reads what the functions above write.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn take(&mut self, n: usize) -> Result<&'a [u8], MalformedBatch> {
        let (head, tail) = self.0.split_at_checked(n).ok_or(MalformedBatch("cut short"))?;
        self.0 = tail;
        Ok(head)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, MalformedBatch> {
        Ok(self.take(1)?[0])
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], MalformedBatch> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    pub(crate) fn varint(&mut self) -> Result<u64, MalformedBatch> {
        let mut n = 0u64;
        for shift in (0..70).step_by(7) {
            let b = self.u8()?;
            if shift == 63 && b > 1 {
                break;
            }
            n |= u64::from(b & 0x7f) << shift;
            if b < 0x80 {
                return Ok(n);
            }
        }
        Err(MalformedBatch("varint too long"))
    }

    pub(crate) fn zigzag(&mut self) -> Result<i64, MalformedBatch> {
        let n = self.varint()?;
        Ok((n >> 1) as i64 ^ -((n & 1) as i64))
    }

    /// A number of items of at least `min_size` bytes each, which the rest of the input can hold.
    pub(crate) fn count(&mut self, min_size: usize) -> Result<usize, MalformedBatch> {
        let n = self.varint()?;
        if n > (self.0.len() / min_size) as u64 {
            return Err(MalformedBatch("count larger than the input"));
        }
        Ok(n as usize)
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], MalformedBatch> {
        let n = self.varint()?;
        let n = usize::try_from(n).map_err(|_| MalformedBatch("cut short"))?;
        self.take(n)
    }

    pub(crate) fn text(&mut self) -> Result<&'a str, MalformedBatch> {
        std::str::from_utf8(self.bytes()?).map_err(|_| MalformedBatch("text is not UTF-8"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample_batch() -> Bytes {
        let mut b = WriteBatchBuilder::default();
        let n0 = b.new_series(b"\x01a\x01b", 0);
        let n1 = b.new_series(b"\x01a\x01c", SERIES_DELTA);
        b.sample(7, 1000, 1.5, 0);
        b.sample(8, 1000, -0.0, 500);
        b.sample(9, 1000, 2.0, 500);
        b.sample(n0, 1001, 3.0, 0);
        b.sample(n1, 1001, 4.0, 0);
        b.sample(3, -5, f64::NAN, 0);
        b.histogram(n0, 10, 0, b"hist");
        b.exemplar(9, 11, 0.25, b"\x01t\x01x");
        b.metadata(
            "a",
            &MetricMetadata { metric_type: MetricType::Counter, help: "h".into(), unit: "s".into() },
        );
        b.finish(&BatchHeader {
            tenant: "t",
            write_id: 42,
            epoch: 3,
            max_series: 10,
            ooo_window_ms: -1,
            now_ms: 99,
        })
    }

    #[test]
    fn a_batch_comes_back() {
        let bytes = sample_batch();
        let v = WriteBatchView::parse(&bytes).unwrap();
        assert_eq!(
            v.header,
            BatchHeader {
                tenant: "t",
                write_id: 42,
                epoch: 3,
                max_series: 10,
                ooo_window_ms: -1,
                now_ms: 99
            }
        );
        assert_eq!(v.runs.len(), 3);
        assert_eq!(v.runs[0], Run { first: 7, count: 3, t: 1000 });
        assert_eq!(v.runs[1], Run { first: NEW_SERIES_BASE, count: 2, t: 1001 });
        assert_eq!(v.values().nth(1).unwrap().to_bits(), (-0.0f64).to_bits());
        assert_eq!(v.starts, vec![(1, 2, 500)]);
        assert_eq!(v.histograms[0].encoded, b"hist");
        assert_eq!(v.exemplars[0].v, 0.25);
        assert_eq!(v.metadata[0].1.metric_type, MetricType::Counter);
    }

    /// A batch of tenant `t` whose sections have these bytes; those left out are empty.
    fn sections(given: &[&[u8]]) -> Vec<u8> {
        let mut out = vec![VERSION, 1, b't'];
        out.extend([0; 16 + 8 + 3]);
        (0..7).for_each(|i| out.extend(*given.get(i).unwrap_or(&&[0][..])));
        out
    }

    #[test]
    fn bad_batches_say_what_is_wrong() {
        assert!(WriteBatchView::parse(&sections(&[])).is_ok());
        let mut trailing = sections(&[]);
        trailing.push(0);
        let with = |at: usize, byte: u8| {
            let mut out = sections(&[]);
            out[at] = byte;
            out
        };
        let long = [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 2];
        let (one, new): (&[u8], &[u8]) = (&[1, 0, 1, b'x'], &[0]);
        let run = |first: u8, count: u8| vec![1, first << 1, count, 0];
        let value: &[u8] = &[1, 0, 0, 0, 0, 0, 0, 0, 0];
        let new_ref = [0x80, 0x80, 0x80, 0x80, 0x10];
        let table: Vec<(Vec<u8>, &str)> = vec![
            (vec![], "cut short"),
            (vec![0], "unknown batch version"),
            (vec![2, 0], "unknown batch version"),
            (with(2, 0xff), "text is not UTF-8"),
            (with(1, 200), "cut short"),
            (trailing, "bytes after the end"),
            (sections(&[&long]), "varint too long"),
            (sections(&[&[100, 0]]), "count larger than the input"),
            (sections(&[&[1, 0, 99]]), "cut short"),
            (sections(&[new, &[100]]), "count larger than the input"),
            (sections(&[new, &[1, 1, 1, 0]]), "ref out of range"),
            (sections(&[new, &run(5, 0)]), "run names series that are not in the batch"),
            (
                sections(&[new, &[1, 0, 0x81, 0x80, 0x80, 0x80, 0x08, 0]]),
                "run names series that are not in the batch",
            ),
            (sections(&[new, &[1, 2, 0xff, 0xff, 0xff, 0xff, 0x0f, 0]]), "run too long"),
            (sections(&[new, &[1, 0, 0x80, 0x80, 0x80, 0x80, 0x10, 0]]), "run too long"),
            (
                sections(&[one, &[1, 0x80, 0x80, 0x80, 0x80, 0x10, 2, 0]]),
                "run names series that are not in the batch",
            ),
            (sections(&[new, &run(5, 2), value]), "number of values is not that of the runs"),
            (sections(&[new, &run(5, 1), &[0]]), "number of values is not that of the runs"),
            (sections(&[new, &run(5, 1), &[1, 0]]), "count larger than the input"),
            (
                sections(&[new, &run(5, 1), value, &[1, 0, 2, 0]]),
                "start timestamps of values that are not there",
            ),
            (sections(&[new, &run(5, 1), value, &[2, 0, 1, 0, 0, 1, 0]]), "start timestamps out of order"),
            (sections(&[new, new, new, new, &[&[1][..], &new_ref, &[0, 0, 0]].concat()]), "ref out of range"),
            (sections(&[new, new, new, new, &[1, 0, 0, 0, 9]]), "cut short"),
            (
                sections(&[new, new, new, new, new, &[&[1][..], &new_ref, &[0; 10]].concat()]),
                "ref out of range",
            ),
            (sections(&[new, new, new, new, new, &[1, 0, 0]]), "count larger than the input"),
            (sections(&[new, new, new, new, new, new, &[1, 1, 0xff, 0, 0, 0]]), "text is not UTF-8"),
        ];
        for (i, (bytes, reason)) in table.iter().enumerate() {
            let e = WriteBatchView::parse(bytes).unwrap_err();
            assert_eq!(e.to_string(), *reason, "row {i}: {bytes:?}");
        }
    }

    #[test]
    fn every_cut_and_every_flipped_byte_is_an_error_or_a_batch_never_a_panic() {
        let bytes = sample_batch();
        for n in 0..bytes.len() {
            assert!(WriteBatchView::parse(&bytes[..n]).is_err(), "cut at {n}");
        }
        for i in 0..bytes.len() {
            for bit in 0..8 {
                let mut b = bytes.to_vec();
                b[i] ^= 1 << bit;
                crate::fuzz::fuzz_write_batch(&b);
            }
        }
    }
}
