//! Remote write 1.0 on the wire: protobuf by hand and snappy's block format.

/// Appends a varint.
pub fn varint(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

fn bytes_field(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    out.push(field << 3 | 2);
    varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// The label fields of a time series, in order of name.
pub fn labels(pairs: &[(String, String)]) -> Vec<u8> {
    let mut sorted = pairs.to_vec();
    sorted.sort();
    let mut out = Vec::new();
    let mut one = Vec::new();
    for (name, value) in &sorted {
        one.clear();
        bytes_field(&mut one, 1, name.as_bytes());
        bytes_field(&mut one, 2, value.as_bytes());
        bytes_field(&mut out, 1, &one);
    }
    out
}

/// A sample message. As Go's encoder does, a value of 0 is left out.
fn sample(out: &mut Vec<u8>, v: f64, t: i64) {
    if v.to_bits() != 0 {
        out.push(1 << 3 | 1);
        out.extend_from_slice(&v.to_le_bytes());
    }
    out.push(2 << 3);
    varint(out, t as u64);
}

/// Appends a time series with one float sample.
pub fn series(out: &mut Vec<u8>, scratch: &mut Vec<u8>, labels: &[u8], v: f64, t: i64) {
    scratch.clear();
    sample(scratch, v, t);
    let length = labels.len() + 2 + scratch.len();
    out.push(1 << 3 | 2);
    varint(out, length as u64);
    out.extend_from_slice(labels);
    out.push(2 << 3 | 2);
    out.push(scratch.len() as u8);
    out.extend_from_slice(scratch);
}

/// An integer native histogram whose buckets are positive and next to each other.
pub struct NativeHistogram {
    /// Resolution: a bucket's upper bound is the one below it times 2^(2^-schema).
    pub schema: i64,
    /// Index of the first bucket.
    pub first: i64,
    /// Observations of each bucket, not cumulative.
    pub counts: Vec<u64>,
    /// Sum of the observations.
    pub sum: f64,
}

fn zigzag(n: i64) -> u64 {
    ((n << 1) ^ (n >> 63)) as u64
}

/// Appends a time series with one native histogram, `scratch` being free memory.
pub fn native_series(out: &mut Vec<u8>, scratch: &mut Vec<u8>, labels: &[u8], h: &NativeHistogram, t: i64) {
    let m = scratch;
    m.clear();
    m.push(1 << 3);
    varint(m, h.counts.iter().sum());
    m.push(3 << 3 | 1);
    m.extend_from_slice(&h.sum.to_le_bytes());
    m.push(4 << 3);
    varint(m, zigzag(h.schema));
    m.push(5 << 3 | 1);
    m.extend_from_slice(&1e-128f64.to_le_bytes());
    // One span: its offset is the first bucket's index.
    let mut packed = vec![1 << 3];
    varint(&mut packed, zigzag(h.first));
    packed.push(2 << 3);
    varint(&mut packed, h.counts.len() as u64);
    bytes_field(m, 11, &packed);
    packed.clear();
    let mut previous = 0i64;
    for &c in &h.counts {
        varint(&mut packed, zigzag(c as i64 - previous));
        previous = c as i64;
    }
    bytes_field(m, 12, &packed);
    m.push(15 << 3);
    varint(m, t as u64);

    packed.clear();
    bytes_field(&mut packed, 4, m);
    out.push(1 << 3 | 2);
    varint(out, (labels.len() + packed.len()) as u64);
    out.extend_from_slice(labels);
    out.extend_from_slice(&packed);
}
