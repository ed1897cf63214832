//! Messages byte by byte, also in forms that no usual sender makes, and a small generator of numbers.

/// A field with a length.
pub fn bytes(field: u32, content: &[u8]) -> Vec<u8> {
    let mut out = varint(u64::from(field << 3 | 2));
    out.extend(varint(content.len() as u64));
    out.extend_from_slice(content);
    out
}

pub fn varint(mut n: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
    out
}

pub fn number(field: u32, n: u64) -> Vec<u8> {
    [varint(u64::from(field << 3)), varint(n)].concat()
}

pub fn double(field: u32, v: f64) -> Vec<u8> {
    [varint(u64::from(field << 3 | 1)), v.to_le_bytes().to_vec()].concat()
}

/// A label field of 1.0.
pub fn label(name: &str, value: &str) -> Vec<u8> {
    bytes(1, &[bytes(1, name.as_bytes()), bytes(2, value.as_bytes())].concat())
}

pub fn label_fields(labels: &[(&str, &str)]) -> Vec<u8> {
    labels.iter().flat_map(|(n, v)| label(n, v)).collect()
}

/// A sample field; a value of 0 is left out, as Go senders do.
pub fn sample(t: i64, v: f64) -> Vec<u8> {
    let value = if v.to_bits() == 0 { Vec::new() } else { double(1, v) };
    bytes(2, &[value, number(2, t as u64)].concat())
}

/// A series field of 1.0.
pub fn series(labels: &[(&str, &str)], samples: &[(i64, f64)]) -> Vec<u8> {
    let samples: Vec<u8> = samples.iter().flat_map(|&(t, v)| sample(t, v)).collect();
    bytes(1, &[label_fields(labels), samples].concat())
}

/// A 2.0 message under construction.
pub struct V2 {
    pub symbols: Vec<String>,
    series: Vec<u8>,
}

impl Default for V2 {
    fn default() -> Self {
        Self { symbols: vec![String::new()], series: Vec::new() }
    }
}

impl V2 {
    pub fn symbol(&mut self, text: &str) -> u32 {
        if let Some(i) = self.symbols.iter().position(|s| s == text) {
            return i as u32;
        }
        self.symbols.push(text.to_owned());
        self.symbols.len() as u32 - 1
    }

    pub fn refs(&mut self, labels: &[(&str, &str)]) -> Vec<u32> {
        labels.iter().flat_map(|(n, v)| [self.symbol(n), self.symbol(v)]).collect()
    }

    /// Adds a series with labels by reference and further fields.
    pub fn raw(&mut self, refs: &[u32], fields: &[u8]) {
        self.series.extend(bytes(5, &[packed(1, refs), fields.to_vec()].concat()));
    }

    pub fn series(&mut self, labels: &[(&str, &str)], fields: &[u8]) {
        let refs = self.refs(labels);
        self.raw(&refs, fields);
    }

    pub fn message(&self) -> Vec<u8> {
        let symbols: Vec<u8> = self.symbols.iter().flat_map(|s| bytes(4, s.as_bytes())).collect();
        [symbols, self.series.clone()].concat()
    }
}

pub fn packed(field: u32, refs: &[u32]) -> Vec<u8> {
    bytes(field, &refs.iter().flat_map(|&r| varint(u64::from(r))).collect::<Vec<u8>>())
}

/// A sample field of 2.0.
pub fn sample_v2(t: i64, v: f64, start: i64) -> Vec<u8> {
    let start = if start == 0 { Vec::new() } else { number(3, start as u64) };
    bytes(2, &[double(1, v), number(2, t as u64), start].concat())
}

/// An exemplar field of 2.0.
pub fn exemplar_v2(refs: &[u32], t: i64, v: f64) -> Vec<u8> {
    bytes(4, &[packed(1, refs), double(2, v), number(3, t as u64)].concat())
}

/// A metadata field of 2.0.
pub fn metadata_v2(metric_type: u64, help: u32, unit: u32) -> Vec<u8> {
    let fields = [number(1, metric_type), number(3, u64::from(help)), number(4, u64::from(unit))];
    bytes(5, &fields.concat())
}

/// SplitMix64: the same numbers for the same seed.
pub struct Numbers(pub u64);

impl Numbers {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}
