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

/// Appends a time series with one integer native histogram of schema 0 whose buckets begin at index 0.
pub fn native_series(out: &mut Vec<u8>, labels: &[u8], counts: &[u64], sum: f64, t: i64) {
    let mut h = Vec::new();
    h.push(1 << 3);
    varint(&mut h, counts.iter().sum());
    h.push(3 << 3 | 1);
    h.extend_from_slice(&sum.to_le_bytes());
    h.push(5 << 3 | 1);
    h.extend_from_slice(&1e-128f64.to_le_bytes());
    let mut span = Vec::new();
    span.push(2 << 3);
    varint(&mut span, counts.len() as u64);
    bytes_field(&mut h, 11, &span);
    let mut deltas = Vec::new();
    let mut previous = 0i64;
    for &c in counts {
        let d = c as i64 - previous;
        varint(&mut deltas, ((d << 1) ^ (d >> 63)) as u64);
        previous = c as i64;
    }
    bytes_field(&mut h, 12, &deltas);
    h.push(15 << 3);
    varint(&mut h, t as u64);
    let mut message = labels.to_vec();
    bytes_field(&mut message, 4, &h);
    bytes_field(out, 1, &message);
}
